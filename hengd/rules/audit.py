"""Who did what, in a chain: written in the transaction of the fact, so that neither is without the other.

The chain's ends stand apart: the anchor is the last record that was dropped (retention), the head is the newest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

import msgspec

from hengd.records import AuditEnd, AuditRecord, ObjectChange, number_key, pack, unpack
from hengd.rules.limits import RateLimit
from hengd.rules.outcome import Author
from hengd.rules.vault import Vault
from hengd.store import Reader, Store, Transaction
from henge_protocol.audit import START, Link, record_digest
from henge_protocol.errors import HengeError, Limited
from henge_protocol.quantity import moment
from henge_protocol.strictjson import canonical

log = logging.getLogger("hengd.audit")

Act = Literal[
    "configuration.changed", "schema.tried", "device.joined", "device.approved", "device.retried", "operator.logged-in",
    "certificate.renewed", "identity.revoked", "token.created", "token.revoked",
    "backup.begun", "backup.made", "store.restored",
    "authority.introduced", "authority.withdrawn", "authority.switched", "authority.dropped", "authority.exported",
    "authority.key-removed", "authority.key-imported", "server-certificate.made",
    "token.refused", "code.refused", "join-window.opened", "join-window.closed",
    "rescue-window.opened", "rescue-window.closed", "device.rescued",
]  # fmt: skip
ACTS: Final[tuple[str, ...]] = get_args(Act)
PRUNED_AT_ONCE: Final = 500
REFUSED_EVERY_S: Final = 600
"""Between two records of refusals in the long run: some ten megabytes in a year, however long somebody guesses."""
REFUSED_AT_ONCE: Final = 20
_ANCHOR: Final = b"anchor"
_HEAD: Final = b"head"


def note(tx: Transaction, act: Act, object_: str, author: Author, *, now: float, revision: int = 0) -> None:
    """Add a record to the chain, if this transaction commits."""
    before = _end(tx, _HEAD)
    record = AuditRecord(
        number=before.number + 1, time=moment(now), who=author.name, origin=author.origin, what=act, object=object_,
        revision=revision, previous=before.digest,
    )  # fmt: skip
    tx.put("audit", number_key(record.number), pack(record))
    _set_end(tx, _HEAD, Link(record.number, record_digest(msgspec.to_builtins(record))))


class Refusals:
    """Records of what strangers tried and were refused. They can try without end, so few of those are written."""

    def __init__(self, store: Store, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._limit = RateLimit(1 / REFUSED_EVERY_S, REFUSED_AT_ONCE)
        self._left_out = 0

    async def note(self, act: Act, object_: str, author: Author) -> None:
        """Add a record, or have the next one tell of it. Never fails: it is the refusal that counts."""
        try:
            self._limit.take("", now=self._monotonic())
        except Limited:
            self._left_out += 1
            return
        said = f"{object_} (and {self._left_out} more before)" if self._left_out else object_
        self._left_out = 0
        try:
            await self._store.write(lambda tx: note(tx, act, said, author, now=self._clock()))
        except HengeError as error:
            log.warning("a refusal could not be recorded: %s", error, extra={"event": "audit_failed"})


class Guesses:
    """Records of schemas that judged secrets and were not kept: each time somebody learned whether one fits."""

    def __init__(self, store: Store, vault: Vault, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock

    async def note(self, tried: Sequence[ObjectChange], author: Author) -> None:
        """Add a record, if a change that is undone tried such schemas. Never fails: it is the answer that counts."""
        schemas = [one.name for one in tried if _judges_secrets(one)]
        if not schemas:
            return
        with self._store.read() as tx:
            if not self._vault.is_used(tx):
                return
        said = f"schema/{schemas[0]}" if len(schemas) == 1 else f"{len(schemas)} schemas"
        try:
            await self._store.write(lambda tx: note(tx, "schema.tried", said, author, now=self._clock()))
        except HengeError as error:
            log.warning("a try could not be recorded: %s", error, extra={"event": "audit_failed"})


def _judges_secrets(change: ObjectChange) -> bool:
    return change.kind == "Schema" and change.after is not None and b'"writeOnly"' in canonical(change.after.spec)


class Audit:
    """Reads the chain, and drops its oldest records."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, since: int | None, limit: int) -> tuple[Link, Link, list[AuditRecord]]:
        """Anchor, head, and at most ``limit`` records after ``since`` (None: the newest), in their order."""
        with self._store.read() as tx:
            anchor, head = _end(tx, _ANCHOR), _end(tx, _HEAD)
            start = max(anchor.number, head.number - limit if since is None else since)
            numbers = range(start + 1, min(head.number, start + limit) + 1)
            payloads = [tx.get("audit", number_key(number)) for number in numbers]
        return anchor, head, [unpack(AuditRecord, payload) for payload in payloads if payload is not None]

    async def prune(self, keep: int, keep_s: float, *, now: float) -> int:
        """Drop some records beyond the newest ``keep`` that are older than ``keep_s`` too; how many, 0 = no more."""
        horizon = moment(max(0.0, now - keep_s))
        return await self._store.write(lambda tx: _drop(tx, keep, horizon))


def _drop(tx: Transaction, keep: int, horizon: str) -> int:
    anchor, surplus = _end(tx, _ANCHOR), tx.count("audit") - keep
    dropped = 0
    while dropped < min(surplus, PRUNED_AT_ONCE):
        payload = tx.get("audit", number_key(anchor.number + 1))
        record = unpack(AuditRecord, payload) if payload else None
        if record is None or record.time >= horizon:
            break
        tx.delete("audit", number_key(record.number))
        anchor = Link(record.number, record_digest(msgspec.to_builtins(record)))
        dropped += 1
    if dropped:
        _set_end(tx, _ANCHOR, anchor)
    return dropped


def _end(tx: Reader, key: bytes) -> Link:
    payload = tx.get("audit_ends", key)
    end = unpack(AuditEnd, payload) if payload else None
    return Link(end.number, end.digest) if end else START


def _set_end(tx: Transaction, key: bytes, link: Link) -> None:
    tx.put("audit_ends", key, pack(AuditEnd(link.number, link.digest)))
