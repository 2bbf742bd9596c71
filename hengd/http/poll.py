"""The link for devices without WebSocket: the same frames, one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web

from hengd.http import shapes
from hengd.http.edge import CALLER, PEER, REQUEST_ID, Auth, Route, cutter_of
from hengd.http.parse import MAX_WAIT_S, Query, body_bytes, no_body
from hengd.http.problems import stamp
from hengd.records import Desired
from hengd.rules.contact import Contact, Contacts
from henge_protocol.errors import Invalid, Malformed
from henge_protocol.model import is_digest
from henge_protocol.wire import (
    MAX_DEVICE_FRAME_BYTES,
    Hello,
    Receipt,
    Report,
    decode,
    encode,
)  # fmt: skip

FRAME_TYPE: Final = shapes.FRAME.type
LINGER_S: Final = 20.0
"""Beyond the longest wait: a device that asks and asks again counts as online in between."""


class PollRoutes:
    """Long-poll for documents, post for reports."""

    def __init__(self, contacts: Contacts) -> None:
        self._contacts = contacts
        self._bells: set[asyncio.Event] = set()
        self._present: dict[str, tuple[Contact, asyncio.TimerHandle]] = {}
        """Devices that count as online because they asked lately, by id."""
        self._stopping = False

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route(
            "GET", "/v1/device/config", Auth.DEVICE, self.config,
            query=("have", "wait"), gives={200: shapes.FRAME, 304: None},
        )  # fmt: skip
        yield Route(
            "POST", "/v1/device/report", Auth.DEVICE, self.report,
            query=("have",), takes=dict[str, Any], gives={200: shapes.FRAME},
        )  # fmt: skip

        yield Route("GET", "/v1/device/schema", Auth.DEVICE, self.schema, gives={200: shapes.SCHEMA})

    def wake_all(self) -> None:
        """The daemon stops: every waiting poll answers now."""
        self._stopping = True
        for bell in self._bells:
            bell.set()

    async def config(self, request: web.Request) -> web.Response:
        """The newest document, or 304 when there is nothing new within the wait."""
        no_body(request)
        query, contact = Query(request, "have", "wait"), self._meet(request)
        have, wait_s = _digest(query.text("have")), query.number("wait", 0, most=MAX_WAIT_S)
        version = contact.agree()
        if not query.has("have"):
            return _frame(encode(contact.welcome(version, MAX_WAIT_S)))
        self._arrive(contact)
        with self._held(request, contact):
            desired = await self._newer(contact, have, wait_s)
            return await _written(request, _document(contact, desired))

    async def schema(self, request: web.Request) -> web.Response:
        """What the device's documents fit, for one that checks them itself."""
        no_body(request)
        Query(request)
        contact = self._meet(request)
        contact.agree()
        name, digest, data = contact.schema()
        headers = {"ETag": f'"{digest}"', "Henge-Schema": name}
        return web.Response(body=data, headers=headers, content_type=shapes.SCHEMA.type)

    async def report(self, request: web.Request) -> web.Response:
        """Take a hello or report; the receipt means that it is on disk."""
        query, contact = Query(request, "have"), self._meet(request)
        message = decode(await body_bytes(request, max_bytes=MAX_DEVICE_FRAME_BYTES))
        if not isinstance(message, Hello | Report):
            raise Malformed("unexpected", f"a {message.type} frame is not a report")
        _take(contact, message)
        await contact.recorded()
        answer = encode(Receipt(message.revision, message.digest, message.state))
        if not query.has("have"):
            return _frame(answer)
        with self._held(request, contact):
            desired, due_in_s = contact.due_to(_digest(query.text("have")), fresh=True)
            if desired is not None and due_in_s <= 0:
                answer += b"\n" + contact.delivery(desired).frame
            return await _written(request, _frame(answer))

    def _meet(self, request: web.Request) -> Contact:
        return self._contacts.meet(request[CALLER], request[PEER].address)

    @contextmanager
    def _held(self, request: web.Request, contact: Contact) -> Iterator[None]:
        """Cut the request when the device's identity ends: no document leaves for it from then on."""
        cut_request = cutter_of(request)

        def cut() -> None:
            self._leave(contact.device_id)
            cut_request()

        contact.hold(cut)
        try:
            yield
        finally:
            contact.release(cut)

    async def _newer(self, contact: Contact, have: str, wait_s: int) -> Desired | None:
        bell = asyncio.Event()
        contact.listen(bell.set)
        self._bells.add(bell)
        try:
            return await self._rung(contact, have, wait_s, bell)
        finally:
            self._bells.discard(bell)
            contact.ignore(bell.set)

    async def _rung(self, contact: Contact, have: str, wait_s: int, bell: asyncio.Event) -> Desired | None:
        """Listen first, look second, sleep third: the other order loses a change in between."""
        deadline, rung = asyncio.get_running_loop().time() + wait_s, False
        while True:
            desired, due_in_s = contact.due_to(have, fresh=not rung)
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

    def _arrive(self, contact: Contact) -> None:
        """Count the device as online until a while after the longest answer, or until its identity ends."""
        present = self._present.pop(contact.device_id, None)
        if present is None:
            contact.arrive()
        else:
            present[1].cancel()
        later = asyncio.get_running_loop().call_later(MAX_WAIT_S + LINGER_S, self._leave, contact.device_id)
        self._present[contact.device_id] = contact, later

    def _leave(self, device_id: str) -> None:
        present = self._present.pop(device_id, None)
        if present is not None:
            contact, later = present
            later.cancel()
            contact.leave()


def _take(contact: Contact, message: Hello | Report) -> None:
    if isinstance(message, Hello):
        contact.agree(message)
        contact.hello(message)
        return
    contact.agree()
    contact.latest()
    if not contact.report(message):
        raise Invalid("no_such_revision", f"revision {message.revision} was never issued here")


def _document(contact: Contact, desired: Desired | None) -> web.Response:
    if desired is None:
        return web.Response(status=304)
    delivery = contact.delivery(desired)
    return _frame(delivery.frame, etag=f'"{delivery.config.digest}"')


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
