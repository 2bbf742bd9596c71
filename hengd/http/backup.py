"""Backups over the API: sealed on this side, streamed as they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from aiohttp import web

from hengd.backup import Backups
from hengd.http import shapes
from hengd.http.edge import REQUEST_ID, Auth, Route, author_of
from hengd.http.parse import Query, json_object, text_field
from hengd.http.problems import stamp
from henge_protocol.sealedfile import MAX_PASSPHRASE_BYTES, check_passphrase

STUCK_S: Final = 60.0
"""A reader that takes nothing for so long is cut, so that it holds neither the copy nor the next backup."""
LEAST_BYTES_S: Final = 64 * 1024
"""And one that takes less than this on the average, after ``STUCK_S``."""
_PIECE_BYTES: Final = 256 * 1024


class BackupRoutes:
    """Make one and give it away."""

    def __init__(self, backups: Backups, *, monotonic: Callable[[], float]) -> None:
        self._backups = backups
        self._monotonic = monotonic

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route(
            "POST", "/v1/backup", Auth.ADMIN, self.backup, takes=shapes.BackupBody, gives={200: shapes.BACKUP}
        )  # fmt: skip

    async def backup(self, request: web.Request) -> web.StreamResponse:
        """A backup sealed with the caller's passphrase; what is cut is refused, and the keys come last."""
        Query(request)
        body = await json_object(request, shapes.fields_of(shapes.BackupBody))
        passphrase = check_passphrase(text_field(body, "passphrase", default=None, max_chars=MAX_PASSPHRASE_BYTES))
        async with self._backups.made(passphrase, author_of(request)) as backup:
            response = web.StreamResponse(headers={"Content-Type": shapes.BACKUP.type})
            stamp(response, request[REQUEST_ID])
            await response.prepare(request)
            begun, taken = self._monotonic(), 0
            while piece := await asyncio.to_thread(_next_piece, backup.pieces):
                await _write(request, response, piece)
                taken += len(piece)
                if taken < LEAST_BYTES_S * (self._monotonic() - begun - STUCK_S):
                    raise _cut(request)
        await response.write_eof()  # only now: whoever has all of it may ask for the next
        return response


def _next_piece(pieces: Iterator[bytes]) -> bytes:
    """A quarter of a megabyte at once: a thread is not worth less."""
    taken = bytearray()
    while len(taken) < _PIECE_BYTES and (piece := next(pieces, None)) is not None:
        taken += piece
    return bytes(taken)


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    try:
        async with asyncio.timeout(STUCK_S):
            await response.write(piece)
    except TimeoutError:
        raise _cut(request) from None


def _cut(request: web.Request) -> ConnectionResetError:
    if request.transport is not None:
        request.transport.abort()
    return ConnectionResetError("the reader of a backup takes too little")
