"""The mark of time on a real store: it follows the clock, and a clock that was wrong is forgiven in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hengd.datadir import open_data_dir
from hengd.rules.timekeeping import CLOCK_SLACK_S, LEAP_S, Timekeeper, doubt, mark_of, shown
from hengd.store import Store
from henge_protocol import pki
from henge_protocol.errors import Unavailable

NOW = 1_800_000_000.0
HOUR_S, DAY_S, YEAR_S = 3600.0, 86400.0, 365 * 86400.0
ENDS = NOW + 10 * YEAR_S


class Days:
    """A daemon's days: time passes, clocks are set, upkeep notes the time every ten minutes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOW
        self.ticks = 0.0
        self.start()

    def start(self) -> None:
        """Start the daemon (again)."""
        self.keeper = Timekeeper(self.store, ends=lambda: ENDS, clock=lambda: self.now, monotonic=lambda: self.ticks)

    async def run(self, seconds: float, *, turns: int = 6) -> None:
        """Let time pass."""
        for _ in range(turns):
            self.now += seconds / turns
            self.ticks += seconds / turns
            await self.keeper.note()

    @property
    def mark(self) -> float:
        """The mark now."""
        with self.store.read() as tx:
            return mark_of(tx)

    @property
    def in_doubt(self) -> bool:
        """Whether the clock is in doubt; asking and checking agree."""
        with self.store.read() as tx:
            if self.keeper.trouble(tx) is None:
                self.keeper.check(tx)
                return False
            with pytest.raises(Unavailable):
                self.keeper.check(tx)
            return True

    def passed(self) -> float:
        """A moment that has passed for certain."""
        with self.store.read() as tx:
            return self.keeper.passed(tx)

    def judged(self) -> float:
        """The time by which certificates end."""
        with self.store.read() as tx:
            return self.keeper.now(tx)


@pytest.fixture
async def days(tmp_path: Path) -> AsyncIterator[Days]:
    folder = open_data_dir(tmp_path / "state", allow_network_fs=True, now=NOW, map_bytes=2**24)
    store = Store.open(folder.database, map_bytes=2**24)
    try:
        yield Days(store)
    finally:
        await store.close()
        folder.close()


async def test_the_mark_follows_a_clock_that_is_right(days: Days) -> None:
    await days.run(90 * DAY_S)

    assert (days.mark, days.in_doubt) == (days.now, False)


@pytest.mark.parametrize("back_s", [HOUR_S, YEAR_S, 56 * YEAR_S])
async def test_a_clock_set_back_is_in_doubt_and_ends_nothing_before_its_time(days: Days, back_s: float) -> None:
    await days.run(DAY_S)
    mark = days.mark
    days.now -= back_s
    await days.keeper.note()

    assert days.in_doubt
    assert (days.mark, days.judged(), days.passed()) == (mark, mark, days.now)
    days.now = mark - CLOCK_SLACK_S
    assert not days.in_doubt


@pytest.mark.parametrize("ahead_s", [HOUR_S, YEAR_S, 9 * YEAR_S, 30 * YEAR_S])
async def test_a_clock_that_was_ahead_is_held_against_us_no_longer_than_it_lasted_and_an_hour(
    days: Days, ahead_s: float
) -> None:
    await days.run(DAY_S)
    days.now += ahead_s
    await days.run(2 * HOUR_S)
    days.now -= ahead_s

    assert 0 <= days.mark - days.now <= 2 * HOUR_S + LEAP_S
    await days.run(2 * HOUR_S + LEAP_S)
    assert not days.in_doubt


@pytest.mark.parametrize("starts", [1, 5])
async def test_starts_do_not_let_a_clock_that_is_ahead_run_away_with_the_mark(days: Days, starts: int) -> None:
    days.now += 5 * YEAR_S
    for _ in range(starts):
        days.start()
        await days.run(60.0)

    assert days.mark <= NOW + starts * (LEAP_S + 120.0)


async def test_an_absence_is_made_up_for_in_as_much_time(days: Days) -> None:
    days.now += 30 * DAY_S
    days.start()
    await days.run(DAY_S)
    assert days.mark == pytest.approx(NOW + LEAP_S + 2 * DAY_S)
    await days.run(30 * DAY_S)

    assert (days.mark, days.in_doubt) == (days.now, False)


async def test_after_the_end_of_its_own_authority_the_clock_is_in_doubt_and_the_mark_counts(days: Days) -> None:
    days.now += 30 * YEAR_S
    mark = days.mark

    assert (days.in_doubt, days.judged(), days.passed()) == (True, mark, mark)


async def test_a_note_that_could_not_be_written_does_not_lose_its_time(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(operation: object) -> None:
        raise OSError("full")

    with monkeypatch.context() as patched:
        patched.setattr(days.store, "write", full)
        for _ in range(3):
            with pytest.raises(OSError, match="full"):
                await days.run(DAY_S, turns=1)
    await days.run(60.0, turns=1)

    assert days.mark == days.now


def test_before_henge_existed_every_clock_is_wrong() -> None:
    early = doubt(pki.EARLIEST_CREATION - DAY_S, pki.EARLIEST_CREATION, ENDS)

    assert early is not None
    assert "2025-12-31" in early.message
    assert "accept-clock" not in early.cure, "which takes no such time"


def test_a_clock_behind_the_mark_is_told_with_the_command_that_accepts_it() -> None:
    late = doubt(NOW, NOW + DAY_S, ENDS)

    assert late is not None
    assert shown(NOW) in late.message
    assert shown(NOW + DAY_S) in late.message
    assert "timedatectl" in late.cure
    assert "hengd accept-clock" in late.cure


@pytest.mark.parametrize("moment", [0.0, -1.0, NOW, 253402300799.0, 1e18])
def test_every_moment_can_be_shown(moment: float) -> None:
    assert shown(moment)
