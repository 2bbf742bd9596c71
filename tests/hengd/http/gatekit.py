"""A gate on a real socket with a real application behind it, under a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from hengd.http.admission import GateLimits
from hengd.http.dispatch import Connection, Peer, StreamFactory, connection_of, keep_turns, refuse_odd_request
from hengd.http.gate import Gate
from henge_protocol.errors import HengeError
from tests.hengd.http.tlskit import Authority, Leaf, client_context, server_context

GET = b"GET /hello HTTP/1.1\r\nHost: henge\r\n\r\n"


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pki:
    """Both authorities of one daemon and a stranger's, with contexts made from them."""

    def __init__(self, folder: Path) -> None:
        self.servers, self.clients = Authority(folder / "servers", "servers"), Authority(folder / "clients", "clients")
        self.strangers = Authority(folder / "strangers", "strangers")
        self.device = self.clients.issue("lamp-1")

    def server(self) -> ssl.SSLContext:
        return server_context(self.servers, self.clients)

    def client(self, leaf: Leaf | None = None) -> ssl.SSLContext:
        return client_context(self.servers, leaf)


@dataclass
class Rig:
    """What a test holds of a running gate."""

    gate: Gate
    clock: Clock
    address: tuple[str, int] | str
    peers: list[Peer] = field(default_factory=list)
    """Of each request that reached the application."""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to let ``/wait`` answer."""
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when ``/wait`` is being served."""

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.gate.sweep()

    async def settled(self, count: int) -> list[Connection]:
        """The connections, when ``count`` are open and have their handshakes behind them."""
        connections = self.gate._connections
        await until(lambda: len(connections) == count and not self.gate._handshakes)
        return list(connections)

    async def connect(self, context: ssl.SSLContext | None = None, *, source: str = "127.0.0.1") -> Wire:
        """A connection from a loopback address."""
        if isinstance(self.address, str):
            return Wire(*await asyncio.open_unix_connection(self.address))
        name, local = "lab.henge.internal" if context else None, (source, 0)
        return Wire(*await asyncio.open_connection(*self.address, ssl=context, server_hostname=name, local_addr=local))

    async def ask(self, request: bytes, context: ssl.SSLContext | None = None, *, source: str = "127.0.0.1") -> bytes:
        """Everything that comes back until the gate closes."""
        async with await self.connect(context, source=source) as wire:
            wire.send(request)
            return await wire.rest()


@dataclass
class Wire:
    """The client's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> bytes:
        """Status line and fields of the next response; its body is read and dropped."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                await self.reader.readexactly(int(line.split(b":")[1]))
        return head

    async def rest(self) -> bytes:
        """All that still comes; a reset is an end too."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := await self.reader.read(65536):
                received += part
        return received


@contextlib.asynccontextmanager
async def running(
    *,
    ssl: ssl.SSLContext | None = None,
    limits: GateLimits | None = None,
    stream: StreamFactory | None = None,
    unix: Path | None = None,
    clock: Clock | None = None,
    log: str = "test.gate",
) -> AsyncIterator[Rig]:
    """A started gate; closed when the block ends, and then nothing may be left open."""
    sock = _unix_socket(unix) if unix else _tcp_socket()
    rig = Rig(None, clock or Clock(), sock.getsockname())  # type: ignore[arg-type]
    runner = web.AppRunner(_application(rig), access_log=None, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    server = runner.server
    rig.gate = Gate(
        sock,
        name="test",
        ssl=ssl,
        limits=limits or GateLimits(),
        http_factory=lambda _peer: server(),
        stream_factory=stream,
        monotonic=rig.clock,
        log=logging.getLogger(log),
    )
    rig.gate.start()
    try:
        yield rig
    finally:
        await rig.gate.close(0.05)
        await runner.cleanup()
    assert rig.gate.open == 0


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition`` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0)


def _tcp_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def _unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    return sock


def _application(rig: Rig) -> web.Application:
    async def hello(request: web.Request) -> web.StreamResponse:
        _note_peer(rig, request)
        return web.Response(text="hello")

    async def wait(_request: web.Request) -> web.StreamResponse:
        rig.waiting.set()
        await rig.release.wait()
        return web.Response(text="waited")

    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    async def file(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(Path(__file__))

    async def socket_(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await response.send_str(message.data)
        return response

    app = web.Application(middlewares=[keep_turns, _refuse_odd], client_max_size=1 << 22)
    app.router.add_get("/hello", hello)
    app.router.add_get("/wait", wait)
    app.router.add_get("/file", file)
    app.router.add_get("/socket", socket_)
    app.router.add_post("/echo", echo)
    return app


@web.middleware
async def _refuse_odd(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    statuses = {"method_not_allowed": 405, "misdirected": 421, "malformed": 400}
    try:
        refuse_odd_request(request)
    except HengeError as error:
        return web.Response(status=statuses[error.kind])
    return await handler(request)


def _note_peer(rig: Rig, request: web.Request) -> None:
    connection = connection_of(request)
    assert connection is not None
    rig.peers.append(connection.peer)
