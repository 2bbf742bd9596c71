"""Rescue: devices that the store does not know hand in what they run, and an operator takes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Final

from aiohttp import web

from hengd.http import shapes, shapes_joining, shapes_rescue
from hengd.http.edge import PEER, WRITE_QUERY, Auth, Route, author_of, change_request
from hengd.http.parse import Query, base64_field, facts_field, flag_field, json_object, no_body, text_field
from hengd.http.views import json_response, moment
from hengd.rules.rescue import HandedIn, Rescue, Waiting
from hengd.rules.taking import Taking, Wanted, Wish
from henge_protocol.errors import Invalid
from henge_protocol.model import MAX_DOCUMENT_BYTES, MAX_LISTED, MAX_RESCUED_SCHEMA_BYTES, is_digest
from henge_protocol.peertext import clean_text
from henge_protocol.strictjson import LIMITS, MAX_INTEGER

MAX_HAND_IN_BYTES: Final = 128 * 1024
"""Both parts in base64, and what the device says of itself."""
_LIMITS: Final = replace(LIMITS, max_string_bytes=MAX_HAND_IN_BYTES)
_EPOCH: Final = re.compile("[a-z0-9]{0,32}", re.ASCII)


class RescueRoutes:
    """The device's side, and the operator's."""

    def __init__(self, rescue: Rescue, taking: Taking) -> None:
        self._rescue = rescue
        self._taking = taking

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route(
            "POST", "/v1/device/rescue", Auth.RESCUE, self.hand_in,
            takes=shapes_rescue.HandInBody, gives={202: shapes_joining.State},
        )  # fmt: skip
        yield Route("GET", "/v1/rescue-window", Auth.VIEWER, self.window, gives={200: shapes_rescue.RescueWindow})
        yield Route(
            "PUT", "/v1/rescue-window", Auth.ADMIN, self.open,
            takes=shapes_rescue.RescueWindowBody, gives={200: shapes_rescue.RescueWindow},
        )  # fmt: skip
        yield Route("GET", "/v1/rescues", Auth.VIEWER, self.waiting, gives={200: shapes_rescue.RescueList})
        yield Route(
            "POST", "/v1/rescues/take", Auth.ADMIN, self.take,
            query=WRITE_QUERY, takes=shapes_rescue.TakeBody,
            gives={200: shapes_rescue.Rescued},
        )  # fmt: skip

    async def hand_in(self, request: web.Request) -> web.Response:
        """What a device runs; it gets nothing for it until a person has taken it."""
        peer = request[PEER]
        certificate = self._rescue.admit(peer.certificate, peer.address)
        Query(request)
        known = shapes.fields_of(shapes_rescue.HandInBody)
        body = await json_object(request, known, max_bytes=MAX_HAND_IN_BYTES, limits=_LIMITS)
        await self._rescue.hand_in(certificate, _handed_in(body), peer.address)
        return json_response({"state": "waiting"}, status=202)

    async def window(self, request: web.Request) -> web.Response:
        """Whether devices may hand in what they run."""
        no_body(request)
        Query(request)
        return self._window()

    async def open(self, request: web.Request) -> web.Response:
        """Open or close the window."""
        Query(request)
        body = await json_object(request, shapes.fields_of(shapes_rescue.RescueWindowBody))
        await self._rescue.window.open(body.get("open_s", 0), author_of(request), forget=flag_field(body, "forget"))
        return self._window()

    async def waiting(self, request: web.Request) -> web.Response:
        """What was handed in and not taken."""
        no_body(request)
        Query(request)
        waiting = self._rescue.waiting()
        items = [_view(one) for one in waiting[:MAX_LISTED]]
        return json_response({"kind": "RescueList", "items": items, "total": len(waiting)})

    async def take(self, request: web.Request) -> web.Response:
        """Make devices of what was handed in."""
        wanted = change_request(request)
        body = await json_object(request, shapes.fields_of(shapes_rescue.TakeBody))
        wish = Wish(
            tuple(_wanted(one) for one in _list(body, "devices")), text_field(body, "name"),
            text_field(body, "schema"), flag_field(body, "skip"),
        )  # fmt: skip
        if "devices" in body and not wish.wanted:
            raise Invalid("bad_object", "devices is empty; leave it out to take all")
        return json_response(asdict(await self._taking.take(wish, wanted)))

    def _window(self) -> web.Response:
        closes = self._rescue.window.closes
        return json_response({"open": bool(closes), "closes": moment(closes), "waiting": self._rescue.count})


def _handed_in(body: dict[str, Any]) -> HandedIn:
    digest, epoch = text_field(body, "digest", default=None), text_field(body, "epoch")
    revision = body.get("revision", 0)
    if not is_digest(digest):
        raise Invalid("bad_object", "digest is not a digest")
    if not _EPOCH.fullmatch(epoch):
        raise Invalid("bad_object", "epoch is not up to 32 of a-z and 0-9")
    if type(revision) is not int or not 0 <= revision <= MAX_INTEGER:
        raise Invalid("bad_object", "revision is not a revision's number")
    facts = {
        clean_text(key, 64): clean_text(value, 128) if isinstance(value, str) else value
        for key, value in facts_field(body).items()
    }
    return HandedIn(
        text_field(body, "name", default=None), _bytes(body, "document", MAX_DOCUMENT_BYTES), digest,
        _bytes(body, "schema", MAX_RESCUED_SCHEMA_BYTES) if "schema" in body else b"", epoch, revision,
        clean_text(text_field(body, "client", max_chars=64), 64), facts,
    )  # fmt: skip


def _bytes(body: dict[str, Any], name: str, most: int) -> bytes:
    """A part in base64; one that is a little too large is refused by whoever knows what it is."""
    return base64_field(body, name, max_chars=most * 4 // 3 + 1024, code="bad_object")


def _wanted(value: object) -> Wanted:
    if not isinstance(value, dict) or not value.keys() <= {"device", "digest"}:
        raise Invalid("bad_object", 'each of devices is an object such as {"device": "lamp-1"}')
    return Wanted(text_field(value, "device", default=None), text_field(value, "digest"))


def _list(body: dict[str, Any], name: str) -> list[object]:
    value = body.get(name, [])
    if not isinstance(value, list):
        raise Invalid("bad_object", f"{name} is not a list")
    return value


def _view(waiting: Waiting) -> dict[str, Any]:
    record = waiting.record
    return {
        "name": record.name, "id": record.id, "address": record.address, "client": record.client,
        "facts": record.facts, "handed_in": moment(record.at), "digest": record.digest, "size": record.size,
        "schema": record.schema, "certificate_expires": moment(record.not_after), "newest": waiting.is_newest,
    }  # fmt: skip
