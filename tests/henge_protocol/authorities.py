"""Certificates for tests: a fleet with its two authorities, and leaves that henge would never issue."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from henge_protocol import pki, tls
from henge_protocol.keys import der_element

FLEET = pki.new_id(b"fleet of the tst")
DEVICE = pki.new_id(b"a lamp in attic.")
NOW = time.time()
YEAR_S = 365 * pki.DAY_S
SPKI = pki.key_spki_der(pki.generate_key())
"""Of some key that nobody needs."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Both authorities, made a year and a half ago, and what they issue."""

    server_ca: pki.Authority = field(default_factory=lambda: pki.make_ca("server", FLEET, now=NOW - 1.5 * YEAR_S))
    client_ca: pki.Authority = field(default_factory=lambda: pki.make_ca("client", FLEET, now=NOW - 1.5 * YEAR_S))

    def client(self, **changes: Any) -> bytes:
        """A device's certificate (DER), or another as ``changes`` say."""
        what: dict[str, Any] = {"role": "device", "subject": DEVICE, "now": NOW, "lifetime_s": 90 * pki.DAY_S}
        return pki.issue_client(self.client_ca, changes.pop("spki", SPKI), fleet_id=FLEET, **(what | changes))

    def server(self, **changes: Any) -> bytes:
        """A daemon's certificate (DER), or another as ``changes`` say."""
        what: dict[str, Any] = {"dns_names": ["Hengd.LAN"], "ip_addresses": ["192.168.1.2", "fd00::1"], "now": NOW}
        return pki.issue_server(self.server_ca, fleet_id=FLEET, **(what | changes))[0]

    def server_identity(self, ca: pki.Authority | None = None) -> bytes:
        issued, key = pki.issue_server(
            ca or self.server_ca, fleet_id=FLEET, dns_names=["hengd.lan"], ip_addresses=["127.0.0.1"], now=NOW
        )
        return pki.certificate_pem(issued) + key

    def device_identity(self, *, now: float = NOW, ca: pki.Authority | None = None) -> bytes:
        key = pki.generate_key()
        issued = pki.issue_client(
            ca or self.client_ca,
            pki.key_spki_der(key),
            fleet_id=FLEET,
            role="device",
            subject=DEVICE,
            now=now,
            lifetime_s=90 * pki.DAY_S,
        )
        return pki.certificate_pem(issued) + key


def leaf(
    ca: pki.Authority | None,
    *,
    uris: Sequence[str] = (f"henge://{FLEET}/device/{DEVICE}",),
    dns: Sequence[str] = (),
    purposes: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    authority: bool = False,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    usage: x509.KeyUsage | None = None,
    key: Any = None,
    valid: tuple[float, float] = (NOW - 3600, NOW + 9 * pki.DAY_S),
) -> tuple[bytes, bytes]:
    """Return certificate (DER) and key (PEM) with freely chosen fields, signed by ``ca`` or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = serialization.load_pem_private_key(ca.key_pem, None) if ca else key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    issuer = x509.load_der_x509_certificate(ca.certificate_der).subject if ca else name
    begins, ends = (datetime.fromtimestamp(int(moment), UTC) for moment in valid)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begins).not_valid_after(ends)
    names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    builder = builder.add_extension(usage or key_usage(digital_signature=True), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER), pem_of(key)


ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA_SHA1 = bytes.fromhex("300906072a8648ce3d0401")


def resigned(
    certificate: bytes,
    ca: pki.Authority,
    change: Callable[[list[bytes]], None],
    *,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    """Return a certificate whose fields (DER, from the version on) are changed, signed anew: what no library makes."""
    fields = elements(der_element(der_element(certificate)[1])[1])
    change(fields)
    signed = der(0x30, *fields)
    key = serialization.load_pem_private_key(ca.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(signed, ec.ECDSA(digest or hashes.SHA256()))
    return der(0x30, signed, fields[2], der(0x03, b"\0" + signature))


def der(tag: int, *contents: bytes) -> bytes:
    """Return one element of DER."""
    content = b"".join(contents)
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8 or 1, "big")
    return bytes([tag]) + (length if len(content) < 128 else bytes([0x80 | len(length)]) + length) + content


def elements(content: bytes) -> list[bytes]:
    """Return the elements that stand one after the other, each whole."""
    found = []
    while content:
        rest = der_element(content)[2]
        found.append(content[: len(content) - len(rest)])
        content = rest
    return found


def showing(context: ssl.SSLContext, identity: bytes) -> ssl.SSLContext:
    """Return the context, showing these certificates from now on, however weak or wrong they are."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with tls._as_path(identity) as path:
        context.load_cert_chain(path)
    return context


def key_usage(**chosen: bool) -> x509.KeyUsage:
    """Return a key usage with only the chosen bits."""
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(bits | chosen))


def pem_of(key: Any) -> bytes:
    """Return any private key as PKCS#8 PEM."""
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem
