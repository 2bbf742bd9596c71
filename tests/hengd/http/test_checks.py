"""Candidates put to devices: what they say, and what is said of those that say nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from hengd.rules import checks
from henge_protocol.wire import Config, Error, FieldError, Report
from tests.service import Admin, Identity, ScriptedDevice, Service, connected, device, schema

BLUE = {"objects": [device("lamp-1", color="blue", labels={"room": "attic"})]}


@pytest.fixture
async def lamp(daemon: Service, admin: Admin) -> Identity:
    await admin.apply(schema(), device("lamp-1", labels={"room": "attic"}), device("lamp-2"))
    return await daemon.join(admin, "lamp-1")


async def check(admin: Admin, body: dict[str, Any] = BLUE, query: str = "") -> list[dict[str, Any]]:
    answer = await admin.ok("POST", f"/v1/check{query}", body)
    return list(answer["items"])


async def asked(link: ScriptedDevice) -> Config:
    """The candidate that the daemon puts to the device."""
    event = await link.event()
    assert isinstance(event, Config)
    assert event.intent == "check"
    return event


async def test_a_device_says_whether_it_could_run_a_candidate_and_nothing_changes(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        before = await admin.ok("GET", "/v1/revisions")
        for said, verdict in (
            (Report(state="checked"), ("fits", "", [])),
            (
                Report(state="checked", reason="invalid", errors=(FieldError("/color", "no paint"),)),
                ("refused", "invalid", [{"pointer": "/color", "message": "no paint"}]),
            ),
            (Report(state="checked", reason="busy"), ("busy", "", [])),
            (Error("not_implemented_here", ""), ("unsupported", "not_implemented_here", [])),
        ):
            asking = asyncio.create_task(check(admin))
            candidate = await asked(link)
            assert candidate.document == b'{"brightness":80,"color":"blue"}'
            assert candidate.schema == link.documents[-1].schema != ""
            await link.send(replace(said, digest=candidate.digest) if isinstance(said, Report) else said)
            [item] = await asking
            assert item == {"name": "lamp-1", "verdict": verdict[0], "reason": verdict[1], "errors": verdict[2]}

        assert await admin.ok("GET", "/v1/revisions") == before
        assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["config"] == "in-sync"
        await admin.set("lamp-1", color="red")
        assert (await link.apply_next())["color"] == "red"


async def test_a_schema_that_devices_cannot_fetch_yet_is_not_named_to_them(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    wider = schema(type="object", properties={"color": {"enum": ["red", "mauve"], "default": "red"}})
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        objects = [wider, device("lamp-1", color="mauve", labels={"room": "attic"})]
        asking = asyncio.create_task(check(admin, {"objects": objects}, "?selector=room%3Dattic"))
        candidate = await asked(link)
        await link.send(Report(digest=candidate.digest, state="checked"))

        assert [one["verdict"] for one in await asking] == ["fits"]
        assert (candidate.document, candidate.schema) == (b'{"color":"mauve"}', "")


async def test_devices_that_cannot_be_asked_are_named(
    daemon: Service, admin: Admin, lamp: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {"objects": [device("lamp-1", color="blue", labels={"room": "attic"}), device("lamp-2", color="red")]}
    assert [(one["name"], one["verdict"]) for one in await check(admin, objects)] == [
        ("lamp-1", "offline"), ("lamp-2", "offline"),
    ]  # fmt: skip
    assert [one["name"] for one in await check(admin, objects, "?selector=room%3Dattic")] == ["lamp-1"]
    monkeypatch.setattr(checks, "ANSWER_S", 0.05)
    async with connected(daemon, lamp) as link:
        config = await link.config()
        assert [one["verdict"] for one in await check(admin)] == ["busy"]
        await link.report(config)
        assert [one["verdict"] for one in await check(admin)] == ["silent"]
        late = await asked(link)
        await link.send(Report("", 0, late.digest, "checked", "invalid"))
        assert [one["verdict"] for one in await check(admin)] == ["silent"]
        await asked(link)
        await admin.set("lamp-1", color="blue")
        assert (await link.apply_next())["color"] == "blue", "a candidate that was refused late is not quarantined"


async def test_a_device_whose_link_ends_while_it_is_asked_is_not_waited_for(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        asking = asyncio.create_task(check(admin))
        await asked(link)
    assert [one["verdict"] for one in await asking] == ["offline"]


async def test_what_apply_refuses_is_refused_and_what_changes_nothing_asks_nobody(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    same = {"objects": [device("lamp-1", labels={"room": "attic"})]}
    assert await check(admin, same) == []
    pink = await admin.refused("POST", "/v1/check", {"objects": [device("lamp-1", color="pink")]})
    more = await admin.refused("POST", "/v1/check", {"objects": [], "delete": []})
    assert (pink.json["code"], more.json["code"]) == ("does_not_fit", "unknown_field")
