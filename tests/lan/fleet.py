"""The real programs on the hosts of a network: hengd and henge-agent as they come, and boards on a real MicroPython."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Container
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.henge_micro.boards import REPOSITORY
from tests.henge_micro.conftest import interpreter_of
from tests.lan.network import Host, Lan
from tests.service import device, schema
from tests.system.programs import PROGRAMS, Admin, Daemon, Program, output_of

PATIENCE_S = 480.0
"""Silence is noticed within 45 s, who found nobody stays away for up to 60 s, who found a stranger for up to 360."""
PORT = 4364
BOARD = REPOSITORY / "examples" / "micropython" / "lamp" / "main.py"


class LanDaemon(Daemon):
    """hengd on a host, listening and announcing as at a beginner's home."""

    def __init__(self, folder: Path, host: Host, name: str) -> None:
        super().__init__(folder, folder / name)
        self.host = host
        self.log = folder / f"{name}.log"
        self.admin = Admin(self.socket, patience_s=PATIENCE_S)

    def start(self) -> LanDaemon:
        """Start it and wait until it answers."""
        self.program = Program(self.command(), self.log, {"HENGE_CONFIG": ""}, inside=self.host.inside)
        wait_for(self.answers, self.log)
        return self

    def command(self) -> list[str]:
        """The command line."""
        return ["hengd", "run", "--data-dir", str(self.data), "--socket", str(self.socket)]

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def in_sync(self, *names: str) -> None:
        """Wait until these devices are connected and run what they should."""
        for name in names:
            self.admin.until(name, config="in-sync", connection="online")

    def hengectl(self, *words: str, codes: Container[int] = (0,)) -> str:
        """What a command of an operator prints on its host; it has the passphrase of backups on standard input."""
        return program(self.host, "hengectl", "--socket", str(self.socket), *words, codes=codes)


def program(
    host: Host, name: str, *words: str, given: str = "correct horse battery staple\n", codes: Container[int] = (0,)
) -> str:
    """What one of our commands prints on a host; another exit code fails the test."""
    done = subprocess.run(
        [*host.inside, str(PROGRAMS / name), *words], input=given, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S, env={**os.environ, "HENGE_CONFIG": ""},
    )  # fmt: skip
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


class Home:
    """A network with its daemons and devices; everything is ended by ``clean``."""

    def __init__(self, lan: Lan, folder: Path) -> None:
        self.lan = lan
        self.folder = folder
        self._stack = ExitStack()
        self._stack.callback(lan.clean)

    def clean(self) -> None:
        """End everything."""
        self._stack.close()

    def daemon(self, number: int, name: str) -> LanDaemon:
        """A daemon that is not started yet, on a host of its own."""
        daemon = LanDaemon(self.folder, self.lan.host(number), name)
        self._stack.callback(daemon.clean)
        return daemon

    def restored(self, backup: Path, number: int, name: str) -> LanDaemon:
        """A daemon made from a backup, not started yet, on a host of its own."""
        daemon = self.daemon(number, name)
        program(daemon.host, "hengd", "restore", str(backup), "--passphrase-file", "-", "--data-dir", str(daemon.data))
        return daemon

    def fleet(self, daemon: LanDaemon, *names: str) -> None:
        """Let the daemon know the schema and these devices."""
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), *(device(name) for name in names)]})

    def settled(self, name: str, *others: str) -> LanDaemon:
        """A daemon with a lamp that was told its address, a board, and what of ``others`` finds it; all in sync."""
        daemon = self.daemon(1, name).start()
        self.fleet(daemon, "lamp", *others, "board")
        self.agent(daemon, 11, "lamp", address="10.77.0.1")
        for number, other in enumerate(others, 12):
            self.agent(daemon, number, other)
        self.board(daemon, 20, "board")
        daemon.in_sync("lamp", *others, "board")
        return daemon

    def agent(self, daemon: LanDaemon, number: int, name: str, *, address: str = "") -> Host:
        """A Linux device that joins, at an address or at what mDNS finds, and runs; on a host of its own."""
        host, state = self.lan.host(number), self.folder / name
        token = daemon.admin.call("POST", "/v1/tokens", {"name": name})["token"]
        where = [f"https://{address}:{PORT}"] if address else []
        words = ["join", *where, "--token-file", "-", "--name", name, "--state-dir", str(state)]
        program(host, "henge-agent", *words, given=token)
        command = ["henge-agent", "run", "--state-dir", str(state), "--output", f"{output_of(state)}:json"]
        self._stack.enter_context(Program(command, state.with_suffix(".log"), inside=host.inside))
        return host

    def board(self, daemon: LanDaemon, number: int, name: str) -> Host:
        """A board that runs the lamp example and knows nothing but its token; on a host of its own."""
        host, flash = self.lan.host(number), self.folder / name
        token = daemon.admin.call("POST", "/v1/tokens", {"name": name})["token"]
        flash.mkdir()
        (flash / "henge.json").write_text(json.dumps({"token": token, "name": name}))
        with open(self.folder / f"{name}.log", "wb") as log:
            power = subprocess.Popen(
                [*host.inside, str(interpreter_of("native").path), str(BOARD)], cwd=flash, stdout=log, stderr=log,
                env={**os.environ, "MICROPYPATH": f".frozen:{REPOSITORY / 'micropython'}"},
            )  # fmt: skip
        self._stack.callback(_off, power)
        return host

    def said(self, name: str) -> str:
        """The log of a device."""
        return (self.folder / f"{name}.log").read_text()

    def output(self, name: str) -> dict[str, Any]:
        """What a Linux device's program reads."""
        return dict(json.loads(output_of(self.folder / name).read_text()))


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    """Look again and again; fails with the end of the log when the time is over."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


def _off(power: subprocess.Popen[bytes]) -> None:
    power.kill()
    power.wait()
