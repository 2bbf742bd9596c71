"""The announcer with real mDNS: on loopback, and across two network namespaces where root may make them."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from hengd.announce import Announcer, local_addresses
from henge_protocol.beacon import Sighting, usable_addresses
from henge_protocol.browse import browse
from henge_protocol.pki import new_id
from tests.hengd.http.gatekit import until

TAG = uuid.uuid4().hex[:6]
"""Makes the names of this run: another run on this machine shares the loopback."""
SEEN_WITHIN_S = 20.0


def own_loopback() -> str:
    """An address for one responder alone.

    A unicast answer (to a probe, say) reaches only one of all the responders on its address, whoever they are.
    """
    return str(ipaddress.IPv4Address("127.1.0.0") + random.randrange(1, 2**23))


def announcer(name: str, fleet: str, **changes: Any) -> Announcer:
    what: dict[str, Any] = {"interfaces": [own_loopback()], "addresses": lambda: ["127.0.0.1"], "clock": lambda: 1.8e9}
    what |= {"retry_first_s": 0.01, "addresses_checked_s": 0.01}
    return Announcer(name=name, port=4364, fleet_id=fleet, server_ca_fingerprint=b"\xcd" * 32, **(what | changes))


async def look(fleet: str, *, enough: int = 1, timeout_s: float = SEEN_WITHIN_S) -> list[Sighting]:
    return await browse(
        timeout_s=timeout_s, fleet_id=fleet, interfaces=[own_loopback()], allow_loopback=True, enough=enough
    )


async def test_an_announced_daemon_is_found_and_then_gone() -> None:
    fleet = new_id(os.urandom(16))
    daemon = announcer(f"an-plain-{TAG}", fleet)
    await daemon.start()
    try:
        assert await asyncio.wait_for(daemon.announced(), 20) == f"an-plain-{TAG}"
        found = await look(fleet)
    finally:
        await daemon.stop()

    assert found == [Sighting(f"an-plain-{TAG}", ("127.0.0.1",), 4364, fleet, "cd" * 8, 1_800_000_000)]
    assert await look(fleet, timeout_s=0.5) == []


async def test_a_taken_name_gets_a_number_and_both_stay() -> None:
    fleet = new_id(os.urandom(16))
    daemons = [announcer(f"an-twin-{TAG}", fleet) for _ in range(2)]
    names = []
    try:
        for daemon in daemons:
            await daemon.start()
            names.append(await asyncio.wait_for(daemon.announced(), 20))
        found = await look(fleet, enough=2)
    finally:
        await asyncio.gather(*(daemon.stop() for daemon in daemons))

    assert names == [f"an-twin-{TAG}", f"an-twin-{TAG}-2"]
    assert {sighting.name for sighting in found} == set(names)


async def test_trouble_at_the_start_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    fleet = new_id(os.urandom(16))
    answers: Iterator[list[str]] = iter([[], [], []])
    daemon = announcer(f"an-late-{TAG}", fleet, addresses=lambda: next(answers, ["127.0.0.1"]))

    with caplog.at_level(logging.WARNING, logger="hengd.announce"):
        await daemon.start()
        try:
            assert await asyncio.wait_for(daemon.announced(), 20) == f"an-late-{TAG}"
        finally:
            await daemon.stop()

    assert [record.getMessage() for record in caplog.records if record.name == "hengd.announce"] == [
        "not announced by mDNS, trying again: OSError('this machine has no address on a home network')"
    ]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # zeroconf leaves its first socket to the collector
async def test_no_interface_at_all_does_not_disturb_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    def counted() -> Sequence[str]:
        nonlocal tries
        tries += 1
        return ["127.0.0.1"]

    daemon = announcer(f"an-nowhere-{TAG}", new_id(os.urandom(16)), interfaces=["203.0.113.77"], addresses=counted)
    with caplog.at_level(logging.WARNING, logger="hengd.announce"):
        await daemon.start()
        await until(lambda: any("not announced by mDNS" in record.getMessage() for record in caplog.records))
        await daemon.stop()

    assert tries == 0, "no responder, so nothing to announce"


async def test_changed_addresses_and_an_old_clock_are_announced_anew() -> None:
    fleet = new_id(os.urandom(16))
    addresses, time = ["127.0.0.1"], [1.8e9]
    daemon = announcer(f"an-moved-{TAG}", fleet, addresses=lambda: list(addresses), clock=lambda: time[0])
    await daemon.start()
    try:
        await asyncio.wait_for(daemon.announced(), 20)
        time[0] += 7200
        async with asyncio.timeout(20):
            while [s.unix_s for s in await look(fleet)] != [1_800_007_200]:
                pass
        addresses[:] = ["127.0.0.9"]
        async with asyncio.timeout(20):
            while [s.addresses for s in await look(fleet)] != [("127.0.0.9",)]:
                pass
    finally:
        await daemon.stop()


async def test_stopping_twice_or_before_starting_is_fine() -> None:
    daemon = announcer(f"an-never-{TAG}", new_id(os.urandom(16)))

    await daemon.stop()
    await daemon.start()
    await daemon.stop()
    await daemon.stop()


def test_local_addresses_are_usable_ones() -> None:
    found = local_addresses()

    assert usable_addresses(found) == found


# ---- two hosts on one network


DAEMON = """
import asyncio, sys
from hengd.announce import Announcer
async def main():
    daemon = Announcer(name="an-netns", port=4364, fleet_id=sys.argv[1], server_ca_fingerprint=bytes(32))
    await daemon.start()
    print(await daemon.announced(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await daemon.stop()
asyncio.run(main())
"""
DEVICE = """
import asyncio, json, sys
from henge_protocol.browse import browse
found = asyncio.run(browse(timeout_s=15, fleet_id=sys.argv[1], enough=1))
print(json.dumps([[s.name, list(s.addresses), s.port] for s in found]))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the command ip, to make two network namespaces")
    tag = uuid.uuid4().hex[:6]
    hosts = (f"henge-a-{tag}", f"henge-b-{tag}")
    made = []
    try:
        try:
            for host in hosts:
                ip("netns", "add", host)
                made.append(host)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this system makes no network namespaces: {error.stderr!r}")
        ip("-n", hosts[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", hosts[1])
        for number, host in enumerate(hosts, 1):
            ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "brd", "+", "dev", "eth0")
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "route", "add", "default", "via", "10.77.0.254")
        yield hosts
    finally:
        for host in made:
            ip("netns", "del", host)


@pytest.mark.root
def test_a_daemon_is_found_from_another_host(two_hosts: tuple[str, str]) -> None:
    fleet = new_id(os.urandom(16))
    python = [sys.executable, "-c"]
    on_a, on_b = (["ip", "netns", "exec", host, *python] for host in two_hosts)
    with subprocess.Popen([*on_a, DAEMON, fleet], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        try:
            name = daemon.stdout.readline().strip()
            seen = subprocess.run([*on_b, DEVICE, fleet], capture_output=True, text=True, timeout=30, check=True)
        finally:
            daemon.stdin.close()
            daemon.wait(20)

    assert name == "an-netns"
    [[seen_name, addresses, port]] = json.loads(seen.stdout)
    assert (seen_name, addresses[0], port) == ("an-netns", "10.77.0.1", 4364)
    assert daemon.returncode == 0
