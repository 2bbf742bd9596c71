"""Counting requests and failures, so that nobody takes others' share. Pure: time is an argument, monotonic seconds."""

from __future__ import annotations

import ipaddress
from collections import deque
from math import ceil
from typing import Final

from henge_protocol.errors import Limited

WINDOW_S: Final = 60.0
MAX_ADDRESSES: Final = 4096
"""Addresses whose failures are remembered; beyond it, those that failed longest ago are forgotten."""


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


class RateLimit:
    """Lets everybody do something so often in a second, and so often at once after a rest."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._every_s = 1 / per_s
        self._rest_s = burst / per_s
        self._paid_until: dict[str, float] = {}

    def take(self, who: str, *, now: float) -> None:
        """Count one; raises ``Limited``, and counts nothing, when it is too many."""
        paid_until = max(now, self._paid_until.get(who, now)) + self._every_s
        wait_s = paid_until - now - self._rest_s
        if wait_s > 1e-9:
            raise Limited(
                "rate_limited",
                f"more than {1 / self._every_s:g} requests a second; wait {ceil(wait_s)} s",
                cure="wait that long; a list, or /v1/events, spares many single requests",
                extra={"retry_after_s": ceil(wait_s)},
            )
        if len(self._paid_until) >= MAX_ADDRESSES:
            self._paid_until = {other: until for other, until in self._paid_until.items() if until > now}
        self._paid_until[who] = paid_until


class FailureLimit:
    """Refuses the further failures of an address that failed too often within a minute.

    It spares log and processor. What keeps a secret from being guessed is its length, so who does know it
    need not be asked here: neighbours who guess lock nobody out.
    """

    def __init__(self, per_address: int = 5) -> None:
        self._per_address = per_address
        self._failures: dict[str, deque[float]] = {}

    def check(self, address: str, *, now: float) -> None:
        """Raise ``Limited`` while this address failed too often."""
        failures = self._failures.get(counted_as(address), deque())
        while failures and now - failures[0] > WINDOW_S:
            failures.popleft()
        if len(failures) >= self._per_address:
            wait_s = int(WINDOW_S - (now - failures[0])) + 1
            raise Limited(
                "rate_limited",
                f"{self._per_address} failed attempts within a minute; wait {wait_s} s",
                cure="check the token before the next attempt",
                extra={"retry_after_s": wait_s},
            )

    def failed(self, address: str, *, now: float) -> None:
        """Count one failure."""
        failures = self._failures.pop(counted_as(address), deque())
        if len(self._failures) >= MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        failures.append(now)
        self._failures[counted_as(address)] = failures
