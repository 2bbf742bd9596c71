"""Events as they happen, over Server-Sent Events (WHATWG HTML 9.2): for browsers and ``curl -N``."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final

from aiohttp import web

from hengd.events import Event, EventLog
from hengd.http.edge import REQUEST_ID
from hengd.http.problems import stamp
from hengd.http.shapes import EVENTS
from hengd.http.views import event_view
from henge_protocol.errors import Malformed

COMMENT_EVERY_S: Final = 15.0
"""A line of comment finds out that the reader is gone, and keeps routers from forgetting the connection."""
STUCK_S: Final = 30.0
"""A reader that takes nothing for so long is cut; it comes back with the number of the last event that it had."""
RECONNECT_MS: Final = 1000
_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


def wants_stream(request: web.Request) -> bool:
    """Whether the caller asks for a stream instead of one answer."""
    media = [one.partition(";")[0].strip().lower() for one in request.headers.get("Accept", "").split(",")]
    return EVENTS.type in media


def last_event_id(request: web.Request, default: int) -> int:
    """Where a stream that broke goes on; ``default`` for a new one."""
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return default
    if not _NUMBER.fullmatch(text):
        raise Malformed("bad_parameter", f"Last-Event-ID {ascii(text)[:40]} is not the number of an event")
    return int(text)


async def stream_events(request: web.Request, events: EventLog, since: int) -> web.StreamResponse:
    """Everything after ``since`` and what happens from now on, until the reader leaves or the daemon stops."""
    response = web.StreamResponse(headers={"Content-Type": EVENTS.type})
    stamp(response, request[REQUEST_ID])
    await response.prepare(request)
    await _send(request, response, f"retry: {RECONNECT_MS}\n\n")
    while not events.closed:
        found, gap = events.since(since)
        text = _gap_text(events.seq) if gap else ""
        await _send(request, response, text + "".join(map(_event_text, found)) or ": nothing new\n\n")
        since = found[-1].seq if found else events.seq
        await events.wait(since, COMMENT_EVERY_S)
    await response.write_eof()
    return response


async def _send(request: web.Request, response: web.StreamResponse, text: str) -> None:
    try:
        async with asyncio.timeout(STUCK_S):
            await response.write(text.encode())
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the reader of events takes nothing") from None


def _event_text(event: Event) -> str:
    data = json.dumps(event_view(event), ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.seq}\nevent: {event.type}\ndata: {data}\n\n"


def _gap_text(seq: int) -> str:
    """Some events are gone: read the objects again, then go on."""
    return f'event: gap\ndata: {{"next":{seq}}}\n\n'
