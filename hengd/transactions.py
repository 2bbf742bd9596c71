"""Views and transactions over the store's one LMDB environment, and opening it only if it is whole.

Every record carries a version and a checksum over its database, key and payload.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Final

import lmdb

from hengd.datafile import check_file
from henge_protocol.errors import Internal

DATABASES: Final = (
    "meta", "objects", "ids", "revisions", "documents", "desired", "reported",
    "certs", "certs_of", "spki", "tokens", "ends", "secrets", "keys", "audit", "audit_ends", "rescues",
)  # fmt: skip

RECORD_VERSION: Final = 1

_HEADER_BYTES: Final = 6


class Reader:
    """A consistent view. Values are copies; keep them as long as you like."""

    __slots__ = ("_databases", "_txn")

    def __init__(self, txn: Any, databases: dict[str, Any]) -> None:
        self._txn = txn
        self._databases = databases

    def get(self, database: str, key: bytes) -> bytes | None:
        """The payload under ``key``, or None; ``Internal`` ``storage_corrupt`` when its checksum is wrong."""
        value = self._txn.get(key, db=self._databases[database])
        return None if value is None else _unseal(database, key, value)

    def scan(self, database: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, payload) whose key starts with ``prefix``, in order of keys."""
        with self._txn.cursor(db=self._databases[database]) as cursor:
            if not (cursor.set_range(prefix) if prefix else cursor.first()):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, _unseal(database, key, value)

    def scan_back(self, database: str, before: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """All (key, payload) below ``before`` (or all), the last first."""
        with self._txn.cursor(db=self._databases[database]) as cursor:
            if before is not None and cursor.set_range(before):
                found = cursor.prev()
            else:
                found = cursor.last()
            if not found:
                return
            for key, value in cursor.iterprev():
                yield key, _unseal(database, key, value)

    def keys(self, database: str, prefix: bytes = b"") -> list[bytes]:
        """All keys that start with ``prefix``, in order; the records are not looked at."""
        with self._txn.cursor(db=self._databases[database]) as cursor:
            if not (cursor.set_range(prefix) if prefix else cursor.first()):
                return []
            return list(takewhile(lambda key: key.startswith(prefix), cursor.iternext(keys=True, values=False)))

    def keys_after(self, database: str, key: bytes, *, most: int) -> list[bytes]:
        """The next keys after ``key`` (``b""``: the first), at most so many."""
        with self._txn.cursor(db=self._databases[database]) as cursor:
            if not (cursor.set_range(key) if key else cursor.first()):
                return []
            keys = islice(cursor.iternext(keys=True, values=False), most + 1)
            return [found for found in keys if found != key][:most]

    def count(self, database: str) -> int:
        """How many records a database holds."""
        return int(self._txn.stat(self._databases[database])["entries"])


class Ahead(Reader):
    """The view of ``tx`` as it will be with ``changes`` to one database, of which nothing is written yet.

    The engine gives the pages of what was undone to the next commit and writes whatever is left in them; what may
    turn out to be something that must never be on the disk is therefore looked at here first. None is a deletion.
    """

    __slots__ = ("_changed", "_changes", "_order")

    def __init__(self, tx: Reader, database: str, changes: Mapping[bytes, bytes | None]) -> None:
        super().__init__(tx._txn, tx._databases)
        self._changed = database
        self._changes = changes
        self._order = sorted(changes)

    def get(self, database: str, key: bytes) -> bytes | None:
        """As ``Reader.get``."""
        if database == self._changed and key in self._changes:
            return self._changes[key]
        return super().get(database, key)

    def scan(self, database: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As ``Reader.scan``."""
        stored = super().scan(database, prefix)
        if database != self._changed:
            yield from stored
            return
        new = [key for key in self._order if key.startswith(prefix)]
        kept = ((key, payload) for key, payload in stored if key not in self._changes)
        told = ((key, payload) for key in new if (payload := self._changes[key]) is not None)
        yield from heapq.merge(kept, told)

    def keys(self, database: str, prefix: bytes = b"") -> list[bytes]:
        """As ``Reader.keys``."""
        return [key for key, _ in self.scan(database, prefix)]

    def scan_back(self, database: str, before: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """As ``Reader.scan_back``, of the databases that do not change."""
        self._refuse(database)
        return super().scan_back(database, before)

    def keys_after(self, database: str, key: bytes, *, most: int) -> list[bytes]:
        """As ``Reader.keys_after``, of the databases that do not change."""
        self._refuse(database)
        return super().keys_after(database, key, most=most)

    def count(self, database: str) -> int:
        """As ``Reader.count``, of the databases that do not change."""
        self._refuse(database)
        return super().count(database)

    def _refuse(self, database: str) -> None:
        if database == self._changed:
            raise LookupError(f"{database} is not read this way while it changes")


class Transaction(Reader):
    """A view that can write; committed as a whole or not at all."""

    __slots__ = ("notes",)

    def __init__(self, txn: Any, databases: dict[str, Any]) -> None:
        super().__init__(txn, databases)
        self.notes: list[object] = []

    def put(self, database: str, key: bytes, payload: bytes) -> None:
        """Store ``payload`` with its checksum under ``key``."""
        self._txn.put(key, _seal(database, key, payload), db=self._databases[database])

    def delete(self, database: str, key: bytes) -> bool:
        """Remove ``key``; whether it was there."""
        return bool(self._txn.delete(key, db=self._databases[database]))

    def note(self, happening: object) -> None:
        """Tell the after-commit hook about ``happening``, if this commits."""
        self.notes.append(happening)


def open_environment(folder: Path, map_bytes: int) -> Any:
    """LMDB as henge uses it; ``lib_version=0`` pins the engine whose files we promise to read.

    Makes a file where there is none; one that is there must be whole. Raises as ``check_file``, and ``lmdb.Error``.
    """
    file = folder / "data.mdb"
    if file.exists():
        check_file(file)
    return lmdb.open(
        str(folder), map_size=map_bytes, max_dbs=32, max_readers=64, mode=0o600, readahead=False, lib_version=0
    )


def open_databases(env: Any) -> dict[str, Any]:
    """All databases, made where they are missing; ``lmdb.Error`` if the environment holds another program's."""
    if env.stat()["entries"]:
        env.open_db(b"meta", create=False)
    with env.begin(write=True) as txn:  # one commit for all that are new
        return {name: env.open_db(name.encode(), txn=txn) for name in DATABASES}


_SEEDS: Final = {database: zlib.crc32(database.encode()) for database in DATABASES}
"""A record's checksum covers where it stands, so that one in the wrong place is noticed too."""


def _seal(database: str, key: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(payload, zlib.crc32(key, _SEEDS[database]))
    return b"%c\x00%b%b" % (RECORD_VERSION, checksum.to_bytes(4, "big"), payload)


def _unseal(database: str, key: bytes, value: bytes) -> bytes:
    payload = value[_HEADER_BYTES:]
    checksum = zlib.crc32(payload, zlib.crc32(key, _SEEDS[database]))
    if value[0] != RECORD_VERSION or value[2:_HEADER_BYTES] != checksum.to_bytes(4, "big"):
        raise Internal(
            "storage_corrupt",
            f"record {key.hex()[:64]} of {database} is damaged",
            cure="restore the newest backup",
        )
    return payload
