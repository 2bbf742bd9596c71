"""The schema that documents are checked against: fetched when a document names one that is not here, kept on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from henge_protocol.errors import HengeError, Malformed, Unreachable
from henge_protocol.keyfiles import DISK, Files, read_private, write_private
from henge_protocol.model import MAX_SCHEMA_BYTES, digest_of, short_digest
from henge_protocol.strictjson import parse

FILE_NAME: Final = "schema.json"

log = logging.getLogger(__name__)

Source = Callable[[], Awaitable[bytes]]
"""Asks the daemon for the schema of this device."""


class Schemas:
    """Keeps the newest schema in the state folder. ``source`` is set while there is a connection."""

    def __init__(self, folder: Path, *, files: Files = DISK) -> None:
        self._path = folder / FILE_NAME
        self._files = files
        self.source: Source | None = None

    async def get(self, digest: str) -> Mapping[str, Any] | None:
        """The schema for a document that names this one; None for a daemon that names none.

        Raises ``Unreachable unreachable`` when it is not here and cannot be had.
        """
        if not digest:
            return None
        kept = await asyncio.to_thread(self._kept, digest)
        return kept if kept is not None else await self._fetched(digest)

    def newest(self) -> bytes | None:
        """The bytes of the schema that is kept; None when there is none."""
        try:
            return read_private(self._path, limit_bytes=MAX_SCHEMA_BYTES)
        except HengeError:
            return None

    def _kept(self, digest: str) -> Mapping[str, Any] | None:
        data = self.newest()
        try:
            return _schema(data) if data is not None and digest_of(data) == digest else None
        except HengeError:
            return None  # damaged: it is asked for again

    async def _fetched(self, digest: str) -> Mapping[str, Any]:
        """The newest schema of this device: the one that was named, or one that came after it, which fits as well."""
        if self.source is None:
            raise Unreachable("unreachable", f"schema {short_digest(digest)} is not here and there is no connection")
        try:
            data = await self.source()
            schema = _schema(data)
        except HengeError as error:
            raise Unreachable("unreachable", f"schema {short_digest(digest)} cannot be had: {error.message}") from None
        try:
            await asyncio.to_thread(write_private, self._path, data, files=self._files)
        except HengeError as error:
            log.warning("the schema is not kept, and fetched again next time: %s", error)
        return schema


def _schema(data: bytes) -> Mapping[str, Any]:
    value = parse(data)
    if not isinstance(value, dict):
        raise Malformed("bad_json", "the schema is not an object")
    return value
