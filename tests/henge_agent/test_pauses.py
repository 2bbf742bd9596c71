from __future__ import annotations

import asyncio

from henge_agent.pauses import Pause


async def test_a_pause_lasts_as_long_as_the_sleep() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await Pause(sleep).take(7.0)

    assert slept == [7.0]


async def test_a_pause_ends_when_somebody_ends_it_and_the_next_one_is_whole() -> None:
    begun: asyncio.Queue[float] = asyncio.Queue()

    async def sleep(seconds: float) -> None:
        await begun.put(seconds)
        await asyncio.Event().wait()

    pause = Pause(sleep)
    pause.end()  # nobody sleeps
    for seconds in (1.0, 2.0):
        taking = asyncio.create_task(pause.take(seconds))
        assert await begun.get() == seconds
        assert not taking.done()
        pause.end()
        await taking


async def test_who_is_cancelled_leaves_no_sleep_behind() -> None:
    ended = asyncio.Event()

    async def sleep(seconds: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    taking = asyncio.create_task(Pause(sleep).take(1.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait([taking])
    await ended.wait()

    assert taking.cancelled()
