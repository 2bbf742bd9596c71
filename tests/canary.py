"""Whatever a test seals as a secret stands in no line of the log, no answer and no page of the store, in any test.

Listens where everything passes: at the seal, at the loggers, at the answers of the daemon's HTTP, at closing stores.
What programs in processes of their own say is looked through by ``tests/system/test_secrets.py``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from hengd.rules import vault
from hengd.sealing import Seal
from hengd.store import Store

LEAST_CHARACTERS: Final = 8
"""Shorter texts turn up anywhere by chance."""
FOR_DEVICES: Final = "/v1/device/"
"""Only there a secret may be said: to the device whose document holds it."""


class Canary:
    """What was sealed in one test, and where it was seen in the open."""

    def __init__(self) -> None:
        self.sealed: set[bytes] = set()
        self.seen: list[str] = []

    def keep(self, value: object) -> None:
        """Remember the texts of a secret's value, as they are and as JSON writes them."""
        for text in _texts(value):
            if len(text) >= LEAST_CHARACTERS:
                self.sealed |= {spelled.encode() for spelled in (text, json.dumps(text)[1:-1])}

    def look(self, where: str, said: bytes) -> None:
        """Note if any of it stands in what was said."""
        if any(plain in said for plain in self.sealed):
            self.seen.append(where)

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Look at everything from now on."""
        self._at_the_seal(patch)
        self._at_the_loggers(patch)
        self._at_the_answers(patch)
        self._at_closing_stores(patch)

    def _at_the_seal(self, patch: pytest.MonkeyPatch) -> None:
        seal, of_secrets = Seal.seal, vault._context("", 0).split()[0]

        def sealed(own: Seal, plain: bytes, context: str) -> bytes:
            if context.startswith(f"{of_secrets} "):
                self.keep(json.loads(plain))
            return seal(own, plain, context)

        patch.setattr(Seal, "seal", sealed)

    def _at_the_loggers(self, patch: pytest.MonkeyPatch) -> None:
        handle = logging.Logger.handle

        def handled(own: logging.Logger, record: logging.LogRecord) -> None:
            if self.sealed:
                told = record.getMessage(), record.__dict__, record.exc_info and record.exc_info[1]
                self.look(f"a line of the log of {own.name}", repr(told).encode())
            handle(own, record)

        patch.setattr(logging.Logger, "handle", handled)

    def _at_the_answers(self, patch: pytest.MonkeyPatch) -> None:
        prepare, write, send = web.Response.prepare, web.StreamResponse.write, web.WebSocketResponse.send_str

        async def prepared(own: web.Response, request: web.BaseRequest) -> Any:
            if self.sealed and not request.path.startswith(FOR_DEVICES) and isinstance(own.body, bytes):
                self.look(f"{request.method} {request.path}", own.body + repr(own.headers).encode())
            return await prepare(own, request)

        async def written(own: web.StreamResponse, data: bytes) -> None:
            self.look("an answer in pieces", bytes(data))
            await write(own, data)

        async def sent(own: web.WebSocketResponse, data: str, compress: int | None = None) -> None:
            self.look("a message of an event stream", data.encode())
            await send(own, data, compress)

        patch.setattr(web.Response, "prepare", prepared)
        patch.setattr(web.StreamResponse, "write", written)
        patch.setattr(web.WebSocketResponse, "send_str", sent)

    def _at_closing_stores(self, patch: pytest.MonkeyPatch) -> None:
        open_, close = Store.open.__func__, Store.close  # type: ignore[attr-defined]
        folders: dict[Store, Path] = {}

        def opened(cls: type[Store], folder: Path, **how: Any) -> Store:
            store: Store = open_(cls, folder, **how)
            folders[store] = folder
            return store

        async def closed(own: Store) -> None:
            await close(own)
            folder = folders.pop(own, None)
            if folder is not None and self.sealed:
                self.look(f"the store in {folder}", folder.joinpath("data.mdb").read_bytes())

        patch.setattr(Store, "open", classmethod(opened))
        patch.setattr(Store, "close", closed)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
