"""Long work on a terminal and elsewhere: with a clock that can be moved, and through a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hengectl import yamltext
from hengectl.progress import ERASED, PLAIN_EVERY_S, REDRAWN_EVERY_S, SHOWN_AFTER_S, Progress
from tests.service import PATIENCE_S, Admin, Service, connected, device, schema

ROOT = Path(__file__).parents[2]


class Line:
    """A progress and what it wrote."""

    def __init__(self, *, live: bool, width: int = 0) -> None:
        self.out = io.StringIO()
        self.now = 100.0
        self.progress = Progress(self.out, live=live, width=width, clock=lambda: self.now)

    def tell(self, text: str, *, after_s: float = 0.0, long: bool = False) -> str:
        """Everything written so far, once ``text`` was told."""
        self.now += after_s
        self.progress.tell(text, long=long)
        return self.out.getvalue()


def test_what_is_done_soon_is_not_shown() -> None:
    line = Line(live=True)
    assert line.tell("1 of 9") == ""
    assert line.tell("2 of 9", after_s=SHOWN_AFTER_S / 2) == ""
    assert line.tell("3 of 9", after_s=SHOWN_AFTER_S) == f"{ERASED}3 of 9"


def test_a_line_is_written_over_and_not_too_often() -> None:
    line = Line(live=True)
    line.tell("waiting", long=True)
    assert line.tell("2 of 9", after_s=REDRAWN_EVERY_S / 2) == f"{ERASED}waiting"
    assert line.tell("3 of 9", after_s=REDRAWN_EVERY_S) == f"{ERASED}waiting{ERASED}3 of 9"


def test_what_was_shown_is_taken_away_once() -> None:
    line = Line(live=True)
    line.progress.clear()
    line.tell("waiting", long=True)
    line.progress.clear()
    line.progress.clear()

    assert line.out.getvalue() == f"{ERASED}waiting{ERASED}"


def test_a_line_never_reaches_the_edge_where_it_could_not_be_erased() -> None:
    assert Line(live=True, width=8).tell("waiting for lamp-1", long=True) == f"{ERASED}waiting"
    assert Line(live=True, width=8).tell("日本日本日本", long=True) == f"{ERASED}日本日"


def test_where_nothing_can_be_erased_a_line_comes_now_and_then() -> None:
    line = Line(live=False)
    assert line.tell("1 of 9", long=True) == ""
    assert line.tell("2 of 9", after_s=PLAIN_EVERY_S - 1) == ""
    assert line.tell("3 of 9", after_s=1) == "3 of 9\n"
    assert line.tell("4 of 9", after_s=1) == "3 of 9\n"
    line.progress.clear()
    assert line.out.getvalue() == "3 of 9\n"


# ---- on a real terminal ---------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with hengectl on its other side."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self._master = master
        self._arrived = asyncio.Event()
        self.text = ""
        asyncio.get_running_loop().add_reader(master, self._read)

    async def shows(self, pattern: str) -> None:
        """Wait until it has shown this."""
        async with asyncio.timeout(PATIENCE_S):
            while not re.search(pattern, self.text):
                self._arrived.clear()
                await self._arrived.wait()

    def type(self, text: str) -> None:
        """As a person."""
        os.write(self._master, text.encode())

    async def ends(self) -> int:
        """The exit code."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.text += data.decode()
        self._arrived.set()


@asynccontextmanager
async def terminal(service: Service, *words: str, **environ: str) -> AsyncIterator[Terminal]:
    """``hengectl`` on a terminal."""
    master, slave = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hengectl", *words, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave,
        env=_environ(service, **{"TERM": "xterm", **environ}), start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    shown = Terminal(process, master)
    try:
        yield shown
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)


def _environ(service: Service, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "HENGE_SOCKET": str(service.socket), **more}


async def in_a_pipe(service: Service, *words: str) -> tuple[int, str, str]:
    """``hengectl`` without a terminal: code, answer, and what stands beside it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hengectl", *words, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE,
        env=_environ(service, TERM="xterm"),
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.system
@pytest.mark.parametrize("no_color", ["", "1"])
async def test_who_waits_at_a_terminal_sees_for_whom(daemon: Service, admin: Admin, no_color: str) -> None:
    await admin.apply(schema(), device("lamp-1"), device("lamp-2"))
    lamps = {name: await daemon.join(admin, name) for name in ("lamp-1", "lamp-2")}
    wait = "wait", "--for=in-sync", "device/lamp-1", "device/lamp-2", "--timeout", "100s"
    async with terminal(daemon, *wait, NO_COLOR=no_color) as shown, connected(daemon, lamps["lamp-1"]) as first:
        await shown.shows("0 of 2 devices in-sync, waiting for lamp-1, lamp-2")
        await first.apply_next()
        await shown.shows("1 of 2 devices in-sync, waiting for lamp-2")
        async with connected(daemon, lamps["lamp-2"]) as second:
            await second.apply_next()
            assert await shown.ends() == 0
        await shown.shows("lamp-2 in-sync\r\n$")

    assert f"{ERASED}device/lamp-1 in-sync\r\n" in shown.text
    assert not no_color or "\x1b[3" not in shown.text


@pytest.mark.system
async def test_a_dumb_terminal_gets_no_control_characters(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    async with terminal(daemon, "wait", "--for=online", "device/lamp-1", "--timeout", "1s", TERM="dumb") as shown:
        assert await shown.ends() == 8
        await shown.shows("not online within 1s")

    assert "\x1b" not in shown.text


@pytest.mark.system
async def test_who_waits_in_a_pipe_gets_plain_lines(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    code, out, err = await in_a_pipe(daemon, "wait", "--for=online", "device/lamp-1", "--timeout", "1s")

    assert (code, out) == (8, "")
    assert err.startswith("Error: device/lamp-1 not online within 1s")
    assert "\x1b" not in err


@pytest.mark.system
async def test_many_files_are_applied_and_nothing_is_left_of_the_progress(
    daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema())
    for number in range(60):
        content = {"apiVersion": "henge/v1", **device(f"lamp-{number}")}
        (tmp_path / f"{number}.yaml").write_text(yamltext.write(content))
    async with terminal(daemon, "apply", "-f", str(tmp_path)) as shown:
        assert await shown.ends() == 0
        await shown.shows(r"revision 2, 60 of 60 devices \(60 offline\) change")

    assert "60 objects are checked" in shown.text
    assert shown.text.rindex(ERASED) < shown.text.index("device/lamp-0 created")


@pytest.mark.system
async def test_a_question_is_asked_on_a_terminal_and_never_elsewhere(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    code, _, err = await in_a_pipe(daemon, "delete", "device/lamp-1")
    assert (code, "dd --yes" in err) == (2, True)
    async with terminal(daemon, "delete", "device/lamp-1") as shown:
        await shown.shows(r"lamp-1.*[:?] ")
        shown.type("lamp-1\n")
        await shown.ends()
    assert (await admin.refused("GET", "/v1/devices/lamp-1")).status == 404
