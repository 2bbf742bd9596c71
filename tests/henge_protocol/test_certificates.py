from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import pki
from henge_protocol.certificates import (
    Identity,
    certificate_der,
    certificate_pem,
    fingerprint,
    format_fingerprint,
    identity_of,
    is_signed_by,
    key_matches,
    names_of,
    spki_sha256,
    validity,
)
from henge_protocol.errors import HengeError, Invalid
from tests.henge_protocol.authorities import DEVICE, FLEET, Fleet, key_usage, leaf


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


def test_identities_are_read_back(fleet: Fleet) -> None:
    assert identity_of(fleet.client()) == Identity(FLEET, "device", DEVICE)
    assert identity_of(fleet.client(role="admin", subject="ada")) == Identity(FLEET, "admin", "ada")
    assert identity_of(fleet.server()) == Identity(FLEET, "server", "")


URI = f"henge://{FLEET}/device/{DEVICE}"
ODD_URIS = [
    [],
    [URI, URI],
    [URI, f"henge://{FLEET}/admin/root"],
    [URI.replace("henge:", "https:")],
    [URI.upper()],
    [URI.replace(FLEET, FLEET.upper())],
    [URI.replace("/device/", "%2fdevice%2f")],
    [URI.replace("//", "//root@")],
    [URI.replace(FLEET, f"{FLEET}:443")],
    [URI + "/"],
    [URI + "?x"],
    [URI + "\n"],
    [URI[:-1]],
    [URI.replace(FLEET, "u" * 26)],
    [URI.replace("device", "owner")],
    [f"henge://{FLEET}/admin/-x"],
    [f"henge://{FLEET}/admin/"],
    [f"henge://{FLEET}/server/x"],
]


@pytest.mark.parametrize("uris", ODD_URIS)
def test_odd_names_are_nobody(fleet: Fleet, uris: list[str]) -> None:
    assert_refused(leaf(fleet.client_ca, uris=uris)[0])


@pytest.mark.parametrize(
    "odd",
    [
        {"dns": ["also.lan"]},
        {"purposes": None},
        {"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]},
        {"purposes": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
        {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]},
        {"authority": True},
        {"usage": key_usage(digital_signature=True, key_cert_sign=True)},
        {"key": ec.generate_private_key(ec.SECP384R1())},
    ],
)
def test_odd_profiles_are_nobody(fleet: Fleet, odd: dict[str, Any]) -> None:
    assert_refused(leaf(fleet.client_ca, **odd)[0])


def test_the_plain_profile_of_these_tests_is_somebody(fleet: Fleet) -> None:
    assert identity_of(leaf(fleet.client_ca)[0]).subject == DEVICE


def test_authorities_are_nobody(fleet: Fleet) -> None:
    assert_refused(fleet.client_ca.certificate_der)


def assert_refused(der: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        identity_of(der)

    assert refusal.value.code in ("bad_certificate", "key_type")


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(at=st.integers(0, 700), put=st.binary(max_size=3))
def test_mutated_certificates_raise_nothing_but_our_own_errors(at: int, put: bytes) -> None:
    der = MUTATED[:at] + put + MUTATED[at + len(put) :]
    for read in (identity_of, validity, spki_sha256):
        try:
            read(der)
        except HengeError:
            pass


MUTATED = Fleet().client()


def test_fingerprints_are_those_of_openssl(fleet: Fleet) -> None:
    der = fleet.server_ca.certificate_der
    shown = format_fingerprint(fingerprint(der))

    assert fingerprint(der) == x509.load_der_x509_certificate(der).fingerprint(x509.base.hashes.SHA256())
    assert shown.startswith("SHA256 ")
    assert [len(group) for group in shown.split()[1:]] == [4] * 16
    assert bytes.fromhex(shown.removeprefix("SHA256 ")) == fingerprint(der)


def test_a_key_matches_only_its_own_certificate(fleet: Fleet) -> None:
    key = pki.generate_key()
    certificate = fleet.client(spki=pki.key_spki_der(key))

    assert key_matches(certificate, key)
    assert not key_matches(certificate, pki.generate_key())


def test_a_certificate_is_signed_by_its_authority_alone(fleet: Fleet) -> None:
    der, ours = fleet.client(), fleet.client_ca.certificate_der
    bent = der[:-1] + bytes([der[-1] ^ 1])

    assert is_signed_by(der, ours)
    assert not is_signed_by(der, fleet.server_ca.certificate_der)
    assert not is_signed_by(der, Fleet().client_ca.certificate_der)
    assert not is_signed_by(bent, ours)
    with pytest.raises(Invalid):
        is_signed_by(b"garbage", ours)


def test_names_and_addresses_of_a_server_are_read_as_they_were_given(fleet: Fleet) -> None:
    names, addresses = ["Kallisto.lan"], ["192.168.1.5", "fe80::1%eth0"]
    der = fleet.server(dns_names=names, ip_addresses=addresses)

    assert names_of(der) == [pki.server_name(FLEET), "kallisto.lan", "192.168.1.5", "fe80::1"]
    with pytest.raises(Invalid):
        names_of(fleet.server_ca.certificate_der)


def test_pem_and_der_are_two_forms_of_one_certificate(fleet: Fleet) -> None:
    first, second = fleet.server_ca.certificate_der, fleet.client_ca.certificate_der

    both = certificate_pem(first, second)

    assert certificate_der(certificate_pem(first)) == first
    assert [c.public_bytes(serialization.Encoding.DER) for c in x509.load_pem_x509_certificates(both)] == [
        first,
        second,
    ]
    for bad in (
        b"",
        both,
        b"x" + certificate_pem(first),
        certificate_pem(first).replace(b"M", b"=", 1),
    ):
        with pytest.raises(Invalid):
            certificate_der(bad)
