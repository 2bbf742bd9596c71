"""What runs under strace: the real data folder, store and journal, telling what it asked and what was answered.

``python -m tests.powerloss.workload FOLDER CHANGES [PLANT]``; a plant is a fault that the harness must notice.
One change writes the same number into three records and adds one of its own, so that a torn change shows.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hengd import datadir, journal, transactions
from hengd.groupcommit import GroupCommit
from hengd.store import Store, Transaction

SHARED: Final = (b"first", b"second", b"third")
MAP_BYTES: Final = 16 * 1024 * 1024
REVOKED_EVERY: Final = 7
TOGETHER: Final = 4
"""Changes asked at once, so that they share commits."""
NOW: Final = 1_900_000_000.0


def own_key(number: int) -> bytes:
    """The record that only this change writes."""
    return b"own/%06d" % number


def own_value(number: int) -> bytes:
    """Its content: small ones and such that need pages of their own."""
    rng = random.Random(number)
    return rng.randbytes(rng.choice([40, 700, 9000]))


def tell(what: str, number: int) -> None:
    """One line in one system call, so that it has a place in the trace."""
    os.write(1, f"{what} {number}\n".encode())


def change(number: int) -> Callable[[Transaction], None]:
    """All or nothing."""

    def operation(tx: Transaction) -> None:
        for key in SHARED:
            tx.put("objects", key, b"%d" % number)
        tx.put("objects", own_key(number), own_value(number))

    return operation


async def work(folder: Path, changes: int, *, torn: bool) -> None:
    """Found the folder, then change after change, and a revocation now and then."""
    found = datadir.open_data_dir(folder, allow_network_fs=True, now=NOW, map_bytes=MAP_BYTES)
    tell("FOUNDED", 0)
    opened = Store.open(found.database, map_bytes=MAP_BYTES)
    for first in range(1, changes + 1, TOGETHER):
        numbers = range(first, min(first + TOGETHER, changes + 1))
        await asyncio.gather(*(one(opened, number, torn=torn) for number in numbers))
        if first // TOGETHER % REVOKED_EVERY == 0:
            journal.append_end(found.journal, float(first), "device", f"device-{first}", durable=True)
            tell("REVOKED", first)
    await opened.close()
    found.close()


async def one(opened: Store, number: int, *, torn: bool) -> None:
    """Ask for a change, and say when it was answered."""
    tell("ASK", number)
    if torn:
        await opened.write(lambda tx: tx.put("objects", SHARED[0], b"%d" % number))
    await opened.write(change(number))
    tell("ACK", number)


# ---- faults to notice -------------------------------------------------------------------------------------


def plant(name: str) -> None:
    """Break a promise on purpose."""
    if name in ("sync", "metasync"):
        real = transactions.lmdb.open
        transactions.lmdb.open = lambda *arguments, **options: real(*arguments, **options | {name: False})
    elif name == "early":
        GroupCommit._commit_or_refuse = _answered_early(GroupCommit._commit_or_refuse)  # type: ignore[method-assign]
    elif name == "folder":
        datadir.sync_folder = lambda path: None
    elif name == "journal":
        append_end = journal.append_end
        journal.append_end = lambda path, *entry, durable: append_end(path, *entry, durable=False)
    elif name != "torn":
        raise SystemExit(f"there is no plant {name}")


def _answered_early(commit: Callable[..., Any]) -> Callable[..., Any]:
    """The caller is told before the commit."""

    def answered(self: Any, batch: list[Any]) -> Any:
        self._loop.call_soon_threadsafe(self._deliver, batch, [None] * len(batch), [])
        return commit(self, [job._replace(done=lambda result, error: None) for job in batch])

    return answered


def main() -> None:
    folder, changes, *planted = sys.argv[1:]
    for name in planted:
        plant(name)
    asyncio.run(work(Path(folder), int(changes), torn="torn" in planted))


if __name__ == "__main__":
    main()
