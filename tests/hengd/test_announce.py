"""The announcer with real mDNS: on loopback, and across two network namespaces where root may make them."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from hengd.announce import Announcer, local_addresses
from henge_protocol.beacon import SERVICE_TYPE, Sighting, usable_addresses
from henge_protocol.browse import browse
from henge_protocol.pki import new_id
from tests.hengd.http.gatekit import until
from tests.vectors import mdns_packets

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


async def test_names_that_are_all_contested_are_told_once_and_tried_again(  # M22
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hengd.announce.MAX_NAMES", 2)
    fleet = new_id(os.urandom(16))
    first, second, third = (announcer(f"an-many-{TAG}", fleet) for _ in range(3))
    with caplog.at_level(logging.DEBUG, logger="hengd.announce"):
        try:
            for daemon in (first, second):
                await daemon.start()
                await asyncio.wait_for(daemon.announced(), 20)
            await third.start()
            async with asyncio.timeout(30):
                while told(caplog).count("are all taken on this network") < 2:  # noqa: ASYNC110 (a log rings no bell)
                    await asyncio.sleep(0.01)
            await second.stop()

            assert await asyncio.wait_for(third.announced(), 20) == f"an-many-{TAG}-2"
        finally:
            await asyncio.gather(*(daemon.stop() for daemon in (first, second, third)))

    assert told(caplog, logging.WARNING).count("are all taken on this network") == 1


def told(caplog: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> str:
    return "\n".join(
        record.getMessage() for record in caplog.records if record.name == "hengd.announce" and record.levelno >= level
    )


QUESTION = mdns_packets.name(SERVICE_TYPE) + b"\0\x0c\0\1"
KNOWN = mdns_packets.record(b"\xc0\x0c", mdns_packets.PTR, mdns_packets.label(b"known") + b"\xc0\x0c")
CONTINUED = 0x200
QUERIES = {
    "M23 the same a thousand times": [mdns_packets.header(1, flags=0) + QUESTION] * 1000,
    "M26 with 250 known answers": [mdns_packets.header(1, 250, flags=0) + QUESTION + KNOWN * 250],
    "M26 that go on and on": [
        mdns_packets.header(1, count, flags=CONTINUED) + QUESTION + KNOWN * count for count in range(200)
    ],
    "M27 of another kind": [mdns_packets.header(1, flags=0x2803) + QUESTION],
    "M28 for anything": [mdns_packets.header(300, flags=0) + (QUESTION[:-4] + b"\0\xff\0\xff") * 300],
    "M28 of another network": [mdns_packets.header(1, flags=0) + QUESTION[:-2] + b"\0\3"],
    "that are none": [packet for _, packets in mdns_packets.NOTHING for packet in packets],
}


async def test_strange_packets_do_not_disturb_the_announcement(caplog: pytest.LogCaptureFixture) -> None:
    ours = own_loopback()
    daemon = announcer(f"an-calm-{TAG}", new_id(os.urandom(16)), interfaces=[ours])
    await daemon.start()
    try:
        await asyncio.wait_for(daemon.announced(), 20)
        for packets in QUERIES.values():
            for packet in packets:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
                    anybody.sendto(packet, (ours, 5353))
                await asyncio.sleep(0)
        answer = await answer_to_a_stranger(ours)
        answer_to_its_own_words = await answer_to_a_stranger(ours, answer)
        name = await daemon.announced()
    finally:
        await daemon.stop()

    assert f"an-calm-{TAG}".encode() in answer
    assert f"an-calm-{TAG}".encode() in answer_to_its_own_words  # M38
    assert name == f"an-calm-{TAG}"
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def answer_to_a_stranger(ours: str, *first: bytes) -> bytes:
    """What a program that knows nothing of multicast is answered, after it sent these packets; M24."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.bind(("127.0.0.1", 0))
        query = mdns_packets.header(1, flags=0)[2:] + QUESTION[:-2] + b"\x80\1"
        for packet in (*first, os.urandom(2) + query):
            stranger.sendto(packet, (ours, 5353))
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, 9000), 20)


async def test_two_daemons_of_one_fleet_keep_their_addresses_apart() -> None:
    fleet = new_id(os.urandom(16))
    where = {f"an-old-{TAG}": "127.0.0.8", f"an-new-{TAG}": "127.0.0.9"}
    daemons = [announcer(name, fleet, addresses=lambda address=address: [address]) for name, address in where.items()]
    try:
        for daemon in daemons:
            await daemon.start()
            await asyncio.wait_for(daemon.announced(), 20)
        found = await look(fleet, enough=2)
    finally:
        await asyncio.gather(*(daemon.stop() for daemon in daemons))

    assert {sighting.name: sighting.addresses for sighting in found} == {
        name: (address,) for name, address in where.items()
    }


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
        for step_s in (7200, -86400):  # M39: also a clock that is set back
            time[0] += step_s
            async with asyncio.timeout(20):
                while [s.unix_s for s in await look(fleet)] != [int(time[0])]:
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


@pytest.mark.root("ip")
def test_a_daemon_is_found_from_another_host(two_hosts: tuple[str, str]) -> None:
    assert seen_from_the_other(two_hosts)[0] == "10.77.0.1"


@pytest.mark.root("ip")
def test_a_daemon_is_found_on_a_network_without_ipv4(two_hosts: tuple[str, str]) -> None:  # M36
    for number, host in enumerate(two_hosts, 1):
        ip("-n", host, "-4", "addr", "flush", "dev", "eth0")
        ip("-n", host, "addr", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")

    assert "fd77::1" in seen_from_the_other(two_hosts)


def seen_from_the_other(two_hosts: tuple[str, str]) -> list[str]:
    """The addresses at which the first host's daemon is found by the second."""
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

    assert (name, daemon.returncode) == ("an-netns", 0)
    [[seen_name, addresses, port]] = json.loads(seen.stdout)
    assert (seen_name, port) == ("an-netns", 4364)
    return list(addresses)


GREEDY = """
import asyncio, socket, sys
from hengd.announce import Announcer
from hengd.logs import start_logs
async def main():
    greedy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    greedy.bind(("", 5353))
    daemon = Announcer(
        name="an-late", port=4364, fleet_id=sys.argv[1], server_ca_fingerprint=bytes(32), retry_first_s=0.1
    )
    await daemon.start()
    await asyncio.to_thread(sys.stdin.readline)
    greedy.close()
    print(await daemon.announced(), flush=True)
    await daemon.stop()
logs = start_logs("warning", "json", stream=sys.stdout)
asyncio.run(main())
logs.stop()
"""
"""Somebody holds mDNS's port for himself, until a line is read."""


@pytest.mark.root("ip")
def test_a_port_that_another_program_keeps_for_itself_is_told_and_waited_for(two_hosts: tuple[str, str]) -> None:  # M35
    command = ["ip", "netns", "exec", two_hosts[0], sys.executable, "-c", GREEDY, new_id(os.urandom(16))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        warning = json.loads(daemon.stdout.readline())
        rest, _ = daemon.communicate("\n", timeout=60)

    assert (warning["logger"], warning["level"]) == ("hengd.announce", "warning")
    assert "another program keeps port 5353 for itself" in warning["msg"]
    assert "disallow-other-stacks=no" in warning["msg"]
    assert rest == "an-late\n"
