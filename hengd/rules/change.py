"""One change of configuration inside one transaction: all objects, all documents, one revision, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import Any, cast

import msgspec

from hengd.records import (
    META_KEY,
    Desired,
    Meta,
    ObjectChange,
    ObjectRecord,
    Origin,
    Override,
    RevisionRecord,
    number_key,
    object_key,
    pack,
)  # fmt: skip
from hengd.rules import audit
from hengd.rules.certificates import forget_keys, has_joined, revoke_all
from hengd.rules.documents import Documents
from hengd.rules.fleet import find_object, members_of, missing, read_meta, required_object
from hengd.rules.layers import check_layers
from hengd.rules.merge import merge, same
from hengd.rules.notes import Committed, Cut
from hengd.rules.objects import BUILT_IN_GROUP, Manifest, content, manifest_of, object_path, parse_manifest
from hengd.rules.outcome import (
    Author,
    Differences,
    Done,
    Outcome,
    Pruned,
    action_of,
    by_identity,
    compared,
    differing_fields,
    former_name,
    retimes,
)
from hengd.rules.overrides import index_ends, running
from hengd.rules.ownership import Ownership, Writer
from hengd.rules.provenance import origins, without_origins
from hengd.rules.schemas import SchemaCache, schema_digest
from hengd.rules.vault import Vault
from hengd.store import Ahead, Transaction
from henge_protocol.errors import Conflict, Denied, Invalid, PreconditionRequired, Stale
from henge_protocol.model import check_name, version_tag

Overrider = Callable[[Sequence[Override], Origin], list[Override]]
"""Makes new overrides of old ones; those that it makes are of the origin that it is given."""


class Change:
    """Collects writes to objects, then ``finish`` proves and stores them. Lives for one transaction."""

    def __init__(
        self,
        tx: Transaction,
        schemas: SchemaCache,
        vault: Vault,
        *,
        author: Author,
        message: str,
        now: float,
        new_id: Callable[[], str],
        writer: Writer | None = None,
    ) -> None:
        self.tx = tx
        self._schemas = schemas
        self._vault = vault
        self._author = author
        self._message = message
        self._now = now
        self._new_id = new_id
        self._writer = writer
        self._ownership = Ownership(writer)
        self.meta: Meta = read_meta(tx)
        self._before: dict[tuple[str, str], ObjectRecord | None] = {}
        self._after: dict[tuple[str, str], ObjectRecord | None] = {}
        self._cut: list[Cut] = []
        self._ended: list[str] = []
        """Names of devices whose identity ends with this change."""
        self.written: Sequence[ObjectChange] = ()
        """What ``finish`` stored."""

    def current(self, kind: str, name: str) -> ObjectRecord | None:
        """The object as this change sees it."""
        key = (kind, name)
        return self._after[key] if key in self._after else find_object(self.tx, kind, name)

    def required(self, kind: str, name: str) -> ObjectRecord:
        """The object as this change sees it, or ``NotFound``."""
        found = self.current(kind, name)
        if found is None:
            raise missing(self.tx, kind, name)
        return found

    def expect_fleet(self, if_match: str | None) -> None:
        """Refuse with ``Stale`` unless nothing was changed since the fleet had this version (None or ``*``: any)."""
        now, tag = self.meta.revision, version_tag(self.meta.epoch, self.meta.revision)
        if if_match not in (None, "*", tag):
            raise Stale(
                "stale",
                f"the fleet was changed meanwhile and is now at revision {now}",
                cure="see what was changed: hengectl history",
                extra={"etag": tag, "revision": now},
            )

    def put(self, manifest: Manifest, *, if_match: str | None = "*", device_id: str = "") -> None:
        """Create or replace an object, a device with its id; ``if_match`` None = no version named: only create it."""
        found = self.current(manifest.kind, manifest.name)
        if found is not None:
            self._expect(found, if_match)
        elif if_match not in (None, "*"):
            raise Stale("stale", f"{manifest.path} does not exist", cure="leave If-Match out to create it")
        self._set(self._record(manifest, found, device_id=device_id))

    def put_secret(self, name: str, value: object, *, if_match: str | None = None) -> None:
        """Give a secret a value; the same value again is no change. Raises ``Unavailable`` ``secrets_locked``."""
        found = self.current("Secret", name)
        if found is not None and if_match is not None:
            self._expect(found, if_match)
        elif found is None and if_match not in (None, "*"):
            raise Stale("stale", f"secret/{name} does not exist", cure="leave If-Match out to create it")
        if found is not None and same(self._vault.get(self.tx, name)[1], value):
            self._set(found)
            return
        revision = self.meta.revision + 1
        self._vault.put(self.tx, name, revision, value)
        record = found or ObjectRecord(kind="Secret", name=name, spec={}, created=self._now)
        self._set(msgspec.structs.replace(record, spec={"revision": revision}))

    def patch(self, kind: str, name: str, patch: object, *, if_match: str | None = None) -> None:
        """Merge-patch an object (RFC 7396); ``null`` removes the layer's own entry."""
        found = self.required(kind, name)
        if if_match is not None:
            self._expect(found, if_match)
        self._set(self._record(parse_manifest(_patched(found, patch), kind=kind, name=name), found))

    def delete(self, kind: str, name: str, *, if_match: str | None = None) -> None:
        """Delete an object; a device's identity goes with it."""
        found = self.required(kind, name)
        if if_match is not None:
            self._expect(found, if_match)
        if (kind, name) == ("Group", BUILT_IN_GROUP):
            raise Conflict("read_only", "the group all is built in", cure="unset its values instead")
        self._ownership.deleted(found)
        self._remember(kind, name)
        self._after[kind, name] = None
        if kind == "Device":
            self._forget_device(found)
        elif kind == "Secret":
            self.tx.delete("secrets", name.encode())

    def prune(self, apply_set: str, named: Collection[tuple[str, str]]) -> Pruned:
        """Delete what belongs to a set and is not ``named``, the built-in group by its values alone.

        Devices that have joined stay as they are and belong to no set from now on: a file that is gone throws no
        hardware out.
        """
        of_set = list(members_of(self.tx, apply_set))
        doomed = [one for one in of_set if (one.kind, one.name) not in named and self.current(one.kind, one.name)]
        spared: list[str] = []
        for one in doomed:
            if has_joined(self.tx, one):
                spared.append(one.name)
                self._set(msgspec.structs.replace(one, apply_set=""))
            elif (one.kind, one.name) == ("Group", BUILT_IN_GROUP):
                empty = self._record(parse_manifest({}, kind=one.kind, name=one.name), one)
                self._set(msgspec.structs.replace(empty, apply_set=""))
            else:
                self.delete(one.kind, one.name)
        return Pruned(apply_set, len(named), len(of_set), len(doomed), tuple(spared))

    def override(self, kind: str, name: str, overrides: Overrider, *, if_match: str | None = None) -> None:
        """Replace the overrides of a group or device by what the function makes of those that run."""
        found = self.required(kind, name)
        if if_match is not None:
            self._expect(found, if_match)
        origin = Origin(self.meta.revision + 1, self._author.name, self._now, [])
        self._set(msgspec.structs.replace(found, overrides=overrides(found.overrides, origin)))

    def rename(self, name: str, to: str, *, if_match: str | None = None) -> None:
        """Give a device another name; its identity, values and history stay its own."""
        found = self.required("Device", name)
        if if_match is not None:
            self._expect(found, if_match)
        check_name(to, "new name")
        if name == to:
            return
        if self.current("Device", to) is not None:
            raise Conflict("name_taken", f"the name {to} belongs to another device", cure="choose another name")
        self._remember("Device", name)
        self._after["Device", name] = None
        self._set(self._ownership.written(found, msgspec.structs.replace(found, name=to), moves=True))

    def restore(self, wanted: Mapping[tuple[str, str], ObjectRecord | None], *, spare_joined: bool) -> None:
        """Make objects what they were; None = it was not there. A device renamed since gets its name back.

        Overrides come back as far as they have not ended by now.
        ``spare_joined`` keeps devices that have an identity, and their schemas: no hardware is thrown out.
        """
        records = [record for record in wanted.values() if record is not None]
        kept = {record.id for record in records}
        moved = [record for record in records if self._name_of(record) not in ("", record.name)]
        for record in moved:
            self._take_name_back(record, kept)
        for record in records:
            if record not in moved:
                self.put(manifest_of(record))
            still = running(record.overrides, self._now)
            self._set(msgspec.structs.replace(self.required(record.kind, record.name), overrides=still))
        new = [found for key, before in wanted.items() if before is None and (found := self.current(*key))]
        spared = {("Device", one.name): one.spec["schema"] for one in new if spare_joined and has_joined(self.tx, one)}
        for key in [(one.kind, one.name) for one in new]:
            if key not in spared and not (key[0] == "Schema" and key[1] in spared.values()):
                self.delete(*key)

    def refusal(self) -> Conflict | None:
        """Why it may not write all that it writes: it belongs to others. A dry run tells it."""
        return self._ownership.refusal()

    def finish(self, *, fields: bool = False) -> Outcome:
        """Check layers, render every affected device, store; raises with all problems, and then nothing is kept.

        With ``fields`` the outcome also says which fields of documents differ.
        """
        changes = [self._stamped(key) for key in self._after]
        real = [change for change in changes if not is_same(change.before, change.after)]
        told = by_identity(changes)
        done = tuple(_done(change) for change in told)
        if not real:
            return Outcome(self.meta.revision, self.meta.epoch, False, done, (), total=self.tx.count("ids"))
        self.written = real
        revision = self.meta.revision + 1
        records = {object_key(one.kind, one.name): pack(one.after) if one.after else None for one in real}
        check_layers(Ahead(self.tx, "objects", records), self._schemas, real)  # a secret in the open is never stored
        self._store(real, records)
        done = tuple(compared(one, change) for one, change in zip(done, told, strict=True))
        documents = Documents(self.tx, self._schemas, self._vault, revision, Differences() if fields else None)
        moved, rung = documents.render_anew(real)
        gone: dict[str, Desired | None] = {cut.subject: None for cut in self._cut}
        self._commit(real, revision, gone | rung, tuple(device.name for device in moved))
        retimed = tuple(rung.keys() - {one.id for one in moved}) if any(map(retimes, real)) else ()
        return Outcome(
            revision, self.meta.epoch, False, done, tuple(moved),
            retimed=retimed, ended=tuple(self._ended), total=self.tx.count("ids"),
        )  # fmt: skip

    # ---- objects -------------------------------------------------------------------------------------

    def _expect(self, found: ObjectRecord, if_match: str | None) -> None:
        path, tag = object_path(found.kind, found.name), version_tag(self.meta.epoch, found.revision)
        if if_match is None:
            raise PreconditionRequired(
                "if_match_required",
                f"{path} exists; replacing it needs If-Match with the version being replaced",
                cure="read it first, or use PATCH",
                extra={"etag": tag},
            )
        if if_match not in ("*", tag):
            raise Stale(
                "stale",
                f"{path} was changed by {found.author or 'somebody'} and is now at revision {found.revision}",
                cure="read it again and redo the change on top",
                extra={"etag": tag, "revision": found.revision},
            )

    def _record(self, manifest: Manifest, found: ObjectRecord | None, *, device_id: str = "") -> ObjectRecord:
        old = found or ObjectRecord(kind=manifest.kind, name=manifest.name, spec={}, created=self._now)
        here = Origin(self.meta.revision + 1, self._author.name, self._now, [])
        new = msgspec.structs.replace(
            old,
            origins=origins(found, manifest.spec.get("values", {}), here),
            spec=manifest.spec,
            labels=manifest.labels,
            annotations=manifest.annotations,
            id=old.id or device_id or (self._new_id() if manifest.kind == "Device" else ""),
            digest=schema_digest(manifest.spec["schema"]).hex() if manifest.kind == "Schema" else "",
        )
        return self._ownership.written(found, new)

    def _name_of(self, record: ObjectRecord) -> str:
        """Under which name a device lives in the store; empty if it is gone (or no device)."""
        name = self.tx.get("ids", record.id.encode()) if record.id else None
        return name.decode() if name else ""

    def _take_name_back(self, record: ObjectRecord, kept: Container[str]) -> None:
        """Move a living device to the name it had; whoever has that name now is forgotten unless it moves, too."""
        name = self._name_of(record)
        here, there = self.current("Device", name), self.current("Device", record.name)
        if here is not None and here.id == record.id:
            self._remember("Device", name)
            self._after["Device", name] = None
        if there is not None and there.id not in kept:
            self._forget_device(there)
        found = required_object(self.tx, "Device", name)
        living = self._ownership.written(found, msgspec.structs.replace(found, name=record.name), moves=True)
        self._set(self._record(manifest_of(record), living))

    def _set(self, record: ObjectRecord) -> None:
        self._remember(record.kind, record.name)
        self._after[record.kind, record.name] = record

    def _remember(self, kind: str, name: str) -> None:
        if (kind, name) not in self._before:
            self._before[kind, name] = find_object(self.tx, kind, name)

    def _forget_device(self, device: ObjectRecord) -> None:
        if not self._author.may_end_identities and has_joined(self.tx, device):
            raise Denied(
                "wrong_role",
                f"device/{device.name} has joined: deleting it ends its identity, which only an admin may do",
                cure="ask an admin, or leave the device and change what it gets",
            )
        if revoke_all(self.tx, "device", device.id):
            self._ended.append(device.name)
        forget_keys(self.tx, "device", device.id)
        self._cut.append(Cut("device", device.id))
        for database in ("ids", "desired", "reported"):
            self.tx.delete(database, device.id.encode())

    def _stamped(self, key: tuple[str, str]) -> ObjectChange:
        before, after = self._before[key], self._after[key]
        if after is not None and not is_same(before, after):
            after = msgspec.structs.replace(
                after, revision=self.meta.revision + 1, changed=self._now, author=self._author.name
            )
        return ObjectChange(kind=key[0], name=key[1], before=before, after=after)

    def _store(self, changes: Sequence[ObjectChange], records: Mapping[bytes, bytes | None]) -> None:
        for change, (key, record) in zip(changes, records.items(), strict=True):
            index_ends(self.tx, change)
            if record is None:
                self.tx.delete("objects", key)
                continue
            self.tx.put("objects", key, record)
            if change.after and change.after.id:
                self.tx.put("ids", change.after.id.encode(), change.name.encode())

    # ---- the revision --------------------------------------------------------------------------------

    def _commit(
        self, changes: Sequence[ObjectChange], revision: int, rung: dict[str, Desired | None], moved: tuple[str, ...]
    ) -> None:
        record = RevisionRecord(
            revision=revision,
            time=self._now,
            author=self._author.name,
            origin=self._author.origin,
            message=self._message,
            changes=[without_origins(change) for change in changes],
            apply_set=self._writer.apply_set if self._writer is not None else "",
        )
        self.tx.put("revisions", number_key(revision), pack(record))
        self._audit(changes, revision)
        self.meta = msgspec.structs.replace(self.meta, revision=revision)
        self.tx.put("meta", META_KEY, pack(self.meta))
        for cut in self._cut:
            self.tx.note(cut)
        changed = tuple((change.kind, change.name) for change in changes if change.after is not None)
        deleted = tuple((change.kind, change.name) for change in changes if change.after is None)
        self.tx.note(Committed(revision, changed, deleted, rung, moved))

    def _audit(self, changes: Sequence[ObjectChange], revision: int) -> None:
        said = object_path(changes[0].kind, changes[0].name) if len(changes) == 1 else f"{len(changes)} objects"
        audit.note(self.tx, "configuration.changed", said, self._author, now=self._now, revision=revision)
        for device in self._ended:
            audit.note(self.tx, "identity.revoked", f"device/{device}", self._author, now=self._now, revision=revision)


def _patched(found: ObjectRecord, patch: object) -> dict[str, Any]:
    if not isinstance(patch, dict):
        raise Invalid("bad_object", 'a merge patch is a JSON object such as {"spec": {"values": {"color": "red"}}}')
    whole = {
        "kind": found.kind,
        "metadata": {"name": found.name, "labels": found.labels, "annotations": found.annotations},
        "spec": found.spec,
    }
    merged = merge(whole, {key: value for key, value in patch.items() if key != "status"})
    return cast("dict[str, Any]", merged)


def is_same(before: ObjectRecord | None, after: ObjectRecord | None) -> bool:
    """Whether a write from ``before`` to ``after`` changes nothing, whatever it repeats."""
    if before is None or after is None:
        return before is after
    owners = [(one.apply_set, one.taken_from) for one in (before, after)]
    return owners[0] == owners[1] and content(before) == content(after)


def _done(change: ObjectChange) -> Done:
    if is_same(change.before, change.after) and not former_name(change):
        return Done(change.kind, change.name, "unchanged")
    fields, was = differing_fields(change), former_name(change)
    return Done(change.kind, change.name, action_of(change), fields, was=was)
