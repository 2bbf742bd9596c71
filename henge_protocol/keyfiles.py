"""Files that must not be half written, and files that nobody else may read.

Writing goes to a temporary file in the same folder, which is flushed, renamed over the old one, and the
folder flushed: after a power cut there is the old content or the new one.  The temporary file's name is
fixed (``.NAME.new``), so a cut leaves at most one behind and the next write takes it over; a file
therefore has one writer, which henge's locks see to.

Every step is one call of a ``Files`` object (the ``os`` module by default), so that a test can cut after
each of them.  Blocking: call it from a thread where the disk may be slow.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from henge_protocol.errors import Denied, HengeError, Invalid, Malformed, NotFound, StorageFull, TooLarge

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
PRIVATE_DIR_MODE = 0o700
MAX_FILE_BYTES = 64 * 1024
"""Enough for a key with its chain or a profile; larger files are somebody's mistake."""

_PIECE_BYTES = 1024 * 1024

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
UNWRITTEN = FULL | {errno.EFBIG, errno.EIO}
"""What the system says of standard output that leads to a file which takes no more."""

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REPLACE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not through a symbolic link, and without waiting for the other end of a pipe."""

_OPENED_BY_THE_SHELL = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
"""Somebody writes at the other end of such a pipe, so it can be waited for."""


class Files(Protocol):
    """The operations on files that matter to durability, with the names and meaning of the ``os`` module."""

    def open(self, path: str, flags: int, mode: int = 0o777) -> int: ...
    def write(self, fd: int, data: bytes, /) -> int: ...
    def fchmod(self, fd: int, mode: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def replace(self, src: str, dst: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def mkdir(self, path: str, mode: int = 0o777) -> None: ...


DISK: Files = os


def write_private(path: Path, data: bytes, *, files: Files = DISK) -> None:
    """Replace a file that holds a secret: mode 0600, durable on return.  Raises as ``replace_file``."""
    replace_file(path, data, mode=PRIVATE_MODE, files=files)


def write_public(path: Path, data: bytes, *, files: Files = DISK) -> None:
    """Replace a file that anybody may read: mode 0644, durable on return.  Raises as ``replace_file``."""
    replace_file(path, data, mode=PUBLIC_MODE, files=files)


def replace_file(path: Path, data: bytes, *, mode: int = PRIVATE_MODE, files: Files = DISK) -> None:
    """Put ``data`` in place of the file's content; on any failure or cut the old content stays.

    On return the new content survives a power cut.  The mode is set whatever the umask; a symbolic link at
    ``path`` is replaced, not followed.  Raises ``StorageFull storage_full`` or ``Invalid bad_file``.
    """
    prepare_file(path, data, mode=mode, files=files)
    place_file(path, files=files)


def prepare_file(path: Path, data: bytes, *, mode: int = PRIVATE_MODE, files: Files = DISK) -> None:
    """Do all of ``replace_file`` that may fail for want of room, and leave the old content in place.

    Then comes ``place_file`` or ``drop_prepared``. Raises as ``replace_file``; then nothing is left behind.
    """
    try:
        _write_new(_temporary(path), data, mode, files)
    except OSError as error:
        drop_prepared(path, files=files)
        _refuse(error, path, "write")


def place_file(path: Path, *, files: Files = DISK) -> None:
    """Put what ``prepare_file`` wrote in the old content's place. Raises as ``replace_file``."""
    try:
        files.replace(_temporary(path), str(path))
        sync_folder(path.parent, files=files)
    except OSError as error:
        drop_prepared(path, files=files)
        _refuse(error, path, "write")


def drop_prepared(path: Path, *, files: Files = DISK) -> None:
    """Remove what ``prepare_file`` wrote, or a cut left behind; what cannot be removed the next write takes over."""
    with contextlib.suppress(OSError):
        files.unlink(_temporary(path))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """As ``replace_file``, for what comes in pieces: a private file beside ``path``, open, and its own name.

    At the end it takes the place of ``path``, durably; an error inside leaves the old content, and nothing else behind.
    Whoever reads it back before that flushes first.  Raises ``OSError``.
    """
    temporary = _temporary(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # left behind by a cut
        with open(os.open(temporary, _REPLACE_FLAGS, PRIVATE_MODE), "w+b") as file:
            yield file, Path(temporary)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def move_file(path: Path, to: Path, *, files: Files = DISK) -> None:
    """Give a file the name of another in the same folder, in its place, durably.  Raises ``Invalid bad_file``."""
    try:
        files.replace(str(path), str(to))
        sync_folder(to.parent, files=files)
    except OSError as error:
        _refuse(error, to, "write")


def remove_file(path: Path, *, files: Files = DISK) -> None:
    """Remove a file if it is there, durably.  Raises ``Invalid bad_file``."""
    try:
        files.unlink(str(path))
        sync_folder(path.parent, files=files)
    except FileNotFoundError:
        return
    except OSError as error:
        _refuse(error, path, "remove")


def sync_folder(path: Path, *, files: Files = DISK) -> None:
    """Make renames and removals inside the folder survive a power cut.  Raises ``OSError``."""
    fd = files.open(str(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files.fsync(fd)
    finally:
        files.close(fd)


def read_private(path: Path, *, limit_bytes: int = MAX_FILE_BYTES, by_group: bool = False) -> bytes:
    """Return the content of a file that nobody but its owner can read or write; ``by_group``: its group may read.

    Raises ``Denied not_private`` (with the command that mends it), else as ``read_public``.
    """
    return _read(path, limit_bytes, closed_to=0o037 if by_group else 0o077)


def read_public(path: Path, *, limit_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a regular file, never through a symbolic link, never waiting on a pipe.

    Raises ``NotFound bad_file`` when it is absent, ``TooLarge too_large``, else ``Invalid bad_file``.
    """
    return _read(path, limit_bytes, closed_to=0)


def read_passphrase(source: str) -> str:
    """The first line of a private file, of a pipe that the shell made, or of standard input for ``-``.

    Raises as ``read_private``, and ``Malformed bad_encoding`` for what is not UTF-8.
    """
    if source == "-":
        data = sys.stdin.buffer.readline(MAX_FILE_BYTES)
    elif source.startswith(_OPENED_BY_THE_SHELL):
        data, _ = read_once(Path(source))
    else:
        data = read_private(followed(Path(source)), by_group=True)
    try:
        return data.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Malformed("bad_encoding", "the passphrase is not UTF-8", cure="type it anew") from None


def read_once(path: Path, *, limit_bytes: int = MAX_FILE_BYTES) -> tuple[bytes, int]:
    """What a person hands over once: a file, also behind a link, or a pipe such as the shell's ``<(command)``.

    Returns the content, and the mode of a file (0 for a pipe), so that the caller can say who else could read it. A
    pipe that the shell made is read to its end, a named one as far as it is filled. Raises as ``read_public``.
    """
    try:
        fd, mode = _open_once(path)
        try:
            os.set_blocking(fd, str(path).startswith(_OPENED_BY_THE_SHELL))
            data = _read_all(fd, path, limit_bytes)
        finally:
            os.close(fd)
    except OSError as error:
        _refuse(error, path, "read")
    return data, stat.S_IMODE(mode) if stat.S_ISREG(mode) else 0


def open_once(path: Path) -> BinaryIO:
    """As ``read_once``, for what is too large to be read in one go: open, to be read piece by piece and closed.

    A pipe that nobody writes to is empty.
    """
    try:
        fd, _ = _open_once(path)
    except OSError as error:
        _refuse(error, path, "read")
    os.set_blocking(fd, True)
    return open(fd, "rb")


def followed(path: Path) -> Path:
    """Where a link leads that somebody may have made on purpose; one that leads in a circle leads nowhere."""
    return Path(os.path.realpath(path))


def file_refusal(error: OSError, path: Path, verb: str) -> HengeError:
    """What the system said of a file, as a refusal that names it; ``verb`` is what was to be done with it.

    ``StorageFull storage_full``, ``NotFound bad_file`` when it is absent, else ``Invalid bad_file``.
    """
    refusal = _file_refusal(error, path, verb)
    refusal.__cause__ = error  # which tells exit codes apart
    return refusal


def _file_refusal(error: OSError, path: Path, verb: str) -> HengeError:
    reason = error.strerror or type(error).__name__
    if error.errno in FULL:
        return StorageFull("storage_full", f"cannot {verb} {path}: {reason}", cure="free space on that disk")
    if error.errno == errno.ELOOP:
        message = f"{path} is a symbolic link, and links are not followed here"
        return Invalid("bad_file", message, cure="name the file itself")
    if error.errno == errno.ENOENT and verb == "write":
        reason = f"{reason}; its folder is missing: mkdir -p {path.parent}"
    cure = "look at the path" if error.errno == errno.ENOENT and verb == "read" else ""
    if error.errno in (errno.EACCES, errno.EPERM):
        cure = _cure_of_denial(path, verb)
    kind = NotFound if error.errno == errno.ENOENT else Invalid
    return kind("bad_file", f"cannot {verb} {path}: {reason}", cure=cure)


def make_private_dir(path: Path, *, files: Files = DISK) -> None:
    """Make sure that the folder exists and only its owner can enter it; missing parents get mode 0755.

    An existing folder is left as it is: one open to others is refused rather than closed under their feet.
    Raises ``Denied not_private``, ``StorageFull storage_full``, ``Invalid bad_file``.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            files.mkdir(str(path), PRIVATE_DIR_MODE)
        except FileExistsError:
            _check_private_dir(path)
        else:
            sync_folder(path.parent, files=files)
    except FileExistsError:
        raise Invalid("bad_file", f"{path.parent} is not a folder", cure="name another folder") from None
    except OSError as error:
        _refuse(error, path, "create")


def _cure_of_denial(path: Path, verb: str) -> str:
    """Names what is closed: the first folder on the way that lets nobody through, the folder to write in, the file."""
    there = [folder for folder in path.absolute().parents if os.path.lexists(folder)]
    shut = [folder for folder in there if not os.access(folder, os.X_OK)]
    closed = shut[-1] if shut else there[0] if verb in ("write", "create", "remove") else path
    return f"run it as the user who owns {closed}, or have that given to you; see: ls -ld {closed}"


def _open_once(path: Path) -> tuple[int, int]:
    """Descriptor and mode of a file or a pipe; raises ``OSError`` and ``Invalid bad_file``."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        os.close(fd)
        raise Invalid("bad_file", f"{path} is neither a file nor a pipe", cure="name a file")
    return fd, mode


def _temporary(path: Path) -> str:
    return str(path.with_name(f".{path.name}.new"))


def _write_new(temporary: str, data: bytes, mode: int, files: Files) -> None:
    fd = _open_new(temporary, files)
    try:
        files.fchmod(fd, mode)
        left = memoryview(data)
        while left:
            left = left[files.write(fd, bytes(left)) :]
        files.fsync(fd)
    finally:
        files.close(fd)


def _open_new(temporary: str, files: Files) -> int:
    """Created 0600 and widened later: a secret is never readable by others, not even while empty."""
    try:
        return files.open(temporary, _WRITE_FLAGS, PRIVATE_MODE)
    except FileExistsError:
        files.unlink(temporary)  # left behind by a cut
        return files.open(temporary, _WRITE_FLAGS, PRIVATE_MODE)


def _read(path: Path, limit_bytes: int, *, closed_to: int) -> bytes:
    try:
        fd = os.open(path, _READ_FLAGS)
        try:
            _check_regular(os.fstat(fd), path, closed_to)
            return _read_all(fd, path, limit_bytes)
        finally:
            os.close(fd)
    except OSError as error:
        _refuse(error, path, "read")


def _read_all(fd: int, path: Path, limit_bytes: int) -> bytes:
    data = bytearray()
    while chunk := os.read(fd, min(limit_bytes + 1 - len(data), _PIECE_BYTES)):
        data += chunk
        if len(data) > limit_bytes:
            raise TooLarge("too_large", f"{path} has more than {limit_bytes} bytes")
    return bytes(data)


def _check_regular(status: os.stat_result, path: Path, closed_to: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Invalid("bad_file", f"{path} is not a regular file")
    if status.st_mode & closed_to:
        raise Denied(
            "not_private",
            f"{path} holds a secret and has mode {stat.S_IMODE(status.st_mode):04o}; 0600 is right",
            cure=f"chmod 600 {path}",
        )


def _check_private_dir(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise Invalid("bad_file", f"{path} is not a folder", cure="name another folder")
    if status.st_mode & 0o077:
        raise Denied(
            "not_private",
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o} and others can look inside; 0700 is right",
            cure=f"chmod 700 {path}, or name a folder of henge's own",
        )


def _refuse(error: OSError, path: Path, verb: str) -> NoReturn:
    raise file_refusal(error, path, verb) from error
