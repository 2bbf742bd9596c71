"""Peers of protocol version 1 as its first devices and daemons are: only what the version requires. Never updated."""
