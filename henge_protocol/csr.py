"""Certificate requests (PKCS#10): writing one, and taking nothing but the public key out of a foreign one.

``pki`` passes its names on to those who need more than a request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from henge_protocol.errors import Malformed, TooLarge
from henge_protocol.keys import P256_ALGORITHM, UNREADABLE, der_element, foreign_key, private_key, spki_of

MAX_CSR_BYTES = 4096

_CSR_PEM = re.compile(
    rb"\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END (NEW )?CERTIFICATE REQUEST-----\s*"
)


@dataclass(frozen=True, slots=True)
class Csr:
    """What is taken from a certificate request: a P-256 public key whose owner has signed the request."""

    spki_der: bytes
    """SubjectPublicKeyInfo with the uncompressed point, 91 bytes, however the request spelled it."""
    spki_sha256: bytes
    key: ec.EllipticCurvePublicKey


def make_csr(key_pem: bytes, common_name: str) -> bytes:
    """Return a PKCS#10 request (DER) signed by the key; the name is a courtesy, the daemon ignores it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    return request.sign(private_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read_csr(der_or_pem: bytes) -> Csr:
    """Read one certificate request, PEM or DER, and take its public key; everything else in it is ignored.

    Raises ``TooLarge too_large`` (over 4 KiB), ``Malformed one_csr``, ``Malformed private_key_received``,
    ``Malformed bad_csr``, ``Invalid key_type`` (anything but P-256 with SHA-256, told before any
    arithmetic on the foreign key), ``Malformed bad_signature``.
    """
    if len(der_or_pem) > MAX_CSR_BYTES:
        raise TooLarge("too_large", f"the request has {len(der_or_pem)} bytes, at most {MAX_CSR_BYTES} are taken")
    der = _csr_der(der_or_pem)
    _check_key_type(der)
    request = _load_csr(der)
    try:
        key = request.public_key()
        signed = request.is_signature_valid
    except UNREADABLE:
        raise _bad_csr("its public key is not a point of P-256") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise foreign_key("another key")
    if not signed:
        raise Malformed("bad_signature", "the request is not signed by the key that it carries")
    spki = spki_of(key)
    return Csr(spki, hashlib.sha256(spki).digest(), key)


def _csr_der(data: bytes) -> bytes:
    if b"PRIVATE KEY-----" in data or _looks_like_private_key(data):
        raise Malformed(
            "private_key_received",
            "a private key was sent where a certificate request is expected",
            cure="make a new key, send only its request, and treat the key sent as known to others",
        )
    if b"-----BEGIN" not in data:
        return data
    match = _CSR_PEM.fullmatch(data)
    if match is None:
        raise Malformed("one_csr", "the text is not exactly one PEM block 'CERTIFICATE REQUEST'")
    try:
        return base64.b64decode(b"".join(match[2].split()), validate=True)
    except binascii.Error:
        raise _bad_csr("its PEM block is not base64") from None


def _looks_like_private_key(data: bytes) -> bool:
    """PKCS#8, SEC1 and PKCS#1 keys begin with a version number inside of the sequence; a request never does."""
    try:
        tag, content, _ = der_element(data)
        inner, version, rest = der_element(content)
        following = der_element(rest)[0]
    except IndexError:
        return False
    return tag == 0x30 and inner == 0x02 and version in (b"\x00", b"\x01") and following in (0x02, 0x04, 0x30)


def _check_key_type(der: bytes) -> None:
    """Look at the key's algorithm by name only: foreign keys may be slow or unsafe even to load."""
    try:
        info = der_element(der_element(der)[1])[1]
        fields = []
        for _ in ("version", "subject", "key"):
            tag, content, info = der_element(info)
            fields.append((tag, content))
    except IndexError:
        raise _bad_csr("it is not a PKCS#10 structure in DER") from None
    if [tag for tag, _ in fields] != [0x02, 0x30, 0x30]:
        raise _bad_csr("its fields are not those of PKCS#10")
    if not fields[2][1].startswith(P256_ALGORITHM):
        raise foreign_key("a key of another type")


def _load_csr(der: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_der_x509_csr(der)
        signature = request.signature_algorithm_oid
    except UNREADABLE:
        raise _bad_csr("it is not a PKCS#10 version 1 structure in DER") from None
    if signature != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise foreign_key(f"a signature of type {signature.dotted_string}")
    return request


def _bad_csr(what: str) -> Malformed:
    return Malformed("bad_csr", f"the certificate request cannot be used: {what}")
