"""The files that programs read: written whole, put back whole.

A path is named by a person on this device, never by the daemon. The agent writes regular files only: a
symbolic link, a folder, a device or a pipe in an output's place is refused and left alone.
Unless a person says otherwise, an existing file keeps its mode and, where the agent may, its owner; a new one is
readable by owner and group.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from henge_agent.formats import render
from henge_agent.parts import MISSING, part_of, with_own_values
from henge_agent.records import Original
from henge_agent.settings import Output
from henge_agent.state import MAX_ORIGINAL_BYTES
from henge_agent.templates import fill, template_text
from henge_protocol.errors import HengeError, Invalid, NotFound, Problem, TooLarge
from henge_protocol.keyfiles import DISK, Files, drop_prepared, place_file, prepare_file, read_public, remove_file
from henge_protocol.strictjson import canonical

NEW_FILE_MODE: Final = 0o640


@dataclass(frozen=True, slots=True)
class Written:
    """What an output's file has to hold; None: it has not to be there."""

    path: Path
    content: bytes | None
    mode: int | None = None
    owner: tuple[int, int] | None = None


def render_all(outputs: Sequence[Output], document: bytes, value: object) -> tuple[Written, ...]:
    """What each output's file has to hold for a document. Raises ``Invalid does_not_fit`` naming file and spot.

    Raises ``bad_file`` or ``too_large`` for what lies on this device and cannot be read; that may pass.

    What a file holds of fields that are the device's own is read now and stays.
    """
    return tuple(
        Written(output.path, _render(output, document, value), output.mode, output.owner) for output in outputs
    )


def put(wanted: Written, *, files: Files = DISK) -> bool:
    """Make the file hold what it has to; False when it already did and nothing was written.

    Raises ``Invalid bad_file`` or ``StorageFull storage_full``; then the file is as it was.
    """
    return any(put_all((wanted,), files=files))


def put_all(wanted: Sequence[Written], *, files: Files = DISK) -> Iterator[Path]:
    """Make the files hold what they have to; yield each that changed, when it has changed.

    All are written beside their places before the first one takes its place, so that a lack of room, a folder in the
    way or a missing right is found while nothing has changed. Raises as ``put``; what was not yielded is as it was.
    """
    due = [each for each in wanted if not holds(each)]
    for each in wanted:
        if each not in due:
            _sweep(each.path, files)
    placed = 0
    try:
        for each in due:
            if each.content is not None:
                _prepare(each, each.content, files)
        for each in due:
            if each.content is None:
                remove_file(each.path, files=files)
            else:
                place_file(each.path, files=files)
            placed += 1
            yield each.path
    except HengeError:
        for each in due[placed:]:
            drop_prepared(each.path, files=files)
        raise


def holds(wanted: Written) -> bool:
    """Whether the file is as it has to be: content and, where they were named, mode and owner."""
    try:
        if content_of(wanted.path) != wanted.content:
            return False
    except TooLarge:  # whoever appends to it has made another file of it
        return False
    status = _status(wanted.path)
    if status is None:
        return True
    right_mode = wanted.mode is None or stat.S_IMODE(status.st_mode) == wanted.mode
    return right_mode and wanted.owner in (None, (status.st_uid, status.st_gid))


def is_in_place(wanted: Written) -> bool:
    """``holds``, and False also for what stands there and may not be replaced."""
    try:
        return holds(wanted)
    except HengeError:
        return False


def content_of(path: Path) -> bytes | None:
    """What the file holds; None when there is none. Raises ``Invalid bad_file`` for what is not a regular file."""
    _status(path)
    try:
        return read_public(path, limit_bytes=MAX_ORIGINAL_BYTES)
    except NotFound:
        return None


def original_of(path: Path) -> Original:
    """What stands at an output's place now, to be put back one day. Raises as ``content_of``."""
    content, status = content_of(path), _status(path)
    if content is None or status is None:
        return Original(None)
    return Original(content, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def put_back_of(path: Path, original: Original) -> Written:
    """What the file has to hold to be the original again; its owner only where the agent may give files away."""
    return Written(path, original.content, original.mode, original.owner if os.geteuid() == 0 else None)


def _render(output: Output, document: bytes, value: object) -> bytes | None:
    try:
        return _content(output, document, value)
    except Invalid as error:
        if error.code != "does_not_fit":
            raise
        name = output.path.name
        problems = [Problem(one.pointer, f"{name}: {one.message}", one.object) for one in error.problems]
        raise Invalid(error.code, f"{name}: {error.message}", problems=problems) from None


def _content(output: Output, document: bytes, value: object) -> bytes | None:
    if output.template is not None:
        return fill(template_text(output.template), part_of(value, output.part), output.template.name)
    if not output.part and not output.unmanaged:
        return render(document, value, output.format)
    part = part_of(value, output.part)
    if not output.unmanaged:
        return None if part is MISSING else render(canonical(part), part, output.format)
    return with_own_values(part, output, content_of(output.path))


def _sweep(path: Path, files: Files) -> None:
    """Remove what a cut between preparing and placing left beside a file."""
    if path.with_name(f".{path.name}.new").is_file():
        drop_prepared(path, files=files)


def _prepare(wanted: Written, content: bytes, files: Files) -> None:
    status = _status(wanted.path)
    mode = NEW_FILE_MODE if status is None else stat.S_IMODE(status.st_mode)
    owner = wanted.owner or (status and (status.st_uid, status.st_gid))
    if owner is not None:
        files = cast(Files, _GivenAway(files, owner, must=wanted.owner is not None))
    prepare_file(wanted.path, content, mode=mode if wanted.mode is None else wanted.mode, files=files)


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


class _GivenAway:
    """File operations that give the new file its owner before it takes the old one's place."""

    def __init__(self, files: Files, owner: tuple[int, int], *, must: bool) -> None:
        self._files = files
        self._owner = owner
        self._must = must

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def fchmod(self, fd: int, mode: int) -> None:
        try:
            os.fchown(fd, *self._owner)  # before fchmod, because it clears set-id bits
        except OSError as error:
            if self._must or error.errno != errno.EPERM:  # only root gives files away
                raise
        self._files.fchmod(fd, mode)
