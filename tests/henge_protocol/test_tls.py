from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from henge_protocol import keyfiles, pki, tls
from henge_protocol.errors import Invalid
from tests.henge_protocol.authorities import FLEET, NOW, YEAR_S, Fleet, leaf, showing

NAME = pki.server_name(FLEET)
Talk = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


async def talk(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str = NAME) -> dict[str, Any]:
    """Connect once and return what the *server's application* saw of the client; raises what the client saw."""
    seen: list[dict[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True)
        seen.append({"certificate": certificate, "version": connection.version(), "cipher": connection.cipher()[0]})
        seen[-1]["alpn"] = connection.selected_alpn_protocol()
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        try:
            if await reader.readline() != b"hello\n":
                raise ConnectionError("the server closed without a word")
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except (OSError, ssl.SSLError):
                pass  # the refusal itself, raised once more
    return seen[0]


def der_of(identity: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(identity.partition(b"-----BEGIN PRIVATE KEY")[0].decode())


def device_port(fleet: Fleet, *, identity: bytes | None = None, cas: list[bytes] | None = None) -> ssl.SSLContext:
    authorities = [fleet.client_ca.certificate_der] if cas is None else cas
    return tls.device_server_context(identity or fleet.server_identity(), authorities)


def device(
    fleet: Fleet, identity: bytes | None = None, *, cas: list[bytes] | None = None, passed: float = NOW
) -> ssl.SSLContext:
    return tls.pinned_client_context([fleet.server_ca.certificate_der] if cas is None else cas, identity, passed=passed)


REFUSED = (ssl.SSLError, ConnectionError)


async def test_a_device_is_known_by_its_certificate(fleet: Fleet) -> None:
    identity = fleet.device_identity()

    seen = await talk(device_port(fleet), device(fleet, identity))

    assert seen["certificate"] == der_of(identity)
    assert (seen["version"], seen["alpn"]) == ("TLSv1.3", "http/1.1")


async def test_without_a_certificate_the_application_decides(fleet: Fleet) -> None:
    assert (await talk(device_port(fleet), device(fleet)))["certificate"] is None


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"])
async def test_a_board_that_knows_only_tls_1_2_works(fleet: Fleet, cipher: str) -> None:
    identity = fleet.device_identity()
    client = device(fleet, identity)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(cipher)

    seen = await talk(device_port(fleet), client)

    assert (seen["version"], seen["cipher"], seen["certificate"]) == ("TLSv1.2", cipher, der_of(identity))


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-CCM"])
async def test_weak_ciphers_are_refused(fleet: Fleet, cipher: str) -> None:
    client = device(fleet)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(cipher)

    with pytest.raises(REFUSED):
        await talk(device_port(fleet), client)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_tls_1_1_is_refused(fleet: Fleet) -> None:
    client = device(fleet)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises(REFUSED):
        await talk(device_port(fleet), client)


@pytest.mark.parametrize("issued_at", [NOW - YEAR_S, NOW + YEAR_S], ids=["expired", "not yet valid"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_out_of_its_time_reaches_the_application(
    fleet: Fleet, issued_at: float, version: ssl.TLSVersion
) -> None:
    identity = fleet.device_identity(now=issued_at)
    client = device(fleet, identity)
    client.maximum_version = version

    assert (await talk(device_port(fleet), client))["certificate"] == der_of(identity)


def foreign_clients(fleet: Fleet) -> dict[str, tuple[bytes, bytes]]:
    foreign_ca = pki.make_ca("client", FLEET, now=NOW)
    device_as_ca = fleet.device_identity()
    fake_ca = pki.Authority(der_of(device_as_ca), device_as_ca[device_as_ca.index(b"-----BEGIN PRIVATE") :])
    return {
        "self-signed": leaf(None),
        "another authority of the same name": leaf(foreign_ca),
        "the server authority": leaf(fleet.server_ca),
        "for servers only": leaf(fleet.client_ca, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
        "signed by a device": leaf(fake_ca),
        "unknown critical extension": leaf(fleet.client_ca, extensions=[(odd_extension(), True)]),
        "RSA-1024": leaf(fleet.client_ca, key=rsa.generate_private_key(65537, 1024)),
    }


def odd_extension() -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


async def test_foreign_certificates_do_not_get_in(fleet: Fleet) -> None:
    server = device_port(fleet)
    for why, (certificate, key) in foreign_clients(fleet).items():
        client = showing(device(fleet), pki.certificate_pem(certificate) + key)
        try:
            await talk(server, client)
        except REFUSED:
            continue
        pytest.fail(f"a certificate got in: {why}")


async def test_two_client_authorities_are_trusted_during_rotation(fleet: Fleet) -> None:
    new = pki.make_ca("client", FLEET, now=NOW)
    server = device_port(fleet, cas=[fleet.client_ca.certificate_der, new.certificate_der])

    for ca in (fleet.client_ca, new):
        identity = fleet.device_identity(ca=ca)
        assert (await talk(server, device(fleet, identity)))["certificate"] == der_of(identity)


async def test_two_server_authorities_are_trusted_during_rotation_and_only_the_new_one_after(fleet: Fleet) -> None:
    new = pki.make_ca("server", FLEET, now=NOW)
    both = device(fleet, cas=[fleet.server_ca.certificate_der, new.certificate_der])
    only_new = device(fleet, cas=[new.certificate_der])
    old_server, new_server = device_port(fleet), device_port(fleet, identity=fleet.server_identity(new))

    for client, server in ((both, old_server), (both, new_server), (only_new, new_server)):
        assert (await talk(server, client))["version"] == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        await talk(old_server, only_new)


@pytest.mark.parametrize("name", ["other.henge.internal", f"x.{NAME}", "127.0.0.2", "henge.internal"])
async def test_another_name_is_refused(fleet: Fleet, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await talk(device_port(fleet), device(fleet), name=name)


@pytest.mark.parametrize("name", [NAME, NAME.upper(), "hengd.lan", "127.0.0.1"])
async def test_the_names_in_the_certificate_are_good(fleet: Fleet, name: str) -> None:
    assert await talk(device_port(fleet), device(fleet), name=name)


async def test_whoever_else_poses_as_the_server_is_refused(fleet: Fleet) -> None:
    server_like: dict[str, Any] = {"uris": [], "dns": [NAME], "purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}
    impostors = {
        "self-signed": leaf(None, **server_like),
        "the client authority": leaf(fleet.client_ca, **server_like),
        "another fleet": leaf(pki.make_ca("server", FLEET, now=NOW), **server_like),
        "a client's purpose": leaf(fleet.server_ca, uris=[], dns=[NAME]),
        "without a name": leaf(fleet.server_ca, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
    }
    for why, (certificate, key) in impostors.items():
        server = device_port(fleet, identity=pki.certificate_pem(certificate) + key)
        try:
            await talk(server, device(fleet))
        except ssl.SSLCertVerificationError:
            continue
        pytest.fail(f"the client believed: {why}")


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        pytest.param(lambda: rsa.generate_private_key(65537, 1024), False, id="T34 RSA-1024"),
        pytest.param(lambda: rsa.generate_private_key(65537, 2048), True, id="T34 RSA-2048"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP384R1()), True, id="T34 P-384"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP256K1()), False, id="T34 secp256k1"),
    ],
)
async def test_of_a_daemon_whose_authority_vouches_any_strong_key_is_taken(
    fleet: Fleet, key: Callable[[], Any], taken: bool
) -> None:
    """Which keys henge issues is the daemon's affair; a device asks who vouches for it."""
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
    certificate, private = leaf(fleet.server_ca, uris=[], dns=[NAME], purposes=purposes, key=key())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    showing(server, pki.certificate_pem(certificate) + private)
    if taken:
        assert (await talk(server, device(fleet)))["certificate"] is None
    else:
        with pytest.raises(REFUSED):
            await talk(server, device(fleet))


async def test_a_device_cannot_pose_as_the_server(fleet: Fleet) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await talk(device_port(fleet, identity=fleet.device_identity()), device(fleet))


def server_of(fleet: Fleet, *, begins: float, ends: float) -> bytes:
    issued, key = leaf(
        fleet.server_ca, uris=[], dns=[NAME], purposes=[ExtendedKeyUsageOID.SERVER_AUTH], valid=(begins, ends)
    )
    return pki.certificate_pem(issued) + key


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_ended_before_a_moment_that_has_passed_hears_nothing(
    fleet: Fleet, version: ssl.TLSVersion
) -> None:
    ended = int(NOW) + 100 * pki.DAY_S  # whatever the machine's clock says
    server = device_port(fleet, identity=server_of(fleet, begins=NOW, ends=ended))
    client = device(fleet, passed=ended + 1.0)
    client.maximum_version = version

    with pytest.raises(tls.CertificateEnded) as refusal:
        await talk(server, client)

    assert (refusal.value.ended, refusal.value.passed) == (ended, ended + 1.0)
    assert refusal.value.verify_message == "certificate has expired"


@pytest.mark.parametrize("years", [-56, -1, 1, 30])
async def test_the_machines_clock_refuses_no_server_k1(fleet: Fleet, years: int) -> None:
    """What a clock wrong by so many years sees: a certificate that is as far away in the other direction."""
    middle = NOW - years * YEAR_S
    server = device_port(fleet, identity=server_of(fleet, begins=middle - pki.DAY_S, ends=middle + pki.DAY_S))

    assert await talk(server, device(fleet, passed=min(NOW, middle)))


async def test_a_blocking_client_refuses_a_server_that_ended_too(fleet: Fleet) -> None:
    server = device_port(fleet, identity=server_of(fleet, begins=NOW, ends=NOW + pki.DAY_S))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    def connect(port: int, passed: float) -> None:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            device(fleet, passed=passed).wrap_socket(plain, server_hostname=NAME).close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server) as listener:
        port = listener.sockets[0].getsockname()[1]
        await asyncio.to_thread(connect, port, NOW)
        with pytest.raises(tls.CertificateEnded):
            await asyncio.to_thread(connect, port, NOW + 2 * pki.DAY_S)


async def test_the_unverified_context_shows_no_certificate_of_ours(fleet: Fleet) -> None:
    seen = await talk(device_port(fleet), tls.unverified_context(), name="anything")

    assert seen["certificate"] is None


async def test_tls_1_3_sessions_are_not_resumed(fleet: Fleet) -> None:
    server = device_port(fleet)

    assert server.num_tickets == 0
    assert server.options & ssl.OP_NO_TICKET
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert server.verify_mode == ssl.CERT_OPTIONAL


async def test_an_identity_file_serves_as_well_as_bytes(fleet: Fleet, tmp_path: Path) -> None:
    identity = fleet.device_identity()
    keyfiles.write_private(tmp_path / "identity.pem", identity)

    client = tls.pinned_client_context([fleet.server_ca.certificate_der], tmp_path / "identity.pem", passed=NOW)

    assert (await talk(device_port(fleet), client))["certificate"] == der_of(identity)


def encrypted_identity(fleet: Fleet) -> bytes:
    certificate, key = fleet.device_identity().split(b"-----BEGIN PRIVATE")
    loaded_key = serialization.load_pem_private_key(b"-----BEGIN PRIVATE" + key, None)
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"password")
    return certificate + loaded_key.private_bytes(serialization.Encoding.PEM, form, encryption)


def test_identities_that_cannot_be_loaded_are_refused(fleet: Fleet, tmp_path: Path) -> None:
    first, second = fleet.device_identity(), fleet.device_identity()
    mixed = first.partition(b"-----BEGIN PRIVATE")[0] + second[second.index(b"-----BEGIN PRIVATE") :]

    for identity in (b"", b"garbage", mixed, first[:-200], encrypted_identity(fleet), tmp_path / "absent.pem"):
        with pytest.raises(Invalid) as refusal:
            tls.pinned_client_context([fleet.server_ca.certificate_der], identity, passed=NOW)
        assert refusal.value.code == "bad_certificate"


def test_without_authorities_there_is_no_context(fleet: Fleet) -> None:
    for authorities in ([], [b""], [b"garbage"], [fleet.server_ca.certificate_der[:-1]]):
        with pytest.raises(Invalid):
            tls.pinned_client_context(authorities, passed=NOW)
        with pytest.raises(Invalid):
            tls.device_server_context(fleet.server_identity(), authorities)
