"""``face`` runs commands as a person does: arguments, environment and standard input in; output and exit code back."""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hengectl import cli


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


class _Stream(io.TextIOWrapper):
    """A standard stream that may pose as a terminal."""

    def __init__(self, content: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        raise OSError("not a file")

    def text(self) -> str:
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined, no-any-return]


class Face:
    """Runs ``hengectl`` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self._monkeypatch = monkeypatch
        self.home = home

    def environ(self, **variables: str) -> None:
        """Set environment variables for all later commands."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def now(self, *arguments: str, stdin: str | bytes = b"", terminal: bool = False) -> Ran:
        """Run a command and wait for it; use ``run`` while a daemon of this test must answer."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        streams = _Stream(given, terminal=terminal), _Stream(), _Stream(terminal=terminal)
        with self._monkeypatch.context() as patched:
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                patched.setattr(sys, name, stream)
            code = cli.run(arguments)
        return Ran(code, streams[1].text(), streams[2].text())

    async def run(self, *arguments: str, stdin: str | bytes = b"", terminal: bool = False) -> Ran:
        """Run a command in a thread, so that the daemon on this loop can answer it."""
        return await asyncio.to_thread(self.now, *arguments, stdin=stdin, terminal=terminal)

    async def ok(self, *arguments: str, stdin: str | bytes = b"") -> str:
        """Run a command that must succeed; its output."""
        ran = await self.run(*arguments, stdin=stdin)
        assert ran.code == 0, ran
        return ran.out


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Face:
    """A person with an empty home and no daemon in sight."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HENGE_SOCKET", "HENGE_SERVER", "HENGE_CONTEXT", "HENGE_COLOR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    monkeypatch.setattr("henge_protocol.places.SYSTEM_RUNTIME_DIR", home / "system-run")
    return Face(monkeypatch, home)
