"""What devices say becomes durable: batched into the store's group commit, kept in order, never dropped.

A full disk does not lose a report of a live link: the device's newest waits in memory, there is no receipt yet, and it
is tried again. Who waits for an answer is told at once and says it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from hengd.records import Reported, pack
from hengd.rules import audit
from hengd.rules.fleet import find_reported, required_object
from hengd.rules.notes import DevicesReported, Rung
from hengd.rules.objects import object_path
from hengd.rules.outcome import Author
from hengd.rules.states import forgiven
from hengd.store import Store, Transaction
from henge_protocol.errors import Internal, StorageFull

log = logging.getLogger("hengd.reports")

RETRY_S: Final = 2.0
BUSY_BATCH: Final = 16
GATHER_S: Final = 0.1
"""While many devices report, reports of so long share a commit: fewer pages are written, nobody alone waits."""
HELLOS_A_MINUTE: Final = 6
"""Hellos of one device that are written at once; what it says in more of them waits for its newest."""
LATE_S: Final = 10.0
"""How long: a device that connects again and again costs one write in this time."""
CHUNK: Final = 128
"""Receipts sent per turn of the event loop."""

WhenDurable = Callable[[BaseException | None], None]


class _Entry(NamedTuple):
    device_id: str
    reported: Reported
    announce: bool
    done: WhenDurable | None
    patient: bool


class Reports:
    """Takes reports from the links, writes them together, calls back when they are on disk."""

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[_Entry] = []
        self._unwritten: dict[str, Reported] = {}
        """The newest of each device that is not on disk yet."""
        self._busy = False
        self._hellos: Counter[str] = Counter()
        self._minute_ends = 0.0
        self._late: dict[str, _Entry] = {}
        self._held: Counter[str] = Counter()
        """Devices that a retry is being written for: what they say is written after it."""

    def latest(self, device_id: str) -> Reported:
        """What the device last said, whether it is on disk yet or not."""
        queued = self._unwritten.get(device_id)
        if queued is not None:
            return queued
        with self._store.read() as tx:
            return find_reported(tx, device_id)

    def record(self, device_id: str, reported: Reported, *, announce: bool, done: WhenDurable | None = None) -> None:
        """Make ``reported`` durable; ``done(None)`` is called on the loop once it is, ``done(error)`` if it cannot be.

        ``announce`` tells the event log.
        """
        self._take(_Entry(device_id, reported, announce, done, patient=True))

    def greeted(self, device_id: str, reported: Reported, *, announce: bool, now: float) -> None:
        """``record`` what a hello says, soon; ``now`` is monotonic. ``latest`` knows it at once.

        A device that says hello too often has only its newest written, seconds later: nobody waits for a receipt of it.
        """
        if now >= self._minute_ends:
            self._minute_ends = now + 60.0
            self._hellos.clear()
        self._hellos[device_id] += 1
        entry = _Entry(device_id, reported, announce, done=None, patient=True)
        if self._hellos[device_id] <= HELLOS_A_MINUTE:
            self._take(entry)
            return
        if not self._late:
            asyncio.get_running_loop().call_later(LATE_S, self._take_late)
        self._late[device_id] = entry
        self._unwritten[device_id] = reported

    async def recorded(self, device_id: str, reported: Reported) -> None:
        """``record`` and wait until it is durable; raises what the store raised, ``StorageFull`` included."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done = partial(_settle, durable)
        self._take(_Entry(device_id, reported, announce=True, done=done, patient=False))
        await durable

    async def retry(self, name: str, by: Author) -> None:
        """Offer a device again what it refused; raises ``NotFound`` and what the store raises.

        Nothing that it said before and that is not on disk yet brings the refusal back.
        """
        with self._store.read() as tx:
            device_id = required_object(tx, "Device", name).id
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_: object, error: BaseException | None) -> None:
            self._release(device_id, forgive=error is None)
            _settle(durable, error)

        self._store.submit(partial(_write_retry, name=name, by=by, now=self._clock()), done)
        self._held[device_id] += 1
        await durable

    def _release(self, device_id: str, *, forgive: bool) -> None:
        self._held -= Counter([device_id])
        if forgive:
            self._waiting = [
                self._forgiven(entry) if entry.device_id == device_id else entry for entry in self._waiting
            ]
            if device_id in self._late:
                self._late[device_id] = self._forgiven(self._late[device_id])
        self._flush_soon()

    def _forgiven(self, entry: _Entry) -> _Entry:
        self._unwritten[entry.device_id] = forgiven(entry.reported)
        return entry._replace(reported=self._unwritten[entry.device_id])

    def _take_late(self) -> None:
        late, self._late = self._late, {}
        for entry in late.values():
            self._take(entry)

    def _take(self, entry: _Entry) -> None:
        self._late.pop(entry.device_id, None)  # it is older
        self._waiting.append(entry)
        self._unwritten[entry.device_id] = entry.reported
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        batch = [entry for entry in self._waiting if entry.device_id not in self._held]
        self._waiting = [entry for entry in self._waiting if entry.device_id in self._held]
        if not batch:
            self._busy = False
        else:
            self._submit(batch)

    def _submit(self, batch: list[_Entry]) -> None:
        try:
            self._store.submit(lambda tx: _write(tx, batch), lambda _, error: self._written(batch, error))
        except Internal as closing:
            self._end(batch, closing)

    def _written(self, batch: list[_Entry], error: BaseException | None) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(error, StorageFull):
            loop.call_later(RETRY_S, self._flush)
            self._waiting = _newest([entry for entry in batch if entry.patient]) + self._waiting
            self._end([entry for entry in batch if not entry.patient], error)
            return
        if error is not None and len(batch) > 1:  # one of them meets a damaged record: it alone shall fail
            for entry in batch:
                self._submit([entry])
            return
        if error is not None:
            fields = {"event": "report_failed", "device": batch[0].device_id}
            log.error("a report was not stored: %s", error, extra=fields)
        if len(batch) < BUSY_BATCH:
            self._flush()
        else:
            loop.call_later(GATHER_S, self._flush)
        self._end(batch, error)

    def _end(self, batch: list[_Entry], error: BaseException | None) -> None:
        """Nothing more is tried for ``batch``; the next flush is under way already, whatever who waits does."""
        for entry in batch:
            if self._unwritten.get(entry.device_id) is entry.reported:
                del self._unwritten[entry.device_id]
        if error is not None:  # what was refused may have stood before something that is still tried
            self._unwritten.update({entry.device_id: entry.reported for entry in self._waiting})
            self._unwritten.update({entry.device_id: entry.reported for entry in self._late.values()})
        self._answer(batch, 0, error)

    def _answer(self, batch: list[_Entry], start: int, error: BaseException | None) -> None:
        if start + CHUNK < len(batch):
            asyncio.get_running_loop().call_soon(self._answer, batch, start + CHUNK, error)
        for entry in batch[start : start + CHUNK]:
            if entry.done is not None:
                _tell(entry.done, error)


def _settle(durable: asyncio.Future[None], error: BaseException | None) -> None:
    if durable.done():
        return
    if error is None:
        durable.set_result(None)
    else:
        durable.set_exception(error)


def _tell(done: WhenDurable, error: BaseException | None) -> None:
    try:
        done(error)
    except Exception:  # task boundary: who waits for one report must not keep the others from their answers
        log.exception("who waited for a report failed", extra={"event": "commit_listener_failed"})


def _newest(entries: list[_Entry]) -> list[_Entry]:
    """One entry a device: what it said last, and its last receipt."""
    return list({entry.device_id: entry for entry in entries}.values())


def _write(tx: Transaction, batch: list[_Entry]) -> None:
    told: list[tuple[str, Reported]] = []
    for device_id, reported, announce, _, _ in batch:
        key = device_id.encode()
        name = tx.get("ids", key)
        if name is None:
            continue
        tx.put("reported", key, pack(reported))
        if announce:
            told.append((name.decode(), reported))
    if told:
        tx.note(DevicesReported(tuple(told)))


def _write_retry(tx: Transaction, name: str, by: Author, now: float) -> None:
    device = required_object(tx, "Device", name)
    tx.put("reported", device.id.encode(), pack(forgiven(find_reported(tx, device.id))))
    audit.note(tx, "device.retried", object_path("Device", name), by, now=now)
    tx.note(Rung(device.id))
