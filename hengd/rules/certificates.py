"""The allow-list inside a transaction: issue, look up, supersede, revoke certificates of one identity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from hengd.records import CertificateRecord, pack, unpack
from hengd.store import Reader, Transaction
from henge_protocol.errors import Conflict

LIVE: Final = frozenset({"issued", "active"})


def add_certificate(tx: Transaction, sha256: bytes, record: CertificateRecord) -> None:
    """Put a certificate on the list; ``Conflict`` ``key_in_use`` if its key belongs to another identity."""
    principal = _principal(record.role, record.subject)
    owner = tx.get("spki", bytes.fromhex(record.spki))
    if owner is not None and owner != principal:
        raise Conflict("key_in_use", "the public key belongs to another identity", cure="make a new key and ask again")
    tx.put("spki", bytes.fromhex(record.spki), principal)
    tx.put("certs", sha256, pack(record))
    tx.put("certs_of", principal + b"/" + sha256, b"")


def find_certificate(tx: Reader, sha256: bytes) -> CertificateRecord | None:
    """The record of a certificate, or None if it is not ours."""
    payload = tx.get("certs", sha256)
    return None if payload is None else unpack(CertificateRecord, payload)


def certificates_of(tx: Reader, role: str, subject: str) -> Iterator[tuple[bytes, CertificateRecord]]:
    """All certificates of one identity."""
    prefix = _principal(role, subject) + b"/"
    for key, _ in tx.scan("certs_of", prefix):
        sha256 = key[len(prefix) :]
        record = find_certificate(tx, sha256)
        if record is not None:
            yield sha256, record


def activate(tx: Transaction, sha256: bytes) -> None:
    """First use of a certificate: it becomes active, the ones before it are superseded."""
    record = find_certificate(tx, sha256)
    if record is None or record.state != "issued":
        return
    for other, theirs in list(certificates_of(tx, record.role, record.subject)):
        if other != sha256 and theirs.state == "active":
            _set_state(tx, other, theirs, "superseded")
    _set_state(tx, sha256, record, "active")


def drop_unused(tx: Transaction, role: str, subject: str) -> None:
    """Forget issued certificates that were never used: their answer was lost and a new one is on its way."""
    for sha256, record in list(certificates_of(tx, role, subject)):
        if record.state == "issued":
            _set_state(tx, sha256, record, "superseded")


def revoke_all(tx: Transaction, role: str, subject: str) -> int:
    """Revoke every certificate of an identity; how many were live."""
    revoked = 0
    for sha256, record in list(certificates_of(tx, role, subject)):
        revoked += record.state in LIVE
        _set_state(tx, sha256, record, "revoked")
    return revoked


def forget_keys(tx: Transaction, role: str, subject: str) -> None:
    """Free the public keys of an identity that is deleted, so that its hardware may join anew."""
    for _, record in certificates_of(tx, role, subject):
        tx.delete("spki", bytes.fromhex(record.spki))


def identity_state(tx: Reader, role: str, subject: str) -> str:
    """``none``, ``active`` or ``revoked``, as people are told."""
    states = {record.state for _, record in certificates_of(tx, role, subject)}
    if states & LIVE:
        return "active"
    return "revoked" if "revoked" in states else "none"


def _set_state(tx: Transaction, sha256: bytes, record: CertificateRecord, state: str) -> None:
    tx.put("certs", sha256, pack(msgspec.structs.replace(record, state=state)))


def _principal(role: str, subject: str) -> bytes:
    return f"{role}:{subject}".encode()
