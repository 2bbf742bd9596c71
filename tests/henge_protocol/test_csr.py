from __future__ import annotations

import base64
import hashlib
import random
import warnings
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from henge_protocol import pki
from henge_protocol.errors import HengeError, Invalid, Malformed, TooLarge

KEY = pki.generate_key()
CSR = pki.make_csr(KEY, "lamp")
SPKI = pki.key_spki_der(KEY)


def pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), base64.encodebytes(der), label.encode())


def request(key: Any = None, *, algorithm: Any = None, **sign: Any) -> bytes:
    """Return a request (DER) of any key and signature."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.sign(key or loaded(KEY), algorithm, **sign)
    return signed.public_bytes(serialization.Encoding.DER)


def loaded(key_pem: bytes) -> Any:
    return serialization.load_pem_private_key(key_pem, None)


def asking(*extensions: tuple[x509.ExtensionType, bool], subject: str | None = None, attribute: bytes = b"") -> bytes:
    """Return a request (DER) that asks for more than a key."""
    with warnings.catch_warnings(action="ignore"):  # of a name that is too long
        names = [x509.NameAttribute(NameOID.COMMON_NAME, subject, _validate=False)] if subject is not None else []
    name = x509.Name(names)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    if attribute:
        builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, attribute)
    return builder.sign(loaded(KEY), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def refusal_of(data: bytes) -> tuple[type[HengeError], str]:
    with pytest.raises(HengeError) as refusal:
        pki.read_csr(data)
    return type(refusal.value), refusal.value.code


def with_spki(spki: bytes) -> bytes:
    """Return a request whose key is replaced (its signature does not matter when the key is refused)."""
    tbs = b"\x02\x01\x00" + b"\x30\x00" + spki + b"\xa0\x00"
    signature = bytes.fromhex("300a06082a8648ce3d0403020309003006020101020101")
    return sequence(sequence(tbs) + signature)


def sequence(content: bytes) -> bytes:
    length = len(content)
    short = length.to_bytes(max(1, (length.bit_length() + 7) // 8), "big")
    return b"\x30" + (short if length < 128 else bytes([0x80 | len(short)]) + short) + content


def p256_spki(point: bytes) -> bytes:
    bits = b"\x03" + bytes([len(point) + 1]) + b"\x00" + point
    return sequence(bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107") + bits)


@pytest.mark.parametrize(
    "data", [CSR, pem(CSR), b"\r\n " + pem(CSR) + b"\n", pem(CSR, "NEW CERTIFICATE REQUEST")], ids=range(4)
)
def test_a_request_gives_its_public_key(data: bytes) -> None:
    csr = pki.read_csr(data)

    assert csr.spki_der == SPKI
    assert csr.spki_sha256 == hashlib.sha256(SPKI).digest()
    assert csr.key.public_numbers() == loaded(KEY).public_key().public_numbers()


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"{}", b"\x30", b"\x30\x00", b"\x30\x80" + CSR[3:] + b"\0\0", CSR + b"\0"]
)
def test_other_bytes_are_no_request(data: bytes) -> None:
    assert refusal_of(data) == (Malformed, "bad_csr")


def test_a_request_cut_anywhere_is_refused() -> None:
    assert {refusal_of(CSR[:at])[1] for at in range(len(CSR))} == {"bad_csr"}


@pytest.mark.parametrize(
    "data",
    [
        b"Subject: lamp\n" + pem(CSR),
        pem(CSR) + pem(CSR),
        pem(CSR) + b"and more",
        pem(CSR, "CERTIFICATE"),
        pem(CSR)[:-10],
        pem(CSR).replace(b"\n", b"\n*", 1),
    ],
)
def test_exactly_one_block_is_taken(data: bytes) -> None:
    assert refusal_of(data) == (Malformed, "one_csr")


def test_a_block_that_is_not_base64_is_refused() -> None:
    assert refusal_of(pem(CSR).replace(b"=", b"A=", 1).replace(b"M", b"=", 1))[1] == "bad_csr"


def private_forms() -> list[bytes]:
    keys = [loaded(KEY), rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()]
    forms = [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
    encodings = [serialization.Encoding.PEM, serialization.Encoding.DER]
    plain = serialization.NoEncryption()
    made = [key.private_bytes(encoding, forms[0], plain) for key in keys for encoding in encodings]
    return made + [key.private_bytes(encoding, forms[1], plain) for key in keys[:2] for encoding in encodings]


def test_a_private_key_is_recognised_and_not_repeated() -> None:
    for data in [*private_forms(), pem(CSR) + KEY]:
        with pytest.raises(Malformed) as refusal:
            pki.read_csr(data)

        assert refusal.value.code == "private_key_received"
        assert KEY.splitlines()[1].decode() not in refusal.value.message


def test_a_certificate_is_no_request() -> None:
    der = pki.make_ca("client", pki.new_id(bytes(16)), now=2e9).certificate_der

    assert refusal_of(der) == (Malformed, "bad_csr")
    assert refusal_of(pem(der, "CERTIFICATE")) == (Malformed, "one_csr")


def test_another_version_of_the_structure_is_refused() -> None:
    assert CSR.count(b"\x02\x01\x00") == 1
    assert refusal_of(CSR.replace(b"\x02\x01\x00", b"\x02\x01\x01")) == (Malformed, "bad_csr")


def test_a_flipped_bit_of_the_signature_is_noticed() -> None:
    for at in range(1, 20):
        flipped = CSR[:-at] + bytes([CSR[-at] ^ 1]) + CSR[len(CSR) - at + 1 :]
        assert refusal_of(flipped) == (Malformed, "bad_signature")


def test_a_request_signed_by_another_key_is_refused() -> None:
    other = pki.key_spki_der(pki.generate_key())

    assert refusal_of(CSR.replace(SPKI, other)) == (Malformed, "bad_signature")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1(), ec.BrainpoolP256R1()])
def test_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    assert refusal_of(request(ec.generate_private_key(curve), algorithm=hashes.SHA256())) == (Invalid, "key_type")


def test_other_kinds_of_keys_are_refused() -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

    assert refusal_of(request(rsa_key, algorithm=hashes.SHA256())) == (Invalid, "key_type")
    assert refusal_of(request(rsa_key, algorithm=hashes.SHA256(), rsa_padding=pss)) == (Invalid, "key_type")
    assert refusal_of(request(ed25519.Ed25519PrivateKey.generate())) == (Invalid, "key_type")


def test_a_huge_rsa_key_is_refused_before_it_is_computed_with() -> None:
    modulus = b"\x02\x82\x08\x01\x00" + b"\xff" * 2048
    bits = sequence(modulus + b"\x02\x03\x01\x00\x01")
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    spki = sequence(algorithm + b"\x03\x82" + (len(bits) + 1).to_bytes(2, "big") + b"\x00" + bits)

    assert refusal_of(with_spki(spki)) == (Invalid, "key_type")


def test_explicit_and_binary_curves_are_refused() -> None:
    explicit = sequence(bytes.fromhex("06072a8648ce3d0201") + sequence(b"\x02\x01\x01"))
    binary = sequence(bytes.fromhex("06072a8648ce3d020106052b8104001a"))

    for algorithm in (explicit, binary):
        assert refusal_of(with_spki(sequence(algorithm + b"\x03\x02\x00\x04")))[0] is Invalid


@pytest.mark.parametrize("digest", [hashes.SHA384(), hashes.SHA512(), hashes.SHA224(), hashes.SHA3_256()])
def test_other_digests_are_refused(digest: Any) -> None:
    assert refusal_of(request(algorithm=digest)) == (Invalid, "key_type")


def test_sha_1_is_refused() -> None:
    sha1 = CSR.replace(bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("300906072a8648ce3d0401"))

    assert refusal_of(b"\x30\x81" + bytes([len(sha1) - 3]) + sha1[3:]) == (Invalid, "key_type")


@pytest.mark.parametrize(
    "point", [b"", b"\x00", b"\x04" + b"\x01" * 64, b"\x04" + b"\xff" * 64, b"\x02" + b"\xff" * 32, b"\x05" * 65]
)
def test_what_is_not_a_point_of_the_curve_is_refused(point: bytes) -> None:
    assert refusal_of(with_spki(p256_spki(point))) == (Malformed, "bad_csr")


def test_a_compressed_point_is_taken_and_spelled_out() -> None:
    key = loaded(KEY)
    compressed = p256_spki(
        key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    )
    tbs = sequence(b"\x02\x01\x00" + b"\x30\x00" + compressed + b"\xa0\x00")
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    bits = b"\x03" + bytes([len(signature) + 1]) + b"\x00" + signature

    csr = pki.read_csr(sequence(tbs + bytes.fromhex("300a06082a8648ce3d040302") + bits))

    assert csr.spki_der == SPKI


def many_names(count: int) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(f"n{n}.lan") for n in range(count)])


@pytest.mark.parametrize(
    "data",
    [
        asking((x509.BasicConstraints(ca=True, path_length=9), True)),
        asking((x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)),
        asking((x509.SubjectAlternativeName([x509.UniformResourceIdentifier("henge://x/admin/root")]), False)),
        asking((many_names(100), False)),
        asking((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\0"), True)),
        asking(subject="a\0b\n\u202e"),
        asking(subject="x" * 65),
        asking(subject=""),
        asking(attribute=b"hunter2"),
    ],
)
def test_whatever_else_it_asks_for_only_the_key_is_taken(data: bytes) -> None:
    assert pki.read_csr(data).spki_der == SPKI


def test_a_request_over_4_kib_is_refused_unread() -> None:
    assert refusal_of(asking((many_names(1000), False))) == (TooLarge, "too_large")
    assert refusal_of(b"x" * pki.MAX_CSR_BYTES)[1] == "bad_csr"
    assert refusal_of(b"x" * (pki.MAX_CSR_BYTES + 1))[1] == "too_large"


@pytest.mark.parametrize("seed", range(4))
def test_mutated_requests_raise_nothing_but_our_own_errors(seed: int) -> None:
    chance = random.Random(seed)
    sources = [CSR, pem(CSR), asking((many_names(3), False), attribute=b"x"), KEY]
    codes = set()
    for _ in range(2000):
        data = bytearray(chance.choice(sources))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice([0, 1, 1, 2])] = chance.randbytes(chance.choice([0, 1, 1, 3]))
        try:
            pki.read_csr(bytes(data))
        except HengeError as error:
            codes.add(error.code)

    assert codes >= {"bad_csr", "bad_signature", "one_csr", "private_key_received", "key_type"}


def test_random_bytes_raise_nothing_but_our_own_errors() -> None:
    chance = random.Random(7)
    for _ in range(2000):
        with pytest.raises(HengeError):
            pki.read_csr(b"\x30" + chance.randbytes(chance.randrange(300)))
