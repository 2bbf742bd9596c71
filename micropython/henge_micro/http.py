"""One TLS connection to one daemon: HTTP/1.1 requests one after the other, bodies read in small pieces.

Two kinds and no third, as in the agent: without authorities it believes anybody and sends nothing but GET; with them
it talks only to the daemon that they vouch for under the fleet's fixed name.
"""

import asyncio
import json

import tls

from henge_micro.wire import MAX_HEADER_BYTES, Trouble
from micropython import const

CONNECT_S = 15
"""Name, TCP and the TLS handshake, which takes a Pico W two seconds."""
ANSWER_S = 20
_PIECE_BYTES = const(512)
_MAX_BODY_BYTES = const(4096)
_MAX_HEAD_BYTES = const(4096)
_BAD_CERTIFICATE = const(-0x7A00)
"""mbedTLS' word for a certificate that is right in everything but what it is for; others are a ``ValueError``."""


class Connection:
    """``open`` it, make requests, ``close`` it. Everything that goes wrong is a ``Trouble``."""

    def __init__(self, address, authorities=None, fleet="", identity=None, limit=None):
        """``limit`` turns a wish for seconds into what may be waited now."""
        self.address = address
        self._name = fleet + ".henge.internal"
        self._context = context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_NONE if authorities is None else tls.CERT_REQUIRED
        try:
            for der in authorities or ():  # one at a time: of several in one piece only the first is used
                context.load_verify_locations(der)
            if identity:
                context.load_cert_chain(*identity)
        except (ValueError, OSError) as error:
            raise Trouble("bad_certificate", str(error))
        self._verified = authorities is not None
        self.limit = limit or float
        self._stream = None
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        self._at = self._end = 0
        self.left = 0
        """Bytes of the body, or of the frame, that are still to be read."""
        self.date = ""
        """The daemon's clock, as the last answer wrote it: see ``clock``."""
        self.retry_after_s = None

    async def open(self):
        """Connect; the handshake follows with the first request."""
        host, _, port = self.address.rpartition(":")
        if not port.isdigit():
            raise Trouble("bad_setting", self.address)
        opening = asyncio.open_connection(host, int(port), ssl=self._context, server_hostname=self._name)
        self._stream, _ = await self.timed(opening, CONNECT_S)  # reader and writer are one here
        return self

    async def request(self, method, path, body=None, wait_s=0, headers=""):
        """Send a request and read the answer's head: its status. The body is to be read before the next request."""
        if body is not None:
            if not self._verified:
                raise LookupError("nothing is sent to a daemon that is not verified")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers += "Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        head = "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (method, path, self.address, headers)
        await self.write(head.encode() + (body or b""))  # in one piece: two would wait for each other
        return await self.timed(self.head(), wait_s + ANSWER_S)

    async def json(self, method, path, body=None, wait_s=0, wanted=(200,)):
        """Send a request and read a JSON object; a refusal is raised with the daemon's own code."""
        status = await self.request(method, path, body, wait_s)
        if status not in wanted:
            raise await self.refusal(status)
        fields = await self._fields()
        fields["status"] = status
        return fields

    async def refusal(self, status):
        """The trouble that a refusing answer stands for."""
        try:
            fields = await self._fields()
        except Trouble:
            fields = {}
        code, text = fields.get("code"), fields.get("detail", "")
        if "rescue" in fields:  # the daemon has lost its store
            code, text = "rescue", fields["rescue"]
        return Trouble(code if isinstance(code, str) else "internal", "%d %s" % (status, text), self.retry_after_s)

    async def piece(self):
        """Some bytes of the body; empty at its end. The view holds until the next piece."""
        return await self.timed(self._piece(), ANSWER_S)

    async def line(self):
        """The body up to the next line feed or its end."""
        return await self.timed(self._line(), ANSWER_S)

    async def drain(self):
        """Read the rest of the body and forget it."""
        while await self.piece():
            pass

    async def write(self, data):
        """Send bytes."""
        await self.timed(self._written(data), CONNECT_S)

    async def exactly(self, size, wait_s=ANSWER_S):
        """So many bytes of the stream itself (WebSocket heads)."""
        return await self.timed(self._exactly(size), wait_s)

    async def close(self):
        """Hang up."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.wait_closed()  # close() alone does nothing here

    async def _written(self, data):
        self._stream.write(data)  # tries at once, and raises what connecting has come to
        await self._stream.drain()

    async def head(self):
        """The head of an answer: its status. To be ``timed``."""
        self.left, self.retry_after_s, size = _MAX_HEAD_BYTES, None, 0
        status = (await self._line()).split(None, 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
            raise Trouble("unreachable", "no HTTP answer")
        while self.left:
            name, _, value = (await self._line()).partition(b":")
            name, value = name.lower().strip(), value.strip()
            if not name:
                self.left = size
                return int(status[1])
            if name == b"content-length" and value.isdigit():
                size = int(value)
            elif name == b"date":
                self.date = value.decode()
            elif name == b"retry-after" and value.isdigit():
                self.retry_after_s = int(value)
            elif name == b"transfer-encoding":
                break
        raise Trouble("unreachable", "an answer that is not a daemon's")

    async def _line(self):
        line = b""
        while self.left:
            piece = bytes(await self._piece())
            end = piece.find(b"\n")
            if end >= 0:
                back = len(piece) - end - 1
                self._at -= back
                self.left += back
                return line + piece[:end]
            line += piece
            if len(line) > MAX_HEADER_BYTES:
                raise Trouble("bad_frame", "header")
        return line

    async def _piece(self):
        if not self.left:
            return b""
        piece = await self._some(self.left)
        self.left -= len(piece)
        return piece

    async def _exactly(self, size):
        data = b""
        while len(data) < size:
            data += bytes(await self._some(size - len(data)))
        return data

    async def _some(self, most):
        while self._at == self._end:
            size = await self._stream.readinto(self._buffer)
            if size is not None:  # else only half of a TLS record has come
                if not size:
                    raise Trouble("unreachable", "the connection broke off")
                self._at, self._end = 0, size
        begin = self._at
        self._at = min(self._end, begin + most)
        return self._buffer[begin : self._at]

    async def _fields(self):
        if self.left > _MAX_BODY_BYTES:
            raise Trouble("too_large", "answer")
        body = b""
        while self.left:
            body += bytes(await self.piece())
        try:
            fields = json.loads(body.decode())
        except (ValueError, MemoryError):  # the second for brackets without end
            fields = None
        if not isinstance(fields, dict):
            raise Trouble("bad_json", "answer")
        return fields

    async def timed(self, work, seconds):
        """Wait for work so long; its errors become ``Trouble``."""
        try:
            return await asyncio.wait_for(work, self.limit(seconds))
        except asyncio.TimeoutError:
            raise Trouble("unreachable", "no answer in time")
        except ValueError as error:  # what the TLS library says of a certificate
            raise Trouble("pin_mismatch", str(error).strip())
        except (OSError, EOFError) as error:
            bad = error.args and error.args[0] == _BAD_CERTIFICATE
            raise Trouble("pin_mismatch" if bad else "unreachable", str(error))
