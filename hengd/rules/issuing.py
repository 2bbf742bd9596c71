"""Certificates as they are issued: signed, put on the list, and the identity that their owner stores."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any, Final

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
        self, server_ca: bytes, client_ca: pki.Authority, fleet: str, ends: Ends, timekeeper: Timekeeper,
        *, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._client_ca = client_ca
        self._fleet = fleet
        self._ends = ends
        self._timekeeper = timekeeper
        self._clock = clock
        self.server_ca = server_ca
        self._own_keys = {pki.spki_sha256(der).hex() for der in (server_ca, client_ca.certificate_der)}

    def issue(
        self, tx: Transaction, *, role: str, subject: str, name: str, spki_der: bytes, via: str, by: str, board: bool,
        author: Author, rights: str = "admin",
    ) -> dict[str, Any]:  # fmt: skip
        """Put a new certificate on the list and return the identity that its owner stores (DER in base64)."""
        now = self._clock()
        self._timekeeper.check(tx)
        der = pki.issue_client(
            self._client_ca, spki_der, fleet_id=self._fleet, role="admin" if role == "admin" else "device",
            subject=subject, now=now, lifetime_s=_lifetime_s(role, board=board),
        )  # fmt: skip
        not_after = float(pki.validity(der)[1])
        spki = pki.spki_sha256(der).hex()
        if spki in self._own_keys:
            raise Conflict("key_in_use", "the public key is an authority's", cure="make a new key and ask again")
        record = CertificateRecord(
            role=role, subject=subject, spki=spki, not_after=not_after, state="issued", via=via, by=by,
            at=max(now, math.nextafter(self._ends.last(role, subject), math.inf)), rights=rights,
        )  # fmt: skip
        drop_spent(tx, role, subject, now=now)
        supersede_unused(tx, record)
        add_certificate(tx, pki.fingerprint(der), record)
        audit.note(tx, _ISSUED[role, via], f"{NOUNS[role]}/{name}", author, now=now)
        return {
            "fleet": self._fleet,
            "device_id" if role == "device" else "admin": subject,
            "name": name,
            "certificate": base64.b64encode(der).decode(),
            "server_ca": [base64.b64encode(self.server_ca).decode()],
            "now": int(now),
            "renew_after": int(now + (not_after - now) * RENEW_AT),
        }


def _lifetime_s(role: str, *, board: bool) -> float:
    if role == "admin":
        return ADMIN_LIFETIME_S
    return BOARD_LIFETIME_S if board else DEVICE_LIFETIME_S
