"""Keys, certificate requests and certificates: bytes in, bytes out.

One profile throughout: ECDSA P-256 with SHA-256, X.509 v3, two self-signed authorities and no intermediate.
The *server* authority vouches for the daemon and is the only thing that devices pin; the *client* authority
signs devices and operators and is believed by the daemon alone.  Of a certificate request only the public
key is ever taken.  ``docs/pki.md`` has the table of fields and lifetimes.

With its two parts ``keys`` and ``csr`` the only place in henge that touches ``cryptography`` (45 ms to
import).  It keeps nothing between calls.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
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

from henge_protocol.csr import MAX_CSR_BYTES, Csr, make_csr, read_csr
from henge_protocol.errors import Conflict, Invalid
from henge_protocol.joining import ID_BYTES, check_id, encode_base32, is_id
from henge_protocol.keys import (
    UNREADABLE,
    generate_key,
    key_der,
    key_spki_der,
    private_key,
    private_key_pem,
    public_key,
    spki_of,
)
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
    "issue_client",
    "issue_server",
    "key_der",
    "key_matches",
    "key_spki_der",
    "make_ca",
    "make_csr",
    "new_id",
    "read_csr",
    "server_name",
    "spki_der",
    "spki_sha256",
    "validity",
]

ClientRole = Literal["device", "admin"]
Role = Literal["server", "device", "admin"]

DAY_S = 86_400
EARLIEST_CREATION = 1_767_225_600
"""2026-01-01, when henge did not exist yet: every authority begins here, whatever its maker's clock said."""
CA_LIFETIMES_S = {"server": 20 * 365 * DAY_S, "client": 10 * 365 * DAY_S}
SERVER_LIFETIME_S = 2 * 365 * DAY_S
CLIENT_BACKDATED_S = 3600
"""Forgives a peer whose clock is a little behind."""

_CERTIFICATE_PEM = re.compile(rb"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_IDENTITY = re.compile(r"henge://([0-9a-z]{26})/(?:(server)|(device|admin)/([a-z0-9-]{1,63}))")
_AUTHORITY = re.compile(r"henge (server|client) CA ([0-9a-z]{26})")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Authority:
    """A self-signed certificate (DER) and its private key (PKCS#8 PEM, secret)."""

    certificate_der: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate of ours names; ``subject`` is a device's id, an operator's name, or empty."""

    fleet_id: str
    role: Role
    subject: str


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
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
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
    authority = _load_certificate(ca.certificate_der)
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
    authority = _load_certificate(ca.certificate_der)
    key = public_key(spki_der)
    if spki_of(key) == spki_of(authority.public_key()):
        raise Conflict("key_in_use", "the public key is the authority's own")
    end = _end(authority, now + lifetime_s)
    builder = _builder(authority.subject, _common_name(subject), key, now - CLIENT_BACKDATED_S, end)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = builder.add_extension(names, critical=False)
    return _sign_leaf(builder, authority, ca, ExtendedKeyUsageOID.CLIENT_AUTH)


# ---- reading certificates


def fingerprint(der: bytes) -> bytes:
    """Return the SHA-256 of a certificate, 32 bytes, as ``openssl x509 -fingerprint -sha256`` shows it."""
    return hashlib.sha256(der).digest()


def format_fingerprint(fingerprint: bytes) -> str:
    """Return the fingerprint as people compare it: ``SHA256 7F3A 91C2 ...``."""
    text = fingerprint.hex().upper()
    return " ".join(["SHA256", *(text[at : at + 4] for at in range(0, len(text), 4))])


def spki_der(certificate_der: bytes) -> bytes:
    """Return the certificate's public key as SubjectPublicKeyInfo; raises ``Invalid key_type`` if not P-256."""
    return _spki_of_certificate(_load_certificate(certificate_der))


def spki_sha256(certificate_der: bytes) -> bytes:
    """Return the SHA-256 of the certificate's public key, the name under which key reuse is noticed."""
    return hashlib.sha256(spki_der(certificate_der)).digest()


def validity(certificate_der: bytes) -> tuple[int, int]:
    """Return notBefore and notAfter in unix seconds."""
    certificate = _load_certificate(certificate_der)
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def identity_of(certificate_der: bytes) -> Identity:
    """Return whom a certificate of henge's own profile names.

    Says nothing about who signed it, whether it is listed, or its dates: those are checked elsewhere.
    Raises ``Invalid bad_certificate`` on anything that henge would not have issued.
    """
    certificate = _load_certificate(certificate_der)
    try:
        identity = _identity(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        _check_profile(certificate, identity.role)
    except (*UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _bad_certificate(f"an extension is missing or unreadable ({type(error).__name__})") from None
    return identity


def fleet_of_authority(which: Literal["server", "client"], authority: Authority) -> str:
    """Return the fleet of an authority as ``make_ca`` makes it, after looking at everything that can be wrong with it.

    Raises ``Invalid bad_certificate`` (damaged, no authority, the other one) or ``Invalid key_type`` (its key).
    """
    certificate = _load_certificate(authority.certificate_der)
    try:
        certificate.verify_directly_issued_by(certificate)
        (name,) = certificate.subject
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*UNREADABLE, InvalidSignature, x509.ExtensionNotFound) as error:
        raise _bad_certificate(f"it is not signed by itself or is damaged ({type(error).__name__})") from None
    if not authority.certificate_der.endswith(b"\0" + certificate.signature):
        raise _bad_certificate("its signature does not fill its bytes")  # verifies, and is not what devices have pinned
    match = _AUTHORITY.fullmatch(str(name.value))
    if match is None or not is_authority:
        raise _bad_certificate("it is not that of an authority of henge")
    if match[1] != which:
        raise _bad_certificate(f"it is that of the {match[1]} authority, not of the {which} authority")
    if not key_matches(authority.certificate_der, authority.key_pem):
        raise Invalid("key_type", "the private key does not belong to the certificate")
    return match[2]


def key_matches(certificate_der: bytes, key_pem: bytes) -> bool:
    """Tell whether the private key belongs to the certificate; ask before storing or loading the pair."""
    return hmac.compare_digest(spki_der(certificate_der), key_spki_der(key_pem))


def certificate_pem(*ders: bytes) -> bytes:
    """Return the certificates as PEM blocks, one after the other."""
    return b"".join(_pem_block(der) for der in ders)


def certificate_der(pem: bytes) -> bytes:
    """Return the one certificate of a PEM text as DER; raises ``Invalid bad_certificate``."""
    match = _CERTIFICATE_PEM.fullmatch(pem)
    if match is None:
        raise _bad_certificate("the text is not exactly one PEM block 'CERTIFICATE'")
    try:
        return base64.b64decode(b"".join(match[1].split()), validate=True)
    except binascii.Error:
        raise _bad_certificate("the PEM block is not base64") from None


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
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return _sign(builder, private_key(ca.key_pem))


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


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
    elif not _NAME.fullmatch(subject):
        raise Invalid("bad_name", f"{role} {subject[:80]!r} is not an admin's name", cure="use a-z, 0-9 and hyphens")
    return f"henge://{fleet_id}/{role}/{subject}"


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _end(authority: x509.Certificate, wanted: float) -> float:
    return min(wanted, authority.not_valid_after_utc.timestamp())


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(unix_s))


# ---- the parts of reading


def _identity(names: x509.SubjectAlternativeName) -> Identity:
    uris = [name for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    match = _IDENTITY.fullmatch(uris[0].value) if len(uris) == 1 else None
    if match is None:
        raise _bad_certificate(f"{len(uris)} URI names, exactly one of the form henge://FLEET/ROLE/SUBJECT is right")
    fleet_id, server, client, subject = match.groups()
    if not is_id(fleet_id):
        raise _bad_certificate("the fleet in its name is not an id")
    if server:
        return Identity(fleet_id, "server", "")
    if len(list(names)) != 1 or not _is_subject(client, subject):
        raise _bad_certificate(f"its names are not those of one {client}")
    return Identity(fleet_id, "device" if client == "device" else "admin", subject)


def _is_subject(role: str, subject: str) -> bool:
    return is_id(subject) if role == "device" else _NAME.fullmatch(subject) is not None


def _check_profile(certificate: x509.Certificate, role: Role) -> None:
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if role == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    extensions = certificate.extensions
    if list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) != [purpose]:
        raise _bad_certificate(f"its purpose is not that of a {role}")
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise _bad_certificate("it is an authority, not a leaf")
    if extensions.get_extension_for_class(x509.KeyUsage).value != _key_usage(authority=False):
        raise _bad_certificate("its key usage is not digitalSignature alone")
    _spki_of_certificate(certificate)


def _spki_of_certificate(certificate: x509.Certificate) -> bytes:
    try:
        return spki_of(certificate.public_key())
    except UNREADABLE:
        raise _bad_certificate("its public key cannot be read") from None


def _load_certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE:
        raise _bad_certificate("it is not an X.509 structure in DER") from None


def _pem_block(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


def _bad_certificate(what: str) -> Invalid:
    return Invalid("bad_certificate", f"the certificate is not of henge's form: {what}")
