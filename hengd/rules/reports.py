"""What devices say becomes durable: batched into the store's group commit, kept in order, never dropped.

A full disk does not lose a report: it waits in memory, the device gets no receipt yet, and it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from hengd.records import Reported, pack
from hengd.rules.notes import DeviceReported
from hengd.store import Store, Transaction
from henge_protocol.errors import StorageFull

log = logging.getLogger("hengd.reports")

RETRY_S: Final = 2.0
MAX_WAITING: Final = 20_000
"""Reports kept in memory while the disk is full; beyond it the oldest devices report again at their next hello."""


class _Entry(NamedTuple):
    device_id: str
    reported: Reported
    announce: bool
    done: Callable[[], None] | None


class Reports:
    """Takes reports from the links, writes them together, calls back when they are on disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Entry] = []
        self._busy = False

    def record(
        self, device_id: str, reported: Reported, *, announce: bool, done: Callable[[], None] | None = None
    ) -> None:
        """Make ``reported`` durable; ``done`` is called on the loop once it is. ``announce`` tells the event log."""
        self._waiting.append(_Entry(device_id, reported, announce, done))
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def recorded(self, device_id: str, reported: Reported) -> None:
        """``record`` and wait until it is durable."""
        durable = asyncio.Event()
        self.record(device_id, reported, announce=True, done=durable.set)
        await durable.wait()

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            self._busy = False
            return
        self._store.submit(lambda tx: _write(tx, batch), lambda _, error: self._written(batch, error))

    def _written(self, batch: list[_Entry], error: BaseException | None) -> None:
        if error is None:
            for entry in batch:
                if entry.done is not None:
                    entry.done()
            self._flush()
            return
        if not isinstance(error, StorageFull):
            log.error("reports were not stored: %s", error, extra={"event": "reports_failed"})
            self._busy = False
            return
        self._waiting = (batch + self._waiting)[-MAX_WAITING:]
        asyncio.get_running_loop().call_later(RETRY_S, self._flush)


def _write(tx: Transaction, batch: list[_Entry]) -> None:
    for device_id, reported, announce, _ in batch:
        key = device_id.encode()
        if tx.get("ids", key) is None:
            continue
        tx.put("reported", key, pack(reported))
        if announce:
            tx.note(DeviceReported(device_id, reported.revision, reported.digest, reported.state, reported.reason))
