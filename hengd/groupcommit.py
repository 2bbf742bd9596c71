"""The one writer of the store: operations queue, share a commit, and are answered once it is on disk.

Rules learnt from measurements: default sync, never ``writemap``, and the map grows only while neither a reader nor the
writer is active.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from hengd.room import (
    ESSENTIAL_ROOM_BYTES,
    FREE_RESERVE_BYTES,
    FULL,
    MAX_MAP_BYTES,
    Growth,
    free_bytes,
    has_room,
    release_ballast,
    system_error,
    takes_no_more,
    used_bytes,
)  # fmt: skip
from hengd.transactions import Transaction
from henge_protocol.errors import HengeError, Internal

log = logging.getLogger("hengd.store")

MAX_BATCH: Final = 512
"""Operations that share one commit; beyond it the wait of the first becomes noticeable."""
GROW_AT: Final = 0.8
GROW_WAIT_S: Final = 30.0


class _Job(NamedTuple):
    operation: Callable[[Transaction], Any]
    done: Callable[[Any, BaseException | None], None]
    essential: bool


class GroupCommit:
    """The writer thread. ``start`` it once; what it needs of the loop's thread it asks for there."""

    def __init__(
        self, env: Any, databases: dict[str, Any], folder: Path, loop: asyncio.AbstractEventLoop, *,
        grow_apart: Callable[[Callable[[], None]], None],
    ) -> None:  # fmt: skip
        """``grow_apart`` runs, on the loop's thread, what must run while nobody reads."""
        self._env = env
        self._databases = databases
        self._folder = folder
        self._loop = loop
        self._grow_apart = grow_apart
        self._jobs: deque[_Job] = deque()
        self._urgent: deque[_Job] = deque()
        """Those that are essential: whoever is revoked is out before the next job begins, however many are queued."""
        self._wake = threading.Condition()
        self._written = asyncio.Event()
        """Set when the writer has ended and all its answers are delivered."""
        self._identity = _identity(folder)
        self._failures = 0
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self.stopping = False
        self.commits = 0
        self.last_error = ""
        self.committed: Callable[[list[object]], None] = lambda notes: None
        self.failed: Callable[[str], None] = lambda reason: None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the writer lives; if not, every write would wait for ever."""
        return self._thread.is_alive()

    def submit(
        self, operation: Callable[[Transaction], Any], done: Callable[[Any, BaseException | None], None], *,
        essential: bool,
    ) -> None:  # fmt: skip
        """Queue ``operation``; ``done(result, error)`` is called on the loop after the commit."""
        with self._wake:
            if self.stopping:
                raise Internal("stopping", "the store is closing; nothing was changed")
            (self._urgent if essential else self._jobs).append(_Job(operation, done, essential))
            self._wake.notify()

    def refuse_gone(self) -> None:
        """A commit into a file that is no longer the one under its name would be lost with it."""
        if _identity(self._folder) != self._identity:
            what = f"{self._folder}/data.mdb was moved or removed while hengd ran"
            raise Internal("storage_failed", what, cure="put it back and start hengd again")

    async def close(self) -> None:
        """Commit what is queued and end."""
        with self._wake:
            self.stopping = True
            self._wake.notify()
        await self._written.wait()
        self._thread.join()

    def _write_loop(self) -> None:
        while batch := self._next_batch():
            answers, notes = self._commit_or_refuse(batch)
            self._loop.call_soon_threadsafe(self._deliver, batch, answers, notes)
        self._loop.call_soon_threadsafe(self._written.set)

    def _next_batch(self) -> list[_Job]:
        with self._wake:
            while not self._urgent and not self._jobs and not self.stopping:
                self._wake.wait()
            jobs = self._urgent or self._jobs
            return [jobs.popleft() for _ in range(min(len(jobs), MAX_BATCH))]

    def _deliver(self, batch: list[_Job], answers: list[Any], notes: list[object]) -> None:
        if notes:
            _run_apart(lambda: self.committed(notes))
        for job, answer in zip(batch, answers, strict=True):
            failed = isinstance(answer, BaseException)
            _run_apart(partial(job.done, None if failed else answer, answer if failed else None))

    def _commit_or_refuse(self, batch: list[_Job]) -> tuple[list[Any], list[object]]:
        try:
            return self._commit_batch(batch)
        except Exception as error:  # task boundary: without the writer every later write would wait for ever
            log.exception("the writer failed", extra={"event": "store_failed"})
            self.last_error = repr(error)
            self._loop.call_soon_threadsafe(self.failed, repr(error))
            refusal = Internal("storage_failed", f"the store failed ({error!r}); the change may not have been kept")
            return [refusal] * len(batch), []

    def _commit_batch(self, batch: list[_Job]) -> tuple[list[Any], list[object]]:
        try:
            self.refuse_gone()
            self._grow_if_needed()
            if free_bytes(self._folder) < FREE_RESERVE_BYTES:
                return self._commit_essential(batch)
            return self._transact(batch)
        except lmdb.MapFullError:
            return self._commit_batch(batch) if self._grow() else self._one_by_one(batch)
        except (lmdb.Error, OSError, Internal) as error:
            if len(batch) > 1 and (self._is_full(error) or isinstance(error, lmdb.TxnFullError)):
                return self._one_by_one(batch)
            return self._refuse_all(batch, error)

    def _commit_essential(self, batch: list[_Job]) -> tuple[list[Any], list[object]]:
        full = takes_no_more(self._folder)
        essential = [job for job in batch if job.essential]
        if essential and free_bytes(self._folder) < ESSENTIAL_ROOM_BYTES:
            release_ballast(self._folder)
        answers, notes = self._one_by_one(essential)
        by_job = dict(zip(map(id, essential), answers, strict=True))
        return [by_job.get(id(job), full) for job in batch], notes

    def _one_by_one(self, batch: list[_Job]) -> tuple[list[Any], list[object]]:
        answers: list[Any] = []
        notes: list[object] = []
        for job in batch:
            answer, noted = self._alone(job)
            answers += answer
            notes += noted
        return answers, notes

    def _alone(self, job: _Job) -> tuple[list[Any], list[object]]:
        while True:
            try:
                return self._transact([job])
            except lmdb.MapFullError as error:
                if not self._grow():
                    return self._refuse_all([job], error)
            except (lmdb.Error, OSError) as error:
                return self._refuse_all([job], error)

    def _refuse_all(self, batch: list[_Job], error: Exception) -> tuple[list[Any], list[object]]:
        return [self._refusal(error)] * len(batch), []

    def _transact(self, batch: list[_Job]) -> tuple[list[Any], list[object]]:
        answers: list[Any] = []
        notes: list[object] = []
        with self._env.begin(write=True) as parent:
            for job in batch:
                answers.append(self._run(job, parent, notes))
                if self._urgent and not job.essential:
                    self._put_back(batch, len(answers))
                    break
        self.commits += 1
        self._failures = 0
        return answers, notes

    def _put_back(self, batch: list[_Job], done: int) -> None:
        """Let what is urgent go before the rest of a batch."""
        with self._wake:
            self._jobs.extendleft(reversed(batch[done:]))
        del batch[done:]

    def _run(self, job: _Job, parent: Any, notes: list[object]) -> Any:
        child = self._env.begin(write=True, parent=parent)
        transaction = Transaction(child, self._databases)
        try:
            answer = job.operation(transaction)
            child.commit()
        except lmdb.BadValsizeError as error:  # a key of a length that no record can have: not the store's fault
            child.abort()
            return Internal("internal", f"a record's key is empty or too long ({error}); nothing was changed")
        except lmdb.Error:
            child.abort()
            raise
        except BaseException as error:  # task boundary: whatever an operation raises belongs to its caller
            child.abort()
            if not isinstance(error, HengeError) and not getattr(error, "expected", False):
                log.exception("a store operation failed", extra={"event": "store_operation_failed"})
            return takes_no_more(self._folder, error) if isinstance(error, OSError) and error.errno in FULL else error
        notes += transaction.notes
        return answer

    def _is_full(self, error: Exception) -> bool:
        if isinstance(error, lmdb.PanicError | Internal):
            return False
        return isinstance(error, lmdb.MapFullError) or system_error(error) in FULL or not has_room(self._folder)

    def _refusal(self, error: Exception) -> HengeError:
        self.last_error = str(error)
        if self._is_full(error):
            return takes_no_more(self._folder, error)
        self._failures += 1
        log.error("commit failed: %s", error, extra={"event": "store_failed"})
        if isinstance(error, lmdb.PanicError | Internal) or self._failures >= 2:
            self._loop.call_soon_threadsafe(self.failed, str(error))
        what = f"the store failed ({error}); the change may not have been kept"
        return error if isinstance(error, Internal) else Internal("storage_failed", what)

    # ---- growing: neither reader nor writer is active while the map changes ----------------------------

    def _grow_if_needed(self) -> None:
        if self.commits % 64 == 0 and used_bytes(self._env) > GROW_AT * self._env.info()["map_size"]:
            self._grow()

    def _grow(self) -> bool:
        """Double the map from the loop's thread, on which no reader is open between callbacks, and on no other now."""
        wanted = self._env.info()["map_size"] * 2
        if wanted > MAX_MAP_BYTES or self._loop.is_closed():
            return False
        growth = Growth(self._env, wanted)
        self._loop.call_soon_threadsafe(self._grow_apart, growth.run)
        grown = growth.wait(GROW_WAIT_S)
        if grown:
            log.info("store map grown to %d bytes", wanted, extra={"event": "store_grown"})
        return grown


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = (folder / "data.mdb").stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _run_apart(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # task boundary: one listener's fault must not keep the others from their answers
        log.exception("a listener of commits failed", extra={"event": "commit_listener_failed"})
