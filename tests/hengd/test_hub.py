"""The bell: whoever listens is woken, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hengd.hub import CHUNK, Hub


def listener(heard: list[str], name: str) -> Callable[[], None]:
    return lambda: heard.append(name)


async def test_a_ring_wakes_every_listener_of_these_devices_and_no_other() -> None:
    hub, heard = Hub(), []
    for device, name in (("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")):
        hub.listen(device, listener(heard, name))
    hub.ring(["a", "c", "unknown"])
    assert sorted(heard) == ["a1", "a2", "c1"]


async def test_who_has_left_is_not_woken_and_leaves_nothing_behind() -> None:
    hub, heard = Hub(), []
    mine = listener(heard, "mine")
    hub.listen("a", mine)
    hub.forget("a", mine)
    hub.forget("a", mine)
    hub.forget("never", mine)
    hub.ring(["a"])
    assert heard == []
    assert not hub._listeners


async def test_a_whole_fleet_is_woken_a_chunk_a_turn() -> None:
    hub, heard = Hub(), []
    devices = [f"d{number}" for number in range(3 * CHUNK + 1)]
    for device in devices:
        hub.listen(device, listener(heard, device))
    hub.ring(devices)
    counts = [len(heard)]
    while len(heard) < len(devices):
        await asyncio.sleep(0)
        counts.append(len(heard))
    assert counts == [CHUNK, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 1]
    assert heard == devices


async def test_a_listener_that_fails_keeps_nobody_asleep(caplog: pytest.LogCaptureFixture) -> None:
    hub, heard = Hub(), []

    def failing() -> None:
        raise RuntimeError("a damaged record")

    hub.listen("a", failing)
    hub.listen("b", listener(heard, "b"))
    hub.ring(["a", "b"])
    assert heard == ["b"]
    assert "a damaged record" in caplog.text


async def test_a_listener_may_leave_while_it_is_woken() -> None:
    hub, heard = Hub(), []

    def leaving() -> None:
        hub.forget("a", leaving)
        heard.append("left")

    hub.listen("a", leaving)
    hub.listen("a", listener(heard, "stays"))
    hub.ring(["a"])
    hub.ring(["a"])
    assert sorted(heard) == ["left", "stays", "stays"]
