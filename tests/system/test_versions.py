"""The real agent at a daemon that no longer speaks its protocol, and what both sides say about it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from henge_agent.state import read_membership
from tests.service import Admin, Service, device, schema
from tests.system.programs import PROGRAMS

pytestmark = pytest.mark.system


async def output(program: str, *arguments: str | Path) -> str:
    """What a command prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        PROGRAMS / program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


class Agent:
    """henge-agent on a folder, started and stopped."""

    def __init__(self, folder: Path) -> None:
        self.state, self._output = folder / "agent", folder / "lamp.json"

    async def __aenter__(self) -> None:
        command = [PROGRAMS / "henge-agent", "run", "--state-dir", self.state, "--output", self._output]
        self._process = await asyncio.create_subprocess_exec(*command)

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        assert await self._process.wait() == 0

    async def told(self, text: str) -> str:
        """Wait until the state folder has this refusal, then what ``henge-agent status`` says."""
        async with asyncio.timeout(30):
            while (membership := read_membership(self.state)) is None or membership.refused != text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return await output("henge-agent", "status", "--state-dir", self.state)


async def restart(daemon: Service, speaks: tuple[int, int]) -> None:
    """A daemon of another version on the same folder and port."""
    daemon.speaks = speaks
    daemon._flags["listen.devices"] = f"127.0.0.1:{daemon.port}"
    await daemon.restart()


async def test_an_agent_without_a_common_version_says_so_and_is_shown_with_the_reason(
    daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    agent, token = Agent(tmp_path), tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text((await admin.ok("POST", "/v1/tokens", {"name": "lamp-1"}))["token"])
    join = ("join", daemon.url, "--token-file", token, "--name", "lamp-1", "--state-dir", agent.state)
    await output("henge-agent", *join)
    async with agent:
        await admin.until("lamp-1", config="in-sync")

    await restart(daemon, (2, 3))
    async with agent:
        status = await agent.told("unsupported_protocol")
    listed = await output("hengectl", "--socket", daemon.socket, "get", "devices")
    described = await output("hengectl", "--socket", daemon.socket, "describe", "device/lamp-1")
    assert "update henge-agent or hengd" in status
    why = "it speaks protocol 1, this daemon 2 to 3; update the program on the device"
    assert why in listed
    assert why in described

    await restart(daemon, (1, 3))
    async with agent, daemon.admin() as again:
        await again.set("lamp-1", color="blue")
        await again.until("lamp-1", config="in-sync", connection="online")
    assert "ProtocolUnsupported" not in await output("hengectl", "--socket", daemon.socket, "describe", "device/lamp-1")
    assert "refused" not in await output("henge-agent", "status", "--state-dir", agent.state)
