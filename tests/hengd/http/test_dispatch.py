"""One connection: its deadlines, its refusals, its first head and its later ones."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from hengd.http.admission import GateLimits
from tests.hengd.http.gatekit import GET, Pki, running, until


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


# --- deadlines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: henge\r\nX-Slow: "])
async def test_a_head_that_does_not_come_is_answered_408(sent: bytes) -> None:
    async with running() as rig, await rig.connect() as wire:
        wire.send(sent)
        (connection,) = await rig.settled(1)
        await until(lambda: connection._head == sent)
        rig.pass_time(9.9)
        assert rig.gate.refusals.total() == 0
        rig.pass_time(0.1)

        assert (await wire.rest()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert dict(rig.gate.refusals) == {"request_timeout": 1}


async def test_a_dribbled_head_gains_no_time() -> None:
    async with running() as rig, await rig.connect() as wire:
        for byte in b"GET / HTTP":
            wire.send(bytes([byte]))
            await wire.writer.drain()
            await asyncio.sleep(0)
            rig.pass_time(1)

        assert b'"code":"request_timeout"' in await wire.rest()


async def test_a_slow_later_head_is_answered_408(pki: Pki) -> None:
    async with running(ssl=pki.server()) as rig, await rig.connect(pki.client(pki.device)) as wire:
        wire.send(GET)
        await wire.response()
        rig.pass_time(60)
        wire.send(GET[:10])
        (connection,) = await rig.settled(1)
        await until(lambda: connection._is_heading)
        rig.pass_time(9.9)
        assert rig.gate.refusals.total() == 0
        rig.pass_time(0.1)

        assert (await wire.rest()).startswith(b"HTTP/1.1 408")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with running() as rig, await rig.connect() as wire:
        wire.send(GET)
        await wire.response()
        rig.pass_time(74)
        wire.send(GET)
        await wire.response()
        rig.pass_time(75)

        assert await wire.rest() == b""
        await until(lambda: rig.gate.open == 0)


async def test_a_request_may_take_its_time() -> None:
    async with running() as rig, await rig.connect() as wire:
        wire.send(GET.replace(b"hello", b"wait"))
        await rig.waiting.wait()
        rig.pass_time(3600)
        rig.release.set()

        assert (await wire.response()).startswith(b"HTTP/1.1 200")


async def test_a_peer_that_does_not_take_its_answer_is_cut() -> None:
    async with running() as rig, await rig.connect():
        await rig.settled(1)
        rig.pass_time(10)
        assert rig.gate.open == 1
        rig.pass_time(5)

        await until(lambda: rig.gate.open == 0)


async def test_a_connection_is_closed_after_its_last_request() -> None:
    async with running(limits=GateLimits(max_requests_per_connection=3)) as rig, await rig.connect() as wire:
        wire.send(GET * 4)
        heads = [await wire.response() for _ in range(3)]

        assert [b"connection: close" in head.lower() for head in heads] == [False, False, True]
        assert await wire.rest() == b""


# --- refusals -----------------------------------------------------------------------------------------------


async def test_a_refusal_is_a_problem_document() -> None:
    async with running() as rig:
        answer = await rig.ask(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")

        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 421 Misdirected Request\r\nContent-Type: application/problem+json\r\n")
        assert b"\r\nConnection: close" in head
        assert body.startswith(
            b'{"type":"urn:henge:error:wrong_host","title":"Misdirected Request","status":421,"code":"wrong_host"'
        )


@pytest.mark.parametrize("is_secure", [False, True])
async def test_an_endless_head_is_answered_431_while_it_still_comes(pki: Pki, is_secure: bool) -> None:
    async with running(ssl=pki.server() if is_secure else None) as rig:
        request = b"GET / HTTP/1.1\r\n" + b"X-More: and more\r\n" * 4000
        answer = await rig.ask(request, pki.client(pki.device) if is_secure else None)

        assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_tls_client_on_the_plain_port_is_turned_away(pki: Pki) -> None:
    async with running() as rig:
        with pytest.raises(ssl.SSLError):
            await rig.connect(pki.client(pki.device))

        assert dict(rig.gate.refusals) == {"bad_request": 1}


# --- later heads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET http://evil.example/hello HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"TRACE /hello HTTP/1.1\r\nHost: henge\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: henge\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: henge\r\nHost: evil.example\r\n\r\n", 400),
    ],
)
async def test_a_later_request_meets_the_rules_of_the_first(request_: bytes, status: int) -> None:
    async with running() as rig, await rig.connect() as wire:
        wire.send(GET)
        await wire.response()
        wire.send(request_)

        assert (await wire.response()).split(b" ")[1] == b"%d" % status
        assert len(rig.peers) == 1


@pytest.mark.parametrize("path", [b"/v1/device/stream", b"/nothing"])
async def test_without_a_stream_factory_the_device_link_is_a_path_like_others(path: bytes) -> None:
    async with running() as rig:
        answer = await rig.ask(GET.replace(b"/hello", path).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

        assert answer.startswith(b"HTTP/1.1 404 ")
