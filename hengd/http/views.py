"""Objects, revisions and events as the API shows them. Pure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import web

from hengd.events import Event
from hengd.records import ObjectChange, ObjectRecord, Override, Reported, RevisionRecord, TokenRecord
from hengd.rules.between import Between
from hengd.rules.conditions import Condition, conditions_of_device, conditions_of_layer
from hengd.rules.devices import DeviceView
from hengd.rules.joins import JoinRequest
from hengd.rules.merge import MISSING, FieldChange
from hengd.rules.outcome import Done, Moved, Outcome, action_of, by_identity, differing_fields, former_name
from hengd.rules.schema_compare import Comparison
from hengd.rules.why import Explained
from henge_protocol import quantity
from henge_protocol.fieldpath import field_of
from henge_protocol.model import API_VERSION, version_tag

T = TypeVar("T")

PIECE: Final = 500
"""Objects or devices told before everybody else has a turn: some 3 ms."""


def json_bytes(value: object) -> bytes:
    """``value`` as JSON in real UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_response(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer with ``value`` as JSON."""
    return web.Response(status=status, body=json_bytes(value), headers=headers, content_type="application/json")


def bytes_response(body: bytes) -> web.Response:
    """An answer that is JSON already, made in pieces or on another thread."""
    return web.Response(body=body, content_type="application/json")


def moment(unix_s: float) -> str:
    """RFC 3339 in UTC with seconds, empty for never."""
    return quantity.moment(unix_s) if unix_s else ""


def object_view(record: ObjectRecord, status: dict[str, Any] | None = None) -> dict[str, Any]:
    """One object in KRM shape."""
    metadata: dict[str, Any] = {"name": record.name, "labels": record.labels}
    if record.annotations:
        metadata["annotations"] = record.annotations
    if record.id:
        metadata["id"] = record.id
    metadata |= {"revision": record.revision, "created": moment(record.created), "changed": moment(record.changed)}
    said = {"author": record.author, "set": record.apply_set, "taken_from": record.taken_from}
    metadata |= {name: value for name, value in said.items() if value}
    spec = {name: value for name, value in record.spec.items() if not (name == "schema" and value == "")}
    view = {"apiVersion": API_VERSION, "kind": record.kind, "metadata": metadata, "spec": spec}
    if record.overrides:
        status = {**(status or {}), "overrides": [_override_view(one) for one in record.overrides]}
    return view if status is None else {**view, "status": status}


def _override_view(override: Override) -> dict[str, Any]:
    return {
        "field": field_of(override.pointer), "pointer": override.pointer, "value": override.value,
        "until": moment(override.until), "revision": override.revision, "author": override.author,
        "time": moment(override.time), "message": override.message,
    }  # fmt: skip


def object_response(record: ObjectRecord, epoch: str, *, view: dict[str, Any], status: int = 200) -> web.Response:
    """One object with its version."""
    headers = {"ETag": version_tag(epoch, record.revision), "Henge-Revision": str(record.revision)}
    return json_response(view, status=status, headers=headers)


def device_view(view: DeviceView) -> dict[str, Any]:
    """A device with its status."""
    desired = view.desired
    status: dict[str, Any] = {
        "id": view.record.id,
        "identity": view.identity,
        "connection": view.connection,
        "since": moment(view.since),
        "seen": moment(max(view.reported.seen, 0.0 if view.live else view.since)),
        "address": view.live.address if view.live else view.reported.address,
        "config": view.configuration,
        "desired": (
            {"revision": desired.revision, "digest": desired.digest, "size": desired.size} if desired else None
        ),
        "reported": _reported(view.reported) if view.reported.seen else None,
        "client": view.reported.client,
        "facts": view.reported.facts,
    }
    status["conditions"] = [_condition(one) for one in conditions_of_device(view)]
    if view.reported.shared:
        status["shared"] = view.reported.shared
    if view.reported.next_contact_s:
        status["due"] = moment(view.reported.seen + view.reported.next_contact_s)
    return object_view(view.record, status)


def layer_view(record: ObjectRecord) -> dict[str, Any]:
    """A schema or group with its status."""
    return object_view(record, {"conditions": [_condition(one) for one in conditions_of_layer(record)]})


def _condition(one: Condition) -> dict[str, Any]:
    return {**one._asdict(), "since": moment(one.since)}


async def dry_run_response(outcome: Outcome) -> web.Response:
    """What a change would do; of a single object, whose version the headers of other answers have."""
    head: dict[str, Any] = {"revision": outcome.revision, "epoch": outcome.epoch, "dry_run": outcome.dry_run}
    head |= {"total": outcome.total, "offline": outcome.offline}
    if outcome.dry_run:
        head |= {"refusing": outcome.refusing, "too_wide": outcome.too_wide, "managed": outcome.managed}
    head |= {"spared": list(outcome.spared)} if outcome.spared else {}
    return await _changes_response(head, outcome.objects, outcome.devices, fields=outcome.dry_run)


async def outcome_response(outcome: Outcome) -> web.Response:
    """What a change of several objects did, or would do, with the fleet's version."""
    response = await dry_run_response(outcome)
    response.headers["ETag"] = version_tag(outcome.epoch, outcome.revision)
    response.headers["Henge-Revision"] = str(outcome.revision)
    return response


async def between_response(found: Between) -> web.Response:
    """What differs between two revisions."""
    return await _changes_response({"from": found.older, "to": found.newer}, found.objects, found.devices, fields=True)


async def _changes_response(
    head: dict[str, Any], objects: Sequence[Done], devices: Sequence[Moved], *, fields: bool
) -> web.Response:
    """What a change does, made in pieces: telling it of a large fleet keeps nobody waiting."""
    done = await _in_pieces(objects, _done_view)
    moved = await _in_pieces(devices, partial(_moved_view, fields=fields))
    return bytes_response(b"".join([json_bytes(head)[:-1], b',"objects":[', done, b'],"devices":[', moved, b"]}"]))


async def _in_pieces(items: Sequence[T], view: Callable[[T], dict[str, Any]]) -> bytes:
    pieces = []
    for start in range(0, len(items), PIECE):
        pieces.append(json_bytes([view(one) for one in items[start : start + PIECE]])[1:-1])
        await asyncio.sleep(0)
    return b",".join(pieces)


def _done_view(done: Done) -> dict[str, Any]:
    view = {"kind": done.kind, "name": done.name, "action": done.action, "changes": _fields_view(done.changes)}
    view |= {"was": done.was} if done.was else {}
    return view | ({"compared": _comparison_view(done.compared)} if done.compared is not None else {})


def _moved_view(moved: Moved, *, fields: bool) -> dict[str, Any]:
    view: dict[str, Any] = {"name": moved.name, "before": moved.before, "after": moved.after}
    return view | ({"changes": _fields_view(moved.changes)} if fields else {})


def _comparison_view(comparison: Comparison) -> dict[str, Any]:
    reasons = [{"verdict": one.verdict, "pointer": one.pointer, "message": one.message} for one in comparison.reasons]
    return {"verdict": comparison.verdict, "reasons": reasons}


def revision_bytes(record: RevisionRecord, *, whole: bool = False, fields: bool = False) -> bytes:
    """A revision: a line of the history, ``whole`` with each object before and after, or with the ``fields``."""
    head: dict[str, Any] = {
        "revision": record.revision,
        "time": moment(record.time),
        "author": record.author,
        "origin": record.origin,
        "message": record.message,
    } | ({"set": record.apply_set} if record.apply_set else {})
    told = (json_bytes(_change_view(one, whole=whole, fields=fields)) for one in by_identity(record.changes))
    return b'%b,"changes":[%b]}' % (json_bytes(head)[:-1], b",".join(told))


def _change_view(change: ObjectChange, *, whole: bool, fields: bool) -> dict[str, Any]:
    """An object that a revision touched, a device with its identity and, if it was renamed, its name before."""
    view: dict[str, Any] = {"kind": change.kind, "name": change.name, "action": action_of(change)}
    was, its_id = former_name(change), next((side.id for side in (change.after, change.before) if side is not None), "")
    view |= ({"was": was} if was else {}) | ({"id": its_id} if its_id else {})
    if fields:
        view["changes"] = _fields_view(differing_fields(change))
    if whole:
        view["before"] = object_view(change.before) if change.before else None
        view["after"] = object_view(change.after) if change.after else None
    return view


async def explained_response(device: str, explained: Sequence[Explained]) -> web.Response:
    """Where the values of a device come from; of thousands of fields in pieces."""
    fields = await _in_pieces(explained, _explained_view)
    return bytes_response(b'{"device":%b,"fields":[%b]}' % (json_bytes(device), fields))


def _explained_view(explained: Explained) -> dict[str, Any]:
    """Where a field's value comes from."""
    view: dict[str, Any] = {"field": explained.field, "pointer": explained.pointer, "present": explained.present}
    if explained.present:
        view["value"] = explained.value
    view["layers"] = [
        {
            "layer": said.layer, "name": said.name, "value": said.value, "removes": said.removes,
            "revision": said.revision, "author": said.author, "time": moment(said.time), "wins": said.wins,
        }
        | ({"until": moment(said.until)} if said.until else {})
        for said in explained.layers
    ]  # fmt: skip
    return view


def token_view(token: TokenRecord) -> dict[str, Any]:
    """A token without its secret."""
    return {
        "id": token.id, "kind": token.kind, "name": token.pattern, "schema": token.schema, "labels": token.labels,
        "uses": token.uses, "used": token.used, "created": moment(token.created), "expires": moment(token.expires),
        "by": token.by,
    } | ({"role": token.rights} if token.kind == "admin" else {})  # fmt: skip


def join_view(request: JoinRequest) -> dict[str, Any]:
    """A waiting request; its code is read from the device, never from here."""
    return {
        "id": request.sid[:8], "name": request.name, "address": request.address, "client": request.client,
        "facts": request.facts, "asked": moment(request.asked), "expires": moment(request.expires),
    }  # fmt: skip


def event_view(event: Event) -> dict[str, Any]:
    """One event."""
    return {
        "seq": event.seq, "time": moment(event.time), "type": event.type, "kind": event.kind, "name": event.name,
        **event.detail,
    }  # fmt: skip


def _fields_view(changes: tuple[FieldChange, ...]) -> list[dict[str, Any]]:
    """What differs, field by field, without ``before`` or ``after`` where there is nothing."""
    return [
        {"pointer": one.pointer}
        | {side: value for side, value in (("before", one.before), ("after", one.after)) if value is not MISSING}
        for one in changes
    ]


def _reported(reported: Reported) -> dict[str, Any]:
    return {
        "epoch": reported.epoch, "revision": reported.revision, "digest": reported.digest, "state": reported.state,
        "reason": reported.reason, "at": moment(reported.at), "running": reported.running,
        "errors": [{"pointer": error.pointer, "message": error.message} for error in reported.errors],
    }  # fmt: skip
