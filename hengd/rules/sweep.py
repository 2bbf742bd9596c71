"""Dropping documents that no device runs or should run: a little at a time, so that no change waits for it.

What devices should run is read in small pieces; nothing is dropped unless that is still so in the transaction that
drops: only a revision changes it. What a device said it runs stays because its secrets are: who replaces one may hear
the old value in the words of a hook, and knows it only by that document.
"""

from __future__ import annotations

import asyncio
from typing import Final

from hengd.rules.fleet import find_desired, find_reported, read_meta
from hengd.store import Reader, Store, Transaction
from henge_protocol.model import is_digest

STEP: Final = 500
"""Records that one step looks at."""


class Sweep:
    """Goes through all documents again and again, one step per call."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begin(-1)
        self._document = b""
        """The last document that was looked at; kept when a change ends a round, so that the rest has its turn."""

    async def step(self) -> bool:
        """Look at the next few records; False when a round has ended: all is seen, or a change came in between."""
        if self._wanted_all:
            return await self._store.write(self._drop)
        await asyncio.sleep(0)  # others have their turn between two steps
        return self._gather()

    def _begin(self, revision: int) -> None:
        self._revision = revision
        self._wanted: set[bytes] = set()
        self._wanted_all = False
        self._device = b""
        """The last device that was asked what it runs and should run."""

    def _gather(self) -> bool:
        with self._store.read() as tx:
            revision = read_meta(tx).revision
            if revision != self._revision:
                self._begin(revision)
            keys = tx.keys_after("ids", self._device, most=STEP)
            for key in keys:
                self._wanted |= _needed(tx, key.decode())
        self._device = keys[-1] if keys else self._device
        self._wanted_all = len(keys) < STEP
        return True

    def _drop(self, tx: Transaction) -> bool:
        if read_meta(tx).revision != self._revision:
            self._begin(-1)
            return False
        keys = tx.keys_after("documents", self._document, most=STEP)
        for key in keys:
            if key not in self._wanted:
                tx.delete("documents", key)
        goes_on = len(keys) == STEP
        self._document = keys[-1] if goes_on else b""
        if not goes_on:
            self._begin(-1)
        return goes_on


def _needed(tx: Reader, device_id: str) -> set[bytes]:
    desired, running = find_desired(tx, device_id), find_reported(tx, device_id).running
    digests = ([desired.digest] if desired is not None else []) + ([running] if is_digest(running) else [])
    return set(map(bytes.fromhex, digests))
