"""A backup becomes a data folder again, here or elsewhere: checked to its last byte before anything is written.

A file that holds only the authorities, or of which only they are taken, founds an empty store of the same fleet.

The restored fleet goes on as a new history line: devices that ran something newer than the backup are held and shown,
and tokens, which may have been used since, are gone. Revocations are never forgotten: those in the journal of the old
machine count too, if there is one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from hengd.archive import AUTHORITIES, JOURNAL, SECRETS_KEY, unpack
from hengd.backup import verify_copy
from hengd.datadir import build_data, load_keys, make_store, new_epoch, unused_data_dir
from hengd.journal import append_end, read_ends, read_named_ends
from hengd.keyring import own_key
from hengd.records import FORMAT, META_KEY, pack
from hengd.room import disk_refusal, free_bytes
from hengd.rules import audit
from hengd.rules.fleet import read_meta, refuse_foreign_store
from hengd.rules.outcome import Author
from hengd.transactions import Transaction, open_databases, open_environment
from henge_protocol.errors import Conflict, Denied, Invalid, StorageFull
from henge_protocol.keyfiles import make_private_dir, read_private, write_private, write_public
from henge_protocol.sealedfile import Header, damaged, read_header, unseal

_ROOM: Final = 1.2
"""So many times the backup's size must be free: the store is opened, and grows by a page or two."""
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
    founded: bool = False
    """The store is a new one: only the authorities were taken."""


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
    fill = partial(_fill, header, pieces, ended, anew=only_authorities or header.about["kind"] != "backup", now=now)
    if only_try:
        return _tried(path, file, fill)
    _refuse_foreign_folder(path)
    with unused_data_dir(path, allow_network_fs=allow_network_fs, now=now):
        _check_room(path, file)
        filled: list[Restored] = []

        def made(new: Path) -> None:
            done, key = fill(new)
            filled.append(done)
            _put_key(path, key)

        build_data(path, made)
        return filled[0]


_Fill = Callable[[Path], tuple[Restored, bytes | None]]
"""Fills a new folder; what was restored, and the key of the secrets if it came along."""


def _tried(path: Path, file: BinaryIO, fill: _Fill) -> Restored:
    """Everything in a private folder beside ``path``, which is gone afterwards: nobody else ever sees the keys."""
    place = path.parent
    while not place.exists():
        place = place.parent
    _check_room(place, file)
    try:
        for left in place.glob(f"{_TRY}*"):  # of a try that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_TRY, dir=place) as folder:
            new = Path(folder)
            (new / "db").mkdir(mode=0o700)
            return fill(new)[0]
    except OSError as error:
        raise disk_refusal(error, f"the backup cannot be tried in {place}") from error


def _check_header(header: Header) -> None:
    if header.about.get("kind") not in _KINDS:
        raise damaged(f"it holds {header.about.get('kind', 'something else')!r}", cure="name a file of hengectl backup")
    if header.about.get("format", 0) > FORMAT:
        raise damaged("it was made by a newer henge", cure="use the henge that made it, or a newer one")


def _refuse_foreign_folder(path: Path) -> None:
    """What is restored belongs to whoever restores it, and a daemon of another user could not read it."""
    if not path.exists() or path.stat().st_uid == os.geteuid():
        return
    owner = path.stat().st_uid
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    raise Denied(
        "bad_file",
        f"{path} belongs to {name}; nothing was written",
        cure=f"restore as that user: sudo -u {name} hengd ...",
    )


def _check_room(path: Path, file: BinaryIO) -> None:
    needed, free = int(os.fstat(file.fileno()).st_size * _ROOM), free_bytes(path)
    if free < needed:
        raise StorageFull(
            "storage_full",
            f"the backup needs {needed:,} bytes on the disk of {path}, {free:,} are free",
            cure="free space there, or choose another --data-dir; nothing was written",
        )


def _fill(
    header: Header, pieces: Iterator[bytes], ended: Mapping[tuple[str, str], float], new: Path,
    *, anew: bool, now: float,
) -> tuple[Restored, bytes | None]:  # fmt: skip
    """Everything in the new folder; then its store, the one of the backup or a new one, begins its new line."""
    small = unpack(pieces, None if anew else new / "db" / "data.mdb")
    (new / "ca").mkdir(mode=0o700, exist_ok=True)
    for name in AUTHORITIES:
        write = write_private if name.endswith(".key") else write_public
        write(new / name, small[name])
    fleet = load_keys(new / "ca").fleet
    added = _write_journal(new / JOURNAL, small.get(JOURNAL, b""), ended)
    if anew:
        make_store(new / "db", fleet, now, _GROWTH_BYTES)
    meta, _ = verify_copy(new / "db")
    refuse_foreign_store(meta, new / "db", fleet=fleet)
    epoch = _begin_line(new / "db", now)
    return Restored(header.about, epoch, added, founded=anew), None if anew else small.get(SECRETS_KEY)


def _write_journal(path: Path, journal: bytes, ended: Mapping[tuple[str, str], float]) -> int:
    """The journal of the backup and what the old machine's adds to it; how many that are."""
    write_private(path, journal)
    known = read_ends(path)
    news = {who: at for who, at in ended.items() if at > known.get(who, 0.0)}
    for (role, subject), at in news.items():
        append_end(path, at, role, subject, durable=False)
    return len(news)


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
