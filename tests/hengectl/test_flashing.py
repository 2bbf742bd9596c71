"""``hengectl device add``: what a board gets, in a folder and over USB."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import pty
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from henge_protocol.joining import parse_token
from hengectl import flashing
from tests.henge_micro.boards import REPOSITORY, SOURCE, Board
from tests.henge_micro.conftest import interpreter_of
from tests.hengectl.conftest import Face
from tests.service import Admin, Service, device, schema


@pytest.fixture
async def person(face: Face, daemon: Service, admin: Admin) -> Face:
    face.environ(HENGE_SOCKET=str(daemon.socket))
    await admin.apply(schema(), device("lamp-1", color="red"))
    return face


def setup_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "henge.json").read_text("utf-8")))


async def test_a_folder_has_all_that_a_board_needs(person: Face, admin: Admin, tmp_path: Path) -> None:
    folder = tmp_path / "pico"
    ran = await person.run(
        "device", "add", "lamp-1", "--print", str(folder), "--schema", "lamp", "-l", "room=hall", "--wifi", "home",
        "--reach", "192.168.1.5:4364", "--ttl", "2h", stdin="secret wifi\n",
    )  # fmt: skip
    setup = setup_in(folder)
    [token] = (await admin.ok("GET", "/v1/tokens"))["items"]

    assert ran.code == 0, ran
    assert f"prepared in {folder}" in ran.out
    assert parse_token(setup.pop("token")).id == token["id"]
    assert setup == {
        "name": "lamp-1",
        "server": "192.168.1.5:4364",
        "schema": "lamp",
        "wifi": {"ssid": "home", "password": "secret wifi"},
    }
    assert (token["name"], token["labels"], token["uses"]) == ("lamp-1", {"room": "hall"}, 1)
    assert (folder / "henge.json").stat().st_mode & 0o777 == 0o600
    library = folder / "lib" / "henge_micro"
    assert {path.name: path.read_bytes() for path in library.iterdir()} == {
        path.name: path.read_bytes() for path in (SOURCE / "henge_micro").glob("*.py")
    }


async def test_a_device_that_has_joined_is_not_prepared_anew(
    person: Face, daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    await daemon.join(admin, "lamp-1")
    ran = await person.run("device", "add", "lamp-1", "--print", str(tmp_path / "x"))

    assert (ran.code, ran.out) == (5, "")
    assert "device/lamp-1 has joined already" in ran.err
    assert "device replace lamp-1" in ran.err
    assert not (tmp_path / "x").exists()
    assert len((await admin.ok("GET", "/v1/tokens"))["items"]) == 1


async def test_what_was_prepared_for_another_device_is_left_alone(person: Face, tmp_path: Path) -> None:
    await person.ok("device", "add", "lamp-1", "--print", str(tmp_path))
    before = setup_in(tmp_path)
    other = await person.run("device", "add", "lamp-2", "--print", str(tmp_path))
    assert (other.code, setup_in(tmp_path)) == (5, before)
    assert f"{tmp_path} holds what was prepared for device/lamp-1" in other.err

    again = await person.run("device", "add", "lamp-1", "--print", str(tmp_path))
    assert again.code == 0
    assert f"What was prepared in {tmp_path} before is replaced." in again.err
    assert setup_in(tmp_path)["token"] != before["token"]


async def test_the_secrets_are_in_no_output(person: Face, tmp_path: Path) -> None:
    ran = await person.run(
        "device", "add", "lamp-1", "--print", str(tmp_path / "x"), "--wifi", "home", stdin="hush hush\n"
    )
    secret = parse_token(setup_in(tmp_path / "x")["token"]).secret

    assert ran.code == 0
    assert secret not in ran.out + ran.err
    assert "hush" not in ran.out + ran.err


async def test_an_own_main_stays(person: Face, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("mine")
    await person.ok("device", "add", "lamp-1", "--print", str(tmp_path))

    assert (tmp_path / "main.py").read_text() == "mine"


async def test_a_board_made_of_the_folder_joins(person: Face, daemon: Service, admin: Admin, tmp_path: Path) -> None:
    folder = tmp_path / "pico"
    await person.ok("device", "add", "lamp-1", "--print", str(folder), "--reach", f"127.0.0.1:{daemon.port}")
    board = Board(interpreter_of("small"), folder, {})
    try:
        await board.start_file(folder / "main.py", {"MICROPYPATH": os.pathsep.join([".frozen", str(folder / "lib")])})
        await admin.until("lamp-1", config="in-sync")
    finally:
        await board.off()


@pytest.mark.parametrize("options", [(), ("--usb", "--print", "x")])
async def test_it_has_to_be_said_where_to(person: Face, admin: Admin, options: tuple[str, ...]) -> None:
    ran = await person.run("device", "add", "lamp-1", *options)

    assert ran.code == 2
    assert "--print DIR" in ran.err
    assert (await admin.ok("GET", "/v1/tokens"))["items"] == []


async def test_a_password_that_is_not_utf_8_is_refused_before_there_is_a_token(
    person: Face, admin: Admin, tmp_path: Path
) -> None:
    ran = await person.run("device", "add", "lamp-1", "--print", str(tmp_path / "x"), "--wifi", "home", stdin=b"\xff\n")

    assert (ran.code, "the password is not UTF-8" in ran.err) == (6, True), ran
    assert (await admin.ok("GET", "/v1/tokens"))["items"] == []


async def test_a_folder_that_cannot_be_written_is_told_before_there_is_a_token(
    person: Face, admin: Admin, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ran = await person.run("device", "add", "lamp-1", "--print", str(tmp_path / "file" / "x"))

    assert ran.code == 6
    assert f"cannot write {tmp_path / 'file' / 'x'}" in ran.err
    assert "Nothing was changed." in ran.err
    assert (await admin.ok("GET", "/v1/tokens"))["items"] == []


async def test_without_mpremote_the_cure_is_named(person: Face, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(flashing.importlib.util, "find_spec", lambda name: None if name == "mpremote" else find(name))
    monkeypatch.setattr(flashing.shutil, "which", lambda _name: None)
    ran = await person.run("device", "add", "lamp-1", "--usb")

    assert ran.code == 2
    assert "pipx install mpremote" in ran.err
    assert (await admin.ok("GET", "/v1/tokens"))["items"] == []


MPREMOTE = """
import json, pathlib, shutil, sys
board = pathlib.Path(__file__).parent / "board"
with open(board.with_suffix(".log"), "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
if (board / "unplugged").exists():
    sys.exit("mpremote: no device found")
steps = " ".join(sys.argv[3:]).split(" + ")
for step in steps:
    words = step.split(" ")
    if words[:2] == ["fs", "ls"]:
        for path in board.iterdir():
            print("  1", path.name)
    elif words[:2] == ["fs", "cp"]:
        source = pathlib.Path(words[3])
        (shutil.copytree if source.is_dir() else shutil.copy)(source, board / source.name)
    else:
        assert step in ("rtc --set", "reset"), step
"""
"""A board that is a folder, behind mpremote's command line."""


@pytest.fixture
def usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "usb"
    (place / "board").mkdir(parents=True)
    (place / "mpremote.py").write_text(MPREMOTE)
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    return place


async def test_a_board_on_usb_gets_the_same(person: Face, usb: Path) -> None:
    await person.ok("device", "add", "lamp-1", "--usb")
    board = usb / "board"
    last = json.loads((usb / "board.log").read_text().splitlines()[-1])

    assert setup_in(board)["name"] == "lamp-1"
    assert (board / "main.py").exists()
    assert (board / "lib" / "henge_micro" / "client.py").exists()
    assert last[:2] == ["connect", "auto"]
    assert last[-1] == "reset"


async def test_mpremote_may_be_a_program_of_its_own(person: Face, usb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = usb / "mpremote"  # as pipx installs it, where this program's Python does not have it
    program.write_text(f"#!{sys.executable}\n{MPREMOTE}")
    program.chmod(0o755)
    find = importlib.util.find_spec
    monkeypatch.setattr(flashing.importlib.util, "find_spec", lambda name: None if name == "mpremote" else find(name))
    monkeypatch.setenv("PATH", str(usb), prepend=":")

    await person.ok("device", "add", "lamp-1", "--usb")

    assert setup_in(usb / "board")["name"] == "lamp-1"


async def test_a_board_keeps_its_own_main(person: Face, usb: Path) -> None:
    (usb / "board" / "main.py").write_text("mine")
    await person.ok("device", "add", "lamp-1", "--usb", "--port", "/dev/ttyACM1")

    assert (usb / "board" / "main.py").read_text() == "mine"
    assert '"connect", "/dev/ttyACM1"' in (usb / "board.log").read_text()


async def test_a_missing_board_is_told(person: Face, usb: Path) -> None:
    (usb / "board" / "unplugged").touch()
    ran = await person.run("device", "add", "lamp-1", "--usb")

    assert ran.code != 0
    assert "no device found" in ran.err
    assert "mpremote devs" in ran.err


@pytest.fixture
def console(tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """The port of a board that is a real MicroPython behind a terminal, the folder that is its flash, and its power."""
    board, interpreter = tmp_path / "flash", interpreter_of("native")
    board.mkdir()
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    command = [str(interpreter.path), str(REPOSITORY / "tests" / "henge_micro" / "on_board" / "raw_repl.py")]
    with subprocess.Popen(command, stdin=ours, stdout=ours, cwd=board) as power:
        try:
            yield os.ttyname(theirs), board, power
        finally:
            power.kill()
            os.close(ours)
            os.close(theirs)


async def test_the_real_mpremote_copies_to_a_real_micropython(
    person: Face, admin: Admin, console: tuple[str, Path, subprocess.Popen[bytes]]
) -> None:
    port, board, power = console
    (board / "data.txt").write_text("what the board had")
    await person.ok("device", "add", "lamp-1", "--usb", "--port", port)

    assert setup_in(board)["name"] == "lamp-1"
    client = REPOSITORY / "micropython" / "henge_micro"
    assert {path.name: path.read_bytes() for path in (board / "lib" / "henge_micro").iterdir()} == {
        path.name: path.read_bytes() for path in client.glob("*.py")
    }
    assert (board / "data.txt").read_text() == "what the board had"
    assert await asyncio.to_thread(power.wait, 20) == 0, "it was reset at the end"
