"""The documents after a change: every device that may be affected is rendered in full, and what differs is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from hengd.records import Desired, ObjectChange, ObjectRecord, pack
from hengd.rules.certificates import identity_state
from hengd.rules.fleet import (
    desired_of_all,
    find_desired,
    find_document,
    find_object,
    find_reported,
    objects_of,
    renderer,
    users_of_secrets,
)  # fmt: skip
from hengd.rules.merge import FieldChange
from hengd.rules.outcome import Differences, Moved
from hengd.rules.refusals import Refusals
from hengd.rules.rendering import Document
from hengd.rules.schemas import SchemaCache
from hengd.rules.selection import Selection
from hengd.rules.vault import Vault
from hengd.store import Transaction
from henge_protocol.errors import Problem
from henge_protocol.selector import parse_selector

SMALL_DOCUMENT_BYTES: Final = 2048
"""Below this no device is asked for a limit of its own: every board can hold it."""


class Documents:
    """Renders anew for one change, inside its transaction. With ``differences`` it also tells which fields differ."""

    def __init__(
        self, tx: Transaction, schemas: SchemaCache, vault: Vault, revision: int, differences: Differences | None = None
    ) -> None:
        self._tx = tx
        self._schemas = schemas
        self._vault = vault
        self._revision = revision
        self._differences = differences
        self._made: dict[tuple[str, int, int, str], tuple[Desired, bytes]] = {}
        """What devices of a new document should run, and its payload."""

    def render_anew(self, changes: Sequence[ObjectChange]) -> tuple[list[Moved], dict[str, Desired | None]]:
        """Render what the changes, which are stored, may affect; store what differs.

        Returns the devices whose document differs, and by device id what they should run now (also when only its terms
        differ). Raises one refusal with all documents that do not fit.
        """
        rendering = renderer(self._tx, self._schemas, self._vault)
        moved: list[Moved] = []
        rung: dict[str, Desired | None] = {}
        refusals = Refusals()
        find_before = self._desired_before(changes)
        for device in _affected(self._tx, changes):
            before = find_before(device.id)
            document = self._measured(device, rendering.render(device), before)
            if document is not None and document.code:
                refusals.add(device, document)
                continue
            desired = self._desire(device, document, before)
            if desired != before:
                rung[device.id] = desired
            if _digest(desired) != _digest(before):
                moved.append(self._moved(device, before, desired))
        refusals.finish()
        return moved, rung

    def _desired_before(self, changes: Sequence[ObjectChange]) -> Callable[[str], Desired | None]:
        """How to find what a device should run until now: one scan if the change may concern the whole fleet."""
        if any(change.kind != "Device" for change in changes):
            return desired_of_all(self._tx).get
        return lambda device_id: find_desired(self._tx, device_id)

    def _desire(self, device: ObjectRecord, document: Document | None, before: Desired | None) -> Desired | None:
        """Store what the device should run from now on, if that differs from ``before``; return what it is."""
        if document is None:
            self._tx.delete("desired", device.id.encode())
            return None
        if before is not None and before.digest == document.digest:
            desired = msgspec.structs.replace(
                before, confirm_s=document.confirm_s, schema=document.schema, later_bytes=document.later_bytes
            )
            if desired != before:
                self._tx.put("desired", device.id.encode(), pack(desired))
            return desired
        desired, payload = self._fresh(document)
        self._tx.put("desired", device.id.encode(), payload)
        return desired

    def _fresh(self, document: Document) -> tuple[Desired, bytes]:
        """What all devices of a new document should run; made, and the document stored, once however many they are."""
        key = document.digest, document.confirm_s, document.later_bytes, document.schema
        made = self._made.get(key)
        if made is None:
            desired = Desired(
                self._revision,
                document.digest,
                len(document.data),
                confirm_s=document.confirm_s,
                schema=document.schema,
                later_bytes=document.later_bytes,
            )
            made = self._made[key] = desired, pack(desired)
            self._vault.keep_document(self._tx, document.digest, document.data, document.shown)
        return made

    def _moved(self, device: ObjectRecord, before: Desired | None, after: Desired | None) -> Moved:
        differing, schema = self._differing(before, after), device.spec["schema"]
        return Moved(device.name, _digest(before), _digest(after), differing, device.id, schema)

    def _differing(self, before: Desired | None, after: Desired | None) -> tuple[FieldChange, ...]:
        if self._differences is None:
            return ()
        return self._differences.of_documents(self._shown(before), self._shown(after))

    def _shown(self, desired: Desired | None) -> bytes:
        document = find_document(self._tx, desired.digest) if desired is not None else None
        return document.shown if document is not None else b""

    def _measured(self, device: ObjectRecord, document: Document | None, before: Desired | None) -> Document | None:
        """The document, or why this very device cannot hold it; who was revoked has no say in what others get."""
        size, when = _news(document, before)
        if size <= SMALL_DOCUMENT_BYTES:
            return document
        limit = find_reported(self._tx, device.id).max_document
        if not limit or size <= limit or identity_state(self._tx, "device", device.id) == "revoked":
            return document
        text = f"{when}the document has {size} bytes, the device holds {limit}"
        return Document(b"", "", 0, (Problem("", text),), "document_too_large")


def _news(document: Document | None, before: Desired | None) -> tuple[int, str]:
    """The largest size that was not taken before, 0 if there is none, and when the device has to hold it."""
    if document is None or document.code:
        return 0, ""
    now = len(document.data) if document.digest != _digest(before) else 0
    later = document.later_bytes if document.later_bytes > (before.later_bytes if before is not None else 0) else 0
    return (later, "when an override ends: ") if later > now else (now, "")


def _affected(tx: Transaction, changes: Sequence[ObjectChange]) -> Iterator[ObjectRecord]:
    """Every device whose document may differ: one scan for groups and schemas, none for single devices."""
    secrets = {change.name for change in changes if change.kind == "Secret"}
    users = (
        [user for name, users in users_of_secrets(tx).items() if name in secrets for user in users] if secrets else []
    )
    own = {change.name for change in changes if change.kind == "Device"}
    own |= {user.name for user in users if user.kind == "Device"}
    for name in sorted(own):
        device = find_object(tx, "Device", name)
        if device is not None:
            yield device
    schemas = {change.name for change in changes if change.kind == "Schema"}
    groups = [
        record
        for change in changes
        if change.kind == "Group"
        for record in (change.before, change.after)
        if record is not None
    ]
    groups += [user for user in users if user.kind == "Group"]
    if not schemas and not groups:
        return
    concerned = Selection((parse_selector(group.spec["selector"]), group.name) for group in groups)
    for device in objects_of(tx, "Device"):
        if device.name in own:
            continue
        if device.spec["schema"] in schemas or concerned.is_matched(device.labels):
            yield device


def _digest(desired: Desired | None) -> str:
    return desired.digest if desired is not None else ""
