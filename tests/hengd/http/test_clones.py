"""Two machines with one certificate (W34, W35): noticed by their boots, nothing more is sent, both are shown."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.service import PATIENCE_S, Admin, Identity, ScriptedDevice, Service, raw_link, schema


@pytest.fixture
async def lamp(daemon: Service, admin: Admin) -> Identity:
    """A device that joined and has a document."""
    await admin.apply(schema())
    return await daemon.join(admin, "lamp-1", schema="lamp")


async def boots(daemon: Service, stack: AsyncExitStack, lamp: Identity, *machines: tuple[str, str]) -> ScriptedDevice:
    """Hellos from (boot, address), one after the other, each while the one before is still connected; the last link."""
    link: ScriptedDevice | None = None
    for boot, address in machines:
        link = await stack.enter_async_context(raw_link(daemon, lamp, local=address))
        await link.hello(boot=boot)
    assert link is not None
    return link


async def shared(admin: Admin) -> tuple[list[str], str]:
    """The addresses, and what the condition says."""
    status = (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]
    [condition] = [one for one in status["conditions"] if one["type"] == "IdentityShared"]
    return status.get("shared", []), condition["status"]


async def until_shared(admin: Admin) -> tuple[list[str], str]:
    """Wait by events until the clone is on record."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seq = (await admin.ok("GET", "/v1/events"))["next"]
            told = await shared(admin)
            if told[0]:
                return told
            await admin.ok("GET", f"/v1/events?since={seq}&wait=5")


async def test_a_device_that_reboots_while_its_old_link_hangs_is_no_clone(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with AsyncExitStack() as stack:
        link = await boots(daemon, stack, lamp, *((f"boot-{n}", "127.0.0.1") for n in range(7)))
        document = await link.apply_next()

    assert document["color"] == "green"
    assert await shared(admin) == ([], "False")


async def test_a_device_whose_program_restarts_in_one_boot_is_no_clone(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with AsyncExitStack() as stack:
        await boots(daemon, stack, lamp, *[("boot-1", "127.0.0.1")] * 4)

    assert await shared(admin) == ([], "False")


async def test_a_boot_that_comes_back_after_another_is_a_clone_and_nothing_is_sent_w35(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with AsyncExitStack() as stack:
        config = await (await boots(daemon, stack, lamp, ("one", "127.0.0.1"))).config()
        link = await boots(daemon, stack, lamp, ("two", "127.0.0.2"), ("one", "127.0.0.1"))
        told = await until_shared(admin)
        await admin.set("lamp-1", color="red")
        await link.report(config, "applying")  # whatever was sent came before the receipt
        async with daemon.remote(lamp) as poll:
            nothing = await poll.call("GET", "/v1/device/config?have=")
    await daemon.restart()

    assert told == (["127.0.0.2", "127.0.0.1"], "True")
    assert (nothing.status, link.documents) == (304, [])
    async with daemon.admin() as after:
        assert await shared(after) == told


async def test_the_clone_is_told_as_an_event(daemon: Service, admin: Admin, lamp: Identity) -> None:
    seq = daemon.app.events.seq
    async with AsyncExitStack() as stack:
        await boots(daemon, stack, lamp, ("one", "127.0.0.1"), ("two", "127.0.0.2"), ("one", "127.0.0.1"))
        events = (await admin.ok("GET", f"/v1/events?since={seq}"))["events"]

    assert [(one["name"], one["addresses"]) for one in events if one["type"] == "device.shared"] == [
        ("lamp-1", ["127.0.0.2", "127.0.0.1"])
    ]


async def test_retry_ends_it_and_a_clone_that_is_still_there_is_noticed_again(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    machines = ("one", "127.0.0.1"), ("two", "127.0.0.2"), ("one", "127.0.0.1")
    async with AsyncExitStack() as stack:
        link = await boots(daemon, stack, lamp, *machines)
        await admin.ok("POST", "/v1/devices/lamp-1/retry")
        document = await link.apply_next()
        after = await shared(admin)
        await boots(daemon, stack, lamp, *machines[1:])
        again = await until_shared(admin)
        last = await boots(daemon, stack, lamp, machines[1])

    assert (document["color"], after, last.documents) == ("green", ([], "False"), [])
    assert again[1] == "True"


@pytest.mark.parametrize("boot", ["", "one"])
async def test_a_device_without_or_with_a_constant_nonce_is_never_taken_for_a_clone(
    daemon: Service, admin: Admin, lamp: Identity, boot: str
) -> None:
    async with AsyncExitStack() as stack:
        await boots(daemon, stack, lamp, *[(boot, f"127.0.0.{1 + n % 2}") for n in range(4)])

    assert await shared(admin) == ([], "False")


async def conditions(admin: Admin, path: str) -> dict[str, Any]:
    """An object's conditions by type: status and reason."""
    found = (await admin.ok("GET", path))["status"]["conditions"]
    return {one["type"]: (one["status"], one["reason"]) for one in found}


async def test_conditions_follow_what_the_device_says(daemon: Service, admin: Admin, lamp: Identity) -> None:
    pending = await conditions(admin, "/v1/devices/lamp-1")
    async with AsyncExitStack() as stack:
        link = await boots(daemon, stack, lamp, ("one", "127.0.0.1"))
        await link.apply_next()
        good = await conditions(admin, "/v1/devices/lamp-1")
        await admin.set("lamp-1", color="red")
        await link.report(await link.config(), "rejected", reason="hook-failed")
        bad = (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]
    layer = await conditions(admin, "/v1/schemas/lamp")

    assert pending == {
        "Joined": ("True", "active"), "Connected": ("Unknown", "never-seen"),
        "InSync": ("Unknown", "unknown"), "ProtocolUnsupported": ("False", "unsaid"),
        "IdentityShared": ("False", "one"), "RebootRequired": ("False", "none"),
    }  # fmt: skip
    assert good | {"Connected": ("True", "online"), "InSync": ("True", "in-sync")} == good
    [refused] = [one for one in bad["conditions"] if one["type"] == "InSync"]
    assert (refused["status"], refused["reason"]) == ("False", "quarantined")
    assert "(hook-failed)" in refused["message"]
    assert refused["observed_revision"] == bad["reported"]["revision"]
    assert refused["since"] == bad["reported"]["at"]
    assert layer == {"Accepted": ("True", "checked")}
