"""Revisions, going back, events (V33, V34, R60)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from hengd.http import history
from hengd.rules.sweep import Sweep
from hengd.store import Transaction
from tests.hengd.http.conftest import Standing
from tests.service import LAMP, Admin, Service, connected, device, group, schema


async def values(admin: Admin, name: str = "lamp-1") -> Any:
    """A device's own values."""
    return (await admin.ok("GET", f"/v1/devices/{name}"))["spec"]["values"]


async def roll_back(admin: Admin, to: int, object_: str = "", query: str = "") -> Any:
    """Go back, one object or everything."""
    return await admin.ok("POST", f"/v1/rollback{query}", {"to": to} | ({"object": object_} if object_ else {}))


async def test_a_revision_keeps_author_time_message_and_both_sides(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    await admin.ok("PATCH", "/v1/devices/lamp-1?message=warmer", {"spec": {"values": {"color": "red"}}})
    await admin.ok("DELETE", "/v1/devices/lamp-1")
    second, third = await admin.ok("GET", "/v1/revisions/2"), await admin.ok("GET", "/v1/revisions/3")

    assert (second["message"], second["origin"], second["revision"]) == ("warmer", "socket", 2)
    assert second["author"]
    assert second["time"].endswith("Z")
    change = second["changes"][0]
    assert (change["kind"], change["name"], change["action"]) == ("Device", "lamp-1", "configured")
    assert (change["before"]["spec"]["values"], change["after"]["spec"]["values"]) == ({}, {"color": "red"})
    assert (third["changes"][0]["action"], third["changes"][0]["after"]) == ("deleted", None)


async def test_the_history_is_read_in_pages_newest_first(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"), device("lamp-2"))
    for number in range(9):
        await admin.set(f"lamp-{number % 2 + 1}", brightness=number)
    pages, before = [], ""
    while items := (await admin.ok("GET", f"/v1/revisions?limit=4{before}"))["items"]:
        pages.append([one["revision"] for one in items])
        before = f"&before={items[-1]['revision']}"
    mine = (await admin.ok("GET", "/v1/revisions?object=device/lamp-1"))["items"]

    assert pages == [[10, 9, 8, 7], [6, 5, 4, 3], [2, 1]]
    assert [one["revision"] for one in mine] == [10, 8, 6, 4, 2, 1]
    assert (await admin.ok("GET", "/v1/revisions?before=1"))["items"] == []


async def test_a_long_history_is_told_as_far_as_it_fits_and_where_it_goes_on(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_ANSWER_BYTES", 1000)
    await admin.apply(schema(), device("lamp-1"))
    for brightness in range(9):
        await admin.set("lamp-1", brightness=brightness)
    told: list[int] = []
    page: dict[str, Any] = {"before": 999}
    while "before" in page:
        page = await admin.ok("GET", f"/v1/revisions?diff=1&before={page['before']}")
        assert len(page["items"]) < 10
        told += [item["revision"] for item in page["items"]]

    assert told == list(range(10, 0, -1))
    assert "before" not in await admin.ok("GET", "/v1/revisions?diff=1&limit=1")


@pytest.mark.parametrize("path", ["/v1/revisions?object=device/lamp-1", "/v1/revisions/1", "/v1/revisions/1/diff"])
async def test_whoever_reads_the_history_waits_for_no_change(daemon: Service, admin: Admin, path: str) -> None:
    await admin.apply(schema(), device("lamp-1"))
    go_on, ended = threading.Event(), threading.Event()

    def long_change(tx: Transaction) -> None:
        go_on.wait(10)
        ended.set()

    change = asyncio.create_task(daemon.app.configs._store.write(long_change))
    await admin.ok("GET", path)
    assert not ended.is_set()
    go_on.set()
    await change


async def test_one_object_goes_back_and_the_others_stay(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"), device("lamp-2", color="red"))
    await admin.set("lamp-1", color="blue")
    await admin.set("lamp-2", color="blue")
    outcome = await roll_back(admin, 1, "device/lamp-1")

    assert outcome["revision"] == 4
    assert [one["name"] for one in outcome["devices"]] == ["lamp-1"]
    assert [(await values(admin, name))["color"] for name in ("lamp-1", "lamp-2")] == ["red", "blue"]
    assert (await admin.ok("GET", "/v1/revisions/4"))["message"] == "roll back to revision 1"


async def test_everything_goes_back_across_creations_and_deletions(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"), group("hall", "room=hall", color="blue"))
    await admin.ok("DELETE", "/v1/devices/lamp-1")
    await admin.ok("DELETE", "/v1/groups/hall")
    await admin.apply(schema("heater", type="object"), device("stove", bound="heater"))
    await admin.ok("PATCH", "/v1/groups/all", {"spec": {"values": {"brightness": 1}}})
    before = await admin.ok("GET", "/v1/devices")
    dry = await roll_back(admin, 1, query="?dry_run=1")
    assert await admin.ok("GET", "/v1/devices") == before
    outcome = await roll_back(admin, 1)

    assert dry["objects"] == outcome["objects"]
    assert {(one["kind"], one["name"], one["action"]) for one in outcome["objects"]} == {
        ("Device", "lamp-1", "created"),
        ("Group", "hall", "created"),
        ("Schema", "heater", "deleted"),
        ("Device", "stove", "deleted"),
        ("Group", "all", "configured"),
    }
    assert await values(admin) == {"color": "red"}
    assert (await admin.ok("GET", "/v1/devices/lamp-1/document")) == {"brightness": 80, "color": "red"}
    assert (await admin.ok("GET", "/v1/groups/all"))["spec"]["values"] == {}


async def test_going_back_can_be_undone_by_going_back(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    await admin.set("lamp-1", color="blue")
    await roll_back(admin, 1)
    await roll_back(admin, 2)

    assert await values(admin) == {"color": "blue"}
    assert (await roll_back(admin, 4))["revision"] == 4


@pytest.mark.parametrize("object_", ["", "device/lamp-2", "device/lamp-1"], ids=["everything", "new-name", "old-name"])
async def test_a_device_renamed_since_gets_its_name_back_and_keeps_its_identity(
    daemon: Service, admin: Admin, object_: str
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
        await admin.ok("POST", "/v1/devices/lamp-1/rename", {"to": "lamp-2"})
        await admin.set("lamp-2", color="blue")
        await lamp.apply_next()
        await roll_back(admin, 1, object_)
        assert (await lamp.apply_next())["color"] == "red"
    found = await admin.ok("GET", "/v1/devices")

    assert [one["metadata"]["name"] for one in found["items"]] == ["lamp-1"]
    assert (found["items"][0]["metadata"]["id"], found["items"][0]["status"]["identity"]) == (identity.id, "active")


async def test_devices_that_swapped_names_swap_back(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("one", color="red"), device("two", color="blue"))
    before = {name: (await admin.ok("GET", f"/v1/devices/{name}"))["metadata"]["id"] for name in ("one", "two")}
    for name, to in (("one", "spare"), ("two", "one"), ("spare", "two")):
        await admin.ok("POST", f"/v1/devices/{name}/rename", {"to": to})
    await roll_back(admin, 1)
    after = {one["metadata"]["name"]: one["metadata"]["id"] for one in (await admin.ok("GET", "/v1/devices"))["items"]}

    assert after == before
    assert [(await values(admin, name))["color"] for name in ("one", "two")] == ["red", "blue"]


async def test_a_name_given_to_another_device_meanwhile_is_taken_back(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("one", color="red"))
    first = await daemon.join(admin, "one")
    await admin.ok("POST", "/v1/devices/one/rename", {"to": "two"})
    second = await daemon.join(admin, "one")
    await roll_back(admin, 1)
    found = (await admin.ok("GET", "/v1/devices"))["items"]

    assert [(one["metadata"]["name"], one["metadata"]["id"]) for one in found] == [("one", first.id)]
    async with daemon.remote(second) as gone:
        assert (await gone.refused("GET", "/v1/device/config")).code == "certificate_revoked"
    async with connected(daemon, first) as lamp:
        assert (await lamp.apply_next())["color"] == "red"


async def test_a_name_moved_onto_a_deleted_one_moves_back(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("one", color="red"), device("two", color="blue"))
    second = (await admin.ok("GET", "/v1/devices/two"))["metadata"]["id"]
    await admin.ok("DELETE", "/v1/devices/one")
    await admin.ok("POST", "/v1/devices/two/rename", {"to": "one"})
    await roll_back(admin, 1)
    found = {one["metadata"]["name"]: one["metadata"]["id"] for one in (await admin.ok("GET", "/v1/devices"))["items"]}

    assert found["two"] == second
    assert found["one"] not in ("", second)
    assert [(await values(admin, name))["color"] for name in ("one", "two")] == ["red", "blue"]


async def test_old_content_that_fits_no_more_is_refused_v33(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    await admin.set("lamp-1", color="green")
    narrow = {"color": {"type": "string", "enum": ["green"]}}
    await admin.apply({**schema(), "spec": {"schema": {**LAMP, "properties": narrow}}})
    answer = await admin.refused("POST", "/v1/rollback", {"to": 1, "object": "device/lamp-1"})

    assert (answer.status, answer.code) == (422, "does_not_fit")
    assert await values(admin) == {"color": "green"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"to": 99}, 404, "no_such_revision", id="future"),
        pytest.param({"to": -1}, 422, "bad_object", id="negative"),
        pytest.param({"to": "1"}, 422, "bad_object", id="text"),
        pytest.param({"to": True}, 422, "bad_object", id="true"),
        pytest.param({"to": 1.0}, 422, "bad_object", id="fraction"),
        pytest.param({"to": 10**15}, 404, "no_such_revision", id="large"),
        pytest.param({}, 422, "bad_object", id="nothing"),
        pytest.param({"to": 0, "object": "lamp-1"}, 422, "bad_parameter", id="no-kind"),
        pytest.param({"to": 0, "object": "token/x"}, 422, "bad_parameter", id="unknown-kind"),
        pytest.param({"to": 0, "object": "device/nothing"}, 404, "no_such_device", id="unknown-device"),
        pytest.param({"to": 1, "object": "group/nothing"}, 404, "no_such_object", id="unknown-group"),
        pytest.param({"to": 0, "all": True}, 422, "unknown_field", id="unknown-field"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_bad_way_back_is_refused(standing: Standing, body: Any, status: int, code: str) -> None:
    answer = await standing.admin.refused("POST", "/v1/rollback", body)

    assert (answer.status, answer.code) == (status, code)
    assert await standing.unmoved()


async def test_a_way_back_over_dropped_revisions_is_refused(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    for number in range(5):
        await admin.set("lamp-1", brightness=number)
    daemon.clock.advance(1000)
    dropped = await daemon.app.configs.prune(2, 500, now=daemon.clock.wall())
    refused = await admin.refused("POST", "/v1/rollback", {"to": 1})
    await roll_back(admin, 5)

    assert dropped == 4
    assert (refused.status, refused.code) == (404, "no_such_revision")
    assert (await values(admin)) == {"brightness": 3}
    assert [one["revision"] for one in (await admin.ok("GET", "/v1/revisions"))["items"]] == [7, 6, 5]


async def test_history_is_kept_while_it_is_young_or_among_the_last(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    await admin.set("lamp-1", brightness=1)

    assert await daemon.app.configs.prune(0, 500, now=daemon.clock.wall()) == 0
    daemon.clock.advance(1000)
    assert await daemon.app.configs.prune(2, 500, now=daemon.clock.wall()) == 0
    assert await daemon.app.configs.prune(1, 500, now=daemon.clock.wall()) == 1


# ---- events -------------------------------------------------------------------------------------------


async def test_events_tell_what_happened_in_order(daemon: Service, admin: Admin) -> None:
    start = (await admin.ok("GET", "/v1/events"))["next"]
    await admin.apply(schema(), device("lamp-1"))
    await admin.ok("DELETE", "/v1/devices/lamp-1")
    told = await admin.ok("GET", f"/v1/events?since={start}")

    assert [(one["type"], one["kind"], one["name"], one["revision"]) for one in told["events"]] == [
        ("object.changed", "Schema", "lamp", 1),
        ("object.changed", "Device", "lamp-1", 1),
        ("object.deleted", "Device", "lamp-1", 2),
    ]
    assert [one["seq"] for one in told["events"]] == [start + 1, start + 2, start + 3]
    assert (told["next"], told["gap"]) == (start + 3, False)


async def test_a_wait_ends_with_the_next_event(daemon: Service, admin: Admin) -> None:
    seq = daemon.app.events.seq
    waiting = asyncio.create_task(admin.ok("GET", f"/v1/events?since={seq}&wait=30"))
    await admin.ok("GET", "/v1/events")
    await admin.apply(device("lamp-1", bound=""))
    told = await waiting

    assert [one["name"] for one in told["events"]] == ["lamp-1"]


async def test_a_wait_ends_when_the_daemon_stops(daemon: Service, admin: Admin) -> None:
    seq = daemon.app.events.seq
    waiting = asyncio.create_task(admin.call("GET", f"/v1/events?since={seq}&wait=55"))
    await admin.ok("GET", "/v1/events")
    async with asyncio.timeout(4):
        await daemon.restart()
        answer = await waiting

    assert answer.status == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_a_number_of_the_future_is_a_gap_r60(standing: Standing) -> None:
    seq = (await standing.admin.ok("GET", "/v1/events"))["next"]
    told = await standing.admin.ok("GET", f"/v1/events?since={seq + 1000}&wait=30")

    assert told["gap"]
    assert told["next"] == seq


async def test_a_listener_that_slept_too_long_sees_the_gap(daemon: Service, admin: Admin) -> None:
    start = daemon.app.events.seq
    for number in range(4200):
        daemon.app.events.add(0.0, "object.changed", "Device", f"lamp-{number}")
    told = await admin.ok("GET", f"/v1/events?since={start + 1}")

    assert (told["gap"], told["next"], len(told["events"])) == (True, start + 4200, 4096)


async def test_joins_links_and_reports_are_events(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
        await admin.until("lamp-1", config="in-sync")
    types = [one["type"] for one in (await admin.ok("GET", "/v1/events?since=0"))["events"]]

    assert {"device.online", "device.reported"} <= set(types)


def documents(daemon: Service) -> int:
    """How many documents the store holds."""
    with daemon.app._store.read() as tx:
        return tx.count("documents")


async def swept(daemon: Service) -> None:
    """One whole round of the sweep."""
    sweep = Sweep(daemon.app._store)
    while await sweep.step():
        pass


async def test_documents_that_no_device_should_run_are_swept_and_the_others_stay(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"), device("lamp-2"))
    for number in range(5):
        await admin.set("lamp-1", brightness=number)

    before = documents(daemon)
    await swept(daemon)
    assert before - documents(daemon) == 4
    assert await admin.ok("GET", "/v1/devices/lamp-1/document") == {"brightness": 4, "color": "green"}
    assert await admin.ok("GET", "/v1/devices/lamp-2/document") == {"brightness": 80, "color": "green"}


async def test_a_number_of_the_daemons_life_before_is_a_gap(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    seq = (await admin.ok("GET", "/v1/events"))["next"]
    await daemon.restart()
    async with daemon.admin() as again:
        await again.apply(device("lamp-2"))
        assert (await again.ok("GET", f"/v1/events?since={seq}"))["gap"]


async def test_a_change_of_a_group_is_an_event_of_its_devices_under_their_present_names(
    daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
        await admin.ok("POST", "/v1/devices/lamp-1/rename", {"to": "desk"})
        start = daemon.app.events.seq
        await admin.apply(group("bright", brightness=3))
    await admin.until("desk", connection="offline")
    told = (await admin.ok("GET", f"/v1/events?since={start}"))["events"]

    assert [(one["type"], one["name"]) for one in told if one["kind"] == "Device"] == [
        ("device.changed", "desk"), ("device.offline", "desk"),
    ]  # fmt: skip


async def test_rolling_everything_back_throws_no_joined_device_out(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema())
    await admin.apply(device("lamp-1"), device("lamp-2"))
    await daemon.join(admin, "lamp-1")

    await admin.ok("POST", "/v1/rollback", {"to": 1})

    left = (await admin.ok("GET", "/v1/devices"))["items"]
    assert [(one["metadata"]["name"], one["status"]["identity"]) for one in left] == [("lamp-1", "active")]


async def test_rolling_everything_back_keeps_the_schema_of_a_device_that_stays(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-2"))
    await admin.apply(schema("led"), schema("fan"), group("leds", "kind=led"))
    await daemon.join(admin, "my-led", schema="led")
    dry = await roll_back(admin, 1, query="?dry_run=1")
    done = await roll_back(admin, 1)

    assert {one["name"]: one["action"] for one in done["objects"]} == {"fan": "deleted", "leds": "deleted"}
    assert [one["name"] for one in dry["objects"]] == [one["name"] for one in done["objects"]]
    assert {one["metadata"]["name"] for one in (await admin.ok("GET", "/v1/schemas"))["items"]} == {"lamp", "led"}
    assert (await admin.ok("GET", "/v1/devices/my-led"))["spec"]["schema"] == "led"


async def test_two_revisions_are_compared_over_http(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    await admin.set("lamp-1", color="blue")
    found = await admin.ok("GET", "/v1/revisions/1/diff?object=device/lamp-1&to=2")
    digests = [found["devices"][0].pop(side) for side in ("before", "after")]

    assert found == {
        "from": 1, "to": 2,
        "objects": [{
            "kind": "Device", "name": "lamp-1", "action": "configured",
            "changes": [{"pointer": "/spec/values/color", "before": "red", "after": "blue"}],
        }],
        "devices": [{"name": "lamp-1", "changes": [{"pointer": "/color", "before": "red", "after": "blue"}]}],
    }  # fmt: skip
    assert digests[1] == (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["desired"]["digest"]
    assert (await admin.ok("GET", "/v1/revisions/2/diff"))["objects"] == []
    items = (await admin.ok("GET", "/v1/revisions?diff=1&limit=1"))["items"]
    assert items[0]["changes"][0]["changes"] == found["objects"][0]["changes"]
    for path in ("x/diff", "99/diff", "1/diff?to=99", "1/diff?object=device/nosuch"):
        assert (await admin.refused("GET", f"/v1/revisions/{path}")).status == 404
    for path in ("1/diff?to=x", "1/diff?object=nonsense", "1/diff?nosuch=1"):
        assert (await admin.refused("GET", f"/v1/revisions/{path}")).status in (400, 422)
