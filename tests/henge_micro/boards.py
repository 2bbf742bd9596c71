"""Boards for tests: the client on a real MicroPython, as a process that says in JSON lines how it fares."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "micropython"
PATIENCE_S = 45.0
"""Far beyond what a board needs for any of its steps here."""

FETCH_S = 100.0
"""For a few megabytes through apt; pytest ends a test after 120."""

Kind = Literal["native", "small"]
HEAPS: dict[Kind, str] = {"native": "192k", "small": "96k"}
"""The small build has a microcontroller's words and heap blocks; there 96 KB must be enough from source."""

PRELUDE = """
import sys
sys.path[:0] = [{source!r}]
import asyncio, gc, json
from henge_micro import board
from henge_micro.client import Client
FOLDER, SETUP = {folder!r}, {setup!r}
board.chance = lambda: 0.01  # nobody has to be spread here
def say(**fields):
    print(json.dumps(fields))
def show(new, old):
    say(config=new)
"""
RUN = "client = Client(FOLDER, SETUP, on_config=show)\nasyncio.run(client.run())\n"
"""The usual life of a board."""


class NoRuntime(Exception):
    """Raised where there is no MicroPython; the message is one line for a person."""


@cache
def runtime(kind: Kind) -> Path:
    """The interpreter, fetched if need be. Raises ``NoRuntime``."""
    command = [REPOSITORY / "contrib" / "micropython.sh", kind]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_S)
    except subprocess.TimeoutExpired:
        raise NoRuntime(f"no MicroPython: the mirror did not answer within {FETCH_S:g} s") from None
    if done.returncode != 0:
        raise NoRuntime(done.stderr.strip() or f"no MicroPython ({kind})")
    return Path(done.stdout.strip())


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One build of MicroPython."""

    kind: Kind
    path: Path

    def command(self, program: str, *, heap: str = "") -> list[str]:
        """The command line that runs a program text."""
        return [str(self.path), "-X", f"heapsize={heap or HEAPS[self.kind]}", "-c", program]

    def run(self, program: str, *arguments: str, heap: str = "") -> str:
        """What a program text prints; a failing one fails the test."""
        return self._run([*self.command(program, heap=heap), *arguments])

    def run_file(self, program: Path, *arguments: str, heap: str = "") -> str:
        """What a program file prints; a failing one fails the test."""
        return self._run([str(self.path), "-X", f"heapsize={heap or HEAPS[self.kind]}", str(program), *arguments])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=REPOSITORY,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a board's flash is as it should be; a file rings no bell."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Board:
    """One board: its flash is a folder, its power a process."""

    def __init__(self, interpreter: Interpreter, folder: Path, setup: dict[str, Any]) -> None:
        self.interpreter = interpreter
        self.folder = folder
        self.setup = {"mdns": [0.1], **setup}
        self.spoken: list[str] = []
        self.environment: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, program: str = RUN) -> None:
        """Power on."""
        text = PRELUDE.format(source=str(SOURCE), folder=str(self.folder), setup=self.setup) + program
        await self._power_on(self.interpreter.command(text), self.environment)

    async def start_file(self, program: Path, environment: dict[str, str]) -> None:
        """Power on with a program in the board's own folder."""
        heap = f"heapsize={HEAPS[self.interpreter.kind]}"
        await self._power_on([str(self.interpreter.path), "-X", heap, program.name], environment)

    async def _power_on(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=self.folder if self.folder.exists() else None,
        )

    async def off(self) -> None:
        """Power off, at whatever moment this is."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            out, _ = await process.communicate()
            self.spoken += out.decode().splitlines()
            print("\n".join(self.spoken))  # noqa: T201 - pytest shows it with a failure

    async def says(self, name: str, *values: Any) -> Any:
        """Wait until the board says something under ``name``; one of ``values``, if any are given."""
        while True:
            line = await self.prints(f'"{name}":')
            fields = json.loads(line) if line.startswith("{") else {}
            if name in fields and (not values or fields[name] in values):
                return fields[name]

    async def prints(self, text: str) -> str:
        """Wait until the board prints a line with this text; the line."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while line := (await self._process.stdout.readline()).decode():
                    self.spoken.append(line.strip())
                    if text in line:
                        return line.strip()
        except TimeoutError:
            pass
        raise AssertionError(f"nothing with {text!r} in:\n" + "\n".join(self.spoken))

    async def ends(self) -> str:
        """Wait until the program is over; all that the board has said."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await self._process.communicate()
        text = "\n".join(self.spoken) + out.decode()
        assert self._process.returncode == 0, text
        return text

    def record(self, name: str) -> dict[str, Any]:
        """A record in the board's flash."""
        return dict(json.loads((self.folder / name).read_bytes().partition(b"\n")[2]))

    def change(self, name: str, /, **fields: Any) -> None:
        """Change fields of a record while the board is off."""
        data = json.dumps({**self.record(name), **fields}).encode()
        (self.folder / name).write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
