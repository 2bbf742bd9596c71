"""The durable memory: one LMDB environment, one process, one writer thread with group commit.

Three promises to the floors above:

- ``write`` runs a function in a transaction and answers only after ``commit()`` returned; a function that
  raises leaves nothing behind, and its neighbours in the same commit are not harmed.
- ``read`` gives a consistent view, cheap enough for the event loop. Never await inside of it: a held
  reader makes the file grow.
- what a transaction noted with ``Transaction.note`` reaches the after-commit hook in order, on the event loop,
  whatever became of the caller; before the caller gets its answer.

Never a second process: LMDB's file is this one's alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lmdb

from hengd.apart import Apart
from hengd.groupcommit import GroupCommit
from hengd.room import disk_refusal, free_bytes, system_error, used_bytes
from hengd.transactions import Ahead, Reader, Transaction, open_databases, open_environment
from henge_protocol.errors import Internal

__all__ = ["Ahead", "Figures", "Reader", "Store", "Transaction"]

T = TypeVar("T")


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
        self._apart = Apart(loop)
        self._writer = GroupCommit(env, databases, folder, loop, grow_apart=self._apart.grow)

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
        store._writer.start()
        return store

    def on_commit(self, hook: Callable[[list[object]], None]) -> None:
        """Set the one hook that hears, on the event loop, what committed transactions noted."""
        self._writer.committed = hook

    def on_failure(self, hook: Callable[[str], None]) -> None:
        """Set the one hook that hears, on the event loop, that the store is beyond use in this process."""
        self._writer.failed = hook

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
        if self._writer.stopping:
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
        self._writer.submit(operation, done, essential=essential)

    @property
    def is_writing(self) -> bool:
        """Whether the writer lives; if not, every write would wait for ever."""
        return self._writer.is_alive

    def figures(self) -> Figures:
        """Fill and health of the store; ``Internal storage_failed`` if its files are not where they were."""
        self._writer.refuse_gone()
        map_bytes, used = self._env.info()["map_size"], used_bytes(self._env)
        return Figures(map_bytes, used, free_bytes(self._folder), self._writer.commits, self._writer.last_error)

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
        await self._writer.close()
        await self._apart.close()
        self._env.close()
