from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from henge_protocol import keyfiles
from henge_protocol.errors import Denied, HengeError, Invalid, Malformed, NotFound, StorageFull, TooLarge


class Cut(BaseException):
    """Stands for the power going off: nothing after it reaches the disk."""


class FailingFiles:
    """The real files, until the n-th operation fails; ``after`` does that operation and then fails."""

    def __init__(self, n: int, failure: BaseException, *, after: bool, only: str = "") -> None:
        self.left, self.failure, self.after, self.only = n, failure, after, only
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def operation(*arguments: Any) -> Any:
            self.calls.append(name)
            if isinstance(self.failure, Cut) and self.left < 0 and name != "close":
                raise self.failure
            self.left -= self.only in ("", name)
            if self.left != -1:
                return getattr(os, name)(*arguments)
            self.left = -1 if isinstance(self.failure, Cut) else -2
            if self.after or name == "close":
                getattr(os, name)(*arguments)
            raise self.failure

        return operation


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("write", "mode"), [(keyfiles.write_private, 0o600), (keyfiles.write_public, 0o644)])
def test_mode_does_not_depend_on_the_umask(tmp_path: Path, write: Any, mode: int) -> None:
    for umask in (0o000, 0o077, 0o777):
        before = os.umask(umask)
        try:
            write(tmp_path / f"f{umask}", b"x")
        finally:
            os.umask(before)

        assert mode_of(tmp_path / f"f{umask}") == mode


def test_what_is_written_is_read(tmp_path: Path) -> None:
    keyfiles.write_private(tmp_path / "key", b"old" * 1000)
    keyfiles.write_private(tmp_path / "key", b"new")

    assert keyfiles.read_private(tmp_path / "key") == b"new"
    assert os.listdir(tmp_path) == ["key"]


def operations_of_one_write(path: Path) -> int:
    counting = FailingFiles(10_000, Cut(), after=False)
    keyfiles.write_private(path, b"old", files=counting)
    return len(counting.calls)


@pytest.mark.parametrize("after", [False, True])
def test_a_cut_anywhere_leaves_the_old_content_or_the_new(tmp_path: Path, after: bool) -> None:
    path = tmp_path / "key"
    operations = operations_of_one_write(path)
    results = []
    for n in range(operations):
        keyfiles.write_private(path, b"old")
        with pytest.raises(Cut):
            keyfiles.write_private(path, b"new", files=FailingFiles(n, Cut(), after=after))
        results.append(keyfiles.read_private(path))

    assert results == sorted(results, reverse=True), "old until the rename, new from then on"
    assert set(results) == {b"old", b"new"}
    keyfiles.write_private(path, b"last")
    assert os.listdir(tmp_path) == ["key"], "what a cut left behind is taken over"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_an_error_anywhere_is_told_and_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    path = tmp_path / "key"
    for n in range(operations_of_one_write(path)):
        with pytest.raises(HengeError) as refusal:
            keyfiles.write_private(path, b"new", files=FailingFiles(n, OSError(number, "broken"), after=False))

        assert refusal.value.code == ("storage_full" if number == errno.ENOSPC else "bad_file")
        assert keyfiles.read_private(path) in (b"old", b"new")
        assert os.listdir(tmp_path) == ["key"]


def test_content_and_folder_are_flushed_in_the_right_order(tmp_path: Path) -> None:
    files = FailingFiles(10_000, Cut(), after=False)
    keyfiles.write_private(tmp_path / "key", b"x", files=files)

    assert files.calls == ["open", "fchmod", "write", "fsync", "close", "replace", "open", "fsync", "close"]


def test_short_writes_are_continued(tmp_path: Path) -> None:
    class OneByte(FailingFiles):
        def write(self, fd: int, data: bytes) -> int:
            return os.write(fd, data[:1])

    keyfiles.write_private(tmp_path / "key", b"secret", files=OneByte(10_000, Cut(), after=False))

    assert keyfiles.read_private(tmp_path / "key") == b"secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_secret_that_others_can_reach_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(mode)

    with pytest.raises(Denied) as refusal:
        keyfiles.read_private(path)

    assert refusal.value.code == "not_private"
    assert refusal.value.cure == f"chmod 600 {path}"
    assert keyfiles.read_public(path) == b"secret"


def test_odd_files_are_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe", 0o600)

    for name in ("link", "pipe", ".", "/dev/null"):
        with pytest.raises(Invalid) as refusal:
            keyfiles.read_private(tmp_path / name)
        assert refusal.value.code == "bad_file"


def test_an_absent_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        keyfiles.read_private(tmp_path / "key")


def test_the_limit_of_size_is_exact(tmp_path: Path) -> None:
    keyfiles.write_private(tmp_path / "key", b"12345")

    assert keyfiles.read_private(tmp_path / "key", limit_bytes=5) == b"12345"
    with pytest.raises(TooLarge):
        keyfiles.read_private(tmp_path / "key", limit_bytes=4)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"untouched")
    (tmp_path / "key").symlink_to("target")
    (tmp_path / ".key.new").symlink_to("target")

    keyfiles.write_private(tmp_path / "key", b"secret")

    assert (tmp_path / "target").read_bytes() == b"untouched"
    assert keyfiles.read_private(tmp_path / "key") == b"secret"


def test_removing_is_durable_and_may_find_nothing(tmp_path: Path) -> None:
    keyfiles.write_private(tmp_path / "key", b"x")
    files = FailingFiles(10_000, Cut(), after=False)

    keyfiles.remove_file(tmp_path / "key", files=files)
    keyfiles.remove_file(tmp_path / "key")

    assert files.calls == ["unlink", "open", "fsync", "close"]
    with pytest.raises(Invalid):
        keyfiles.remove_file(tmp_path)


@pytest.mark.parametrize("after", [False, True])
def test_a_file_takes_the_name_of_another_whole_or_not_at_all(tmp_path: Path, after: bool) -> None:
    for n in range(5):
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "old").write_bytes(b"old")
        try:
            keyfiles.move_file(tmp_path / "new", tmp_path / "old", files=FailingFiles(n, Cut(), after=after))
        except Cut:
            pass
        assert (tmp_path / "old").read_bytes() == (b"old" if (tmp_path / "new").exists() else b"new")
    with pytest.raises(HengeError) as refused:
        keyfiles.move_file(tmp_path / "none", tmp_path / "old")
    assert refused.value.code == "bad_file"


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    keyfiles.make_private_dir(path)
    keyfiles.make_private_dir(path)

    assert mode_of(path) == 0o700


def test_a_folder_open_to_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o755)

    with pytest.raises(Denied) as refusal:
        keyfiles.make_private_dir(path)

    assert "chmod 700" in refusal.value.cure
    assert mode_of(path) == 0o755


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)

    for path, named in (("file", "file"), ("file/below", "file"), ("link", "link")):
        with pytest.raises(Invalid, match=f"{tmp_path / named} is not a folder"):
            keyfiles.make_private_dir(tmp_path / path)


def test_a_full_disk_makes_no_folder(tmp_path: Path) -> None:
    files = FailingFiles(0, OSError(errno.ENOSPC, "full"), after=False)

    with pytest.raises(StorageFull):
        keyfiles.make_private_dir(tmp_path / "new", files=files)


@pytest.mark.parametrize(("mode", "closed"), [(0o600, False), (0o440, False), (0o460, True), (0o604, True)])
def test_a_secret_for_a_group_may_be_read_by_it_and_by_nobody_else(tmp_path: Path, mode: int, closed: bool) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    if closed:
        with pytest.raises(Denied, match="secret"):
            keyfiles.read_private(path, by_group=True)
    else:
        assert keyfiles.read_private(path, by_group=True) == b"secret"


def test_what_is_handed_over_once_may_stand_behind_a_link_and_tells_its_mode(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"x")
    (tmp_path / "token").chmod(0o640)
    (tmp_path / "link").symlink_to("token")

    assert keyfiles.read_once(tmp_path / "link") == (b"x", 0o640)


def test_what_is_handed_over_once_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"x" * 11)

    with pytest.raises(TooLarge):
        keyfiles.read_once(tmp_path / "token", limit_bytes=10)


def read_opened(path: Path) -> bytes:
    with keyfiles.open_once(path) as file:
        return file.read()


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(os.path.relpath(path))


ODD: dict[str, Callable[[Path], object]] = {
    "F01 nothing": lambda path: None,
    "F01 a folder": Path.mkdir,
    "F01 a socket": bind_socket,
    "F01 a device": lambda path: path.symlink_to("/dev/zero"),
    "F02 a link to nothing": lambda path: path.symlink_to("nowhere"),
    "F02 a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("make", [pytest.param(make, id=what) for what, make in ODD.items()])
@pytest.mark.parametrize("read", [keyfiles.read_once, read_opened, lambda path: keyfiles.read_passphrase(str(path))])
def test_what_a_person_names_and_is_no_file_is_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], read: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(tmp_path / "odd")
    with pytest.raises((Invalid, NotFound)) as refusal:
        read(tmp_path / "odd")

    assert refusal.value.code == "bad_file"


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:  # F01
    os.mkfifo(tmp_path / "pipe", 0o600)

    assert keyfiles.read_once(tmp_path / "pipe") == (b"", 0)
    assert read_opened(tmp_path / "pipe") == b""
    with pytest.raises(Invalid, match="not a regular file"):
        keyfiles.read_passphrase(str(tmp_path / "pipe"))


@pytest.mark.parametrize("read", [keyfiles.read_once, keyfiles.read_private, keyfiles.read_public])
def test_a_file_that_grows_while_it_is_read_is_refused_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[..., object]
) -> None:  # F05
    path = tmp_path / "log"
    keyfiles.write_private(path, b"x" * 10)
    really_read = os.read

    def grow_and_read(fd: int, size: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"x" * 10)
        return really_read(fd, min(size, 10))

    monkeypatch.setattr(keyfiles.os, "read", grow_and_read)
    with pytest.raises(TooLarge, match=str(path)):
        read(path, limit_bytes=100)


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # F05
    path = tmp_path / "key"
    keyfiles.write_private(path, b"old one")
    really_read = os.read

    def replace_and_read(fd: int, size: int) -> bytes:
        keyfiles.write_private(path, b"new one")
        return really_read(fd, min(size, 2))

    monkeypatch.setattr(keyfiles.os, "read", replace_and_read)

    assert keyfiles.read_private(path) == b"old one"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"correct horse", id="F06 no final newline"),
        pytest.param(b"correct horse\n", id="F14 a newline"),
        pytest.param(b"correct horse\r\n", id="F06 CRLF"),
        pytest.param(b"\xef\xbb\xbfcorrect horse\n", id="F06 BOM"),
        pytest.param(b"correct horse\nand another line\n", id="F14 more lines"),
    ],
)
def test_a_passphrase_is_the_first_line_however_it_was_saved(tmp_path: Path, content: bytes) -> None:
    keyfiles.write_private(tmp_path / "passphrase", content)
    (tmp_path / "link").symlink_to("passphrase")

    assert keyfiles.read_passphrase(str(tmp_path / "link")) == "correct horse"


@pytest.mark.parametrize(
    "content", [pytest.param(b"caf\xe9", id="F06 Latin-1"), pytest.param("caf\u00e9".encode("utf-16"), id="F06 UTF-16")]
)
def test_a_passphrase_that_is_not_utf_8_is_refused(tmp_path: Path, content: bytes) -> None:
    keyfiles.write_private(tmp_path / "passphrase", content)
    with pytest.raises(Malformed) as refusal:
        keyfiles.read_passphrase(str(tmp_path / "passphrase"))

    assert refusal.value.code == "bad_encoding"
    assert "caf" not in refusal.value.message


def test_a_passphrase_comes_through_a_pipe_of_the_shell() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"correct horse\n")
        os.close(writing)
        assert keyfiles.read_passphrase(f"/dev/fd/{reading}") == "correct horse"
    finally:
        os.close(reading)


@pytest.mark.parametrize(("verb", "shut", "shown"), [
    ("read", (), "etc/henge/key"),
    ("write", (), "etc/henge"),
    ("read", ("etc",), "etc"),
    ("write", ("etc", "etc/henge"), "etc"),
    ("create", (), "etc/henge"),
])  # fmt: skip
def test_a_denial_names_what_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, shut: tuple[str, ...], shown: str
) -> None:
    """Root may do everything, so the system's answers are played."""
    (tmp_path / "etc/henge").mkdir(parents=True)
    closed = [tmp_path / one for one in shut]
    monkeypatch.setattr(keyfiles.os, "access", lambda path, _mode: path not in closed)
    error = PermissionError(errno.EACCES, "Permission denied")
    refusal = keyfiles.file_refusal(error, tmp_path / "etc/henge/key", verb)

    assert refusal.message == f"cannot {verb} {tmp_path / 'etc/henge/key'}: Permission denied"
    assert refusal.cure.endswith(f"; see: ls -ld {tmp_path / shown}")


def test_what_comes_in_pieces_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path, left = tmp_path / "henge.backup", tmp_path / ".henge.backup.new"
    path.write_bytes(b"old")
    left.write_bytes(b"of a cut")
    with keyfiles.replacing(path) as (file, temporary):
        file.write(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.stat().st_mode & 0o777 == 0o600

    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"new", [path])


def test_what_comes_in_pieces_and_not_whole_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "henge.backup"
    path.write_bytes(b"old")

    def write_half() -> None:
        with keyfiles.replacing(path) as (file, _):
            file.write(b"half")
            raise LookupError

    with pytest.raises(LookupError):
        write_half()

    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_what_comes_in_pieces_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), keyfiles.replacing(tmp_path / "none" / "file"):
        pass
