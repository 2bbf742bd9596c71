from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from henge_protocol import __version__
from henge_protocol.errors import Unreachable
from henge_protocol.wire import FieldError
from hengectl import yamltext
from tests.hengectl.conftest import Face
from tests.service import (
    LAMP,
    Admin,
    Clock,
    Identity,
    ScriptedDevice,
    Service,
    connected,
    device,
    group,
    raw_link,
    schema,
)

ROOT = Path(__file__).parents[2]

FLEET = [
    schema(),
    group("kitchen", "room=kitchen", color="blue"),
    device("lamp-1", labels={"room": "kitchen"}),
    device("lamp-2", labels={"room": "hall"}),
]


@pytest.fixture
async def person(face: Face, daemon: Service, admin: Admin) -> Face:
    """Somebody on the daemon's machine; two lamps and a group are there."""
    face.environ(HENGE_SOCKET=str(daemon.socket))
    await admin.apply(*FLEET)
    return face


@asynccontextmanager
async def obedient(daemon: Service, identity: Identity, **fields: Any) -> AsyncIterator[ScriptedDevice]:
    """A device that reports every document as applied (or as ``fields`` say) as long as the block runs."""
    async with connected(daemon, identity) as lamp:

        async def obey() -> None:
            while True:
                await lamp.report(await lamp.config(), **fields)

        task = asyncio.create_task(obey())
        try:
            yield lamp
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def lines(text: str) -> list[list[str]]:
    """A table's cells."""
    return [re.split(r" {3,}", line) for line in text.splitlines()]


def manifest(tmp_path: Path, *objects: dict[str, Any]) -> str:
    """A file with objects."""
    path = tmp_path / "fleet.yaml"
    path.write_text("---\n".join(yamltext.write({"apiVersion": "henge/v1", **one}) for one in objects))
    return str(path)


async def test_apply_makes_the_fleet_as_files_say(person: Face, tmp_path: Path) -> None:
    path = manifest(tmp_path, group("kitchen", "room=kitchen", color="red"), device("lamp-3"))

    dry = await person.ok("apply", "-f", path, "--dry-run")
    assert sorted(dry.splitlines()) == [
        "device/lamp-3 created (dry run)",
        "dry run: 2 of 3 devices (2 offline) would change: lamp-1, lamp-3",
        "group/kitchen configured (dry run)",
    ]
    assert "lamp-3" not in await person.ok("get", "devices")

    done = await person.ok("apply", "-f", path, "-m", "more light")
    assert "group/kitchen configured" in done
    assert done.splitlines()[-1] == "revision 2, 2 of 3 devices (2 offline) change: lamp-1, lamp-3"
    assert (await person.ok("apply", "-f", path)).splitlines()[-1] == "nothing to change, revision stays 2"
    assert (await person.ok("apply", "-f", path, "-o", "name")).split() == ["group/kitchen", "device/lamp-3"]
    assert "more light" in await person.ok("history")


async def test_what_get_prints_apply_reads(person: Face) -> None:
    for form in ("yaml", "json"):
        for kind in ("schemas", "groups", "devices"):
            printed = await person.ok("get", kind, "-o", form)
            assert "nothing to change" in await person.ok("apply", "-f", "-", stdin=printed)


async def test_a_refused_file_is_placed(person: Face, tmp_path: Path) -> None:
    text = (
        "apiVersion: henge/v1\nkind: Device\nmetadata:\n  name: lamp-1\nspec:\n  schema: lamp\n"
        "  values:\n    color: blue\n    brightness: 500\n"
    )
    path = tmp_path / "lamp.yaml"
    path.write_text(text)

    ran = await person.run("apply", "-f", str(path))
    assert ran.code == 6
    assert f"{path}:9:17" in ran.err
    assert "Nothing was changed." in ran.err
    assert "hengectl explain lamp" in ran.err


async def test_apply_waits_for_connected_devices_and_names_the_others(
    person: Face, daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    path = manifest(tmp_path, schema("lamp", **{**LAMP, "title": "x"}), group("all", priority=0, brightness=7))
    async with obedient(daemon, await daemon.join(admin, "lamp-1")):
        await admin.until("lamp-1", config="in-sync")
        ran = await person.run("apply", "-f", path, "--wait", "--timeout", "10s")

    assert ran.code == 0, ran
    assert "lamp-1 in-sync" in ran.out
    assert "lamp-2 is not connected and will get it when back" in ran.out


async def test_a_device_that_refuses_ends_the_wait(person: Face, daemon: Service, admin: Admin) -> None:
    refusing = {"state": "rejected", "reason": "invalid"}
    async with obedient(daemon, await daemon.join(admin, "lamp-1"), **refusing):
        one = await person.run("set", "device/lamp-1", "color=red", "--wait")
        async with obedient(daemon, await daemon.join(admin, "lamp-2")):
            both = await person.run("set", "group/all", "brightness=3", "--wait")

    assert (one.code, both.code) == (1, 9)
    assert "lamp-1 quarantined: invalid" in one.out
    assert "lamp-2 in-sync" in both.out


async def test_a_group_waits_for_those_of_its_devices_that_the_change_concerns(
    person: Face, daemon: Service, admin: Admin
) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-2")):
        await admin.set("lamp-2", brightness=2)  # newer than the group, and never reported
        same = await person.run("set", "group/kitchen", "color=blue", "--wait", "--timeout", "5s")
        async with obedient(daemon, await daemon.join(admin, "lamp-1")):
            changed = await person.run("set", "group/kitchen", "brightness=3", "--wait", "--timeout", "5s")

    assert (same.code, same.out) == (0, "group/kitchen unchanged\nno device gets another document\n")
    assert (changed.code, changed.out.splitlines()[1:]) == (0, ["lamp-1 in-sync"])


async def test_a_device_that_is_silent_is_waited_for_no_longer_than_told(
    person: Face, daemon: Service, admin: Admin
) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-1")):
        ran = await person.run("set", "device/lamp-1", "color=red", "--wait", "--timeout", "1s")

    assert ran.code == 8
    assert "1 device not in-sync within 1s: lamp-1" in ran.err


async def test_a_device_that_a_change_cuts_off_is_no_success(person: Face, daemon: Service, admin: Admin) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.report(await lamp.config())
        waits = asyncio.create_task(person.run("set", "device/lamp-1", "color=red", "--wait", "--timeout", "3s"))
        await lamp.report(await lamp.config(), "applying")
    ran = await waits

    assert (ran.code, "will get it when back" in ran.out) == (8, False)
    assert "not in-sync within 3s: lamp-1 (applying, not connected any more)" in ran.err
    assert "See: hengectl describe device/lamp-1" in ran.err


async def test_the_end_of_a_wait_says_how_things_are(person: Face, daemon: Service, admin: Admin) -> None:
    failed = {"state": "rolled-back", "reason": "server-unreachable"}
    async with connected(daemon, await daemon.join(admin, "lamp-1")) as lamp:
        await lamp.report(await lamp.config())
        waits = asyncio.create_task(person.run("set", "device/lamp-1", "color=red", "--wait", "--timeout", "2s"))
        await lamp.report(await lamp.config(), **failed)
        ran = await waits

    assert (ran.code, "lamp-1 (rolled-back: server-unreachable)" in ran.err) == (8, True)


async def test_values_are_set_typed_and_unset(person: Face, admin: Admin) -> None:
    assert await person.ok("set", "device/lamp-1", "brightness=10", "wifi.ssid=12") == "device/lamp-1 configured (r2)\n"
    assert await person.ok("set", "device/lamp-1", "brightness=10") == "device/lamp-1 unchanged\n"
    assert await values(admin, "devices/lamp-1") == {"brightness": 10, "wifi": {"ssid": "12"}}

    await person.ok("set", "device/lamp-1", "color=null", 'wifi={"channel":6}')
    assert await values(admin, "devices/lamp-1") == {"brightness": 10, "color": None, "wifi": {"channel": 6}}
    assert json.loads(await person.ok("document", "lamp-1")) == {"brightness": 10, "wifi": {"channel": 6}}

    ran = await person.run("unset", "device/lamp-1", "wifi.channel", "color", "nosuch")
    assert (ran.code, ran.out) == (0, "device/lamp-1 configured (r4)\n")
    assert "did not set nosuch" in ran.err
    assert await values(admin, "devices/lamp-1") == {"brightness": 10}


async def test_an_override_lasts_for_a_time_and_hides_what_is_set_meanwhile(
    person: Face, admin: Admin, tmp_path: Path
) -> None:
    await person.ok("set", "device/lamp-1", "brightness=10")
    told = await person.ok("set", "device/lamp-1", "brightness=90", "wifi.ssid=lab", "--for", "2h", "-m", "try")
    assert told.startswith("device/lamp-1 configured (r3) until 20")
    assert await values(admin, "devices/lamp-1") == {"brightness": 10}
    assert json.loads(await person.ok("document", "lamp-1"))["brightness"] == 90

    assert re.search(
        r"90 +override +device/lamp-1 .* in force, ends in (2h|119m)", await person.ok("why", "lamp-1", "brightness")
    )
    assert re.search(r"90 +override of device/lamp-1 ", await person.ok("why", "lamp-1"))
    assert re.search(
        r"overrides\n +brightness +90 +ends in (2h|119m) .* try", await person.ok("describe", "device/lamp-1")
    )
    same = manifest(tmp_path, device("lamp-1", labels={"room": "kitchen"}, brightness=10))
    assert (await person.run("diff", "-f", same)).code == 0

    hidden = await person.run("set", "device/lamp-1", "brightness=20")
    assert "device/lamp-1 overrides brightness for another" in hidden.err


async def test_a_rollback_tells_which_overrides_end_and_come_back(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "brightness=90", "--for", "2h")
    back = await person.run("rollback", "device/lamp-1", "--to", "1")
    assert (back.code, back.err) == (0, "With that the override of brightness in device/lamp-1 ends.\n")

    again = await person.run("rollback", "device/lamp-1", "--to", "2")
    assert re.fullmatch("With that the override of brightness in device/lamp-1 runs until 20[-0-9T:]+Z.\n", again.err)
    refused = await person.run("rollback", "--all", "--to", "1")
    assert "the override of brightness in device/lamp-1 ends." in refused.err


async def test_an_override_says_until_when_it_runs(person: Face) -> None:
    told = await person.ok("set", "device/lamp-1", "brightness=90", "--for", "3h")

    assert re.fullmatch(r"device/lamp-1 configured \(r2\) until 20[-0-9T:]+Z\n", told)


async def test_unset_of_what_was_not_set_suggests_what_was(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "color=red")
    ran = await person.run("unset", "device/lamp-1", "colr")

    assert (ran.code, ran.err) == (0, "device/lamp-1 did not set colr. Did you mean color?\n")


async def test_a_thing_is_described_and_a_revision_shown_in_either_spelling(person: Face) -> None:
    assert await person.ok("describe", "device", "lamp-1") == await person.ok("describe", "device/lamp-1")
    assert await person.ok("get", "revision/1", "-o", "json") == await person.ok("get", "revision", "1", "-o", "json")


async def test_tokens_are_listed_by_age_and_the_used_up_last(person: Face, daemon: Service, admin: Admin) -> None:
    names = ["zoe", "lamp-2", "lamp-1"]
    for name in names:
        await person.ok("token", "create", "--name", name, "-q")
    await daemon.join(admin, "lamp-9")

    assert sorted(row[2] for row in lines(await person.ok("token", "list"))[1:4]) == sorted(names)
    assert lines(await person.ok("token", "list"))[-1][2] == "lamp-9"


async def test_an_override_and_an_own_value_are_unset_as_one_change(person: Face, admin: Admin) -> None:
    await person.ok("set", "device/lamp-1", "brightness=7")
    await person.ok("set", "device/lamp-1", "color=green", "--for", "1h")
    before = (await admin.ok("GET", "/v1/status"))["revision"]
    await person.ok("unset", "device/lamp-1", "color", "brightness")
    lamp = await admin.ok("GET", "/v1/devices/lamp-1")

    assert lamp["metadata"]["revision"] == (await admin.ok("GET", "/v1/status"))["revision"] == before + 1
    assert "brightness" not in lamp["spec"]["values"]
    assert "overrides" not in lamp["status"]


async def test_unset_ends_an_override_before_it_removes_what_was_set(person: Face, admin: Admin) -> None:
    await person.ok("set", "group/kitchen", "brightness=10")
    await person.ok("set", "group/kitchen", "brightness=90", "color=red", "--for", "2h")
    assert "group/kitchen configured (brightness for a time, color for a time)" in await person.ok("history")
    ran = await person.run("unset", "group/kitchen", "brightness")
    assert (ran.code, ran.out) == (0, "group/kitchen configured (r4)\n")
    assert "group/kitchen itself still sets it" in ran.err
    assert await values(admin, "groups/kitchen") == {"color": "blue", "brightness": 10}

    await person.ok("unset", "group/kitchen", "brightness")
    assert await values(admin, "groups/kitchen") == {"color": "blue"}
    assert json.loads(await person.ok("document", "lamp-1"))["color"] == "red"


async def test_devices_with_labels_are_overridden_together_for_a_time(
    person: Face, daemon: Service, admin: Admin
) -> None:
    await admin.apply(device("lamp-3", labels={"room": "kitchen"}, brightness=5))
    told = await person.ok("set", "-l", "room=kitchen", "color=red", "brightness=90", "--for", "2h", "-m", "party")
    assert told == "2 devices configured (r3): lamp-1, lamp-3\n"
    for name in ("lamp-1", "lamp-3"):
        assert json.loads(await person.ok("document", name)) == {"brightness": 90, "color": "red"}
    assert json.loads(await person.ok("document", "lamp-2"))["color"] != "red"
    [newest] = json.loads(await person.ok("history", "-o", "json", "--limit", "1"))["items"]
    assert (newest["message"], [one["name"] for one in newest["changes"]]) == ("party", ["lamp-1", "lamp-3"])

    ended = await person.ok("unset", "-l", "room=kitchen", "color")
    assert ended == "2 devices configured (r4): lamp-1, lamp-3\n"
    assert json.loads(await person.ok("document", "lamp-3")) == {"brightness": 90, "color": "blue"}
    assert await person.ok("unset", "-l", "room=kitchen", "color") == "nothing to change, revision stays 4\n"


async def test_one_device_that_refuses_keeps_all_that_are_selected_as_they_are(person: Face, admin: Admin) -> None:
    strict = {"type": "object", "properties": {"brightness": {"type": "integer", "maximum": 50}}}
    await admin.apply(schema("strict", **strict), device("lamp-3", "strict", labels={"room": "kitchen"}))
    before = (await admin.ok("GET", "/v1/status"))["revision"]
    ran = await person.run("set", "-l", "room=kitchen", "brightness=60", "--for", "2h")

    assert ran.code == 6
    assert "lamp-3" in ran.err
    assert (await admin.ok("GET", "/v1/status"))["revision"] == before


async def test_waiting_for_overridden_devices_names_each(person: Face, daemon: Service, admin: Admin) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    async with obedient(daemon, lamp):
        told = await person.ok("set", "-l", "room=kitchen", "color=red", "--for", "2h", "--wait")

    assert told.splitlines()[-1] == "lamp-1 in-sync"


async def test_a_change_that_is_too_wide_needs_a_word(
    person: Face, daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    lab = {"type": "object", "properties": {"ssid": {"type": "string", "x-henge-risk": "connectivity"}}}
    await admin.apply(
        schema("lab", **lab), group("lab", bound="lab", ssid="one"), device("a", "lab"), device("b", "lab")
    )
    for name in ("a", "b"):
        async with obedient(daemon, await daemon.join(admin, name)):
            await admin.until(name, config="in-sync")

    files = manifest(tmp_path, group("lab", bound="lab", ssid="two"))
    told = await person.run("diff", "-f", files)
    refused = await person.run("apply", "-f", files)
    assert "hengectl set device/a ssid=two --for 10m; if all of them are meant, say so: --all-at-once\n" in refused.err
    assert (told.code, "needs --all-at-once: it changes ssid, which may cut devices off, on 2" in told.err) == (1, True)
    for command in (("apply", "-f", files), ("set", "group/lab", "ssid=two"), ("unset", "group/lab", "ssid")):
        ran = await person.run(*command)
        assert (ran.code, "--all-at-once" in ran.err) == (5, True), ran
    await person.ok("set", "group/lab", "ssid=two", "--all-at-once")
    assert (await person.run("rollback", "group/lab", "--to", "2")).code == 5
    await person.ok("rollback", "group/lab", "--to", "2", "--all-at-once")
    assert (await person.run("delete", "group/lab", "--yes")).code == 5
    await person.ok("delete", "group/lab", "--yes", "--all-at-once")


async def test_a_value_is_promoted_to_a_group_after_its_consequences_were_shown(person: Face, admin: Admin) -> None:
    await admin.apply(
        group("kitchen", "room=kitchen", wifi={"channel": 6}), device("lamp-3", labels={"room": "kitchen"}),
        device("lamp-1", labels={"room": "kitchen"}, color="red", wifi={"ssid": "lab"}),
    )  # fmt: skip
    refused = await person.run("promote", "lamp-1", "wifi", "--to", "group/kitchen")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert re.search(r"lamp-3\n +\+ wifi.ssid +\"lab\"", refused.out)
    dry = await person.ok("promote", "lamp-1", "wifi", "--to", "group/kitchen", "--dry-run")
    assert dry == refused.out
    done = await person.ok("promote", "lamp-1", "wifi", "--to", "group/kitchen", "--yes")

    assert done == f"{refused.out}revision 3, 1 of 3 devices (1 offline) changes: lamp-3\n"
    assert await values(admin, "groups/kitchen") == {"wifi": {"channel": 6, "ssid": "lab"}}
    assert await values(admin, "devices/lamp-1") == {"color": "red"}
    assert "promote wifi from device/lamp-1 to group/kitchen" in await person.ok("history", "-o", "wide")


async def test_promoting_what_nobody_else_notices_needs_no_yes(person: Face, admin: Admin) -> None:
    await person.ok("set", "device/lamp-1", "color=blue", "brightness=null")
    assert "no device changes" in await person.ok("promote", "lamp-1", "color", "--to", "group/kitchen")
    await person.ok("promote", "lamp-1", "brightness", "--to", "group/kitchen")

    assert await values(admin, "devices/lamp-1") == {}
    assert await values(admin, "groups/kitchen") == {"color": "blue", "brightness": None}


async def test_promoting_overwrites_nothing_that_somebody_else_changed_since_it_looked(
    person: Face, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hengectl import factoring
    from hengectl.commands import layering

    await person.ok("set", "device/lamp-1", "color=blue")
    loop = asyncio.get_running_loop()

    def somebody_is_faster(*read: Any) -> Any:
        other = admin.apply(group("kitchen", "room=kitchen", brightness=7))
        asyncio.run_coroutine_threadsafe(other, loop).result()
        return factoring.promoted(*read)

    monkeypatch.setattr(layering, "promoted", somebody_is_faster)
    ran = await person.run("promote", "lamp-1", "color", "--to", "group/kitchen", "--yes")

    assert (ran.code, "the fleet was changed meanwhile" in ran.err) == (5, True)
    assert await values(admin, "groups/kitchen") == {"brightness": 7}
    assert await values(admin, "devices/lamp-1") == {"color": "blue"}


async def test_a_value_goes_only_where_it_comes_back_from(person: Face, admin: Admin) -> None:
    await person.ok("set", "device/lamp-2", "color=red")
    wrong = await person.run("promote", "lamp-2", "color", "--to", "group/kitchen", "--yes")
    missing = await person.run("promote", "lamp-2", "brightness", "--to", "group/all", "--yes")

    assert (wrong.code, "does not speak to device/lamp-2" in wrong.err) == (6, True)
    assert (missing.code, "does not set brightness itself" in missing.err) == (6, True)
    assert await values(admin, "devices/lamp-2") == {"color": "red"}


async def test_values_that_all_devices_of_a_group_share_are_lifted_and_nobody_notices(
    person: Face, admin: Admin
) -> None:
    """A brightness that a stronger group would change stays where it is, and so does one that is overridden."""
    hall = {"room": "hall"}
    same = {"color": "red", "wifi": {"ssid": "lab", "channel": 1}, "brightness": 5}
    await admin.apply(
        group("hall", "room=hall", color="blue"), group("strong", "room=hall", priority=900, brightness=9),
        *[device(f"hall-{number}", labels=hall, **same) for number in range(3)],
        device("lamp-2", labels=hall, **{**same, "wifi": {"ssid": "lab", "channel": 2}}),
    )  # fmt: skip
    before = {name: (await admin.ok("GET", f"/v1/devices/{name}/document")) for name in ("hall-0", "lamp-2")}
    dry = await person.ok("factor", "--dry-run")
    assert [line[:3] for line in lines(dry)[1:]] == [
        ["brightness", "5", "group/strong"], ["color", "red", "group/hall"], ["wifi.ssid", "lab", "group/hall"],
    ]  # fmt: skip
    assert (await person.run("factor")).code == 2
    done = await person.ok("factor", "--yes")

    assert "no device changes" in done
    assert await values(admin, "devices/hall-0") == {"wifi": {"channel": 1}}
    assert await values(admin, "groups/hall") == {"color": "red", "wifi": {"ssid": "lab"}}
    for name, document in before.items():
        assert await admin.ok("GET", f"/v1/devices/{name}/document") == document
    assert "nothing that all devices" in (await person.run("factor", "--yes")).err


async def test_only_those_who_are_selected_lose_values(person: Face, admin: Admin) -> None:
    await admin.apply(device("lamp-1", labels={"room": "kitchen"}, brightness=7), device("lamp-2", brightness=7))
    assert "nothing" in (await person.run("factor", "-l", "room=kitchen", "--yes")).err
    assert (await person.run("factor", "-l", "room=attic")).err == "No device has these labels: room=attic\n"

    await person.ok("set", "device/lamp-1", "brightness=7", "--for", "1h")
    assert "nothing" in (await person.run("factor", "--yes")).err
    await person.ok("unset", "device/lamp-1", "brightness")
    assert "group/all" in await person.ok("factor", "--yes")
    assert (await values(admin, "groups/all"), await values(admin, "devices/lamp-2")) == ({"brightness": 7}, {})


async def test_a_new_schema_is_compared_with_the_one_before(person: Face, tmp_path: Path) -> None:
    bright = {"type": "integer", "minimum": 0, "maximum": 100, "default": 80}
    fields = {**LAMP["properties"], "brightness": {**bright, "maximum": 90}}  # type: ignore[dict-item]
    narrow = manifest(tmp_path, schema(**{**LAMP, "properties": fields}))
    told = (await person.run("diff", "-f", narrow)).out
    assert "  not all that was valid stays valid\n    /properties/brightness/maximum: 90 is tighter than 100\n" in told
    assert "not all that was valid" in await person.ok("apply", "-f", narrow)

    wide = manifest(tmp_path, schema())
    assert "  what was valid stays valid\n" in await person.ok("apply", "-f", wide, "--dry-run")


async def values(admin: Admin, path: str) -> Any:
    return (await admin.ok("GET", f"/v1/{path}"))["spec"]["values"]


async def test_a_group_without_a_schema_types_values_by_those_that_declare_them(person: Face, admin: Admin) -> None:
    await person.ok("set", "group/kitchen", "brightness=5", "color=red")
    assert await values(admin, "groups/kitchen") == {"brightness": 5, "color": "red"}

    assert (await person.run("set", "group/kitchen", "nosuch=5")).code == 6
    assert (await person.run("set", "group/kitchen", "brightness=x")).code == 6
    assert (await person.run("set", "group/nosuch", "brightness=5")).code == 3


async def test_somebody_elses_change_is_not_overwritten(person: Face, admin: Admin) -> None:
    """Writing null means writing the whole object; what others set meanwhile stays."""
    runs = [person.ok("set", "device/lamp-1", f"wifi.{field}") for field in ("ssid=null", "channel=null")]
    await asyncio.gather(runs[0], admin.set("lamp-1", brightness=1), admin.set("lamp-1", color="red"))
    await runs[1]

    assert await values(admin, "devices/lamp-1") == {
        "brightness": 1, "color": "red", "wifi": {"ssid": None, "channel": None},
    }  # fmt: skip


async def test_get_lists_in_every_form(person: Face) -> None:
    assert lines(await person.ok("get", "devices"))[:2] == [
        ["NAME", "SCHEMA", "STATE", "CONFIG", "SEEN"],
        ["lamp-1", "lamp", "never-seen", "-→r1", "-"],
    ]
    assert (await person.ok("get", "device", "-o", "name")).split() == ["device/lamp-1", "device/lamp-2"]
    assert (await person.ok("get", "devices", "-l", "room=hall", "-o", "name")).split() == ["device/lamp-2"]
    assert "room=kitchen" in await person.ok("get", "devices", "--show-labels")
    assert "room=kitchen" in await person.ok("get", "devices", "-o", "wide")
    assert not (await person.ok("get", "devices", "--no-headers")).startswith("NAME")
    listed = json.loads(await person.ok("get", "devices", "-o", "json"))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["lamp-1", "lamp-2"]
    one = yaml.safe_load(await person.ok("get", "device/lamp-1", "-o", "yaml"))
    assert one["kind"] == "Device"
    assert (await person.ok("get", "device/lamp-1", "group/kitchen", "-o", "name")).split() == [
        "device/lamp-1",
        "group/kitchen",
    ]


async def test_get_says_what_is_missing(person: Face) -> None:
    some, none = await person.run("get", "devices", "lamp-1", "nosuch"), await person.run("get", "device/nosuch")

    assert (some.code, none.code) == (9, 3)
    assert "Error: device/nosuch does not exist" in some.err
    assert none.out == ""
    nobody = await person.run("get", "devices", "-l", "room=attic")
    assert (nobody.code, nobody.out, nobody.err) == (0, "", "There are no devices with room=attic.\n")


async def test_a_history_is_of_something_that_is_or_was(person: Face) -> None:
    await person.ok("delete", "device/lamp-2", "--yes")

    assert len((await person.ok("history", "device/lamp-2")).splitlines()) == 3
    assert (await person.run("history", "group/all")).err == "group/all was never changed.\n"
    assert (await person.run("history", "--before", "1")).err == "There is nothing before revision 1.\n"
    never = await person.run("history", "device/lamp-9")
    assert (never.code, never.out) == (3, "")


async def test_nobody_is_asked_for_a_code_that_no_device_shows(person: Face) -> None:
    ran = await person.run("approve", "1234 5678", stdin="y\n", terminal=True)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "Error: no device is waiting\nNothing was changed.\nSee: hengectl join status\n"


async def test_what_a_person_may_do_next_is_said(person: Face) -> None:
    wrong = await person.run("set", "device/lamp-1", "brightness=red")
    assert wrong.err.endswith("See what is allowed: hengectl explain lamp.brightness\n")
    assert (await person.run("explain", "lamp.brightness")).code == 0
    unset = await person.run("unset", "device/lamp-1", "colour")
    assert "did not set colour. See where values come from: hengectl why lamp-1" in unset.err
    assert "See: hengectl get tokens" in (await person.run("get", "token", "nosuch")).err
    assert "is never-seen and refused nothing" in await person.ok("retry", "lamp-2")
    assert f"socket        {os.environ['HENGE_SOCKET']}\n" in await person.ok("paths")
    assert len([line for line in (await person.ok("paths")).splitlines() if line.startswith("socket")]) == 1


async def test_why_names_every_layer(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "color=red")

    told = (await person.ok("why", "lamp-1", "color")).splitlines()
    assert told[0] == "color = red"
    assert [line.split()[:3] for line in told[1:]] == [
        ["red", "device", "lamp-1"],
        ["blue", "group", "kitchen"],
        ["green", "schema", "lamp"],
    ]
    assert [line.rsplit("   ", 1)[1] for line in told[1:]] == ["in force", "overridden", "overridden"]
    overview = lines(await person.ok("why", "lamp-1"))
    assert [row[:3] for row in overview[1:]] == [["brightness", "80", "schema"], ["color", "red", "device/lamp-1"]]
    assert (await person.run("why", "lamp-1", "nosuch")).code == 3


async def test_a_document_is_printed_byte_for_byte(person: Face, admin: Admin) -> None:
    exact = await admin.call("GET", "/v1/devices/lamp-1/document")

    assert (await person.ok("document", "lamp-1")).encode() == exact.body
    assert json.loads(await person.ok("document", "lamp-1", "-o", "json")) == {"brightness": 80, "color": "blue"}


async def test_diff_tells_what_apply_would_change_and_changes_nothing(person: Face, tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        group("kitchen", "room=kitchen", brightness=5),
        device("lamp-2", labels={"room": "hall"}, wifi={"ssid": "12"}),
        device("lamp-3"),
    )
    before = await person.ok("get", "devices,groups,revisions", "-o", "json")

    ran = await person.run("diff", "-f", path)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.splitlines() == [
        "group/kitchen configured",
        '  - color        "blue"',
        "  + brightness   5",
        "device/lamp-2 configured",
        '  + wifi.ssid   "12"',
        "device/lamp-3 created",
        "",
        "lamp-1",
        "  ~ brightness   80 → 5",
        '  ~ color        "blue" → "green"',
        "",
        "lamp-2",
        '  + wifi.ssid   "12"',
        "",
        "lamp-3: a first document",
        "  + brightness   80",
        '  + color        "green"',
        "",
        "3 objects differ; 3 devices would get another document",
    ]
    assert await person.ok("get", "devices,groups,revisions", "-o", "json") == before


async def test_what_is_lost_comes_first_and_like_devices_are_told_together(person: Face, tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        device("lamp-2", bound="", labels={"room": "hall"}),
        device("lamp-1"),
        device("lamp-3"),
        device("lamp-4"),
    )
    told = (await person.run("diff", "-f", path)).out.splitlines()

    assert [line for line in told if line.startswith("lamp-")] == [
        "lamp-2: no document any more",
        "lamp-1",
        "lamp-3, lamp-4: a first document",
    ]
    assert told[:2] == ["device/lamp-2 configured", '  ~ spec.schema   "lamp" → ""']
    assert json.loads((await person.run("diff", "-f", path, "-o", "json")).out)["dry_run"] is True


async def test_diff_ends_with_0_1_or_trouble(person: Face, tmp_path: Path) -> None:
    same = await person.run("diff", "-f", manifest(tmp_path, device("lamp-1", labels={"room": "kitchen"})))
    assert (same.code, same.out, same.err) == (0, "", "Nothing differs from revision 1.\n")

    bad = await person.run("diff", "-f", manifest(tmp_path, device("lamp-1", brightness=500)))
    assert bad.code == 6
    assert "fleet.yaml:" in bad.err
    assert "Nothing was changed." not in bad.err
    assert (await person.run("diff", "-f", str(tmp_path / "none.yaml"))).code == 3
    assert (await person.run("diff", "-f", str(tmp_path / "fleet.yaml"), "--socket", "/none")).code == 7


async def test_things_are_deleted_together_after_a_yes(person: Face, admin: Admin) -> None:
    refused = await person.run("delete", "group/kitchen")
    assert (refused.code, refused.out) == (2, "")
    assert "1 device would get another document: lamp-1." in refused.err
    wrong = await person.run("delete", "group/kitchen", stdin="kitchn\n", terminal=True)
    assert wrong.code == 2
    dry = await person.ok("delete", "group/kitchen", "--dry-run")
    assert dry == "group/kitchen deleted (dry run)\ndry run: 1 of 2 devices (1 offline) would change: lamp-1\n"
    right = await person.run("delete", "group/kitchen", "-m", "no kitchen", stdin="kitchen\n", terminal=True)
    assert (right.code, right.out) == (
        0,
        "group/kitchen deleted\nrevision 2, 1 of 2 devices (1 offline) changes: lamp-1\n",
    )
    assert "no kitchen" in await person.ok("history")

    declined = await person.run("delete", "device", "lamp-1", "lamp-2", stdin="n\n", terminal=True)
    assert declined.code == 1
    assert "has to join anew" in declined.err
    done = await person.ok("delete", "schema/lamp", "device/lamp-1", "device/lamp-2", "--yes")
    assert done.splitlines()[-1] == "revision 3, no device changes"
    assert (await admin.ok("GET", "/v1/schemas"))["items"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("schema/lamp", 5, "schema/lamp is in use by device/lamp-1, device/lamp-2"),
        ("group/all", 5, "the group all is built in"),
        ("group/kitchn", 3, "Did you mean group/kitchen? See: hengectl get groups"),
        ("device/lamp-1 group/nosuch", 3, "group/nosuch does not exist"),
        ("device", 2, "Write device/NAME"),
        ("lamp-1", 2, "Write device/lamp-1"),
        ("token/x", 2, "token cannot be named here"),
        ("devcie lamp-1", 2, "Did you mean device?"),
    ],
)
async def test_what_cannot_be_deleted_is_refused_before_anybody_is_asked(
    person: Face, arguments: str, code: int, words: str
) -> None:
    for more in ((), ("--yes",)):
        ran = await person.run("delete", *arguments.split(), *more)
        assert (ran.code, ran.out) == (code, ""), ran
        assert words in ran.err
        assert "nobody can be asked" not in ran.err
    assert "revision 1" in await person.ok("status")


async def test_a_change_of_the_fleet_meanwhile_is_noticed(person: Face, tmp_path: Path) -> None:
    path = manifest(tmp_path, device("lamp-1", color="red"))
    await person.ok("set", "device/lamp-2", "color=red")

    stale = await person.run("apply", "-f", path, "--if-revision", "1")
    assert stale.code == 5
    assert "is now at revision 2" in stale.err
    assert stale.err.endswith("Nothing was changed.\nSee what was changed: hengectl history\n")
    assert "revision 3" in await person.ok("apply", "-f", path, "--if-revision", "2")


async def test_names_that_nearly_exist_are_suggested(person: Face) -> None:
    for command in (
        ("get", "device/lmap-1"), ("why", "lmap-1"), ("document", "lmap-1"), ("set", "device/lmap-1", "color=red"),
        ("describe", "device/lmap-1"), ("retry", "lmap-1"), ("device", "revoke", "lmap-1"),
        ("wait", "--for=online", "device/lmap-1"),
    ):  # fmt: skip
        ran = await person.run(*command)
        assert ran.code == 3, command
        assert "Did you mean device/lamp-1? See: hengectl get devices" in ran.err, command
    assert "Did you mean lamp.color? See its" in (await person.run("explain", "lamp.colr")).err
    assert "Did you mean color? See its fields: hengectl why lamp-1" in (await person.run("why", "lamp-1", "colr")).err


async def test_suggested_commands_work_as_printed(face: Face, daemon: Service, admin: Admin) -> None:
    await admin.apply(*FLEET)
    where = ("--socket", str(daemon.socket))

    for command, words in (
        (("get", "device/lmap-1"), "get devices"),
        (("join", "close"), "join open"),
        (("unset", "device/lamp-1", "color"), "why lamp-1"),
        (("describe", "schema/lamp"), "explain lamp"),
    ):
        ran = await face.run(*where, *command)
        hint = f"hengectl --socket {daemon.socket} {words}"
        assert hint in ran.out + ran.err, ran
        assert (await face.run(*hint.split()[1:])).code == 0
    assert f"  hengectl login {daemon.url}" in (await face.run("token", "create", "--admin", *where)).err


async def test_why_tells_who_set_a_value_whatever_else_was_changed(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "wifi.ssid=den")
    await person.ok("set", "device/lamp-1", "brightness=3")

    table = {row[0]: row[1:] for row in lines(await person.ok("why", "lamp-1"))}
    assert table["wifi.ssid"][:3] == ["den", "device/lamp-1", "r2"]
    assert table["brightness"][:3] == ["3", "device/lamp-1", "r3"]
    assert table["brightness"][-1] == "80 (schema)"
    assert [row[0] for row in lines(await person.ok("why", "lamp-1", "wifi"))] == ["FIELD", "wifi.ssid"]


async def test_a_document_on_a_terminal_cannot_move_the_cursor(
    person: Face, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.set("lamp-1", wifi={"ssid": "\x9b2J\u202e"})
    piped = await person.ok("document", "lamp-1")
    monkeypatch.setattr("tests.hengectl.conftest._Stream.isatty", lambda stream: True)
    shown = await person.ok("document", "lamp-1")

    assert "\x9b2J\u202e" in piped
    assert shown.rstrip("\n").isprintable()
    assert json.loads(shown) == json.loads(piped)


async def test_a_history_that_comes_in_parts_is_shown_whole(
    person: Face, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hengd.http.history.MAX_ANSWER_BYTES", 1)
    for brightness in range(3):
        await person.ok("set", "device/lamp-1", f"brightness={brightness}")

    assert [row[0] for row in lines(await person.ok("history"))] == ["REVISION", "4", "3", "2", "1"]
    assert [row[0] for row in lines(await person.ok("history", "--limit", "2"))] == ["REVISION", "4", "3"]
    assert [row[0] for row in lines(await person.ok("get", "revisions"))] == ["REVISION", "4", "3", "2", "1"]


async def test_history_and_rollback(person: Face, admin: Admin) -> None:
    await person.ok("set", "device/lamp-1", "color=red", "-m", "redder")
    await person.ok("set", "group/kitchen", "brightness=5")

    assert [row[0] for row in lines(await person.ok("history"))] == ["REVISION", "3", "2", "1"]
    assert [row[0] for row in lines(await person.ok("history", "device/lamp-1"))] == ["REVISION", "2", "1"]
    dry = await person.ok("rollback", "device/lamp-1", "--to", "1", "--dry-run")
    assert dry.endswith("1 object differs; 1 device would get another document\ndry run: nothing was changed\n")
    assert "revision 4, 1 of 2 devices (1 offline) changes: lamp-1" in await person.ok(
        "rollback", "device/lamp-1", "--to", "1"
    )
    assert await values(admin, "devices/lamp-1") == {}
    assert (await person.run("rollback", "device/lamp-1", "--to", "77")).code == 3


async def test_history_names_the_fields_that_were_changed(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "color=red", "wifi.ssid=lab")
    await person.ok("set", "group/kitchen", "brightness=5", "color=green", "wifi.ssid=den", "wifi.psk=null")

    told = await person.ok("history", "--limit", "2")
    assert "device/lamp-1 configured (color, wifi.ssid)" in told
    assert "1 more)" in told
    plain = json.loads(await person.ok("history", "-o", "json", "--limit", "1"))["items"][0]["changes"]
    assert "changes" not in plain[0]


async def test_history_tells_field_by_field(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "color=red", "-m", "redder")
    await person.ok("set", "group/kitchen", "brightness=5")
    told = await person.ok("history", "device/lamp-1", "--diff")

    assert re.search(r"^r2   \S+ ago   .*redder\ndevice/lamp-1 configured\n  \+ color   \"red\"\nr1   ", told)
    assert "device/lamp-1 created" in told
    assert "kitchen" not in told
    assert "group/kitchen configured\n  + brightness   5" in await person.ok("history", "--diff", "--limit", "1")


async def test_any_two_revisions_are_compared(person: Face) -> None:
    await person.ok("set", "group/kitchen", "brightness=5")
    await person.ok("set", "device/lamp-2", "color=red")

    both = await person.run("diff", "--rev", "1..3")
    assert (both.code, both.err) == (1, "")
    assert both.out.endswith("\n2 objects differ; 2 devices have another document\n")
    one = await person.run("diff", "device/lamp-1", "--rev", "1..")
    assert one.out.startswith("\nlamp-1\n  ~ brightness   80 → 5\n")
    same = await person.run("diff", "device/lamp-1", "--rev", "2..3")
    assert (same.code, same.out, same.err) == (0, "", "device/lamp-1 is the same at revisions 2 and 3.\n")
    assert json.loads((await person.run("diff", "--rev", "3..1", "-o", "json")).out)["from"] == 3


async def test_going_back_is_shown_beforehand(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "color=red")
    dry = await person.ok("rollback", "device/lamp-1", "--to", "1", "--dry-run")

    assert '\nlamp-1\n  ~ color   "red" → "blue"\n' in dry
    assert dry.count("device/lamp-1") == 1


async def test_rolling_everything_back_needs_a_yes(person: Face, admin: Admin) -> None:
    await person.ok("set", "device/lamp-1", "color=red")

    refused = await person.run("rollback", "--all", "--to", "1")
    declined = await person.run("rollback", "--all", "--to", "1", stdin="n\n", terminal=True)
    assert (refused.code, declined.code) == (2, 1)
    assert "device/lamp-1" in refused.err
    assert await values(admin, "devices/lamp-1") == {"color": "red"}
    assert (await person.run("rollback", "--all", "--to", "1", stdin="y\n", terminal=True)).code == 0
    assert await values(admin, "devices/lamp-1") == {}


async def test_rolling_a_device_back_to_before_it_was_there_needs_a_yes(
    person: Face, daemon: Service, admin: Admin
) -> None:
    await daemon.join(admin, "lamp-1")

    refused = await person.run("rollback", "device/lamp-1", "--to", "0")
    wrong = await person.run("rollback", "device/lamp-1", "--to", "0", stdin="y\n", terminal=True)
    assert (refused.code, wrong.code) == (2, 2)
    assert "join anew" in refused.err
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "active"
    assert "device/lamp-1 deleted" in await person.ok("rollback", "device/lamp-1", "--to", "0", "--dry-run")
    right = await person.run("rollback", "device/lamp-1", "--to", "0", stdin="lamp-1\n", terminal=True)
    assert (right.code, "device/lamp-1 deleted" in right.out) == (0, True)


async def test_rolling_a_device_back_to_its_former_name_alarms_nobody(
    person: Face, daemon: Service, admin: Admin
) -> None:
    await daemon.join(admin, "lamp-1")
    await person.ok("device", "rename", "lamp-1", "porch")

    dry = await person.run("rollback", "device/porch", "--to", "1", "--dry-run")
    done = await person.run("rollback", "device/porch", "--to", "1")
    assert dry.out.startswith("device/porch renamed to device/lamp-1\n")
    assert (done.code, done.err) == (0, "")
    assert done.out == "device/porch renamed to device/lamp-1\nrevision 3, no device changes\n"
    assert "device/porch renamed to device/lamp-1" in await person.ok("history", "--limit", "1")
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "active"


async def test_who_has_the_former_name_now_is_deleted_by_a_rollback_only_after_a_yes(
    person: Face, daemon: Service, admin: Admin
) -> None:
    await person.ok("device", "rename", "lamp-1", "porch")
    await daemon.join(admin, "lamp-1")

    refused = await person.run("rollback", "device/porch", "--to", "1")
    assert refused.code == 2
    assert "device/porch had this name, so device/lamp-1 of now would be deleted." in refused.err
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "active"
    right = await person.run("rollback", "device/porch", "--to", "1", stdin="lamp-1\n", terminal=True)
    assert right.code == 0
    assert right.out.startswith("device/lamp-1 deleted\ndevice/porch renamed to device/lamp-1\n")


async def test_history_and_diff_follow_a_device_to_its_new_name(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "color=red")
    await person.ok("device", "rename", "lamp-1", "porch")
    await person.ok("set", "device/porch", "color=blue")

    assert [row[0] for row in lines(await person.ok("history", "device/porch"))] == ["REVISION", "4", "3", "2", "1"]
    told = await person.ok("history", "device/porch", "--diff")
    assert "\ndevice/lamp-1 renamed to device/porch\n" in told
    assert '\ndevice/lamp-1 configured\n  + color   "red"\n' in told
    assert "lamp-2" not in told
    both = await person.run("diff", "device/porch", "--rev", "2..")
    assert both.out.startswith("device/lamp-1 renamed to device/porch\n  ~ color   ")


async def test_a_device_is_revoked_renamed_and_deleted_after_a_yes(person: Face, daemon: Service, admin: Admin) -> None:
    await daemon.join(admin, "lamp-1")

    assert (await person.run("device", "revoke", "lamp-1")).code == 2
    wrong = await person.run("device", "revoke", "lamp-1", stdin="lamp-2\n", terminal=True)
    assert wrong.code == 2
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "active"
    right = await person.run("device", "revoke", "lamp-1", stdin="lamp-1\n", terminal=True)
    assert (right.code, right.out) == (0, "device/lamp-1 revoked\n")
    assert "revoked" in await person.ok("get", "device/lamp-1")
    assert re.search("^devices +1 never-seen, 1 revoked$", await person.ok("status"), re.MULTILINE)
    assert await person.ok("device", "revoke", "lamp-1") == "device/lamp-1 was revoked already\n"
    assert await person.ok("device", "rename", "lamp-1", "lamp-1") == "device/lamp-1 has that name already\n"
    assert await person.ok("device", "rename", "lamp-1", "porch") == "device/lamp-1 is now device/porch\n"
    declined = await person.run("device", "delete", "porch", stdin="porhc\n", terminal=True)
    assert (declined.code, declined.out) == (2, "")
    assert "has to join anew" in declined.err
    deleted = await person.run("device", "delete", "device/porch", stdin="porch\n", terminal=True)
    assert (deleted.code, deleted.out.splitlines()[0]) == (0, "device/porch deleted")
    assert (await person.run("device", "delete", "porch", "--yes")).code == 3


@pytest.mark.parametrize("condition", ["in-sync", "online"])
async def test_a_device_that_was_revoked_is_not_waited_for(
    person: Face, daemon: Service, admin: Admin, condition: str
) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
    await person.ok("device", "revoke", "lamp-1", "--yes")

    ran = await person.run("wait", f"--for={condition}", "device/lamp-1")
    assert (ran.code, ran.out) == (1, "")
    assert "device/lamp-1 was revoked and is let in no more: hengectl " in ran.err


async def test_a_token_is_printed_alone_for_scripts(person: Face) -> None:
    quiet = await person.run("token", "create", "-q")
    assert re.fullmatch(r"henge-join-1\.[a-z0-9.]+\n", quiet.out)
    assert quiet.err == ""

    told = await person.run("token", "create", "--name", "lamp-9", "--schema", "lamp", "-l", "room=hall", "--ttl", "2h")
    assert told.out.count("\n") == 1
    assert "henge-agent join https://127.0.0.1:" in told.err
    assert "--name lamp-9 --token-file -" in told.err
    assert "henge-agent run --output FILE" in told.err  # without an output nothing would be written
    listed = lines(await person.ok("token", "list"))
    assert ["join", "lamp-9", "lamp", "room=hall", "0 of 1"] in [row[1:6] for row in listed]
    identifier = told.out.split(".")[1]
    assert await person.ok("token", "revoke", identifier) == f"token/{identifier} revoked\n"
    assert (await person.run("token", "revoke", identifier)).code == 3


async def test_a_token_for_a_device_that_will_get_no_schema_says_so(person: Face) -> None:
    new = await person.run("token", "create", "--name", "lamp-9")
    known = await person.run("token", "create", "--name", "lamp-1")
    typed = await person.run("token", "create", "--name", "lamp-9", "--schema", "lamp")

    assert "Without a schema a new device gets no configuration" in new.err
    assert "Without a schema" not in known.err + typed.err


async def test_a_token_of_a_daemon_on_loopback_says_that_only_this_machine_reaches_it(person: Face) -> None:
    told = await person.run("token", "create", "--name", "lamp-1")

    assert "the daemon listens on loopback alone" in told.err


async def test_the_join_window_opens_and_closes(person: Face) -> None:
    assert "may not ask" in await person.ok("join", "close")
    assert "another 10m" in await person.ok("join", "open")
    assert "No device is waiting." in await person.ok("join", "status")
    assert (await person.run("approve", "1234", "5678", "--yes")).code == 3
    assert (await person.run("approve", "12345678")).code == 2


@pytest.mark.parametrize("version", ["0.0.9", __version__])
async def test_what_an_older_daemon_does_not_know_is_told_with_both_versions(
    daemon: Service, person: Face, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("hengd.app.__version__", version)
    monkeypatch.setattr("hengd.http.audit.AuditRoutes.table", lambda self: [])
    await daemon.restart()
    ran = await person.run("audit", "verify")

    both = f"daemon is henge 0.0.9, this is hengectl {__version__}: update the older one"
    assert (ran.code, "there is nothing at '/v1/audit'" in ran.err) == (3, True)
    assert (both in ran.err) == (version != __version__)
    assert version != __version__ or "hengectl version" in ran.err


async def test_status_and_version_speak_of_the_daemon(person: Face) -> None:
    status = await person.ok("status")
    assert "revision 1" in status.splitlines()[0]
    assert "2 never-seen" in status
    assert json.loads(await person.ok("status", "-o", "json"))["revision"] == 1
    assert "hengd " in await person.ok("version")
    assert "admin" in await person.ok("whoami")


async def test_describe_and_explain_speak_to_people(person: Face) -> None:
    assert "brightness" in await person.ok("explain", "lamp")
    assert "0 to 100" in await person.ok("explain", "lamp.brightness")
    assert "ssid" in await person.ok("explain", "lamp.wifi")
    assert (await person.run("explain", "lamp.nosuch")).code == 3


async def test_describe_says_once_what_a_device_said(person: Face, daemon: Service, admin: Admin) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-1")) as lamp:
        errors = (FieldError("", "no receipt came in time"),)
        await lamp.report(await lamp.config(), "rolled-back", reason="server-unreachable", errors=errors)

    assert (await person.ok("describe", "device/lamp-1")).count("no receipt came in time") == 1


async def test_a_device_that_never_spoke_is_not_said_to_have_no_document(person: Face, admin: Admin) -> None:
    await admin.apply(device("bare", bound=""))

    told = await person.ok("describe", "device/lamp-1")
    assert "bytes" in told
    assert "InSync Unknown: unknown: it never said what it runs\n" in told
    assert "InSync Unknown: unknown: it has no document\n" in await person.ok("describe", "device/bare")


@pytest.mark.parametrize(("names", "said"), [("12", "2 devices (lamp-1, lamp-2)"), ("1", "1 device (lamp-1)")])
async def test_a_refusal_counts_in_words(person: Face, admin: Admin, tmp_path: Path, names: str, said: str) -> None:
    await admin.apply(*[device(f"lamp-{number}", brightness=90) for number in names])
    properties = {**LAMP["properties"], "brightness": {"type": "integer", "maximum": 50}}  # type: ignore[dict-item]
    ran = await person.run("apply", "-f", manifest(tmp_path, schema(**{**LAMP, "properties": properties})))

    assert f"refused for {said}: " in ran.err


async def test_explain_says_what_is_required(person: Face, admin: Admin) -> None:
    text = {"type": "string", "minLength": 1}
    net = {"type": "object", "properties": {"ssid": text}, "required": ["ssid"]}
    properties = {"net": net, "color": {"type": "string", "default": "red"}}
    await admin.apply(schema("lab", type="object", properties=properties, required=["color"]))

    assert re.search(r"\n  required +yes\n", await person.ok("explain", "lab.net.ssid"))
    assert re.search(r"\n  required +yes\n", await person.ok("explain", "lab.color"))
    assert "required" not in (await person.ok("explain", "lab.net")).partition("FIELD")[0]
    assert re.search("net.ssid +string +at least 1 character +required", await person.ok("explain", "lab"))
    assert re.search("color +string +red, required", await person.ok("explain", "lab"))
    assert "never-seen" in await person.ok("describe", "device/lamp-1")
    assert "1: lamp-1" in await person.ok("describe", "group/kitchen")
    assert "16384 bytes" in await person.ok("describe", "schema/lamp")


async def test_wait_is_for_scripts(person: Face, daemon: Service, admin: Admin) -> None:
    late = await person.run("wait", "--for=online", "device/lamp-1", "--timeout", "1s")
    assert (late.code, late.out) == (8, "")
    assert "it is never-seen" in late.err
    assert (await person.run("wait", "--for=online", "device/nosuch")).code == 3

    waiting = asyncio.create_task(person.run("wait", "--for=in-sync", "device/lamp-1"))
    async with obedient(daemon, await daemon.join(admin, "lamp-1")):
        ran = await waiting
    assert (ran.code, ran.out) == (0, "device/lamp-1 in-sync\n")
    assert await person.ok("wait", "--for=deleted", "device/gone") == "device/gone deleted\n"


async def test_a_retry_offers_the_document_again(person: Face, daemon: Service, admin: Admin) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-1")) as lamp:
        await lamp.report(await lamp.config(), "rejected", reason="invalid")
        await admin.until("lamp-1", config="quarantined")

        assert "is offered its document again\n" in await person.ok("retry", "lamp-1")
        await lamp.report(await lamp.config())
        await admin.until("lamp-1", config="in-sync")

        assert "is in-sync and refused nothing" in await person.ok("retry", "lamp-1")
        await admin.set("lamp-1", brightness=3)
        await lamp.report(await lamp.config(), "rejected", reason="invalid")
    await admin.until("lamp-1", config="quarantined", connection="offline")
    assert "again when it is back" in await person.ok("retry", "lamp-1")


async def test_what_is_offered_again_is_waited_for(person: Face, daemon: Service, admin: Admin) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-1")) as lamp:
        await lamp.report(await lamp.config(), "rejected", reason="invalid")
        await admin.until("lamp-1", config="quarantined")
        await person.ok("retry", "lamp-1")
        after = await admin.until("lamp-1", config="pending")
        again = await lamp.config()
        waiting = asyncio.create_task(person.run("wait", "--for=in-sync", "device/lamp-1"))
        await lamp.report(again, "rejected", reason="write-failed")
        await admin.until("lamp-1", config="rejected")
        await lamp.report(again)
        ran = await waiting

    assert after["reported"]["state"] == "none"
    assert (ran.code, ran.out) == (0, "device/lamp-1 in-sync\n")


async def test_what_a_device_says_without_naming_a_field_is_described_without_one(
    person: Face, daemon: Service, admin: Admin
) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-1")) as lamp:
        errors = (FieldError("", "exit code 1"), FieldError("/color", "too red"))
        await lamp.report(await lamp.config(), "rejected", reason="invalid", errors=errors)
    described = await person.ok("describe", "device/lamp-1")

    assert re.search(r"trouble +invalid: exit code 1; color: too red\n", described)


async def test_a_device_that_is_ahead_is_described_with_the_command_that_helps(
    person: Face, daemon: Service, admin: Admin
) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    async with connected(daemon, lamp, epoch="other", revision=900, digest="b" * 64, state="applied") as link:
        await admin.until("lamp-1", config="ahead")
        described = await person.run("describe", "device/lamp-1")
        await person.ok("retry", "lamp-1")
        await link.apply_next()

    assert "hengectl retry lamp-1" in described.err


async def test_events_shorten_digests_for_people_only(person: Face, daemon: Service, admin: Admin) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-1")) as lamp:
        config = await lamp.config()
        await lamp.report(config)

    assert f"digest={config.digest[:12]} " in await person.ok("events")
    assert f'"digest":"{config.digest}"' in await person.ok("events", "-o", "json")


async def test_events_tell_what_happened(person: Face) -> None:
    await person.ok("set", "device/lamp-1", "color=red")
    told = (await person.ok("events")).splitlines()
    assert "object.changed   device/lamp-1" in told[-1]
    events = [json.loads(line) for line in (await person.ok("events", "-o", "json")).splitlines()]
    assert (await person.ok("events", "--since", str(events[-2]["seq"]))).count("\n") == 1
    ahead = await person.run("events", "--since", "99999999999999")
    newest = events[-1]["seq"]
    assert (ahead.code, ahead.out) == (0, "")
    assert ahead.err == f"There is no event 99999999999999 yet; the newest is {newest}.\n"


async def test_an_operator_works_from_another_machine(face: Face, daemon: Service, admin: Admin) -> None:
    await admin.apply(*FLEET)
    token = (await admin.ok("POST", "/v1/tokens", {"kind": "admin"}))["token"]

    told = await face.ok("login", daemon.url, "--token-file", "-", "--name", "ada", stdin=f"\ufeff  {token}\r\n")
    assert f"Logged in to {daemon.url} as ada." in told
    assert "lamp-1" in await face.ok("get", "devices")
    assert (await face.ok("whoami")).startswith("ada ")
    await face.ok("set", "device/lamp-1", "color=red")
    assert "ada" in await face.ok("history")
    again = await face.run("login", daemon.url, "--token-file", "-", stdin=token)
    assert again.code == 5

    name = (await face.ok("context", "list", "-o", "name")).strip()
    await face.ok("context", "rename", name, "casa")
    assert "lamp-1" in await face.ok("--context", "casa", "get", "devices")
    assert "lamp-1" in await face.ok("get", "devices", "--server", daemon.url)
    assert (await face.run("get", "devices", "--context", "nosuch")).code == 3
    assert (await face.run("logout")).code == 2
    await face.ok("logout", "--yes")
    assert (await face.run("get", "devices")).code == 7
    assert (await face.run("get", "devices", "--server", daemon.url)).code == 4


async def test_a_token_may_be_bound_to_a_persons_name(person: Face, daemon: Service) -> None:
    told = await person.run("token", "create", "--admin", "--name", "ada")
    assert f"hengectl login {daemon.url} --name ada\n" in told.err

    other = await person.run("login", daemon.url, "--token-file", "-", "--name", "bob", stdin=told.out)
    assert other.code == 6
    assert "as ada." in await person.ok("login", daemon.url, "--token-file", "-", "--name", "ada", stdin=told.out)
    stranger = (await person.ok("token", "create", "--admin", "-q")).strip()
    taken = await person.run("login", daemon.url, "--token-file", "-", "--name", "ada", stdin=stranger)
    assert taken.code == 5
    assert "hengectl token create --admin --name ada" in taken.err


async def test_operators_are_listed_and_revoked_after_a_yes(person: Face, daemon: Service) -> None:
    token = await person.ok("token", "create", "--role", "viewer", "-q")
    assert lines(await person.ok("token", "list"))[1][1] == "viewer"
    assert "There are no operators." in (await person.run("get", "operators")).err
    await person.ok("login", daemon.url, "--token-file", "-", "--name", "ada", stdin=token)

    assert lines(await person.ok("get", "operators"))[1][:3] == ["ada", "viewer", "1"]
    assert await person.ok("get", "operators", "-o", "name") == "operator/ada\n"
    refused = await person.run("delete", "device/lamp-1", "--yes", "--server", daemon.url)
    assert (refused.code, "ada has the role viewer" in refused.err) == (4, True)
    assert "An admin gives it: hengectl token create --role editor --name ada\n" in refused.err
    assert (await person.run("operator", "revoke", "ada")).code == 2
    assert await person.ok("operator", "revoke", "ada", "--yes") == "operator/ada revoked\n"
    out = await person.run("whoami", "--server", daemon.url)
    assert out.code == 4
    assert "hengectl token create --role viewer --name ada; then log in: hengectl login URL\n" in out.err
    again = await person.run("login", daemon.url, "--token-file", "-", "--context", "again", stdin=token)
    assert again.code == 5
    assert again.err.endswith("An admin makes another: hengectl token create --role viewer\n")


async def test_a_certificate_is_renewed_in_passing(face: Face, daemon: Service, admin: Admin) -> None:
    token = (await admin.ok("POST", "/v1/tokens", {"kind": "admin"}))["token"]
    await face.ok("login", daemon.url, "--token-file", "-", "--context", "casa", stdin=token)
    folder = face.home / ".config/henge/credentials/casa"
    first = (folder / "identity.pem").read_bytes()

    await face.ok("whoami")
    assert (folder / "identity.pem").read_bytes() == first
    (folder / "dates.json").write_text('{"renew_after": 1}')
    await face.ok("whoami")

    assert (folder / "identity.pem").read_bytes() != first
    assert json.loads((folder / "dates.json").read_text())["renew_after"] > 1
    await face.ok("whoami")


@pytest.mark.parametrize(("days", "code"), [(40, 0), (240, 4)])
async def test_a_certificate_that_has_ended_is_renewed_or_the_way_back_is_told(
    face: Face, daemon: Service, admin: Admin, clock: Clock, days: int, code: int
) -> None:  # C24
    token = (await admin.ok("POST", "/v1/tokens", {"kind": "admin"}))["token"]
    await face.ok("login", daemon.url, "--token-file", "-", "--context", "casa", stdin=token)
    clock.advance(days * 86400)
    ran = await face.run("whoami")

    assert ran.code == code, ran
    if code:
        assert f"your certificate for {daemon.url} is expired and cannot be renewed" in ran.err
        assert f"there: hengectl token create --admin, then here: hengectl login {daemon.url}" in ran.err.lower()


async def test_a_daemon_that_is_not_the_one_of_the_context_is_refused_and_nothing_gets_round_it(
    face: Face, daemon: Service, admin: Admin, tmp_path: Path, clock: Clock
) -> None:  # C23
    token = (await admin.ok("POST", "/v1/tokens", {"kind": "admin"}))["token"]
    await face.ok("login", daemon.url, "--token-file", "-", "--context", "casa", stdin=token)
    config = face.home / ".config/henge/config.toml"
    other = Service(tmp_path / "other", clock)
    await other.start()
    try:
        config.write_text(config.read_text().replace(daemon.url, other.url))
        ran = await face.run("status")
        guessed = await face.run("status", "--insecure")
    finally:
        await other.stop()
        other.clean()

    assert ran.code == 7
    assert f"the server at {other.url} is not the one you logged in to" in ran.err
    assert (guessed.code, "No such option" in guessed.err) == (2, True)


@pytest.mark.parametrize("trouble", ["folder", "full"])
async def test_no_token_is_spent_where_the_credential_cannot_be_kept(
    face: Face, daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:  # C21
    token = (await admin.ok("POST", "/v1/tokens", {"kind": "admin"}))["token"]
    folder = face.home / ".config/henge"
    folder.mkdir(parents=True, mode=0o700)
    with monkeypatch.context() as patched:
        if trouble == "folder":
            (folder / "credentials").touch()
        else:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr("henge_protocol.keyfiles._write_new", full)
        ran = await face.run("login", daemon.url, "--token-file", "-", "--name", "ada", stdin=token)

    assert ran.code == (6 if trouble == "folder" else 1), ran
    assert str(folder / "credentials") in ran.err
    assert "Nothing was changed." in ran.err
    assert [one["uses"] - one["used"] for one in (await admin.ok("GET", "/v1/tokens"))["items"]] == [1]
    assert (await admin.ok("GET", "/v1/operators"))["items"] == []
    assert not (folder / "config.toml").exists()
    if trouble == "full":
        await face.ok("login", daemon.url, "--token-file", "-", "--name", "ada", stdin=token)
        assert [one.name for one in (folder / "credentials").iterdir()] != []


async def test_a_devices_token_does_not_log_in(face: Face, daemon: Service, admin: Admin) -> None:
    token = (await admin.ok("POST", "/v1/tokens", {}))["token"]

    ran = await face.run("login", daemon.url, "--token-file", "-", stdin=token)
    assert ran.code == 2
    assert "hengectl token create --admin" in ran.err


async def test_a_token_of_another_daemon_is_never_sent(
    face: Face, daemon: Service, admin: Admin, tmp_path: Path, clock: Any
) -> None:
    other = Service(tmp_path / "other", clock)
    await other.start()
    try:
        async with other.admin() as other_admin:
            token = (await other_admin.ok("POST", "/v1/tokens", {"kind": "admin"}))["token"]
            ran = await face.run("login", daemon.url, "--token-file", "-", stdin=token)
            (listed,) = (await other_admin.ok("GET", "/v1/tokens"))["items"]
    finally:
        await other.stop()
        other.clean()

    assert ran.code == 7
    assert "somebody may be in between" in ran.err
    assert listed["used"] == 0
    assert not (face.home / ".config/henge/config.toml").exists()


async def test_names_are_completed(person: Face) -> None:
    from click import Context

    from hengectl.cli import hengectl
    from hengectl.kinds import DEVICE
    from hengectl.offering import names

    def offered() -> list[str]:
        with Context(hengectl) as ctx:
            return [item.value for item in names(ctx, (DEVICE,), "device/", prefixed=True)]

    assert await asyncio.to_thread(offered) == ["device/lamp-1", "device/lamp-2"]


async def test_only_names_are_offered_whatever_a_daemon_calls_its_devices(
    person: Face, monkeypatch: pytest.MonkeyPatch
) -> None:  # C45
    from click import Context

    from hengectl.cli import hengectl
    from hengectl.kinds import DEVICE
    from hengectl.offering import names

    hostile = ["$(reboot)", "a b", "a;b", "`x`", "\x1b[31m", "-x", "a\nb", "../x", "lamp-1"]
    monkeypatch.setattr("hengectl.client.Client.items", lambda *_: [{"metadata": {"name": name}} for name in hostile])
    with Context(hengectl) as ctx:
        assert [item.value for item in names(ctx, (DEVICE,), "", prefixed=False)] == ["lamp-1"]


async def interrupted(process: asyncio.subprocess.Process) -> int:
    """Press Ctrl-C until the process ends, as people do; its exit code.

    A signal between CPython's last look and the system call that waits is acted on only when that call ends
    (seen once in a hundred times on a busy machine).
    """
    async with asyncio.timeout(10):
        while True:
            process.send_signal(signal.SIGINT)
            try:
                return await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(process.wait())), 0.5)
            except TimeoutError:
                continue


@pytest.mark.parametrize(
    ("arguments", "where", "last"),
    [
        pytest.param(
            ("token", "create", "-q"), "http.client.HTTPConnection.getresponse",
            "It is not known whether the change was made. Look: hengectl history", id="C26 sent, no answer yet",
        ),
        pytest.param(
            ("set", "device/lamp-1", "color=red", "--wait"), "hengectl.delivery.wait_for",
            "The change is made; only the waiting ended.", id="C26 while waiting",
        ),
        pytest.param(("get", "devices"), "http.client.HTTPConnection.getresponse", "Interrupted.", id="C26 read"),
        pytest.param(
            ("backup", "-o", "-", "--passphrase-file", "-"), "http.client.HTTPConnection.getresponse", "Interrupted.",
            id="C26 a backup changes nothing",
        ),
    ],
)  # fmt: skip
async def test_an_interruption_says_what_became_of_the_change(
    person: Face, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], where: str, last: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(where, interrupt)
        ran = await person.run(*arguments, stdin="correct horse battery")

    assert ran.code == 130
    assert ran.err.splitlines()[-1] == last
    assert "Interrupted." in ran.err


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (("get", "devices", "-w", "-o", "json"), '"color":"red"'),
        (("get", "devices", "lamp-1", "-w"), "-→r2"),
        (("get", "devices", "-w", "-o", "name"), "device/lamp-1"),
        (("events", "-w"), "object.changed   device/lamp-1"),
    ],
)
async def test_watching_shows_what_changes_until_interrupted(
    person: Face, admin: Admin, arguments: tuple[str, ...], seen: str
) -> None:
    command = [sys.executable, "-u", "-m", "hengectl", "-v", *arguments]
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environ, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(10):
            await process.stderr.readline()  # the first answer has come, so nothing after it is missed
            await admin.set("lamp-1", color="red")
            while seen not in (await process.stdout.readline()).decode():
                continue
        assert await interrupted(process) == 130
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_replacement_prints_a_token_for_the_name(person: Face, daemon: Service, admin: Admin) -> None:
    await daemon.join(admin, "lamp-1")
    assert (await person.run("device", "replace", "lamp-1")).code == 2
    told = await person.run("device", "replace", "lamp-1", "--yes")

    assert re.fullmatch(r"henge-join-1\.[a-z0-9.]+\n", told.out)
    assert "--name lamp-1 --token-file -" in told.err
    assert "add --replace" in told.err  # for the same hardware, as after a rotation that left it behind
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "revoked"


async def test_watched_events_go_on_when_the_daemon_comes_back(
    person: Face, daemon: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [
        Unreachable("unreachable", "nobody answers"), Unreachable("unreachable", "nobody answers"),
        {"events": [{"seq": 8, "type": "device.online", "kind": "Device", "name": name} for name in "ab"], "next": 9},
        KeyboardInterrupt(),
    ]  # fmt: skip

    def events(*_: object, **__: object) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("hengectl.commands.daemon.AWAY_S", 0.0)
    monkeypatch.setattr("hengectl.client.Client.events", events)
    ran = person.now("events", "-w", "--since", "7", "--device", "b")

    assert ran.err.count("waiting for it") == 1
    assert ["device/b" in line for line in ran.out.splitlines()] == [True]


async def test_a_shared_identity_is_shown_with_both_addresses_and_retry_ends_it(
    person: Face, daemon: Service, admin: Admin
) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    async with AsyncExitStack() as stack:
        for boot, address in (("one", "127.0.0.1"), ("two", "127.0.0.2"), ("one", "127.0.0.1")):
            link = await stack.enter_async_context(raw_link(daemon, lamp, local=address))
            await link.hello(boot=boot)
        while "shared" not in await admin.until("lamp-1", connection="online"):
            pass  # each look is a request: the record is written meanwhile
        told = await person.ok("describe", "device/lamp-1")
        offered = await person.ok("retry", "lamp-1")
        await link.config()

    assert "IdentityShared True: two-boots: two devices show this certificate, from 127.0.0.2 and 127.0.0.1" in told
    assert "trouble         identity shared by 127.0.0.2 and 127.0.0.1" in " ".join(told.split("\n"))
    assert "is offered its document again" in offered


# ---- for those who are new ------------------------------------------------------------------------------


async def test_a_window_that_is_open_for_longer_already_says_so(person: Face) -> None:
    await person.ok("join", "open", "--for", "1h")
    shorter = await person.run("join", "open", "--for", "1m")
    assert "open for longer already" in shorter.err
    assert "hengectl" in shorter.err
    assert (await person.run("join", "open", "--for", "2h")).err == ""


async def test_a_name_without_its_kind_gets_a_suggestion(person: Face) -> None:
    ran = await person.run("get", "lamp-1")
    assert ran.code == 2
    assert "hengectl" in ran.err
    assert "get device lamp-1" in ran.err
    assert "Did you mean device?" in (await person.run("get", "device1")).err


async def test_an_operator_who_is_not_there_is_not_asked_about(person: Face) -> None:
    ran = await person.run("operator", "revoke", "nope", terminal=True)
    assert ran.code == 3
    assert "operator/nope does not exist" in ran.err
    assert "Revoke operator" not in ran.err


async def test_choices_that_are_missing_are_listed_in_one_line(person: Face) -> None:
    ran = await person.run("wait", "device/lamp-1")
    first = ran.err.splitlines()[0]
    assert all(word in first for word in ("--for", "in-sync", "online", "deleted"))


async def test_a_device_is_given_a_schema(person: Face, admin: Admin) -> None:
    await admin.apply(device("bare", bound=""))
    told = await person.run("document", "bare")
    assert "device schema bare SCHEMA" in told.err

    assert await person.ok("device", "schema", "bare", "lamp") == "device/bare is of schema lamp (r3)\n"
    assert await person.ok("device", "schema", "bare", "lamp") == "device/bare is of schema lamp already\n"
    assert json.loads(await person.ok("document", "bare"))
