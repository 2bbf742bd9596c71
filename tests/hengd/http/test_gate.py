"""The accept path: serving, handshakes, limits, endings; on real sockets with real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import ssl
import struct
from pathlib import Path

import aiohttp
import pytest

from hengd.http.admission import GateLimits
from hengd.http.transport import has_said_nothing
from tests.hengd.http.gatekit import GET, Pki, running, until

CLOSING_GET = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


# --- serving ------------------------------------------------------------------------------------------------


async def test_a_request_on_the_plain_port_is_served_and_its_address_known() -> None:
    async with running() as rig:
        answer = await rig.ask(CLOSING_GET)

        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert (rig.peers[0].listener, rig.peers[0].address) == ("test", "127.0.0.1")
        assert rig.peers[0].certificate is None
        assert rig.gate.accepted == 1


async def test_a_unix_peer_is_known_by_its_process(tmp_path: Path) -> None:
    async with running(unix=tmp_path / "admin.sock") as rig:
        await rig.ask(CLOSING_GET)

        peer = rig.peers[0]
        assert (peer.address, peer.uid, peer.gid, peer.pid) == ("", os.getuid(), os.getgid(), os.getpid())


async def test_the_client_certificate_arrives_as_der(pki: Pki) -> None:
    async with running(ssl=pki.server()) as rig:
        await rig.ask(CLOSING_GET, pki.client(pki.device))
        await rig.ask(CLOSING_GET, pki.client())

        assert [peer.certificate for peer in rig.peers] == [pki.device.der, None]


async def test_an_expired_certificate_arrives_for_the_application_to_judge(pki: Pki) -> None:
    expired = pki.clients.issue("old-lamp", days=-2)
    async with running(ssl=pki.server()) as rig:
        await rig.ask(CLOSING_GET, pki.client(expired))

        assert rig.peers[0].certificate == expired.der


async def test_tls_1_2_is_served(pki: Pki) -> None:
    context = pki.client(pki.device)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with running(ssl=pki.server()) as rig:
        assert (await rig.ask(CLOSING_GET, context)).startswith(b"HTTP/1.1 200")


async def test_a_request_in_one_segment_with_the_end_of_the_handshake_is_not_lost(pki: Pki) -> None:
    async with running(ssl=pki.server()) as rig, await rig.connect() as wire:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = pki.client(pki.device).wrap_bio(incoming, outgoing, server_hostname="lab.henge.internal")
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                wire.send(outgoing.read())
                incoming.write(await wire.reader.read(65536))
        client.write(CLOSING_GET)
        wire.send(outgoing.read())
        incoming.write(await wire.reader.readuntil(b"\x17\x03\x03") + await wire.reader.read(65536))

        assert client.read(65536).startswith(b"HTTP/1.1 200")


async def test_requests_follow_each_other_on_one_connection(pki: Pki) -> None:
    async with running(ssl=pki.server()) as rig, await rig.connect(pki.client(pki.device)) as wire:
        wire.send(GET * 3)
        heads = [await wire.response() for _ in range(3)]

        assert all(head.startswith(b"HTTP/1.1 200") for head in heads)
        assert rig.gate.accepted == 1


async def test_large_bodies_pass_both_ways(pki: Pki) -> None:
    body = os.urandom(1 << 20)
    async with running(ssl=pki.server()) as rig, aiohttp.ClientSession() as session:
        port = rig.address[1]
        url, context = f"https://lab.henge.internal:{port}/echo", pki.client(pki.device)
        connector = {"ssl": context, "server_hostname": "lab.henge.internal"}
        async with session.post(url.replace("lab.henge.internal", "127.0.0.1"), data=body, **connector) as answer:
            assert await answer.read() == body


@pytest.mark.parametrize("is_secure", [False, True])
async def test_files_are_served(pki: Pki, is_secure: bool) -> None:
    async with running(ssl=pki.server() if is_secure else None) as rig:
        request = b"GET /file HTTP/1.1\r\nHost: henge\r\nConnection: close\r\n\r\n"
        answer = await rig.ask(request, pki.client(pki.device) if is_secure else None)

        assert answer.endswith(Path(__file__).with_name("gatekit.py").read_bytes())


async def test_the_applications_own_websockets_pass_the_gate() -> None:
    async with (
        running() as rig,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{rig.address[1]}/socket") as link,
    ):
        await link.send_str("once")
        assert await link.receive_str() == "once"
        rig.pass_time(3600)
        await link.send_str("an hour later")
        assert await link.receive_str() == "an hour later"


async def test_a_new_server_certificate_serves_the_next_connection(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path)
    async with running(ssl=pki.server()) as rig, await rig.connect(pki.client(pki.device)) as old:
        rig.gate.ssl = other.server()
        answer = await rig.ask(CLOSING_GET, other.client(other.device))
        old.send(GET)

        assert answer.startswith(b"HTTP/1.1 200")
        assert (await old.response()).startswith(b"HTTP/1.1 200")


# --- handshakes that fail -----------------------------------------------------------------------------------


async def test_plain_http_on_the_tls_port_is_closed_and_counted(pki: Pki) -> None:
    async with running(ssl=pki.server()) as rig:
        answer = await rig.ask(GET)

        assert not answer.startswith(b"HTTP")
        assert dict(rig.gate.handshake_failures) == {"http_request": 1}


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.9\r\n", bytes(300), b"\x16\x03\x01\xff\xff" + b"x" * 70000])
async def test_other_protocols_on_the_tls_port_are_closed_and_counted(pki: Pki, banner: bytes) -> None:
    async with running(ssl=pki.server()) as rig:
        await rig.ask(banner)

        assert rig.gate.handshake_failures.total() == 1


async def test_a_certificate_of_a_stranger_is_refused_with_a_reason(pki: Pki) -> None:
    leaf = pki.strangers.issue("lamp-1")
    async with running(ssl=pki.server()) as rig:
        with contextlib.suppress(OSError):  # under TLS 1.3 the client learns of it when it reads
            assert await rig.ask(GET, pki.client(leaf)) == b""
        await until(lambda: rig.gate.handshake_failures.total() == 1)

        assert dict(rig.gate.handshake_failures) == {"unable_to_get_local_issuer_certificate": 1}
        assert rig.peers == []


async def test_a_server_certificate_is_no_device_certificate(pki: Pki) -> None:
    leaf = pki.clients.issue("not-a-device", server=True)
    async with running(ssl=pki.server()) as rig:
        with contextlib.suppress(OSError):
            assert await rig.ask(GET, pki.client(leaf)) == b""
        await until(lambda: rig.gate.handshake_failures.total() == 1)

        assert list(rig.gate.handshake_failures) == ["unsuitable_certificate_purpose"]


async def test_a_silent_client_is_cut_when_the_handshake_has_had_its_time(pki: Pki) -> None:
    async with running(ssl=pki.server()) as rig, await rig.connect() as wire:
        await until(lambda: rig.gate.open == 1)
        rig.pass_time(9.9)
        assert rig.gate.handshake_failures.total() == 0
        rig.pass_time(0.1)

        assert await wire.rest() == b""
        await until(lambda: rig.gate.open == 0)
        assert dict(rig.gate.handshake_failures) == {"timeout": 1}


async def test_a_dribbled_hello_gains_no_time_t06(pki: Pki) -> None:
    async with running(ssl=pki.server()) as rig, await rig.connect() as wire:
        for byte in b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03":
            wire.send(bytes([byte]))
            await wire.writer.drain()
            await asyncio.sleep(0)
            assert rig.gate.handshake_failures.total() == 0
            rig.pass_time(1)

        assert await wire.rest() == b""
        assert dict(rig.gate.handshake_failures) == {"timeout": 1}


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x00\xc8"])
async def test_who_resets_in_the_handshake_keeps_no_place_t31(pki: Pki, said: bytes) -> None:
    """Bytes and reset arrive together, of which uvloop tells the reader once."""
    async with running(ssl=pki.server()) as rig:
        with socket.create_connection(rig.address) as peer:
            peer.sendall(said)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        await until(lambda: rig.gate.accepted == 1)
        for _ in range(9):
            await asyncio.sleep(0)
        rig.pass_time(0)
        await until(lambda: rig.gate.open == 0)

        assert dict(rig.gate.handshake_failures) == {"disconnected": 1}


async def test_who_does_not_answer_the_goodbye_is_cut_t32(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hengd.http.transport.SHUTDOWN_S", 0.01)
    async with running(ssl=pki.server()) as rig, await rig.connect(pki.client(pki.device)) as wire:
        (connection,) = await rig.settled(1)
        wire.writer.transport.pause_reading()
        connection.retire()

        await until(lambda: rig.gate.open == 0)


async def test_a_flood_of_failures_is_one_log_line(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(ssl=pki.server()) as rig:
        for _ in range(20):
            await rig.ask(GET)
        assert rig.gate.handshake_failures["http_request"] == 20

    assert [record.getMessage() for record in caplog.records if "handshake" in record.getMessage()] == [
        "test: handshake with 127.0.0.1 failed: http_request"
    ]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- limits -------------------------------------------------------------------------------------------------


async def test_connections_of_one_address_are_limited_and_come_free_again() -> None:
    async with running(limits=GateLimits(per_address=2)) as rig:
        first, second = await rig.connect(), await rig.connect()
        assert await rig.ask(GET) == b""
        assert dict(rig.gate.refusals) == {"per_address": 1}
        async with first:
            pass
        await until(lambda: rig.gate.open == 1)

        assert (await rig.ask(CLOSING_GET)).startswith(b"HTTP/1.1 200")
        async with second:
            pass


async def test_connections_in_total_are_limited() -> None:
    async with running(limits=GateLimits(max_connections=1)) as rig, await rig.connect():
        assert await rig.ask(GET) == b""
        assert dict(rig.gate.refusals) == {"full": 1}


async def test_unix_connections_share_no_address(tmp_path: Path) -> None:
    async with running(unix=tmp_path / "s", limits=GateLimits(per_address=1)) as rig, await rig.connect():
        assert (await rig.ask(CLOSING_GET)).startswith(b"HTTP/1.1 200")


async def test_handshakes_of_one_address_are_limited(pki: Pki) -> None:
    async with running(ssl=pki.server(), limits=GateLimits(handshakes_per_address=1)) as rig, await rig.connect():
        await until(lambda: rig.gate.open == 1)
        assert await rig.ask(GET) == b""
        assert dict(rig.gate.refusals) == {"handshakes_per_address": 1}


async def test_above_the_handshakes_at_once_others_wait_and_are_served_later(pki: Pki) -> None:
    limits = GateLimits(handshakes=1, handshakes_per_address=9)
    async with running(ssl=pki.server(), limits=limits) as rig, await rig.connect():
        await until(lambda: rig.gate.open == 1)
        waiting = asyncio.create_task(rig.ask(CLOSING_GET, pki.client(pki.device)))
        for _ in range(50):
            await asyncio.sleep(0)
        assert rig.gate.accepted == 1
        rig.pass_time(10)

        assert (await waiting).startswith(b"HTTP/1.1 200")
        assert rig.gate.refusals.total() == 0


async def test_half_open_handshakes_of_neighbours_keep_no_honest_client_out(pki: Pki) -> None:
    limits = GateLimits(handshakes=16, handshakes_per_address=8)
    async with running(ssl=pki.server(), limits=limits) as rig, contextlib.AsyncExitStack() as held:
        for number in range(32):
            await held.enter_async_context(await rig.connect(source=f"127.0.1.{number % 4}"))
        answers = [await rig.ask(CLOSING_GET, pki.client(pki.device)) for _ in range(3)]

        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        assert rig.gate.refusals["crowded_out"] > 0


async def test_an_honest_handshake_is_not_cut_for_one_of_the_greediest(pki: Pki) -> None:
    limits = GateLimits(handshakes=4, handshakes_per_address=8)
    async with running(ssl=pki.server(), limits=limits) as rig, contextlib.AsyncExitStack() as held:
        honest = await held.enter_async_context(await rig.connect())
        for _ in range(9):
            await held.enter_async_context(await rig.connect(source="127.0.1.1"))
        await until(lambda: rig.gate.refusals["handshakes"] == 6)

        assert [one.origin for one in rig.gate._handshakes] == ["127.0.0.1", *["127.0.1.1"] * 3]
        honest.send(b"\x16")


@pytest.mark.parametrize(("said", "patience_s"), [(b"", 1.0), (b"\x16", 5.0)])
async def test_where_each_has_one_handshake_the_slow_ones_end_sooner_while_others_wait(
    pki: Pki, said: bytes, patience_s: float
) -> None:
    limits = GateLimits(handshakes=4, handshakes_per_address=8)
    async with running(ssl=pki.server(), limits=limits) as rig, contextlib.AsyncExitStack() as held:
        for number in range(4):
            wire = await held.enter_async_context(await rig.connect(source=f"127.0.1.{number}"))
            wire.send(said)
        await until(lambda: rig.gate.open == 4)
        await until(lambda: all(has_said_nothing(one.sock) != bool(said) for one in rig.gate._handshakes.values()))
        waiting = asyncio.create_task(rig.ask(CLOSING_GET, pki.client(pki.device)))
        await until(lambda: not rig.gate._is_reading)
        rig.pass_time(patience_s - 0.1)
        before = rig.gate.open
        rig.pass_time(0.2)

        assert (await waiting).startswith(b"HTTP/1.1 200")
        assert before == 4
        assert rig.gate.refusals.total() == 0
        assert dict(rig.gate.handshake_failures) == {"timeout": 4}


async def test_strangers_of_one_address_give_way_when_all_connections_are_taken(pki: Pki) -> None:
    limits = GateLimits(max_connections=12, per_address=10)
    async with running(ssl=pki.server(), limits=limits) as rig, contextlib.AsyncExitStack() as held:
        device = await held.enter_async_context(await rig.connect(pki.client(pki.device)))
        stranger = await held.enter_async_context(await rig.connect(pki.client(), source="127.0.1.2"))
        for _ in range(10):
            await held.enter_async_context(await rig.connect(pki.client(), source="127.0.1.1"))
        await rig.settled(12)
        answer = await rig.ask(CLOSING_GET, pki.client(pki.device), source="127.0.1.3")
        device.send(GET)
        stranger.send(GET)

        assert answer.startswith(b"HTTP/1.1 200")
        assert (await device.response()).startswith(b"HTTP/1.1 200")
        assert (await stranger.response()).startswith(b"HTTP/1.1 200")


async def test_those_with_a_certificate_give_way_to_nobody(pki: Pki) -> None:
    limits = GateLimits(max_connections=3)
    async with running(ssl=pki.server(), limits=limits) as rig, contextlib.AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(await rig.connect(pki.client(pki.device)))
        await rig.settled(3)

        assert await rig.ask(GET, source="127.0.1.1") == b""
        assert dict(rig.gate.refusals) == {"full": 1}


async def test_running_out_of_descriptors_rests_and_recovers(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as rig:
        with socket.create_connection(rig.address) as waiting:  # in the kernel's queue until the loop turns
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno(), hard))
            try:
                await until(lambda: rig.gate.refusals["starved"] == 1)
                for _ in range(50):
                    await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

            assert rig.gate.refusals["starved"] == 1
            assert (rig.gate.open, len(caplog.records)) == (0, 1)
            rig.pass_time(1)
            await until(lambda: rig.gate.open == 1)


async def test_many_connections_come_and_go_without_a_trace(pki: Pki) -> None:
    async with running(ssl=pki.server(), limits=GateLimits(handshakes_per_address=64)) as rig:
        context = pki.client(pki.device)
        for _ in range(10):
            await asyncio.gather(*(rig.ask(CLOSING_GET, context) for _ in range(20)))
        await until(lambda: rig.gate.open == 0)

        assert (rig.gate.accepted, len(rig.peers)) == (200, 200)
        assert not rig.gate._admission._open
        assert not rig.gate._admission._shaking


# --- ending -------------------------------------------------------------------------------------------------


async def test_close_ends_idle_connections_at_once_and_lets_requests_finish() -> None:
    async with (
        running() as rig,
        await rig.connect() as idle,
        await rig.connect() as busy,
        await rig.connect() as silent,
    ):
        idle.send(GET)
        await idle.response()
        busy.send(GET.replace(b"hello", b"wait"))
        await rig.waiting.wait()
        await rig.settled(3)
        closing = asyncio.create_task(rig.gate.close(10))
        assert (await idle.rest(), await silent.rest()) == (b"", b"")
        rig.release.set()
        answer = await busy.rest()
        await closing

        assert b"connection: close" in answer.lower()
        with pytest.raises(ConnectionRefusedError):
            await rig.connect()


async def test_close_cuts_what_does_not_end_in_time(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    async with running(ssl=pki.server()) as rig, await rig.connect(pki.client(pki.device)) as busy, await rig.connect():
        busy.send(GET.replace(b"hello", b"wait"))
        await rig.waiting.wait()
        await rig.gate.close(0.01)

        assert rig.gate.open == 0
        assert "cutting 1 connections" in caplog.text
        assert await busy.rest() == b""
