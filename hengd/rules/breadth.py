"""How wide a change is: whoever changes a large part of a fleet at once, or what may cut devices off, says so.

Devices count that hold something to lose: they were seen, and had a document before or run one; or they had joined
and are deleted. So making a new fleet and joining devices is never too wide.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hengd.records import ObjectChange
from hengd.rules.fleet import find_document, find_object, find_reported, schema_entry
from hengd.rules.outcome import Differences, Moved, Outcome, Pruned
from hengd.rules.schemas import CompiledSchema, SchemaCache
from hengd.store import Reader
from henge_protocol.errors import Conflict
from henge_protocol.fieldpath import field_of, tokens
from henge_protocol.model import is_digest

SMALL_FLEET: Final = 8
"""Of fewer devices a person has an overview."""
MOST_PART: Final = 0.25
SHOWN: Final = 8
MAX_NAMES: Final = 100

MEANT: Final = "if all of them are meant, say so: --all-at-once"
CURE: Final = f"try it on one device first, for a time: hengectl set device/{{name}} {{assignment}} --for 10m; {MEANT}"
CURE_OF_DELETING: Final = f"each of them would have to join anew: look whether they are the right ones; {MEANT}"


@dataclass(frozen=True, slots=True)
class TooWide:
    """Why a change needs ``all_at_once``."""

    message: str
    cure: str
    extra: dict[str, object]

    def refusal(self) -> Conflict:
        """The refusal, ``too_wide``."""
        return Conflict("too_wide", self.message, cure=self.cure, extra=self.extra)


def prunes_all(pruned: Pruned) -> TooWide | None:
    """What is too wide about pruning: nothing of a set is left, as when the files are those of something else.

    Of a set of one object another one may take the place.
    """
    if not pruned.gone or pruned.gone < pruned.had or (pruned.had == 1 and pruned.applied):
        return None
    message = f"no object of the set {pruned.apply_set} is in the files: it prunes all {pruned.had}"
    cure = "look whether these are the right files and the right set; if all are meant to go, say so: --all-at-once"
    return TooWide(message, cure, {"objects": pruned.gone})


def too_wide(tx: Reader, schemas: SchemaCache, outcome: Outcome, changes: Sequence[ObjectChange]) -> TooWide | None:
    """What is too wide about a change that is stored and not committed yet; None if nothing is."""
    if len(outcome.devices) + len(outcome.retimed) + len(outcome.ended) < 2:
        return None
    seen = set(tx.keys("reported"))
    losing = [loss for one in outcome.devices if one.id.encode() in seen and (loss := _loss(tx, one)) is not None]
    risks = _Risks(tx, schemas, changes)
    risky = risks.of(losing)
    retimed = seen & {device_id.encode() for device_id in outcome.retimed}
    fleet = len(seen & ({one.id.encode() for one in losing} | set(tx.keys("desired")))) + len(outcome.ended)
    if risky is not None:
        first = next(one for one in losing if one.name == risky[0][0])
        return _of_devices(*risky, fleet=fleet, cure=_cure(first, risks.assignment(first, risky[1])))
    names = [*outcome.ended, *(one.name for one in losing), *sorted(_names(tx, retimed))]
    if fleet >= SMALL_FLEET and len(names) > MOST_PART * fleet:
        cure = CURE_OF_DELETING if outcome.ended else MEANT
        if losing and not outcome.ended:
            cure = _cure(losing[0], risks.assignment(losing[0]))
        return _of_devices(names, (), fleet=fleet, cure=cure, deleted=len(outcome.ended))
    return None


def _cure(one: Moved, assignment: str) -> str:
    """``assignment`` is what the change does to this device, or a part of that, as ``hengectl set`` takes it."""
    return CURE.format(name=one.name, assignment=assignment)


def _loss(tx: Reader, one: Moved) -> Moved | None:
    """What a device that was seen loses, if anything: its document, or the one that it runs though it should have none.

    None also if it gets what it runs.
    """
    before = one.before or find_reported(tx, one.id).running
    return replace(one, before=before) if before and before != one.after else None


def _names(tx: Reader, ids: set[bytes]) -> list[str]:
    names = [tx.get("ids", device_id) for device_id in ids]
    return [name.decode() for name in names if name is not None]


def _of_devices(devices: Sequence[str], fields: Sequence[str], *, fleet: int, cure: str, deleted: int = 0) -> TooWide:
    """So many devices of the fleet, the deleted ones first, or (by their pointers) fields that may cut them off."""
    count = len(devices)
    names = ", ".join(devices[:SHOWN]) + (f" and {count - SHOWN} more" if count > SHOWN else "")
    does = "changes" if not deleted else "deletes" if deleted == count else "deletes or changes"
    message = f"it {does} {count} of {fleet} devices at once, more than {MOST_PART:.0%} of them ({names})"
    if fields:
        shown = ", ".join(field_of(where) for where in fields[:SHOWN])
        message = f"it changes {shown}, which may cut devices off, on {count} devices at once ({names})"
    extra = {"devices": list(devices[:MAX_NAMES]), "device_count": count, "fleet": fleet}
    return TooWide(message, cure, extra)


class _Risks:
    """Which devices get another value of a field that may cut them off; each pair of documents is compared once.

    A field is marked by the schema that the device had, or by the one that it has: else the change could take the mark
    away. Without a schema it loses all fields.
    """

    def __init__(self, tx: Reader, schemas: SchemaCache, changes: Sequence[ObjectChange]) -> None:
        self._tx = tx
        self._schemas = schemas
        self._replaced = {one.name: one.before for one in changes if one.kind == "Schema"}
        self._had = {one.before.id: one.before.spec["schema"] for one in changes if one.kind == "Device" and one.before}
        self._marks: dict[tuple[str, str], tuple[CompiledSchema, ...]] = {}
        self._differences = Differences()
        self._found: dict[tuple[str, str, str, str], tuple[str, ...]] = {}

    def of(self, moved: Sequence[Moved]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Names of the devices and pointers of the fields, if there are several devices."""
        risks = {one.name: self._fields(one) for one in moved}
        names = tuple(name for name, fields in risks.items() if fields)
        if len(names) < 2:
            return None
        return names, tuple(sorted({field for name in names for field in risks[name]}))

    def assignment(self, one: Moved, among: Container[str] | None = None) -> str:
        """The first plain value that the device would get anew, in one of these fields, for ``hengectl set``."""
        changes = self._differences.of_documents(self._shown(one.before), self._shown(one.after))
        for change in changes:
            if (among is None or change.pointer in among) and isinstance(change.after, str | int | float):
                said = change.after if isinstance(change.after, str) else json.dumps(change.after)
                return shlex.quote(f"{'.'.join(tokens(change.pointer))}={said}")
        return "FIELD=VALUE"

    def _fields(self, one: Moved) -> tuple[str, ...]:
        had = self._had.get(one.id, one.schema)
        key = had, one.schema, one.before, one.after
        if key not in self._found:
            self._found[key] = self._compared(one, had)
        return self._found[key]

    def _compared(self, one: Moved, had: str) -> tuple[str, ...]:
        marks = self._marking(had, one.schema)
        if not marks:
            return ()
        changes = self._differences.of_documents(self._shown(one.before), self._shown(one.after))
        return tuple(
            change.pointer for change in changes if any(schema.is_risky(tokens(change.pointer)) for schema in marks)
        )

    def _marking(self, had: str, has: str) -> tuple[CompiledSchema, ...]:
        """Of the schema before the change and the one after it those that mark anything."""
        if (had, has) not in self._marks:
            before = self._replaced.get(had) or find_object(self._tx, "Schema", had) if had else None
            after = find_object(self._tx, "Schema", has) if has else None
            both = [schema_entry(one, self._schemas).compiled for one in (before, after) if one is not None]
            self._marks[had, has] = tuple(schema for schema in both if schema.risky_pointers)
        return self._marks[had, has]

    def _shown(self, digest: str) -> bytes:
        document = find_document(self._tx, digest) if is_digest(digest) else None
        return document.shown if document is not None else b""
