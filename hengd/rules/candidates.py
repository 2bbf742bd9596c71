"""Documents that devices would get by a change that is not made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from hengd.records import ObjectChange
from hengd.rules.audit import Guesses
from hengd.rules.changes import Changes
from hengd.rules.configs import Request, begin, read_manifests
from hengd.rules.fleet import find_desired, find_document, required_object
from hengd.rules.outcome import Moved
from hengd.rules.redaction import SecretTexts, secret_texts
from hengd.store import Store, Transaction
from henge_protocol.errors import HengeError, Internal, Invalid
from henge_protocol.selector import Selector

MAX_CANDIDATES: Final = 200
"""Documents that are asked about at once: they are all in memory meanwhile."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that a device would get, and the texts of the secrets in it."""

    device_id: str
    name: str
    document: bytes
    digest: str
    secrets: SecretTexts = field(default_factory=SecretTexts)
    schema: str = ""
    """Digest of the schema that it fits, if that is the one the device can fetch now."""


class Candidates:
    """Makes changes as ``Configs`` does, reads what devices would get, and undoes them."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self._store = store
        self._changes = changes
        self._guesses = Guesses(store, changes.vault, clock=changes.clock)

    async def of(self, objects: Sequence[object], selector: Selector, request: Request) -> list[Candidate]:
        """The documents that devices, those that ``selector`` selects, would get by ``apply``; nothing is kept.

        Refused as ``apply`` is, except for how wide it is; ``Invalid`` ``too_complex`` beyond ``MAX_CANDIDATES``.
        """
        manifests = await read_manifests(objects)
        tried: list[ObjectChange] = []

        def operation(tx: Transaction) -> None:
            change = begin(tx, self._changes, request, now=self._changes.clock())
            for manifest in manifests:
                change.put(manifest)
            try:
                moved = [one for one in change.finish(fields=False).devices if one.after]
            finally:
                tried[:] = change.written
            if (managed := change.refusal()) is not None:
                raise managed
            chosen = [one for one in moved if selector.matches(required_object(tx, "Device", one.name).labels)]
            raise _Found([self._candidate(tx, one) for one in _not_too_many(chosen)])

        try:
            await self._store.write(operation)
        except (HengeError, _Found) as undone:
            await self._guesses.note(tried, request.author)
            if isinstance(undone, _Found):
                return self._with_schemas_of_now(undone.candidates)
            raise
        raise AssertionError("the operation always raises")

    def _candidate(self, tx: Transaction, moved: Moved) -> Candidate:
        document, stored = self._changes.vault.document(tx, moved.after), find_document(tx, moved.after)
        if document is None or stored is None:
            raise Internal("storage_corrupt", f"document {moved.after} is not in the store")
        secrets = SecretTexts()
        if stored.sealed:
            secrets = secret_texts(msgspec.json.decode(document), msgspec.json.decode(stored.shown))
        desired = find_desired(tx, moved.id)
        return Candidate(
            moved.id, moved.name, document, moved.after, secrets, desired.schema if desired is not None else ""
        )

    def _with_schemas_of_now(self, candidates: list[Candidate]) -> list[Candidate]:
        """A schema that changes together with its devices cannot be fetched; only the daemon has checked it."""
        with self._store.read() as tx:
            now = [find_desired(tx, one.device_id) for one in candidates]
        return [
            one if desired is not None and desired.schema == one.schema else replace(one, schema="")
            for one, desired in zip(candidates, now, strict=True)
        ]


class _Found(Exception):
    """Carries documents out of a transaction, which is undone by it."""

    expected = True

    def __init__(self, candidates: list[Candidate]) -> None:
        super().__init__("candidates")
        self.candidates = candidates


def _not_too_many(moved: list[Moved]) -> list[Moved]:
    if len(moved) > MAX_CANDIDATES:
        message = f"{len(moved)} devices would get another document, at most {MAX_CANDIDATES} are asked at once"
        raise Invalid("too_complex", message, cure="choose some of them: -l SELECTOR")
    return moved
