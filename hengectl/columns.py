"""Which columns each kind has in a table, and what stands in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from henge_protocol.model import short_digest
from hengectl.kinds import DEVICE, GROUP, JOIN, OPERATOR, REVISION, SCHEMA, SECRET, TOKEN, Kind, Object
from hengectl.refusal import field_of
from hengectl.render import Style, Table, age, labels_text, left, safe, unix_s

BAD_STATES: Final = frozenset({"rejected", "rolled-back", "quarantined", "drifted", "ahead"})


@dataclass(frozen=True, slots=True)
class View:
    """What a cell may depend on beside the object."""

    now: float
    style: Style


Cell = Callable[[Object, View], str]


@dataclass(frozen=True, slots=True)
class Column:
    """A header, what stands below it, and whether it is shown only with ``-o wide``."""

    header: str
    cell: Cell
    wide: bool = False
    room: int = 0
    """Columns to keep free while watching, for what may come."""


def rooms(kind: Kind, *, wide: bool, labels: bool) -> list[int]:
    """For each column of ``table_of`` the width that a watched table starts with at least."""
    return [column.room for column in _shown(kind, wide=wide, labels=labels)]


def table_of(kind: Kind, items: Iterable[Object], view: View, *, wide: bool, labels: bool) -> Table:
    """The table of many objects of a kind."""
    columns = _shown(kind, wide=wide, labels=labels)
    rows = [[column.cell(item, view) for column in columns] for item in items]
    return Table([column.header for column in columns], rows, keep=frozenset({"NAME", "STATE", "CONFIG"}))


def state_of(device: Object) -> str:
    """For a device: how its configuration fares while it is connected, else how it is away."""
    status = _status(device)
    connection, config = str(status.get("connection", "unknown")), str(status.get("config", "unknown"))
    if status.get("identity") == "revoked":
        return "revoked"
    if connection == "online":
        return config
    return f"{connection}, {config}" if config in BAD_STATES else connection


def revisions_of(device: Object, style: Style) -> str:
    """``r41`` when it runs what it should, ``r40→r41`` on the way, ``→r41`` refused, ``-`` without a document."""
    status = _status(device)
    desired, reported = _part(status, "desired"), _part(status, "reported")
    wanted = desired.get("revision")
    if not wanted:
        return "-"
    if status.get("config") in ("in-sync", "drifted"):
        return f"r{wanted}"
    if desired.get("digest") == reported.get("digest"):
        return f"{style.arrow}r{wanted}"  # what it runs instead it did not say
    running = reported.get("revision")
    return f"{f'r{running}' if running else '-'}{style.arrow}r{wanted}"


def trouble_of(device: Object) -> str:
    """Why a device is sent nothing, or what it said about the configuration it did not take, or nothing."""
    status = _status(device)
    for one in status.get("conditions") or []:
        if isinstance(one, Mapping) and (one.get("type"), one.get("status")) == ("ProtocolUnsupported", "True"):
            return safe(one.get("message", ""))
    if status.get("shared"):
        return safe(f"identity shared by {' and '.join(map(str, status['shared']))}")
    if status.get("config") not in BAD_STATES:
        return ""
    reported = _part(status, "reported")
    errors = [error for error in reported.get("errors") or [] if isinstance(error, Mapping)]
    told = "; ".join(error_text(error) for error in errors)
    return safe(": ".join(filter(None, [str(reported.get("reason") or ""), told])))


def error_text(error: Mapping[str, Any]) -> str:
    """One thing that a device said about a document: the field, if it named one, and what is wrong."""
    pointer = str(error.get("pointer") or "")
    return f"{field_of(pointer)}: {error.get('message', '')}" if pointer else str(error.get("message", ""))


def _shown(kind: Kind, *, wide: bool, labels: bool) -> list[Column]:
    return [column for column in COLUMNS[kind] if wide or not column.wide or (labels and column is LABELS)]


def _device_note(device: Object, view: View) -> str:
    status = _status(device)
    due = left(status.get("due"), now=view.now) if status.get("connection") == "asleep" else "-"
    return trouble_of(device) or ("" if due == "-" else f"due in {due}" if due != "over" else "due now")


def _fields(values: object, prefix: str = "") -> Iterable[str]:
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _fields(value, f"{prefix}{key}.")
    elif prefix:
        yield prefix[:-1]


def _declared(schema: object, prefix: str = "") -> Iterable[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if isinstance(properties, Mapping):
        for key, part in properties.items():
            yield from _declared(part, f"{prefix}{key}.")
    elif prefix:
        yield prefix[:-1]


def done_text(done: Mapping[str, Any]) -> str:
    """What became of an object: ``group/kitchen created``, ``device/lamp-1 renamed to device/porch``."""
    kind = str(done.get("kind", "")).lower()
    ref = f"{kind}/{done.get('name', '')}"
    return safe(f"{kind}/{done['was']} renamed to {ref}" if done.get("was") else f"{ref} {done.get('action', '')}")


def changes_text(changes: object, *, most: int = 3) -> str:
    """``device/lamp-1 configured (color, wifi.ssid), group/kitchen created`` and how many more."""
    listed = [change for change in changes if isinstance(change, Mapping)] if isinstance(changes, list) else []
    told = [f"{done_text(one)}{safe(_fields_text(one))}" for one in listed[:most]]
    more = [f"{len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*told, *more])


def _fields_text(change: Mapping[str, Any], *, most: int = 3) -> str:
    """The fields that a change touched, where the daemon was asked for them."""
    fields = list(dict.fromkeys(_field_text(str(one["pointer"])) for one in change.get("changes") or ()))
    more = [f"{len(fields) - most} more"] if len(fields) > most else []
    return f" ({', '.join([*fields[:most], *more])})" if fields else ""


def _field_text(pointer: str) -> str:
    found = _OVERRIDE.match(pointer)
    return f"{found['field']} for a time" if found is not None else field_of(pointer)


_OVERRIDE: Final = re.compile("/status/overrides/(?P<field>[^/]+)/")


def _status(item: Object) -> Mapping[str, Any]:
    return _part(item, "status")


def _part(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = item.get(name)
    return part if isinstance(part, Mapping) else {}


def _get(*path: str) -> Cell:
    def cell(item: Object, _view: View) -> str:
        found: Any = item
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return "" if found is None or found == "" else safe(found if isinstance(found, str) else str(found))

    return cell


def _age(*path: str) -> Cell:
    return lambda item, view: age(_at(item, path), now=view.now)


def _left(*path: str) -> Cell:
    return lambda item, view: left(_at(item, path), now=view.now)


def _at(item: Mapping[str, Any], path: Sequence[str]) -> object:
    found: Any = item
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _revision(item: Object, _view: View) -> str:
    number = _at(item, ("metadata", "revision"))
    return f"r{number}" if number else "-"


def _users(item: Object) -> str:
    users = _status(item).get("used_by")
    return safe(", ".join(map(str, users))) if isinstance(users, list) else ""


def _uses(item: Object, _view: View) -> str:
    return f"{item.get('used', 0)} of {item.get('uses', 1)}"


def _facts(item: Object, _view: View) -> str:
    return labels_text(item.get("facts"))


def _seen(item: Object, view: View) -> str:
    if _status(item).get("connection") == "online":
        return "now"
    seen = _at(item, ("status", "seen"))
    return age(seen, now=view.now) if unix_s(seen) else "-"


NAME: Final = Column("NAME", _get("metadata", "name"))
LABELS: Final = Column("LABELS", lambda item, _view: labels_text(_at(item, ("metadata", "labels"))), wide=True)
SET: Final = Column("SET", _get("metadata", "set"), wide=True)

COLUMNS: Final[Mapping[Kind, Sequence[Column]]] = {
    DEVICE: (
        NAME,
        Column("SCHEMA", _get("spec", "schema")),
        Column("STATE", lambda item, _view: state_of(item), room=11),
        Column("CONFIG", lambda item, view: revisions_of(item, view.style), room=9),
        Column("SEEN", _seen, room=4),
        Column("ADDRESS", _get("status", "address"), room=15),
        LABELS,
        Column(
            "DIGEST", lambda item, _view: short_digest(str(_at(item, ("status", "desired", "digest")) or "")), wide=True
        ),
        Column("CLIENT", _get("status", "client"), wide=True),
        Column("IDENTITY", _get("status", "identity"), wide=True),
        SET,
        Column("NOTE", _device_note),
    ),
    GROUP: (
        NAME,
        Column("SELECTOR", _get("spec", "selector")),
        Column("PRIORITY", _get("spec", "priority")),
        Column("SCHEMA", _get("spec", "schema")),
        Column("FIELDS", lambda item, _view: str(len(list(_fields(_at(item, ("spec", "values"))))))),
        Column("REVISION", _revision),
        Column("VALUES", lambda item, _view: safe(_at(item, ("spec", "values")) or {}), wide=True),
        LABELS,
        SET,
    ),
    SCHEMA: (
        NAME,
        Column("FIELDS", lambda item, _view: str(len(list(_declared(_at(item, ("spec", "schema"))))))),
        Column("REVISION", _revision),
        Column("AGE", _age("metadata", "created")),
        Column("LIMIT", _get("spec", "max_document"), wide=True),
        Column("CONFIRM", _get("spec", "confirm_s"), wide=True),
        LABELS,
        SET,
    ),
    SECRET: (
        NAME,
        Column("REVISION", _revision),
        Column("AGE", _age("metadata", "changed")),
        Column("AUTHOR", _get("metadata", "author")),
        Column("USED BY", lambda item, _view: _users(item)),
    ),
    JOIN: (
        Column("NAME", _get("name")),
        Column("ADDRESS", _get("address")),
        Column("CLIENT", _get("client")),
        Column("ASKED", _age("asked")),
        Column("LEFT", _left("expires")),
        Column("ID", _get("id"), wide=True),
        Column("FACTS", _facts, wide=True),
    ),
    TOKEN: (
        Column("ID", _get("id")),
        Column("KIND", lambda item, _view: str(item.get("role") or item.get("kind") or "")),
        Column("NAME", _get("name")),
        Column("SCHEMA", _get("schema")),
        Column("LABELS", lambda item, _view: labels_text(item.get("labels"))),
        Column("USED", _uses),
        Column("LEFT", _left("expires")),
        Column("BY", _get("by"), wide=True),
    ),
    OPERATOR: (
        Column("NAME", _get("name")),
        Column("ROLE", _get("role")),
        Column("CERTIFICATES", _get("certificates")),
        Column("SINCE", _age("since")),
        Column("LEFT", _left("expires")),
        Column("VIA", _get("via"), wide=True),
    ),
    REVISION: (
        Column("REVISION", _get("revision")),
        Column("AGE", _age("time")),
        Column("AUTHOR", _get("author")),
        Column("CHANGES", lambda item, _view: changes_text(item.get("changes"))),
        Column("MESSAGE", _get("message")),
        Column("ORIGIN", _get("origin"), wide=True),
        Column("SET", _get("set"), wide=True),
        Column("TIME", _get("time"), wide=True),
    ),
}
