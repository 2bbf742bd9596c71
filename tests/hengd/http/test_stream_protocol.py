"""A device's WebSocket against peers that break its rules, over real sockets through a real gate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from hengd.http.admission import GateLimits
from hengd.http.dispatch import Peer
from hengd.http.head import Refusal
from hengd.http.stream_protocol import StreamLimits, StreamProtocol, StrictListener, websocket_protocol
from tests.bench.fleet import connect_fleet
from tests.hengd.http.gatekit import Clock, Pki, Rig, Wire, running, until
from tests.hengd.http.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

OPENING = (
    b"GET /v1/device/stream HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Recorder(StrictListener):
    """Remembers what it is told; answers ``echo ...`` and breaks on ``break``."""

    def __init__(self, *, limits: StreamLimits, clock: Clock) -> None:
        super().__init__(limits=limits, monotonic=clock)
        self.heard: list[str] = []
        self.is_lost = False

    def received(self, text: str) -> None:
        self.heard.append(text)
        if text.startswith("echo "):
            self.send(text[5:])
        if text == "break":
            raise RuntimeError("the listener broke")

    def lost(self) -> None:
        self.is_lost = True


@dataclass
class StreamRig:
    """A gate with recorders behind the device link's path."""

    rig: Rig
    links: list[Recorder] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Wire, Recorder]]:
        async with await self.rig.connect() as wire:
            wire.send(OPENING)
            assert (await wire.response()).startswith(b"HTTP/1.1 101 ")
            yield wire, self.links[-1]


@contextlib.asynccontextmanager
async def streaming(
    limits: StreamLimits | None = None, *, pki: Pki | None = None, refusal: Refusal | None = None
) -> AsyncIterator[StreamRig]:
    clock, links = Clock(), []
    stream_limits = limits or StreamLimits()

    def make(_peer: Peer) -> StreamProtocol:
        return websocket_protocol(listener, limits=stream_limits, log=logging.getLogger("test.stream"))

    def listener() -> Recorder | Refusal:
        links.append(Recorder(limits=stream_limits, clock=clock))
        return refusal or links[-1]

    gate_limits = GateLimits(per_address=1000, handshakes_per_address=1000)
    async with running(ssl=pki and pki.server(), limits=gate_limits, stream=make, clock=clock) as rig:
        yield StreamRig(rig, links)


def close_code(received: bytes) -> int:
    """The code of the close frame that ends ``received``."""
    start = received.rindex(b"\x88")
    return int(struct.unpack("!H", received[start + 2 : start + 4])[0])


# --- what works ---------------------------------------------------------------------------------------------


async def test_text_goes_both_ways() -> None:
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(frame(TEXT, b"echo hello"))

        assert await wire.reader.readexactly(7) == b"\x81\x05hello"
        assert link.heard == ["echo hello"]
        assert streams.rig.gate.open == 1


async def test_frames_in_one_segment_with_the_opening_are_heard_once_and_in_order() -> None:  # W46
    async with streaming() as streams, await streams.rig.connect() as wire:
        wire.send(OPENING + frame(TEXT, b"one") + frame(TEXT, b"two" * 2000) + frame(TEXT, b"echo three"))
        await wire.response()
        await wire.reader.readexactly(7)

        assert streams.links[0].heard == ["one", "two" * 2000, "echo three"]


async def test_an_opening_that_comes_byte_by_byte_is_taken() -> None:
    async with streaming() as streams, await streams.rig.connect() as wire:
        for byte in OPENING + frame(TEXT, b"echo slow"):
            wire.send(bytes([byte]))
            await wire.writer.drain()
            await asyncio.sleep(0)
        await wire.response()

        assert await wire.reader.readexactly(6) == b"\x81\x04slow"


async def test_a_message_that_comes_byte_by_byte_is_heard_once() -> None:  # W19
    async with streaming() as streams, streams.opened() as (wire, link):
        for byte in frame(TEXT, b"x" * 2000) + frame(TEXT, b"echo end"):
            wire.send(bytes([byte]))
            await wire.writer.drain()
            await asyncio.sleep(0)

        assert await wire.reader.readexactly(5) == b"\x81\x03end"
        assert link.heard == ["x" * 2000, "echo end"]


@pytest.mark.parametrize("sent", [b"", frame(TEXT, b"x" * 300)[:50], frame(TEXT, b"x", fin=False)])
async def test_a_peer_that_is_cut_off_in_mid_message_is_gone_without_a_word(  # W38
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(sent)
        await wire.writer.drain()
        wire.writer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        wire.writer.transport.abort()

        await until(lambda: link.is_lost)
        await until(lambda: streams.rig.gate.open == 0)
        assert (link.heard, link.ended_with) == ([], 1006)
        assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_a_fragmented_message_is_joined_even_inside_a_code_point() -> None:  # W12
    text = "grüße".encode()
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(frame(TEXT, text[:3], fin=False) + frame(PING, b"between") + frame(CONTINUATION, text[3:]))
        wire.send(frame(TEXT, b"echo end"))

        assert await wire.reader.readexactly(9) == b"\x8a\x07between"
        await wire.reader.readexactly(5)
        assert link.heard == ["grüße", "echo end"]


async def test_the_largest_message_passes() -> None:
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(frame(TEXT, b"x" * 65536))
        await until(lambda: bool(link.heard))

        assert link.heard == ["x" * 65536]


async def test_a_close_is_answered_with_its_code() -> None:
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(frame(CLOSE, struct.pack("!H", 4001) + b"bye") + frame(TEXT, b"after the close"))  # W24

        assert close_code(await wire.rest()) == 4001
        await until(lambda: streams.rig.gate.open == 0)
        assert (link.heard, link.is_lost) == ([], True)


async def test_compression_is_not_negotiated() -> None:  # W08
    async with streaming() as streams, await streams.rig.connect() as wire:
        offer = b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        wire.send(OPENING.replace(b"\r\n\r\n", offer))

        assert b"extensions" not in (await wire.response()).lower()


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(b"mqtt", id="W39-unknown"),
        pytest.param(b", ".join(b"p%d" % number for number in range(100)), id="W39-100-of-them"),
        pytest.param(b"x" * 8000, id="W39-long"),
        pytest.param(b"a\r\nSec-WebSocket-Protocol: b", id="W39-twice"),
    ],
)
async def test_no_subprotocol_is_chosen_whatever_is_offered(wanted: bytes) -> None:
    async with streaming() as streams, await streams.rig.connect() as wire:
        wire.send(OPENING.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: " + wanted + b"\r\n\r\n"))
        answer = await wire.response()
        wire.send(frame(TEXT, b"echo on"))

        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"websocket-protocol" not in answer.lower()
        assert await wire.reader.readexactly(4) == b"\x81\x02on"


async def test_a_refused_opening_is_a_problem_document() -> None:
    refusal = Refusal(403, "certificate_revoked", "the certificate was revoked")
    async with streaming(refusal=refusal) as streams:
        answer = await streams.rig.ask(OPENING)

        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"Content-Type: application/problem+json" in head
        assert b'"code":"certificate_revoked"' in body
        await until(lambda: streams.rig.gate.open == 0)


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [(b"Version: 13", b"Version: 8", b"426"), (b"Host: lab", b"Host: lab\r\nOrigin: null", b"403")],
)
async def test_an_improper_opening_is_refused_before_anybody_hears_of_it(old: bytes, new: bytes, status: bytes) -> None:
    async with streaming() as streams:
        answer = await streams.rig.ask(OPENING.replace(old, new))

        assert answer.startswith(b"HTTP/1.1 " + status)
        assert streams.links == []


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(TEXT, b"x", rsv=4), 1002, id="W09-rsv1"),
        pytest.param(frame(TEXT, b"x", rsv=2), 1002, id="W09-rsv2"),
        pytest.param(frame(PING, b"x", rsv=1), 1002, id="W09-rsv3-ping"),
        pytest.param(frame(TEXT, b"x", masked=False), 1002, id="W10-unmasked"),
        *(pytest.param(frame(kind, b"x"), 1002, id=f"W11-{kind}") for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        pytest.param(frame(TEXT, b"\xc3\x28"), 1007, id="W12-utf8"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="W12-surrogate"),
        pytest.param(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"), 1007, id="W12-split"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="W13-continuation-first"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002, id="W13-text-inside"),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="W14-fragmented-ping"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="W14-long-ping"),
        pytest.param(b"\x81\xff" + struct.pack("!Q", 2**63 - 1), 1009, id="W15-2^63-1"),
        pytest.param(b"\x81\xff" + struct.pack("!Q", 2**63), 1002, id="W15-2^63"),
        pytest.param(b"\x81\xfe\x00\x05", 1002, id="W15-not-minimal"),
        pytest.param(frame(TEXT, b"x" * 65537), 1009, id="W16-frame"),
        pytest.param(frame(TEXT, b"x" * 65536, fin=False) + frame(CONTINUATION, b"x"), 1009, id="W16-sum"),
        *(
            pytest.param(frame(CLOSE, struct.pack("!H", code)), 1002, id=f"W23-{code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
        ),
        pytest.param(frame(CLOSE, b"x"), 1002, id="W23-one-byte"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xc3\x28"), 1007, id="W23-utf8"),
        pytest.param(frame(CLOSE), 1000, id="W23-no-code"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n", 1002, id="W25-http-after-upgrade"),
        pytest.param(frame(TEXT, b"\x00" * 64, rsv=4), 1002, id="W26-deflate"),
        pytest.param(frame(BINARY, b"x"), 1003, id="W27-binary"),
    ],
)
async def test_what_closes_the_link(sent: bytes, code: int) -> None:
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(sent)
        received = await wire.rest()

        assert close_code(received) == code
        await until(lambda: streams.rig.gate.open == 0)
        assert (link.heard, link.ended_with) == ([], code)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 20000, id="W17-fragments"),
        pytest.param(frame(PING) * 20000, id="W20-pings"),
        pytest.param(frame(PONG) * 20000, id="W22-pongs"),
        pytest.param(frame(TEXT, b"x") * 20000, id="W31-reports"),
    ],
)
async def test_a_flood_of_frames_ends_the_link(sent: bytes) -> None:
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(sent)
        await until(lambda: link.is_lost)

        assert link.ended_with == 1008
        assert len(link.heard) in (0, 60)


async def test_an_exception_of_the_listener_ends_its_link_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with streaming() as streams, streams.opened() as (wire, _), streams.opened() as (other, _link):
        wire.send(frame(TEXT, b"break"))
        assert close_code(await wire.rest()) == 1011
        other.send(frame(TEXT, b"echo alive"))

        assert await other.reader.readexactly(7) == b"\x81\x05alive"
        assert "the listener broke" in caplog.text


async def test_a_talkative_peer_may_go_on_as_time_passes() -> None:
    async with streaming(StreamLimits(frames_per_s=10, burst=20)) as streams, streams.opened() as (wire, link):
        for _ in range(10):
            wire.send(frame(TEXT, b"x") * 19 + frame(TEXT, b"echo y"))
            await wire.reader.readexactly(3)
            streams.rig.clock.now += 2

        assert len(link.heard) == 200


# --- time ---------------------------------------------------------------------------------------------------


async def test_a_silent_peer_is_pinged_once_and_lives_if_it_answers() -> None:
    async with streaming() as streams, streams.opened() as (wire, link):
        streams.rig.pass_time(29)
        streams.rig.pass_time(1)
        streams.rig.pass_time(5)
        assert await wire.reader.readexactly(2) == b"\x89\x00"
        wire.send(frame(PONG) + frame(TEXT, b"echo here"))
        assert await wire.reader.readexactly(6) == b"\x81\x04here"
        streams.rig.pass_time(44)
        assert await wire.reader.readexactly(2) == b"\x89\x00"

        assert not link.is_lost


async def test_a_dead_peer_is_noticed_after_45_s() -> None:  # W21, W37
    async with streaming() as streams, streams.opened() as (_, link):
        streams.rig.pass_time(30)
        streams.rig.pass_time(14)
        assert not link.is_lost
        streams.rig.pass_time(1)

        await until(lambda: link.is_lost)
        await until(lambda: streams.rig.gate.open == 0)
        assert link.ended_with == 1006


async def test_bytes_without_a_whole_frame_are_no_sign_of_life() -> None:  # W18
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.send(frame(TEXT, b"x" * 300)[:4])
        for _ in range(45):
            wire.send(b"x")
            await wire.writer.drain()
            await asyncio.sleep(0)
            streams.rig.pass_time(1)

        await until(lambda: link.is_lost)


async def test_a_peer_that_does_not_read_is_cut(pki: Pki) -> None:  # W36
    async with streaming() as streams, streams.opened() as (wire, link):
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while link.is_writable:
            link.send(b"x" * 65536)
        streams.rig.clock.now += 29
        wire.send(frame(PONG))
        heard = link.heard_at
        await until(lambda: link.heard_at > heard)
        streams.rig.clock.now += 29
        wire.send(frame(PONG))
        streams.rig.pass_time(0)
        assert not link.is_lost
        streams.rig.pass_time(2)

        await until(lambda: link.is_lost)


# --- through TLS, many --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


async def test_a_fleet_is_served_over_tls_and_cut_by_the_gate(pki: Pki) -> None:
    context = pki.client(pki.device)
    async with streaming(pki=pki) as streams:
        fleet = await connect_fleet(
            streams.rig.address,  # type: ignore[arg-type]
            100,
            context_of=lambda _: context,
            answer_of=lambda _: lambda _text: b"report",
            greeting_of=lambda _: b"echo welcome",
            server_name="lab.henge.internal",
        )
        await fleet.wait_frames(100, timeout_s=10)
        for link in streams.links:
            link.send("x" * 20000)
        await fleet.wait_frames(200, timeout_s=10)
        await until(lambda: all(link.heard[-1] == "report" for link in streams.links))
        assert (streams.rig.gate.open, fleet.online) == (100, 100)
        streams.links[0].close(1001, "stopping")
        await until(lambda: fleet.online == 99)
        streams.links[1].abort()
        await until(lambda: fleet.online == 98)
        next(one.transport for one in fleet.devices if one.transport is not None).disconnect(graceful=False)
        await until(lambda: sum(link.is_lost for link in streams.links) == 3)
        await streams.rig.gate.close(0.01)

        assert (streams.rig.gate.open, all(link.is_lost for link in streams.links)) == (0, True)
        await until(lambda: fleet.online == 0)
