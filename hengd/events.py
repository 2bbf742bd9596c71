"""What happened lately, numbered without gaps: for ``events -w``, ``get -w`` and ``--wait``.

Kept in memory only. A listener that missed some sees the gap and reads the objects again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

KEPT: Final = 4096

Type = Literal[
    "object.changed", "object.deleted", "device.changed", "device.online", "device.offline", "device.reported",
    "device.shared",
    "join.requested", "join.closed",
]  # fmt: skip
TYPES: Final[tuple[str, ...]] = get_args(Type)


class Event(NamedTuple):
    """One happening; ``detail`` holds what is particular to its type."""

    seq: int
    time: float
    type: str
    kind: str
    name: str
    detail: dict[str, Any]


S = TypeVar("S")


class _Run(NamedTuple):
    """Happenings of one type at one time; made into events only if somebody asks, since a fleet has thousands."""

    first: int
    time: float
    type: str
    kind: str
    subjects: Sequence[Any]
    told: Callable[[Any], tuple[str, dict[str, Any]]]

    def after(self, seq: int) -> list[Event]:
        """Those numbered above ``seq``."""
        skipped = max(0, seq + 1 - self.first)
        return [
            Event(number, self.time, self.type, self.kind, *self.told(subject))
            for number, subject in enumerate(self.subjects[skipped:], self.first + skipped)
        ]


class EventLog:
    """The last events, and a way to sleep until the next."""

    def __init__(self, start: int = 0) -> None:
        """Number from ``start`` on; one that only grows from life to life lets nobody mistake a number of another."""
        self._runs: deque[_Run] = deque()
        self._seq = start
        self.closed = False
        """The daemon stops: streams of events end."""
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def seq(self) -> int:
        """Number of the newest event; ``start`` before the first."""
        return self._seq

    def add(self, time: float, type_: Type, kind: str, name: str, **detail: Any) -> None:
        """Record an event and wake who waits."""
        self.add_all(time, type_, kind, (name,), lambda name: (name, detail))

    def add_all(
        self,
        time: float,
        type_: Type,
        kind: str,
        subjects: Sequence[S],
        told: Callable[[S], tuple[str, dict[str, Any]]],
    ) -> None:
        """Record an event for each subject; ``told`` gives its name and detail when somebody reads it."""
        if not subjects:
            return
        self._runs.append(_Run(self._seq + 1, time, type_, kind, subjects, told))
        self._seq += len(subjects)
        while len(self._runs) > 1 and self._runs[1].first <= self._seq - KEPT + 1:
            self._runs.popleft()
        self._wake()

    def since(self, seq: int) -> tuple[list[Event], bool]:
        """Events after ``seq``, and whether some of those are gone already (or ``seq`` is from the future)."""
        oldest = max(self._runs[0].first, self._seq - KEPT + 1) if self._runs else self._seq + 1
        gap = seq + 1 < oldest or seq > self._seq
        after = oldest - 1 if gap else seq
        newest_first: list[list[Event]] = []
        for run in reversed(self._runs):
            found = run.after(after)
            if not found:
                break
            newest_first.append(found)
        return [event for found in reversed(newest_first) for event in found], gap

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
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
