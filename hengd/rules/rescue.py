"""The rescue window: devices that the store does not know hand in what they run, and wait for a person.

A certificate is a key to look up, never a grant, here too: what is handed in is a request. It is kept in the store, so
that a device which sleeps for a day says it once, and sealed, because nobody knows yet which of it is secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

from hengd.records import RescueRecord, pack, unpack
from hengd.rules.authority import Authority
from hengd.rules.limits import RateLimit, counted_as
from hengd.rules.references import references
from hengd.rules.rescue_window import RescueWindow
from hengd.rules.vault import Vault
from hengd.store import Reader, Store, Transaction
from henge_protocol import pki
from henge_protocol.errors import Conflict, Denied, Invalid, Limited, TooLarge, Unauthenticated
from henge_protocol.model import MAX_DOCUMENT_BYTES, MAX_RESCUED_SCHEMA_BYTES, check_name, digest_of
from henge_protocol.strictjson import parse

MAX_REQUESTS: Final = 10_000
MAX_SCHEMAS: Final = 100
"""Different ones that are kept; a fleet has a few, and who holds the authority's key could make up many."""
PER_S: Final = 1.0
AT_ONCE: Final = 60
"""How often one address may hand something in."""
_REQUEST: Final = b"request/"
_DOCUMENT: Final = b"document/"
"""Apart from the requests, so that a list of these does not read all of those."""
_SCHEMA: Final = b"schema/"


@dataclass(frozen=True, slots=True)
class HandedIn:
    """What a device says that it runs."""

    name: str
    document: bytes
    digest: str
    schema: bytes = b""
    epoch: str = ""
    revision: int = 0
    client: str = ""
    facts: dict[str, str | int | float | bool] | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request, by the certificate that was shown with it."""

    certificate: bytes
    record: RescueRecord
    is_newest: bool = True
    """No newer certificate of the same device was shown."""


class Rescue:
    """What is handed in while the window is open."""

    def __init__(
        self,
        store: Store,
        window: RescueWindow,
        authority: Authority,
        vault: Vault,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self.window = window
        self._authority = authority
        self._vault = vault
        self._clock = clock
        self._monotonic = monotonic
        self._rate = RateLimit(PER_S, AT_ONCE)

    # ---- the device's side ---------------------------------------------------------------------------

    def admit(self, certificate: bytes | None, address: str) -> bytes:
        """The certificate of a device that may hand in what it runs, before anything is read of that.

        Raises ``Unauthenticated``, as ``Authority.identify`` does, ``Conflict exists`` for who is known, ``Denied``
        ``rescue_closed``, ``Limited``.
        """
        if certificate is None:
            raise Unauthenticated("certificate_required", "show the certificate of the device that is to be rescued")
        self._check_holder(certificate, address)
        self._rate.take(counted_as(address), now=self._monotonic())
        return certificate

    async def hand_in(self, certificate: bytes, handed: HandedIn, address: str) -> None:
        """Keep what the holder of a certificate runs, instead of what was handed in with that certificate before.

        Raises ``Malformed``, ``Invalid`` or ``TooLarge`` for what is no document, ``Limited`` ``rescue_full``,
        ``Unavailable`` ``secrets_locked``, and as ``admit`` if that has changed.
        """
        self._check_holder(certificate, address)
        check_name(handed.name, "device name")
        _check_document(handed)
        schema = _checked_schema(handed.schema)
        key, now = pki.fingerprint(certificate), self._clock()
        await self._store.write(lambda tx: self._keep(tx, key, certificate, handed, schema, address, now))

    def _check_holder(self, certificate: bytes, address: str) -> None:
        """Pass only whom the refusal of everything else tells that they may hand in."""
        try:
            known = self._authority.identify(certificate, address)
        except Denied as refusal:
            if "rescue" in refusal.extra:
                return
            if refusal.code == "unknown_certificate" and not self.window.closes:
                cure = "on the daemon's machine: hengectl rescue open"
                raise Denied("rescue_closed", "nothing may be handed in now", cure=cure) from None
            raise
        raise Conflict("exists", f"{known.name} is known here: there is nothing to rescue")

    def _keep(
        self, tx: Transaction, key: bytes, certificate: bytes, handed: HandedIn, schema: str, address: str, now: float
    ) -> None:
        if tx.get("rescues", _REQUEST + key) is None and len(tx.keys("rescues", _REQUEST)) >= MAX_REQUESTS:
            raise Limited(
                "rescue_full", f"{MAX_REQUESTS} devices have handed in what they run, more are not kept",
                cure="take what came, or drop it: hengectl rescue close --forget", extra={"retry_after_s": 3600},
            )  # fmt: skip
        if schema and tx.get("rescues", _SCHEMA + schema.encode()) is None:
            if len(tx.keys("rescues", _SCHEMA)) < MAX_SCHEMAS:
                tx.put("rescues", _SCHEMA + schema.encode(), handed.schema)
            else:
                schema = ""
        begins, ends = pki.validity(certificate)
        server, client = self._authority.account_of(certificate)
        record = RescueRecord(
            id=pki.identity_of(certificate).subject, spki=pki.spki_sha256(certificate).hex(),
            not_before=begins, not_after=ends, name=handed.name, digest=handed.digest, size=len(handed.document),
            schema=schema, epoch=handed.epoch, revision=handed.revision, client=handed.client, facts=handed.facts or {},
            address=address, at=now, told=[server], signed_by=client,
        )  # fmt: skip
        tx.put("rescues", _DOCUMENT + key, self._vault.seal_anyway(tx).seal(handed.document, _context(key)))
        tx.put("rescues", _REQUEST + key, pack(record))

    # ---- the operator's side -------------------------------------------------------------------------

    def waiting(self) -> list[Waiting]:
        """Everything that was handed in and not taken, by name."""
        with self._store.read() as tx:
            return requests_in(tx)

    @property
    def count(self) -> int:
        """How many requests wait."""
        with self._store.read() as tx:
            return len(tx.keys("rescues", _REQUEST))


def requests_in(tx: Reader) -> list[Waiting]:
    """Everything that was handed in and not taken, by name; of a device that showed several certificates each."""
    found = [
        (key.removeprefix(_REQUEST), unpack(RescueRecord, payload)) for key, payload in tx.scan("rescues", _REQUEST)
    ]
    newest: dict[str, tuple[float, bytes]] = {}
    for key, record in found:
        newest[record.id] = max(newest.get(record.id, (-math.inf, b"")), (record.not_before, key))
    waiting = [Waiting(key, record, newest[record.id][1] == key) for key, record in found]
    return sorted(waiting, key=lambda one: (one.record.name, one.record.id, -one.record.not_before))


def document_in(tx: Reader, vault: Vault, waiting: Waiting) -> bytes:
    """The document of a request; ``Unavailable`` ``secrets_locked``."""
    sealed = tx.get("rescues", _DOCUMENT + waiting.certificate)
    return vault.seal(tx).open(sealed or b"", _context(waiting.certificate))


def schema_in(tx: Reader, digest: str) -> dict[str, object] | None:
    """A schema that was handed in, by its digest."""
    payload = tx.get("rescues", _SCHEMA + digest.encode()) if digest else None
    value = parse(payload) if payload is not None else None
    return value if isinstance(value, dict) else None


def forget(tx: Transaction, device_ids: Container[str]) -> None:
    """Drop every request of these devices, and schemas that no request names any more."""
    named: set[str] = set()
    for waiting in requests_in(tx):
        if waiting.record.id in device_ids:
            tx.delete("rescues", _REQUEST + waiting.certificate)
            tx.delete("rescues", _DOCUMENT + waiting.certificate)
        else:
            named.add(waiting.record.schema)
    for key in tx.keys("rescues", _SCHEMA):
        if key.removeprefix(_SCHEMA).decode() not in named:
            tx.delete("rescues", key)


def _context(certificate: bytes) -> str:
    return f"rescue {certificate.hex()}"


def _check_document(handed: HandedIn) -> None:
    if len(handed.document) > MAX_DOCUMENT_BYTES:
        size = len(handed.document)
        raise TooLarge("too_large", f"the document has {size} bytes, at most {MAX_DOCUMENT_BYTES} can be handed in")
    if digest_of(handed.document) != handed.digest:
        raise Invalid("bad_object", "the document is not the one that the digest names")
    value = parse(handed.document)
    if not isinstance(value, dict):
        raise Invalid("bad_object", "the document is not a JSON object")
    if next(references(value), None) is not None:
        raise Invalid("bad_object", "the document has a reference to a secret, which no device ever gets")


def _checked_schema(data: bytes) -> str:
    """The digest of a schema that can be kept, or nothing for none."""
    if not data:
        return ""
    if len(data) > MAX_RESCUED_SCHEMA_BYTES:
        raise TooLarge(
            "too_large", f"the schema has {len(data)} bytes, at most {MAX_RESCUED_SCHEMA_BYTES} can be handed in"
        )
    if not isinstance(parse(data), dict):
        raise Invalid("bad_object", "the schema is not a JSON object")
    return digest_of(data)
