"""The journal of revocations: who was thrown out and when, beside the store.

A copy of the store from before knows nothing of a revocation made since; the journal does, and it is only added to.
A line is ``SECONDS ROLE SUBJECT``: every certificate of that identity issued until then is worthless.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
from pathlib import Path
from typing import Final

from henge_protocol.errors import Internal, Invalid
from henge_protocol.keyfiles import sync_folder

log = logging.getLogger("hengd.journal")

ROLES: Final = frozenset({"device", "admin"})
_TORN: Final = b" (torn)\n"
"""Ends a line that a power cut left without its end, so that it stays unreadable."""


def append_end(path: Path, ended: float, role: str, subject: str, *, durable: bool) -> None:
    """Add one line, on disk at return if ``durable``; raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        line = (_TORN if torn else b"") + f"{ended!r} {role} {subject}\n".encode()
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))  # the next line ends what is torn now
        if durable:
            os.fsync(descriptor)
            sync_folder(path.parent)  # a new file's name is not on disk with its content
    finally:
        os.close(descriptor)


def read_ends(path: Path) -> dict[tuple[str, str], float]:
    """When each (role, subject) was revoked last; a torn last line counts as never written, others are warned of."""
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Internal(
            "storage_failed", f"{path} cannot be read ({error.strerror})", cure="make it readable for the daemon"
        ) from error
    ends: dict[tuple[str, str], float] = {}
    for number, line in enumerate(lines, 1):
        end = _read_line(line)
        if end is None:
            log.warning("line %d of %s cannot be read", number, path, extra={"event": "journal_unreadable"})
        else:
            ended, role, subject = end
            ends[role, subject] = max(ended, ends.get((role, subject), -math.inf))
    return ends


def read_named_ends(path: Path) -> dict[tuple[str, str], float]:
    """As ``read_ends``, of a file that a person named: ``Invalid bad_file`` if it is not there or is no journal."""
    cure = "name the file DATA-DIR/data/revocations of the old folder; without it, leave --revocations away"
    try:
        status = path.stat()
    except OSError as error:
        raise Invalid("bad_file", f"{path} cannot be read ({error.strerror})", cure=cure) from error
    if not stat.S_ISREG(status.st_mode):
        raise Invalid("bad_file", f"{path} is not a file", cure=cure)
    ends = read_ends(path)
    if not ends and status.st_size:
        raise Invalid("bad_file", f"{path} is no journal of revocations", cure=cure)
    return ends


def _read_line(line: bytes) -> tuple[float, str, str] | None:
    try:
        seconds, role, subject = line.decode("ascii").split(" ")
        ended = float(seconds)
    except ValueError:
        return None
    return (ended, role, subject) if math.isfinite(ended) and role in ROLES and subject else None
