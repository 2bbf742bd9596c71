"""The first request head of a connection, read strictly before anything else sees it.  Pure.

The HTTP library has a parser of its own; this one only decides what is refused outright and where a
connection goes.  What it lets through is well-formed enough that both parsers read the same.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
STREAM_PATH: Final = "/v1/device/stream"

MAX_LINE_BYTES: Final = 8190
"""Request line or one field; what the HTTP library takes too."""
MAX_FIELDS: Final = 64

_END = b"\r\n\r\n"
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered with a problem document (RFC 9457) and a closed connection."""

    status: int
    code: str
    detail: str
    fields: tuple[str, ...] = ()
    """Header lines that belong to the answer, such as ``Allow: GET``."""
    cure: str = ""
    rescue: str = ""
    """The daemon's epoch, if the device may hand in what it runs: see ``rules/rescue.py``."""

    def body(self) -> bytes:
        """The problem document."""
        problem: dict[str, object] = {
            "type": f"urn:henge:error:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        problem |= {name: said for name, said in (("cure", self.cure), ("rescue", self.rescue)) if said}
        return json.dumps(problem, separators=(",", ":")).encode()

    def response(self) -> bytes:
        """The whole HTTP/1.1 response."""
        body = self.body()
        lines = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Content-Type: application/problem+json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *self.fields,
        )
        return "\r\n".join(lines).encode() + _END + body


@dataclass(frozen=True, slots=True)
class Head:
    """A request line and its fields; names are lower-case, values stripped."""

    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    size: int
    """Bytes up to and with the empty line."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def is_stream(self) -> bool:
        """True for the device link's resource."""
        return self.method == "GET" and self.path == STREAM_PATH

    def all(self, name: str) -> list[str]:
        """Every value of the field ``name`` (lower-case)."""
        return [value for field, value in self.fields if field == name]


def read_head(received: bytes | bytearray, *, max_bytes: int) -> Head | Refusal | None:
    """The head at the start of ``received``; a Refusal as soon as it cannot become one; None if more must come.

    Sources: RFC 9112 sections 2.2 (line ends), 3 (request line), 3.2 (Host and target forms), 5 (fields).
    """
    end = received.find(_END, 0, max_bytes)
    if end < 0:
        return _refuse_early(received, max_bytes)
    lines = bytes(received[:end]).split(b"\r\n")
    line = _read_line(lines[0])
    if isinstance(line, Refusal):
        return line
    fields = _read_fields(lines[1:])
    if isinstance(fields, Refusal):
        return fields
    head = Head(*line, fields, end + len(_END))
    return _refuse_host(head) or head


def refuse_upgrade(head: Head) -> Refusal | None:
    """Why a request for the device link is no proper WebSocket opening (RFC 6455 section 4.2.1); None if it is."""
    asks = _names(head, "upgrade", "websocket") and _names(head, "connection", "upgrade")
    if head.version != "HTTP/1.1" or not asks:
        return _upgrade_required("this resource is a WebSocket; ask with Upgrade: websocket and Connection: Upgrade")
    if head.all("sec-websocket-version") != ["13"]:
        return _upgrade_required("only version 13 of the WebSocket protocol is spoken here")
    if head.all("transfer-encoding") or set("".join(head.all("content-length"))) - {"0"}:
        return _malformed("an upgrade request has no body")
    if head.all("origin"):
        return Refusal(403, "foreign_origin", "web pages may not open a device link; devices send no Origin")
    if not _is_key(head.all("sec-websocket-key")):
        return _malformed("exactly one Sec-WebSocket-Key of 16 bytes in base64 is expected")
    return None


def opening_of(head: Head) -> bytes:
    """The same WebSocket opening in the plainest words, for a library that is picky about lists in fields."""
    return (
        f"GET {head.target} HTTP/1.1\r\nHost: {head.all('host')[0]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {head.all('sec-websocket-key')[0]}\r\n\r\n"
    ).encode()


def _refuse_early(received: bytes | bytearray, max_bytes: int) -> Refusal | None:
    if len(received) >= max_bytes:
        return _too_large(f"the request head exceeds {max_bytes} bytes")
    if received and not _TOKEN.match(received, 0, 1):
        return _malformed("this is not HTTP; a TLS client belongs to the TLS port")
    if received.count(b"\n") != received.count(b"\r\n"):
        return _malformed("lines end with CR LF")
    line, ended, _ = received.partition(b"\r\n")
    if len(line) > MAX_LINE_BYTES:
        return _too_large(f"the request line exceeds {MAX_LINE_BYTES} bytes")
    if not ended:
        return None
    read = _read_line(bytes(line))
    return read if isinstance(read, Refusal) else None


def _read_line(line: bytes) -> tuple[str, str, str] | Refusal:
    if len(line) > MAX_LINE_BYTES:
        return _too_large(f"the request line exceeds {MAX_LINE_BYTES} bytes")
    parts = line.split(b" ")
    if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return _malformed("the request line must read METHOD TARGET HTTP/1.1")
    method, target, version = parts
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        return _malformed("the request line has characters that do not belong there")
    if method.decode() not in METHODS:
        return Refusal(405, "method_not_allowed", "no resource takes this method", (f"Allow: {', '.join(METHODS)}",))
    if not target.startswith(b"/"):
        return _refuse_target(target)
    return method.decode(), target.decode(), version.decode()


def _refuse_target(target: bytes) -> Refusal:
    if b"://" in target:
        return Refusal(421, "wrong_host", "the target must be a path; this daemon is no proxy")
    return _malformed("the target must be a path that begins with /")


def _read_fields(lines: list[bytes]) -> tuple[tuple[str, str], ...] | Refusal:
    if len(lines) > MAX_FIELDS:
        return Refusal(431, "too_large", f"the request head has more than {MAX_FIELDS} fields")
    fields = []
    for line in lines:
        if len(line) > MAX_LINE_BYTES:
            return _too_large(f"a field exceeds {MAX_LINE_BYTES} bytes")
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            return _malformed("a field must read Name: value, on one line, without control characters")
        fields.append((name.decode().lower(), value.strip(b" \t").decode("latin-1")))
    return tuple(fields)


def _refuse_host(head: Head) -> Refusal | None:
    if len(head.all("host")) == 1:
        return None
    return _malformed("exactly one Host field is expected")


def _names(head: Head, field: str, token: str) -> bool:
    return token in [part.strip().lower() for value in head.all(field) for part in value.split(",")]


def _is_key(keys: list[str]) -> bool:
    try:
        return len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _malformed(detail: str) -> Refusal:
    return Refusal(400, "bad_request", detail)


def _too_large(detail: str) -> Refusal:
    return Refusal(431, "too_large", detail)


def _upgrade_required(detail: str) -> Refusal:
    return Refusal(426, "upgrade_required", detail, ("Upgrade: websocket", "Sec-WebSocket-Version: 13"))
