"""Telling systemd how a service fares (sd_notify(3)): one datagram to the socket that it names."""

from __future__ import annotations

import socket
from collections.abc import Mapping


def notify(*lines: str, environ: Mapping[str, str]) -> bool:
    """Send lines such as ``READY=1`` or ``STATUS=...``; False when nobody asked for them or the socket is gone.

    Never blocks and never raises: a service that cannot say that it runs runs all the same.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            sender.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True


def watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """How often to send ``WATCHDOG=1``: half of what systemd allows, None when it does not watch this process."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isascii() and microseconds.isdigit() and int(microseconds) else None
