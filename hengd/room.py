"""Room for the store: on its disk, with some set aside for revocations, and in its map, which grows live.

And what is said when the disk says no.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import lmdb

from henge_protocol.errors import Denied, HengeError, Internal, StorageFull

log = logging.getLogger("hengd.store")

FREE_RESERVE_BYTES: Final = 4 * 1024 * 1024
"""Ordinary writes are refused below this much free disk, so that revocations still fit."""
ESSENTIAL_ROOM_BYTES: Final = 1024 * 1024
"""Below this much free disk the ballast is given up for an essential operation."""
BALLAST_BYTES: Final = 8 * 1024 * 1024
MAX_MAP_BYTES: Final = 64 * 1024**3
"""The map grows no further: more than any fleet takes."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What a disk says that takes no more; a card at the end of its life turns read-only."""


def disk_refusal(error: OSError | lmdb.Error, what: str) -> HengeError:
    """What is told of a disk that refused: ``storage_full``, ``bad_file`` (not allowed) or ``storage_failed``."""
    number = system_error(error)
    message = f"{what}: {os.strerror(number) if number else error}"
    if number in FULL:
        return StorageFull("storage_full", message, cure="free space on that disk, or make it writable again")
    if number in (errno.EACCES, errno.EPERM):
        return Denied("bad_file", message, cure="see who owns it (ls -la), and run hengd as that user")
    return Internal("storage_failed", message, cure="look at the disk and at the kernel's log (dmesg)")


def takes_no_more(folder: Path, error: Exception | None = None) -> StorageFull:
    """The refusal of a write for which the disk of ``folder`` has no room, or which has become read-only."""
    if error is not None and system_error(error) == errno.EROFS:
        message = f"the disk of {folder} has become read-only; nothing was changed"
        cure = "see why (dmesg) and make it writable again; reading and pushing go on meanwhile"
        return StorageFull("storage_full", message, cure=cure)
    reason = "" if error is None else f" ({error})"
    message = f"the disk of {folder} is full{reason}; nothing was changed"
    cure = "free space on that disk; reading, pushing and revoking go on meanwhile"
    return StorageFull("storage_full", message, cure=cure)


def system_error(error: Exception) -> int:
    """The system's number of an error, also of LMDB's; 0 if it is not the system's."""
    number = getattr(error, "errno", None) or getattr(error, "code", None) or 0
    return max(0, number)


class Growth:
    """One growth of the map: either the loop's thread does it while the writer waits, or the writer gives it up."""

    def __init__(self, env: Any, wanted: int) -> None:
        self._env = env
        self._wanted = wanted
        self._decided = threading.Lock()
        """Whoever takes it decides; without it a loop that was blocked would grow the map under the writer's feet."""
        self._ended = threading.Event()
        self._is_grown = False

    def run(self) -> None:
        """On the loop's thread: grow, unless the writer has gone on."""
        if not self._decided.acquire(blocking=False):
            return
        try:
            self._env.set_mapsize(self._wanted)
            self._is_grown = True
        except lmdb.Error as error:
            log.warning("the store's map cannot grow: %s", error, extra={"event": "store_not_grown"})
        finally:
            self._ended.set()

    def wait(self, timeout_s: float) -> bool:
        """On the writer's thread: whether the map has grown; False means that it will not."""
        if not self._ended.wait(timeout_s) and not self._decided.acquire(blocking=False):
            self._ended.wait()
        return self._is_grown


def make_ballast(folder: Path) -> None:
    """Set space aside that a revocation may use when the disk is full; does nothing while there is little."""
    path, free = folder / "ballast", free_bytes(folder)
    if path.exists() or free < 2 * FREE_RESERVE_BYTES:
        return
    try:
        with open(path, "xb") as file:
            os.posix_fallocate(file.fileno(), 0, min(BALLAST_BYTES, free // 8))
    except OSError:
        path.unlink(missing_ok=True)


def release_ballast(folder: Path) -> None:
    """Give the set-aside space back."""
    (folder / "ballast").unlink(missing_ok=True)


def used_bytes(env: Any) -> int:
    """How long the store's file is as of the last commit; what lies beyond is of no use."""
    return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])


def free_bytes(folder: Path) -> int:
    """What ordinary users may still write on the folder's disk."""
    figures = os.statvfs(folder)
    return figures.f_bavail * figures.f_frsize


def has_room(folder: Path) -> bool:
    """Whether the disk takes data: a quota shows neither in free space nor in what LMDB says of a short write."""
    probe = folder / "probe"
    try:
        with open(probe, "wb") as file:
            file.write(bytes(64 * 1024))
            file.flush()
            os.fsync(file.fileno())
        return free_bytes(folder) >= FREE_RESERVE_BYTES
    except OSError as error:
        return error.errno not in FULL
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
