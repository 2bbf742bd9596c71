"""The data folder: found or founded, locked, on a disk that keeps its promises.

::

    hengd.lock          who runs on this folder (flock)
    data/db/            the store
    data/ca/            both authorities and the server's own certificate (``authorities``)
    data/revocations    journal of revocations, append only
    data/before-format-2/   a store of an older format as it was (``migrations``)

The first start builds ``data.new`` completely, syncs it and renames it: a power cut leaves either nothing or
a folder that starts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import pwd
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from hengd.authorities import Authorities, make_authorities
from hengd.migrations import MIGRATIONS, Migration, Opening
from hengd.records import FORMAT, META_KEY, Meta, ObjectRecord, object_key, pack
from hengd.room import disk_refusal, make_ballast
from hengd.transactions import Transaction, open_databases, open_environment
from henge_protocol import pki
from henge_protocol.errors import Conflict, Denied, Internal, Invalid, Unavailable
from henge_protocol.keyfiles import make_private_dir, sync_folder

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "9p", "virtiofs", "vfat", "exfat", "ntfs", "ntfs3"}
)
"""They break locks, mapped memory or synchronous writes; each has cost somebody a database."""
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})

log = logging.getLogger("hengd.datadir")


class DataDir:
    """One locked data folder; ``close`` gives it free."""

    def __init__(self, path: Path, lock: _Lock, *, founded: bool, authorities: Authorities) -> None:
        self.path = path
        self.founded = founded
        self.authorities = authorities
        self._lock = lock

    @property
    def database(self) -> Path:
        """Folder of the store."""
        return self.path / "data" / "db"

    @property
    def journal(self) -> Path:
        """Journal of revocations."""
        return self.path / "data" / "revocations"

    def opening(self, migrations: Mapping[int, Migration] = MIGRATIONS) -> Opening:
        """What opens the store's databases, after bringing a store of an older format to today's."""
        return Opening(self.database, fleet=self.authorities.fleet, keep=self.path / "data", migrations=migrations)

    def close(self) -> None:
        """Give the folder free for another daemon."""
        self._lock.close()


def open_data_dir(path: Path, *, allow_network_fs: bool, now: float, map_bytes: int) -> DataDir:
    """Lock ``path`` and found it if it is new.

    Raises ``Conflict`` ``already_running`` (names the process), ``Invalid`` ``storage_unsuitable`` (the file system),
    ``Internal`` ``storage_foreign``, ``bad_authority`` and ``storage_failed``, ``StorageFull``, ``Unavailable``
    ``clock_suspect`` (no folder is founded by a clock far ahead), ``Denied`` and ``NotFound`` for what the file system
    says.
    """
    lock = _claim(path, allow_network_fs=allow_network_fs, now=now)
    try:
        founded = not os.path.lexists(path / "data")
        if founded:
            _refuse_founding_in_the_future(now)
            build_data(path, lambda new: _found(new, now, map_bytes))
        else:
            _refuse_empty_store(path / "data" / "db" / "data.mdb")
        authorities = Authorities(path / "data" / "ca")
        make_ballast(path / "data" / "db")
    except BaseException:
        lock.close()
        raise
    return DataDir(path, lock, founded=founded, authorities=authorities)


@contextmanager
def unused_data_dir(path: Path, *, allow_network_fs: bool, now: float) -> Iterator[None]:
    """Hold a folder that has no data yet, for ``build_data`` in it.

    Raises as ``open_data_dir``, and ``Conflict exists`` if it has data.
    """
    lock = _claim(path, allow_network_fs=allow_network_fs, now=now)
    try:
        if os.path.lexists(path / "data"):
            raise Conflict(
                "exists",
                f"{path} has data already; nothing was changed",
                cure=f"choose another --data-dir, or move it aside: mv {path}/data {path}/data.old",
            )
        yield
    finally:
        lock.close()


def refuse_foreign_folder(path: Path, command: str) -> None:
    """Raise ``Denied bad_file`` before ``hengd COMMAND`` writes what the daemon of another user could not read."""
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
        cure=f"do it as that user: sudo -u {name} hengd {command} --data-dir {path} FILE",
    )


def build_data(path: Path, fill: Callable[[Path], None]) -> None:
    """Make ``data`` in a folder that is held: complete or not at all. ``fill`` gets a folder with ``ca`` and ``db``.

    Raises what ``fill`` raises, and as ``disk_refusal``.
    """
    new = path / "data.new"
    try:
        shutil.rmtree(new, ignore_errors=True)
        for folder in (new, new / "ca", new / "db"):
            make_private_dir(folder)
        fill(new)
        for folder in (new / "ca", new / "db", new):
            sync_folder(folder)
        os.rename(new, path / "data")
        sync_folder(path)
    except (OSError, lmdb.Error) as error:
        raise disk_refusal(error, f"the data folder cannot be made in {path}") from error


def _claim(path: Path, *, allow_network_fs: bool, now: float) -> _Lock:
    make_private_dir(path)
    kind = file_system_of(path)
    if not allow_network_fs and (kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse")):
        raise Invalid(
            "storage_unsuitable",
            f"{path} lies on {kind}, which cannot keep the store's promises",
            cure="choose a local disk with --data-dir, or set store.allow_network_fs = true and keep backups",
        )
    if kind in IN_MEMORY:
        told = "%s lies in memory (%s): the fleet is forgotten when this machine is switched off"
        log.warning(told, path, kind, extra={"event": "store_in_memory"})
    return _Lock(path, now)


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Type of the file system that holds ``path``; empty where the system does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    resolved = str(path.resolve())
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def _refuse_empty_store(file: Path) -> None:
    """LMDB would quietly make an empty store in its place, and the fleet would be forgotten."""
    if not file.is_file() or file.stat().st_size == 0:
        raise Internal(
            "storage_foreign",
            f"{file} is missing or empty, though this folder has been in use",
            cure="put it back from a backup, or start anew with another --data-dir; nothing was changed",
        )


def _refuse_founding_in_the_future(now: float) -> None:
    """A clock in the past is made up for (``pki.EARLIEST_CREATION``); one far ahead would date everything for good."""
    if now > pki.EARLIEST_CREATION + pki.CA_LIFETIMES_S["client"]:
        raise Unavailable(
            "clock_suspect",
            f"the machine's clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}, far too late; nothing was made",
            cure="set the clock (timedatectl), then start again; if it is right, use a newer henge",
        )


class _Lock:
    """The folder and ``hengd.lock`` in it, both held. The folder's alone would do; the file says who holds it."""

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._folder = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._file = -1
        try:
            self._hold(self._folder)
            self._file = self._open(path / "hengd.lock", os.O_RDWR | os.O_CREAT)
            self._hold(self._file)
        except BaseException:
            self.close()
            raise
        with contextlib.suppress(OSError):  # on a full disk nobody learns the number; the lock holds all the same
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"pid {os.getpid()}, since unix time {now:.0f}\n".encode(), 0)

    def close(self) -> None:
        """Give both free."""
        os.close(self._folder)
        if self._file >= 0:
            os.close(self._file)

    def _open(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO):
                raise disk_refusal(error, f"cannot open {path}") from error
            raise Invalid("bad_file", f"{path} is not what it should be: {error.strerror}") from error

    def _hold(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another hengd works on {self._path} ({self._holder()})"
            raise Conflict("already_running", message, cure="stop it first, or choose --data-dir") from None
        except OSError:
            if descriptor == self._file:
                raise
            return  # a network file system that somebody allowed: it locks files only

    def _holder(self) -> str:
        try:
            said = (self._path / "hengd.lock").read_bytes()[:200].decode("ascii", "replace").strip()
        except OSError:
            said = ""
        return said or "another process"


def _found(new: Path, now: float, map_bytes: int) -> None:
    fleet = pki.new_id(secrets.token_bytes(16))
    make_authorities(new / "ca", fleet, now=now)
    make_store(new / "db", fleet, now, map_bytes)


def make_store(folder: Path, fleet: str, now: float, map_bytes: int) -> None:
    """Found an empty store of a fleet; ``lmdb.Error`` and OSError."""
    env = open_environment(folder, min(map_bytes, 16 * 1024 * 1024))
    try:
        databases = open_databases(env)
        with env.begin(write=True) as txn:
            tx = Transaction(txn, databases)
            meta = Meta(format=FORMAT, fleet=fleet, epoch=new_epoch(), created=now, clock_high_water=now)
            tx.put("meta", META_KEY, pack(meta))
            spec = {"selector": "", "priority": 0, "schema": "", "values": {}}
            everybody = ObjectRecord(kind="Group", name="all", spec=spec, created=now, changed=now, author="henge")
            tx.put("objects", object_key("Group", "all"), pack(everybody))
        env.sync(True)
    finally:
        env.close()


def new_epoch() -> str:
    """The name of a history line that begins."""
    return secrets.token_hex(5)
