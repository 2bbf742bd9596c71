"""What differs between two revisions: in objects, and in what devices should have run then and then.

Of a document with secrets that is what people may see of it, and the digest is of that: a secret is told by the
revision that set it, so all of this can be told while the secrets are locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hengd.records import ObjectChange, ObjectRecord
from hengd.rules.change import is_same
from hengd.rules.fleet import schema_entry
from hengd.rules.history import FleetAt
from hengd.rules.outcome import (
    Differences,
    Done,
    Moved,
    action_of,
    by_identity,
    compared,
    differing_fields,
    former_name,
)
from hengd.rules.rendering import Document, Renderer, group_entry
from hengd.rules.schemas import SchemaCache
from hengd.store import Reader
from henge_protocol.errors import NotFound

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Between:
    """What differs between two revisions."""

    older: int
    newer: int
    objects: tuple[Done, ...]
    devices: tuple[Moved, ...]


def between(tx: Reader, schemas: SchemaCache, older: int, newer: int, target: Key | None = None) -> Between:
    """Compare the fleet at two revisions, or one object and, if it is a device, its document.

    ``NotFound``: no such revision, one that was dropped, or an object that was there at neither.
    """
    fleets = FleetAt(tx, older), FleetAt(tx, newer)
    keys = sorted(fleets[0].changed | fleets[1].changed) if target is None else [target]
    pairs = {key: _pair(fleets, key, alone=target is not None) for key in keys}
    if target is not None and pairs[target] == (None, None):
        raise NotFound("no_such_object", f"{target[0].lower()}/{target[1]} was there at neither revision")
    changes = [_change(key, *pair) for key, pair in pairs.items()]
    done = tuple(one for change in by_identity(changes) if (one := _done(change)) is not None)
    devices = [_devices(fleet) for fleet in fleets] if target is None else [_devices_of(one) for one in pairs[target]]
    return Between(older, newer, done, tuple(_Documents(fleets, schemas).moved(*devices)))


def _pair(fleets: tuple[FleetAt, FleetAt], key: Key, *, alone: bool) -> tuple[ObjectRecord | None, ObjectRecord | None]:
    """An object then and then. ``alone``, a device is the same by its identity, whatever its name was."""
    before, after = fleets[0].find(*key), fleets[1].find(*key)
    known = after or before
    if not alone or known is None or not known.id:
        return before, after
    pair = [_devices(fleet).get(known.id) for fleet in fleets]
    return pair[0], pair[1]


def _devices(fleet: FleetAt) -> dict[str, ObjectRecord]:
    return {device.id: device for device in fleet.of("Device")}


def _devices_of(record: ObjectRecord | None) -> dict[str, ObjectRecord]:
    return {record.id: record} if record is not None and record.id else {}


def _change(key: Key, before: ObjectRecord | None, after: ObjectRecord | None) -> ObjectChange:
    """Under the name that the object has later; a device may have had that of ``key`` earlier."""
    return ObjectChange(kind=key[0], name=after.name if after is not None else key[1], before=before, after=after)


def _done(change: ObjectChange) -> Done | None:
    was = former_name(change)
    if is_same(change.before, change.after) and not was:
        return None
    return compared(Done(change.kind, change.name, action_of(change), differing_fields(change), was=was), change)


class _Documents:
    """Documents as they were at two revisions."""

    def __init__(self, fleets: tuple[FleetAt, FleetAt], schemas: SchemaCache) -> None:
        self._renderers = [_renderer(fleet, schemas) for fleet in fleets]
        self._differences = Differences()

    def moved(self, before: Mapping[str, ObjectRecord], after: Mapping[str, ObjectRecord]) -> Iterator[Moved]:
        """Those of the devices, by identity, whose documents differ; a renamed one has its later name."""
        for device_id, device in sorted({**before, **after}.items(), key=lambda item: item[1].name):
            old, new = self._document(0, before.get(device_id)), self._document(1, after.get(device_id))
            if old.digest != new.digest:
                changes = self._differences.of_documents(old.data, new.data)
                yield Moved(device.name, old.digest, new.digest, changes, device_id)

    def _document(self, side: int, device: ObjectRecord | None) -> Document:
        return (self._renderers[side].render(device) if device is not None else None) or _NO_DOCUMENT


_NO_DOCUMENT = Document(b"", "", 0)


class _PastSecrets:
    """Which secrets there were at a revision; their values are no part of the history."""

    def __init__(self, fleet: FleetAt) -> None:
        self._fleet = fleet

    @property
    def are_known(self) -> bool:
        return False

    def find(self, name: str) -> tuple[int, object]:
        found = self._fleet.find("Secret", name)
        if found is None:
            raise KeyError(name)
        return found.spec["revision"], None

    def blinded(self, document: bytes) -> bytes:
        return document


def _renderer(fleet: FleetAt, schemas: SchemaCache) -> Renderer:
    return Renderer(
        {record.name: schema_entry(record, schemas) for record in fleet.of("Schema")},
        [group_entry(record) for record in fleet.of("Group")],
        _PastSecrets(fleet),
    )
