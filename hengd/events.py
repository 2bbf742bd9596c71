"""What happened lately, numbered without gaps: for ``events -w``, ``get -w`` and ``--wait``.

Kept in memory only. A listener that missed some sees the gap and reads the objects again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, NamedTuple

KEPT: Final = 4096

TYPES: Final = (
    "object.changed", "object.deleted", "device.changed", "device.online", "device.offline", "device.reported",
    "join.requested", "join.closed",
)  # fmt: skip


class Event(NamedTuple):
    """One happening; ``detail`` holds what is particular to its type."""

    seq: int
    time: float
    type: str
    kind: str
    name: str
    detail: dict[str, Any]


class EventLog:
    """The last events, and a way to sleep until the next."""

    def __init__(self, start: int = 0) -> None:
        """Number from ``start`` on; one that only grows from life to life lets nobody mistake a number of another."""
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._seq = start
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def seq(self) -> int:
        """Number of the newest event; ``start`` before the first."""
        return self._seq

    def add(self, time: float, type_: str, kind: str, name: str, **detail: Any) -> None:
        """Record an event and wake who waits."""
        self._seq += 1
        self._events.append(Event(self._seq, time, type_, kind, name, detail))
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def since(self, seq: int) -> tuple[list[Event], bool]:
        """Events after ``seq``, and whether some of those are gone already (or ``seq`` is from the future)."""
        oldest = self._events[0].seq if self._events else self._seq + 1
        gap = seq + 1 < oldest or seq > self._seq
        return [event for event in self._events if event.seq > seq or gap], gap

    async def wait(self, seq: int, timeout_s: float) -> None:
        """Sleep until there is an event after ``seq``, at most ``timeout_s`` seconds."""
        if self._seq != seq or timeout_s <= 0:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, timeout_s)
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)

    def close(self) -> None:
        """Wake all who wait, for shutdown."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
