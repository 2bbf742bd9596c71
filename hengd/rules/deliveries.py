"""What a device should be sent: the newest document as a frame, encoded once however many devices share it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from hengd.records import Desired
from hengd.rules.fleet import device_by_id, find_desired, find_document, find_object, read_line
from hengd.rules.redaction import secret_texts, without
from hengd.rules.vault import Vault
from hengd.store import Store
from henge_protocol.errors import Internal, NotFound, Unavailable
from henge_protocol.model import MAX_DOCUMENT_BYTES, digest_of, is_digest
from henge_protocol.strictjson import canonical
from henge_protocol.wire import Config, FieldError, Receipt, Report, encode

CACHED_FRAMES: Final = 256
"""Of at most 1 MiB each and mostly 300 bytes: a change of the whole fleet needs one."""


class Delivery(NamedTuple):
    """A message and its frame."""

    config: Config
    frame: bytes


class Deliveries:
    """Reads what devices should run.

    Memory is kept current by the after-commit hook and by every fresh look, so that a lost hook costs time only.
    """

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._frames: OrderedDict[tuple[str, int, int, str], Delivery] = OrderedDict()
        self._desired: dict[str, Desired | None] = {}
        self._acknowledged: Report | None = None
        self._receipt: tuple[Receipt, bytes] = (Receipt(), b"")
        with store.read() as tx:
            self.line = read_line(tx)

    def advance(self, revision: int, desired: Mapping[str, Desired | None]) -> None:
        """A revision was committed; ``desired`` is what devices whose document differs should run now."""
        if revision > self.line.revision:
            self.line = replace(self.line, revision=revision)
            self._desired.update(desired)
        else:  # a fresh look was faster than this news and may have seen something newer
            for device_id in desired:
                self._desired.pop(device_id, None)

    def newest(self, device_id: str, *, fresh: bool = False) -> Desired | None:
        """What the device should run now: from memory if ``advance`` rang, ``fresh`` from the store with ``line``."""
        if fresh or device_id not in self._desired:
            with self._store.read() as tx:
                self.line, self._desired[device_id] = read_line(tx), find_desired(tx, device_id)
        return self._desired[device_id]

    def names(self, device_ids: Iterable[str]) -> list[str]:
        """The present names of these devices, without those that were deleted."""
        with self._store.read() as tx:
            names = [tx.get("ids", device_id.encode()) for device_id in device_ids]
        return [name.decode() for name in names if name is not None]

    def max_document(self, device_id: str) -> int:
        """Bytes of the largest document that the device is sent: what its schema says, or the default."""
        with self._store.read() as tx:
            device = device_by_id(tx, device_id)
            name = device.spec["schema"] if device is not None else ""
            schema = find_object(tx, "Schema", name) if name else None
        return int(schema.spec["max_document"]) if schema is not None else MAX_DOCUMENT_BYTES

    def schema(self, device_id: str) -> tuple[str, bytes]:
        """Digest and canonical bytes of the schema that the device's documents fit; ``NotFound`` ``no_document``."""
        with self._store.read() as tx:
            device = device_by_id(tx, device_id)
            name = device.spec["schema"] if device is not None else ""
            schema = find_object(tx, "Schema", name) if name else None
        if schema is None:
            raise NotFound("no_document", "this device has no schema, and so no document")
        data = canonical(schema.spec["schema"])
        return digest_of(data), data

    def delivery(self, device_id: str, desired: Desired) -> Delivery:
        """The frame that carries a document; if that was swept meanwhile, the frame of the newest one.

        ``Internal`` ``storage_corrupt`` if the newest one is missing, ``Unavailable`` ``secrets_locked`` if it holds
        secrets that are locked.
        """
        try:
            return self._frame(desired)
        except Internal:
            newest = self.newest(device_id, fresh=True)
            if newest is None or newest.digest == desired.digest:
                raise
            return self._frame(newest)

    def redacted(self, report: Report) -> Report:
        """A report without the secrets of the document that it is about, whatever a hook of the device printed."""
        secrets = self._secrets_of(report.digest) if report.errors else None
        if secrets is None:
            return report
        errors = tuple(
            FieldError(without(one.pointer, secrets), without(one.message, secrets)) for one in report.errors
        )
        return replace(report, errors=errors)

    def hidden(self, device_id: str, text: str) -> str:
        """What a device says about its newest document, without the secrets of that."""
        desired = self.newest(device_id)
        secrets = self._secrets_of(desired.digest) if desired is not None else None
        return text if secrets is None else without(text, secrets)

    def _secrets_of(self, digest: str) -> list[str] | None:
        """None if the document holds none, or is gone, or nobody can tell because they are locked."""
        if not is_digest(digest):
            return None
        with self._store.read() as tx:
            stored = find_document(tx, digest)
            if stored is None or not stored.sealed:
                return None
            try:
                exact = self._vault.document(tx, digest)
            except Unavailable:
                return None
        return secret_texts(msgspec.json.decode(exact or b"{}"), msgspec.json.decode(stored.shown))

    def receipt(self, report: Report) -> tuple[Receipt, bytes]:
        """What a durable report is answered with, and its frame; made once for a fleet that says the same words."""
        if report is not self._acknowledged:
            receipt = Receipt(report.revision, report.digest, report.state)
            self._acknowledged, self._receipt = report, (receipt, encode(receipt))
        return self._receipt

    def _frame(self, desired: Desired) -> Delivery:
        key = (desired.digest, desired.revision, desired.confirm_s, desired.schema)
        found = self._frames.get(key)
        if found is None:
            found = self._frames[key] = self._make(desired)
            if len(self._frames) > CACHED_FRAMES:
                self._frames.popitem(last=False)
        return found

    def _make(self, desired: Desired) -> Delivery:
        with self._store.read() as tx:
            document = self._vault.document(tx, desired.digest)
        if document is None:
            raise Internal("storage_corrupt", f"document {desired.digest} is not in the store")
        terms = (desired.confirm_s, "apply", document, desired.schema)
        config = Config(self.line.epoch, desired.revision, desired.digest, *terms)
        return Delivery(config, encode(config))
