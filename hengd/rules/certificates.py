"""The allow-list inside a transaction: issue, look up, supersede, revoke certificates of one identity."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from hengd.records import CertificateRecord, ObjectRecord, pack, unpack
from hengd.store import Reader, Transaction
from henge_protocol.errors import Conflict
from henge_protocol.model import ROLES

LIVE: Final = frozenset({"issued", "active"})
USED: Final = frozenset({"active"})
SHA256_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Operator:
    """A person with certificates that still open something, one chain of renewals for each login."""

    name: str
    certificates: int
    """How many are live: about as many as there are machines the person logged in on."""
    since: float
    """When the oldest of them was issued."""
    expires: float
    """When the last of them ends."""
    via: str
    """How the newest came to be: token or renew."""
    rights: str
    """The most that one of them may do: viewer, editor or admin."""


def add_certificate(tx: Transaction, sha256: bytes, record: CertificateRecord) -> None:
    """Put a certificate on the list; ``Conflict`` ``key_in_use`` if its key belongs to another identity."""
    principal = _principal(record.role, record.subject)
    if owner_of_key(tx, bytes.fromhex(record.spki)) not in (None, (record.role, record.subject)):
        raise Conflict("key_in_use", "the public key belongs to another identity", cure="make a new key and ask again")
    tx.put("spki", bytes.fromhex(record.spki), principal)
    tx.put("certs", sha256, pack(record))
    tx.put("certs_of", principal + b"/" + sha256, b"")


def find_certificate(tx: Reader, sha256: bytes) -> CertificateRecord | None:
    """The record of a certificate, or None if it is not ours."""
    payload = tx.get("certs", sha256)
    return None if payload is None else unpack(CertificateRecord, payload)


def owner_of_key(tx: Reader, spki_sha256: bytes) -> tuple[str, str] | None:
    """Role and subject of the identity that a public key belongs to, or None if nobody has it."""
    principal = tx.get("spki", spki_sha256)
    if principal is None:
        return None
    role, _, subject = principal.decode().partition(":")
    return role, subject


def certificates_of(tx: Reader, role: str, subject: str) -> Iterator[tuple[bytes, CertificateRecord]]:
    """All certificates of one identity."""
    prefix = _principal(role, subject) + b"/"
    for key, _ in tx.scan("certs_of", prefix):
        sha256 = key[len(prefix) :]
        record = find_certificate(tx, sha256)
        if record is not None:
            yield sha256, record


def all_certificates(tx: Reader) -> Iterator[tuple[bytes, CertificateRecord]]:
    """The whole list."""
    for sha256, payload in tx.scan("certs"):
        yield sha256, unpack(CertificateRecord, payload)


def operator_names(tx: Reader) -> list[str]:
    """Everybody who ever had an operator's certificate that is still remembered."""
    prefix, digest = len(b"admin:"), SHA256_BYTES + len(b"/")
    return list(dict.fromkeys(key[prefix:-digest].decode() for key, _ in tx.scan("certs_of", b"admin:")))


def activate(tx: Transaction, sha256: bytes) -> None:
    """First use of a certificate: it becomes active, the ones it replaces are superseded."""
    record = find_certificate(tx, sha256)
    if record is None or record.state != "issued":
        return
    for other, theirs in list(certificates_of(tx, record.role, record.subject)):
        if other != sha256 and theirs.state == "active" and _replaces(record, other, theirs):
            _set_state(tx, other, theirs, "superseded")
    _set_state(tx, sha256, record, "active")


def supersede_unused(tx: Transaction, coming: CertificateRecord) -> None:
    """Supersede what ``coming`` replaces and was never used: that answer was lost, and a new one is on its way."""
    for sha256, record in list(certificates_of(tx, coming.role, coming.subject)):
        if record.state == "issued" and _replaces(coming, sha256, record):
            _set_state(tx, sha256, record, "superseded")


def drop_spent(tx: Transaction, role: str, subject: str, *, now: float) -> None:
    """Forget superseded certificates that have expired, and keys that no certificate is left for."""
    kept = [record.spki for _, record in certificates_of(tx, role, subject) if not _is_spent(record, now)]
    for sha256, record in list(certificates_of(tx, role, subject)):
        if _is_spent(record, now):
            tx.delete("certs", sha256)
            tx.delete("certs_of", _principal(role, subject) + b"/" + sha256)
            if record.spki not in kept:
                tx.delete("spki", bytes.fromhex(record.spki))


def last_issued(tx: Reader, role: str, subject: str) -> float:
    """When the newest certificate of an identity was issued, 0 if there is none."""
    return max((record.at for _, record in certificates_of(tx, role, subject)), default=0.0)


def revoke_all(tx: Transaction, role: str, subject: str, *, until: float = math.inf) -> int:
    """Revoke every certificate of an identity that was issued until then; how many were live."""
    revoked = 0
    for sha256, record in list(certificates_of(tx, role, subject)):
        if record.at <= until:
            revoked += record.state in LIVE
            _set_state(tx, sha256, record, "revoked")
    return revoked


def is_ended(record: CertificateRecord, ended: float) -> bool:
    """Whether an end of its identity concerns this certificate, and it is still live."""
    return record.state in LIVE and record.at <= ended


def forget_keys(tx: Transaction, role: str, subject: str) -> None:
    """Free the public keys of an identity that is deleted, so that its hardware may join anew."""
    for _, record in certificates_of(tx, role, subject):
        tx.delete("spki", bytes.fromhex(record.spki))


def has_certificate(tx: Reader, role: str, subject: str, states: Collection[str]) -> bool:
    """Whether an identity has a certificate in one of these states."""
    return any(record.state in states for _, record in certificates_of(tx, role, subject))


def live_operators(tx: Reader, *, ended_before: float) -> list[Operator]:
    """Operators by name, with their live certificates that ended at or after a time (or have not ended)."""
    found = (_operator(tx, name, ended_before) for name in operator_names(tx))
    return [operator for operator in found if operator is not None]


def identity_state(tx: Reader, role: str, subject: str) -> str:
    """``none``, ``active`` or ``revoked``, as people are told."""
    states = {record.state for _, record in certificates_of(tx, role, subject)}
    if states & LIVE:
        return "active"
    return "revoked" if "revoked" in states else "none"


def has_joined(tx: Reader, record: ObjectRecord) -> bool:
    """Whether it is a device with an identity that counts."""
    return record.kind == "Device" and identity_state(tx, "device", record.id) == "active"


def _operator(tx: Reader, name: str, ended_before: float) -> Operator | None:
    records = [record for _, record in certificates_of(tx, "admin", name)]
    live = [record for record in records if record.state in LIVE and record.not_after >= ended_before]
    if not live:
        return None
    newest = max(live, key=lambda record: record.at)
    since, expires = min(record.at for record in live), max(record.not_after for record in live)
    rights = max((record.rights for record in live), key=ROLES.index)
    return Operator(name, len(live), since, expires, newest.via, rights)


def _is_spent(record: CertificateRecord, now: float) -> bool:
    return record.state == "superseded" and record.not_after < now


def _replaces(coming: CertificateRecord, sha256: bytes, other: CertificateRecord) -> bool:
    """A device has one certificate; an operator one for each login, renewed (``by`` the one before) or asked again."""
    if coming.role == "device" or sha256.hex() == coming.by:
        return True
    return other.by == coming.by and (coming.via == "renew" or other.spki == coming.spki)


def _set_state(tx: Transaction, sha256: bytes, record: CertificateRecord, state: str) -> None:
    tx.put("certs", sha256, pack(msgspec.structs.replace(record, state=state)))


def _principal(role: str, subject: str) -> bytes:
    return f"{role}:{subject}".encode()
