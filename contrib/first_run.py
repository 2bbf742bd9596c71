"""What `make run` and `make demo` do: the whole main job on this machine, with the real programs.

Starts hengd on its own data folder, applies the sample fleet, enrols a demo agent with a real one-time token,
changes a value and waits until the device itself has written the new one. `--stay` goes on serving.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
DEVICE = "lamp-1"
SCHEMA = "lamp"
COLORS = ("red", "green", "blue")
START_TIMEOUT_S = 20.0
ADDRESS_IN_USE = 75
OTHER_PORTS = """Or take another folder and other ports:
  make run ARGS="--folder /tmp/demo --listen 127.0.0.1:5364 --local 127.0.0.1:5365"
"""


class Stop(Exception):
    """A step failed; the message says which and what was printed."""


class FirstRun:
    """One daemon, one agent, one change."""

    def __init__(self, folder: Path, devices: str, local: str) -> None:
        self._folder = folder
        self._devices = devices
        self._local = local
        self.socket = folder / "admin.sock"
        self.output = folder / "lamp-1.json"
        self._environment = {**os.environ, "HENGE_SOCKET": str(self.socket)}

    def start_daemon(self, stack: ExitStack) -> subprocess.Popen[bytes]:
        """hengd on its embedded store."""
        if self.answers():
            raise Stop(f"a daemon answers on {self.socket} already; stop that `make run` first")
        command = [
            "hengd", "run", "--data-dir", str(self._folder / "data"), "--socket", str(self.socket),
            "--listen", self._devices, "--local", self._local, "--name", "demo", "--no-mdns",
        ]  # fmt: skip
        daemon = self._spawn(stack, command, "hengd.log")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if daemon.poll() is not None or time.monotonic() > deadline:
                hint = OTHER_PORTS if daemon.returncode == ADDRESS_IN_USE else ""
                raise Stop(f"hengd did not start:\n{self._log('hengd.log')}{hint}")
            time.sleep(0.05)
        return daemon

    def answers(self) -> bool:
        """Whether the daemon answers on its socket."""
        return self._try("hengectl", "status").returncode == 0

    def is_new(self) -> bool:
        """Whether nothing was ever changed: what a person did later is never overwritten."""
        return bool(json.loads(self.run("hengectl", "status", "-o", "json"))["revision"] == 0)

    def apply_fleet(self) -> None:
        """The sample fleet as files."""
        self.show("hengectl", "apply", "-f", str(REPOSITORY / "examples" / "homelab"), "-m", "the sample fleet")

    def start_agent(self, stack: ExitStack) -> None:
        """The demo device: joins with a one-time token unless it has an identity that is still good."""
        state = self._folder / "agent"
        joined = self._try("henge-agent", "status", "--state-dir", str(state)).returncode == 0
        if not joined or not self.is_let_in():
            self.join(state, *(["--replace"] if joined else []))
        self._spawn(
            stack, ["henge-agent", "run", "--state-dir", str(state), "--output", f"{self.output}:json"], "agent.log"
        )
        self.show("hengectl", "wait", "--for=online", f"device/{DEVICE}", "--timeout", "20s")
        self.show("hengectl", "wait", "--for=in-sync", f"device/{DEVICE}", "--timeout", "20s")

    def is_let_in(self) -> bool:
        """Whether the daemon knows the demo device: a person may have revoked or deleted it."""
        found = self._try("hengectl", "get", f"device/{DEVICE}", "-o", "json")
        return found.returncode == 0 and json.loads(found.stdout)["status"]["identity"] == "active"

    def join(self, state: Path, *more: str) -> None:
        """With a one-time token, as a person would; the token itself is not shown."""
        create = ("hengectl", "token", "create", "--name", DEVICE, "--schema", SCHEMA, "--ttl", "5m", "-q")
        print(f"\n$ {shlex.join(create)}", flush=True)
        self.show(
            "henge-agent", "join", self.url(), "--token-file", "-", "--name", DEVICE, "--state-dir", str(state), *more,
            typed=self.run(*create).strip(),
        )  # fmt: skip

    def change(self) -> str:
        """Another colour than now, pushed and waited for; returns it."""
        now = json.loads(self.output.read_text()).get("color") if self.output.exists() else None
        color = next(color for color in COLORS if color != now)
        self.show("hengectl", "set", f"device/{DEVICE}", f"color={color}", "--wait", "--timeout", "20s")
        return color

    def url(self) -> str:
        """Where devices reach the daemon."""
        status = json.loads(self.run("hengectl", "status", "-o", "json"))
        return str(status["listeners"]["devices"][0])

    def show(self, *command: str, typed: str = "") -> None:
        """Run a command as a person would, with its output on the screen."""
        print(f"\n$ {shlex.join(command)}", flush=True)
        if self._call(command, typed, sys.stdout).returncode != 0:
            raise Stop(f"{command[0]} {command[1]} failed\n{self._log('hengd.log')}{self._log('agent.log')}")

    def run(self, *command: str) -> str:
        """Run a command and return what it printed."""
        done = self._try(*command)
        if done.returncode != 0:
            raise Stop(f"{' '.join(command)} failed: {done.stderr}")
        return done.stdout

    def _try(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self._call(command, "", None)

    def _call(self, command: tuple[str, ...], typed: str, output: IO[str] | None) -> subprocess.CompletedProcess[str]:
        captured = output or subprocess.PIPE
        return subprocess.run(
            [str(PROGRAMS / command[0]), *command[1:]],
            env=self._environment,
            input=typed,
            stdout=captured,
            stderr=captured,
            text=True,
            check=False,
        )

    def _spawn(self, stack: ExitStack, command: list[str], log: str) -> subprocess.Popen[bytes]:
        file = stack.enter_context((self._folder / log).open("ab"))
        process = subprocess.Popen(
            [str(PROGRAMS / command[0]), *command[1:]], env=self._environment, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
        stack.callback(_end, process)
        return process

    def _log(self, name: str) -> str:
        path = self._folder / name
        return f"--- {path}\n{path.read_text()[-2000:]}" if path.exists() else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Exit 0 only if the device really runs the new value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="go on serving until Ctrl-C")
    parser.add_argument("--once", action="store_true", help="end after the demonstration (the default)")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".henge" / "demo", help="where data is kept")
    parser.add_argument("--listen", default="127.0.0.1:4364", help="port for devices")
    parser.add_argument("--local", default="127.0.0.1:4365", help="port for health")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            return _demonstrate(FirstRun(chosen.folder, chosen.listen, chosen.local), stack, stay=chosen.stay)
    except Stop as failure:
        print(f"\nError: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. The data is kept; start again with: {same_again(sys.argv[1:])}")
        return 0


def _demonstrate(demo: FirstRun, stack: ExitStack, *, stay: bool) -> int:
    print("Starting hengd ...", flush=True)
    daemon = demo.start_daemon(stack)
    demo.show("hengectl", "status")
    if demo.is_new():
        demo.apply_fleet()
    demo.start_agent(stack)
    color = demo.change()
    found = json.loads(demo.output.read_text())["color"]
    demo.show("hengectl", "get", "devices", DEVICE)
    if found != color:
        raise Stop(f"{demo.output} says color {found}, {color} was set")
    print(f"\nThe device wrote {demo.output} with color {found}, and its report is on disk.")
    if stay:
        print(_next_steps(demo), flush=True)
        daemon.wait()
        raise Stop("hengd ended")
    return 0


def _next_steps(demo: FirstRun) -> str:
    commands = {
        "hengectl get devices -w": "watch the fleet",
        f"hengectl set device/{DEVICE} brightness=20 --wait": "and wait for the device",
        f"hengectl why {DEVICE}": "where each value comes from",
        "hengectl history": "what changed, by whom",
    }
    width = max(map(len, commands))
    lines = [f"  {command:<{width}}   # {what}" for command, what in commands.items()]
    return "\n".join([
        "\nServing until Ctrl-C. In another terminal:",
        f"  export HENGE_SOCKET={demo.socket} PATH={PROGRAMS}:$PATH",
        *lines,
        f"  cat {demo.output}",
    ])  # fmt: skip


def same_again(arguments: list[str]) -> str:
    """The command that starts it with the same arguments."""
    given = shlex.join(one for one in arguments if one not in ("--stay", "--once"))
    return f'make run ARGS="{given}"' if given else "make run"


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
