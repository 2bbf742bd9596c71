"""The link for devices without WebSocket: the same frames, one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from hengd.events import EventLog
from hengd.http.edge import CALLER, PEER, REQUEST_ID, Auth, Route, stamp
from hengd.http.parse import MAX_WAIT_S, Query, body_bytes, no_body
from hengd.hub import Hub
from hengd.records import Desired
from hengd.rules.authority import Authority, Caller
from hengd.rules.deliveries import Deliveries
from hengd.rules.presence import Presence
from hengd.rules.reports import Reports
from hengd.rules.states import after_hello, after_report, is_offered, is_offered_again, retry_in_s
from henge_protocol.errors import Invalid, Malformed
from henge_protocol.model import is_digest
from henge_protocol.wire import (
    MAX_DEVICE_FRAME_BYTES,
    PROTOCOL_VERSION,
    Hello,
    Receipt,
    Report,
    Welcome,
    decode,
    encode,
)  # fmt: skip

FRAME_TYPE: Final = "application/vnd.henge.frame"
LINGER_S: Final = 20.0
"""Beyond the longest wait: a device that asks and asks again counts as online in between."""


class PollRoutes:
    """Long-poll for documents, post for reports."""

    def __init__(
        self,
        authority: Authority,
        deliveries: Deliveries,
        reports: Reports,
        presence: Presence,
        hub: Hub,
        events: EventLog,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._authority = authority
        self._deliveries = deliveries
        self._reports = reports
        self._presence = presence
        self._hub = hub
        self._events = events
        self._clock = clock
        self._bells: set[asyncio.Event] = set()
        self._present: dict[str, asyncio.TimerHandle] = {}
        """Devices that count as online because they asked lately, by id."""
        self._stopping = False

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route("GET", "/v1/device/config", Auth.DEVICE, self.config)
        yield Route("POST", "/v1/device/report", Auth.DEVICE, self.report)

    def wake_all(self) -> None:
        """The daemon stops: every waiting poll answers now."""
        self._stopping = True
        for bell in self._bells:
            bell.set()

    async def config(self, request: web.Request) -> web.Response:
        """The newest document, or 304 when there is nothing new within the wait."""
        no_body(request)
        query, caller = Query(request, "have", "wait"), request[CALLER]
        have, wait_s = _digest(query.text("have")), query.number("wait", 0, most=MAX_WAIT_S)
        if not query.has("have"):
            return _frame(self._welcome(caller))
        self._arrive(caller, request[PEER].address)
        with self._held(request, caller):
            desired = await self._newer(caller, have, wait_s)
            return await _written(request, self._document(caller, desired))

    async def report(self, request: web.Request) -> web.Response:
        """Take a hello or report; the receipt means that it is on disk."""
        query, caller = Query(request, "have"), request[CALLER]
        message = decode(await body_bytes(request, max_bytes=MAX_DEVICE_FRAME_BYTES))
        old, now = self._reports.latest(caller.subject), self._clock()
        if isinstance(message, Hello):
            new = after_hello(old, message, now=now, address=request[PEER].address)
        elif isinstance(message, Report):
            taken = after_report(old, message, self._deliveries.line, now=now)
            if taken is None:
                raise Invalid("no_such_revision", f"revision {message.revision} was never issued here")
            new = taken
        else:
            raise Malformed("unexpected", f"a {message.type} frame is not a report")
        await self._reports.recorded(caller.subject, new)
        answer = encode(Receipt(message.revision, message.digest, message.state))
        if not query.has("have"):
            return _frame(answer)
        with self._held(request, caller):
            desired, due_in_s = self._offered(caller, _digest(query.text("have")), fresh=True)
            if desired is not None and due_in_s <= 0:
                answer += b"\n" + self._deliveries.delivery(caller.subject, desired).frame
            return await _written(request, _frame(answer))

    @contextmanager
    def _held(self, request: web.Request, caller: Caller) -> Iterator[None]:
        """Cut the request when the device's identity ends: no document leaves for it from then on."""
        waiting = asyncio.current_task()

        def cut() -> None:
            self._leave(caller)
            if request.transport is not None:
                request.transport.abort()
            if waiting is not None:
                waiting.cancel()

        self._authority.hold("device", caller.subject, cut)
        try:
            yield
        finally:
            self._authority.release("device", caller.subject, cut)

    async def _newer(self, caller: Caller, have: str, wait_s: int) -> Desired | None:
        bell = asyncio.Event()
        self._hub.listen(caller.subject, bell.set)
        self._bells.add(bell)
        try:
            return await self._rung(caller, have, wait_s, bell)
        finally:
            self._bells.discard(bell)
            self._hub.forget(caller.subject, bell.set)

    async def _rung(self, caller: Caller, have: str, wait_s: int, bell: asyncio.Event) -> Desired | None:
        """Listen first, look second, sleep third: the other order loses a change in between."""
        deadline, rung = asyncio.get_running_loop().time() + wait_s, False
        while True:
            desired, due_in_s = self._offered(caller, have, fresh=not rung)
            left_s = deadline - asyncio.get_running_loop().time()
            if desired is not None and due_in_s <= 0:
                return desired
            if left_s <= 0 or self._stopping:
                return None
            bell.clear()
            try:
                rung = await asyncio.wait_for(bell.wait(), min(left_s, due_in_s) if desired else left_s)
            except TimeoutError:
                rung = False  # a last look

    def _offered(self, caller: Caller, have: str, *, fresh: bool) -> tuple[Desired | None, float]:
        """What the device should be sent, and in how many seconds: later only what it refused for a passing reason."""
        desired = self._deliveries.newest(caller.subject, fresh=fresh)
        if desired is None or desired.digest == have or self._authority.is_cut("device", caller.subject):
            return None, 0.0
        reported, line = self._reports.latest(caller.subject), self._deliveries.line
        if is_offered(desired, reported, line) or desired.digest == reported.running:
            return desired, 0.0
        again = is_offered_again(desired, reported, line)
        return (desired, retry_in_s(reported, now=self._clock())) if again else (None, 0.0)

    def _document(self, caller: Caller, desired: Desired | None) -> web.Response:
        if desired is None:
            return web.Response(status=304)
        delivery = self._deliveries.delivery(caller.subject, desired)
        return _frame(delivery.frame, etag=f'"{delivery.config.digest}"')

    def _welcome(self, caller: Caller) -> bytes:
        epoch, time = self._deliveries.line.epoch, int(self._clock())
        limit = self._deliveries.max_document(caller.subject)
        return encode(Welcome(PROTOCOL_VERSION, epoch, caller.name, time, MAX_WAIT_S, limit))

    def _arrive(self, caller: Caller, address: str) -> None:
        """Count the device as online until a while after the longest answer, or until its identity ends."""
        present = self._present.pop(caller.subject, None)
        if present is not None:
            present.cancel()
        elif self._presence.arrive(caller.subject, address, now=self._clock()):
            self._tell("device.online", caller, address=address)
        later = asyncio.get_running_loop().call_later(MAX_WAIT_S + LINGER_S, self._leave, caller)
        self._present[caller.subject] = later

    def _leave(self, caller: Caller) -> None:
        present = self._present.pop(caller.subject, None)
        if present is None:
            return
        present.cancel()
        if self._presence.leave(caller.subject, now=self._clock()):
            self._tell("device.offline", caller)

    def _tell(self, type_: str, caller: Caller, **detail: str) -> None:
        for name in self._deliveries.names([caller.subject]):
            self._events.add(self._clock(), type_, "Device", name, **detail)


async def _written(request: web.Request, response: web.Response) -> web.Response:
    """``response``, already on its way."""
    stamp(response, request[REQUEST_ID])
    await response.prepare(request)
    await response.write_eof()
    return response


def _digest(text: str) -> str:
    if text and not is_digest(text):
        raise Malformed("bad_parameter", f"have={ascii(text)[:80]} is not a digest")
    return text


def _frame(frame: bytes, *, etag: str = "") -> web.Response:
    return web.Response(body=frame, headers={"ETag": etag} if etag else None, content_type=FRAME_TYPE)
