"""What was: single revisions, the changes since one, and the fleet read as it was at one.

Each revision keeps every object that it touched before and after, so an object at revision N is what the first later
revision that touches it says was before; untouched since, it is as it is now.
"""

from __future__ import annotations

from collections.abc import Iterator

from hengd.records import ObjectChange, ObjectRecord, RevisionRecord, number_key, unpack
from hengd.rules.fleet import find_object, objects_of, read_meta
from hengd.store import Reader, Transaction
from henge_protocol.errors import NotFound
from henge_protocol.strictjson import canonical


def find_revision(tx: Reader, number: int) -> RevisionRecord:
    """One revision, or ``NotFound``."""
    payload = tx.get("revisions", number_key(number)) if 0 < number < 2**63 else None
    if payload is None:
        raise NotFound("no_such_revision", f"there is no revision {number}", cure="see: hengectl history")
    return unpack(RevisionRecord, payload)


def revisions_back(
    tx: Reader, before: int | None = None, object_: tuple[str, str] | None = None
) -> Iterator[RevisionRecord]:
    """Revisions from the newest (or the one before ``before``) back to the oldest kept.

    All, or those that touched one object: by its name, or by the identity of the device that has, or had, it last.
    """
    name = b'"name":%b' % canonical(object_[1]) if object_ is not None else b""
    now = find_object(tx, *object_) if object_ is not None else None
    device_id = now.id if now is not None else ""
    for _, payload in tx.scan_back("revisions", number_key(before) if before else None):
        if name not in payload and not (device_id and device_id.encode() in payload):
            continue  # reading what nobody asked for costs a hundred times as much
        record = unpack(RevisionRecord, payload)
        named = [change for change in record.changes if (change.kind, change.name) == object_]
        if not device_id:
            device_id = next((side.id for one in named for side in (one.after, one.before) if side is not None), "")
        if object_ is None or named or any(is_of(change, device_id) for change in record.changes):
            yield record


def is_of(touched: ObjectChange, device_id: str) -> bool:
    """Whether a change is of this device, whatever its name was then."""
    return bool(device_id) and device_id in {side.id for side in (touched.before, touched.after) if side is not None}


def changes_since(tx: Reader, revision: int) -> Iterator[ObjectChange]:
    """What each later revision did, the oldest first; ``NotFound`` if there is no such revision or one was dropped."""
    newest = read_meta(tx).revision
    if not 0 <= revision <= newest:
        raise NotFound("no_such_revision", f"there is no revision {revision}", cure="see: hengectl history")
    for number in range(revision + 1, newest + 1):
        yield from find_revision(tx, number).changes


class FleetAt:
    """The objects as they were at a revision. Lives as long as its transaction; ``NotFound`` if too old."""

    def __init__(self, tx: Reader, revision: int) -> None:
        self._tx = tx
        self._then: dict[tuple[str, str], ObjectRecord | None] = {}
        """Objects that were changed since; None = it was not there."""
        for change in changes_since(tx, revision):
            self._then.setdefault((change.kind, change.name), change.before)

    @property
    def changed(self) -> frozenset[tuple[str, str]]:
        """Kind and name of every object that was written, created or deleted since."""
        return frozenset(self._then)

    def find(self, kind: str, name: str) -> ObjectRecord | None:
        """The object of that name then, or None."""
        key = (kind, name)
        return self._then[key] if key in self._then else find_object(self._tx, kind, name)

    def of(self, kind: str) -> Iterator[ObjectRecord]:
        """All objects of a kind then, in order of names."""
        now = {record.name: record for record in objects_of(self._tx, kind)}
        then = {name: record for (its_kind, name), record in self._then.items() if its_kind == kind}
        return (record for _, record in sorted((now | then).items()) if record is not None)


def drop_revisions(tx: Transaction, keep: int, horizon: float, *, most: int) -> int:
    """Drop at most so many revisions beyond the newest ``keep`` that are older than ``horizon`` too; how many."""
    doomed: list[bytes] = []
    surplus = tx.count("revisions") - keep
    for key, payload in tx.scan("revisions"):
        if len(doomed) >= min(surplus, most) or unpack(RevisionRecord, payload).time >= horizon:
            break
        doomed.append(key)
    for key in doomed:
        tx.delete("revisions", key)
    return len(doomed)
