"""Certificates as they are read: whom they name, when they end, and whether they are of henge's own form.

Says nothing about trust: who signed a certificate and whether it is listed are asked elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from henge_protocol.errors import Invalid
from henge_protocol.joining import is_id
from henge_protocol.keys import UNREADABLE, key_spki_der, spki_of
from henge_protocol.model import is_name

Role = Literal["server", "device", "admin"]

_CERTIFICATE_PEM = re.compile(rb"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_IDENTITY = re.compile(r"henge://([0-9a-z]{26})/(?:(server)|(device|admin)/([a-z0-9-]{1,63}))")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate of ours names; ``subject`` is a device's id, an operator's name, or empty."""

    fleet_id: str
    role: Role
    subject: str


def fingerprint(der: bytes) -> bytes:
    """Return the SHA-256 of a certificate, 32 bytes, as ``openssl x509 -fingerprint -sha256`` shows it."""
    return hashlib.sha256(der).digest()


def format_fingerprint(fingerprint: bytes) -> str:
    """Return the fingerprint as people compare it: ``SHA256 7F3A 91C2 ...``."""
    text = fingerprint.hex().upper()
    return " ".join(["SHA256", *(text[at : at + 4] for at in range(0, len(text), 4))])


def spki_der(certificate_der: bytes) -> bytes:
    """Return the certificate's public key as SubjectPublicKeyInfo; raises ``Invalid key_type`` if not P-256."""
    return _spki_of_certificate(load_certificate(certificate_der))


def spki_sha256(certificate_der: bytes) -> bytes:
    """Return the SHA-256 of the certificate's public key, the name under which key reuse is noticed."""
    return hashlib.sha256(spki_der(certificate_der)).digest()


def validity(certificate_der: bytes) -> tuple[int, int]:
    """Return notBefore and notAfter in unix seconds."""
    certificate = load_certificate(certificate_der)
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def identity_of(certificate_der: bytes) -> Identity:
    """Return whom a certificate of henge's own profile names.

    Says nothing about who signed it, whether it is listed, or its dates: those are checked elsewhere.
    Raises ``Invalid bad_certificate`` on anything that henge would not have issued.
    """
    certificate = load_certificate(certificate_der)
    try:
        identity = _identity(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        _check_profile(certificate, identity.role)
    except (*UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise bad_certificate(f"an extension is missing or unreadable ({type(error).__name__})") from None
    return identity


def key_matches(certificate_der: bytes, key_pem: bytes) -> bool:
    """Tell whether the private key belongs to the certificate; ask before storing or loading the pair."""
    return hmac.compare_digest(spki_der(certificate_der), key_spki_der(key_pem))


def is_signed_by(der: bytes, authority_der: bytes) -> bool:
    """Tell whether an authority issued this certificate; raises ``Invalid bad_certificate`` if one cannot be read."""
    try:
        load_certificate(der).verify_directly_issued_by(load_certificate(authority_der))
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def names_of(der: bytes) -> list[str]:
    """Return the DNS names and addresses that a certificate is for, as texts."""
    try:
        names = load_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    except (*UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise bad_certificate(f"its names cannot be read ({type(error).__name__})") from None


def certificate_pem(*ders: bytes) -> bytes:
    """Return the certificates as PEM blocks, one after the other."""
    return b"".join(_pem_block(der) for der in ders)


def certificate_der(pem: bytes) -> bytes:
    """Return the one certificate of a PEM text as DER; raises ``Invalid bad_certificate``."""
    match = _CERTIFICATE_PEM.fullmatch(pem)
    if match is None:
        raise bad_certificate("the text is not exactly one PEM block 'CERTIFICATE'")
    try:
        return base64.b64decode(b"".join(match[1].split()), validate=True)
    except binascii.Error:
        raise bad_certificate("the PEM block is not base64") from None


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return what the key of an authority, or of anybody else, is for."""
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


def _identity(names: x509.SubjectAlternativeName) -> Identity:
    uris = [name for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    match = _IDENTITY.fullmatch(uris[0].value) if len(uris) == 1 else None
    if match is None:
        raise bad_certificate(f"{len(uris)} URI names, exactly one of the form henge://FLEET/ROLE/SUBJECT is right")
    fleet_id, server, client, subject = match.groups()
    if not is_id(fleet_id):
        raise bad_certificate("the fleet in its name is not an id")
    if server:
        return Identity(fleet_id, "server", "")
    if len(list(names)) != 1 or not _is_subject(client, subject):
        raise bad_certificate(f"its names are not those of one {client}")
    return Identity(fleet_id, "device" if client == "device" else "admin", subject)


def _is_subject(role: str, subject: str) -> bool:
    return is_id(subject) if role == "device" else is_name(subject)


def _check_profile(certificate: x509.Certificate, role: Role) -> None:
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if role == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    extensions = certificate.extensions
    if list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) != [purpose]:
        raise bad_certificate(f"its purpose is not that of a {role}")
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise bad_certificate("it is an authority, not a leaf")
    if extensions.get_extension_for_class(x509.KeyUsage).value != key_usage(authority=False):
        raise bad_certificate("its key usage is not digitalSignature alone")
    _spki_of_certificate(certificate)


def _spki_of_certificate(certificate: x509.Certificate) -> bytes:
    try:
        return spki_of(certificate.public_key())
    except UNREADABLE:
        raise bad_certificate("its public key cannot be read") from None


def load_certificate(der: bytes) -> x509.Certificate:
    """Return the certificate; raises ``Invalid bad_certificate``."""
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE:
        raise bad_certificate("it is not an X.509 structure in DER") from None


def _pem_block(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


def bad_certificate(what: str) -> Invalid:
    """Return the error for a certificate that is not of henge's own form."""
    return Invalid("bad_certificate", f"the certificate is not of henge's form: {what}")
