"""TLS contexts, each made for one place, so that no caller chooses what to verify.

All speak TLS 1.2 (boards know nothing newer) and 1.3, ephemeral keys and authenticated ciphers only, and
HTTP/1.1.  None asks the machine's clock.  The daemon's context asks for a certificate and checks chain, signature and
purpose but not the dates: an expired device must reach the application, which alone decides what it may still do.
A client's refuses a daemon whose certificate ended before a moment that the caller knows to have passed, in the
handshake, so that nothing is said to it.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from henge_protocol.errors import Invalid

X509_V_FLAG_NO_CHECK_TIME = 0x200000
"""OpenSSL 1.1.0 and newer; Python has no name for it."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""For TLS 1.2; all suites of 1.3 qualify.  Level 2 refuses SHA-1 signatures and RSA below 2048 bits."""
ALPN = ("http/1.1",)

Identity = Path | bytes
"""A certificate and its private key in PEM: a private file with both, or their bytes."""


def device_server_context(identity: Identity, client_ca_ders: Sequence[bytes]) -> ssl.SSLContext:
    """Return the context of the daemon's device port.

    A client certificate is optional; one that is given must be signed by one of the client authorities for
    client authentication, whatever its dates.  Neither session tickets nor renegotiation, and whoever
    resumes a TLS 1.2 session is checked by the application like everybody.
    Raises ``Invalid bad_certificate`` when identity or authorities cannot be loaded or do not match.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VerifyFlags(X509_V_FLAG_NO_CHECK_TIME)
    _trust(context, client_ca_ders)
    _load_identity(context, identity)
    return context


class CertificateEnded(ssl.SSLCertVerificationError):
    """Raised in the handshake for a daemon whose certificate has ended, right as it is otherwise; unix seconds."""

    def __init__(self, ended: float, passed: float) -> None:
        super().__init__(1, "certificate has expired")
        self.verify_message = "certificate has expired"
        self.ended = ended
        self.passed = passed


def pinned_client_context(
    server_ca_ders: Sequence[bytes], identity: Identity | None = None, *, passed: float
) -> ssl.SSLContext:
    """Return the context of a device or operator that trusts these server authorities and nobody else.

    ``passed`` is a moment that has passed for certain (unix seconds; 0 = none is known): a daemon whose certificate
    ended before it is refused with ``CertificateEnded``.  Its beginning does not matter.
    Connect with ``server_hostname=trust.server_name(fleet_id)`` whatever address was found; the name is checked.
    Raises ``Invalid bad_certificate`` when identity or authorities cannot be loaded or do not match.
    """
    context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.passed = passed
    context.verify_flags |= ssl.VerifyFlags(X509_V_FLAG_NO_CHECK_TIME)
    _trust(context, server_ca_ders)
    if identity is not None:
        _load_identity(context, identity)
    return context


def unverified_context() -> ssl.SSLContext:
    """Return a context that believes anybody: for ``GET /v1/trust`` and the public steps of joining by code.

    Whoever answers may be an impostor.  NO SECRET MAY CROSS such a connection (no token, no certificate is
    ever loaded into this context), and nothing it brings is trusted before ``trust.check_trust_answer`` or
    a person has compared a fingerprint or code.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _PinnedObject(ssl.SSLObject):
    """The client's end of a connection on an event loop."""

    def do_handshake(self) -> None:
        super().do_handshake()
        _refuse_ended(self)


class _PinnedSocket(ssl.SSLSocket):
    """The client's end of a connection that blocks."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as the standard library calls it
        super().do_handshake(block)
        _refuse_ended(self)


class _PinnedContext(ssl.SSLContext):
    sslobject_class = _PinnedObject
    sslsocket_class = _PinnedSocket
    passed = 0.0


def _refuse_ended(connection: ssl.SSLObject | ssl.SSLSocket) -> None:
    shown, context = connection.getpeercert(), connection.context
    if not shown or not isinstance(context, _PinnedContext):
        raise ssl.SSLCertVerificationError(1, "no verified certificate")
    ended = float(ssl.cert_time_to_seconds(str(shown["notAfter"])))
    if ended < context.passed:
        raise CertificateEnded(ended, context.passed)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    _harden(context)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(list(ALPN))


def _trust(context: ssl.SSLContext, authority_ders: Sequence[bytes]) -> None:
    if not authority_ders:
        raise _unusable("no authority is given")
    for der in authority_ders:  # one at a time: of several in one text a bad one would be skipped in silence
        try:
            context.load_verify_locations(cadata=der)
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(f"an authority's certificate cannot be read ({_reason(error)})") from None


def _load_identity(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        if isinstance(identity, Path):
            context.load_cert_chain(identity, password=_no_password)
            return
        with _as_path(identity) as path:
            context.load_cert_chain(path, password=_no_password)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise _unusable(f"certificate and private key cannot be loaded ({_reason(error)})") from None


@contextmanager
def _as_path(pem: bytes) -> Iterator[str]:
    """The ssl module reads keys from files only: one in memory where there is such a thing, so no disk sees it."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("henge-identity"), "wb", buffering=0) as file:
            file.write(pem)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as file:  # mode 0600
            file.write(pem)
            yield file.name


def _no_password() -> str:
    """Without this OpenSSL would ask on the terminal for the password of an encrypted key, and hang."""
    return ""


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__)


def _unusable(what: str) -> Invalid:
    return Invalid("bad_certificate", f"no TLS is possible: {what}")
