"""Revisions, rollback and events: what happened and how to go back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from aiohttp import web

from hengd.events import EventLog
from hengd.http import shapes, shapes_changes
from hengd.http.edge import WRITE_QUERY, Auth, Route, change_request
from hengd.http.eventstream import Telling, last_event_id, socket_events, stream_events, wants_socket, wants_stream
from hengd.http.parse import MAX_WAIT_S, Query, if_match, json_object, no_body, text_field
from hengd.http.views import (
    between_response,
    bytes_response,
    json_response,
    outcome_response,
    revision_bytes,
)
from hengd.records import RevisionRecord
from hengd.rules.configs import MAX_MESSAGE_CHARS, Configs
from hengd.rules.history import find_revision, revisions_back
from hengd.rules.objects import parse_object_path
from henge_protocol.errors import Invalid, NotFound
from henge_protocol.model import MAX_LISTED

MAX_ANSWER_BYTES: Final = 8 * 1024**2
"""Of revisions, and one more; each may have thousands of objects."""


class HistoryRoutes:
    """The history line of the configuration and the events of now."""

    def __init__(self, configs: Configs, events: EventLog) -> None:
        self._configs = configs
        self._events = events
        self._telling = Telling(events)

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route(
            "GET", "/v1/revisions", Auth.VIEWER, self.revisions,
            query=("object", "limit", "before", "diff"), gives={200: shapes_changes.RevisionList},
        )  # fmt: skip
        yield Route("GET", "/v1/revisions/{revision}", Auth.VIEWER, self.revision, gives={200: shapes_changes.Revision})
        yield Route(
            "GET", "/v1/revisions/{revision}/diff", Auth.VIEWER, self.diff,
            query=("to", "object"), gives={200: shapes_changes.Between},
        )  # fmt: skip
        yield Route(
            "POST", "/v1/rollback", Auth.EDITOR, self.rollback,
            query=(*WRITE_QUERY, "take_over"), headers=("If-Match",), takes=shapes_changes.RollbackBody,
            gives={200: shapes_changes.Outcome},
        )  # fmt: skip
        yield Route(
            "GET", "/v1/events", Auth.VIEWER, self.events,
            query=("since", "wait"), headers=("Last-Event-ID",),
            gives={101: shapes.EVENT_SOCKET, 200: (shapes.Events, shapes.EVENTS)},
        )  # fmt: skip

    async def revisions(self, request: web.Request) -> web.Response:
        """The newest revisions first."""
        no_body(request)
        query = Query(request, "object", "limit", "before", "diff")
        object_ = parse_object_path(query.text("object")) if query.has("object") else None
        before, limit = query.number("before", 0) or None, query.number("limit", 50, least=1, most=MAX_LISTED)
        fields = query.flag("diff")
        return bytes_response(
            await self._configs.examine(lambda tx: _list(revisions_back(tx, before, object_), limit, fields=fields))
        )

    async def revision(self, request: web.Request) -> web.Response:
        """One revision, whole."""
        no_body(request)
        Query(request)
        number = _number(request)
        told = await self._configs.examine(lambda tx: revision_bytes(find_revision(tx, number), whole=True))
        return bytes_response(told)

    async def diff(self, request: web.Request) -> web.Response:
        """What differs between two revisions."""
        no_body(request)
        query, older = Query(request, "to", "object"), _number(request)
        newer = query.number("to", 0) if query.has("to") else None
        target = parse_object_path(query.text("object")) if query.has("object") else None
        return await between_response(await self._configs.between(older, newer, target))

    async def rollback(self, request: web.Request) -> web.Response:
        """A new revision with old content."""
        wanted = change_request(request, "take_over")
        body = await json_object(request, shapes.fields_of(shapes_changes.RollbackBody))
        to, target = body.get("to"), text_field(body, "object")
        if type(to) is not int or to < 0:
            raise Invalid("bad_object", "to is not the number of a revision")
        message = (
            wanted.message or text_field(body, "message", max_chars=MAX_MESSAGE_CHARS) or f"roll back to revision {to}"
        )
        request_ = replace(wanted, message=message, fleet=if_match(request))
        return await outcome_response(
            await self._configs.rollback(to, parse_object_path(target) if target else None, request_)
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """What happened after a number; waits for the next if there is nothing, or streams them."""
        no_body(request)
        query = Query(request, "since", "wait")
        if wants_socket(request):
            return await socket_events(request, self._telling, query.number("since", self._events.seq))
        if wants_stream(request):
            default = query.number("since", self._events.seq)
            return await stream_events(request, self._telling, last_event_id(request, default))
        if not query.has("since"):
            return json_response({"events": [], "next": self._events.seq, "gap": False})
        since = query.number("since", 0)
        await self._events.wait(since, query.number("wait", 0, most=MAX_WAIT_S))
        told = self._telling.since(since)
        more = b"true" if told.gap else b"false"
        return bytes_response(b'{"events":[%b],"next":%d,"gap":%b}' % (",".join(told.texts).encode(), told.next, more))


def _list(found: Iterator[RevisionRecord], limit: int, *, fields: bool) -> bytes:
    """As many revisions as fit; where to go on if that is not all that was asked for."""
    items: list[bytes] = []
    more, left = b"", MAX_ANSWER_BYTES
    for record in islice(found, limit):
        items.append(revision_bytes(record, fields=fields))
        left -= len(items[-1])
        if left < 0 and len(items) < limit:
            more = b',"before":%d' % record.revision
            break
    return b'{"kind":"RevisionList","items":[%b]%b}' % (b",".join(items), more)


def _number(request: web.Request) -> int:
    text = request.match_info["revision"]
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise NotFound("no_such_revision", f"{ascii(text)[:40]} is not the number of a revision")
    return int(text)
