"""Waiting for real devices: told by events, and what is asked of the daemon meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from hengd.events import KEPT
from hengectl import waiting
from hengectl.client import Client, UnixConnection
from hengectl.kinds import Object
from hengectl.waiting import Verdict, in_sync_strictly, online, wait_for
from tests.service import Admin, Service, connected, device, schema

LAMPS = ["lamp-1", "lamp-2", "lamp-3"]


@pytest.fixture
async def fleet(admin: Admin) -> Admin:
    """Three lamps that are not there yet."""
    await admin.apply(schema(), *map(device, LAMPS))
    return admin


@pytest.fixture
def asked() -> list[str]:
    """The requests that were sent, in order."""
    return []


@pytest.fixture
def client(daemon: Service, asked: list[str]) -> Iterator[Client]:
    """Somebody on the daemon's machine."""

    def note(line: str) -> None:
        asked.append(line.partition(" -> ")[0])

    socket = daemon.socket
    with Client(str(socket), lambda timeout_s: UnixConnection(socket, timeout_s), trace=note) as client:
        yield client


class Watched:
    """A judge that tells when it was first asked."""

    def __init__(self, *, looks: int = 0) -> None:
        self.begun = threading.Event()
        self._left = looks

    def online(self, device: Object | None) -> Verdict:
        self.begun.set()
        return online(device)

    def content(self, device: Object | None) -> Verdict:
        """Content after some looks, however the device is."""
        self.begun.set()
        self._left -= 1
        return "reached" if self._left < 0 else "open"


@pytest.mark.parametrize("one_by_one", [1, 50])
async def test_events_have_only_the_devices_read_that_they_name(
    fleet: Admin, daemon: Service, client: Client, asked: list[str], monkeypatch: pytest.MonkeyPatch, one_by_one: int
) -> None:
    monkeypatch.setattr(waiting, "READ_ONE_BY_ONE", one_by_one)
    told: list[tuple[str, Verdict]] = []
    judge = Watched()
    waits = asyncio.create_task(
        asyncio.to_thread(wait_for, client, LAMPS[:2], judge.online, 10, told=lambda *said: told.append(said[:2]))
    )
    assert await asyncio.to_thread(judge.begun.wait, 10)
    async with AsyncExitStack() as links:
        for name in (LAMPS[2], LAMPS[0], LAMPS[1]):
            await links.enter_async_context(connected(daemon, await daemon.join(fleet, name)))
        end = await waits

    assert end.verdicts == {"lamp-1": "reached", "lamp-2": "reached"}
    assert sorted(told) == [("lamp-1", "reached"), ("lamp-2", "reached")]
    assert asked.count("GET /v1/devices") == (1 if one_by_one == 1 else 0)
    assert "GET /v1/devices/lamp-3" not in asked


async def test_after_lost_events_all_are_read_again(fleet: Admin, daemon: Service, client: Client) -> None:
    judge = Watched(looks=2)
    waits = asyncio.create_task(asyncio.to_thread(wait_for, client, LAMPS[:2], judge.content, 10))
    assert await asyncio.to_thread(judge.begun.wait, 10)
    for _ in range(KEPT + 1):
        daemon.app.events.add(0.0, "object.changed", "Group", "other")

    assert (await waits).having("reached") == LAMPS[:2]


async def test_the_end_of_the_time_is_the_end_of_the_wait(fleet: Admin, client: Client) -> None:
    end = await asyncio.to_thread(wait_for, client, LAMPS, in_sync_strictly, 0.2)

    assert end.having("open") == LAMPS
