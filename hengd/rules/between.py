"""What differs between two revisions: in objects, and in what devices should have run then and then.

Of a document with secrets that is what people may see of it, and the digest is of that: a secret is told by the
revision that set it, so all of this can be told while the secrets are locked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hengd.records import ObjectChange, ObjectRecord
from hengd.rules.change import is_same
from hengd.rules.fleet import schema_entry
from hengd.rules.history import FleetAt
from hengd.rules.outcome import Differences, Done, Moved, action_of, compared, differing_fields
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
    pairs = {key: (fleets[0].find(*key), fleets[1].find(*key)) for key in keys}
    if target is not None and pairs[target] == (None, None):
        raise NotFound("no_such_object", f"{target[0].lower()}/{target[1]} was there at neither revision")
    changes = [ObjectChange(kind=key[0], name=key[1], before=pair[0], after=pair[1]) for key, pair in pairs.items()]
    done = tuple(one for change in changes if (one := _done(change)) is not None)
    return Between(older, newer, done, tuple(_Documents(fleets, schemas).moved(target)))


def _done(change: ObjectChange) -> Done | None:
    if is_same(change.before, change.after):
        return None
    return compared(Done(change.kind, change.name, action_of(change), differing_fields(change)), change)


class _Documents:
    """Documents as they were at two revisions."""

    def __init__(self, fleets: tuple[FleetAt, FleetAt], schemas: SchemaCache) -> None:
        self._fleets = fleets
        self._renderers = [_renderer(fleet, schemas) for fleet in fleets]
        self._differences = Differences()

    def moved(self, target: Key | None) -> Iterator[Moved]:
        """The devices, by identity, whose documents differ; a renamed one has its later name."""
        before, after = (self._devices(fleet, target) for fleet in self._fleets)
        for device_id, device in sorted((before | after).items(), key=lambda item: item[1].name):
            old, new = self._document(0, before.get(device_id)), self._document(1, after.get(device_id))
            if old.digest != new.digest:
                changes = self._differences.of_documents(old.data, new.data)
                yield Moved(device.name, old.digest, new.digest, changes, device_id)

    def _devices(self, fleet: FleetAt, target: Key | None) -> dict[str, ObjectRecord]:
        if target is None:
            return {device.id: device for device in fleet.of("Device")}
        found = fleet.find(*target) if target[0] == "Device" else None
        return {found.id: found} if found is not None else {}

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
