"""What a device should be sent: the newest document as a frame, encoded once however many devices share it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from hengd.records import Desired
from hengd.rules.fleet import device_by_id, find_desired, find_document, find_object, read_line
from hengd.rules.redaction import SecretTexts, secret_texts, without, without_number
from hengd.rules.vault import Vault
from hengd.store import Store
from henge_protocol.errors import Internal, NotFound, Unavailable
from henge_protocol.model import MAX_DOCUMENT_BYTES, digest_of, is_digest
from henge_protocol.strictjson import canonical
from henge_protocol.wire import Config, FieldError, Hello, Receipt, Report, encode

CACHED_FRAMES: Final = 256
"""Of at most 1 MiB each and mostly 300 bytes: a change of the whole fleet needs one."""

UNTOLD: Final = "[hidden: nobody can tell whether it holds a secret]"
"""In the place of what a device said while the secrets are locked, or about a document that is gone."""

KEPT_TEXTS: Final = 250_000
"""Parts of secrets kept in memory, of 60 bytes each; a WLAN's password has a dozen, a certificate 2000."""
NO_SECRETS: Final = SecretTexts()

Fact = str | int | float | bool


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
        self._texts: OrderedDict[str, SecretTexts] = OrderedDict()
        """By digest, the texts of the secrets in a document: a fleet that reconnects says hello thousands of times."""
        self._texts_size = 0
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

    def schema(self, device_id: str) -> tuple[str, str, bytes]:
        """Name, digest and canonical bytes of the schema that the device's documents fit; ``NotFound no_document``."""
        with self._store.read() as tx:
            device = device_by_id(tx, device_id)
            name = device.spec["schema"] if device is not None else ""
            schema = find_object(tx, "Schema", name) if name else None
        if schema is None:
            raise NotFound("no_document", "this device has no schema, and so no document")
        data = canonical(schema.spec["schema"])
        return name, digest_of(data), data

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

    def redacted(self, device_id: str, report: Report, running: str) -> Report:
        """A report without secrets, whatever a hook of the device printed.

        Those of the document that it is about, of the one that runs (by its digest) and of the newest one. Where
        nobody can tell them, code and fields stay and the messages go.
        """
        if not report.errors:
            return report
        secrets = self._secrets(device_id, running, about=report.digest)
        if secrets is None:
            return replace(report, errors=tuple(FieldError(one.pointer, UNTOLD) for one in report.errors))
        if not secrets:
            return report
        errors = tuple(
            FieldError(without(one.pointer, *secrets), without(one.message, *secrets)) for one in report.errors
        )
        return replace(report, errors=errors)

    def discreet(self, device_id: str, hello: Hello, running: str) -> Hello:
        """A hello whose facts hold no secrets of the documents that the device runs or ran, nor of its newest one."""
        if not hello.facts:
            return hello
        secrets = self._secrets(device_id, running, hello.digest)
        if secrets is None:
            return replace(hello, facts={key: _untold(fact) for key, fact in hello.facts.items()})
        if not secrets:
            return hello
        facts = {without(key, *secrets): _fact(fact, *secrets) for key, fact in hello.facts.items()}
        return replace(hello, facts=facts)

    def hidden(self, device_id: str, text: str, running: str) -> str:
        """What a device says, without the secrets of the document that it runs and of its newest one."""
        secrets = self._secrets(device_id, running)
        return UNTOLD if secrets is None else without(text, *secrets)

    def _secrets(self, device_id: str, *digests: str, about: str = "") -> list[SecretTexts] | None:
        """The secrets of these documents and of the device's newest one; None if nobody can tell them.

        Of ``digests`` some may be of another store; what is said ``about`` a document that is gone cannot be told.
        """
        desired = self.newest(device_id)
        others = {*digests, desired.digest if desired is not None else ""} - {about}
        found = [self._secrets_of(about, if_gone=None)]
        found += [self._secrets_of(digest, if_gone=NO_SECRETS) for digest in others]
        known = [texts for texts in found if texts is not None]
        return [texts for texts in known if texts] if len(known) == len(found) else None

    def _secrets_of(self, digest: str, *, if_gone: SecretTexts | None) -> SecretTexts | None:
        """The texts of a document's secrets; None if they are locked. Of a document that is gone: ``if_gone``."""
        if not is_digest(digest):
            return NO_SECRETS
        known = self._texts.get(digest)
        if known is not None:
            return known
        with self._store.read() as tx:
            stored = find_document(tx, digest)
            if stored is None:
                return if_gone if self._vault.is_used(tx) else NO_SECRETS
            try:
                exact = self._vault.document(tx, digest) if stored.sealed else None
            except Unavailable:
                return None
        return self._keep(
            digest, secret_texts(msgspec.json.decode(exact), msgspec.json.decode(stored.shown)) if exact else NO_SECRETS
        )

    def _keep(self, digest: str, texts: SecretTexts) -> SecretTexts:
        self._texts[digest] = texts
        self._texts_size += texts.size
        while len(self._texts) > CACHED_FRAMES or (self._texts_size > KEPT_TEXTS and len(self._texts) > 1):
            _, dropped = self._texts.popitem(last=False)
            self._texts_size -= dropped.size
        return texts

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


def _fact(fact: Fact, *secrets: SecretTexts) -> Fact:
    return without(fact, *secrets) if isinstance(fact, str) else without_number(fact, *secrets)


def _untold(fact: Fact) -> Fact:
    return fact if isinstance(fact, bool) else UNTOLD
