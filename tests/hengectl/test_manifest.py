from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from henge_protocol.errors import HengeError, Problem
from hengectl import manifest

GROUP = """apiVersion: henge/v1
kind: Group
metadata:
  name: {name}
spec:
  selector: room=kitchen
  values:
    wifi:
      ssid: den
"""


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal_of(*names: str) -> HengeError:
    with pytest.raises(HengeError) as refusal:
        manifest.read(names)
    return refusal.value


def refs(*names: str) -> list[str]:
    return [entry.ref for entry in manifest.read(names).entries]


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", GROUP.format(name="b"))
    write(tmp_path, "a/z.yml", GROUP.format(name="z"))
    write(tmp_path, "c.json", '{"apiVersion": "henge/v1", "kind": "Device", "metadata": {"name": "lamp-1"}}')
    write(tmp_path, ".hidden.yaml", "not: [yaml")
    write(tmp_path, ".git/x.yaml", "not: [yaml")
    write(tmp_path, "README.md", "not: [yaml")

    assert refs(str(tmp_path)) == ["group/z", "group/b", "device/lamp-1"]


def test_many_documents_and_lists_are_read(tmp_path: Path) -> None:
    text = GROUP.format(name="a") + "---\n" + GROUP.format(name="b")
    listed = "apiVersion: henge/v1\nkind: List\nitems:\n- apiVersion: henge/v1\n  kind: Group\n  metadata: {name: c}\n"

    assert refs(write(tmp_path, "f.yaml", text), write(tmp_path, "l.yaml", listed)) == ["group/a", "group/b", "group/c"]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + GROUP.format(name="a").encode())))

    assert refs("-") == ["group/a"]


@pytest.mark.parametrize("name", ["g.yaml", "g.json"])
def test_a_pointer_finds_its_line(tmp_path: Path, name: str) -> None:
    head = '{"apiVersion": "henge/v1", "kind": "Group",\n"metadata": {"name": "kitchen"},\n'
    json = head + '"spec": {"values":\n{"wifi": {"ssid": 5}}}}'
    path = write(tmp_path, name, GROUP.format(name="kitchen") if name == "g.yaml" else json)
    read = manifest.read([path])

    line = f"{path}:9:13" if name == "g.yaml" else f"{path}:4:19"
    assert read.place(Problem("/spec/values/wifi/ssid", "too short", "group/kitchen")) == line
    assert read.place(Problem("/wifi/ssid", "too short", "Group/kitchen")) == line
    assert read.place(Problem("/wifi/ssid", "too short")) == line
    assert read.place(Problem("/wifi/ssid", "too short", "device/lamp-1")) == ""


def test_a_pointer_into_a_list_finds_its_line(tmp_path: Path) -> None:
    item = "- apiVersion: henge/v1\n  kind: Device\n  metadata: {name: a}\n  spec: {values: {x: 1}}\n"
    text = "apiVersion: henge/v1\nkind: List\nitems:\n" + item
    path = write(tmp_path, "l.yaml", text)

    assert manifest.read([path]).place(Problem("/x", "", "device/a")) == f"{path}:7:22"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("apiVersion: v1\nkind: Group\n", "bad_object", "f.yaml:1:13: apiVersion is 'v1'"),
        ("kind: Group\n", "bad_object", "f.yaml:1:1: apiVersion is missing"),
        ("apiVersion: henge/v1\nkind: Lamp\n", "unknown_kind", "f.yaml:2:7: kind 'Lamp' is unknown"),
        ("apiVersion: henge/v1\nkind: Group\n", "bad_object", "f.yaml:1:1: metadata.name is missing"),
        ("apiVersion: henge/v1\nkind: Group\nmetadata:\n  name: Küche\n", "bad_name", "f.yaml:4:9: the name"),
        ("- a\n", "bad_object", "f.yaml:1:1: an object with apiVersion"),
        ("apiVersion: henge/v1\nkind: List\n", "bad_object", "f.yaml: a List needs"),
        ("apiVersion: henge/v1\nkind: List\nitems: [5]\n", "bad_object", "f.yaml:3:9: an object"),
        ("", "bad_object", "there is no object in"),
        ("# nothing\n", "bad_object", "there is no object in"),
        (
            GROUP.format(name="a") + "---\n" + GROUP.format(name="a"),
            "bad_object",
            "f.yaml:11:1: group/a is given a second",
        ),
        (GROUP.format(name="a").encode("utf-16"), "bad_encoding", "f.yaml is UTF-16"),
        ("a: b\nc: Küche\n".encode("latin-1"), "bad_encoding", "f.yaml:2: byte 0xfc is not UTF-8"),
        (b"a\0b", "bad_encoding", "f.yaml is UTF-16 or binary"),
        (b"x" * (manifest.MAX_FILE_BYTES + 1), "too_large", "f.yaml has more than 8 MiB"),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(
    tmp_path: Path, text: str | bytes, code: str, message: str
) -> None:
    path = write(tmp_path, "f.yaml", text)
    refusal = refusal_of(path)

    assert refusal.code == code
    assert message in refusal.message


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ('{"a": 1,}', "bad_json", ":1:"),
        ('{\n"a": NaN}', "number_out_of_range", "f.json: /a: "),
        ('{"b": {"a": 1, "a": 2}}', "duplicate_key", "f.json: /b: "),
        ("[" * 100_000, "too_deep", "f.json: "),
    ],
)
def test_bad_json_is_refused_with_its_place(tmp_path: Path, text: str, code: str, place: str) -> None:
    refusal = refusal_of(write(tmp_path, "f.json", text))

    assert refusal.code == code
    assert place in refusal.message


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    os.symlink(tmp_path / "nowhere", tmp_path / "link.yaml")
    (tmp_path / "empty").mkdir()

    assert "does not exist" in refusal_of(str(tmp_path / "absent.yaml")).message
    assert "is a link to nothing" in refusal_of(str(tmp_path / "link.yaml")).message
    assert "there is no object" in refusal_of(str(tmp_path / "pipe.yaml")).message
    assert "there is no *.yaml" in refusal_of(str(tmp_path / "empty")).message
    assert "neither a file" in refusal_of("/dev/null").message


def test_f01_a_name_that_is_too_long_is_told_as_that(tmp_path: Path) -> None:
    refusal = refusal_of(str(tmp_path / ("n" * 300)))

    assert (refusal.code, "File name too long" in refusal.message) == ("bad_file", True)


def test_a_folder_in_the_folder_that_may_not_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the system's answer is played."""
    write(tmp_path, "a.yaml", GROUP.format(name="a"))
    write(tmp_path, "closed/b.yaml", GROUP.format(name="b"))
    scandir = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)

    assert f"cannot read {tmp_path / 'closed'}: Permission denied" in refusal_of(str(tmp_path)).message


@pytest.mark.parametrize(
    "name", [pytest.param(b"\xff.yaml", id="F29 no text"), pytest.param(b"\x1b[31m.yaml", id="F29 an escape")]
)
def test_a_file_with_any_name_is_read(tmp_path: Path, name: bytes) -> None:
    with open(os.path.join(os.fsencode(tmp_path), name), "w") as file:
        file.write(GROUP.format(name="a"))

    assert refs(str(tmp_path)) == ["group/a"]


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    target = write(tmp_path, "data/real", GROUP.format(name="a"))
    os.symlink(target, tmp_path / "a.yaml")

    assert refs(str(tmp_path / "a.yaml")) == ["group/a"]


def test_a_pipe_with_a_writer_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with open(writing, "w") as writer:
        writer.write(GROUP.format(name="a"))
    try:
        assert refs(f"/dev/fd/{reading}") == ["group/a"]
    finally:
        os.close(reading)


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing from the files might be pruned. Root may list everything, so the system's answer is played."""
    write(tmp_path, "kitchen.yaml", GROUP.format(name="kitchen"))
    write(tmp_path, "closed/attic.yaml", GROUP.format(name="attic"))
    real = os.scandir

    def denied(path: str | int) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    error = refusal_of(str(tmp_path))

    assert (error.code, error.message) == ("bad_file", f"cannot read {tmp_path}/closed: Permission denied")
