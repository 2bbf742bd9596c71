from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from henge_agent.outputs import Written, content_of, holds, put, put_all, render_all
from henge_agent.settings import Output, read_output
from henge_agent.state import MAX_ORIGINAL_BYTES
from henge_protocol.errors import HengeError, Invalid, StorageFull
from tests.henge_agent.cutting import Cut, CuttingFiles, FullDisk, Unplaceable


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


@pytest.mark.root
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
    assert f"mkdir -p {tmp_path / 'missing'}" in refusal.value.message


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


def some_files(tmp_path: Path, content: bytes) -> list[Written]:
    return [Written(tmp_path / name, content) for name in ("a.json", "b.json", "c.json")]


@pytest.mark.parametrize("trouble", ["folder", "full", "missing"])
def test_of_several_files_none_changes_if_one_cannot_be_written(tmp_path: Path, trouble: str) -> None:
    list(put_all(some_files(tmp_path, b"old")))
    new = some_files(tmp_path, b"new")
    if trouble == "folder":
        new[2].path.unlink()
        new[2].path.mkdir()
    elif trouble == "missing":
        new[2] = Written(tmp_path / "missing" / "c.json", b"new")

    with pytest.raises(HengeError):
        list(put_all(new, files=FullDisk(only="c.json") if trouble == "full" else FullDisk(only="nothing")))

    assert [(tmp_path / name).read_bytes() for name in ("a.json", "b.json")] == [b"old", b"old"]
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


def test_a_file_that_cannot_take_its_place_leaves_those_after_it_and_names_those_before(tmp_path: Path) -> None:
    list(put_all(some_files(tmp_path, b"old")))
    changed = []

    with pytest.raises(HengeError):
        changed.extend(iter(put_all(some_files(tmp_path, b"new"), files=Unplaceable("b.json"))))

    assert [(tmp_path / name).read_bytes() for name in ("a.json", "b.json", "c.json")] == [b"new", b"old", b"old"]
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json", "c.json"]


def test_after_a_cut_anywhere_each_of_several_files_is_whole_and_nothing_stays_beside_them(tmp_path: Path) -> None:
    seen = set()
    for n in range(60):
        list(put_all(some_files(tmp_path, b"old")))
        try:
            list(put_all(some_files(tmp_path, b"new"), files=CuttingFiles(n)))
        except Cut:
            seen.add(tuple((tmp_path / name).read_bytes() for name in ("a.json", "b.json", "c.json")))
            continue
        break
    list(put_all(some_files(tmp_path, b"new")))

    whole, both = (b"old", b"old", b"old"), (b"new", b"new", b"new")
    assert seen == {whole, (b"new", b"old", b"old"), (b"new", b"new", b"old"), both}
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json", "c.json"]


def test_a_mode_that_was_named_is_set_and_seen_to(tmp_path: Path) -> None:
    path = tmp_path / "lamp.json"
    wanted = Written(path, b"{}", mode=0o604)

    assert put(wanted)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    path.chmod(0o666)
    assert not holds(wanted)
    assert put(wanted)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.root
def test_an_owner_that_was_named_is_set_and_seen_to(tmp_path: Path) -> None:
    path = tmp_path / "lamp.json"
    wanted = Written(path, b"{}", owner=(1234, 4321))

    assert put(wanted)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)
    os.chown(path, 0, 0)
    assert put(wanted)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_an_output_may_hold_one_field_alone(tmp_path: Path) -> None:
    outputs = (
        Output(tmp_path / "wifi.toml", "toml", part=("wifi",)),
        Output(tmp_path / "deep.json", "json", part=("wifi", "deep")),
        Output(tmp_path / "none.json", "json", part=("other",)),
    )
    value = {"color": "red", "wifi": {"ssid": "home", "deep": [1]}}

    assert [each.content for each in render_all(outputs, b"", value)] == [
        b'ssid = "home"\ndeep = [1]\n',
        b"[1]",
        None,
    ]


def test_a_template_is_filled_or_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "lamp.tmpl").write_text("# henge\ncolor=$color\nssid=${wifi.ssid}\n")
    output = Output(tmp_path / "lamp.conf", "json", template=tmp_path / "lamp.tmpl")

    (written,) = render_all([output], b"", {"color": "red", "wifi": {"ssid": "a b"}})
    with pytest.raises(Invalid) as refusal:
        render_all([output], b"", {"color": "red"})

    assert written.content == b"# henge\ncolor=red\nssid=a b\n"
    assert refusal.value.code == "does_not_fit"
    assert "lamp.conf: " in refusal.value.message
    assert "lamp.tmpl line 3: the document has no field wifi.ssid" in refusal.value.message


def test_fields_of_the_device_stay_as_they_stand_in_the_file(tmp_path: Path) -> None:
    output = Output(tmp_path / "lamp.json", "json", unmanaged=(("local",), ("wifi", "country")))
    output.path.write_text('{"wifi": {"country": "DE", "ssid": "old"}, "local": {"x": 1}, "gone": 1}')

    (written,) = render_all([output], b"", {"wifi": {"ssid": "new", "country": "US"}, "color": "red"})

    assert json.loads(written.content or b"") == {
        "wifi": {"country": "DE", "ssid": "new"}, "local": {"x": 1}, "color": "red",
    }  # fmt: skip


def test_a_file_that_says_the_same_with_fields_of_its_own_is_not_written_again(tmp_path: Path) -> None:
    output = Output(tmp_path / "lamp.json", "json", unmanaged=(("local",),))
    output.path.write_text('{\n  "local": 7,\n  "on": true\n}\n')

    assert not put(render_all([output], b"", {"on": True})[0])
    assert put(render_all([output], b"", {"on": 1})[0])


def test_a_file_whose_own_fields_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    output = Output(tmp_path / "lamp.toml", "toml", unmanaged=(("local",),))
    output.path.write_text("local = = 1\n")

    with pytest.raises(Invalid) as refusal:
        render_all([output], b"", {"on": True})

    assert refusal.value.code == "bad_file"
    assert "lamp.toml: its own values cannot be kept" in refusal.value.message


def test_a_file_that_grew_beyond_all_reason_is_written_again(tmp_path: Path) -> None:
    wanted = Written(tmp_path / "lamp.json", b"{}")
    wanted.path.write_bytes(b" " * (MAX_ORIGINAL_BYTES + 1))

    assert not holds(wanted)
    assert put(wanted)
    assert wanted.path.read_bytes() == b"{}"
