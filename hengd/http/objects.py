"""Schemas, groups and devices as objects: read, create, replace, patch, delete."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aiohttp import web

from hengd.events import EventLog
from hengd.http import shapes, shapes_changes
from hengd.http.edge import OWNER_QUERY, WRITE_QUERY, Auth, Handler, Route, change_request
from hengd.http.parse import APPLY_LIMITS, Query, if_match, json_body, json_object, name_of, no_body, text_field
from hengd.http.views import (
    device_view,
    dry_run_response,
    json_bytes,
    layer_view,
    object_response,
    outcome_response,
)
from hengd.records import ObjectRecord, object_key
from hengd.rules.configs import MAX_MESSAGE_CHARS, Configs
from hengd.rules.devices import Devices
from hengd.rules.expiry import Overrides
from hengd.rules.fleet import find_object, read_meta, required_object
from hengd.rules.objects import parse_manifest
from hengd.rules.overrides import parse_overriding
from hengd.store import Store
from henge_protocol.errors import Invalid, Malformed, NotFound
from henge_protocol.model import MAX_LISTED, PLURALS, check_name, is_name
from henge_protocol.selector import MAX_SELECTOR_CHARS, Selector, parse_selector

PIECE: Final = 100
"""Objects read and rendered before everybody else has a turn."""
_SHAPES: Final = {"Device": (shapes.Device, shapes.DeviceList)}
_LAYERS: Final = (shapes.Object, shapes.ObjectList)


class ObjectRoutes:
    """The three kinds share one set of handlers; a device is shown with its status."""

    def __init__(
        self, store: Store, configs: Configs, overrides: Overrides, devices: Devices, events: EventLog
    ) -> None:
        self._store = store
        self._configs = configs
        self._overrides = overrides
        self._devices = devices
        self._events = events

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        for kind, plural in PLURALS.items():
            yield Route(
                "GET",
                f"/v1/{plural}",
                Auth.VIEWER,
                self._list(kind),
                query=("selector", "limit", "continue"),
                gives={200: _SHAPES.get(kind, _LAYERS)[1]},
            )
            yield from self._one(kind, f"/v1/{plural}/{{name}}")
        for kind in ("Group", "Device"):
            yield Route(
                "PATCH", f"/v1/{PLURALS[kind]}/{{name}}/overrides", Auth.EDITOR, self._override(kind),
                query=(*WRITE_QUERY, "take_over"), headers=("If-Match",), takes=shapes_changes.OverridesBody,
                gives={200: (_SHAPES.get(kind, _LAYERS)[0], shapes_changes.Outcome)},
            )  # fmt: skip
        yield Route(
            "POST", "/v1/overrides", Auth.EDITOR, self.override_selected,
            query=WRITE_QUERY, takes=shapes_changes.SelectedOverridesBody, gives={200: shapes_changes.Outcome},
        )  # fmt: skip
        yield Route(
            "POST", "/v1/apply", Auth.EDITOR, self.apply,
            query=(*WRITE_QUERY, *OWNER_QUERY, "prune", "expect"), headers=("If-Match",),
            takes=shapes_changes.ApplyBody, gives={200: shapes_changes.Outcome},
        )  # fmt: skip

    def _one(self, kind: str, path: str) -> Iterator[Route]:
        shape = _SHAPES.get(kind, _LAYERS)[0]
        either = (shape, shapes_changes.Outcome)
        yield Route("GET", path, Auth.VIEWER, self._show(kind), gives={200: shape})
        yield Route(
            "PUT", path, Auth.EDITOR, self._put(kind),
            query=(*WRITE_QUERY, *OWNER_QUERY), headers=("If-Match",), takes=shapes.ObjectBody,
            gives={200: either, 201: shape},
        )  # fmt: skip
        yield Route(
            "PATCH", path, Auth.EDITOR, self._patch(kind),
            query=(*WRITE_QUERY, *OWNER_QUERY), headers=("If-Match",), takes=shapes.PatchBody, gives={200: either},
        )  # fmt: skip
        yield Route(
            "DELETE",
            path,
            Auth.EDITOR,
            self._delete(kind),
            query=(*WRITE_QUERY, *OWNER_QUERY),
            headers=("If-Match",),
            gives={200: either},
        )

    async def apply(self, request: web.Request) -> web.Response:
        """Many objects, one transaction, one revision."""
        wanted = change_request(request, *OWNER_QUERY, "prune", "expect")
        expect = request.query.get("expect", "")
        if expect not in ("", "same-documents"):
            raise Malformed("bad_parameter", f"expect={ascii(expect)[:40]} is not same-documents")
        body = await json_body(request, limits=APPLY_LIMITS)
        if not isinstance(body, dict) or not isinstance(body.get("objects", []), list):
            raise Invalid("bad_object", 'the body is {"objects": [...], "delete": [...], "message": ""}')
        known = shapes.fields_of(shapes_changes.ApplyBody)
        unknown = set(body) - set(known)
        if unknown:
            raise Invalid("unknown_field", f"field {ascii(min(unknown))[:60]} is unknown; known are {', '.join(known)}")
        message = wanted.message or text_field(body, "message", max_chars=MAX_MESSAGE_CHARS)
        request_ = replace(wanted, message=message, fleet=if_match(request), same_documents=bool(expect))
        outcome = await self._configs.apply(body.get("objects", []), _deletions(body.get("delete", [])), request_)
        return await outcome_response(outcome)

    async def override_selected(self, request: web.Request) -> web.Response:
        """Override fields of all devices that a selector selects, or end overrides early, as one revision."""
        request_ = change_request(request)
        body = await json_object(request, shapes.fields_of(shapes_changes.SelectedOverridesBody))
        selector = text_field(body, "selector", default=None, max_chars=MAX_SELECTOR_CHARS)
        wanted = parse_overriding(body)
        return await outcome_response(await self._overrides.change_selected(selector, wanted, request_))

    def _list(self, kind: str) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            """Objects of one kind, those that a selector selects."""
            no_body(request)
            query = Query(request, "selector", "limit", "continue")
            selector, limit = parse_selector(query.text("selector")), query.number("limit", 0, least=1, most=MAX_LISTED)
            after = _continued(query.text("continue"))
            prefix = object_key(kind, "")
            with self._store.read() as tx:
                meta = read_meta(tx)
                names = [key.removeprefix(prefix).decode() for key in tx.keys("objects", prefix)]
            metadata = {"epoch": meta.epoch, "revision": meta.revision, "event_seq": self._events.seq}
            names = names[bisect_right(names, after) :] if after else names
            view = partial(self._selected, kind, selector)
            return await list_response(f"{kind}List", metadata, names, view, limit=limit)

        return handler

    def _show(self, kind: str) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            """One object."""
            no_body(request)
            Query(request)
            return self._answer(kind, name_of(request))

        return handler

    def _put(self, kind: str) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            """Create or replace an object."""
            name, match = name_of(request), if_match(request)
            wanted = change_request(request, *OWNER_QUERY)
            manifest = parse_manifest(await json_body(request), kind=kind, name=name)
            outcome = await self._configs.put(manifest, match, wanted)
            created = any(done.action == "created" for done in outcome.objects)
            if outcome.dry_run:
                return await dry_run_response(outcome)
            return self._answer(kind, name, status=201 if created else 200)

        return handler

    def _patch(self, kind: str) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            """Merge-patch an object; null removes its own entry."""
            name, match = name_of(request), if_match(request)
            wanted = change_request(request, *OWNER_QUERY)
            outcome = await self._configs.patch(kind, name, await json_body(request), match, wanted)
            return await dry_run_response(outcome) if outcome.dry_run else self._answer(kind, name)

        return handler

    def _override(self, kind: str) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            """Override fields of an object for a time, or end overrides early."""
            name, match = name_of(request), if_match(request)
            request_ = change_request(request, "take_over")
            wanted = parse_overriding(await json_object(request, shapes.fields_of(shapes_changes.OverridesBody)))
            outcome = await self._overrides.change(kind, name, wanted, match, request_)
            return await dry_run_response(outcome) if outcome.dry_run else self._answer(kind, name)

        return handler

    def _delete(self, kind: str) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            """Delete an object."""
            no_body(request)
            name, match = name_of(request), if_match(request)
            wanted = change_request(request, *OWNER_QUERY)
            gone = self._answer(kind, name)
            outcome = await self._configs.delete(kind, name, match, wanted)
            gone.headers["Henge-Revision"] = str(outcome.revision)
            return await dry_run_response(outcome) if outcome.dry_run else gone

        return handler

    def _selected(self, kind: str, selector: Selector, name: str) -> dict[str, Any] | None:
        with self._store.read() as tx:
            record = find_object(tx, kind, name)
        if record is None or not selector.matches(record.labels):
            return None
        try:
            return self._view(record)
        except NotFound:  # deleted by the writer's thread just now
            return None

    def _view(self, record: ObjectRecord) -> dict[str, Any]:
        return device_view(self._devices.view(record.name)) if record.kind == "Device" else layer_view(record)

    def _answer(self, kind: str, name: str, *, status: int = 200) -> web.Response:
        with self._store.read() as tx:
            epoch = read_meta(tx).epoch
            record: ObjectRecord = required_object(tx, kind, name)
        return object_response(record, epoch, view=self._view(record), status=status)


async def list_response(
    kind: str,
    metadata: dict[str, Any],
    names: Sequence[str],
    view: Callable[[str], dict[str, Any] | None],
    *,
    limit: int = 0,
) -> web.Response:
    """Many things as one object, made in pieces: a large fleet's list keeps no device waiting.

    What ``view`` gives as None (not selected, or deleted meanwhile) is left out. After ``limit`` things (0: all) the
    list ends, and ``metadata`` says the name to go on after if there may be more.
    """
    pieces, left = [], limit or len(names)
    for start in range(0, len(names), PIECE):
        part = [(name, seen) for name in names[start : start + PIECE] if (seen := view(name)) is not None][:left]
        if part:
            pieces.append(json_bytes([seen for _, seen in part])[1:-1])
        left -= len(part)
        if not left and part and part[-1][0] != names[-1]:
            metadata = {**metadata, "continue": part[-1][0]}
            break
        await asyncio.sleep(0)
    opened = json_bytes({"kind": kind, "metadata": metadata})[:-1]
    body = b"".join([opened, b',"items":[', b",".join(pieces), b"]}"])
    return web.Response(body=body, content_type="application/json")


def _continued(name: str) -> str:
    if name and not is_name(name):
        raise Malformed("bad_parameter", f"continue={ascii(name)[:40]} is none that a list gave")
    return name


def _deletions(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise Invalid("bad_object", 'delete is a list of {"kind", "name"}')
    found = []
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"kind", "name"}:
            raise Invalid("bad_object", 'delete is a list of {"kind", "name"}')
        if str(entry["kind"]) not in PLURALS:
            raise Invalid("unknown_kind", f"kind {ascii(entry['kind'])[:60]} is none of {', '.join(PLURALS)}")
        found.append((str(entry["kind"]), check_name(entry["name"])))
    return found
