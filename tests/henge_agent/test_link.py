from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web

from henge_agent.applier import Applier
from henge_agent.exchange import Exchange
from henge_agent.link import Ended, Greeting, Link
from henge_agent.settings import Address, Hooks
from henge_agent.state import State
from henge_protocol.model import digest_of
from henge_protocol.session import CLOSE_REVOKED
from henge_protocol.tls import device_server_context
from henge_protocol.wire import Config, Welcome, encode
from tests.effort import no_long_wait
from tests.henge_protocol.authorities import FLEET, Fleet

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def playing(fleet: Fleet, script: Script) -> AsyncIterator[Exchange]:
    """A server that plays ``script`` on each WebSocket and answers no ping."""

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await script(socket)
        return socket

    app = web.Application()
    app.router.add_get("/v1/device/stream", stream)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = device_server_context(fleet.server_identity(), [fleet.client_ca.certificate_der])
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        address = Address("127.0.0.1", runner.addresses[0][1])
        async with Exchange.verified(address, FLEET, [fleet.server_ca.certificate_der], passed=0.0) as exchange:
            yield exchange
    finally:
        await runner.cleanup()


async def unnoticed(welcome: Welcome) -> None:
    """Nobody has to be told."""


async def life(
    state: State, fleet: Fleet, script: Script, *, heartbeat_s: float = 30, applier: Applier | None = None
) -> Ended:
    applier = applier or Applier(state, (), Hooks(), environ={})
    async with playing(fleet, script) as exchange, asyncio.timeout(20):
        socket = await exchange.websocket("/v1/device/stream", heartbeat_s=heartbeat_s)
        link = Link(socket, applier, Greeting("", {}), clock=time.monotonic, on_welcome=unnoticed)
        return await link.run()


async def test_a_peer_that_falls_silent_is_noticed_within_one_and_a_half_heartbeats(state: State, fleet: Fleet) -> None:
    async def silent(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str(encode(Welcome()).decode())
        await asyncio.Event().wait()

    with no_long_wait():
        ended = await life(state, fleet, silent, heartbeat_s=0.4)

    assert (ended.reason, ended.welcome) == ("closed", Welcome())


async def test_binary_frames_end_the_link_with_1003(state: State, fleet: Fleet) -> None:
    codes = []

    async def binary(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_bytes(encode(Welcome()))
        closing = await socket.receive()
        codes.append((closing.type, closing.data))

    assert (await life(state, fleet, binary)).reason == "bad_frame"
    assert codes == [(WSMsgType.CLOSE, 1003)]


async def test_a_document_before_the_welcome_ends_the_link_and_is_not_applied(state: State, fleet: Fleet) -> None:
    async def hasty(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str(encode(Config(digest=digest_of(b"{}"), document=b"{}")).decode())
        await socket.receive()

    ended = await life(state, fleet, hasty)

    assert (ended.reason, ended.welcome) == ("unexpected", None)
    assert state.progress.current is None


async def test_garbage_is_answered_three_times_at_most(state: State, fleet: Fleet) -> None:
    answers = []

    async def garbage(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str(encode(Welcome()).decode())
        for _ in range(3):
            await socket.send_str("{")
        async for frame in socket:
            answers.append(frame.data)

    assert (await life(state, fleet, garbage)).reason == "bad_frame"
    assert len(answers) == 2
    assert all('"code":"bad_frame"' in answer for answer in answers)


async def test_a_close_code_is_heard_although_the_answer_to_it_cannot_be_sent(state: State, fleet: Fleet) -> None:
    async def gone_at_once(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str(encode(Welcome()).decode())
        assert socket._writer is not None
        await socket._writer.close(CLOSE_REVOKED, b"revoked")
        assert socket._req is not None
        assert socket._req.transport is not None
        socket._req.transport.close()

    assert (await life(state, fleet, gone_at_once)).reason == "revoked"


async def test_a_report_that_cannot_be_made_ends_the_link(state: State, fleet: Fleet) -> None:
    """The daemon stays silent and answers pings for ever; the link must not outlive its reporting."""

    class Speechless(Applier):
        async def news(self, seen: int) -> int:
            raise ConnectionResetError("cut")

    async def silent(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str(encode(Welcome()).decode())
        await socket.receive()

    ended = await life(state, fleet, silent, applier=Speechless(state, (), Hooks(), environ={}))

    assert (ended.reason, ended.welcome) == ("closed", Welcome())
