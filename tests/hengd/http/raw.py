"""Bytes to a real listener and what comes back, for requests that no HTTP client would send."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One HTTP answer as it came."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def exchange(
    socket: Path | tuple[str, int], sent: bytes, *, count: int = 1, eof: bool = False
) -> list[RawAnswer]:
    """Send bytes and read ``count`` answers, fewer if the daemon ends the connection before."""
    opening = asyncio.open_unix_connection(socket) if isinstance(socket, Path) else asyncio.open_connection(*socket)
    reader, writer = await opening
    try:
        writer.write(sent)
        if eof:
            writer.write_eof()
        answers: list[RawAnswer] = []
        async with asyncio.timeout(10):
            while len(answers) < count and (answer := await read_answer(reader)) is not None:
                if answer.status != 100:
                    answers.append(answer)
        return answers
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> RawAnswer | None:
    """The next answer, None if the daemon ended the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in lines)}
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    return RawAnswer(int(line.split()[1]), fields, body)


def request(method: str, path: str, body: bytes = b"", *fields: str, length: int | None = None) -> bytes:
    """A well-formed request, except for what the fields say."""
    lines = [f"{method} {path} HTTP/1.1", "Host: henge", *fields]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def frame(kind: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame as a client sends it (RFC 6455 section 5.2)."""
    head = bytes([(fin << 7) | (rsv << 4) | kind])
    length = len(payload)
    if length < 126:
        head += bytes([(masked << 7) | length])
    elif length < 65536:
        head += bytes([(masked << 7) | 126]) + struct.pack("!H", length)
    else:
        head += bytes([(masked << 7) | 127]) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    mask = b"\x05\xa0\xff\x10"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
