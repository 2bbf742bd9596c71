"""Stores of older henges: kept as they were, then brought to today's format in one commit.

Asked while the store is opened, before anything else is written. A kill at any moment leaves the old store or the new
one, and the next start goes on. A newer store is refused and not touched.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb
import msgspec

from hengd.datafile import check_file
from hengd.records import FORMAT, META_KEY, Meta, pack, unpack
from hengd.room import MAX_MAP_BYTES, disk_refusal, free_bytes, has_room, used_bytes
from hengd.transactions import Reader, Transaction, open_databases
from henge_protocol.errors import HengeError, Internal, StorageFull
from henge_protocol.keyfiles import make_private_dir, sync_folder

log = logging.getLogger("hengd.migrations")

Migration = Callable[[Transaction], None]

MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""Number of a format -> what makes it of the one before. Once released neither changed nor taken out.

A new number needs a store of it in ``tests/data/stores`` (``python -m tests.data.make_store``).
"""

_ROOM_BYTES: Final = 8 * 1024 * 1024
"""What is left free on the disk beside the kept copy and a store that is written anew."""


class Migrated(NamedTuple):
    """What was done: from which format to which, and where the store lies as it was."""

    before: int
    after: int
    kept: Path | None


class _Stamp(msgspec.Struct, frozen=True):
    """What of ``Meta`` every format has."""

    format: int
    fleet: str


_stamp = msgspec.json.Decoder(_Stamp)


class Opening:
    """What is asked and done while the store in the folder ``database`` is opened, before anybody reads or writes.

    ``keep`` is the folder in which a store of an older format is kept as it was; None if there is another copy.
    """

    def __init__(
        self, database: Path, *, fleet: str, keep: Path | None, migrations: Mapping[int, Migration] = MIGRATIONS
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._keep = keep
        self._migrations = migrations
        self.migrated: Migrated | None = None
        """What was done, if anything had to be."""

    def databases(self, env: Any) -> dict[str, Any]:
        """The databases of the environment, in today's format.

        Raises ``Internal storage_foreign`` for a store of a newer henge, of one too old, or of other keys,
        ``StorageFull`` without room for the copy, and what migrations and disk say; then the store is as it was.
        """
        stamp = _read_stamp(env)
        _refuse_foreign(stamp, self._database, fleet=self._fleet, keep=self._keep)
        if stamp.format == FORMAT:
            return open_databases(env)
        self._refuse_too_old(stamp.format)
        kept = None if self._keep is None else _keep_as_it_is(env, self._keep, stamp.format)
        try:
            databases = open_databases(env)
            _migrate(env, databases, stamp.format, self._migrations)
        except (OSError, lmdb.Error) as error:
            raise self._failed(env, error) from error
        self.migrated = Migrated(stamp.format, FORMAT, kept)
        log.info(
            "the store was of format %d and is of format %d now; as it was it lies in %s", *self.migrated,
            extra={"event": "store_migrated"},
        )  # fmt: skip
        return databases

    def _failed(self, env: Any, error: OSError | lmdb.Error) -> HengeError:
        """What is told when the disk refused a step; what the step had written already is given back to it."""
        if not has_room(self._database):  # of a short write LMDB says only that it failed
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.truncate(self._database / "data.mdb", used_bytes(env))
        return disk_refusal(error, f"the store in {self._database} cannot be brought to format {FORMAT}")

    def _refuse_too_old(self, number: int) -> None:
        missing = [step for step in range(number + 1, FORMAT + 1) if step not in self._migrations]
        if missing:
            raise Internal(
                "storage_foreign",
                f"the store in {self._database} has format {number}, and this hengd knows no way to {missing[0]}",
                cure="start a hengd of the versions in between first, or restore a backup into an empty folder",
            )


def _read_stamp(env: Any) -> _Stamp:
    """Which format and whose it is; nothing is written, not even a database that is missing."""
    with env.begin() as txn:
        payload = Reader(txn, {"meta": env.open_db(b"meta", txn=txn, create=False)}).get("meta", META_KEY)
    try:
        return _stamp.decode(payload or b"")
    except msgspec.DecodeError:
        raise Internal(
            "storage_foreign", "the store has no meta record", cure="restore a backup into an empty folder"
        ) from None


def _refuse_foreign(stamp: _Stamp, database: Path, *, fleet: str, keep: Path | None) -> None:
    if stamp.format > FORMAT:
        kept = kept_folder(keep, stamp.format) / "data.mdb" if keep else None
        way_back = (
            f"go back to the store as it was before: cp {kept} {database}/data.mdb"
            if kept and kept.exists()
            else "restore a backup of this version into an empty folder"
        )
        raise Internal(
            "storage_foreign",
            f"the store in {database} has format {stamp.format}, this hengd reads format {FORMAT}",
            cure=f"install the hengd that wrote it, or {way_back}",
        )
    if stamp.fleet != fleet:
        raise Internal(
            "storage_foreign",
            f"the store in {database} is of fleet {stamp.fleet}, the authorities beside it are of fleet {fleet}",
            cure="put the whole data folder back from one backup; nothing was changed",
        )


def kept_folder(keep: Path, number: int) -> Path:
    """Where the store lies as it was before it got the format of this number."""
    return keep / f"before-format-{number}"


def _keep_as_it_is(env: Any, keep: Path, before: int) -> Path:
    """A compact copy, complete or not at all; one of an earlier time makes way."""
    _refuse_full(env, keep, before)
    folder = kept_folder(keep, FORMAT)
    part = folder / "data.mdb.part"
    try:
        make_private_dir(folder)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            env.copyfd(descriptor, compact=True)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        check_file(part)
        os.replace(part, folder / "data.mdb")
        sync_folder(folder)
        sync_folder(keep)
    except (OSError, lmdb.Error) as error:
        part.unlink(missing_ok=True)
        raise disk_refusal(error, f"the store cannot be kept in {folder}") from error
    return folder


def _refuse_full(env: Any, keep: Path, before: int) -> None:
    needed, free = 2 * used_bytes(env) + _ROOM_BYTES, free_bytes(keep)
    if free < needed:
        raise StorageFull(
            "storage_full",
            f"the store is of format {before}: to keep it and bring it to format {FORMAT} {needed:,} bytes are needed"
            f" on the disk of {keep}, {free:,} are free",
            cure="free space on that disk and start again, or go on with the hengd from before; nothing was changed",
        )


def _migrate(env: Any, databases: dict[str, Any], before: int, migrations: Mapping[int, Migration]) -> None:
    """All steps and the new number, in one commit; the map grows if they need it, since nobody else is here yet."""
    while True:
        try:
            with env.begin(write=True) as txn:
                tx = Transaction(txn, databases)
                for number in range(before + 1, FORMAT + 1):
                    migrations[number](tx)
                meta = unpack(Meta, tx.get("meta", META_KEY) or b"")
                tx.put("meta", META_KEY, pack(msgspec.structs.replace(meta, format=FORMAT)))
            return
        except lmdb.MapFullError:
            wanted = 2 * env.info()["map_size"]
            if wanted > MAX_MAP_BYTES:
                raise
            env.set_mapsize(wanted)
