"""What a client believes about a daemon before it has proof: the answer to ``GET /v1/trust``.

The answer arrives over a connection that verifies nothing, so it is a claim.  It becomes trust by a
fingerprint that came another way (a token, a person), and only then is anything secret sent - over a new
connection, verified against the authority found here, under ``server_name``.

Without ``cryptography``: the command line imports it on every start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from henge_protocol.errors import HengeError, Malformed, TooLarge, Untrusted
from henge_protocol.joining import is_id
from henge_protocol.strictjson import JsonLimits, parse

TRUST_PATH = "/v1/trust"
MAX_TRUST_BYTES = 4096
MAX_AUTHORITIES = 2
"""Two while the server authority is being rotated, one otherwise."""

_LIMITS = JsonLimits(max_depth=8, max_nodes=64)


@dataclass(frozen=True, slots=True)
class Trust:
    """A fleet and the server authorities (certificates in DER) that vouch for its daemon."""

    fleet_id: str
    server_ca_ders: tuple[bytes, ...]


def server_name(fleet_id: str) -> str:
    """Return the one DNS name in every server certificate of the fleet, whatever its address is."""
    return f"{fleet_id.lower()}.henge.internal"


def trust_answer(trust: Trust) -> bytes:
    """Return the body of ``GET /v1/trust``."""
    encoded = [base64.b64encode(der).decode("ascii") for der in trust.server_ca_ders]
    return json.dumps({"fleet": trust.fleet_id, "server_ca": encoded}, separators=(",", ":")).encode("ascii")


def split_certificates(ders: bytes) -> tuple[bytes, ...]:
    """Certificates in DER that stand one after the other; what is none stays whole, for the TLS library to refuse."""
    found = []
    while len(ders) > 4 and ders[:2] == b"\x30\x82" and (size := int.from_bytes(ders[2:4], "big") + 4) <= len(ders):
        found.append(ders[:size])
        ders = ders[size:]
    return (*found, ders) if ders else tuple(found)


def check_trust_answer(body: bytes, expected_fingerprint: bytes | None) -> Trust:
    """Read the body of ``GET /v1/trust`` and keep of it what the fingerprint proves.

    With a fingerprint (SHA-256 of a certificate in DER) only the authority that has it is returned, so a
    second one in the same answer is never trusted on the strength of the first.  With ``None`` the claim is
    returned as it stands and the caller must have a person compare it.  Unknown fields are ignored.

    Raises ``TooLarge too_large``, ``Malformed bad_trust_answer``, ``Untrusted pin_mismatch``.
    """
    if len(body) > MAX_TRUST_BYTES:
        raise TooLarge("too_large", f"the trust answer has {len(body)} bytes, at most {MAX_TRUST_BYTES} are taken")
    fields = _object(body)
    trust = Trust(_fleet_id(fields.get("fleet")), _authorities(fields.get("server_ca")))
    return trust if expected_fingerprint is None else _pinned(trust, expected_fingerprint)


def _pinned(trust: Trust, expected_fingerprint: bytes) -> Trust:
    for der in trust.server_ca_ders:
        if hmac.compare_digest(hashlib.sha256(der).digest(), expected_fingerprint):
            return Trust(trust.fleet_id, (der,))
    offered = ", ".join(hashlib.sha256(der).hexdigest()[:16] for der in trust.server_ca_ders)
    raise Untrusted(
        "pin_mismatch",
        f"the server's authority is {offered}, {expected_fingerprint.hex()[:16]} was expected",
        cure="make sure that the token is from this daemon; if it is, somebody may be in between",
    )


def _object(body: bytes) -> dict[str, object]:
    try:
        value = parse(body, limits=_LIMITS)
    except Malformed as error:
        raise _bad_answer(error.message) from None
    if not isinstance(value, dict):
        raise _bad_answer("it is not a JSON object")
    return value


def _fleet_id(value: object) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise _bad_answer("its 'fleet' is not an id")
    return value


def _authorities(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_AUTHORITIES:
        raise _bad_answer(f"its 'server_ca' is not a list of 1 to {MAX_AUTHORITIES} certificates")
    ders = tuple(_certificate(item) for item in value)
    if len(set(ders)) != len(ders):
        raise _bad_answer("its 'server_ca' names one certificate twice")
    return ders


def _certificate(value: object) -> bytes:
    """Check only the outer shape; whether it is a usable certificate the TLS library decides."""
    if not isinstance(value, str):
        raise _bad_answer("a certificate is not a string")
    try:
        der = base64.b64decode(value.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise _bad_answer("a certificate is not base64") from None
    if len(der) < 4 or der[:2] != b"\x30\x82" or int.from_bytes(der[2:4], "big") != len(der) - 4:
        raise _bad_answer("a certificate is not exactly one DER sequence")
    return der


def _bad_answer(what: str) -> HengeError:
    return Malformed("bad_trust_answer", f"the trust answer is not usable: {what}", cure="check the address and port")
