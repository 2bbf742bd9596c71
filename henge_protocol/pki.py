"""Keys, certificate requests and certificates: bytes in, bytes out.

One profile throughout: ECDSA P-256 with SHA-256, X.509 v3, two self-signed authorities and no intermediate.
The *server* authority vouches for the daemon and is the only thing that devices pin; the *client* authority
signs devices and operators and is believed by the daemon alone.  Of a certificate request only the public
key is ever taken.  ``docs/pki.md`` has the table of fields and lifetimes.

With its parts ``keys``, ``csr`` and ``certificates`` the only place in henge that touches ``cryptography`` (45 ms to
import).  It keeps nothing between calls.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from henge_protocol.certificates import (
    Identity,
    bad_certificate,
    certificate_der,
    certificate_pem,
    fingerprint,
    format_fingerprint,
    identity_of,
    is_signed_by,
    key_matches,
    key_usage,
    load_certificate,
    names_of,
    spki_der,
    spki_sha256,
    validity,
)
from henge_protocol.csr import MAX_CSR_BYTES, Csr, make_csr, read_csr
from henge_protocol.errors import Conflict, Invalid
from henge_protocol.joining import ID_BYTES, check_id, encode_base32
from henge_protocol.keys import (
    UNREADABLE,
    generate_key,
    key_spki_der,
    private_key,
    private_key_pem,
    public_key,
    spki_of,
)
from henge_protocol.model import is_name
from henge_protocol.trust import server_name

__all__ = [
    "CA_LIFETIMES_S",
    "DAY_S",
    "MAX_CSR_BYTES",
    "SERVER_LIFETIME_S",
    "Authority",
    "Csr",
    "Identity",
    "certificate_der",
    "certificate_pem",
    "fingerprint",
    "fleet_of_authority",
    "format_fingerprint",
    "generate_key",
    "identity_of",
    "is_signed_by",
    "issue_client",
    "issue_server",
    "key_matches",
    "key_spki_der",
    "make_ca",
    "make_csr",
    "names_of",
    "new_id",
    "read_csr",
    "server_name",
    "spki_der",
    "spki_sha256",
    "validity",
]

ClientRole = Literal["device", "admin"]

DAY_S = 86_400
EARLIEST_CREATION = 1_767_225_600
"""2026-01-01, when henge did not exist yet: every authority begins here, whatever its maker's clock said."""
CA_LIFETIMES_S = {"server": 20 * 365 * DAY_S, "client": 10 * 365 * DAY_S}
SERVER_LIFETIME_S = 2 * 365 * DAY_S
CLIENT_BACKDATED_S = 3600
"""Forgives a peer whose clock is a little behind."""

_AUTHORITY = re.compile(r"henge (server|client) CA ([0-9a-z]{26})")
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Authority:
    """A self-signed certificate (DER) and its private key (PKCS#8 PEM, secret), empty where that is kept elsewhere."""

    certificate_der: bytes
    key_pem: bytes = field(repr=False)


def new_id(random_bytes: bytes) -> str:
    """Return a fleet's or device's id for 16 random bytes: 26 lower-case characters of Crockford's base32."""
    if len(random_bytes) != ID_BYTES:
        raise ValueError(f"an id is made of {ID_BYTES} random bytes, not {len(random_bytes)}")
    return encode_base32(random_bytes)


# ---- issuing


def make_ca(which: Literal["server", "client"], fleet_id: str, *, now: float) -> Authority:
    """Return a new self-signed authority: 20 years from ``now`` for the server's, 10 for the clients'."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name(f"henge {which} CA {check_id(fleet_id, 'fleet')}")
    end = max(now, EARLIEST_CREATION) + CA_LIFETIMES_S[which]
    builder = _builder(name, name, key.public_key(), EARLIEST_CREATION, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(authority=True), critical=True)
    return Authority(_sign(builder, key), private_key_pem(key))


def issue_server(
    ca: Authority,
    *,
    fleet_id: str,
    dns_names: Sequence[str],
    ip_addresses: Sequence[str],
    now: float,
    lifetime_s: float = SERVER_LIFETIME_S,
) -> tuple[bytes, bytes]:
    """Return a new server certificate (DER) and its key (PEM).

    Its notBefore is the authority's own, so that a device with a slow clock still accepts it, and it always
    carries ``server_name(fleet_id)``; the names and addresses given are additional, for browsers and curl.
    Raises ``Invalid bad_setting`` for a name or address that cannot stand in a certificate.
    """
    authority = load_certificate(ca.certificate_der)
    begin = authority.not_valid_before_utc.timestamp()
    end = _end(authority, max(now, begin) + lifetime_s)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(authority.subject, _common_name("hengd"), key.public_key(), begin, end)
    builder = builder.add_extension(_server_names(fleet_id, dns_names, ip_addresses), critical=False)
    return _sign_leaf(builder, authority, ca, ExtendedKeyUsageOID.SERVER_AUTH), private_key_pem(key)


def issue_client(
    ca: Authority,
    spki_der: bytes,
    *,
    fleet_id: str,
    role: ClientRole,
    subject: str,
    now: float,
    lifetime_s: float,
) -> bytes:
    """Return a client certificate (DER) for the public key, valid from an hour ago for ``lifetime_s`` from now.

    ``subject`` is a device's id or an operator's name.  Never lives longer than its authority.
    Raises ``Invalid key_type``, ``Invalid bad_name``, ``Conflict key_in_use`` (the authority's own key).
    """
    uri = _identity_uri(fleet_id, role, subject)
    authority = load_certificate(ca.certificate_der)
    key = public_key(spki_der)
    if spki_of(key) == spki_of(authority.public_key()):
        raise Conflict("key_in_use", "the public key is the authority's own")
    end = _end(authority, now + lifetime_s)
    builder = _builder(authority.subject, _common_name(subject), key, now - CLIENT_BACKDATED_S, end)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = builder.add_extension(names, critical=False)
    return _sign_leaf(builder, authority, ca, ExtendedKeyUsageOID.CLIENT_AUTH)


def fleet_of_authority(which: Literal["server", "client"], authority: Authority) -> str:
    """Return the fleet of an authority as ``make_ca`` makes it, after looking at everything that can be wrong with it.

    Raises ``Invalid bad_certificate`` (damaged, no authority, the other one) or ``Invalid key_type`` (its key).
    """
    certificate = load_certificate(authority.certificate_der)
    try:
        certificate.verify_directly_issued_by(certificate)
        (name,) = certificate.subject
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*UNREADABLE, InvalidSignature, x509.ExtensionNotFound) as error:
        raise bad_certificate(f"it is not signed by itself or is damaged ({type(error).__name__})") from None
    if not authority.certificate_der.endswith(b"\0" + certificate.signature):
        raise bad_certificate("its signature does not fill its bytes")  # verifies, and is not what devices have pinned
    match = _AUTHORITY.fullmatch(str(name.value))
    if match is None or not is_authority:
        raise bad_certificate("it is not that of an authority of henge")
    if match[1] != which:
        raise bad_certificate(f"it is that of the {match[1]} authority, not of the {which} authority")
    if authority.key_pem and not key_matches(authority.certificate_der, authority.key_pem):
        raise Invalid("key_type", "the private key does not belong to the certificate")
    return match[2]


# ---- the parts of issuing


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, begin: float, end: float
) -> x509.CertificateBuilder:
    """Everything that all our certificates share; the serial has 159 random bits."""
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_moment(begin)).not_valid_after(_moment(end))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _sign_leaf(
    builder: x509.CertificateBuilder, authority: x509.Certificate, ca: Authority, purpose: ObjectIdentifier
) -> bytes:
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer)
    builder = builder.add_extension(key_id, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return _sign(builder, private_key(ca.key_pem))


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _server_names(fleet_id: str, dns_names: Iterable[str], addresses: Iterable[str]) -> x509.SubjectAlternativeName:
    check_id(fleet_id, "fleet")
    names = dict.fromkeys([server_name(fleet_id), *(_dns_name(name) for name in dns_names)])
    ips = dict.fromkeys(_ip_address(address) for address in addresses)
    uri = x509.UniformResourceIdentifier(f"henge://{fleet_id}/server")
    return x509.SubjectAlternativeName([*map(x509.DNSName, names), uri, *map(x509.IPAddress, ips)])


def _dns_name(name: str) -> str:
    if not _DNS_NAME.fullmatch(name.lower()):
        raise Invalid("bad_setting", f"{name[:80]!r} is not a DNS name", cure="write it as in 'hengd.lan', in ASCII")
    return name.lower()


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise Invalid("bad_setting", f"{text[:80]!r} is not an IP address") from None


def _identity_uri(fleet_id: str, role: ClientRole, subject: str) -> str:
    check_id(fleet_id, "fleet")
    if role == "device":
        check_id(subject, "device")
    elif not is_name(subject):
        raise Invalid("bad_name", f"{role} {subject[:80]!r} is not an admin's name", cure="use a-z, 0-9 and hyphens")
    return f"henge://{fleet_id}/{role}/{subject}"


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _end(authority: x509.Certificate, wanted: float) -> float:
    return min(wanted, authority.not_valid_after_utc.timestamp())


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(unix_s))
