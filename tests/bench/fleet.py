"""Many simulated devices in one process: WebSockets over mTLS that answer what a function tells them to.

Made to be cheap per device, so that one core of load generator can exercise one core of daemon.
``Fleet`` knows nothing of the wire; give it an ``answer`` function per device that turns a text frame
into the text to send back (or nothing).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import aiofastnet
import picows
from picows.picows import WSProtocol

Answer = Callable[[bytes], bytes | None]
"""What one device replies to one text frame."""

TLS_BUFFER_BYTES = 16 * 1024
"""Per direction, the least that aiofastnet takes; a TLS record that is longer is read in two goes."""


class SimulatedDevice(picows.WSListener):  # type: ignore[misc]
    """One device's end of a link."""

    def __init__(self, fleet: Fleet, index: int, answer: Answer, greeting: bytes | None) -> None:
        self.fleet = fleet
        self.index = index
        self.transport: picows.WSTransport | None = None
        self._answer = answer
        self._greeting = greeting

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        self.fleet.online += 1
        if self._greeting is not None:
            transport.send(picows.WSMsgType.TEXT, self._greeting)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            reply = self._answer(frame.get_payload_as_bytes())
            if reply is not None:
                transport.send(picows.WSMsgType.TEXT, reply)
            self.fleet.count_frame()
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect(graceful=False)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.fleet.online -= 1
        self.transport = None


class Fleet:
    """The devices of one process and what they saw."""

    def __init__(self) -> None:
        self.devices: list[SimulatedDevice] = []
        self.online = 0
        self.frames = 0
        """Text frames received by all devices together."""
        self._wanted = 0
        self._reached: asyncio.Future[None] | None = None

    def count_frame(self) -> None:
        """Called by each device for each text frame."""
        self.frames += 1
        if self._reached is not None and self.frames >= self._wanted and not self._reached.done():
            self._reached.set_result(None)

    async def wait_frames(self, count: int, *, timeout_s: float) -> None:
        """Return when the fleet has received ``count`` text frames since it exists; TimeoutError otherwise."""
        if self.frames >= count:
            return
        self._wanted = count
        self._reached = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(self._reached, timeout_s)

    def cut(self) -> None:
        """Drop every connection without a word, as a power cut does."""
        for device in self.devices:
            if device.transport is not None:
                device.transport.disconnect(graceful=False)


async def connect_fleet(
    address: tuple[str, int],
    count: int,
    *,
    context_of: Callable[[int], ssl.SSLContext],
    answer_of: Callable[[int], Answer],
    greeting_of: Callable[[int], bytes | None] = lambda _index: None,
    server_name: str,
    path: str = "/v1/device/stream",
    concurrency: int = 64,
    source_of: Callable[[int], str] | None = None,
) -> Fleet:
    """Open ``count`` links, ``concurrency`` at a time, and return when all are upgraded.

    ``context_of`` gives a device's TLS context (share one where a common certificate will do: a context
    costs far more memory than a connection); ``source_of`` a loopback address to connect from, so that
    limits per address can be met or avoided on purpose.  The first failed handshake is raised.
    """
    fleet = Fleet()
    turns = asyncio.Semaphore(concurrency)

    async def connect(index: int) -> None:
        device = SimulatedDevice(fleet, index, answer_of(index), greeting_of(index))
        fleet.devices.append(device)
        async with turns:
            await _connect(
                device,
                address,
                path=path,
                context=context_of(index),
                server_name=server_name,
                source=source_of(index) if source_of else None,
            )

    async with asyncio.TaskGroup() as group:
        for index in range(count):
            group.create_task(connect(index))
    return fleet


async def _connect(
    device: SimulatedDevice,
    address: tuple[str, int],
    *,
    path: str,
    context: ssl.SSLContext,
    server_name: str,
    source: str | None,
) -> None:
    loop = asyncio.get_running_loop()
    _, protocol = await aiofastnet.create_connection(
        loop,
        lambda: _protocol(device, server_name, path),
        *address,
        ssl=context,
        server_hostname=server_name,
        local_addr=(source, 0) if source else None,
        ssl_handshake_timeout=60,
        ssl_incoming_bio_size=TLS_BUFFER_BYTES,
        ssl_outgoing_bio_size=TLS_BUFFER_BYTES,
    )
    await protocol.wait_until_handshake_complete()  # type: ignore[attr-defined]


def _protocol(device: SimulatedDevice, host: str, path: str) -> Any:
    return WSProtocol(
        host, path, True, lambda *_args: device, _Silent(), True, 60.0, False, 30.0, 15.0,
        picows.WSAutoPingStrategy.PING_WHEN_IDLE, True, 1 << 20, None, 2048,
    )  # fmt: skip


class _Silent:
    """A logger that says nothing: picows makes one child of a real logger per connection, which costs memory."""

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 (the name that picows calls)
        return False

    def log(self, *_args: object, **_kwargs: object) -> None:
        pass

    debug = info = warning = error = exception = log
