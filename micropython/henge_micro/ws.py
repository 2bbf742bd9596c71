"""A WebSocket (RFC 6455) on a connection: text frames, each read in pieces; pings answered; nothing fragmented."""

import os
from binascii import b2a_base64

from henge_micro.wire import Trouble

SILENCE_S = 45
"""The daemon pings after 25 s; one that is silent for longer is gone."""

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10

MEANINGS = {
    4001: "replaced",
    4002: "unsupported_protocol",
    4003: "hello_timeout",
    4004: "certificate_expired",
    4005: "revoked",
}
_FAULTS = (1002, 1003, 1007, 1008, 1009, 1011, 1013)


class WebSocket:
    """Frames over a connection that was upgraded; ``Trouble`` when it ends, with the code that the daemon gave."""

    def __init__(self, connection):
        self._connection = connection

    async def upgrade(self, path):
        """Ask for the upgrade; a refusal is raised with the daemon's own code.

        The answer's hash of our key is not looked at: TLS has proved who answers, and no proxy sits inside of it.
        """
        key = b2a_base64(os.urandom(16)).strip()
        status = await self._connection.request(
            "GET", path, headers=_UPGRADE + "Sec-WebSocket-Key: %s\r\n" % key.decode()
        )
        if status != 101:
            raise await self._connection.refusal(status)

    async def next(self, wait_s):
        """Wait so long for a text frame: True when its body is to be read from the connection, False after a ping."""
        first, second = await self._connection.exactly(2, wait_s)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await self._connection.exactly(2 if size == 126 else 8), "big")
        opcode = first & 15
        known = opcode == _TEXT or (opcode in (_CLOSE, _PING, _PONG) and size <= 125)
        if not known or not first & 0x80 or second & 0x80:
            await self.close(1002)
            raise Trouble("bad_frame", "WebSocket")
        if opcode == _TEXT:
            self._connection.left = size
            return True
        payload = await self._connection.exactly(size) if size else b""
        if opcode == _PING:
            await self._send(_PONG, payload)
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big")
            trouble = Trouble(MEANINGS.get(code, "closed"))
            trouble.fault = code in _FAULTS
            raise trouble
        return False

    async def send(self, text):
        """Send a text frame."""
        await self._send(_TEXT, text)

    async def close(self, code):
        """Say why the link ends; the connection is closed by its owner."""
        await self._send(_CLOSE, code.to_bytes(2, "big"))

    async def _send(self, opcode, payload):
        size, mask = len(payload), os.urandom(4)
        head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 254, size >> 8, size & 255))
        await self._connection.write(head + mask + bytes([byte ^ mask[at & 3] for at, byte in enumerate(payload)]))


_UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
