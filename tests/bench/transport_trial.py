"""The trial behind docs/decisions/0001-device-transport.md: what does one device link cost the server?

    python -m tests.bench.transport_trial [--devices 1000,5000] [--only NAME]... [--rounds 9] [--repeats 3]

For each candidate a server process (core 0) and a fleet (core 1, ``fleet.py``) talk mTLS (P-256, TLS 1.3) over
loopback.  One round: the server sends each device 300 bytes, the device answers 150, the server answers 60.
Printed: server CPU per device and round (median over rounds), server memory per connection, server CPU per
accepted connection (TCP, full mTLS handshake, upgrade), and connections per second.  Each figure is the best of
the repeats, which are interleaved: whatever else runs on the machine can only add.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiofastnet
import picows
import uvloop
from aiohttp import WSMsgType, web
from picows.picows import WSProtocol

from hengd.http.admission import GateLimits
from hengd.http.gate import Gate
from hengd.http.stream_protocol import StreamLimits, StrictListener, websocket_protocol
from tests.bench.fleet import TLS_BUFFER_BYTES, connect_fleet
from tests.hengd.http.tlskit import SERVER_NAME, Authority

PATH = "/v1/device/stream"
PUSH, REPORT, RECEIPT = b"p" * 300, b"r" * 150, b"k" * 60

CANDIDATES = {
    # name: (loop, tls, framing, accept)
    "aiohttp, uvloop": ("uvloop", "loop", "aiohttp", "server"),
    "aiohttp, aiofastnet on uvloop": ("uvloop", "fastnet+undecoded", "aiohttp", "own"),
    "picows, uvloop": ("uvloop", "loop", "picows", "server"),
    "picows, uvloop, own accept": ("uvloop", "loop", "picows", "own"),
    "picows, aiofastnet on uvloop": ("uvloop", "fastnet", "picows", "server"),
    "picows, aiofastnet on uvloop, own accept": ("uvloop", "fastnet", "picows", "own"),
    "picows, aiofastnet on uvloop, own accept, undecoded": ("uvloop", "fastnet+undecoded", "picows", "own"),
    "picows, aiofastnet on asyncio, own accept, undecoded": ("asyncio", "fastnet+undecoded", "picows", "own"),
    "picows, aiofastnet on asyncio, own accept, undecoded, auto-ping": (
        "asyncio",
        "fastnet+undecoded",
        "picows+ping",
        "own",
    ),
    "the gate, uvloop": ("uvloop", "fastnet", "gate", "gate"),
    "the gate, asyncio": ("asyncio", "fastnet", "gate", "gate"),
}
"""*undecoded*: aiofastnet decodes each client certificate through a temporary file, unless the context's
``verify_mode`` reads as ``CERT_NONE``; the handshake itself obeys the mode that OpenSSL was told."""


def main() -> None:
    options = _options()
    if options.serve:
        _run(options.serve, lambda: _serve(options.serve, Path(options.folder)))
    elif options.fleet:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_fleet(Path(options.folder), options.fleet, options.port, options.rounds))
    else:
        _compare(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", default="1000,5000")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3)
    for internal in ("--serve", "--folder"):
        parser.add_argument(internal, default="", help=argparse.SUPPRESS)
    for internal in ("--fleet", "--port"):
        parser.add_argument(internal, type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the comparison -----------------------------------------------------------------------------------------


def _compare(options: argparse.Namespace) -> None:
    trials = [(name, int(count)) for count in options.devices.split(",") for name in options.only or CANDIDATES]
    seen: dict[tuple[str, int], list[dict[str, float]]] = {trial: [] for trial in trials}
    with tempfile.TemporaryDirectory() as folder:
        _make_certificates(Path(folder))
        for _ in range(options.repeats):
            for name, count in trials:
                seen[name, count].append(_trial(name, count, folder, options.rounds))
    print("| candidate | devices | us CPU/device/round | KiB/connection | ms CPU/accept | accepts/s |")
    print("|---|---|---|---|---|---|")
    for (name, count), figures in seen.items():
        print(_row(name, count, figures))


def _row(name: str, count: int, seen: list[dict[str, float]]) -> str:
    best = {key: min(figures[key] for figures in seen) for key in seen[0]}
    fastest = max(figures["accepts_per_s"] for figures in seen)
    return (
        f"| {name} | {count} | {best['round_us']:.1f} | {best['kib']:.1f} | {best['accept_ms']:.2f} | {fastest:.0f} |"
    )


def _trial(name: str, count: int, folder: str, rounds: int) -> dict[str, float]:
    server = _spawn(0, "--serve", name, "--folder", folder)
    fleet = None
    try:
        port = _read(server)["port"]
        before = _ask(server, "usage")
        fleet = _spawn(1, "--fleet", str(count), "--folder", folder, "--port", str(port), "--rounds", str(rounds + 2))
        connect_s = _read(fleet)["connect_s"]
        connected = _ask(server, "usage")
        costs = [_one_round(server, count) for _ in range(rounds + 2)][2:]
        full = _ask(server, "usage")
    finally:
        for process in (fleet, server):
            if process is not None:
                process.kill()
                process.wait()
    return {
        "round_us": statistics.median(costs),
        "kib": (full["rss"] - before["rss"]) / count / 1024,
        "accept_ms": (connected["cpu"] - before["cpu"]) / count * 1000,
        "accepts_per_s": count / connect_s,
    }


def _one_round(server: subprocess.Popen[str], count: int) -> float:
    return float(_ask(server, "round")["cpu"]) / count * 1e6


def _spawn(core: int, *arguments: str) -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(core), sys.executable, "-m", "tests.bench.transport_trial", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(process: subprocess.Popen[str], word: str) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return _read(process)


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def _make_certificates(folder: Path) -> None:
    servers, clients = Authority(folder / "servers", "servers"), Authority(folder / "clients", "clients")
    servers.issue(SERVER_NAME, server=True)
    clients.issue("device")


# --- the fleet's side ---------------------------------------------------------------------------------------


async def _fleet(folder: Path, count: int, port: int, rounds: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "servers" / "ca.pem")
    context.load_cert_chain(folder / "clients" / "device.pem", folder / "clients" / "device.key")

    def answer(frame: bytes) -> bytes | None:
        return REPORT if len(frame) == len(PUSH) else None

    start = time.perf_counter()
    fleet = await connect_fleet(
        ("127.0.0.1", port), count, context_of=lambda _: context, answer_of=lambda _: answer, server_name=SERVER_NAME
    )
    print(json.dumps({"connect_s": time.perf_counter() - start}), flush=True)
    await fleet.wait_frames(2 * count * rounds, timeout_s=600)
    await asyncio.Event().wait()


# --- the server's side --------------------------------------------------------------------------------------


class Bench:
    """Counts the reports of a round; the framings below feed it."""

    def __init__(self) -> None:
        self.links: set[Any] = set()
        self.waiting = 0
        self.done: asyncio.Future[None] | None = None

    def reported(self) -> None:
        self.waiting -= 1
        if self.waiting == 0 and self.done is not None:
            self.done.set_result(None)

    async def round(self) -> float:
        self.done, self.waiting = asyncio.get_running_loop().create_future(), len(self.links)
        before = time.process_time()
        for link in self.links:
            await link.push()
        await self.done
        return time.process_time() - before


class PicowsLink(picows.WSListener):  # type: ignore[misc]
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self._bench.links.add(self)

    async def push(self) -> None:
        self._transport.send(picows.WSMsgType.TEXT, PUSH)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        assert len(frame.get_payload_as_bytes()) == len(REPORT)
        transport.send(picows.WSMsgType.TEXT, RECEIPT)
        self._bench.reported()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._bench.links.discard(self)


class AiohttpLink:
    def __init__(self, socket_: web.WebSocketResponse) -> None:
        self._socket = socket_

    async def push(self) -> None:
        await self._socket.send_str(PUSH.decode())


def aiohttp_handler(bench: Bench) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse(compress=False, heartbeat=30)
        await response.prepare(request)
        link = AiohttpLink(response)
        bench.links.add(link)
        async for message in response:
            assert message.type == WSMsgType.TEXT
            assert len(message.data) == len(REPORT)
            await response.send_str(RECEIPT.decode())
            bench.reported()
        bench.links.discard(link)
        return response

    return handle


class FirstBytes(asyncio.Protocol):
    """Reads a connection's first request line and hands the connection to picows or to aiohttp."""

    def __init__(self, stream: Callable[[], Any], http: Callable[[], asyncio.Protocol]) -> None:
        self._stream, self._http = stream, http
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"\r\n\r\n" not in self._seen:
            return
        is_stream = self._seen.startswith(f"GET {PATH} ".encode())
        protocol = self._stream() if is_stream else self._http()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if is_stream:
            protocol.get_buffer(-1)[: len(self._seen)] = self._seen
            protocol.buffer_updated(len(self._seen))
        else:
            protocol.data_received(self._seen)


def picows_protocol(bench: Bench, *, ping: bool) -> Any:
    return WSProtocol(
        None, None, False, lambda _request: PicowsLink(bench), _Silent(), True, None, ping, 30, 15,
        picows.WSAutoPingStrategy.PING_WHEN_IDLE, True, 1 << 16, None, 2048,
    )  # fmt: skip


class _Silent:
    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 (the name that picows calls)
        return False

    def log(self, *_args: object, **_kwargs: object) -> None:
        pass

    debug = info = warning = error = exception = log


def _run(name: str, start: Callable[[], Any]) -> None:
    factory = uvloop.new_event_loop if CANDIDATES[name][0] == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(start())


async def _serve(name: str, folder: Path) -> None:
    _, tls, framing, accept = CANDIDATES[name]
    bench, context = Bench(), _context(folder)
    if tls.endswith("undecoded"):
        context.__class__ = _Undecoded
    http = web.Server(aiohttp_handler(bench), access_log=None)
    if framing == "gate":
        await _serve_gate(bench, context, http)
        return
    factory: Callable[[], Any] = http
    if framing.startswith("picows"):

        def factory() -> Any:
            return FirstBytes(lambda: picows_protocol(bench, ping=framing.endswith("ping")), http)

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    keep = await (_own_accept if accept == "own" else _server)(listener, factory, context, tls)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    await _obey(bench)
    del keep


class StrictLink(StrictListener):
    """What the daemon's own link will be made from."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(limits=StreamLimits(frames_per_s=1000, burst=1000), monotonic=time.monotonic)
        self._bench = bench

    def opened(self) -> None:
        self._bench.links.add(self)

    async def push(self) -> None:
        self.send(PUSH)

    def received(self, text: str) -> None:
        assert len(text) == len(REPORT)
        self.send(RECEIPT)
        self._bench.reported()

    def lost(self) -> None:
        self._bench.links.discard(self)


async def _serve_gate(bench: Bench, context: ssl.SSLContext, http: Callable[[], Any]) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    log, limits = logging.getLogger("trial"), StreamLimits()
    gate = Gate(
        sock,
        name="trial",
        ssl=context,
        limits=GateLimits(per_address=10000, handshakes_per_address=128),
        http_factory=lambda _peer: http(),
        stream_factory=lambda _peer: websocket_protocol(lambda: StrictLink(bench), limits=limits, log=log),
        monotonic=time.monotonic,
        log=log,
    )
    gate.start()
    print(json.dumps({"port": sock.getsockname()[1]}), flush=True)
    await _obey(bench)


async def _server(listener: socket.socket, factory: Callable[[], Any], context: ssl.SSLContext, tls: str) -> Any:
    loop = asyncio.get_running_loop()
    if tls.startswith("fastnet"):
        return await aiofastnet.create_server(loop, factory, sock=listener, ssl=context, backlog=4096, **_buffers())
    return await loop.create_server(factory, sock=listener, ssl=context, backlog=4096)


async def _own_accept(listener: socket.socket, factory: Callable[[], Any], context: ssl.SSLContext, tls: str) -> Any:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = set()

    async def secure(sock: socket.socket) -> None:
        if tls.startswith("fastnet"):
            await aiofastnet.connect_accepted_socket(
                loop, factory, sock, ssl=context, ssl_handshake_timeout=10, **_buffers()
            )
        else:
            await loop.connect_accepted_socket(factory, sock, ssl=context, ssl_handshake_timeout=10)

    def accept() -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            task = loop.create_task(secure(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    loop.add_reader(listener, accept)
    return tasks


class _Undecoded(ssl.SSLContext):
    verify_mode = ssl.CERT_NONE


def _buffers() -> dict[str, int]:
    return {"ssl_incoming_bio_size": TLS_BUFFER_BYTES, "ssl_outgoing_bio_size": TLS_BUFFER_BYTES}


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "servers" / f"{SERVER_NAME}.pem", folder / "servers" / f"{SERVER_NAME}.key")
    context.load_verify_locations(folder / "clients" / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


async def _obey(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while word := (await reader.readline()).decode().strip():
        answer: dict[str, float] = {"cpu": await bench.round()} if word == "round" else _usage()
        print(json.dumps(answer), flush=True)


def _usage() -> dict[str, float]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"rss": pages * os.sysconf("SC_PAGE_SIZE"), "cpu": time.process_time()}


if __name__ == "__main__":
    main()
