"""What was made for protocol version 1 and never updated works with the programs of today, in both directions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from henge_agent.state import read_progress
from tests.service import Admin, Service, device, schema
from tests.system.agents import Agent

pytestmark = pytest.mark.system

FROZEN = Path(__file__).parents[1] / "frozen"
DIGESTS = {
    "device_1.py": "196dae2dcd61d9e2029dfa9025acdd4e4aee6f01082713dcb27d15ebb7c4760b",
    "daemon_1.py": "eff50de49745f06e3057882382ec955ce9f720822d8ec7c138856f0254019f87",
}


class Peer:
    """A frozen program that speaks in JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.spoken: list[dict[str, Any]] = []

    async def says(self, name: str) -> Any:
        """The next line that has this field; its value."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while line := await self.process.stdout.readline():
                fields: dict[str, Any] = json.loads(line)
                self.spoken.append(fields)
                if name in fields:
                    return fields[name]
        raise AssertionError(f"no {name!r} in {self.spoken}")

    async def tell(self, **fields: Any) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(fields).encode() + b"\n")
        await self.process.stdin.drain()


@asynccontextmanager
async def frozen(tmp_path: Path, name: str, *arguments: str) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", FROZEN / name, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        yield Peer(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_what_is_frozen_is_not_updated(name: str) -> None:
    """Change what broke it, not the file: there are devices and daemons like it that nobody can change."""
    assert hashlib.sha256((FROZEN / name).read_bytes()).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("way", ["stream", "poll"])
async def test_a_device_of_version_1_does_its_whole_job_with_the_daemon_of_today(
    daemon: Service, admin: Admin, tmp_path: Path, way: str
) -> None:
    await admin.apply(schema(), device("old-lamp", color="red"))
    token = (await admin.ok("POST", "/v1/tokens", {"name": "old-lamp"}))["token"]
    async with frozen(tmp_path, "device_1.py", way, daemon.url, token) as lamp:
        assert await lamp.says("joined") == "old-lamp"
        assert (await lamp.says("welcome"))["protocol"] == 1
        assert await lamp.says("runs") == {"brightness": 80, "color": "red"}
        assert (await lamp.says("receipt"))["state"] == "applied"
        await admin.until("old-lamp", config="in-sync", connection="online", identity="active")
        await admin.set("old-lamp", color="blue")
        assert await lamp.says("runs") == {"brightness": 80, "color": "blue"}
        assert (await lamp.says("receipt"))["state"] == "applied"
        await admin.until("old-lamp", config="in-sync")
        await daemon.restart()
        if way == "stream":
            assert (await lamp.says("bye"))["reason"]
        assert await lamp.says("gone") == (1001 if way == "stream" else 0)
        assert await lamp.process.wait() == 0


@pytest.mark.parametrize("way", ["stream", "poll"])
async def test_the_agent_of_today_does_its_whole_job_with_a_daemon_of_version_1(tmp_path: Path, way: str) -> None:
    agent = Agent(tmp_path)
    async with frozen(tmp_path, "daemon_1.py", way) as old:
        url = await old.says("url")
        await agent.join(url, old.spoken[-1]["token"])
        async with agent:
            for color in ("red", "blue"):
                await old.tell(want={"color": color})
                while (heard := await old.says("heard"))["type"] != "report" or heard["state"] != "applied":
                    pass
                assert agent.document == {"color": color}
                assert old.spoken[-1]["by"] == way
                await agent.until(lambda: not read_progress(agent.state).trial)
            await old.tell(bye=True)

    status = await agent.status()
    assert "report     confirmed" in status
    hello = next(line["heard"] for line in old.spoken if "heard" in line)
    assert (hello["type"], hello["protocol"]) == ("hello", [1, 1])
