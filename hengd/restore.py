"""A backup becomes a data folder again, here or elsewhere: checked to its last byte before anything is written.

A file that holds only the authorities, or of which only they are taken, founds an empty store of the same fleet.

The restored fleet goes on as a new history line: devices that ran something newer than the backup are held and shown,
and tokens, which may have been used since, are gone. Revocations are never forgotten: those in the journal of the old
machine count too, if there is one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import lmdb
import msgspec

from hengd.archive import AUTHORITIES, JOURNAL, SECRETS_KEY, UNDER_WAY, unpack
from hengd.authorities import Authorities
from hengd.backup import verify_copy
from hengd.datadir import build_data, make_store, new_epoch, refuse_foreign_folder, unused_data_dir
from hengd.journal import append_end, read_ends, read_named_ends
from hengd.keyring import own_key
from hengd.migrations import MIGRATIONS, Migrated, Migration, Opening
from hengd.records import FORMAT, META_KEY, pack
from hengd.room import disk_refusal, free_bytes
from hengd.rules import audit
from hengd.rules.fleet import read_meta
from hengd.rules.outcome import Author
from hengd.transactions import Transaction, open_databases, open_environment
from henge_protocol.errors import Conflict, Internal, Invalid, StorageFull
from henge_protocol.keyfiles import make_private_dir, read_private, write_private, write_public
from henge_protocol.sealedfile import Header, damaged, read_header, unseal

_ROOM: Final = 1.2
"""So many times the backup's size must be free: the store is opened, and grows by a page or two."""
_ROOM_TO_MIGRATE: Final = 2.2
"""The same for a store of an older format, which may be written anew."""
_TRY: Final = ".henge-try-"
_GROWTH_BYTES: Final = 16 * 1024 * 1024
_KINDS: Final = ("backup", "authorities")
"""What a file can hold: everything, or the authorities alone."""
_AUTHOR: Final = Author("henge", "restore", may_end_identities=False)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a backup held, and where the line goes on."""

    about: dict[str, Any]
    """The header: fleet, revision, when it was made, how many devices."""
    epoch: str
    revocations: int
    """How many the journal of the old machine added."""
    migrated: Migrated | None
    """Whether the backup was of an older format."""
    founded: bool
    """The store is a new one: only the authorities were taken."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What there is to work with, besides the backup's content."""

    header: Header
    ended: Mapping[tuple[str, str], float]
    """Whom the journal of the folder that is given up knows as revoked, and since when."""
    migrations: Mapping[int, Migration]
    anew: bool
    """Take only the authorities, and found the store."""
    now: float


def restore(
    file: BinaryIO,
    path: Path,
    passphrase: bytes,
    *,
    now: float,
    allow_network_fs: bool,
    journal: Path | None = None,
    only_try: bool = False,
    only_authorities: bool = False,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> Restored:
    """Make the data of ``path``, which has none, from a backup; ``only_try`` does everything and leaves nothing.

    With ``only_authorities``, or from a file that holds nothing else, the store is founded anew. ``journal`` is the
    journal of revocations of a folder that is given up. Interrupted at any point it leaves either nothing or a folder
    that starts.

    Raises ``Invalid bad_backup``, ``Invalid bad_file`` for a pipe or a journal that is none,
    ``Denied wrong_passphrase``, ``Conflict exists`` (there are data, or another key of secrets), ``StorageFull`` before
    a byte is written, and as ``open_data_dir``.
    """
    ended = read_named_ends(journal) if journal else {}
    if not file.seekable():
        raise Invalid("bad_file", "the backup comes through a pipe, and it is read twice", cure="keep it in a file")
    begin = file.tell()
    header = read_header(file.read)
    _check_header(header)
    for _ in unseal(header, file.read, passphrase):  # all of it, before anything is written
        pass
    file.seek(begin)
    header = read_header(file.read)
    pieces = unseal(header, file.read, passphrase)
    anew = only_authorities or header.about["kind"] != "backup"
    given = _Given(header, ended, migrations, anew, now)
    if only_try:
        return _tried(path, file, pieces, given)
    refuse_foreign_folder(path, "restore")
    with unused_data_dir(path, allow_network_fs=allow_network_fs, now=now):
        _check_room(path, file, header)
        filled: list[Restored] = []

        def fill(new: Path) -> None:
            done, key = _fill(new, pieces, given)
            filled.append(done)
            _put_key(path, key)

        build_data(path, fill)
        return filled[0]


def _tried(path: Path, file: BinaryIO, pieces: Iterator[bytes], given: _Given) -> Restored:
    """Everything in a private folder beside ``path``, which is gone afterwards: nobody else ever sees the keys."""
    place = path.parent
    while not place.exists():
        place = place.parent
    _check_room(place, file, given.header)
    try:
        for left in place.glob(f"{_TRY}*"):  # of a try that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_TRY, dir=place) as folder:
            new = Path(folder)
            (new / "db").mkdir(mode=0o700)
            return _fill(new, pieces, given)[0]
    except OSError as error:
        raise disk_refusal(error, f"the backup cannot be tried in {place}") from error


def _check_header(header: Header) -> None:
    if header.about.get("kind") not in _KINDS:
        raise damaged(f"it holds {header.about.get('kind', 'something else')!r}", cure="name a file of hengectl backup")
    if header.about.get("format", 0) > FORMAT:
        raise damaged("it was made by a newer henge", cure="use the henge that made it, or a newer one")


def _check_room(path: Path, file: BinaryIO, header: Header) -> None:
    room = _ROOM if header.about.get("format") == FORMAT else _ROOM_TO_MIGRATE
    needed, free = int(os.fstat(file.fileno()).st_size * room), free_bytes(path)
    if free < needed:
        raise StorageFull(
            "storage_full",
            f"the backup needs {needed:,} bytes on the disk of {path}, {free:,} are free",
            cure="free space there, or choose another --data-dir; nothing was written",
        )


def _fill(new: Path, pieces: Iterator[bytes], given: _Given) -> tuple[Restored, bytes | None]:
    """Everything in the new folder; then its store, the one of the backup or a new one, begins its new line.

    With the key of the secrets, if it is to come along: a new store makes its own.
    """
    small = unpack(pieces, None if given.anew else new / "db" / "data.mdb")
    (new / "ca").mkdir(mode=0o700, exist_ok=True)
    for name in (*AUTHORITIES, *UNDER_WAY):
        if name in small:
            (write_public if name.endswith(".crt") else write_private)(new / name, small[name])
    fleet = Authorities(new / "ca").fleet
    added = _write_journal(new / JOURNAL, small.get(JOURNAL, b""), given.ended)
    migrated = None
    if given.anew:
        make_store(new / "db", fleet, given.now, _GROWTH_BYTES)
    else:
        migrated = _bring_up_to_date(new / "db", fleet, given.migrations)
    verify_copy(new / "db")
    epoch = _begin_line(new / "db", given.now)
    done = Restored(given.header.about, epoch, added, migrated, founded=given.anew)
    return done, None if given.anew else small.get(SECRETS_KEY)


def _write_journal(path: Path, journal: bytes, ended: Mapping[tuple[str, str], float]) -> int:
    """The journal of the backup and what the old machine's adds to it; how many that are."""
    write_private(path, journal)
    known = read_ends(path)
    news = {who: at for who, at in ended.items() if at > known.get(who, 0.0)}
    for (role, subject), at in news.items():
        append_end(path, at, role, subject, durable=False)
    return len(news)


def _bring_up_to_date(folder: Path, fleet: str, migrations: Mapping[int, Migration]) -> Migrated | None:
    """Today's format, if the backup is of an older one; as it was it lies in the backup."""
    with closing(open_environment(folder, (folder / "data.mdb").stat().st_size + _GROWTH_BYTES)) as env:
        try:
            opening = Opening(folder, fleet=fleet, keep=None, migrations=migrations)
            opening.databases(env)
            return opening.migrated
        except lmdb.Error as error:
            raise Internal("storage_foreign", f"{folder}/data.mdb is not a store of henge ({error})") from error


def _begin_line(folder: Path, now: float) -> str:
    """Give the store a new epoch that begins at its revision, and forget what may have been used up since."""
    with closing(open_environment(folder, (folder / "data.mdb").stat().st_size + _GROWTH_BYTES)) as env:
        databases = open_databases(env)
        with env.begin(write=True) as txn:
            tx = Transaction(txn, databases)
            meta = read_meta(tx)
            after = msgspec.structs.replace(meta, epoch=new_epoch(), begins=meta.revision)
            tx.put("meta", META_KEY, pack(after))
            for key in tx.keys("tokens"):
                tx.delete("tokens", key)
            audit.note(tx, "store.restored", "fleet", _AUTHOR, now=now, revision=meta.revision)
        env.sync(True)
    return after.epoch


def _put_key(path: Path, key: bytes | None) -> None:
    """The key of the secrets, where a daemon looks for it by itself; an equal one may be there from before."""
    if key is None:
        return
    place = own_key(path)
    if place.exists():
        if read_private(place) == key:
            return
        raise Conflict(
            "exists",
            f"{place} holds another key than the backup; nothing was restored",
            cure=f"move it aside: mv {place} {place}.old",
        )
    make_private_dir(place.parent)
    write_private(place, key)
