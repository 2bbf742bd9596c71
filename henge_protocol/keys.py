"""P-256 keys: making them, writing them down, and refusing every other kind.

Used by ``csr`` and ``pki``, which are the modules that others import.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from henge_protocol.errors import Invalid

P256_ALGORITHM = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
"""The algorithm of a SubjectPublicKeyInfo with a named P-256 curve (RFC 5480), the only one accepted."""
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What cryptography raises on bytes that it cannot or will not read."""


def generate_key() -> bytes:
    """Return a new P-256 private key as PKCS#8 PEM, not encrypted: write it with ``keyfiles.write_private``."""
    return private_key_pem(ec.generate_private_key(ec.SECP256R1()))


def key_spki_der(key_pem: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo (DER, uncompressed point) of a private key."""
    return spki_of(private_key(key_pem).public_key())


def public_key(spki_der: bytes) -> ec.EllipticCurvePublicKey:
    """Load a SubjectPublicKeyInfo; raises ``Invalid key_type`` on everything but a point of P-256."""
    if not _der_starts_as_p256(spki_der):
        raise foreign_key("a key of another type")
    try:
        key = serialization.load_der_public_key(spki_der)
    except UNREADABLE:
        raise foreign_key("a point that is not on P-256") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise foreign_key("another key")
    return key


def private_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Load a PKCS#8 (or SEC1) PEM; raises ``Invalid key_type`` without repeating any of it."""
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except UNREADABLE:
        raise Invalid("key_type", "the private key is not an unencrypted PKCS#8 PEM of a P-256 key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise foreign_key("a private key of another type")
    return key


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as PKCS#8 PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def spki_of(key: object) -> bytes:
    """Return the SubjectPublicKeyInfo with the uncompressed point; raises ``Invalid key_type`` on another key."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise foreign_key("a public key of another type")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def der_element(data: bytes) -> tuple[int, bytes, bytes]:
    """Return tag, content and what follows; ``IndexError`` when the data is shorter than it says."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    if at + length > len(data):
        raise IndexError("the element is cut")
    return tag, data[at : at + length], data[at + length :]


def foreign_key(what: str) -> Invalid:
    """Return the refusal of a key or signature that is not ours to handle."""
    return Invalid("key_type", f"{what} was given; henge takes ECDSA P-256 keys with SHA-256 only")


def _der_starts_as_p256(spki_der: bytes) -> bool:
    try:
        return der_element(spki_der)[1].startswith(P256_ALGORITHM)
    except IndexError:
        return False
