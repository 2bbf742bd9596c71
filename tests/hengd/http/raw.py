"""Bytes to a real listener and what comes back, for requests that no HTTP client would send."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
