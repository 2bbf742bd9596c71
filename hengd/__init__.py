"""The daemon: keeps desired configuration, tells devices, remembers what they said."""
