from __future__ import annotations

import hashlib
import ipaddress
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import pki
from henge_protocol.errors import Conflict, Invalid
from henge_protocol.joining import is_id
from tests.henge_protocol.authorities import DEVICE, FLEET, NOW, SPKI, Fleet, key_usage


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


def load(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def extension(der: bytes, kind: type[Any]) -> x509.Extension[Any]:
    return load(der).extensions.get_extension_for_class(kind)


def common_name(der: bytes) -> str:
    [attribute] = load(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


# ---- the profile


@pytest.mark.parametrize(("which", "years"), [("server", 20), ("client", 10)])
def test_an_authority_has_the_documented_profile(which: Any, years: int) -> None:
    der = pki.make_ca(which, FLEET, now=NOW).certificate_der
    certificate = load(der)

    assert common_name(der) == f"henge {which} CA {FLEET}"
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)
    assert extension(der, x509.BasicConstraints) == x509.Extension(
        ExtensionOID.BASIC_CONSTRAINTS, True, x509.BasicConstraints(ca=True, path_length=0)
    )
    assert extension(der, x509.KeyUsage).critical
    assert extension(der, x509.KeyUsage).value == key_usage(key_cert_sign=True, crl_sign=True)
    assert len(list(certificate.extensions)) == 3, "nothing that mbedTLS could stumble over"
    assert pki.validity(der) == (pki.EARLIEST_CREATION, int(NOW) + years * 365 * pki.DAY_S)


def test_an_authority_made_before_the_clock_was_set_is_not_dated_1970() -> None:
    begin, end = pki.validity(pki.make_ca("server", FLEET, now=0).certificate_der)

    assert (begin, end - begin) == (pki.EARLIEST_CREATION, pki.CA_LIFETIMES_S["server"])


def assert_is_leaf_of(der: bytes, ca: pki.Authority, purpose: x509.ObjectIdentifier) -> None:
    certificate, authority = load(der), load(ca.certificate_der)
    certificate.verify_directly_issued_by(authority)
    assert certificate.version is x509.Version.v3
    assert 0 < certificate.serial_number < 2**159
    assert isinstance(certificate.signature_hash_algorithm, x509.base.hashes.SHA256)
    assert extension(der, x509.BasicConstraints).critical
    assert not extension(der, x509.BasicConstraints).value.ca
    assert extension(der, x509.KeyUsage).critical
    assert extension(der, x509.KeyUsage).value == key_usage(digital_signature=True)
    assert list(extension(der, x509.ExtendedKeyUsage).value) == [purpose]
    own = extension(ca.certificate_der, x509.SubjectKeyIdentifier).value.key_identifier
    assert extension(der, x509.AuthorityKeyIdentifier).value.key_identifier == own
    assert extension(der, x509.SubjectKeyIdentifier)
    assert len(list(certificate.extensions)) == 6


@pytest.mark.parametrize("which", ["server", "client"])
def test_an_authority_tells_its_fleet(fleet: Fleet, which: Any) -> None:
    assert pki.fleet_of_authority(which, fleet.server_ca if which == "server" else fleet.client_ca) == FLEET


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # the library's remark on some of the bent ones
def test_an_authority_with_any_bit_bent_is_refused(fleet: Fleet) -> None:
    der = fleet.server_ca.certificate_der
    for bit in range(8 * len(der)):
        bent = bytearray(der)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Invalid) as refused:
            pki.fleet_of_authority("server", pki.Authority(bytes(bent), fleet.server_ca.key_pem))
        assert refused.value.code in ("bad_certificate", "key_type")


def test_the_other_authority_a_leaf_and_anothers_key_are_no_authority(fleet: Fleet) -> None:
    ca = fleet.server_ca
    for authority, code in (
        (fleet.client_ca, "bad_certificate"),
        (pki.Authority(fleet.server(), ca.key_pem), "bad_certificate"),
        (pki.Authority(ca.certificate_der, pki.generate_key()), "key_type"),
        (pki.Authority(ca.certificate_der, b"no key"), "key_type"),
    ):
        with pytest.raises(Invalid) as refused:
            pki.fleet_of_authority("server", authority)
        assert refused.value.code == code


def test_a_server_certificate_has_the_documented_profile(fleet: Fleet) -> None:
    der = fleet.server()
    names = extension(der, x509.SubjectAlternativeName).value

    assert_is_leaf_of(der, fleet.server_ca, ExtendedKeyUsageOID.SERVER_AUTH)
    assert common_name(der) == "hengd"
    assert names.get_values_for_type(x509.DNSName) == [f"{FLEET}.henge.internal", "hengd.lan"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"henge://{FLEET}/server"]
    assert names.get_values_for_type(x509.IPAddress) == [*map(ipaddress.ip_address, ("192.168.1.2", "fd00::1"))]


def test_a_server_certificate_begins_with_its_authority_and_ends_two_years_from_now(fleet: Fleet) -> None:
    begin, end = pki.validity(fleet.server())

    assert begin == pki.validity(fleet.server_ca.certificate_der)[0]
    assert end == int(NOW) + 2 * 365 * pki.DAY_S


def test_a_server_certificate_is_valid_even_while_the_clock_stands_before_its_authority(fleet: Fleet) -> None:
    begin, end = pki.validity(fleet.server(now=0))

    assert end == begin + 2 * 365 * pki.DAY_S


@pytest.mark.needs("openssl")  # to play a device with a slow clock
def test_a_device_whose_clock_stands_at_the_authoritys_birth_verifies_the_server(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(pki.certificate_pem(fleet.server_ca.certificate_der))
    (tmp_path / "leaf.pem").write_bytes(pki.certificate_pem(fleet.server()))
    birth = pki.validity(fleet.server_ca.certificate_der)[0]
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(tmp_path / "ca.pem")]
    command += ["-verify_hostname", pki.server_name(FLEET)]

    verdicts = [
        subprocess.run(
            [*command, "-attime", str(birth + late_s), str(tmp_path / "leaf.pem")], capture_output=True, check=False
        )
        for late_s in (0, -1)
    ]

    assert [verdict.returncode == 0 for verdict in verdicts] == [True, False]


@pytest.mark.parametrize(("role", "subject"), [("device", DEVICE), ("admin", "ada-1")])
def test_a_client_certificate_has_the_documented_profile(fleet: Fleet, role: Any, subject: str) -> None:
    der = fleet.client(role=role, subject=subject)
    names = extension(der, x509.SubjectAlternativeName).value

    assert_is_leaf_of(der, fleet.client_ca, ExtendedKeyUsageOID.CLIENT_AUTH)
    assert common_name(der) == subject
    assert [name.value for name in names] == [f"henge://{FLEET}/{role}/{subject}"]
    assert pki.validity(der) == (int(NOW) - 3600, int(NOW) + 90 * pki.DAY_S)
    assert pki.spki_der(der) == SPKI


def test_no_leaf_outlives_its_authority(fleet: Fleet) -> None:
    assert pki.validity(fleet.client(lifetime_s=1e9))[1] == pki.validity(fleet.client_ca.certificate_der)[1]
    assert pki.validity(fleet.server(lifetime_s=1e9))[1] == pki.validity(fleet.server_ca.certificate_der)[1]


def test_certificates_fit_a_boards_receive_buffer(fleet: Fleet) -> None:
    leaf_bytes, ca_bytes = len(fleet.client()), len(fleet.client_ca.certificate_der)

    assert leaf_bytes <= 600
    assert ca_bytes <= 500


@pytest.mark.parametrize("name", ["a b", "", "ü.lan", "*.lan", "a..b", "a" * 64 + ".lan", "x\n"])
def test_names_that_cannot_stand_in_a_certificate_are_refused(fleet: Fleet, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        fleet.server(dns_names=[name])

    assert refusal.value.code == "bad_setting"


def test_addresses_that_are_none_are_refused(fleet: Fleet) -> None:
    with pytest.raises(Invalid):
        fleet.server(ip_addresses=["192.168.1"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"subject": "lamp"}, "bad_name"),
        ({"role": "admin", "subject": "Ada/../x"}, "bad_name"),
        ({"role": "admin", "subject": ""}, "bad_name"),
        ({"spki": b""}, "key_type"),
        ({"spki": SPKI[:-1]}, "key_type"),
        ({"spki": SPKI[:-1] + bytes([SPKI[-1] ^ 1])}, "key_type"),
    ],
)
def test_clients_that_henge_does_not_know_get_no_certificate(fleet: Fleet, change: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        fleet.client(**change)

    assert refusal.value.code == code


def test_the_authoritys_own_key_gets_no_certificate(fleet: Fleet) -> None:
    with pytest.raises(Conflict) as refusal:
        fleet.client(spki=pki.key_spki_der(fleet.client_ca.key_pem))

    assert refusal.value.code == "key_in_use"


def test_an_authority_is_shown_without_its_key(fleet: Fleet) -> None:
    assert "PRIVATE" not in repr(fleet.client_ca)


# ---- keys and ids


def test_spki_sha256_is_the_same_for_request_key_and_certificate(fleet: Fleet) -> None:
    key = pki.generate_key()
    csr = pki.read_csr(pki.make_csr(key, "x"))

    assert csr.spki_sha256 == pki.spki_sha256(fleet.client(spki=csr.spki_der))
    assert csr.spki_sha256 == hashlib.sha256(pki.key_spki_der(key)).digest()


@pytest.mark.parametrize("text", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_keys_that_cannot_be_read_are_refused_without_repeating_them(text: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        pki.key_spki_der(text)

    assert "AAAA" not in refusal.value.message


def test_a_key_of_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(Invalid):
        pki.make_csr(key, "x")


@given(st.binary(min_size=16, max_size=16))
def test_ids_are_ids(random_bytes: bytes) -> None:
    assert is_id(pki.new_id(random_bytes))


def test_ids_need_128_random_bits() -> None:
    with pytest.raises(ValueError, match="16 random bytes"):
        pki.new_id(b"short")
