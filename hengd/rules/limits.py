"""Counting failures per address, so that guessing is slow. Pure: time is an argument, in monotonic seconds."""

from __future__ import annotations

import ipaddress
from collections import deque
from typing import Final

from henge_protocol.errors import Limited

WINDOW_S: Final = 60.0
MAX_ADDRESSES: Final = 4096


def counted_as(address: str) -> str:
    """The unit in which an address is counted: IPv6 by /64, mapped IPv4 as IPv4, scope removed."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class FailureLimit:
    """Refuses an address (and everybody) after too many failures within a minute."""

    def __init__(self, per_address: int = 5, total: int = 30) -> None:
        self._per_address = per_address
        self._total = total
        self._failures: dict[str, deque[float]] = {}
        self._all: deque[float] = deque()

    def check(self, address: str, *, now: float) -> None:
        """Raise ``Limited`` while this address, or everybody together, failed too often."""
        mine = self._failures.get(counted_as(address), deque())
        for failures, most in ((mine, self._per_address), (self._all, self._total)):
            while failures and now - failures[0] > WINDOW_S:
                failures.popleft()
            if len(failures) >= most:
                wait_s = int(WINDOW_S - (now - failures[0])) + 1
                raise Limited(
                    "rate_limited",
                    f"{most} failed attempts within a minute; wait {wait_s} s",
                    cure="check the token or code before the next attempt",
                    extra={"retry_after_s": wait_s},
                )

    def failed(self, address: str, *, now: float) -> None:
        """Count one failure."""
        if len(self._failures) >= MAX_ADDRESSES:
            self._failures.clear()
        self._failures.setdefault(counted_as(address), deque()).append(now)
        self._all.append(now)
