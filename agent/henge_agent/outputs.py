"""The files that programs read: written whole, put back whole.

A path is named by a person on the command line, never by the daemon. The agent writes regular files only: a
symbolic link, a folder, a device or a pipe in an output's place is refused and left alone.
An existing file keeps its mode and, where the agent may, its owner; a new one is readable by owner and group.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from henge_agent.formats import render
from henge_agent.settings import Output
from henge_agent.state import MAX_ORIGINAL_BYTES
from henge_protocol.errors import Invalid, NotFound, Problem
from henge_protocol.keyfiles import DISK, Files, read_public, remove_file, replace_file

NEW_FILE_MODE: Final = 0o640


@dataclass(frozen=True, slots=True)
class Written:
    """What an output's file has to hold; None: it has not to be there."""

    path: Path
    content: bytes | None


def render_all(outputs: Sequence[Output], document: bytes, value: object) -> tuple[Written, ...]:
    """What each output's file has to hold for a document. Raises ``Invalid does_not_fit`` naming file and spot."""
    return tuple(Written(output.path, _render(output, document, value)) for output in outputs)


def put(wanted: Written, *, files: Files = DISK) -> bool:
    """Make the file hold what it has to; False when it already did and nothing was written.

    Raises ``Invalid bad_file`` or ``StorageFull storage_full``; then the file is as it was.
    """
    if content_of(wanted.path) == wanted.content:
        return False
    if wanted.content is None:
        remove_file(wanted.path, files=files)
        return True
    status = _status(wanted.path)
    if status is None:
        replace_file(wanted.path, wanted.content, mode=NEW_FILE_MODE, files=files)
    else:
        keeping = cast(Files, _KeepingOwner(files, status))
        replace_file(wanted.path, wanted.content, mode=stat.S_IMODE(status.st_mode), files=keeping)
    return True


def content_of(path: Path) -> bytes | None:
    """What the file holds; None when there is none. Raises ``Invalid bad_file`` for what is not a regular file."""
    _status(path)
    try:
        return read_public(path, limit_bytes=MAX_ORIGINAL_BYTES)
    except NotFound:
        return None


def _render(output: Output, document: bytes, value: object) -> bytes:
    try:
        return render(document, value, output.format)
    except Invalid as error:
        name = output.path.name
        problems = [Problem(one.pointer, f"{name}: {one.message}", one.object) for one in error.problems]
        raise Invalid(error.code, f"{name}: {error.message}", problems=problems) from None


def _status(path: Path) -> os.stat_result | None:
    """What stands at an output's place, if it is something that may be replaced."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid("bad_file", f"cannot look at {path}: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        raise Invalid(
            "bad_file", f"{path} is a symbolic link, and links are not followed", cure="name the file that it points to"
        )
    if not stat.S_ISREG(status.st_mode):
        raise Invalid("bad_file", f"{path} is not a regular file", cure="name a file")
    return status


class _KeepingOwner:
    """File operations that give the new file the old one's owner before it takes the old one's place."""

    def __init__(self, files: Files, status: os.stat_result) -> None:
        self._files = files
        self._owner = (status.st_uid, status.st_gid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def fchmod(self, fd: int, mode: int) -> None:
        try:
            os.fchown(fd, *self._owner)  # before fchmod, because it clears set-id bits
        except OSError as error:
            if error.errno != errno.EPERM:  # only root gives files away
                raise
        self._files.fchmod(fd, mode)
