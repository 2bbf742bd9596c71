"""Browsing with real mDNS on loopback, where other daemons may announce themselves at the same time."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from henge_protocol.beacon import MAX_CANDIDATES, SERVICE_TYPE, Sighting, txt_entries
from henge_protocol.browse import browse
from henge_protocol.pki import new_id
from tests.vectors import mdns_packets

FLEET = new_id(os.urandom(16))
OTHER = new_id(os.urandom(16))
TAG = FLEET[:6]
"""Makes names of this run: another run on this machine shares the loopback."""


def own_loopback() -> list[str]:
    """An address for one responder alone: of all that share one, a unicast answer reaches only one."""
    return [str(ipaddress.IPv4Address("127.1.0.0") + random.randrange(1, 2**23))]


async def found_among(packets: Sequence[bytes], *, timeout_s: float = 20, enough: int | None = 1) -> list[Sighting]:
    """What a browse finds that gets these packets, again and again, until it ends."""
    [ours] = own_loopback()
    looking = asyncio.create_task(
        browse(timeout_s=timeout_s, fleet_id=mdns_packets.FLEET, interfaces=[ours], enough=enough)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
        while not looking.done():
            for packet in packets:
                anybody.sendto(packet, (ours, 5353))
                await asyncio.sleep(0)
            await asyncio.wait([looking], timeout=0.05)
    return await looking


@asynccontextmanager
async def announced(*services: AsyncServiceInfo) -> AsyncIterator[None]:
    responder = AsyncZeroconf(interfaces=own_loopback())
    try:
        for service in services:  # without probing, which takes a second for each
            await (await responder.async_register_service(service, cooperating_responders=True))
        yield
    finally:
        await responder.async_close()


def service(name: str, fleet: str = FLEET, *, address: str = "127.0.0.1", port: int = 4364) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE_TYPE,
        f"{name}-{TAG}.{SERVICE_TYPE}",
        port=port,
        properties=txt_entries(fleet_id=fleet, server_ca_fingerprint=b"\xab" * 32),
        server=f"{name}-{TAG}-host.local.",
        parsed_addresses=[address],
    )


async def test_daemons_of_one_fleet_are_found() -> None:
    async with announced(service("bt-one"), service("bt-two", OTHER)):
        found = await browse(timeout_s=10, fleet_id=FLEET, interfaces=own_loopback(), allow_loopback=True, enough=1)

    [sighting] = found
    assert (sighting.name, sighting.addresses, sighting.port) == (f"bt-one-{TAG}", ("127.0.0.1",), 4364)
    assert (sighting.fleet, sighting.fp_hint) == (FLEET, "ab" * 8)


async def test_all_fleets_are_found_without_naming_one() -> None:
    async with announced(service("bt-one"), service("bt-two", OTHER)):
        async with asyncio.timeout(20):
            while not {FLEET, OTHER} <= await fleets_seen():
                pass


async def fleets_seen() -> set[str]:
    """Not the first two: those may be strangers."""
    found = await browse(timeout_s=0.7, interfaces=own_loopback(), allow_loopback=True)
    return {sighting.fleet for sighting in found}


async def test_what_cannot_be_used_is_passed_over() -> None:
    useless = [service("bt-public", address="8.8.8.8"), service("bt-loop", address="127.0.0.1")]
    async with announced(*useless, service("bt-home", address="10.0.0.9")):
        found = await browse(timeout_s=10, fleet_id=FLEET, interfaces=own_loopback(), enough=1)

    assert [sighting.name for sighting in found] == [f"bt-home-{TAG}"]


@pytest.mark.parametrize(
    "packets", [pytest.param(packets, id=what) for what, packets in mdns_packets.NOTHING + mdns_packets.DOUBTFUL]
)
async def test_what_is_no_announcement_announces_nothing(packets: list[bytes]) -> None:
    good = mdns_packets.answer(instance=b"good", target="good.local", owner="good.local")
    [sighting] = await found_among([*packets, good])

    assert sighting == Sighting("good", ("192.168.1.5",), 4364, mdns_packets.FLEET, mdns_packets.FP, 1_800_000_000)


@pytest.mark.parametrize(
    ("packet", "addresses"), [pytest.param(*case, id=what) for what, *case in mdns_packets.SOMETHING]
)
async def test_what_is_odd_is_read_all_the_same(packet: bytes, addresses: int) -> None:
    [sighting] = await found_among([packet])

    assert len(sighting.addresses) == addresses
    assert all(character.isprintable() for character in sighting.name)
    assert (sighting.port, sighting.fleet, sighting.fp_hint, sighting.unix_s) == (
        4364, mdns_packets.FLEET, mdns_packets.FP, 1_800_000_000,
    )  # fmt: skip


async def test_of_a_flood_of_announcements_few_are_kept() -> None:  # M14
    flood = [mdns_packets.answer(instance=b"fake-%d" % number, port=1 + number) for number in range(300)]
    found = await found_among(flood, timeout_s=2, enough=None)

    assert 0 < len(found) <= MAX_CANDIDATES


async def test_a_browse_ends_in_time_when_nobody_answers() -> None:
    started = asyncio.get_running_loop().time()
    found = await browse(timeout_s=0.2, fleet_id=new_id(os.urandom(16)), interfaces=own_loopback())

    assert found == []
    assert asyncio.get_running_loop().time() - started < 5


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # zeroconf leaves its first socket to the collector
async def test_trouble_with_the_network_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="henge_protocol.browse"):
        assert await browse(timeout_s=5, interfaces=["203.0.113.77"]) == []

    assert "cannot look for daemons" in caplog.text


async def test_a_cancelled_browse_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    looking = asyncio.create_task(browse(timeout_s=30, fleet_id=new_id(os.urandom(16)), interfaces=own_loopback()))
    await asyncio.sleep(0)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)

    assert looking.cancelled()
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()
