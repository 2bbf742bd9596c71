"""Backups of a running daemon: everything that another machine needs to be this daemon, in one sealed file.

A compact copy of the store is made beside it, read through to its last record, and sealed together with the
authorities, the journal of revocations and the key of the secrets. Only sealed bytes leave this module.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from hengd.archive import AUTHORITIES, JOURNAL, LEAF, OFFLINE_KEY, SECRETS_KEY, SERVER_KEY, UNDER_WAY, pack
from hengd.datadir import DataDir
from hengd.records import META_KEY, Meta
from hengd.records import pack as packed
from hengd.room import disk_refusal, free_bytes
from hengd.rules import audit
from hengd.rules.fleet import read_meta
from hengd.rules.outcome import Author
from hengd.sealing import written_key
from hengd.store import Store, Transaction
from hengd.transactions import DATABASES, Reader, open_databases, open_environment
from henge_protocol import __version__
from henge_protocol.errors import Conflict, Internal, StorageFull, Unavailable
from henge_protocol.quantity import moment
from henge_protocol.sealedfile import SALT_BYTES, seal

_PREFIX: Final = "backup."
_ROOM_BYTES: Final = 8 * 1024 * 1024
"""What is left free on the disk beside the copy."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup that is ready to be read, once: ``about`` is its header, ``pieces`` its bytes."""

    about: dict[str, Any]
    pieces: Iterator[bytes]
    """Made on demand, from a file: ask on a thread."""


class Backups:
    """Makes them, one at a time."""

    def __init__(
        self,
        store: Store,
        folder: DataDir,
        read_keys: Callable[[], Sequence[bytes]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._folder = folder
        self._read_keys = read_keys
        self._clock = clock
        self._is_busy = False
        for left in folder.path.glob(f"{_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)

    @asynccontextmanager
    async def made(self, passphrase: bytes, by: Author) -> AsyncIterator[Backup]:
        """A backup as of now; it counts as made once its last piece was taken and the block ends well.

        Raises ``Conflict backup_running``, ``StorageFull``, ``Internal storage_corrupt`` (a record is damaged, and the
        backup would be too), and as ``disk_refusal``.
        """
        if self._is_busy:
            raise Conflict("backup_running", "another backup is being made", cure="wait until it is done")
        self._is_busy = True
        try:
            await self._store.write(lambda tx: audit.note(tx, "backup.begun", "fleet", by, now=self._clock()))
            copy = await asyncio.to_thread(self._room_for_a_copy)
            try:
                await self._store.copy_to(copy)
                now = self._clock()
                small = self._small()
                meta, counts = await asyncio.to_thread(verify_copy, copy)
                about = _header(meta, now) | counts | {"secrets": SECRETS_KEY in small}
                pieces = seal(pack(small, copy / "data.mdb"), passphrase, about, salt=os.urandom(SALT_BYTES))
                yield Backup(about, pieces)
                if next(pieces, None) is None:
                    await self._store.write(lambda tx: _note(tx, by, now), essential=True)
            finally:
                await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
        finally:
            self._is_busy = False

    async def authorities(self, passphrase: bytes, by: Author) -> Iterator[bytes]:
        """Both authorities with their keys as a sealed file, piece by piece; ask for them on a thread.

        Raises ``Conflict key_elsewhere``, and as ``disk_refusal``.
        """
        try:
            small = members(self._folder.path / "data")
        except OSError as error:
            raise disk_refusal(error, f"{error.filename} cannot be read") from error
        if SERVER_KEY not in small:
            raise Conflict(
                "key_elsewhere",
                "the server authority's key is kept elsewhere, so there is nothing to export",
                cure="copy the file that holds it; or bring it back first: hengd ca import FILE",
            )
        small.pop(LEAF, None)
        now = self._clock()
        about = {"kind": "authorities", "fleet": self._folder.authorities.fleet, "made": moment(now),
                 "henge": __version__}  # fmt: skip
        await self._store.write(lambda tx: audit.note(tx, "authority.exported", "authority/server", by, now=now))
        return seal(pack(small, None), passphrase, about, salt=os.urandom(SALT_BYTES))

    def _room_for_a_copy(self) -> Path:
        """A new private folder on a disk that has room for the copy."""
        needed = self._store.figures().used_bytes + _ROOM_BYTES
        free = free_bytes(self._folder.path)
        if free < needed:
            raise StorageFull(
                "storage_full",
                f"a backup needs {needed:,} bytes on the disk of {self._folder.path} for a while, {free:,} are free",
                cure="free space on that disk; nothing was changed",
            )
        try:
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._folder.path))
        except OSError as error:
            raise disk_refusal(error, f"no copy can be made in {self._folder.path}") from error

    def _small(self) -> dict[str, bytes]:
        """Everything but the store. Read after the copy was made: the journal must know whatever the copy knows."""
        data = self._folder.path / "data"
        try:
            small = members(data)
            if self._folder.journal.exists():
                small[JOURNAL] = self._folder.journal.read_bytes()
        except OSError as error:
            raise disk_refusal(error, f"{error.filename} cannot be read") from error
        try:
            small[SECRETS_KEY] = b"".join(written_key(key) for key in self._read_keys())
        except Unavailable:
            pass  # locked; the header says that the key is not in it
        return small


def members(data: Path) -> dict[str, bytes]:
    """What a folder ``data`` has of the authorities, by their names in the archive; raises OSError."""
    is_offline = (data / OFFLINE_KEY).exists() and not (data / SERVER_KEY).exists()
    needed = [name for name in AUTHORITIES if name != SERVER_KEY or not is_offline]
    others = [name for name in UNDER_WAY if (data / name).exists()]
    return {name: (data / name).read_bytes() for name in (*needed, *others)}


def verify_copy(folder: Path) -> tuple[Meta, dict[str, int]]:
    """Read every record of a store that nobody has open; its own facts, and how many things it holds.

    Raises ``Internal storage_corrupt`` or ``storage_foreign``, and as ``disk_refusal``.
    """
    try:
        with closing(open_environment(folder, (folder / "data.mdb").stat().st_size)) as env:
            databases = open_databases(env)
            with env.begin() as txn:
                tx = Reader(txn, databases)
                for name in DATABASES:
                    for _ in tx.scan(name):
                        pass
                counts = {what: tx.count(name) for what, name in (("devices", "ids"), ("revisions", "revisions"))}
                return read_meta(tx), counts
    except lmdb.Error as error:
        if isinstance(error, (lmdb.DiskError, lmdb.MapFullError)):
            raise disk_refusal(error, f"{folder} cannot be read") from error
        raise Internal("storage_foreign", f"{folder}/data.mdb is not a store of henge ({error})") from error


def _header(meta: Meta, now: float) -> dict[str, Any]:
    return {
        "kind": "backup", "fleet": meta.fleet, "epoch": meta.epoch, "revision": meta.revision, "format": meta.format,
        "made": moment(now), "henge": __version__,
    }  # fmt: skip


def _note(tx: Transaction, by: Author, now: float) -> None:
    audit.note(tx, "backup.made", "fleet", by, now=now)
    tx.put("meta", META_KEY, packed(msgspec.structs.replace(read_meta(tx), backed_up=now)))
