"""henge-agent as a process beside a daemon that lives in the test's own loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from henge_agent.records import Membership
from henge_agent.state import read_membership
from tests.system.programs import PROGRAMS

PATIENCE_S = 30.0


async def told_by(program: str, *arguments: str | Path) -> str:
    """What a command prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        PROGRAMS / program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


class Agent:
    """One agent on one folder; as a context it runs."""

    def __init__(self, folder: Path, name: str = "lamp-1") -> None:
        self.state, self.output = folder / "agent", folder / f"{name}.json"
        self._token = folder / "token"
        self._name = name

    async def join(self, url: str, token: str) -> None:
        """Join a fleet by a token."""
        self._token.touch(mode=0o600)
        self._token.write_text(token)
        named = ("--token-file", self._token, "--name", self._name, "--state-dir", self.state)
        await told_by("henge-agent", "join", url, *named)

    async def __aenter__(self) -> None:
        command = [PROGRAMS / "henge-agent", "run", "--state-dir", self.state, "--output", self.output]
        self._process = await asyncio.create_subprocess_exec(*command)

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        assert await self._process.wait() == 0

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the agent's files are as they should be; a file rings no bell."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def status(self) -> str:
        """What ``henge-agent status`` says."""
        return await told_by("henge-agent", "status", "--state-dir", self.state)

    @property
    def membership(self) -> Membership:
        """As it stands on the disk."""
        found = read_membership(self.state)
        assert found is not None
        return found

    @property
    def document(self) -> Any:
        """What the output holds, or nothing."""
        return json.loads(self.output.read_bytes()) if self.output.exists() else None
