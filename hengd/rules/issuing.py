"""Certificates as they are issued: signed, put on the list, and the identity that their owner stores."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any, Final

from hengd.authorities import Authorities, short
from hengd.records import CertificateRecord
from hengd.rules import audit
from hengd.rules.certificates import add_certificate, drop_spent, supersede_unused
from hengd.rules.ends import NOUNS, Ends
from hengd.rules.outcome import Author
from hengd.rules.timekeeping import Timekeeper
from hengd.store import Transaction
from henge_protocol import pki
from henge_protocol.errors import Conflict

DEVICE_LIFETIME_S: Final = 90 * pki.DAY_S
BOARD_LIFETIME_S: Final = 397 * pki.DAY_S
"""Boards renew rarely: each renewal is a handshake and a write to flash."""
ADMIN_LIFETIME_S: Final = 30 * pki.DAY_S
RENEW_AT: Final = 2 / 3

_ISSUED: Final[dict[tuple[str, str], audit.Act]] = {
    ("device", "token"): "device.joined",
    ("device", "approved"): "device.approved",
    ("device", "renew"): "certificate.renewed",
    ("admin", "token"): "operator.logged-in",
    ("admin", "renew"): "certificate.renewed",
}
"""What it is called when a certificate is issued, by role and way."""


class Issuer:
    """Signs certificates of devices and operators of one fleet."""

    def __init__(
        self, authorities: Authorities, ends: Ends, timekeeper: Timekeeper, *, clock: Callable[[], float]
    ) -> None:
        self._authorities = authorities
        self._ends = ends
        self._timekeeper = timekeeper
        self._clock = clock

    def issue(
        self, tx: Transaction, *, role: str, subject: str, name: str, spki_der: bytes, via: str, by: str, board: bool,
        author: Author, rights: str = "admin",
    ) -> dict[str, Any]:  # fmt: skip
        """Put a new certificate on the list and return the identity that its owner stores (DER in base64)."""
        now, authorities, client_ca = self._clock(), self._authorities, self._authorities.client
        self._timekeeper.check(tx)
        der = pki.issue_client(
            client_ca, spki_der, fleet_id=authorities.fleet, role="admin" if role == "admin" else "device",
            subject=subject, now=now, lifetime_s=_lifetime_s(role, board=board),
        )  # fmt: skip
        not_after = float(pki.validity(der)[1])
        spki = pki.spki_sha256(der).hex()
        if spki in _keys_of(authorities):
            raise Conflict("key_in_use", "the public key is an authority's", cure="make a new key and ask again")
        record = CertificateRecord(
            role=role, subject=subject, spki=spki, not_after=not_after, state="issued", via=via, by=by,
            at=max(now, math.nextafter(self._ends.last(role, subject), math.inf)), rights=rights,
            told=[short(der) for der in authorities.server_ders], signed_by=short(client_ca.certificate_der),
        )  # fmt: skip
        drop_spent(tx, role, subject, now=now)
        supersede_unused(tx, record)
        add_certificate(tx, pki.fingerprint(der), record)
        audit.note(tx, _ISSUED[role, via], f"{NOUNS[role]}/{name}", author, now=now)
        return {
            "fleet": authorities.fleet,
            "device_id" if role == "device" else "admin": subject,
            "name": name,
            "certificate": base64.b64encode(der).decode(),
            "server_ca": [base64.b64encode(der).decode() for der in authorities.server_ders],
            "now": int(now),
            "renew_after": int(now + (not_after - now) * RENEW_AT),
        }


def _keys_of(authorities: Authorities) -> set[str]:
    ders = (*authorities.server_ders, *authorities.client_ders)
    return {pki.spki_sha256(der).hex() for der in ders}


def _lifetime_s(role: str, *, board: bool) -> float:
    if role == "admin":
        return ADMIN_LIFETIME_S
    return BOARD_LIFETIME_S if board else DEVICE_LIFETIME_S
