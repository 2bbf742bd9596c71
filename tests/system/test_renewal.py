"""The real agent renews its identity when the real daemon asks for it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from henge_agent.state import State
from henge_protocol import pki
from tests.service import Admin, Service, device, schema
from tests.system.agents import Agent

pytestmark = pytest.mark.system


async def test_an_agent_that_is_asked_renews_once_and_goes_on(
    daemon: Service, admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    agent = Agent(tmp_path)
    await agent.join(daemon.url, (await admin.ok("POST", "/v1/tokens", {"name": "lamp-1"}))["token"])
    with closing(State(agent.state)) as joined:
        pem = joined.identity_file("a").read_bytes()
    old = pki.fingerprint(pki.certificate_der(pem[pem.index(b"-----BEGIN CERTIFICATE") :]))
    monkeypatch.setattr(daemon.app.authority, "renew_within_s", lambda caller: int(caller.certificate == old))

    async with agent:
        await agent.until(lambda: (agent.membership.slot, agent.membership.trial) == ("b", None))
        await admin.set("lamp-1", color="blue")
        await admin.until("lamp-1", config="in-sync", connection="online", identity="active")

    records = (await admin.ok("GET", "/v1/audit"))["items"]
    assert [record["object"] for record in records if record["what"] == "certificate.renewed"] == ["device/lamp-1"]
