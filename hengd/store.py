"""The durable memory: one LMDB environment, one process, one writer thread with group commit.

Three promises to the floors above:

- ``write`` runs a function in a transaction and answers only after ``commit()`` returned; a function that
  raises leaves nothing behind, and its neighbours in the same commit are not harmed.
- ``read`` gives a consistent view, cheap enough for the event loop. Never await inside of it: a held
  reader makes the file grow.
- what a transaction noted with ``Transaction.note`` reaches the after-commit hook in order, on the event loop,
  whatever became of the caller; before the caller gets its answer.

Rules learnt from measurements: default sync, never ``writemap``, never a second process, the map grows only
while neither a reader nor the writer is active.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import lmdb

from hengd.apart import Apart
from hengd.room import (
    ESSENTIAL_ROOM_BYTES,
    FREE_RESERVE_BYTES,
    FULL,
    MAX_MAP_BYTES,
    Growth,
    disk_refusal,
    free_bytes,
    has_room,
    release_ballast,
    system_error,
    takes_no_more,
    used_bytes,
)  # fmt: skip
from hengd.transactions import Ahead, Reader, Transaction, open_databases, open_environment
from henge_protocol.errors import HengeError, Internal

__all__ = ["Ahead", "Figures", "Reader", "Store", "Transaction"]

log = logging.getLogger("hengd.store")

T = TypeVar("T")

MAX_BATCH: Final = 512
"""Operations that share one commit; beyond it the wait of the first becomes noticeable."""
GROW_AT: Final = 0.8
GROW_WAIT_S: Final = 30.0


class _Job(NamedTuple):
    operation: Callable[[Transaction], Any]
    done: Callable[[Any, BaseException | None], None]
    essential: bool


class Figures(NamedTuple):
    """What ``status`` shows about the store."""

    map_bytes: int
    used_bytes: int
    free_disk_bytes: int
    commits: int
    last_error: str


class Store:
    """The environment, its writer thread and the way in. Open with ``Store.open`` inside a running loop."""

    def __init__(self, env: Any, databases: dict[str, Any], folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._env = env
        self._databases = databases
        self._folder = folder
        self._loop = loop
        self._jobs: deque[_Job] = deque()
        self._urgent: deque[_Job] = deque()
        """Those that are essential: whoever is revoked is out before the next job begins, however many are queued."""
        self._wake = threading.Condition()
        self._stopping = False
        self._written = asyncio.Event()
        """Set when the writer has ended and all its answers are delivered."""
        self._apart = Apart(loop)
        self._commits = 0
        self._failures = 0
        self._last_error = ""
        self._identity = _identity(folder)
        self._committed: Callable[[list[object]], None] = lambda notes: None
        self._failed: Callable[[str], None] = lambda reason: None
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        map_bytes: int = 1024**3,
        databases_of: Callable[[Any], dict[str, Any]] = open_databases,
    ) -> Store:
        """Open (or make) the environment in ``folder``, which exists and is private. The caller holds the lock file.

        ``databases_of`` opens what is in it, before anybody else reads or writes; what it raises is raised.
        """
        loop = asyncio.get_running_loop()
        try:
            env = open_environment(folder, map_bytes)
            try:
                databases = databases_of(env)
                env.reader_check()
            except BaseException:
                env.close()
                raise
        except lmdb.Error as error:
            if system_error(error):
                raise disk_refusal(error, f"{folder}/data.mdb cannot be opened") from error
            raise Internal(
                "storage_foreign",
                f"{folder}/data.mdb cannot be opened as henge's store ({error})",
                cure="restore a backup into an empty folder; the file is left as it is",
            ) from error
        store = cls(env, databases, folder, loop)
        store._thread.start()
        return store

    def on_commit(self, hook: Callable[[list[object]], None]) -> None:
        """Set the one hook that hears, on the event loop, what committed transactions noted."""
        self._committed = hook

    def on_failure(self, hook: Callable[[str], None]) -> None:
        """Set the one hook that hears, on the event loop, that the store is beyond use in this process."""
        self._failed = hook

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """A consistent view for the length of one synchronous block on the loop's thread; see ``examine`` for others.

        Raises ``Internal`` ``storage_failed``: after a failed sync LMDB refuses even reads until the process ends.
        """
        try:
            with self._env.begin(buffers=False) as txn:
                yield Reader(txn, self._databases)
        except lmdb.Error as error:
            raise Internal("storage_failed", f"the store cannot be read ({error})") from error

    async def examine(self, operation: Callable[[Reader], T]) -> T:
        """Run ``operation`` on a consistent view on the reader's thread: what may take long keeps nobody waiting.

        Raises what the operation raised, ``Internal`` as ``read``, and ``Limited`` ``rate_limited`` if many do so.
        """
        if self._stopping:
            raise Internal("stopping", "the store is closing")

        def reading() -> T:
            with self.read() as tx:
                return operation(tx)

        return await self._apart.read(reading)

    async def write(self, operation: Callable[[Transaction], T], *, essential: bool = False) -> T:
        """Run ``operation`` on the writer thread; returns its result once it is on disk.

        ``essential`` operations (revocation, deletion) are tried even when the disk is nearly full, and wait for no
        other operation but the one that runs.
        Raises what the operation raised, ``StorageFull`` or ``Internal`` ``storage_failed``; then nothing changed.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: T, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.submit(operation, done, essential=essential)
        return await future

    def submit(
        self,
        operation: Callable[[Transaction], Any],
        done: Callable[[Any, BaseException | None], None],
        *,
        essential: bool = False,
    ) -> None:
        """Queue ``operation``; ``done(result, error)`` is called on the loop after the commit."""
        with self._wake:
            if self._stopping:
                raise Internal("stopping", "the store is closing; nothing was changed")
            (self._urgent if essential else self._jobs).append(_Job(operation, done, essential))
            self._wake.notify()

    @property
    def is_writing(self) -> bool:
        """Whether the writer lives; if not, every write would wait for ever."""
        return self._thread.is_alive()

    def figures(self) -> Figures:
        """Fill and health of the store; ``Internal storage_failed`` if its files are not where they were."""
        self._refuse_gone()
        map_bytes, used = self._env.info()["map_size"], used_bytes(self._env)
        return Figures(map_bytes, used, free_bytes(self._folder), self._commits, self._last_error)

    def _refuse_gone(self) -> None:
        """A commit into a file that is no longer the one under its name would be lost with it."""
        if _identity(self._folder) != self._identity:
            what = f"{self._folder}/data.mdb was moved or removed while hengd ran"
            raise Internal("storage_failed", what, cure="put it back and start hengd again")

    async def copy_to(self, folder: Path) -> None:
        """Write a consistent, compact copy into an empty folder, on a thread; readers and the writer go on.

        Raises as ``disk_refusal``.
        """
        try:
            await self._apart.copy(lambda: self._env.copy(str(folder), compact=True))
        except lmdb.Error as error:
            raise disk_refusal(error, f"the store cannot be copied to {folder}") from error

    async def close(self) -> None:
        """Commit what is queued, stop the writer, close the environment."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await self._written.wait()
        self._thread.join()
        await self._apart.close()
        self._env.close()

    # ---- the writer thread ---------------------------------------------------------------------------

    def _write_loop(self) -> None:
        while batch := self._next_batch():
            answers, notes = self._commit_or_refuse(batch)
            self._loop.call_soon_threadsafe(self._deliver, batch, answers, notes)
        self._loop.call_soon_threadsafe(self._written.set)

    def _next_batch(self) -> list[_Job]:
        with self._wake:
            while not self._urgent and not self._jobs and not self._stopping:
                self._wake.wait()
            jobs = self._urgent or self._jobs
            return [jobs.popleft() for _ in range(min(len(jobs), MAX_BATCH))]

    def _deliver(self, batch: list[_Job], answers: list[Any], notes: list[object]) -> None:
        if notes:
            _run_apart(lambda: self._committed(notes))
        for job, answer in zip(batch, answers, strict=True):
            failed = isinstance(answer, BaseException)
            _run_apart(partial(job.done, None if failed else answer, answer if failed else None))

    def _commit_or_refuse(self, batch: list[_Job]) -> tuple[list[Any], list[object]]:
        try:
            return self._commit_batch(batch)
        except Exception as error:  # task boundary: without the writer every later write would wait for ever
            log.exception("the writer failed", extra={"event": "store_failed"})
            self._last_error = repr(error)
            self._loop.call_soon_threadsafe(self._failed, repr(error))
            refusal = Internal("storage_failed", f"the store failed ({error!r}); the change may not have been kept")
            return [refusal] * len(batch), []

    def _commit_batch(self, batch: list[_Job]) -> tuple[list[Any], list[object]]:
        try:
            self._refuse_gone()
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
        self._commits += 1
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
        self._last_error = str(error)
        if self._is_full(error):
            return takes_no_more(self._folder, error)
        self._failures += 1
        log.error("commit failed: %s", error, extra={"event": "store_failed"})
        if isinstance(error, lmdb.PanicError | Internal) or self._failures >= 2:
            self._loop.call_soon_threadsafe(self._failed, str(error))
        what = f"the store failed ({error}); the change may not have been kept"
        return error if isinstance(error, Internal) else Internal("storage_failed", what)

    # ---- growing: neither reader nor writer is active while the map changes ----------------------------

    def _grow_if_needed(self) -> None:
        if self._commits % 64 == 0 and used_bytes(self._env) > GROW_AT * self._env.info()["map_size"]:
            self._grow()

    def _grow(self) -> bool:
        """Double the map from the loop's thread, on which no reader is open between callbacks, and on no other now."""
        wanted = self._env.info()["map_size"] * 2
        if wanted > MAX_MAP_BYTES or self._loop.is_closed():
            return False
        growth = Growth(self._env, wanted)
        self._loop.call_soon_threadsafe(self._apart.grow, growth.run)
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
