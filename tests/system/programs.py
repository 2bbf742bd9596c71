"""hengd and henge-agent as processes, ended in every way a process can end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 20.0
"""Far beyond what anything here takes on a machine at rest."""


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.code = body.get("code")


class Admin:
    """An operator on the admin socket, for as many requests as one connection serves."""

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The value that one request is answered with; raises as ``fetch``."""
        text = self.fetch(method, path, body)
        return json.loads(text) if text else None

    def fetch(self, method: str, path: str, body: Any = None) -> bytes:
        """One request; ``Refused`` for a problem document, ``OSError`` or ``HTTPException`` when the daemon dies."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("henge", timeout=PATIENCE_S)
            self._connection.sock = socket.socket(socket.AF_UNIX)
            self._connection.sock.settimeout(PATIENCE_S)
            self._connection.sock.connect(str(self._path))
        data = json.dumps(body).encode() if body is not None else None
        try:
            self._connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.will_close:
            self.close()
        if response.status >= 300:
            raise Refused(response.status, json.loads(text))
        return text

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def set(self, device: str, **values: Any) -> Any:
        """Change a device's values."""
        return self.call("PATCH", f"/v1/devices/{device}", {"spec": {"values": values}})

    def status(self, device: str) -> dict[str, Any]:
        """A device's status."""
        return dict(self.call("GET", f"/v1/devices/{device}")["status"])

    def until(self, device: str, **wanted: str) -> dict[str, Any]:
        """Wait by events until the device's status has these values."""
        deadline = time.monotonic() + self._patience_s
        while True:
            seq = self.call("GET", "/v1/events")["next"]
            status = self.status(device)
            if all(status[name] == value for name, value in wanted.items()):
                return status
            if time.monotonic() > deadline:
                raise AssertionError(f"{device} did not become {wanted} in time: {status}")
            self.call("GET", f"/v1/events?since={seq}&wait=2")


class Program:
    """A process of ours with its output in a file."""

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str] | None = None, *, inside: Sequence[str] = ()
    ) -> None:
        self.log = log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [*inside, str(PROGRAMS / command[0]), *command[1:]], stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def kill(self) -> None:
        """As the kernel or a power cut does it."""
        self.process.kill()
        self.process.wait()

    def ended(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


class Daemon:
    """hengd on a folder; may be killed and started again on the same folder and port."""

    def __init__(self, folder: Path, data: Path | None = None, *, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self._host = host
        self.data = data or folder / "data"
        self._run = tempfile.TemporaryDirectory(prefix="henge-")
        self.socket = Path(self._run.name) / "admin.sock"
        self.port = _free_port()
        self.program: Program | None = None
        self.admin = Admin(self.socket)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.program = Program(self.command(), self.folder / "hengd.log")
        until(self.answers, self.program)
        return self

    def command(self) -> list[str]:
        """The command line."""
        return [
            "hengd", "run", "--data-dir", str(self.data), "--socket", str(self.socket), "--no-mdns",
            "--listen", f"{self._host}:{self.port}", "--local", "127.0.0.1:0",
        ]  # fmt: skip

    def answers(self) -> bool:
        """Whether it answers on its socket."""
        try:
            self.admin.call("GET", "/v1/status")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL."""
        assert self.program is not None
        self.program.kill()
        self.admin.close()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.program is not None
        self.admin.close()
        return self.program.ended()

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self.folder / "hengd.log").read_text()

    def clean(self) -> None:
        """End it whatever its state."""
        if self.program is not None:
            self.program.__exit__()
        self.admin.close()
        self._run.cleanup()

    def join(
        self, name: str, *, address: str = "", prefix: Sequence[str] = (), token: str = "", state_name: str = ""
    ) -> Path:
        """Enrol an agent by the real command, at ``address`` and behind ``prefix``; its state folder."""
        token = token or self.admin.call("POST", "/v1/tokens", {"name": name})["token"]
        state = self.folder / (state_name or name)
        url = f"https://{address or f'127.0.0.1:{self.port}'}"
        done = subprocess.run(
            [*prefix, str(PROGRAMS / "henge-agent"), "join", url, "--token-file", "-",
             "--name", name, "--state-dir", str(state)],
            input=token, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"Next: henge-agent run --state-dir {state} --output FILE\n" in done.stdout
        return state

    def agent(self, state: Path, *options: str) -> Program:
        """Run a joined agent; it writes NAME.json beside its state folder."""
        command = ["henge-agent", "run", "--state-dir", str(state), "--output", f"{output_of(state)}:json", *options]
        return Program(command, state.with_suffix(".log"))


@contextmanager
def running(folder: Path, data: Path | None = None) -> Iterator[Daemon]:
    """A daemon that serves; ended afterwards."""
    daemon = Daemon(folder, data)
    try:
        yield daemon.start()
    finally:
        daemon.clean()


def output_of(state: Path) -> Path:
    """The file that an agent manages."""
    return state.with_suffix(".json")


def until(condition: Callable[[], bool], program: Program | None = None, *, patience_s: float = PATIENCE_S) -> None:
    """Look again and again; fails with the program's output when it ended or time is over."""
    deadline = time.monotonic() + patience_s
    while not condition():
        is_over = time.monotonic() > deadline or (program is not None and program.process.poll() is not None)
        assert not is_over, program.log.read_text()[-3000:] if program is not None else "time is over"
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
