"""Who speaks TLS to the device port as nobody should (T01 to T31): the real daemon, raw hellos, odd certificates."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from hengd.authorities import Authorities
from hengd.http.gate import Gate
from hengd.process import note_loop_trouble
from henge_protocol import pki
from henge_protocol.keys import der_element
from henge_protocol.tls import unverified_context
from tests.hengd.http.gatekit import until
from tests.hengd.http.hellos import ALERT, CERTIFICATE, HANDSHAKE, SSL_2, hello, record, records, sized, suite_chosen
from tests.henge_protocol.authorities import ECDSA_SHA1, FLEET, Fleet, der, elements, leaf, resigned, showing
from tests.service import PATIENCE_S, Admin, Clock, Identity, Service, device, schema, verify_store

REQUEST = b"GET /v1/device/config HTTP/1.1\r\nHost: henge\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Port:
    """The device port of a daemon with one device that has joined and used its certificate."""

    service: Service
    admin: Admin
    lamp: Identity
    revision: int

    @property
    def gate(self) -> Gate:
        """Its accept path, for what it counts."""
        return self.service.app.listeners._gates["devices"]

    @property
    def keys(self) -> Authorities:
        """Its authorities, stolen."""
        return self.service.app._folder.authorities

    async def hears(self, said: bytes) -> bytes:
        """What it says to raw bytes before it waits for more or hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.service.port)
        writer.write(said)
        try:
            return await reader.read(65536)
        except ConnectionResetError:
            return b""
        finally:
            writer.transport.abort()

    async def answers(self, context: ssl.SSLContext, request: bytes = REQUEST) -> bytes:
        """What it answers over TLS; nothing, if it does not let this client in."""
        with suppress(ssl.SSLError, ConnectionError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.service.port, ssl=context, server_hostname=self.service.server_name
            )
            try:
                writer.write(request)
                return await reader.read()
            finally:
                writer.transport.abort()
        return b""

    async def unmoved(self) -> bool:
        """Whether everybody was let go, the device is still served, and nothing was stored."""
        await until(lambda: self.gate.sweep() or self.gate.open == 0)  # it also does so once a second
        self.service.clock.advance(1.0)  # this device asks once for each test, which is oftener than it may
        served = await self.answers(self.service.context(self.lamp))
        stored: int = (await self.admin.ok("GET", "/v1/status"))["revision"]
        return served.startswith(b"HTTP/1.1 200 ") and stored == self.revision


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Port]:
    """One port for all who are refused."""
    folder: Path = tmp_path_factory.mktemp("port") / "state"
    asyncio.get_running_loop().set_exception_handler(note_loop_trouble)  # as in the daemon's own process
    service = Service(folder, Clock())
    await service.start()
    try:
        async with service.admin() as admin:
            await admin.apply(schema(), device("lamp-1"))
            lamp = await service.join(admin, "lamp-1")
            port = Port(service, admin, lamp, (await admin.ok("GET", "/v1/status"))["revision"])
            assert (await port.answers(service.context(lamp))).startswith(b"HTTP/1.1 200 ")
            yield port
    finally:
        await service.stop()
        service.clean()
    verify_store(folder)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that peers do is worth a warning: it would be theirs to fill the log."""
    with caplog.at_level(logging.INFO):
        yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


# ---- raw hellos ---------------------------------------------------------------------------------------


def assert_one_failure(port: Port, before: Counter[str], reason: str) -> None:
    """Of a reason that is worth naming; others go by OpenSSL's version."""
    counted = port.gate.handshake_failures - before
    assert counted.total() == 1
    assert reason in ("", *counted)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(SSL_2, "", id="T01 SSL 2"),
        pytest.param(hello("0300", "c02b", "002f"), "", id="T01 SSL 3"),
        pytest.param(hello("0301", "c02b", "c009"), "unsupported_protocol", id="T01 TLS 1.0"),
        pytest.param(hello("0302", "c02b", "c009"), "unsupported_protocol", id="T01 TLS 1.1"),
        pytest.param(hello("0303", "009c", "003d"), "no_shared_cipher", id="T02 RSA key exchange"),
        pytest.param(hello("0303", "c009", "c023", "c024"), "no_shared_cipher", id="T02 CBC"),
        pytest.param(hello("0303", "0001", "c006"), "no_shared_cipher", id="T02 NULL"),
        pytest.param(hello("0303", "0005", "c007"), "no_shared_cipher", id="T02 RC4"),
        pytest.param(hello("0303", "000a", "c008"), "no_shared_cipher", id="T02 3DES"),
        pytest.param(hello("0303", "0003", "0008"), "no_shared_cipher", id="T02 export"),
        pytest.param(hello("0303", "00a6", "c018"), "no_shared_cipher", id="T02 anonymous"),
        pytest.param(hello("0303", "c0ac", "c0ae"), "no_shared_cipher", id="T02 CCM"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: henge\r\n\r\n", "http_request", id="T04 plain HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", "", id="T04 SSH"),
        pytest.param(b"EHLO mail.example\r\n", "", id="T04 SMTP"),
        pytest.param(bytes(range(256)) * 16, "", id="T04 any bytes"),
        pytest.param(record(b"\1\xff\xff\xff" + bytes(60)), "", id="T07 16 MiB announced"),
        pytest.param(record(bytes(0xFFFF)), "", id="T07 record too long"),
        pytest.param(hello("0303", "c02b", name=b"x" * 300), "", id="T16 SNI of 300 bytes"),
        pytest.param(hello("0303", "c02b", name=b"a\0b"), "", id="T16 SNI with NUL"),
    ],
)
@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_a_hello_that_is_none_of_ours_is_closed_at_once_and_counted(port: Port, said: bytes, reason: str) -> None:
    before = port.gate.handshake_failures.copy()
    answer = await port.hears(said)

    assert suite_chosen(answer) == ""
    assert b"HTTP" not in answer
    assert await port.unmoved()
    assert_one_failure(port, before, reason)


@pytest.mark.parametrize(
    ("said", "suite"),
    [
        pytest.param(hello("0303", "c02b"), "c02b", id="T03 AES-128-GCM"),
        pytest.param(hello("0303", "cca9"), "cca9", id="T03 ChaCha20"),
        pytest.param(hello("0303", "1301", versions=["0304"]), "1301", id="T03 1.3 AES-128-GCM"),
        pytest.param(hello("0303", "1302", versions=["0304"]), "1302", id="T03 1.3 AES-256-GCM"),
        pytest.param(hello("0303", "1303", versions=["0304"]), "1303", id="T03 1.3 ChaCha20"),
        pytest.param(hello("0303", "1301", "c02b", versions=["0304", "0303"]), "1301", id="T03 the newer one"),
        pytest.param(hello("0303", "c02b", name=b"a..b;c"), "c02b", id="T16 odd SNI"),
        pytest.param(hello("0303", "c02b", name=b"192.168.1.2"), "c02b", id="T16 an address as SNI"),
        pytest.param(hello("0303", "c02b", name=b"x" * 255), "c02b", id="T16 SNI of 255 bytes"),
        pytest.param(hello("0303", "c02b", name=b"evil.example"), "c02b", id="T16 another name"),
    ],
)
@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_a_good_suite_is_taken_whatever_name_is_asked_for(port: Port, said: bytes, suite: str) -> None:
    assert suite_chosen(await port.hears(said)) == suite
    assert await port.unmoved()


@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_who_resets_in_the_handshake_or_leaves_without_a_goodbye_is_not_worth_a_warning_t31(port: Port) -> None:
    for said in (b"", b"\x16", hello("0303", "c02b")[:40], hello("0303", "c02b")):
        with socket.create_connection(("127.0.0.1", port.service.port)) as peer:
            peer.sendall(said)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
    _, writer = await asyncio.open_connection("127.0.0.1", port.service.port, ssl=unverified_context())
    writer.write(REQUEST[:20])
    writer.transport.abort()

    assert await port.unmoved()


@pytest.mark.needs("openssl")  # Python cannot renegotiate
@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_renegotiation_is_refused_t09(port: Port) -> None:
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port.service.port}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await client.communicate(b"R\n")

    assert b"Cipher is ECDHE-ECDSA" in said
    assert b"no renegotiation" in said
    assert await port.unmoved()


@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_who_speaks_only_http_2_gets_no_protocol_and_no_answer_in_it_t17(port: Port) -> None:
    context = unverified_context()
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port.service.port, ssl=context)
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    answer = await reader.read()
    writer.transport.abort()

    assert chosen is None
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert await port.unmoved()


# ---- certificates that henge would never issue --------------------------------------------------------

Shown = Callable[[Port], bytes]
"""A certificate with its key (PEM), perhaps out of the daemon's own authorities."""
SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
UNLISTED = "403 unknown_certificate"


def pem(made: tuple[bytes, bytes]) -> bytes:
    return pki.certificate_pem(made[0]) + made[1]


def forged(**changes: Any) -> Shown:
    """A leaf of the stolen client authority with freely chosen fields."""
    return lambda port: pem(leaf(port.keys.client, **changes))


def rewritten(place: int, field: bytes, digest: hashes.HashAlgorithm | None = None) -> Shown:
    """A leaf of the stolen client authority with a field that no library writes."""

    def shown(port: Port) -> bytes:
        certificate, key = leaf(port.keys.client)
        changed = resigned(
            certificate, port.keys.client, lambda fields: fields.__setitem__(place, field), digest=digest
        )
        return pem((changed, key))

    return shown


def with_more(count: int, names: int = 0) -> Shown:
    """The device's own certificate, followed by others with so many names each."""

    def shown(port: Port) -> bytes:
        long, _ = leaf(port.keys.client, dns=[f"{number:050}.lan" for number in range(names)])
        return port.lamp.pem + pki.certificate_pem(long) * count

    return shown


def signed_by_the_device(port: Port) -> bytes:
    return pem(leaf(pki.Authority(port.lamp.certificate, port.lamp.key))) + pki.certificate_pem(port.lamp.certificate)


SERIAL, ALGORITHM = 1, 2
"""Places in a certificate."""
CERTIFICATES = [
    pytest.param(lambda _: pem(leaf(None)), "", id="T19 self-signed"),
    pytest.param(lambda _: pem(leaf(Fleet().client_ca)), "unable_to_get_local_issuer_certificate", id="T19 other CA"),
    pytest.param(lambda port: pem(leaf(port.keys.server)), "", id="T19 the server authority"),
    pytest.param(forged(purposes=[SERVER_AUTH]), "unsuitable_certificate_purpose", id="T21 serverAuth"),
    pytest.param(forged(purposes=[ANY_PURPOSE]), "unsuitable_certificate_purpose", id="T21 any purpose"),
    pytest.param(forged(purposes=None), UNLISTED, id="T21 no purpose"),
    pytest.param(forged(purposes=[CLIENT_AUTH, SERVER_AUTH]), UNLISTED, id="T21 both purposes"),
    pytest.param(signed_by_the_device, "invalid_ca_certificate", id="T22 a device as authority"),
    pytest.param(with_more(20), "200 welcome", id="T23 20 more certificates are ignored"),
    pytest.param(with_more(1, names=2000), "excessive_message_size", id="T23 120 KB"),
    pytest.param(forged(key=rsa.generate_private_key(65537, 1024)), "ee_certificate_key_too_weak", id="T24 RSA-1024"),
    pytest.param(forged(key=rsa.generate_private_key(65537, 2048)), UNLISTED, id="T24 RSA-2048"),
    pytest.param(
        rewritten(ALGORITHM, ECDSA_SHA1, hashes.SHA1()), "ca_signature_digest_algorithm_too_weak", id="T24 SHA-1"
    ),
    pytest.param(forged(uris=["https://lamp-1"]), UNLISTED, id="T25 another scheme"),
    pytest.param(forged(uris=[f"henge://{FLEET}/admin/ada"]), UNLISTED, id="T25 another fleet"),
    pytest.param(forged(uris=[f"HENGE://{FLEET}/ADMIN/ADA"]), UNLISTED, id="T25 upper case"),
    pytest.param(forged(uris=[f"henge://{FLEET}/device%2fadmin"]), UNLISTED, id="T25 escaped slash"),
    pytest.param(forged(uris=[f"henge://ada@{FLEET}/admin/ada/"]), UNLISTED, id="T25 userinfo, trailing slash"),
    pytest.param(forged(uris=[f"henge://{FLEET}/admin/ada", "henge://x/y"]), UNLISTED, id="T25 two names"),
    pytest.param(forged(), UNLISTED, id="T26 right in everything and not listed"),
    pytest.param(rewritten(SERIAL, der(0x02, b"\0")), UNLISTED, id="T29 serial 0"),
    pytest.param(rewritten(SERIAL, der(0x02, b"\x85")), UNLISTED, id="T29 negative serial"),
    pytest.param(rewritten(SERIAL, der(0x02, b"\x01" * 21)), UNLISTED, id="T29 serial of 21 octets"),
]


@pytest.mark.parametrize(("shown", "outcome"), CERTIFICATES)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_certificate_that_the_daemon_did_not_issue_opens_nothing(
    port: Port, shown: Shown, outcome: str, version: ssl.TLSVersion
) -> None:
    client = showing(port.service.context(), shown(port))
    client.maximum_version = version
    before = port.gate.handshake_failures.copy()
    answer = await port.answers(client)

    assert await port.unmoved()
    if outcome[:3].isdigit():
        status, said = outcome.split()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert f'"{said}"'.encode() in answer
    else:
        assert answer == b""
        assert_one_failure(port, before, outcome)


async def with_another_certificate(port: Port, own: bytes, shown: bytes) -> bytes:
    """What a client hears that puts another certificate (DER) into its handshake than the one whose key it has."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = showing(port.service.context(), own)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the certificate is not encrypted
    client = context.wrap_bio(incoming, outgoing, server_hostname=port.service.server_name)
    reader, writer = await asyncio.open_connection("127.0.0.1", port.service.port)
    heard = b""
    try:
        while True:
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
            for kind, content in records(outgoing.read()):
                is_certificate = kind == HANDSHAKE and content[0] == CERTIFICATE
                chain = sized(sized(shown, 3), 3)
                writer.write(record(bytes([CERTIFICATE]) + sized(chain, 3) if is_certificate else content, kind))
            heard = await reader.read(65536)
            if not heard or heard[0] == ALERT:
                return heard
            incoming.write(heard)
    finally:
        writer.transport.abort()


def say_extensions_twice(fields: list[bytes]) -> None:
    extensions = elements(der_element(der_element(fields[7])[1])[1])
    fields[7] = der(0xA3, der(0x30, *extensions, extensions[0]))


@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_a_certificate_without_its_key_opens_nothing_t28(port: Port) -> None:
    before = port.gate.handshake_failures.copy()
    heard = await with_another_certificate(port, pem(leaf(port.keys.client)), port.lamp.certificate)

    assert heard in (b"", record(b"\2\x33", ALERT))
    assert await port.unmoved()
    assert_one_failure(port, before, "bad_signature")


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(
            lambda port: resigned(port.lamp.certificate, port.keys.client, say_extensions_twice),
            id="T29 extensions said twice",
        ),
        pytest.param(lambda port: port.lamp.certificate[:-1], id="T29 cut"),
        pytest.param(lambda port: b"", id="T29 empty"),
        pytest.param(lambda port: b"\x30\x80" + bytes(40), id="T29 of indefinite length"),
    ],
)
@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_hardly_a_certificate_ends_the_handshake(port: Port, shown: Shown) -> None:
    before = port.gate.handshake_failures.copy()
    heard = await with_another_certificate(port, port.lamp.pem, shown(port))

    assert heard == b"" or heard[0] == ALERT
    assert await port.unmoved()
    assert_one_failure(port, before, "")


def mutated(flight: bytes, chance: random.Random) -> bytes:
    """What a broken or hostile client makes of a flight."""
    at = chance.randrange(len(flight))
    return chance.choice(
        [
            flight[:at] + bytes([flight[at] ^ 1 << chance.randrange(8)]) + flight[at + 1 :],
            flight[:at],
            flight[:at] + chance.randbytes(3) + flight[at:],
            flight + chance.randbytes(40),
            flight + flight,
            chance.randbytes(60),
            record(b"\2\x28", ALERT),
        ]
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("quiet")
@pytest.mark.asyncio(loop_scope="module")
async def test_whatever_a_client_sends_in_its_handshake_the_next_is_served(port: Port, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        context = port.service.context(port.lamp)
        context.maximum_version = chance.choice([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname=port.service.server_name)
        reader, writer = await asyncio.open_connection("127.0.0.1", port.service.port)
        for is_last in chance.choice([(True,), (False, True)]):
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
            flight = outgoing.read()
            writer.write(mutated(flight, chance) if is_last else flight)
            if not is_last:
                incoming.write(await reader.read(65536))
        writer.write_eof()
        with suppress(ConnectionResetError):
            await reader.read()
        writer.transport.abort()

    assert await port.unmoved()


# ---- sessions -----------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
async def test_nobody_gets_a_ticket_and_so_nobody_early_data_t11(port: Port) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port.service.port, ssl=port.service.context(port.lamp), server_hostname=port.service.server_name
    )
    writer.write(REQUEST)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")  # tickets would have come before
    connection = writer.get_extra_info("ssl_object")
    writer.transport.abort()

    assert connection.version() == "TLSv1.3"
    assert not connection.session.has_ticket


class Returning:
    """A device of TLS 1.2 that asks for its old session whenever it comes back."""

    def __init__(self, service: Service, identity: Identity) -> None:
        self._service = service
        self._context = service.context(identity)
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._session: ssl.SSLSession | None = None

    async def comes(self) -> tuple[bool, str]:
        """Whether the session was the old one, and how the request was answered."""
        return await asyncio.to_thread(self._come)

    def _come(self) -> tuple[bool, str]:
        with (
            socket.create_connection(("127.0.0.1", self._service.port), timeout=PATIENCE_S) as plain,
            self._context.wrap_socket(plain, server_hostname=self._service.server_name, session=self._session) as tls,
        ):
            tls.sendall(REQUEST)
            answer = b""
            while part := tls.recv(65536):
                answer += part
            self._session = tls.session
            code = json.loads(answer.partition(b"\r\n\r\n")[2]).get("code", "")
            return bool(tls.session_reused), f"{answer[9:12].decode()} {code}".strip()


async def test_who_resumes_a_session_is_asked_again_who_it_is_t12_t13_t15(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await admin.apply(schema(), device("lamp-1"), device("lamp-2"))
    lamp, other = [Returning(daemon, await daemon.join(admin, name)) for name in ("lamp-1", "lamp-2")]
    first, again = await lamp.comes(), await lamp.comes()
    await other.comes()
    await admin.ok("POST", "/v1/devices/lamp-2/revoke")
    revoked = await other.comes()
    clock.advance(91 * pki.DAY_S)
    expired = await lamp.comes()
    await daemon.restart()
    restarted = await lamp.comes()

    assert (first, again) == ((False, "200"), (True, "200"))
    assert revoked[1] == "403 certificate_revoked"
    assert expired == (True, "401 certificate_expired")
    assert restarted == (False, "401 certificate_expired")
