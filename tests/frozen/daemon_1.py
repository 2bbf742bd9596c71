"""A daemon of protocol version 1 that says only what version 1 requires. FROZEN: this file is never updated.

It stands for a daemon that nobody has updated: whatever agents learn, they must go on working with one like it. It uses
nothing of henge, and of docs/protocol.md and docs/pki.md nothing that may be left out.

    daemon_1.py stream|poll

prints ``{"url", "token"}``, reads JSON lines ``{"want": DOCUMENT}`` and ``{"bye": true}``, and says what devices say.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import json
import os
import re
import ssl
import struct
import sys
import tempfile
import zlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
FLEET, DEVICE, SECRET = "0" * 26, "1" * 25 + "0", "s" * 26
BEGIN, END = (datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc) for year in (2025, 2100))  # noqa: UP017
ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def say(**fields):
    print(json.dumps(fields), flush=True)


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def named(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, issuer, public_key, signer, *extensions):
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject)).issuer_name(named(issuer)).public_key(public_key)
        .serial_number(x509.random_serial_number()).not_valid_before(BEGIN).not_valid_after(END)
    )  # fmt: skip
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def usage(**uses):
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: uses.get(name, False) for name in every})


class Authority:
    """One of the two."""

    def __init__(self, role):
        self.name = f"henge {role} CA"
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = certificate(
            self.name, self.name, self.key.public_key(), self.key,
            (x509.BasicConstraints(True, 0), True), (usage(key_cert_sign=True, crl_sign=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
        )  # fmt: skip

    def issue(self, subject, public_key, name, purpose):
        return certificate(
            subject, self.name, public_key, self.key,
            (x509.BasicConstraints(False, None), True), (usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([purpose]), False), (x509.SubjectAlternativeName([name]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        )  # fmt: skip


SERVER, CLIENT = Authority("server"), Authority("client")


def tls():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.DNSName(f"{FLEET}.henge.internal")
    own = SERVER.issue("hengd", key.public_key(), name, ExtendedKeyUsageOID.SERVER_AUTH)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=der(CLIENT.certificate))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    with tempfile.NamedTemporaryFile() as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, *form))
        file.write(own.public_bytes(serialization.Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def token():
    number = int.from_bytes(hashlib.sha256(der(SERVER.certificate)).digest(), "big") << 4
    fingerprint = "".join(BASE32[number >> 5 * place & 31] for place in range(51, -1, -1))
    body = f"henge-join-1.abcdefgh.{SECRET}.{fingerprint}"
    check = zlib.crc32(body.encode()) & 0xFFFFF
    return body + "." + "".join(BASE32[check >> 5 * place & 31] for place in range(3, -1, -1))


def enrol(body):
    asked = json.loads(body)
    assert (asked["token_id"], asked["secret"]) == ("abcdefgh", SECRET)
    csr = x509.load_der_x509_csr(base64.b64decode(asked["csr"]))
    name = x509.UniformResourceIdentifier(f"henge://{FLEET}/device/{DEVICE}")
    issued = CLIENT.issue(DEVICE, csr.public_key(), name, ExtendedKeyUsageOID.CLIENT_AUTH)
    now = int(datetime.datetime.now(tz=datetime.timezone.utc).timestamp())  # noqa: UP017
    return {
        "fleet": FLEET, "device_id": DEVICE, "name": asked["name"], "now": now, "renew_after": now + 86400 * 60,
        "certificate": base64.b64encode(der(issued)).decode(),
        "server_ca": [base64.b64encode(der(SERVER.certificate)).decode()],
    }  # fmt: skip


class Daemon:
    """What is wanted, and who has to be told of it."""

    def __init__(self):
        self.document = b"{}"
        self.changed = asyncio.Condition()
        self.stopping = False

    @property
    def digest(self):
        return hashlib.sha256(self.document).hexdigest()

    def config(self):
        head = {"type": "config", "digest": self.digest, "size": len(self.document)}
        return json.dumps(head).encode() + b"\n" + self.document

    def answer(self, frame):
        """The receipt of a hello or report: what has its default is left out."""
        said = {name: frame[name] for name in ("revision", "digest") if frame.get(name)}
        return json.dumps({"type": "receipt", "state": frame.get("state", "none"), **said}).encode()

    async def handle(self, reader, writer):
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers = {}
                while (header := await reader.readline()) != b"\r\n":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if path == "/v1/device/stream" and sys.argv[1] == "stream":
                    await self.stream(reader, writer, headers)
                    return
                status, text = await self.respond(method, path, body)
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def respond(self, method, path, body):
        path, _, query = path.partition("?")
        if (method, path) == ("GET", "/v1/trust"):
            trust = {"fleet": FLEET, "server_ca": [base64.b64encode(der(SERVER.certificate)).decode()]}
            return 200, json.dumps(trust).encode()
        if (method, path) == ("POST", "/v1/enrol"):
            return 201, json.dumps(enrol(body)).encode()
        if (method, path) == ("GET", "/v1/device/config") and not query:
            return 200, b'{"type":"welcome","protocol":1}'
        if (method, path) == ("GET", "/v1/device/config"):
            have = re.search("have=([0-9a-f]*)", query)[1]
            async with self.changed:
                await self.changed.wait_for(lambda: self.stopping or self.digest != have)
            return (304, b"") if self.stopping else (200, self.config())
        if (method, path) == ("POST", "/v1/device/report"):
            frame = json.loads(body)
            say(heard=frame, by="poll")
            return 200, self.answer(frame)
        return 404, b""

    async def stream(self, reader, writer, headers):
        accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + ACCEPT).encode()).digest()).decode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
        )

        def send(data, opcode=1):
            size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
            writer.write(bytes([0x80 | opcode]) + size + data)

        pushing = None
        try:
            while True:
                head = await reader.readexactly(2)
                size = head[1] & 127
                if size == 126:
                    [size] = struct.unpack(">H", await reader.readexactly(2))
                mask = await reader.readexactly(4)
                data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(await reader.readexactly(size)))
                if head[0] & 15 == 9:
                    send(data, 10)
                elif head[0] & 15 == 8:
                    return
                elif head[0] & 15 == 1:
                    frame = json.loads(data)
                    say(heard=frame, by="stream")
                    if frame["type"] == "hello":
                        send(b'{"type":"welcome","protocol":1}')
                        pushing = asyncio.create_task(self.push(send, frame.get("digest", "")))
                    elif frame["type"] == "report":
                        send(self.answer(frame))
        finally:
            if pushing is not None:
                pushing.cancel()

    async def push(self, send, sent):
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.stopping or self.digest != sent)  # noqa: B023
            if self.stopping:
                send(b'{"type":"bye"}')
                send(struct.pack(">H", 1001), 8)
                return
            sent = self.digest
            send(self.config())


async def main():
    daemon = Daemon()
    server = await asyncio.start_server(daemon.handle, "127.0.0.1", 0, ssl=tls())
    port = server.sockets[0].getsockname()[1]
    say(url=f"https://127.0.0.1:{port}", token=token())
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        async with daemon.changed:
            daemon.document = json.dumps(order["want"]).encode() if "want" in order else daemon.document
            daemon.stopping = "bye" in order
            daemon.changed.notify_all()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
