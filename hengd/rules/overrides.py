"""Overrides: values of single fields, stronger than every layer, that end by themselves. Pure but for the index.

They stand beside the spec of a group or device, so that files applied from Git neither remove nor see them.
An override of a field inside of another one's object stands above that. Those of a group are above the devices'
own values, in order of priority; a device's own are above all.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hengd.records import ObjectChange, ObjectRecord, Origin, Override, object_key
from hengd.store import Reader, Transaction
from henge_protocol.errors import Invalid
from henge_protocol.fieldpath import Path, parse_path, pointer, tokens
from henge_protocol.model import SECRET_KEY
from henge_protocol.strictjson import LIMITS, canonical

MAX_OVERRIDES: Final = 64
"""Of one group or device: they are for trying something, not for configuring."""
MAX_FOR_S: Final = 366 * 86400


@dataclass(frozen=True, slots=True)
class Overriding:
    """Which fields to override, with what and for how long, and of which fields the overrides end."""

    values: dict[str, Any]
    """By JSON pointer; None hides what would be inherited."""
    ended: frozenset[str]
    for_s: int = 0
    own: Mapping[str, Any] | None = None
    """A merge patch of the object's own values, made in the same change."""


def parse_overriding(body: dict[str, Any]) -> Overriding:
    """Read ``{"set": {FIELD: VALUE}, "unset": [FIELD], "for_s": N, "values": PATCH}``; fields dotted or as pointers.

    Raises ``Invalid`` ``bad_object``, ``bad_path`` and ``too_deep``.
    """
    given, ended, for_s = body.get("set", {}), body.get("unset", []), body.get("for_s", 0)
    if not isinstance(given, dict) or not isinstance(ended, list) or not all(isinstance(one, str) for one in ended):
        raise Invalid("bad_object", 'the body is {"set": {FIELD: VALUE}, "unset": [FIELD], "for_s": SECONDS}')
    own = body.get("values", {})
    if not isinstance(own, dict):
        raise Invalid("bad_object", 'values is no merge patch such as {"color": null}')
    if type(for_s) is not int or not (0 < for_s <= MAX_FOR_S if given else for_s == 0):
        raise Invalid("bad_object", f"for_s is not 1 to {MAX_FOR_S} seconds, or is given without anything to set")
    for field, value in given.items():
        _check_depth(field, value)
    values = {pointer(_path(field)): value for field, value in given.items()}
    gone = [pointer(_path(field)) for field in ended]
    if len(values) != len(given) or len({*values, *gone}) != len(values) + len(gone):
        raise Invalid("bad_object", "a field is given twice")
    return Overriding(values, frozenset(gone), for_s, own or None)


def overridden(
    old: Sequence[Override], wanted: Overriding, *, until: float, origin: Origin, message: str
) -> list[Override]:
    """The overrides after ``wanted``. A new one replaces those of the same field and of fields inside of it.

    Raises ``Invalid`` ``too_complex`` when they are too many.
    """
    kept = [
        one
        for one in old
        if one.pointer not in wanted.ended and not any(_covers(where, one.pointer) for where in wanted.values)
    ]
    made = [
        Override(
            pointer=where, value=value, until=until,
            revision=origin.revision, author=origin.author, time=origin.time, message=message,
        )
        for where, value in wanted.values.items()
    ]  # fmt: skip
    if len(kept) + len(made) > MAX_OVERRIDES:
        raise Invalid(
            "too_complex", f"{len(kept) + len(made)} overrides of one object, at most {MAX_OVERRIDES} are kept"
        )
    return sorted(kept + made, key=lambda one: tokens(one.pointer))


def running(overrides: Iterable[Override], now: float, *, newest: float = math.inf) -> list[Override]:
    """Those that have not ended and were set at ``newest`` at the latest."""
    return [one for one in overrides if one.until > now and one.time <= newest]


def values_of(override: Override) -> dict[str, Any]:
    """An override as the values of a layer."""
    values: Any = override.value
    for key in reversed(tokens(override.pointer)):
        values = {key: values}
    return dict(values)


def override_key(overrides: Iterable[Override]) -> bytes:
    """Bytes that are equal when overrides say the same for the same time."""
    return canonical([[one.pointer, one.value, one.until] for one in overrides])


def index_ends(tx: Transaction, change: ObjectChange) -> None:
    """Keep the order in which overrides end: one key for each object and end."""
    for key in _ends(change.before):
        tx.delete("ends", key)
    for key in _ends(change.after):
        tx.put("ends", key, b"")


def next_end(tx: Reader, after: float) -> float | None:
    """When the next override ends later than ``after``; None if there is none."""
    first = tx.keys_after("ends", struct.pack(">d", after) + b"\xff", most=1)
    return _moment(first[0]) if first else None


def ended_by(tx: Reader, now: float) -> list[tuple[str, str]]:
    """Kind and name of every object with an override whose time is over."""
    due: dict[tuple[str, str], None] = {}
    for key, _ in tx.scan("ends"):
        if _moment(key) > now:
            break
        kind, _, name = key[8:].decode().partition("/")
        due[kind, name] = None
    return list(due)


def _path(field: str) -> Path:
    path = parse_path(field)
    if not path:
        raise Invalid("bad_path", "an override is of a field, not of the whole document", cure="name a field")
    if SECRET_KEY in path:  # inside of a reference, where nobody would find it
        raise Invalid("bad_path", "a reference to a secret is one value: override the field that holds it")
    return path


def _check_depth(field: str, value: object) -> None:
    """What stands deep inside of documents may itself be less deep than what is written whole."""
    most = LIMITS.max_depth - 2  # as far down as /spec/values in an object
    if len(_path(field)) + _depth(value) > most:
        raise Invalid("too_deep", f"with the value of {ascii(field)[:80]} the document has more than {most} levels")


def _depth(value: object) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(_depth, parts), default=0)


def _covers(where: str, other: str) -> bool:
    return other == where or other.startswith(where + "/")


def _ends(record: ObjectRecord | None) -> set[bytes]:
    if record is None:
        return set()
    return {struct.pack(">d", one.until) + object_key(record.kind, record.name) for one in record.overrides}


def _moment(key: bytes) -> float:
    """Doubles that are not negative are in order as their bytes are."""
    moment: float = struct.unpack(">d", key[:8])[0]
    return moment
