"""Becoming and staying an operator: log in with a one-time token, renew before the certificate ends.

The token's secret is sent only over a connection that is verified against the authority whose fingerprint the
token carries. Imports cryptography, which takes longer than most commands: import this module where it is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from henge_protocol import pki, tls, trust
from henge_protocol.errors import HengeError, Invalid, Malformed
from henge_protocol.joining import JoinToken
from hengectl import profile
from hengectl.address import Address
from hengectl.client import Client, TlsConnection
from hengectl.profile import Contexts, Profile

WHERE_TOKENS_COME_FROM: Final = "on the daemon's machine run: hengectl token create --admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """The daemon's answer to a login or renewal."""

    fleet: str
    name: str
    certificate: bytes
    server_cas: tuple[bytes, ...]
    """The authorities to verify the daemon by from now on, the one that signs first."""
    renew_after: float


def log_in(
    address: Address,
    token: JoinToken,
    name: str,
    contexts: Contexts,
    *,
    context_name: Callable[[str], str],
    trace: Callable[[str], None] | None = None,
) -> tuple[Contexts, Profile, Identity]:
    """Become an operator, and keep the credential as a context, the current one from now on.

    ``context_name`` is told the daemon's name (empty if it does not say) and chooses the context's. Raises
    ``Invalid`` ``bad_usage`` for a device's token, ``Untrusted`` ``pin_mismatch``, ``Unreachable``, and whatever
    the daemon says to the token; what ``profile.prepare`` raises comes before the token is spent.
    """
    if token.kind != "admin":
        raise Invalid("bad_usage", "this token lets a device join; it does not log in", cure=WHERE_TOKENS_COME_FROM)
    trusted = ask_trust(address, token.fingerprint, trace=trace)
    profile.prepare(contexts)
    key_pem = pki.generate_key()
    body = {"token_id": token.id, "secret": token.secret, "csr": _base64(pki.make_csr(key_pem, name)), "name": name}
    with _pinned(address, trusted, None, trace) as client:
        identity = read_identity(client.post("/v1/login", body).json())
    if not pki.key_matches(identity.certificate, key_pem):
        raise Malformed("bad_certificate", "the certificate in the answer is for another key; nothing was stored")
    if trusted.server_ca_ders[0] not in identity.server_cas:
        raise Malformed("bad_certificate", "the answer names other authorities than the token; nothing was stored")
    chosen = context_name(_daemon_name(address, trusted, _pem(identity, key_pem)))
    folder = profile.credential_dir(contexts, chosen)
    made = Profile(chosen, address, identity.fleet, token.fingerprint.hex(), folder)
    _store(made, identity, key_pem)
    changed = profile.add(contexts, made)
    profile.save(changed)
    return changed, made, identity


def ask_trust(address: Address, fingerprint: bytes, *, trace: Callable[[str], None] | None = None) -> trust.Trust:
    """The fleet at an address and the one authority that has the fingerprint; nothing secret is sent."""
    with Client(
        address.url, lambda timeout_s: _unverified(address, timeout_s), trace=trace,
        max_answer_bytes=trust.MAX_TRUST_BYTES,
    ) as client:  # fmt: skip
        return trust.check_trust_answer(client.get(trust.TRUST_PATH).body, fingerprint)


def renew(chosen: Profile, client: Client) -> None:
    """Get a new certificate for the key we have; the old one stays in place until the new one is on disk."""
    credential = profile.read_credential(chosen)
    key_pem = _key_of(credential.identity.read_bytes())
    identity = read_identity(client.post("/v1/renew", {}).json())
    if not pki.key_matches(identity.certificate, key_pem):
        raise Malformed("bad_certificate", "the renewed certificate is for another key; the old one is kept")
    _store(chosen, identity, key_pem)
    client.close()


def read_identity(answer: object) -> Identity:
    """Read an identity from an answer over a verified connection; what it names is trusted from now on.

    Raises ``Malformed`` ``bad_object`` or ``bad_trust_answer``.
    """
    try:
        fields: Mapping[str, Any] = dict(answer)  # type: ignore[call-overload]
        return Identity(
            str(fields["fleet"]),
            str(fields["name"]),
            base64.b64decode(fields["certificate"], validate=True),
            _server_cas(fields),
            float(fields["renew_after"]),
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise Malformed("bad_object", f"the daemon's answer is no identity ({type(error).__name__})") from None


def _server_cas(fields: Mapping[str, Any]) -> tuple[bytes, ...]:
    said = {"fleet": fields["fleet"], "server_ca": fields["server_ca"]}
    return trust.check_trust_answer(json.dumps(said).encode(), None).server_ca_ders


def _store(chosen: Profile, identity: Identity, key_pem: bytes) -> None:
    profile.write_credential(
        chosen.credential,
        identity_pem=_pem(identity, key_pem),
        server_cas=identity.server_cas,
        renew_after=identity.renew_after,
    )


def _pem(identity: Identity, key_pem: bytes) -> bytes:
    return pki.certificate_pem(identity.certificate) + key_pem


def _daemon_name(address: Address, trusted: trust.Trust, identity_pem: bytes) -> str:
    """How the daemon calls itself; a courtesy, so it may fail."""
    try:
        with _pinned(address, trusted, identity_pem, None) as client:
            return str(client.get("/v1/status").json().get("name", ""))
    except HengeError:
        return ""


def _pinned(
    address: Address, trusted: trust.Trust, identity_pem: bytes | None, trace: Callable[[str], None] | None
) -> Client:
    context = tls.pinned_client_context(trusted.server_ca_ders, identity_pem, passed=time.time())
    name = trust.server_name(trusted.fleet_id)
    return Client(address.url, lambda timeout_s: TlsConnection(address, context, name, timeout_s), trace=trace)


def _unverified(address: Address, timeout_s: float) -> TlsConnection:
    return TlsConnection(address, tls.unverified_context(), address.host, timeout_s)


def _key_of(identity_pem: bytes) -> bytes:
    begin = identity_pem.find(b"-----BEGIN PRIVATE KEY-----")
    if begin < 0:
        raise Invalid("key_type", "the credential holds no private key")
    return identity_pem[begin:]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def fingerprint_of(server_ca: bytes) -> str:
    """``SHA256 7F3A 91C2 ...`` of an authority."""
    return pki.format_fingerprint(hashlib.sha256(server_ca).digest())
