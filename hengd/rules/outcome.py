"""Who makes a change and what came of it, down to the fields that differ. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from hengd.records import ObjectChange, ObjectRecord, Override
from hengd.rules.merge import FieldChange, diff
from hengd.rules.schema_compare import Comparison, compare_versions
from henge_protocol.fieldpath import field_of
from henge_protocol.quantity import moment


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change and by which way it came in."""

    name: str
    origin: str
    may_end_identities: bool = field(kw_only=True)
    """Whether a change of configuration may throw a device out that has joined."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one object; ``changes`` has the fields of a configured one that differ."""

    kind: str
    name: str
    action: str
    changes: tuple[FieldChange, ...] = ()
    compared: Comparison | None = None
    """Of a schema that was there: whether what was valid stays valid."""
    was: str = ""
    """The name that a renamed device had before."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A device whose document differs now; an empty digest means it has none. ``changes``: in a dry run only."""

    name: str
    before: str
    after: str
    changes: tuple[FieldChange, ...] = ()
    id: str = ""
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning an apply-set did: how many objects are applied, it had before, and went."""

    apply_set: str
    applied: int
    had: int
    gone: int
    spared: tuple[str, ...] = ()
    """Devices among the gone that stay because they have joined; they belong to no set now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change did, or in a dry run would do."""

    revision: int
    epoch: str
    dry_run: bool
    objects: tuple[Done, ...]
    devices: tuple[Moved, ...]
    too_wide: str = ""
    """In a dry run: why the change is refused unless all at once are meant; see ``rules/breadth.py``."""
    managed: str = ""
    """In a dry run: why it is refused unless it takes objects over; see ``rules/ownership.py``."""
    spared: tuple[str, ...] = ()
    """Devices that pruning would delete and that stay because they have joined."""
    retimed: tuple[str, ...] = ()
    """Ids of devices whose document stays and which have another time to confirm it."""
    ended: tuple[str, ...] = ()
    """Names of deleted devices whose identity ends."""
    total: int = 0
    """How many devices there are."""
    offline: int = 0
    """How many of ``devices`` are not connected."""
    refusing: int = 0
    """In a dry run: how many of ``devices`` have refused just that document before."""


class NotCommitted(Exception):
    """Carries what came of a dry run out of its transaction, which is undone by it."""

    expected = True

    def __init__(self, outcome: Any) -> None:
        super().__init__("dry run")
        self.outcome = outcome


@dataclass(slots=True)
class Differences:
    """Compares documents field by field; devices that go from one same document to another share the work."""

    _found: dict[tuple[bytes, bytes], tuple[FieldChange, ...]] = field(default_factory=dict)

    def of_documents(self, before: bytes, after: bytes) -> tuple[FieldChange, ...]:
        """The fields that differ between two documents; empty bytes are no document."""
        found = self._found.get((before, after))
        if found is None:
            found = tuple(diff(_decoded(before), _decoded(after)))
            self._found[before, after] = found
        return found


def by_identity(changes: Sequence[ObjectChange]) -> list[ObjectChange]:
    """The changes with every device that moved to another name as one: it was there and stays, by its new name.

    Who had that name before and moves nowhere is told as deleted.
    """
    before = {change.before.id: change.before for change in changes if change.before is not None and change.before.id}
    names = {change.after.id: change.after.name for change in changes if change.after is not None and change.after.id}
    moved = {its_id for its_id, old in before.items() if names.get(its_id, old.name) != old.name}
    return [one for change in changes for one in _moves_joined(change, moved, before)]


def _moves_joined(
    change: ObjectChange, moved: Container[str], before: Mapping[str, ObjectRecord]
) -> Iterator[ObjectChange]:
    old, new = change.before, change.after
    leaves, comes = old is not None and old.id in moved, new is not None and new.id in moved
    if not leaves and not comes:
        yield change
        return
    if old is not None and not leaves:
        yield msgspec.structs.replace(change, after=None)
    if new is not None:
        yield msgspec.structs.replace(change, before=before[new.id] if comes else None)


def action_of(change: ObjectChange) -> Literal["created", "configured", "renamed", "deleted"]:
    """What became of an object that is not the same any more."""
    if change.after is None:
        return "deleted"
    if change.before is None:
        return "created"
    return "configured" if change.before.name == change.after.name else "renamed"


def former_name(change: ObjectChange) -> str:
    """The name that a renamed device had before, else nothing."""
    return change.before.name if change.before is not None and action_of(change) == "renamed" else ""


def differing_fields(change: ObjectChange) -> tuple[FieldChange, ...]:
    """The fields that differ in an object that was there and stays, by pointers as in its manifest."""
    if change.before is None or change.after is None:
        return ()
    return tuple(diff(_said(change.before), _said(change.after)))


def retimes(change: ObjectChange) -> bool:
    """Whether devices may have another time to confirm though their documents stay."""
    name = {"Schema": "confirm_s", "Device": "schema"}.get(change.kind)
    if name is None or change.before is None or change.after is None:
        return False
    return bool(change.before.spec[name] != change.after.spec[name])


def compared(done: Done, change: ObjectChange) -> Done:
    """What became of an object; of a schema with its comparison to the one before, both of which were checked."""
    if done.kind != "Schema" or done.action != "configured" or change.before is None or change.after is None:
        return done
    return replace(done, compared=compare_versions(change.before.spec, change.after.spec))


def _decoded(document: bytes) -> object:
    return msgspec.json.decode(document) if document else {}


def _said(record: ObjectRecord) -> dict[str, object]:
    metadata: dict[str, object] = {"labels": record.labels, "annotations": record.annotations}
    if record.apply_set:
        metadata["set"] = record.apply_set
    said: dict[str, object] = {"metadata": metadata, "spec": record.spec}
    if record.overrides:
        said["status"] = {"overrides": {field_of(one.pointer): _overriding(one) for one in record.overrides}}
    return said


def _overriding(override: Override) -> dict[str, object]:
    return {"value": override.value, "until": moment(override.until)}
