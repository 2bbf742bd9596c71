"""Who would like to be taken for the daemon: wrong certificates, and a server that keeps what it is told."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from cryptography.x509.oid import ExtendedKeyUsageOID

from henge_protocol import pki
from henge_protocol.joining import JoinToken
from henge_protocol.tls import device_server_context
from henge_protocol.trust import Trust, server_name, trust_answer
from tests.henge_protocol.authorities import FLEET, Fleet, leaf


class Impostor:
    """Pretends to be the daemon, and keeps every byte that it can read."""

    def __init__(self, trust: bytes, *, status: int = 200, location: str = "") -> None:
        self.heard = b""
        self.requests = 0
        self._trust, self._status, self._location = trust, status, location

    def heard_of(self, token: JoinToken) -> bool:
        """Whether a byte of the token came here that tells anything."""
        return token.secret.encode() in self.heard or token.id.encode() in self.heard

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer whatever is asked with the same."""
        self.requests += 1
        self.heard += request.path_qs.encode() + repr(request.raw_headers).encode() + await request.read()
        headers = {"Location": self._location} if self._location else {}
        return web.Response(status=self._status, body=self._trust, headers=headers)


@asynccontextmanager
async def pretending(impostor: Impostor, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Listen on a free port of loopback, without TLS if there is no context; the port."""
    runner = web.ServerRunner(web.Server(impostor.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def context_of(fleet: Fleet, identity: bytes) -> ssl.SSLContext:
    """TLS as the daemon has it, with another identity."""
    return device_server_context(identity, [fleet.client_ca.certificate_der])


def claim(fleet: Fleet) -> bytes:
    """What everybody may know of the daemon: its answer to ``GET /v1/trust``."""
    return trust_answer(Trust(FLEET, (fleet.server_ca.certificate_der,)))


def odd_leaf(ca: pki.Authority | None, *, name: str = server_name(FLEET), client: bool = False) -> bytes:
    """A server's certificate with its key, as henge would not issue it."""
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    der, key = leaf(ca, uris=(), dns=[name], purposes=[purpose])
    return pki.certificate_pem(der) + key


def expired_leaf(fleet: Fleet) -> bytes:
    """A certificate that the daemon really had once."""
    der, key = pki.issue_server(
        fleet.server_ca, fleet_id=FLEET, dns_names=[], ip_addresses=[], now=time.time() - 500 * 86400, lifetime_s=86400
    )
    return pki.certificate_pem(der) + key


IMPOSTORS: dict[str, Callable[[Fleet], bytes]] = {
    "another authority's certificate": lambda fleet: Fleet().server_identity(),
    "the right authority's name, another key": lambda fleet: odd_leaf(pki.make_ca("server", FLEET, now=time.time())),
    "a leaf that ended": expired_leaf,
    "signed by itself": lambda fleet: odd_leaf(None),
    "a leaf signed by the client authority": lambda fleet: odd_leaf(fleet.client_ca),
    "another name": lambda fleet: odd_leaf(fleet.server_ca, name="hengd.lan"),
    "another fleet's name": lambda fleet: odd_leaf(fleet.server_ca, name=server_name(pki.new_id(b"another fleet..."))),
    "a leaf for clients": lambda fleet: odd_leaf(fleet.server_ca, client=True),
}


def other_authority(fleet: Fleet) -> bytes:
    """The claim of somebody with an authority of his own."""
    return claim(Fleet())


TRUST_ANSWERS: dict[str, tuple[Callable[[Fleet], bytes], str]] = {
    "another authority": (other_authority, "pin_mismatch"),
    "nothing": (lambda fleet: b"", "bad_trust_answer"),
    "a page": (lambda fleet: b"<html>Sign in to the guest network</html>", "bad_trust_answer"),
    "a megabyte": (lambda fleet: b"x" * 2**20, "too_large"),
    "fifty certificates": (lambda fleet: b'{"server_ca":[' + b",".join([b'"MAo="'] * 50) + b"]}", "bad_trust_answer"),
}
"""Answers to ``GET /v1/trust``, and the code with which each is refused."""
