"""Events as they happen: Server-Sent Events (WHATWG HTML 9.2) for browsers and ``curl -N``, or a WebSocket.

Both begin, go on and end alike: after a number, with what happens, until the reader leaves, would not be let in any
more, or the daemon stops.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import cached_property
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from hengd.events import Event, EventLog
from hengd.http.edge import ADMISSION, REQUEST_ID
from hengd.http.problems import stamp
from hengd.http.shapes import EVENTS
from hengd.http.views import event_view
from henge_protocol.errors import Malformed, UpgradeRequired

COMMENT_EVERY_S: Final = 15.0
"""A line of comment finds out that the reader is gone, and keeps routers from forgetting the connection."""
STUCK_S: Final = 30.0
"""A reader that takes nothing for so long is cut; it comes back with the number of the last event that it had."""
RECONNECT_MS: Final = 1000
RANGES: Final = 4
"""Readers that lag behind by different lengths and are still served from one telling; each is at most 2 MB."""
PING_EVERY_S: Final = 25.0
"""As on the links of devices; half as long without an answer, and the socket is cut."""
MAX_SAID_BYTES: Final = 1024
"""A reader of events has nothing to say; a longer message is not even read."""
_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


class Told:
    """Some events as text: for everybody who read as far."""

    def __init__(self, found: Sequence[Event], *, newest: int, gap: bool) -> None:
        self.texts = [_json(event_view(event)) for event in found]
        self.gap = gap
        """Whether some before them were missed."""
        self.next = newest
        self._heads = [f"id: {event.seq}\nevent: {event.type}\ndata: " for event in found]

    @cached_property
    def stream(self) -> bytes:
        """As Server-Sent Events; a comment if there is nothing."""
        missed = f"event: gap\ndata: {_json({'next': self.next})}\n\n" if self.gap else ""
        told = "".join(f"{head}{text}\n\n" for head, text in zip(self._heads, self.texts, strict=True))
        return (missed + told or ": nothing new\n\n").encode()


class Telling:
    """Events as text, made once however many readers there are: most have read as far as all others."""

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self._newest = events.seq
        self._told: dict[int, Told] = {}

    def since(self, seq: int) -> Told:
        """Everything after a number."""
        if self._newest != self.events.seq or len(self._told) >= RANGES:
            self._newest = self.events.seq
            self._told.clear()
        told = self._told.get(seq)
        if told is None:
            found, gap = self.events.since(seq)
            told = self._told[seq] = Told(found, newest=self._newest, gap=gap)
        return told


def wants_stream(request: web.Request) -> bool:
    """Whether the caller asks for a stream instead of one answer."""
    media = [one.partition(";")[0].strip().lower() for one in request.headers.get("Accept", "").split(",")]
    return EVENTS.type in media


def wants_socket(request: web.Request) -> bool:
    """Whether the caller asks for a WebSocket."""
    return "websocket" in [one.strip().lower() for one in request.headers.get("Upgrade", "").split(",")]


def last_event_id(request: web.Request, default: int) -> int:
    """Where a stream that broke goes on; ``default`` for a new one."""
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return default
    if not _NUMBER.fullmatch(text):
        raise Malformed("bad_parameter", f"Last-Event-ID {ascii(text)[:40]} is not the number of an event")
    return int(text)


async def stream_events(request: web.Request, telling: Telling, since: int) -> web.StreamResponse:
    """Everything after ``since`` and what happens from now on, until nothing more is told; see ``_happenings``."""
    response = web.StreamResponse(headers={"Content-Type": EVENTS.type})
    stamp(response, request[REQUEST_ID])
    await response.prepare(request)
    await _taken(request, response.write(b"retry: %d\n\n" % RECONNECT_MS))
    async for told in _happenings(request, telling, since):
        await _taken(request, response.write(told.stream))
    await response.write_eof()
    return response


async def socket_events(request: web.Request, telling: Telling, since: int) -> web.StreamResponse:
    """The same over a WebSocket, an event a message; ``UpgradeRequired`` for what is no handshake of version 13."""
    socket = web.WebSocketResponse(heartbeat=PING_EVERY_S, compress=False, max_msg_size=MAX_SAID_BYTES)
    if request.headers.getall("Sec-WebSocket-Version", ()) != ["13"] or not socket.can_prepare(request).ok:
        raise UpgradeRequired("upgrade_required", "this is no handshake of a WebSocket, version 13")
    stamp(socket, request[REQUEST_ID])
    await socket.prepare(request)
    works = [asyncio.create_task(work) for work in (_tell(request, socket, telling, since), _listen(socket))]
    try:
        await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
    lasts = request[ADMISSION].lasts
    code = WSCloseCode.OK if lasts else WSCloseCode.POLICY_VIOLATION
    await socket.close(code=WSCloseCode.GOING_AWAY if telling.events.closed else code)
    return socket


async def _happenings(request: web.Request, telling: Telling, since: int) -> AsyncIterator[Told]:
    """Again and again what is new, and whether some was missed; nothing new now and then, until nothing more is told.

    That is when the daemon stops, and when the reader's certificate has ended.
    """
    while not telling.events.closed and request[ADMISSION].lasts:
        told = telling.since(since)
        since = told.next
        yield told
        await telling.events.wait(since, COMMENT_EVERY_S)


async def _tell(request: web.Request, socket: web.WebSocketResponse, telling: Telling, since: int) -> None:
    async for told in _happenings(request, telling, since):
        for text in [_json({"type": "gap", "next": told.next})] * told.gap + told.texts:
            await _taken(request, socket.send_str(text))


async def _listen(socket: web.WebSocketResponse) -> None:
    """Answer pings and the farewell; whoever says anything else has mistaken the address."""
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"events are only read")


async def _taken(request: web.Request, sending: Awaitable[None]) -> None:
    """Wait until there is room for what was sent; a reader that takes nothing is cut."""
    try:
        async with asyncio.timeout(STUCK_S):
            await sending
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the reader of events takes nothing") from None


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
