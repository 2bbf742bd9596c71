"""A device of protocol version 1 that knows only what version 1 requires. FROZEN: this file is never updated.

It stands for what is in the field: whatever the daemon learns, a device like this one must go on working. It uses
nothing of henge, and of docs/protocol.md and docs/pki.md nothing that may be left out.

    device_1.py stream|poll https://HOST:PORT TOKEN

joins, and says in JSON lines what it gets: ``joined``, ``welcome``, ``runs``, ``receipt``, ``error``, ``bye``,
``gone``.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
import struct
import sys
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def say(**fields):
    print(json.dumps(fields), flush=True)


def pem(der, label):
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def connect(address, fleet=None, server_ca=None, identity=None):
    """A TLS connection; unverified for what is public."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if server_ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=server_ca)
    if identity is not None:
        context.load_cert_chain(identity)
    name = f"{fleet}.henge.internal" if fleet else None
    return context.wrap_socket(socket.create_connection(address, 20), server_hostname=name)


def request(connection, method, path, body=None):
    """One HTTP request on a connection of its own or one that is kept: (status, body)."""
    client = http.client.HTTPConnection("hengd")
    client.sock = connection
    client.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = client.getresponse()
    return answer.status, answer.read()


def join(address, token):
    """Fleet, server authority and the path of the identity: docs/pki.md, step by step."""
    _, token_id, secret, fingerprint, _ = token.split(".")
    number = 0
    for letter in fingerprint:
        number = number << 5 | BASE32.index(letter)
    wanted = (number >> 4).to_bytes(32, "big")
    with connect(address) as connection:
        _, body = request(connection, "GET", "/v1/trust")
    trust = json.loads(body)
    [server_ca] = [der for der in map(base64.b64decode, trust["server_ca"]) if hashlib.sha256(der).digest() == wanted]
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old-lamp")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    asked = {
        "token_id": token_id, "secret": secret, "name": "old-lamp",
        "csr": base64.b64encode(csr.public_bytes(serialization.Encoding.DER)).decode(),
    }  # fmt: skip
    with connect(address, trust["fleet"], server_ca) as connection:
        status, body = request(connection, "POST", "/v1/enrol", json.dumps(asked).encode())
    assert status == 201, body
    issued = json.loads(body)
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file.write(key.private_bytes(serialization.Encoding.PEM, *form).decode())
        file.write(pem(base64.b64decode(issued["certificate"]), "CERTIFICATE"))
    say(joined=issued["name"])
    return trust["fleet"], server_ca, file.name


class Socket:
    """The client's end of a WebSocket, RFC 6455, as much as is needed."""

    def __init__(self, connection):
        self.connection = connection
        self.file = connection.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /v1/device/stream HTTP/1.1\r\nHost: hengd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in self.file.readline()
        while self.file.readline() != b"\r\n":
            pass

    def send(self, data, opcode=1):
        head = bytes([0x80 | opcode]) + (
            bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        )
        self.connection.sendall(head + bytes(4) + data)

    def receive(self):
        """The next text, or None at the end and the close code."""
        while True:
            head = self.file.read(2)
            if len(head) < 2:
                return None, 1006
            size = head[1]
            if size == 126:
                [size] = struct.unpack(">H", self.file.read(2))
            elif size == 127:
                [size] = struct.unpack(">Q", self.file.read(8))
            data = self.file.read(size)
            opcode = head[0] & 15
            if opcode == 1:
                return data, 0
            if opcode == 8:
                return None, int.from_bytes(data[:2], "big")
            if opcode == 9:
                self.send(data, 10)


def take(frame):
    """The report that a frame is answered with, if it has a document."""
    head, _, document = frame.partition(b"\n")
    message = json.loads(head)
    kind = message["type"]
    if kind == "config":
        assert len(document) == message["size"]
        assert hashlib.sha256(document).hexdigest() == message["digest"]
        say(runs=json.loads(document))
        return {"type": "report", "digest": message["digest"], "state": "applied"}
    if kind in ("welcome", "receipt", "error", "bye"):
        say(**{kind: message})
        return None
    return {"type": "error", "code": "unknown_type"}


def stream(connect_again):
    with connect_again() as connection:
        link = Socket(connection)
        link.send(b'{"type":"hello","protocol":[1,1]}')
        while True:
            frame, code = link.receive()
            if frame is None:
                say(gone=code)
                return
            answer = take(frame)
            if answer is not None:
                link.send(json.dumps(answer).encode())


def poll(connect_again):
    have = ""

    def ask(method, path, body=None):
        with connect_again() as connection:
            return request(connection, method, path, body)

    take(ask("GET", "/v1/device/config")[1])
    take(ask("POST", "/v1/device/report", b'{"type":"hello","protocol":[1,1]}')[1])
    try:
        while True:
            status, body = ask("GET", f"/v1/device/config?have={have}&wait=20")
            if status == 200:
                report = take(body)
                have = report["digest"]
                take(ask("POST", "/v1/device/report", json.dumps(report).encode())[1])
            elif status != 304:
                break
    except OSError:
        pass
    say(gone=0)


if __name__ == "__main__":
    how, url, token = sys.argv[1:]
    host, _, port = url.removeprefix("https://").rpartition(":")
    place = (host, int(port))
    fleet, server_ca, identity = join(place, token)
    {"stream": stream, "poll": poll}[how](lambda: connect(place, fleet, server_ca, identity))
    os.unlink(identity)
