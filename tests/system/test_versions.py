"""The real agent at a daemon that no longer speaks its protocol, and what both sides say about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import Admin, Service, device, schema
from tests.system.agents import Agent, told_by

pytestmark = pytest.mark.system


async def restart(daemon: Service, speaks: tuple[int, int]) -> None:
    """A daemon of another version on the same folder and port."""
    daemon.speaks = speaks
    daemon._flags["listen.devices"] = f"127.0.0.1:{daemon.port}"
    await daemon.restart()


async def test_an_agent_without_a_common_version_says_so_and_is_shown_with_the_reason(
    daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    agent = Agent(tmp_path)
    await agent.join(daemon.url, (await admin.ok("POST", "/v1/tokens", {"name": "lamp-1"}))["token"])
    async with agent:
        await admin.until("lamp-1", config="in-sync")

    await restart(daemon, (2, 3))
    async with agent:
        await agent.until(lambda: agent.membership.refused == "unsupported_protocol")
    why = "it speaks protocol 1, this daemon 2 to 3; update the program on the device"
    assert "update henge-agent or hengd" in await agent.status()
    assert why in await told_by("hengectl", "--socket", daemon.socket, "get", "devices")
    assert why in await told_by("hengectl", "--socket", daemon.socket, "describe", "device/lamp-1")

    await restart(daemon, (1, 3))
    async with agent, daemon.admin() as again:
        await again.set("lamp-1", color="blue")
        await again.until("lamp-1", config="in-sync", connection="online")
    described = await told_by("hengectl", "--socket", daemon.socket, "describe", "device/lamp-1")
    assert "ProtocolUnsupported" not in described
    assert "refused" not in await agent.status()
