"""Who may hold a connection: limits, the counts against them, and how often a refusal is worth a log line.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What one listener bears.  Times in seconds."""

    max_connections: int = 8192
    """Open connections of this listener; more are closed at accept."""
    per_address: int = 64
    """Open connections of one address (an IPv6 /64 counts as one); a fleet behind NAT needs more."""
    handshakes: int = 128
    """TLS handshakes under way; above it, who has most of them gives way, or connections wait in the kernel's queue."""
    handshakes_per_address: int = 8
    """TLS handshakes under way from one address; more are closed at accept."""
    handshake_s: float = 10.0
    """From accept to the end of the TLS handshake."""
    hurried_handshake_s: float = 5.0
    """The same while others wait for their turn; the slowest boards need two seconds."""
    silence_s: float = 1.0
    """The same for a client that has not sent a byte: honest ones speak first, and at once."""
    head_s: float = 10.0
    """To receive a request head: the first from the start of the connection, later ones from their first byte."""
    idle_s: float = 75.0
    """A keep-alive connection without a request."""
    linger_s: float = 5.0
    """To take a last answer and close, before the connection is cut."""
    max_head_bytes: int = 16384
    max_requests_per_connection: int = 1000


RESERVED_FILES: Final = 64
"""Descriptors for the store, the journal, the log, listeners, and what libraries open for a moment."""
LOCAL_SHARE: Final = 16
"""A listener for this machine only gets one part of so many."""


def connections_within(max_files: int, *, local: bool) -> int:
    """How many connections a listener may hold, so that all listeners together leave descriptors for the store."""
    share = max_files // LOCAL_SHARE
    return share if local else max(0, max_files - RESERVED_FILES - 2 * share)


class Admission:
    """Counts of connections and handshakes, in total and per origin."""

    def __init__(self, limits: GateLimits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._shaking: Counter[str] = Counter()
        self.open = 0
        self.handshakes = 0

    def refuse(self, origin: str, *, handshake: bool) -> str:
        """Why one more connection of ``origin`` may not be let in; empty if it may.  An empty origin has no share."""
        if self.is_full:
            return "full"
        if origin and self._open[origin] >= self._limits.per_address:
            return "per_address"
        if handshake and origin and self._shaking[origin] >= self._limits.handshakes_per_address:
            return "handshakes_per_address"
        if handshake and self.is_shaking_enough and not self._has_less_than_the_greediest(origin):
            return "handshakes"
        return ""

    @property
    def is_full(self) -> bool:
        """True while no further connection has room."""
        return self.open >= self._limits.max_connections

    @property
    def is_shaking_enough(self) -> bool:
        """True while no further handshake should begin."""
        return self.handshakes >= self._limits.handshakes

    @property
    def can_give_way(self) -> bool:
        """True while handshakes of one origin may be cut for those of another: it has several and is not alone."""
        return len(self._shaking) > 1 and max(self._shaking.values()) > 1

    def greediest(self, shaking: Iterable[str]) -> str:
        """The origin with most handshakes; of several, the one that ``shaking`` names first."""
        return max(shaking, key=lambda origin: self._shaking[origin])

    def _has_less_than_the_greediest(self, origin: str) -> bool:
        return self._shaking[origin] + 1 < max(self._shaking.values(), default=0)

    def enter(self, origin: str) -> None:
        """Count a connection."""
        self.open += 1
        self._open[origin] += 1

    def leave(self, origin: str) -> None:
        """Count a connection that has ended."""
        self.open -= 1
        _drop(self._open, origin)

    def handshake_begun(self, origin: str) -> None:
        """Count a handshake."""
        self.handshakes += 1
        self._shaking[origin] += 1

    def handshake_over(self, origin: str) -> None:
        """Count a handshake that has ended, well or badly."""
        self.handshakes -= 1
        _drop(self._shaking, origin)


class LogBudget:
    """Lets one line per kind and origin pass in each period, so that a flood of refusals is no flood of lines."""

    def __init__(self, *, period_s: float = 60.0, max_entries: int = 1024) -> None:
        self._period_s = period_s
        self._max_entries = max_entries
        self._until: dict[tuple[str, str], float] = {}

    def allows(self, kind: str, origin: str, now: float) -> bool:
        """True if a line may be written now; it then counts as written."""
        if self._until.get((kind, origin), now) > now:
            return False
        if len(self._until) >= self._max_entries:
            self._until = {key: until for key, until in self._until.items() if until > now}
        if len(self._until) >= self._max_entries:
            return False
        self._until[kind, origin] = now + self._period_s
        return True


def _drop(counts: Counter[str], origin: str) -> None:
    counts[origin] -= 1
    if counts[origin] <= 0:
        del counts[origin]
