"""How far the machine's clock is believed.

The store remembers a moment that has passed for certain, the *mark*. It follows the clock, but at most twice as fast
as time passes (and an hour more at each start): what a clock that was far ahead leaves behind is forgotten about as
soon as it lasted, and a time without the daemon is made up for. A clock before the mark, or after the end of the
daemon's own authority, is in doubt. Then nothing is issued, and what has ended is judged by the mark.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from hengd.records import META_KEY, pack
from hengd.rules.fleet import read_meta
from hengd.store import Reader, Store, Transaction
from henge_protocol import pki
from henge_protocol.errors import Unavailable

CLOCK_SLACK_S: Final = 300.0
"""So far a time server may set a clock back without anybody noticing."""
LEAP_S: Final = 3600.0
"""So far beyond the mark a clock is believed at once, at each start."""
CATCH_UP: Final = 2.0
"""Twice as fast: a mark that lags by a month of absence is right again after a month."""


class Timekeeper:
    """The clock, the mark, and what follows when they disagree. ``ends`` tells when the daemon's authority ends."""

    def __init__(
        self, store: Store, *, ends: Callable[[], float], clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._store = store
        self._ends = ends
        self._clock = clock
        self._monotonic = monotonic
        self._noted = monotonic()
        self._leap_s = LEAP_S

    def trouble(self, tx: Reader) -> Unavailable | None:
        """Why the clock is in doubt, ``clock_suspect``; None if it is not."""
        return doubt(self._clock(), mark_of(tx), self._ends())

    def check(self, tx: Reader) -> None:
        """Raise ``Unavailable`` ``clock_suspect`` while the clock is in doubt."""
        trouble = self.trouble(tx)
        if trouble is not None:
            raise trouble

    def now(self, tx: Reader) -> float:
        """The time by which certificates end: the clock's, or the mark while that is in doubt."""
        return self._clock() if self.trouble(tx) is None else mark_of(tx)

    def passed(self, tx: Reader) -> float:
        """A moment that has passed for certain: by it, old things may be thrown away."""
        return min(self._clock(), mark_of(tx))

    async def note(self) -> None:
        """Let the mark follow the clock; called now and then."""
        now, ticks = self._clock(), self._monotonic()
        most_s = self._leap_s + CATCH_UP * max(0.0, ticks - self._noted)

        def operation(tx: Transaction) -> None:
            mark = mark_of(tx)
            moved = min(now, mark + most_s)
            if moved > mark:
                set_mark(tx, moved)

        await self._store.write(operation)
        self._noted, self._leap_s = ticks, 0.0


def mark_of(tx: Reader) -> float:
    """The mark, unix seconds; never before henge existed."""
    return max(read_meta(tx).clock_high_water, pki.EARLIEST_CREATION)


def set_mark(tx: Transaction, mark: float) -> None:
    """Move the mark, forwards or, for a person who knows the time, back."""
    tx.put("meta", META_KEY, pack(msgspec.structs.replace(read_meta(tx), clock_high_water=mark)))


def doubt(now: float, mark: float, ends: float) -> Unavailable | None:
    """What is wrong with a clock that says ``now``."""
    said, cure = f"the daemon's clock says {shown(now)}", "set the clock of the daemon's machine (timedatectl)"
    if now < pki.EARLIEST_CREATION - CLOCK_SLACK_S:
        return Unavailable("clock_suspect", f"{said}, before there was any henge; no certificate is issued", cure=cure)
    if mark - now > CLOCK_SLACK_S:
        return Unavailable(
            "clock_suspect",
            f"{said}, but its store has seen {shown(mark)}; no certificate is issued",
            cure=f"{cure}; if it is right, stop hengd and run: hengd accept-clock",
        )
    if now > ends:
        return Unavailable(
            "clock_suspect",
            f"{said}, after {shown(ends)}, when its own authority ends; no certificate is issued",
            cure=cure,
        )
    return None


def shown(moment: float) -> str:
    """A moment for people, UTC."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f} s since 1970"
