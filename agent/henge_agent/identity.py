"""An identity that a daemon issued: read, checked against the key it should belong to, kept in a slot.

Imports ``cryptography``, so only joining and renewing import this module.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from henge_agent.exchange import Answer
from henge_agent.records import LAST_SECOND
from henge_protocol import pki
from henge_protocol.errors import HengeError, Untrusted
from henge_protocol.model import check_name
from henge_protocol.trust import Trust, check_trust_answer

RENEW_SPREAD = 0.1
"""Renewals of a fleet that joined in one evening are spread by a tenth of the time, either way."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What a daemon issued, after every check that can be made without using it."""

    trust: Trust
    """The authorities that the daemon names over the verified connection."""
    device_id: str
    name: str
    certificate_der: bytes
    now: float
    """The daemon's clock, unix seconds."""
    renew_after_s: float
    """From the daemon's own ``now``, so that this device's clock does not matter."""

    def pem(self, key_pem: bytes) -> bytes:
        """The content of an identity file: private key and certificate."""
        return key_pem + pki.certificate_pem(self.certificate_der)

    def renew_at(self, now: float, random: Callable[[], float]) -> int:
        """When to renew, unix seconds, spread by chance."""
        return int(now + self.renew_after_s * (1 - RENEW_SPREAD + 2 * RENEW_SPREAD * random()))


def read_issued(answer: Answer, key_pem: bytes, fleet_id: str) -> Issued:
    """Read an identity and check that it is ours: the key is this one, the fleet and device are those named.

    Raises ``Untrusted bad_certificate`` for an identity that is not, whatever the daemon meant by it.
    """
    try:
        fields = answer.fields()
        certificate = base64.b64decode(str(fields["certificate"]), validate=True)
        trust = _trust(fields)
        issued = Issued(
            trust=trust,
            device_id=str(fields["device_id"]),
            name=check_name(fields["name"]),
            certificate_der=certificate,
            now=_number(fields["now"]),
            renew_after_s=_renew_after_s(fields, certificate),
        )
        identity = pki.identity_of(certificate)
        matches = pki.key_matches(certificate, key_pem)
    except (HengeError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _not_ours(f"it cannot be read ({error})") from None
    if not matches:
        raise _not_ours("its key is not this device's")
    if (identity.fleet_id, identity.role, identity.subject) != (fleet_id, "device", issued.device_id):
        raise _not_ours("it names another fleet or device")
    if trust.fleet_id != fleet_id:
        raise _not_ours("the answer names another fleet")
    return issued


def _trust(fields: Mapping[str, object]) -> Trust:
    said = {"fleet": fields.get("fleet"), "server_ca": fields.get("server_ca")}
    return check_trust_answer(json.dumps(said).encode(), None)


def _renew_after_s(fields: Mapping[str, object], certificate: bytes) -> float:
    begin, end = pki.validity(certificate)
    asked_s = _number(fields["renew_after"]) - _number(fields["now"])
    return min(max(asked_s, 60.0), max(float(end - begin), 60.0))


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
        raise TypeError("now and renew_after are numbers")
    return float(value)


def _not_ours(why: str) -> Untrusted:
    return Untrusted("bad_certificate", f"the identity that the daemon issued is not usable: {why}")
