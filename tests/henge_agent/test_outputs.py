from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from henge_agent.outputs import Written, content_of, put, render_all
from henge_agent.settings import read_output
from henge_protocol.errors import HengeError, Invalid, StorageFull
from tests.henge_agent.cutting import Cut, CuttingFiles, FullDisk


def test_a_new_file_is_readable_by_owner_and_group(tmp_path: Path) -> None:
    assert put(Written(tmp_path / "lamp.json", b"{}"))

    assert content_of(tmp_path / "lamp.json") == b"{}"
    assert stat.S_IMODE((tmp_path / "lamp.json").stat().st_mode) == 0o640


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "lamp.json"
    path.write_bytes(b"old")
    path.chmod(0o604)

    assert put(Written(path, b"new"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_an_existing_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "lamp.json"
    path.write_bytes(b"old")
    os.chown(path, 1234, 4321)

    put(Written(path, b"new"))

    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_a_file_that_holds_it_already_is_not_touched(tmp_path: Path) -> None:
    put(Written(tmp_path / "lamp.json", b"{}"))
    before = (tmp_path / "lamp.json").stat()

    assert not put(Written(tmp_path / "lamp.json", b"{}"))

    after = (tmp_path / "lamp.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_file_that_has_not_to_be_there_is_removed(tmp_path: Path) -> None:
    put(Written(tmp_path / "lamp.json", b"{}"))

    assert put(Written(tmp_path / "lamp.json", None))
    assert not put(Written(tmp_path / "lamp.json", None))
    assert content_of(tmp_path / "lamp.json") is None


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_what_is_no_regular_file_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lamp.json"
    (tmp_path / "real").write_bytes(b"real")
    {
        "link": lambda: path.symlink_to("real"),
        "dangling": lambda: path.symlink_to("nowhere"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    before = path.lstat()

    with pytest.raises(Invalid) as refusal:
        put(Written(path, b"new"))

    assert refusal.value.code == "bad_file"
    assert str(path) in refusal.value.message
    assert path.lstat() == before
    assert (tmp_path / "real").read_bytes() == b"real"


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(HengeError) as refusal:
        put(Written(tmp_path / "missing" / "lamp.json", b"{}"))

    assert refusal.value.code == "bad_file"
    assert "missing" in refusal.value.message


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "lamp.json"
    put(Written(path, b"old"))

    with pytest.raises(StorageFull):
        put(Written(path, b"new"), files=FullDisk())

    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["lamp.json"]


def test_after_a_cut_anywhere_the_file_is_old_or_new(tmp_path: Path) -> None:
    path, seen = tmp_path / "lamp.json", set()
    for n in range(20):
        put(Written(path, b"old"))
        try:
            put(Written(path, b"new"), files=CuttingFiles(n))
        except Cut:
            seen.add(path.read_bytes())
            continue
        break

    assert n > 4
    assert seen == {b"old", b"new"}
    assert path.read_bytes() == b"new"


def test_a_value_that_does_not_fit_names_the_file(tmp_path: Path) -> None:
    outputs = (read_output(f"{tmp_path}/lamp.json"), read_output(f"{tmp_path}/lamp.env"))

    with pytest.raises(Invalid) as refusal:
        render_all(outputs, b"[1]", [1])

    assert refusal.value.message.startswith("lamp.env: ")
