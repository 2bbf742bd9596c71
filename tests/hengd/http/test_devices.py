"""One device: its exact bytes, why they are so, revoke, rename, retry (S2, V16, V17, V35, V36)."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import pytest

from henge_protocol import pki
from henge_protocol.model import digest_of
from henge_protocol.session import CLOSE_REVOKED
from tests.hengd.http.conftest import Standing
from tests.service import Admin, Clock, Identity, Service, connected, device, enrolment, group, schema


async def test_the_document_is_the_bytes_the_device_gets(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red", wifi={"ssid": "Käfer"}))
    identity = await daemon.join(admin, "lamp-1")
    answer = await admin.call("GET", "/v1/devices/lamp-1/document")
    async with connected(daemon, identity) as lamp:
        sent = await lamp.config()

    assert answer.body == sent.document == '{"brightness":80,"color":"red","wifi":{"ssid":"Käfer"}}'.encode()
    assert answer.headers["ETag"] == f'"{digest_of(answer.body)}"'
    assert answer.headers["Henge-Revision"] == "1"


async def test_the_documents_revision_is_that_of_its_last_change(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    await admin.apply(device("lamp-2"))
    await admin.ok("PATCH", "/v1/devices/lamp-1", {"metadata": {"labels": {"room": "hall"}}})
    answer = await admin.call("GET", "/v1/devices/lamp-1/document")

    assert answer.headers["Henge-Revision"] == "1"


async def test_a_new_time_to_confirm_reaches_devices_whose_document_is_the_same(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        config = await lamp.config()
        await lamp.report(config)
        await admin.ok("PATCH", "/v1/schemas/lamp", {"spec": {"confirm_s": 7}})
    async with connected(daemon, identity) as lamp:
        again = await lamp.config()

    assert (config.confirm_s, again.confirm_s, again.digest) == (120, 7, config.digest)


async def test_a_document_names_the_schema_that_the_device_can_ask_for(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp, daemon.remote(identity) as client:
        config = await lamp.config()
        await lamp.report(config)
        first = await client.call("GET", "/v1/device/schema")
        stored = (await admin.ok("GET", "/v1/schemas/lamp"))["spec"]["schema"]
        await admin.ok("PATCH", "/v1/schemas/lamp", {"spec": {"schema": {"title": "A lamp"}}})
        second = await client.call("GET", "/v1/device/schema")
    async with connected(daemon, identity) as lamp:
        again = await lamp.config()

    assert (json.loads(first.body), first.headers["Henge-Schema"]) == (stored, "lamp")
    assert first.headers["ETag"] == f'"{config.schema}"' == f'"{digest_of(first.body)}"'
    assert json.loads(second.body) == stored | {"title": "A lamp"}
    assert (again.digest, again.schema) == (config.digest, digest_of(second.body))


async def test_a_device_without_schema_is_told_so(daemon: Service, admin: Admin) -> None:
    await admin.apply(device("lamp-1", bound=""))
    identity = await daemon.join(admin, "lamp-1")
    async with daemon.remote(identity) as client:
        refused = await client.refused("GET", "/v1/device/schema")

    assert (refused.status, refused.code) == (404, "no_document")


async def test_a_reboot_that_is_required_is_a_condition_until_the_device_says_otherwise(
    daemon: Service, admin: Admin
) -> None:
    async def condition() -> tuple[str, str]:
        status = (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]
        [found] = [one for one in status["conditions"] if one["type"] == "RebootRequired"]
        assert status["config"] == "in-sync"
        return found["status"], found["reason"]

    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        config = await lamp.config()
        await lamp.report(config, "applied", reason="reboot-required")
        before = await condition()
        await lamp.report(config)
        after = await condition()

    assert (before, after) == (("True", "reboot-required"), ("False", "none"))


async def test_a_reboot_stays_required_when_a_later_document_is_taken_back(daemon: Service, admin: Admin) -> None:
    def rebooting(one: Any) -> str:
        return next(each["status"] for each in one["status"]["conditions"] if each["type"] == "RebootRequired")

    await admin.apply(schema())
    async with connected(daemon, await daemon.join(admin, "lamp-1", schema="lamp")) as lamp:
        running = await lamp.config()
        await lamp.report(running, "applied", reason="reboot-required")
        await admin.set("lamp-1", color="red")
        undone = await lamp.config()
        await lamp.report(undone, "applying")
        applying = rebooting(await admin.ok("GET", "/v1/devices/lamp-1"))
        await lamp.report(undone, "rolled-back", reason="health-failed")
        refused = await admin.ok("GET", "/v1/devices/lamp-1")
        await lamp.report(running)  # the machine was started again
        after = await admin.ok("GET", "/v1/devices/lamp-1")

    assert (applying, rebooting(refused), rebooting(after)) == ("True", "True", "False")
    assert refused["status"]["config"] == after["status"]["config"] == "quarantined"


async def test_a_device_without_schema_has_no_document(daemon: Service, admin: Admin) -> None:
    await admin.apply(device("lamp-1", bound=""))
    document = await admin.refused("GET", "/v1/devices/lamp-1/document")
    why = await admin.ok("GET", "/v1/devices/lamp-1/why")

    assert (document.status, document.code) == (404, "no_document")
    assert why == {"device": "lamp-1", "fields": []}


async def test_why_names_every_layer_and_who_wrote_it(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", labels={"room": "hall"}))
    await admin.apply(group("hall", "room=hall", color="blue"))
    await admin.set("lamp-1", color="red")
    found = (await admin.ok("GET", "/v1/devices/lamp-1/why?field=color"))["fields"]

    assert [one["field"] for one in found] == ["color"]
    assert (found[0]["value"], found[0]["pointer"]) == ("red", "/color")
    assert [(one["layer"], one["name"], one["value"], one["revision"], one["wins"]) for one in found[0]["layers"]] == [
        ("device", "lamp-1", "red", 3, True),
        ("group", "hall", "blue", 2, False),
        ("schema", "lamp", "green", 1, False),
    ]
    assert all(one["author"] and one["time"] for one in found[0]["layers"])


async def test_why_tells_what_a_layer_takes_away(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    hiding = {**device("lamp-1"), "spec": {"schema": "lamp", "values": {"color": None, "wifi": {}}}}
    await admin.ok("PUT", "/v1/devices/lamp-1", hiding, headers={"If-Match": "*"})
    every = (await admin.ok("GET", "/v1/devices/lamp-1/why"))["fields"]
    color = (await admin.ok("GET", "/v1/devices/lamp-1/why?field=color"))["fields"][0]

    assert {one["field"] for one in every} == {"brightness", "wifi"}
    assert (color["present"], color["layers"][0]["removes"]) == (False, True)
    assert "value" not in color


async def test_why_of_an_object_shows_it_as_the_device_gets_it(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), group("all", priority=0, wifi={"ssid": "home"}), device("lamp-1", wifi={"channel": 3}))
    whole, *fields = (await admin.ok("GET", "/v1/devices/lamp-1/why?field=wifi"))["fields"]

    assert whole["value"] == {"channel": 3, "ssid": "home"}
    assert [(one["field"], one["layers"][0]["name"]) for one in fields] == [
        ("wifi.channel", "lamp-1"),
        ("wifi.ssid", "all"),
    ]
    assert [one["wins"] for one in whole["layers"]] == [True, True]


@pytest.mark.parametrize(
    ("field", "status"),
    [
        pytest.param("a..b", 422, id="V16-empty-key"),
        pytest.param("a[", 422, id="V16-bracket"),
        pytest.param("a[-1]", 422, id="V16-index"),
        pytest.param(" ", 422, id="V16-space"),
        pytest.param("/a~2", 422, id="V17-escape"),
        pytest.param("/", 422, id="V17-empty"),
        pytest.param(".".join("a" * 40), 422, id="V12-deep"),
        pytest.param("nothing", 404, id="no-such-field"),
        pytest.param("color.deeper", 404, id="below-a-text"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_why_of_a_path_that_is_none(standing: Standing, field: str, status: int) -> None:
    answer = await standing.admin.call("GET", "/v1/devices/lamp-1/why", params={"field": field})

    assert (answer.status, answer.code) == (status, "bad_path"), answer.body


# ---- identity -----------------------------------------------------------------------------------------


async def test_a_revoked_device_is_cut_off_before_the_answer_s2(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp, daemon.remote(identity) as other:
        await lamp.config()
        answer = await admin.ok("POST", "/v1/devices/lamp-1/revoke")
        await lamp.gone()
        refused = await other.refused("GET", "/v1/device/config?have=")

    assert answer["status"]["identity"] == "revoked"
    assert (refused.status, refused.code) == (403, "certificate_revoked")
    await daemon.restart()
    async with daemon.remote(identity) as again:
        assert (await again.refused("GET", "/v1/device/config")).code == "certificate_revoked"


async def test_a_deleted_device_is_cut_off(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.config()
        await admin.ok("DELETE", "/v1/devices/lamp-1")
        await lamp.gone()
    async with daemon.remote(identity) as again:
        assert (await again.refused("GET", "/v1/device/config")).code == "certificate_revoked"


async def test_a_device_deleted_and_made_again_is_another_one(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    old = await daemon.join(admin, "lamp-1")
    async with connected(daemon, old) as lamp:
        await lamp.apply_next()
    before = await admin.ok("GET", "/v1/devices/lamp-1")
    await admin.ok("DELETE", "/v1/devices/lamp-1")
    await admin.apply(device("lamp-1", color="blue"))
    after = await admin.ok("GET", "/v1/devices/lamp-1")
    new = await daemon.join(admin, "lamp-1")

    assert after["metadata"]["id"] != before["metadata"]["id"]
    assert (after["status"]["identity"], after["status"]["connection"]) == ("none", "never-seen")
    assert after["status"]["reported"] is None
    async with connected(daemon, new) as lamp:
        assert (await lamp.apply_next())["color"] == "blue"


@pytest.mark.parametrize("action", ["revoke", "retry"])
async def test_nothing_is_done_to_a_device_that_is_not_there_v35(daemon: Service, admin: Admin, action: str) -> None:
    answer = await admin.refused("POST", f"/v1/devices/lamp-1/{action}")

    assert (answer.status, answer.code) == (404, "no_such_device")


async def test_revoking_a_second_time_is_no_news_to_the_audit(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    await daemon.join(admin, "lamp-1")
    for _ in range(2):
        answer = await admin.ok("POST", "/v1/devices/lamp-1/revoke")
        assert answer["status"]["identity"] == "revoked"

    told = [one["what"] for one in (await admin.ok("GET", "/v1/audit"))["items"]]
    assert told.count("identity.revoked") == 1


async def test_a_device_that_never_joined_has_nothing_to_revoke(daemon: Service, admin: Admin) -> None:
    await admin.apply(device("lamp-1", bound=""))
    answer = await admin.refused("POST", "/v1/devices/lamp-1/revoke")

    assert (answer.status, answer.code) == (404, "not_joined")


async def test_when_a_device_was_there_last_survives_a_stop(daemon: Service, admin: Admin, clock: Clock) -> None:
    await admin.apply(schema(), device("lamp-1"), device("lamp-2"), device("lamp-3"))
    first, second = await daemon.join(admin, "lamp-1"), await daemon.join(admin, "lamp-2")
    async with connected(daemon, first) as one:
        await one.apply_next()
        async with connected(daemon, second) as two:
            await two.apply_next()
            clock.jump(1800)
        left = await admin.until("lamp-2", connection="offline")
        clock.jump(1800)
        there = clock.wall()
        await daemon.restart()
    async with daemon.admin() as again:
        seen = {
            name: (await again.ok("GET", f"/v1/devices/{name}"))["status"] for name in ("lamp-1", "lamp-2", "lamp-3")
        }

    assert (seen["lamp-2"]["since"], seen["lamp-2"]["seen"]) == (left["since"], left["since"])
    assert datetime.fromisoformat(seen["lamp-1"]["since"]).timestamp() >= int(there)
    assert (seen["lamp-3"]["since"], seen["lamp-3"]["seen"]) == ("", "")


async def test_a_stale_rename_is_refused(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    version = (await admin.call("GET", "/v1/devices/lamp-1")).headers["ETag"]
    await admin.set("lamp-1", color="blue")
    path, body = "/v1/devices/lamp-1/rename", {"to": "lamp-3"}
    stale = await admin.refused("POST", path, body, headers={"If-Match": version})
    renamed = await admin.call("POST", path, body, headers={"If-Match": stale.json["etag"]})

    assert (stale.status, stale.code) == (412, "stale")
    assert renamed.json["metadata"]["name"] == "lamp-3"


@pytest.mark.parametrize("verb", ["retry", "revoke", "replace"])
async def test_a_version_that_would_not_be_heeded_is_refused(daemon: Service, admin: Admin, verb: str) -> None:
    answer = await admin.refused("POST", f"/v1/devices/lamp-1/{verb}", headers={"If-Match": "*"})

    assert (answer.status, answer.code) == (400, "bad_parameter")


async def test_a_renamed_device_stays_itself(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
        renamed = await admin.ok("POST", "/v1/devices/lamp-1/rename?message=moved", {"to": "lamp-2"})
        await admin.set("lamp-2", color="blue")
        assert (await lamp.apply_next())["color"] == "blue"
        await admin.until("lamp-2", config="in-sync", connection="online")
    missing = await admin.refused("GET", "/v1/devices/lamp-1")

    assert renamed["metadata"]["id"] == identity.id
    assert missing.status == 404
    history = await admin.ok("GET", "/v1/revisions?object=device/lamp-2")
    assert [one["message"] for one in history["items"]] == ["", "moved", ""]
    assert (await daemon.app.authority.used(daemon.app.authority.identify(identity.certificate))) is None


@pytest.mark.parametrize(
    ("to", "status", "code"),
    [
        pytest.param("lamp-2", 409, "name_taken", id="taken"),
        pytest.param("Lamp", 422, "bad_name", id="bad-name"),
        pytest.param("", 422, "bad_name", id="empty"),
        pytest.param(7, 422, "bad_object", id="number"),
        pytest.param(None, 422, "bad_object", id="null"),
    ],
)
async def test_a_bad_new_name_is_refused(daemon: Service, admin: Admin, to: Any, status: int, code: str) -> None:
    await admin.apply(device("lamp-1", bound=""), device("lamp-2", bound=""))
    answer = await admin.refused("POST", "/v1/devices/lamp-1/rename", {"to": to})

    assert (answer.status, answer.code) == (status, code)


async def test_renaming_to_the_same_name_is_no_revision(daemon: Service, admin: Admin) -> None:
    made = await admin.apply(device("lamp-1", bound=""))
    await admin.ok("POST", "/v1/devices/lamp-1/rename", {"to": "lamp-1"})

    assert (await admin.ok("GET", "/v1/status"))["revision"] == made["revision"]


async def test_a_refused_document_is_offered_again_when_a_person_says_so(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        config = await lamp.config()
        await lamp.report(config, "rejected", reason="invalid")
        await admin.until("lamp-1", config="quarantined")
        await admin.ok("POST", "/v1/devices/lamp-1/retry")
        again = await lamp.config()
        await lamp.report(again)
        await admin.until("lamp-1", config="in-sync")

    assert again.digest == config.digest


async def test_a_set_for_an_offline_device_is_kept_v36(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
        await admin.until("lamp-1", config="in-sync")
    await admin.set("lamp-1", color="red")

    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["config"] == "pending"


async def test_a_device_sees_only_its_own_configuration_r26(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"), device("lamp-2", color="blue"))
    one = await daemon.join(admin, "lamp-1")
    async with daemon.remote(one) as lamp:
        frame = await lamp.call("GET", "/v1/device/config?have=")
        refused = await lamp.refused("GET", "/v1/devices/lamp-2/document")

    assert json.loads(frame.body.partition(b"\n")[2])["color"] == "red"
    assert (refused.status, refused.code) == (403, "wrong_role")


async def test_a_device_says_how_much_it_can_hold_v15(daemon: Service, admin: Admin) -> None:
    text = {"type": "object", "properties": {"x": {"type": "string"}}}
    await admin.apply(schema("any", **text), device("lamp-1", bound="any"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity, max_document=4096) as lamp:
        await lamp.apply_next()
        await admin.until("lamp-1", config="in-sync")
        fits = await admin.call("PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"x": "y" * 4000}}})
        refused = await admin.refused("PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"x": "y" * 4100}}})

    assert fits.status == 200
    assert (refused.status, refused.code) == (413, "document_too_large")
    assert refused.json["devices"] == ["lamp-1"]


async def test_a_revoked_device_has_no_say_in_what_others_can_get(daemon: Service, admin: Admin) -> None:
    text = {"type": "object", "properties": {"x": {"type": "string"}}}
    await admin.apply(schema("any", **text), device("lamp-1", bound="any"), device("lamp-2", bound="any"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity, max_document=1) as lamp:
        await lamp.apply_next()
        await admin.until("lamp-1", config="in-sync")
    refused = await admin.refused("POST", "/v1/apply", {"objects": [group("all", priority=0, x="y" * 4000)]})
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    await admin.apply(group("all", priority=0, x="y" * 4000))

    assert (refused.code, refused.json["devices"]) == ("document_too_large", ["lamp-1"])
    assert len((await admin.call("GET", "/v1/devices/lamp-2/document")).body) > 4000


# --- replace ------------------------------------------------------------------------------------------------


async def test_new_hardware_takes_the_place_of_a_device(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", labels={"room": "hall"}, color="red"))
    old = await daemon.join(admin, "lamp-1")
    async with connected(daemon, old) as link:
        await link.report(await link.config(), "rejected", reason="hook-failed")
        before = await admin.until("lamp-1", config="quarantined")
        made = await admin.ok("POST", "/v1/devices/lamp-1/replace")
        closed = await link.gone()
    key = pki.generate_key()
    async with daemon.remote() as stranger:
        answer = await stranger.ok("POST", "/v1/enrol", enrolment(made["token"], key, "lamp-1"))
    new = Identity("lamp-1", answer["device_id"], base64.b64decode(answer["certificate"]), key)
    fresh = await admin.ok("GET", "/v1/devices/lamp-1")
    async with connected(daemon, new) as link:
        document = await link.apply_next()

    assert closed == CLOSE_REVOKED
    assert (made["name"], made["uses"]) == ("lamp-1", 1)
    assert new.id == old.id == before["id"]
    assert (fresh["status"]["config"], fresh["status"]["reported"], fresh["status"]["identity"]) == (
        "unknown",
        None,
        "active",
    )
    assert fresh["metadata"]["labels"] == {"room": "hall"}
    assert document["color"] == "red"


async def test_the_token_of_a_replacement_is_for_that_name_only(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    made = await admin.ok("POST", "/v1/devices/lamp-1/replace", {"ttl_s": 60})
    async with daemon.remote() as stranger:
        refused = await stranger.refused("POST", "/v1/enrol", enrolment(made["token"], pki.generate_key(), "lamp-2"))

    assert refused.code == "token_name"


@pytest.mark.parametrize("ttl_s", [0, "1h", 10**9])
async def test_a_replacement_that_is_refused_leaves_the_old_device_working(
    daemon: Service, admin: Admin, ttl_s: object
) -> None:
    await admin.apply(schema(), device("lamp-1"))
    await daemon.join(admin, "lamp-1")
    refused = await admin.refused("POST", "/v1/devices/lamp-1/replace", {"ttl_s": ttl_s})

    assert refused.code == "bad_parameter"
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "active"
