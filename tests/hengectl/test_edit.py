"""Editing an object: a real editor process that does what the test tells it, one step for each time it is opened."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hengectl.conftest import Face, Ran
from tests.service import Admin, Service, device, schema

EDITOR = """
import pathlib, subprocess, sys
folder, file = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
number = len(list(folder.glob("seen-*")))
(folder / f"seen-{number}").write_bytes(file.read_bytes())
(folder / f"mode-{number}").write_text(oct(file.stat().st_mode & 0o777))
step = folder / f"step-{number}"
if step.exists():
    exec(step.read_text(), {"file": file, "text": file.read_text(), "run": subprocess.run, "sys": sys})
"""


class Desk:
    """A person with an editor."""

    def __init__(self, face: Face, folder: Path) -> None:
        self.face = face
        self.folder = folder
        (folder / "editor.py").write_text(EDITOR)
        face.environ(VISUAL="", EDITOR=f"{sys.executable} {folder}/editor.py {folder}", TMPDIR=str(folder / "tmp"))
        (folder / "tmp").mkdir()

    def steps(self, *steps: str) -> None:
        """What the editor does each time it is opened; without a step it is closed at once."""
        for number, step in enumerate(steps):
            (self.folder / f"step-{number}").write_text(step)

    async def edit(self, *arguments: str) -> Ran:
        """Edit lamp-1."""
        return await self.face.run("edit", "device/lamp-1", *arguments)

    def seen(self, number: int) -> str:
        """What the person saw, the first time is 0."""
        return (self.folder / f"seen-{number}").read_text()

    @property
    def opened(self) -> int:
        """How often the editor was opened."""
        return len(list(self.folder.glob("seen-*")))

    @property
    def kept(self) -> list[Path]:
        """Files that are left."""
        return list((self.folder / "tmp").iterdir())


@pytest.fixture
async def desk(face: Face, daemon: Service, admin: Admin, tmp_path: Path, temporary: None) -> Desk:
    """A lamp that has a colour."""
    await admin.apply(schema(), device("lamp-1", color="red", labels={"room": "hall"}))
    face.environ(HENGE_SOCKET=str(daemon.socket))
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(face, folder)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the folder for temporary files be looked up anew."""
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", None)
        yield


def replaced(old: str, new: str) -> str:
    """A step: replace a text and save."""
    return f"file.write_text(text.replace({old!r}, {new!r}))"


async def spec(admin: Admin) -> Any:
    """What lamp-1 is now."""
    return (await admin.ok("GET", "/v1/devices/lamp-1"))["spec"]["values"]


async def test_what_is_saved_is_made_so(desk: Desk, admin: Admin) -> None:
    desk.steps(replaced("color: red", "color: blue\n    brightness: 5"))
    ran = await desk.edit("-m", "bluer")

    assert (ran.code, ran.out, ran.err) == (0, "device/lamp-1 configured (r2)\n", "")
    assert await spec(admin) == {"color": "blue", "brightness": 5}
    assert (await admin.ok("GET", "/v1/revisions/2"))["message"] == "bluer"
    assert desk.seen(0).startswith("#: device/lamp-1: save and close")
    assert "status" not in desk.seen(0)
    assert (desk.folder / "mode-0").read_text() == oct(stat.S_IRUSR | stat.S_IWUSR)
    assert desk.kept == []


@pytest.mark.parametrize(
    "step",
    [
        "",
        "file.write_text(text)",
        replaced("#: ", "#: x"),
        "file.write_text('')",
        "file.write_text('# nothing\\n')",
        "file.unlink()",
    ],
)
async def test_nothing_changed_is_no_revision_and_ends_with_0(desk: Desk, admin: Admin, step: str) -> None:
    desk.steps(step)
    ran = await desk.edit()

    assert (ran.code, ran.out) == (0, "")
    assert "Nothing was changed in device/lamp-1" in ran.err
    assert ((await admin.ok("GET", "/v1/status"))["revision"], desk.kept) == (1, [])


async def test_what_is_refused_is_opened_again_with_the_reasons_on_top(desk: Desk, admin: Admin) -> None:
    """First against the schema, then against the form of YAML; the person's own comment stays."""
    desk.steps(
        replaced("color: red", "color: pink # mine"),
        replaced("color: pink", "color: [pink"),
        replaced("color: [pink", "color: green"),
    )
    ran = await desk.edit()

    assert (ran.code, desk.opened, desk.kept) == (0, 3, [])
    refused, unread = desk.seen(1), desk.seen(2)
    assert refused.startswith("#: Error: device/lamp-1 does not fit schema lamp: /color: ")
    assert "color: pink # mine" in refused
    assert refused.count("#: Error") == unread.count("#: Error") == 1
    assert "color: [pink # mine" in unread
    assert await spec(admin) == {"color": "green"}


async def test_text_that_is_not_utf8_is_opened_again_and_kept(desk: Desk, admin: Admin) -> None:
    desk.steps("file.write_bytes(file.read_bytes().replace(b'color: red', b'color: gr\\xfcn'))")
    ran = await desk.edit()
    [kept] = desk.kept

    assert (ran.code, desk.opened) == (6, 2)
    assert "UTF-8" in ran.err
    assert f"What you wrote is in {kept}." in ran.err
    assert b"color: gr\xfcn" in kept.read_bytes()
    assert await spec(admin) == {"color": "red"}


async def test_whoever_gives_up_keeps_the_text_and_is_told_where(desk: Desk, admin: Admin) -> None:
    desk.steps(replaced("color: red", "color: pink"))
    ran = await desk.edit()
    [kept] = desk.kept

    assert (ran.code, ran.out, desk.opened) == (6, "", 2)
    assert "does not fit schema lamp" in ran.err
    assert f"What you wrote is in {kept}." in ran.err
    assert "color: pink" in kept.read_text()
    assert await spec(admin) == {"color": "red"}
    kept.write_text(kept.read_text().replace("pink", "blue"))
    await desk.face.ok("apply", "-f", str(kept))
    assert await spec(admin) == {"color": "blue"}


async def test_a_change_meanwhile_is_shown_and_is_replaced_only_by_who_has_seen_it(desk: Desk, admin: Admin) -> None:
    other = "run([sys.executable, '-m', 'hengectl', 'set', 'device/lamp-1', 'brightness=7'], check=True)\n"
    desk.steps(other + replaced("color: red", "color: blue"), "file.write_text(text.replace('blue', 'green'))")
    ran = await desk.edit()

    assert (ran.code, desk.opened) == (0, 2)
    assert "device/lamp-1 was changed by" in desk.seen(1)
    assert "#:     brightness: 7\n" in desk.seen(1)
    assert await spec(admin) == {"color": "green"}


async def test_another_object_or_two_of_them_are_refused(desk: Desk, admin: Admin) -> None:
    desk.steps(
        replaced("name: lamp-1", "name: lamp-2"),
        "file.write_text(text.replace('lamp-2', 'lamp-1') + '---\\n' + text.replace('lamp-2', 'lamp-3'))",
    )
    ran = await desk.edit()

    assert (ran.code, desk.opened) == (6, 3)
    assert all("the file should hold device/lamp-1 and nothing else" in desk.seen(number) for number in (1, 2))
    assert len((await admin.ok("GET", "/v1/devices"))["items"]) == 1


async def test_a_daemon_that_is_gone_loses_no_text(desk: Desk, daemon: Service) -> None:
    gate = desk.folder / "gate"
    os.mkfifo(gate)
    desk.steps(f"open({str(gate)!r}).read()\n" + replaced("red", "blue"))
    editing = asyncio.create_task(desk.edit())
    opened = await asyncio.to_thread(gate.open, "w")  # waits for the editor
    await daemon.stop()
    opened.close()
    ran = await editing
    await daemon.start()

    assert (ran.code, ran.out) == (7, "")
    assert "color: blue" in desk.kept[0].read_text()


@pytest.mark.parametrize("editor", ["/nonexistent/editor", "false", "'unclosed"])
async def test_an_editor_that_does_not_work_is_told(desk: Desk, editor: str) -> None:
    desk.face.environ(EDITOR=editor)
    ran = await desk.edit()

    assert (ran.code, desk.kept) == (2, [])
    assert "the editor" in ran.err


async def test_without_a_terminal_only_an_editor_that_was_chosen_is_opened(desk: Desk) -> None:
    desk.face.environ(EDITOR="")
    ran = await desk.edit()

    assert (ran.code, ran.out, desk.kept) == (2, "", [])
    assert "nobody sits at a terminal" in ran.err


async def test_an_editor_that_writes_what_is_refused_each_time_ends_without_a_terminal(desk: Desk) -> None:
    desk.steps(*(f"file.write_text(text + '# {number}\\n' + 'x: 1\\n')" for number in range(9)))
    ran = await desk.edit()

    assert (ran.code, desk.opened) == (6, 5)
    [kept] = desk.kept
    assert f"What you wrote is in {kept}." in ran.err
