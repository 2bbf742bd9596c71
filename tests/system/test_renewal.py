"""The real agent renews its identity when the real daemon asks for it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from henge_agent.records import Membership
from henge_agent.state import State, read_membership
from henge_protocol import pki
from tests.service import Admin, Service, device, schema
from tests.system.programs import PROGRAMS

pytestmark = pytest.mark.system


def membership(state: Path) -> Membership:
    found = read_membership(state)
    assert found is not None
    return found


async def henge_agent(*arguments: str | Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(PROGRAMS / "henge-agent", *arguments)


async def test_an_agent_that_is_asked_renews_once_and_goes_on(
    daemon: Service, admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    token, state, output = tmp_path / "token", tmp_path / "agent", tmp_path / "lamp.json"
    token.touch(mode=0o600)
    token.write_text((await admin.ok("POST", "/v1/tokens", {"name": "lamp-1"}))["token"])
    joining = await henge_agent("join", daemon.url, "--token-file", token, "--name", "lamp-1", "--state-dir", state)
    assert await joining.wait() == 0
    with closing(State(state)) as joined:
        pem = joined.identity_file("a").read_bytes()
    old = pki.fingerprint(pki.certificate_der(pem[pem.index(b"-----BEGIN CERTIFICATE") :]))
    monkeypatch.setattr(daemon.app.authority, "renew_within_s", lambda caller: int(caller.certificate == old))

    running = await henge_agent("run", "--state-dir", state, "--output", output)
    try:
        async with asyncio.timeout(30):
            while membership(state).slot != "b" or membership(state).trial:  # noqa: ASYNC110 - a file rings no bell
                await asyncio.sleep(0.01)
        await admin.set("lamp-1", color="blue")
        await admin.until("lamp-1", config="in-sync", connection="online", identity="active")
    finally:
        running.terminate()
        assert await running.wait() == 0

    records = (await admin.ok("GET", "/v1/audit"))["items"]
    assert [record["object"] for record in records if record["what"] == "certificate.renewed"] == ["device/lamp-1"]
