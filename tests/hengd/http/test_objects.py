"""Schemas, groups and devices over HTTP: create, replace, patch, delete, list (R20 to R56, V30, V31, J38 to J43)."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from hengd.http.objects import PIECE, list_response
from tests.hengd.http.conftest import Standing
from tests.hengd.http.raw import request
from tests.service import LAMP, PATIENCE_S, Admin, Clock, Service, connected, device, group, schema

PATIENCE_TURNS = 1_000_000
"""Of the loop, until a request is done; far beyond what it takes."""
KINDS = [
    pytest.param("schemas", schema("lamp"), {"max_document": 4096}, id="schema"),
    pytest.param("groups", group("hall", "room=hall"), {"priority": 7}, id="group"),
    pytest.param("devices", device("lamp-1", bound=""), {"values": {}}, id="device"),
]


async def revision(admin: Admin) -> int:
    """The newest revision."""
    return int((await admin.ok("GET", "/v1/status"))["revision"])


def path_of(plural: str, wanted: dict[str, Any]) -> str:
    """The path of an object."""
    return f"/v1/{plural}/{wanted['metadata']['name']}"


async def test_a_long_list_leaves_others_their_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    answer = await list_response("GroupList", {"revision": 1}, ["x"] * (3 * PIECE), lambda _: {"turn": turns})
    running.cancel()

    assert isinstance(answer.body, bytes)
    listed = json.loads(answer.body)
    assert (listed["kind"], listed["metadata"], len(listed["items"])) == ("GroupList", {"revision": 1}, 3 * PIECE)
    assert [item["turn"] for item in listed["items"][::PIECE]] == [0, 1, 2]


@pytest.mark.parametrize("many", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("left_out", [set(), {"ü-0"}, {f"ü-{n}" for n in range(PIECE)}], ids=["none", "one", "piece"])
async def test_a_list_of_any_length_is_json(many: int, left_out: set[str]) -> None:
    names = [f"ü-{n}" for n in range(many)]
    answer = await list_response("GroupList", {}, names, lambda name: None if name in left_out else {"name": name})

    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["items"] == [{"name": name} for name in names if name not in left_out]


@pytest.mark.parametrize(("plural", "wanted", "change"), KINDS)
async def test_an_object_lives_from_put_to_delete(
    daemon: Service, admin: Admin, plural: str, wanted: dict[str, Any], change: dict[str, Any]
) -> None:
    path = path_of(plural, wanted)
    made = await admin.call("PUT", path, wanted)
    read = await admin.call("GET", path)
    patched = await admin.call("PATCH", path, {"spec": change, "metadata": {"labels": {"a": "b"}}})
    gone = await admin.call("DELETE", path)
    missing = await admin.refused("GET", path)

    assert (made.status, read.status, patched.status, gone.status) == (201, 200, 200, 200)
    assert (made.headers["ETag"], made.headers["Henge-Revision"]) == (read.headers["ETag"], "1")
    assert read.json == made.json
    assert patched.json["metadata"]["labels"] == {"a": "b"}
    assert patched.headers["ETag"] != made.headers["ETag"]
    assert gone.json["metadata"] == patched.json["metadata"]
    assert missing.status == 404
    assert await revision(admin) == 3


@pytest.mark.parametrize(("plural", "wanted", "change"), KINDS)
async def test_what_is_read_can_be_put_back_and_changes_nothing_v30_r30_j38(
    daemon: Service, admin: Admin, plural: str, wanted: dict[str, Any], change: dict[str, Any]
) -> None:
    path = path_of(plural, wanted)
    made = await admin.call("PUT", path, wanted)
    read = await admin.ok("GET", path)
    again = await admin.call("PUT", path, read, headers={"If-Match": made.headers["ETag"]})
    empty = await admin.call("PATCH", path, {})

    assert (again.status, again.headers["ETag"]) == (200, made.headers["ETag"])
    assert empty.headers["ETag"] == made.headers["ETag"]
    assert await revision(admin) == 1


@pytest.mark.parametrize(("plural", "wanted", "change"), KINDS)
async def test_a_replacement_names_what_it_replaces_r48(
    daemon: Service, admin: Admin, plural: str, wanted: dict[str, Any], change: dict[str, Any]
) -> None:
    path = path_of(plural, wanted)
    tag = (await admin.call("PUT", path, wanted)).headers["ETag"]
    changed = {**wanted, "spec": wanted["spec"] | change, "metadata": wanted["metadata"] | {"labels": {"a": "b"}}}
    unnamed = await admin.refused("PUT", path, changed)
    named = await admin.call("PUT", path, changed, headers={"If-Match": tag})
    stale = await admin.refused("PUT", path, wanted, headers={"If-Match": tag})
    star = await admin.call("PUT", path, wanted, headers={"If-Match": "*"})

    assert (unnamed.status, unnamed.code, unnamed.headers["ETag"]) == (428, "if_match_required", tag)
    assert named.status == 200
    assert (stale.status, stale.code) == (412, "stale")
    assert (stale.headers["ETag"], stale.json["etag"]) == (named.headers["ETag"], named.headers["ETag"])
    assert star.status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_version_of_another_epoch_is_stale_r48(daemon: Service, admin: Admin, method: str) -> None:
    made = await admin.call("PUT", "/v1/devices/lamp-1", device("lamp-1", bound=""))
    number = made.headers["ETag"].strip('"').partition(".")[2]
    body = None if method == "DELETE" else device("lamp-1", bound="")
    answer = await admin.refused(method, "/v1/devices/lamp-1", body, headers={"If-Match": f'"{"0" * 26}.{number}"'})

    assert (answer.status, answer.code) == (412, "stale")


async def test_a_version_of_an_object_that_is_not_there_is_stale(daemon: Service, admin: Admin) -> None:
    answer = await admin.refused(
        "PUT", "/v1/devices/lamp-1", device("lamp-1", bound=""), headers={"If-Match": f'"{"0" * 26}.1"'}
    )

    assert (answer.status, answer.code) == (412, "stale")


@pytest.mark.parametrize(
    "value", ["7", '""', '"x"', 'W/"a.1"', '"a.1", "b.2"', '"a.1\u0661"', '"a.' + "9" * 40 + '"', "**"]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_version_that_is_none_of_ours_is_refused_r48(standing: Standing, value: str) -> None:
    answer = await standing.admin.refused(
        "PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"color": "red"}}}, headers={"If-Match": value}
    )

    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert await standing.unmoved()


async def test_of_two_sets_on_one_version_one_is_stale_v31(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    tag = (await admin.call("GET", "/v1/devices/lamp-1")).headers["ETag"]
    answers = await asyncio.gather(
        *[
            admin.call("PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"color": color}}}, headers={"If-Match": tag})
            for color in ("red", "blue")
        ]
    )

    assert sorted(answer.status for answer in answers) == [200, 412]


async def test_a_hundred_parallel_sets_are_all_in_the_history_r56(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    answers = await asyncio.gather(*[admin.set("lamp-1", brightness=number) for number in range(100)])
    history = (await admin.ok("GET", "/v1/revisions?limit=1000"))["items"]

    assert len(answers) == 100
    assert [one["revision"] for one in history] == list(range(101, 0, -1))
    last = (await admin.ok("GET", "/v1/devices/lamp-1"))["spec"]["values"]["brightness"]
    newest = (await admin.ok("GET", "/v1/revisions/101"))["changes"][0]["after"]["spec"]["values"]["brightness"]
    assert last == newest


async def test_whoever_leaves_before_the_answer_leaves_all_or_nothing_r50(
    daemon: Service, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    await admin.apply(schema())
    names = [f"lamp-{number}" for number in range(20)]
    for turns in (0, 1, 3, 9, 27, 81, PATIENCE_TURNS):
        body = json.dumps({"objects": [device(name, brightness=turns % 100) for name in names]}).encode()
        _, writer = await asyncio.open_unix_connection(daemon.socket)
        writer.write(request("POST", "/v1/apply", body, "Content-Type: application/json"))
        before = daemon.app.events.seq
        for _ in range(turns):
            if daemon.app.events.seq > before:  # it is done, and the answer is on its way
                break
            await asyncio.sleep(0)
        writer.transport.abort()
    history = (await admin.ok("GET", "/v1/revisions?limit=1000"))["items"]

    assert history[0]["revision"] > 1
    assert {len(one["changes"]) for one in history[:-1]} == {20}
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_identical_parallel_writes_are_one_revision_r56(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    await asyncio.gather(*[admin.set("lamp-1", brightness=5) for _ in range(100)])

    assert await revision(admin) == 2


async def test_a_number_of_another_type_is_a_change_v06(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema("any", type="object", properties={"x": {}}), device("lamp-1", bound="any"))
    digests = []
    for value in (1, 1.0, True, -0.0, 0.0, 0, False, "1", 0.1 + 0.2, 5e-324, 1e308):
        await admin.set("lamp-1", x=value)
        document = await admin.call("GET", "/v1/devices/lamp-1/document")
        assert repr(document.json["x"]) == repr(value)
        digests.append(document.headers["ETag"])

    assert len(set(digests)) == len(digests)
    assert await revision(admin) == 1 + len(digests)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("PUT", "/v1/devices/lamp-2", device("lamp-2"), id="create"),
        pytest.param("PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"color": "red"}}}, id="patch"),
        pytest.param("DELETE", "/v1/devices/lamp-1", None, id="delete"),
        pytest.param("DELETE", "/v1/groups/kitchen", None, id="delete-group"),
        pytest.param("POST", "/v1/apply", {"objects": [device("lamp-3"), schema("heater")]}, id="apply"),
        pytest.param("POST", "/v1/apply", {"delete": [{"kind": "Device", "name": "lamp-1"}]}, id="apply-delete"),
        pytest.param("POST", "/v1/rollback", {"to": 0}, id="rollback"),
        pytest.param("POST", "/v1/devices/lamp-1/rename", {"to": "lamp-7"}, id="rename"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_dry_run_tells_what_would_be_and_leaves_nothing(
    standing: Standing, method: str, path: str, body: Any
) -> None:
    before = [await standing.admin.ok("GET", f"/v1/{one}") for one in ("devices", "groups", "schemas", "revisions")]
    seq = (await standing.admin.ok("GET", "/v1/events"))["next"]
    outcome = await standing.admin.ok(method, f"{path}?dry_run=1", body)
    after = [await standing.admin.ok("GET", f"/v1/{one}") for one in ("devices", "groups", "schemas", "revisions")]

    assert outcome["dry_run"] is True
    assert outcome["revision"] == standing.revision
    assert outcome["objects"]
    assert after == before
    assert (await standing.admin.ok("GET", "/v1/events"))["next"] == seq


async def test_a_dry_run_finds_the_same_faults(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    body = {"spec": {"values": {"color": "pink"}}}
    dry = await admin.refused("PATCH", "/v1/devices/lamp-1?dry_run=1", body)
    wet = await admin.refused("PATCH", "/v1/devices/lamp-1", body)

    assert (dry.status, dry.json["errors"]) == (422, wet.json["errors"])


async def test_an_apply_is_one_revision_whatever_it_holds(daemon: Service, admin: Admin) -> None:
    made = await admin.apply(
        device("lamp-1", labels={"room": "hall"}), group("hall", "room=hall", color="red"), schema()
    )
    again = await admin.apply(
        device("lamp-1", labels={"room": "hall"}), group("hall", "room=hall", color="red"), schema()
    )
    swapped = await admin.ok(
        "POST",
        "/v1/apply",
        {"objects": [device("lamp-2")], "delete": [{"kind": "Device", "name": "lamp-1"}], "message": "swap"},
    )

    assert (made["revision"], again["revision"], swapped["revision"]) == (1, 1, 2)
    assert {one["action"] for one in again["objects"]} == {"unchanged"}
    assert again["devices"] == []
    assert {(one["name"], one["action"]) for one in swapped["objects"]} == {
        ("lamp-2", "created"),
        ("lamp-1", "deleted"),
    }
    assert (await admin.ok("GET", "/v1/revisions/2"))["message"] == "swap"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param({"objects": {}}, "bad_object", id="objects-no-list"),
        pytest.param({"object": []}, "unknown_field", id="unknown-field"),
        pytest.param({"objects": [7]}, "bad_object", id="object-number"),
        pytest.param({"objects": [{"kind": "Secret"}]}, "unknown_kind", id="unknown-kind"),
        pytest.param({"objects": [{"kind": ["Device"]}]}, "unknown_kind", id="kind-list"),
        pytest.param({"objects": [{}]}, "unknown_kind", id="no-kind"),
        pytest.param({"objects": [{"kind": "Device"}]}, "bad_name", id="no-name"),
        pytest.param({"objects": [device("lamp-1"), device("lamp-1")]}, "bad_object", id="twice"),
        pytest.param({"delete": {}}, "bad_object", id="delete-no-list"),
        pytest.param({"delete": ["lamp-1"]}, "bad_object", id="delete-text"),
        pytest.param({"delete": [{"kind": "Device"}]}, "bad_object", id="delete-no-name"),
        pytest.param({"delete": [{"kind": [], "name": "lamp-1"}]}, "unknown_kind", id="delete-kind-list"),
        pytest.param({"delete": [{"kind": {}, "name": "lamp-1"}]}, "unknown_kind", id="delete-kind-object"),
        pytest.param({"delete": [{"kind": "Secret", "name": "lamp-1"}]}, "unknown_kind", id="delete-unknown-kind"),
        pytest.param({"delete": [{"kind": "Device", "name": "Lamp"}]}, "bad_name", id="delete-bad-name"),
        pytest.param({"delete": [{"kind": "Device", "name": "lamp-1", "x": 1}]}, "bad_object", id="delete-more"),
        pytest.param({"delete": [{"kind": "Device", "name": "lamp-1"}] * 2}, "bad_object", id="delete-twice"),
        pytest.param(
            {"objects": [device("lamp-1")], "delete": [{"kind": "Device", "name": "lamp-1"}]}, "bad_object", id="both"
        ),
        pytest.param({"message": 7}, "bad_object", id="message-number"),
        pytest.param({"objects": [{}] * 5001}, "too_complex", id="5001-objects"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_bad_apply_is_refused_whole(standing: Standing, body: Any, code: str) -> None:
    answer = await standing.admin.refused("POST", "/v1/apply", body)

    assert (answer.status, answer.code) == (422, code)
    assert await standing.unmoved()


@pytest.mark.parametrize("way", ["PUT", "apply"])
@pytest.mark.parametrize(("depth", "fine"), [(28, True), (29, True), (30, False)])
async def test_what_can_be_put_can_be_applied_however_deep_v12(admin: Admin, way: str, depth: int, fine: bool) -> None:
    await admin.apply(schema("any", type="object", properties={"x": {}}))
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    wanted = device("one", bound="any", x=value)
    method, path, body = ("PUT", "/v1/devices/one", wanted)
    if way == "apply":
        method, path, body = ("POST", "/v1/apply", {"objects": [wanted]})
    answer = await admin.call(method, path, body)

    assert (answer.status < 300) is fine, answer.body
    assert fine or (answer.code == "too_deep" and await revision(admin) == 1)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_fault_of_every_object_is_told_at_once_r38(standing: Standing) -> None:
    bad_group = {"kind": "Group", "metadata": {"name": "hall"}, "spec": {"priority": -1, "selector": "((", "prio/x": 1}}
    bad_schema = {"kind": "Schema", "metadata": {"name": "heater", "uid": 1}, "spec": {"confirm_s": 0}}
    answer = await standing.admin.refused("POST", "/v1/apply", {"objects": [bad_group, bad_schema, {"kind": "Lamp"}]})

    assert {(one["object"], one["pointer"]) for one in answer.json["errors"]} == {
        ("group/hall", "/spec/prio~1x"),
        ("group/hall", "/spec/priority"),
        ("group/hall", "/spec/selector"),
        ("schema/heater", "/metadata/uid"),
        ("schema/heater", "/spec/schema"),
        ("schema/heater", "/spec/confirm_s"),
        ("#3", "/kind"),
    }


@pytest.mark.parametrize(
    ("metadata", "fine"),
    [
        pytest.param({"labels": {f"k{n}": "v" for n in range(32)}}, True, id="32-labels"),
        pytest.param({"labels": {f"k{n}": "v" for n in range(33)}}, False, id="33-labels"),
        pytest.param({"labels": {"k" * 63: "v" * 63}}, True, id="63-characters"),
        pytest.param({"labels": {"k" * 64: "v"}}, False, id="key-of-64"),
        pytest.param({"labels": {"k": "v" * 64}}, False, id="value-of-64"),
        pytest.param({"labels": {"room": ""}}, True, id="empty-value"),
        pytest.param({"labels": {"": "a"}}, False, id="empty-key"),
        pytest.param({"labels": {"a b": "c"}}, False, id="space"),
        pytest.param({"labels": {"a": "\u00fc"}}, False, id="umlaut"),
        pytest.param({"labels": {"a": "b\n"}}, False, id="line-end"),
        pytest.param({"labels": None}, True, id="labels-null"),
        pytest.param({"annotations": {"a": "x" * 4095}}, True, id="annotations-4096"),
        pytest.param({"annotations": {"a": "x" * 4096}}, False, id="annotations-4097"),
        pytest.param({"annotations": {"note": "<b>\u202e\x00</b>"}}, True, id="annotations-are-data"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_labels_and_annotations_have_limits(standing: Standing, metadata: dict[str, Any], fine: bool) -> None:
    wanted = device("lamp-9", bound="")
    wanted["metadata"] = {"name": "lamp-9", **metadata}
    answer = await standing.admin.call("PUT", "/v1/devices/lamp-9?dry_run=1", wanted)

    assert answer.status == (200 if fine else 422), answer.body


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("", ["lamp-1", "lamp-2", "lamp-3"]),
        ("room=hall", ["lamp-1", "lamp-2"]),
        ("room!=hall", ["lamp-3"]),
        ("room,!spare", ["lamp-1"]),
        ("room in (hall,attic)", ["lamp-1", "lamp-2"]),
        ("room notin (hall)", ["lamp-3"]),
        ("nothing", []),
    ],
)
async def test_a_list_is_filtered_by_labels(daemon: Service, admin: Admin, selector: str, found: list[str]) -> None:
    await admin.apply(
        device("lamp-1", bound="", labels={"room": "hall"}),
        device("lamp-2", bound="", labels={"room": "hall", "spare": ""}),
        device("lamp-3", bound=""),
    )
    answer = await admin.call("GET", "/v1/devices", params={"selector": selector})

    assert [one["metadata"]["name"] for one in answer.json["items"]] == found
    assert answer.json["kind"] == "DeviceList"
    assert answer.json["metadata"]["revision"] == 1


async def test_the_group_all_is_there_and_only_its_values_change(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema())
    found = await admin.ok("GET", "/v1/groups/all")
    await admin.ok("PATCH", "/v1/groups/all", {"spec": {"values": {"color": "red"}}})
    for change in ({"priority": 5}, {"selector": "a=b"}, {"schema": "lamp"}):
        answer = await admin.refused("PATCH", "/v1/groups/all", {"spec": change})
        assert (answer.status, answer.code) == (422, "read_only")
    deleted = await admin.refused("DELETE", "/v1/groups/all")

    assert (found["spec"]["selector"], found["spec"]["priority"]) == ("", 0)
    assert (deleted.status, deleted.code) == (409, "read_only")


async def test_a_schema_in_use_stays_j40(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"), group("hall", bound="lamp"))
    answer = await admin.refused("DELETE", "/v1/schemas/lamp")

    assert (answer.status, answer.code) == (409, "in_use")
    assert "device/lamp-1" in answer.json["detail"]
    assert "group/hall" in answer.json["detail"]


async def test_all_users_of_a_schema_are_listed_when_a_sentence_has_no_room(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), *[device(f"lamp-{number:02}") for number in range(12)])
    answer = await admin.refused("DELETE", "/v1/schemas/lamp")

    assert answer.json["detail"].endswith("device/lamp-07 and 4 more")
    assert [one["object"] for one in answer.json["errors"]] == [f"device/lamp-{number:02}" for number in range(12)]


async def test_a_dry_run_tells_what_would_differ_field_by_field(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    body = {"objects": [device("lamp-1", brightness=7)]}
    dry = await admin.ok("POST", "/v1/apply?dry_run=1", body)
    wet = await admin.ok("POST", "/v1/apply", body)

    own = [
        {"pointer": "/spec/values/brightness", "after": 7},
        {"pointer": "/spec/values/color", "before": "red"},
    ]
    assert dry["objects"] == wet["objects"] == [
        {"kind": "Device", "name": "lamp-1", "action": "configured", "changes": own}
    ]  # fmt: skip
    assert dry["devices"][0]["changes"] == [
        {"pointer": "/brightness", "before": 80, "after": 7},
        {"pointer": "/color", "before": "red", "after": "green"},
    ]
    assert "changes" not in wet["devices"][0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/apply", {"objects": [device("lamp-1", color="red")]}),
        ("/v1/apply", {"delete": [{"kind": "Device", "name": "lamp-1"}]}),
        ("/v1/rollback", {"to": 0}),
    ],
    ids=["apply", "delete", "rollback"],
)
async def test_a_change_of_many_may_name_the_version_of_the_fleet_it_was_made_for(
    daemon: Service, admin: Admin, path: str, body: dict[str, Any]
) -> None:
    made = await admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1")]})
    seen = made.headers["ETag"]
    assert seen == f'"{made.json["epoch"]}.1"'
    await admin.set("lamp-1", brightness=3)

    stale = await admin.refused("POST", path, body, headers={"If-Match": seen})
    assert (stale.status, stale.code, stale.json["revision"]) == (412, "stale", 2)
    bad = await admin.refused("POST", path, body, headers={"If-Match": "1"})
    assert (bad.status, bad.code) == (400, "bad_parameter")
    good = await admin.call("POST", path, body, headers={"If-Match": stale.json["etag"]})
    assert (good.status, good.headers["Henge-Revision"]) == (200, "3")


async def test_a_name_that_nearly_exists_is_suggested(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"), device("stove"))
    near, far = [await admin.refused("GET", f"/v1/devices/{name}") for name in ("lmap-1", "garden")]

    assert near.json["cure"] == "did you mean device/lamp-1? See: hengectl get devices"
    assert far.json["cure"] == "see: hengectl get devices"


async def test_a_schema_that_no_longer_fits_is_refused_with_the_list_j39(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), *[device(f"lamp-{number}", color="red") for number in range(12)], device("lamp-ok"))
    narrow = {**LAMP, "properties": {**LAMP["properties"], "color": {"type": "string", "enum": ["green"]}}}  # type: ignore[dict-item]
    answer = await admin.refused("PATCH", "/v1/schemas/lamp", {"spec": {"schema": narrow}})

    assert (answer.status, answer.code) == (422, "does_not_fit")
    assert answer.json["device_count"] == 12
    assert "lamp-ok" not in answer.json["devices"]
    assert {one["pointer"] for one in answer.json["errors"]} == {"/color"}
    assert await revision(admin) == 1


async def test_a_device_may_not_write_objects_j43_r55(daemon: Service, admin: Admin) -> None:
    identity = await daemon.join(admin, "lamp-1")
    async with daemon.remote(identity) as lamp:
        answer = await lamp.refused("PUT", "/v1/schemas/lamp", schema())

    assert (answer.status, answer.code) == (403, "wrong_role")


async def test_a_patch_removes_what_is_null_and_keeps_the_rest_v19(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red", wifi={"ssid": "home", "channel": 3}))
    patched = await admin.ok(
        "PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"color": None, "wifi": {"channel": None}}}}
    )

    assert patched["spec"]["values"] == {"wifi": {"ssid": "home"}}


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param([], id="V20-empty"),
        pytest.param([{"op": "test", "path": "/spec/values/color", "value": "red"}], id="V20-json-patch"),
        pytest.param([{"op": "remove", "path": "/spec"}] * 6_000, id="V20-6000-operations"),
        pytest.param("red", id="text"),
        pytest.param(7, id="number"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_patch_that_is_no_object_is_refused_with_an_example(standing: Standing, patch: Any) -> None:
    answer = await standing.admin.refused("PATCH", "/v1/devices/lamp-1", patch)

    assert (answer.status, answer.code) == (422, "bad_object")
    assert '{"spec": {"values": {"color": "red"}}}' in answer.json["detail"]
    assert await standing.unmoved()


async def test_a_null_that_hides_is_put_and_survives_patches_v19(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), group("all", color="red", priority=0), device("lamp-1"))
    hiding = device("lamp-1")
    hiding["spec"]["values"] = {"color": None}
    await admin.ok("PUT", "/v1/devices/lamp-1", hiding, headers={"If-Match": "*"})
    patched = await admin.set("lamp-1", brightness=3)
    document = await admin.ok("GET", "/v1/devices/lamp-1/document")

    assert patched["spec"]["values"] == {"color": None, "brightness": 3}
    assert document == {"brightness": 3}


async def test_data_that_looks_like_code_is_data_v29_v08(daemon: Service, admin: Admin) -> None:
    texts = [
        "{{7*7}}",
        "$(id)",
        "`id`",
        "%s",
        "../../etc/passwd",
        "<script>",
        "\x00\x1b[2J\x7f",
        "\u2028\u202e\ufeff\uffff",
    ]
    await admin.apply(schema("any", type="object", properties={"x": {"type": "string"}}), device("lamp-1", bound="any"))
    for text in texts:
        await admin.set("lamp-1", x=text)
        assert (await admin.ok("GET", "/v1/devices/lamp-1/document"))["x"] == text


async def test_an_override_is_shown_beside_the_spec_and_ends_while_the_daemon_is_down(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await admin.apply(schema(), group("hall", "room=hall"), device("lamp-1", color="red"))
    made = await admin.ok(
        "PATCH", "/v1/devices/lamp-1/overrides?message=try", {"set": {"/color": "blue"}, "for_s": 3600}
    )
    [override] = made["status"]["overrides"]
    assert {key: override[key] for key in ("field", "pointer", "value", "message")} == {
        "field": "color", "pointer": "/color", "value": "blue", "message": "try",
    }  # fmt: skip
    assert made["spec"]["values"] == {"color": "red"}
    [color] = (await admin.ok("GET", "/v1/devices/lamp-1/why?field=color"))["fields"]
    assert (color["layers"][0]["layer"], color["layers"][0]["until"]) == ("override", override["until"])
    group_ = await admin.ok("PATCH", "/v1/groups/hall/overrides", {"set": {"color": "red"}, "for_s": 9999})
    assert group_["status"]["overrides"][0]["value"] == "red"

    await daemon.stop()
    clock.advance(3601)
    await daemon.start()
    async with daemon.admin() as later:
        shown = await later.ok("GET", "/v1/devices/lamp-1")
        history = await later.ok("GET", "/v1/revisions?object=device/lamp-1&limit=1")
        assert (await later.ok("GET", "/v1/devices/lamp-1/document"))["color"] == "red"

    assert "overrides" not in shown["status"]
    assert (history["items"][0]["author"], history["items"][0]["message"]) == ("henge", "override ended")


async def test_an_override_ends_by_itself_and_the_device_is_told(daemon: Service, admin: Admin, clock: Clock) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        assert (await lamp.apply_next())["color"] == "red"
        await admin.ok("PATCH", "/v1/devices/lamp-1/overrides", {"set": {"color": "blue"}, "for_s": 3600})
        assert (await lamp.apply_next())["color"] == "blue"
        clock.advance(3601)
        await admin.apply(device("other"))  # any change is a reason to look at the clock

        assert (await lamp.apply_next())["color"] == "red"


async def test_a_dry_run_overrides_nothing(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    body = {"set": {"color": "blue"}, "for_s": 60}
    told = await admin.ok("PATCH", "/v1/devices/lamp-1/overrides?dry_run=1", body)

    assert told["devices"][0]["changes"] == [{"pointer": "/color", "before": "red", "after": "blue"}]
    assert "overrides" not in (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]
    assert (await admin.refused("PATCH", "/v1/schemas/lamp/overrides", body)).status == 404


async def test_a_change_that_expects_the_same_documents_is_refused_with_others(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), group("hall", "room=hall"), device("lamp-1", labels={"room": "hall"}, color="red"))
    lifted = [group("hall", "room=hall", color="red"), device("lamp-1", labels={"room": "hall"})]
    for query in ("expect=same-documents", "expect=same-documents&dry_run=1"):
        answer = await admin.refused("POST", f"/v1/apply?{query}", {"objects": [device("lamp-1", color="blue")]})
        assert (answer.status, answer.code, answer.json["devices"]) == (409, "documents_differ", ["lamp-1"])
    assert (await admin.refused("POST", "/v1/apply?expect=nothing", {"objects": lifted})).code == "bad_parameter"
    assert await revision(admin) == 1

    result = await admin.ok("POST", "/v1/apply?expect=same-documents", {"objects": lifted})
    assert (result["revision"], result["devices"]) == (2, [])


# --- apply-sets -----------------------------------------------------------------------------------------------


async def test_an_object_of_a_set_is_changed_by_hand_only_by_taking_it_over(admin: Admin) -> None:
    await admin.apply(schema())
    await admin.ok("POST", "/v1/apply?set=git", {"objects": [device("lamp-1", color="red")]})
    patch = {"spec": {"values": {"color": "blue"}}}
    answer = await admin.refused("PATCH", "/v1/devices/lamp-1", patch)
    assert (answer.status, answer.code, answer.json["objects"]) == (409, "managed", ["device/lamp-1"])
    assert (await admin.ok("PATCH", "/v1/devices/lamp-1?dry_run=1", patch))["managed"] == answer.json["detail"]
    for method, path, body in (
        ("PUT", "/v1/devices/lamp-1", device("lamp-1")),
        ("DELETE", "/v1/devices/lamp-1", None),
        ("POST", "/v1/devices/lamp-1/rename", {"to": "lamp-2"}),
        ("POST", "/v1/rollback", {"to": 1}),
        ("POST", "/v1/apply", {"objects": [device("lamp-1")]}),
    ):
        answer = await admin.refused(method, path, body, headers={"If-Match": "*"} if method == "PUT" else {})
        assert answer.code == "managed", path
    assert await revision(admin) == 2

    seen = await admin.ok("PATCH", "/v1/devices/lamp-1?set=git", patch)
    assert (seen["metadata"]["set"], seen["spec"]["values"]) == ("git", {"color": "blue"})
    await admin.ok("PATCH", "/v1/devices/lamp-1/overrides", {"set": {"color": "green"}, "for_s": 60})
    taken = await admin.ok("PUT", "/v1/devices/lamp-1?take_over=1", device("lamp-1"), headers={"If-Match": "*"})
    assert taken["metadata"]["taken_from"] == "git"
    assert "set" not in taken["metadata"]
    renamed = await admin.ok("POST", "/v1/devices/lamp-1/rename", {"to": "lamp-2"})
    assert await admin.ok("PUT", "/v1/devices/lamp-2", renamed, headers={"If-Match": "*"}) == renamed
    history = (await admin.ok("GET", "/v1/revisions"))["items"]
    assert [one.get("set") for one in reversed(history)] == [None, "git", "git", None, None, None]


async def test_what_is_not_applied_is_pruned_from_its_set_but_for_devices_that_joined(
    daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema(), device("other"))
    lamps = [device("lamp-1"), device("lamp-2"), device("lamp-3")]
    await admin.ok("POST", "/v1/apply?set=git", {"objects": lamps})
    await daemon.join(admin, "lamp-2")
    told = await admin.ok("POST", "/v1/apply?set=git&prune=1&dry_run=1", {"objects": lamps[:1]})
    done = await admin.ok("POST", "/v1/apply?set=git&prune=1", {"objects": lamps[:1]})

    assert told["spared"] == done["spared"] == ["lamp-2"]
    assert told["objects"] == done["objects"]
    assert {one["name"]: one["action"] for one in done["objects"]} == {
        "lamp-1": "unchanged", "lamp-2": "configured", "lamp-3": "deleted",
    }  # fmt: skip
    devices = (await admin.ok("GET", "/v1/devices"))["items"]
    assert [(one["metadata"]["name"], one["metadata"].get("set")) for one in devices] == [
        ("lamp-1", "git"), ("lamp-2", None), ("other", None),
    ]  # fmt: skip
    assert devices[1]["status"]["identity"] == "active"


async def test_pruning_without_a_set_or_all_of_a_set_is_refused(admin: Admin) -> None:
    await admin.ok("POST", "/v1/apply?set=git", {"objects": [schema()]})
    for query, code in (
        ("prune=1", "bad_parameter"),
        ("prune=1&set=", "bad_parameter"),
        ("prune=1&set=Git", "bad_name"),
        ("prune=yes&set=git", "bad_parameter"),
        ("prune=1&set=git", "too_wide"),
    ):
        assert (await admin.refused("POST", f"/v1/apply?{query}", {"objects": []})).code == code
    for path in ("/v1/rollback", "/v1/devices/a/rename"):
        assert (await admin.refused("POST", f"{path}?set=git", {"to": 1})).code == "unknown_parameter"
    assert (await admin.refused("PUT", "/v1/secrets/a?take_over=1", {"value": "x"})).code == "unknown_parameter"

    done = await admin.ok("POST", "/v1/apply?set=git&prune=1&all_at_once=1", {"objects": []})
    assert [one["action"] for one in done["objects"]] == ["deleted"]


# --- pages ----------------------------------------------------------------------------------------------------


async def pages(admin: Admin, query: str) -> list[list[str]]:
    """The names of a list, page by page."""
    found, after = [], ""
    while True:
        page = await admin.ok("GET", f"/v1/devices?{query}{after}")
        found.append([item["metadata"]["name"] for item in page["items"]])
        if "continue" not in page["metadata"]:
            return found
        after = f"&continue={page['metadata']['continue']}"


async def test_a_list_is_read_in_pages_in_order_of_names(admin: Admin) -> None:
    await admin.apply(schema(), *(device(f"lamp-{n}", labels={"odd": str(n % 2)}) for n in range(7)))

    assert await pages(admin, "limit=3") == [["lamp-0", "lamp-1", "lamp-2"], ["lamp-3", "lamp-4", "lamp-5"], ["lamp-6"]]
    assert await pages(admin, "limit=7") == [[f"lamp-{n}" for n in range(7)]]
    assert await pages(admin, "selector=odd%3D1&limit=2") == [["lamp-1", "lamp-3"], ["lamp-5"]]
    assert await pages(admin, "") == [[f"lamp-{n}" for n in range(7)]]


async def test_pages_of_a_large_fleet_miss_nobody(admin: Admin) -> None:
    names = sorted(f"lamp-{n}" for n in range(230))
    await admin.apply(schema(), *map(device, names))
    found = await pages(admin, "limit=70")

    assert [len(page) for page in found] == [70, 70, 70, 20]
    assert [name for page in found for name in page] == names


async def test_a_page_goes_on_though_its_last_object_was_deleted(admin: Admin) -> None:
    await admin.apply(schema(), *(device(f"lamp-{n}") for n in range(4)))
    after = (await admin.ok("GET", "/v1/devices?limit=2"))["metadata"]["continue"]
    await admin.ok("DELETE", f"/v1/devices/{after}")
    rest = await admin.ok("GET", f"/v1/devices?limit=2&continue={after}")

    assert [item["metadata"]["name"] for item in rest["items"]] == ["lamp-2", "lamp-3"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1e9",
        "limit=1_0",
        "limit=%207",
        "limit=%D9%A1",
        "limit=1001",
        "continue=A",
        "continue=a/b",
    ],
)
async def test_odd_limits_and_places_are_refused_r28(admin: Admin, query: str) -> None:
    answer = await admin.refused("GET", f"/v1/devices?{query}")

    assert (answer.status, answer.code) == (400, "bad_parameter")


async def test_the_daemon_wakes_when_the_next_override_ends(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    await admin.ok("PATCH", "/v1/devices/lamp-1/overrides", {"set": {"color": "green"}, "for_s": 9999})
    seen = (await admin.ok("GET", "/v1/events"))["next"]
    await admin.ok("PATCH", "/v1/devices/lamp-1/overrides", {"set": {"brightness": 3}, "for_s": 1})
    told: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while 4 not in told:
            answer = await admin.ok("GET", f"/v1/events?since={seen}&wait=5")
            told += [event["revision"] for event in answer["events"] if event["type"] == "object.changed"]
            seen = answer["next"]

    assert await admin.ok("GET", "/v1/devices/lamp-1/document") == {"brightness": 80, "color": "green"}


async def test_selected_devices_are_overridden_as_one_revision(admin: Admin) -> None:
    attic = {"room": "attic"}
    await admin.apply(schema(), *[device(f"lamp-{at}", labels=attic if at < 3 else {}) for at in range(5)])
    body = {"selector": "room=attic", "set": {"color": "red"}, "for_s": 60}
    tried = await admin.ok("POST", "/v1/overrides?dry_run=1", body)
    done = await admin.ok("POST", "/v1/overrides?message=party", body)
    [newest] = (await admin.ok("GET", "/v1/revisions?limit=1"))["items"]

    assert (tried["dry_run"], tried["revision"]) == (True, 1)
    assert [one["name"] for one in tried["devices"]] == [one["name"] for one in done["devices"]]
    assert [one["name"] for one in done["devices"]] == ["lamp-0", "lamp-1", "lamp-2"]
    assert (newest["revision"], newest["message"], len(newest["changes"])) == (2, "party", 3)


async def test_overriding_many_devices_is_under_the_rule_for_wide_changes(daemon: Service, admin: Admin) -> None:
    names = [f"lamp-{at}" for at in range(8)]
    await admin.apply(schema(), *[device(name) for name in names])
    for name in names:
        async with connected(daemon, await daemon.join(admin, name)) as link:
            await link.apply_next()
    body = {"selector": "", "set": {"color": "red"}, "for_s": 60}
    refused = await admin.refused("POST", "/v1/overrides", body)
    done = await admin.ok("POST", "/v1/overrides?all_at_once=1", body)

    assert refused.code == "too_wide"
    assert len(done["devices"]) == 8


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"set": {"color": "red"}, "for_s": 60}, "bad_object"),
        ({"selector": "a=b=c", "set": {"color": "red"}, "for_s": 60}, "bad_selector"),
        ({"selector": "room=attic", "set": {"color": "red"}}, "bad_object"),
        ({"selector": "room=cellar", "set": {"color": "red"}, "for_s": 60}, "no_such_device"),
        ({"selector": "room=attic", "set": {"color": "pink"}, "for_s": 60}, "does_not_fit"),
        ({"selector": "room=attic", "set": {"color": "red"}, "for_s": 60, "name": "x"}, "unknown_field"),
    ],
)
async def test_overrides_of_many_that_are_refused_change_nothing(admin: Admin, body: dict[str, Any], code: str) -> None:
    await admin.apply(schema(), device("lamp-1", labels={"room": "attic"}))
    refused = await admin.refused("POST", "/v1/overrides", body)

    assert refused.code == code
    assert (await admin.ok("GET", "/v1/status"))["revision"] == 1
