"""Devices and operators that become known: the real mathematics of joining over real TLS."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, replace
from typing import Any

from henge_protocol import pki
from henge_protocol.joining import code, commitment
from tests.service import Admin, Answer, Identity, Service, enrolment


def csr_of(key: bytes, name: str = "lamp") -> str:
    """A certificate request in base64."""
    return base64.b64encode(pki.make_csr(key, name)).decode()


def certificate_in(answer: dict[str, Any]) -> bytes:
    """The certificate of an identity."""
    return base64.b64decode(answer["certificate"])


def identity_in(answer: dict[str, Any], key: bytes) -> Identity:
    """An identity that can connect."""
    subject = answer.get("device_id") or answer["admin"]
    return Identity(answer["name"], subject, certificate_in(answer), key)


def renewed(identity: Identity, answer: dict[str, Any], key: bytes | None = None) -> Identity:
    """The identity with the certificate of an answer."""
    return replace(identity, certificate=certificate_in(answer), key=key or identity.key)


async def token_of(admin: Admin, **wanted: Any) -> str:
    """A new token's text."""
    return str((await admin.ok("POST", "/v1/tokens", wanted))["token"])


async def spend(service: Service, token: str, key: bytes, name: str, path: str = "/v1/enrol") -> Answer:
    """Use a token from a fresh connection."""
    async with service.remote() as stranger:
        return await stranger.call("POST", path, enrolment(token, key, name))


@dataclass(frozen=True, slots=True)
class Joiner:
    """A device in the middle of discover-and-approve."""

    name: str
    key: bytes
    nonce: bytes
    sid: str
    server_nonce: bytes
    pin: bytes

    @property
    def code(self) -> str:
        """The eight digits that the device shows."""
        spki = pki.key_spki_der(self.key)
        return code(self.sid, self.nonce, self.server_nonce, spki, self.pin)

    def revelation(self, **changed: Any) -> dict[str, Any]:
        """The body of the reveal."""
        return {"sid": self.sid, "nonce": self.nonce.hex(), "csr": csr_of(self.key)} | changed


async def begin(service: Service, stranger: Admin, name: str, **more: Any) -> Joiner:
    """Commit; learn the daemon's nonce."""
    key, nonce = pki.generate_key(), secrets.token_bytes(32)
    commit = commitment(nonce, pki.key_spki_der(key)).hex()
    answer = await stranger.ok("POST", "/v1/enrol/begin", {"commit": commit, "name": name, **more})
    trusted = (await stranger.ok("GET", "/v1/trust"))["server_ca"]
    pin = pki.fingerprint(base64.b64decode(trusted[0]))
    return Joiner(name, key, nonce, answer["sid"], bytes.fromhex(answer["nonce"]), pin)


async def ask(service: Service, stranger: Admin, name: str, **more: Any) -> Joiner:
    """Commit and reveal: the code can be typed now."""
    joiner = await begin(service, stranger, name, **more)
    await stranger.ok("POST", "/v1/enrol/reveal", joiner.revelation())
    return joiner
