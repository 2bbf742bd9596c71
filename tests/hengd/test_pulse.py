"""How late the event loop is: a stall is seen, rest is not."""

from __future__ import annotations

import asyncio
import os
import time

from hengd.pulse import Pulse

STALL_S = 0.25


async def test_a_stall_of_the_loop_is_seen() -> None:
    pulse = Pulse(beat_s=0.01)
    beating = asyncio.create_task(pulse.run())
    await asyncio.sleep(0)
    time.sleep(STALL_S)  # noqa: ASYNC251  # this is the stall
    while pulse.vitals().lag_s == 0:  # noqa: ASYNC110  # a beat tells nobody
        await asyncio.sleep(0)
    beating.cancel()

    assert pulse.vitals().lag_s >= STALL_S - 0.02


async def test_a_stall_is_forgotten_after_a_minute_of_beats() -> None:
    pulse = Pulse(beat_s=20)

    assert pulse._lags.maxlen == 3


def test_memory_and_time_are_those_of_this_process() -> None:
    vitals = Pulse().vitals()

    assert 10_000_000 < vitals.memory_bytes < 64 * 2**30
    assert 0 < vitals.cpu_s <= sum(os.times()[:2]) + 1
