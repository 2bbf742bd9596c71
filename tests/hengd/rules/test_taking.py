"""Taking what devices handed in: one revision, the same ids, nothing to deliver, no secret in the open."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from hengd.rules import taking
from henge_protocol import pki
from henge_protocol.model import digest_of
from henge_protocol.strictjson import canonical
from tests.hengd.rescuekit import certified, hand_in, handing, not_taken, open_window, rescued, take, waiting
from tests.service import LAMP, Admin, Clock, Identity, Service, connected, device, enrolment, group, schema

RED = {"brightness": 7, "color": "red"}
PLAIN = {"brightness": 80, "color": "green"}
NODE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "wifi": {
            "type": "object",
            "properties": {"ssid": {"type": "string"}, "psk": {"type": "string", "minLength": 8, "writeOnly": True}},
        },
    },
}


def wifi(psk: str) -> dict[str, Any]:
    """What a device with a secret runs."""
    return {"wifi": {"ssid": "attic", "psk": psk}}


def running(document: Any) -> dict[str, Any]:
    """What a device of another line says that it runs."""
    return {"epoch": "before", "revision": 57, "digest": digest_of(canonical(document)), "state": "applied"}


async def reasons(admin: Admin, *words: str, **more: Any) -> dict[str, str]:
    """Why devices cannot be taken, by name."""
    tried = await take(admin, *words, dry_run=True, **more)
    return {one["name"]: one["code"] for one in tried["refused"]}


async def test_a_device_comes_back_under_its_id_and_nothing_is_delivered(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RED, schema=LAMP, facts={"schema": "lamp"})

    done = await take(admin)

    assert (done["schemas"], done["secrets"], done["refused"], done["left"]) == (["lamp"], [], [], 0)
    (one,) = done["devices"]
    assert (one["values"], one["runs"] == one["document"], one["differs"]) == (RED, True, [])
    found = await admin.ok("GET", "/v1/devices/lamp-1")
    assert (found["metadata"]["id"], found["spec"]) == (lamp.id, {"schema": "lamp", "values": RED})
    async with connected(daemon, lamp, **running(RED)) as link:
        await admin.until("lamp-1", config="in-sync", connection="online")
        assert link.documents == []
        await admin.set("lamp-1", color="blue")
        assert (await link.apply_next())["color"] == "blue"
    assert await waiting(admin) == []


async def test_everything_is_one_revision_with_its_place_in_history_and_audit(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    for name in ("lamp-1", "lamp-2", "lamp-3"):
        await rescued(daemon, name, PLAIN, schema=LAMP, facts={"schema": "lamp"})
    before = (await admin.ok("GET", "/v1/status"))["revision"]

    done = await take(admin)

    assert done["revision"] == before + 1
    revision = await admin.ok("GET", f"/v1/revisions/{done['revision']}")
    assert [(one["kind"], one["name"]) for one in revision["changes"]] == [
        ("Schema", "lamp"), *(("Device", f"lamp-{number}") for number in (1, 2, 3)),
    ]  # fmt: skip
    acts = [(one["what"], one["object"]) for one in (await admin.ok("GET", "/v1/audit"))["items"]]
    assert acts[-3:] == [("device.rescued", f"device/lamp-{number}") for number in (1, 2, 3)]


async def test_a_dry_run_tells_the_same_and_keeps_nothing(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP)
    before = await admin.ok("GET", "/v1/status")

    tried = await take(admin, dry_run=True)

    assert (await admin.ok("GET", "/v1/status"))["revision"] == before["revision"]
    assert len(await waiting(admin)) == 1
    done = await take(admin)
    assert tried == done | {"dry_run": True}


async def test_secrets_are_kept_as_secrets_and_those_alike_once(daemon: Service, admin: Admin, data_dir: Path) -> None:
    await open_window(admin)
    alike = [await rescued(daemon, name, wifi("canary-home"), schema=NODE) for name in ("node-1", "node-2")]
    await rescued(daemon, "node-3", wifi("canary-other"), schema=NODE)

    done = await take(admin, schema="node")

    assert done["secrets"] == ["rescued/wifi/psk", "rescued/wifi/psk-2"]
    values = {one["name"]: one["values"] for one in done["devices"]}
    assert values["node-1"] == values["node-2"] == {"wifi": {"ssid": "attic", "psk": {"$secret": "rescued/wifi/psk"}}}
    assert values["node-3"]["wifi"]["psk"] == {"$secret": "rescued/wifi/psk-2"}
    assert all((one["runs"] != one["document"], one["differs"]) == (True, []) for one in done["devices"])
    async with connected(daemon, alike[0], **running(wifi("canary-home"))) as link:
        assert await link.apply_next() == wifi("canary-home")  # the same values, once more
        await admin.until("node-1", config="in-sync")
    history = await admin.call("GET", "/v1/revisions?diff=1")
    assert b"canary" not in history.body + json.dumps(done).encode()
    assert b"canary" not in (data_dir / "data" / "db" / "data.mdb").read_bytes()


async def test_a_secret_of_an_earlier_rescue_is_used_again(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "node-1", wifi("sesame-sesame"), schema=NODE)
    await take(admin, schema="node")
    await rescued(daemon, "node-2", wifi("sesame-sesame"), schema=NODE)
    await rescued(daemon, "node-3", wifi("another-sesame"), schema=NODE)

    done = await take(admin)

    assert done["secrets"] == ["rescued/wifi/psk-2"]
    assert done["devices"][0]["values"]["wifi"]["psk"] == {"$secret": "rescued/wifi/psk"}


async def test_a_name_that_a_secret_of_the_fleet_has_is_not_taken_from_it(daemon: Service, admin: Admin) -> None:
    for number in ("", "-3"):
        await admin.ok("PUT", f"/v1/secrets/rescued/wifi/psk{number}", {"value": f"of-the-fleet{number}"})
    await open_window(admin)
    for number in range(3):
        await rescued(daemon, f"node-{number}", wifi(f"of-a-node-{number}"), schema=NODE)

    done = await take(admin)

    assert done["secrets"] == ["rescued/wifi/psk-2", "rescued/wifi/psk-4", "rescued/wifi/psk-5"]
    assert (await admin.ok("GET", "/v1/secrets/rescued/wifi/psk"))["spec"]["revision"] < done["revision"]


async def test_what_groups_say_already_is_left_out(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), group("all", priority=0, color="red", brightness=1))
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, facts={"schema": "lamp"})

    done = await take(admin)

    assert done["devices"][0]["values"] == {"brightness": 7}
    assert done["devices"][0]["runs"] == done["devices"][0]["document"]


async def test_the_name_of_a_schema_is_found_by_its_content_then_by_the_wish_then_made(
    daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema("lantern"))
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP, facts={"schema": "lamp"})
    await rescued(daemon, "node-1", {}, schema=NODE)
    await rescued(daemon, "node-2", {}, schema={"type": "object"}, facts={"schema": "bare"})
    await rescued(daemon, "node-3", {}, schema={"type": "object"})

    done = await take(admin)

    name = f"rescued-{digest_of(canonical(NODE))[:8]}"
    assert {one["name"]: one["schema"] for one in done["devices"]} == {
        "lamp-1": "lantern", "node-1": name, "node-2": "bare", "node-3": "bare",
    }  # fmt: skip
    assert done["schemas"] == ["bare", name]


async def test_of_several_versions_of_a_schema_the_newest_counts(daemon: Service, admin: Admin) -> None:
    wider = {**LAMP, "properties": {**LAMP["properties"], "note": {"type": "string"}}}  # type: ignore[dict-item]
    await open_window(admin)
    lamp = {"facts": {"schema": "lamp"}}
    await rescued(daemon, "lamp-1", PLAIN, schema=LAMP, **lamp, revision=3)
    await rescued(daemon, "lamp-2", {**PLAIN, "note": "here"}, schema=wider, **lamp, revision=9)

    done = await take(admin)

    assert done["refused"] == []
    assert (await admin.ok("GET", "/v1/schemas/lamp"))["spec"]["schema"] == wider


async def test_another_schema_under_the_same_name_shows_nobody_elses_secrets(
    daemon: Service, admin: Admin, data_dir: Path
) -> None:
    """A device that somebody has taken over says that its schema is the newest, and that nothing in it is secret."""
    shown = {**NODE, "properties": {"wifi": {"type": "object", "properties": {"ssid": {}, "psk": {"type": "string"}}}}}
    await open_window(admin)
    await rescued(daemon, "node-1", wifi("canary-home"), schema=NODE, facts={"schema": "node"})
    await rescued(daemon, "node-2", wifi("its-own"), schema=shown, facts={"schema": "node"}, revision=2**53 - 1)

    refused, tried = await not_taken(admin), await take(admin, dry_run=True)
    assert "node-1: its own schema hides wifi.psk" in refused.json["detail"]
    assert [one["name"] for one in tried["devices"]] == ["node-2"]
    done = await take(admin, "node-1")
    assert done["devices"][0]["values"]["wifi"]["psk"] == {"$secret": "rescued/wifi/psk"}
    assert b"canary" not in refused.body + json.dumps([tried, done]).encode()
    assert b"canary" not in (data_dir / "data" / "db" / "data.mdb").read_bytes()


@pytest.mark.parametrize("facts", [{}, {"schema": "lamp"}, {"schema": "No Name"}])
async def test_a_device_whose_schema_nobody_has_waits_until_somebody_says_which(
    daemon: Service, admin: Admin, facts: dict[str, str]
) -> None:
    await open_window(admin)
    await rescued(daemon, "board-1", RED, facts=facts)
    refused = await not_taken(admin)
    assert (refused.status, refused.code) == (409, "rescue_incomplete")
    assert "board-1" in refused.json["detail"]

    await admin.apply(schema("lantern"))

    assert (await take(admin, "board-1", schema="lantern"))["devices"][0]["schema"] == "lantern"


async def test_those_that_cannot_be_taken_are_named_and_others_go_on_only_if_that_is_said(
    daemon: Service, admin: Admin
) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP, facts={"schema": "lamp"})
    await rescued(daemon, "lamp-2", {"color": "pink"}, schema=LAMP, facts={"schema": "lamp"})
    await rescued(daemon, "node-1", {}, schema={"type": "nothing"}, facts={"schema": "node"})
    await rescued(daemon, "node-2", {}, schema={"$ref": "http://192.0.2.1/x"}, facts={"schema": "far"})
    assert await reasons(admin) == {"lamp-2": "does_not_fit", "node-1": "bad_schema", "node-2": "remote_ref"}

    refused = await not_taken(admin)
    assert refused.code == "rescue_incomplete"
    assert {one["object"] for one in refused.json["errors"]} == {"device/lamp-2", "device/node-1", "device/node-2"}
    assert (await admin.ok("GET", "/v1/status"))["schemas"] == 0

    done = await take(admin, skip=True)
    assert ([one["name"] for one in done["devices"]], done["schemas"], done["left"]) == (["lamp-1"], ["lamp"], 3)
    assert (await not_taken(admin, skip=True)).code == "rescue_incomplete"


async def test_a_secret_of_one_that_is_left_out_is_not_kept(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "node-1", wifi("short"), schema=NODE)
    await rescued(daemon, "node-2", wifi("long-enough"), schema=NODE)

    done = await take(admin, schema="node", skip=True)

    assert [one["name"] for one in done["devices"]] == ["node-2"]
    assert done["secrets"] == ["rescued/wifi/psk-2"]
    assert "short" not in json.dumps(done)


async def test_a_name_that_is_taken_needs_another(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RED, schema=LAMP)
    refused = await not_taken(admin)
    assert "there is another device/lamp-1" in refused.json["detail"]

    done = await take(admin, lamp.id, name="lamp-2")

    assert [one["name"] for one in done["devices"]] == ["lamp-2"]
    async with connected(daemon, lamp, **running(RED)):
        await admin.until("lamp-2", config="in-sync")


async def test_of_two_that_say_the_same_name_none_is_taken_by_it(daemon: Service, admin: Admin) -> None:
    """Who holds a stolen key of the authority can call himself whatever he likes."""
    await open_window(admin)
    real = await rescued(daemon, "lamp-1", RED, schema=LAMP)
    await rescued(daemon, "lamp-1", PLAIN, schema=LAMP)
    for words in ([], ["lamp-1"]):
        assert "2 devices say that they are lamp-1" in (await not_taken(admin, *words, skip=True)).json["detail"]

    done = await take(admin, real.id)

    assert [(one["name"], one["id"]) for one in done["devices"]] == [("lamp-1", real.id)]


async def test_an_id_that_came_back_otherwise_is_not_taken_again(daemon: Service, admin: Admin, clock: Clock) -> None:
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RED, schema=LAMP)
    newer = certified(daemon, "lamp-1", device_id=lamp.id, at=clock.wall() + 60)
    assert (await hand_in(daemon, newer, handing("lamp-1", PLAIN, schema=LAMP))).status == 202

    done = await take(admin)

    assert [(one["runs"], one["certificates"]) for one in done["devices"]] == [(digest_of(canonical(PLAIN)), 2)]
    assert (await waiting(admin), done["left"]) == ([], 0)
    async with daemon.remote(newer) as device_:
        await device_.ok("POST", "/v1/renew", {})
    async with daemon.remote(lamp) as device_:
        refused = await device_.refused("GET", "/v1/device/config")
        assert (refused.code, "rescue" in refused.json) == ("unknown_certificate", False)


async def test_a_key_of_somebody_else_is_not_let_in(daemon: Service, admin: Admin) -> None:
    known = await daemon.join(admin, "known")
    await open_window(admin)
    forged = certified(daemon, "lamp-1", key=known.key)
    assert (await hand_in(daemon, forged, handing("lamp-1", RED, schema=LAMP))).status == 202

    assert "its public key belongs to another identity" in (await not_taken(admin)).json["detail"]


async def test_what_was_looked_at_is_what_is_taken(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RED, schema=LAMP)
    (seen,) = (await take(admin, dry_run=True))["devices"]
    await hand_in(daemon, lamp, handing("lamp-1", PLAIN, schema=LAMP))

    wanted = {"devices": [{"device": seen["id"], "digest": seen["runs"]}]}
    refused = await admin.refused("POST", "/v1/rescues/take", wanted)

    assert refused.code == "rescue_incomplete"
    assert "something else meanwhile" in refused.json["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"devices": [{"device": "nobody"}]}, "no_such_rescue"),
        ({"devices": []}, "bad_object"),
        ({"devices": ["lamp-1"]}, "bad_object"),
        ({"devices": [{"device": 1}]}, "bad_object"),
        ({"devices": {}}, "bad_object"),
        ({"skip": 1}, "bad_object"),
        ({"schema": "No Name"}, "bad_name"),
        ({"name": "No Name"}, "bad_name"),
        ({"name": "lamp-9"}, "bad_parameter"),
        ({"all": True}, "unknown_field"),
    ],
)
async def test_wishes_that_make_no_sense_are_refused(
    daemon: Service, admin: Admin, body: dict[str, Any], code: str
) -> None:
    await open_window(admin)
    for name in ("lamp-1", "lamp-2"):
        await rescued(daemon, name, RED, schema=LAMP)

    assert (await admin.refused("POST", "/v1/rescues/take", body)).code == code
    assert len(await waiting(admin)) == 2


async def test_nothing_handed_in_is_nothing_to_take(admin: Admin) -> None:
    assert (await not_taken(admin)).code == "no_such_rescue"


async def test_so_many_are_taken_at_once_and_the_others_next(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "MAX_TAKEN", 2)
    await open_window(admin)
    for number in range(3):
        await rescued(daemon, f"lamp-{number}", RED, schema=LAMP)

    first, second = await take(admin), await take(admin)

    assert [one["name"] for one in first["devices"] + second["devices"]] == ["lamp-0", "lamp-1", "lamp-2"]
    assert (first["left"], second["left"]) == (1, 0)


async def test_news_of_another_line_that_came_after_it_was_taken_are_held(daemon: Service, admin: Admin) -> None:
    """The old daemon still ran, and gave it something that nobody here has seen."""
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RED, schema=LAMP)
    await take(admin)
    await admin.set("lamp-1", color="blue")
    later = {**running(PLAIN), "revision": 58}
    async with connected(daemon, lamp, **later) as link:
        await admin.until("lamp-1", config="ahead")
        assert link.documents == []


async def test_a_device_that_ended_while_it_waited_and_one_deleted_later_stay_out(
    daemon: Service, admin: Admin
) -> None:
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RED, schema=LAMP)
    await take(admin)
    await admin.ok("DELETE", "/v1/devices/lamp-1")

    answer = await hand_in(daemon, lamp, handing("lamp-1", RED, schema=LAMP))

    assert (answer.code, await waiting(admin)) == ("certificate_revoked", [])


async def test_while_the_secrets_are_locked_nothing_is_handed_in_or_taken(
    daemon: Service, admin: Admin, data_dir: Path
) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP)
    key = data_dir / "keys" / "secrets.key"
    kept = key.read_bytes()
    await daemon.stop()
    key.unlink()
    await daemon.start()
    async with daemon.admin() as there:
        assert (await hand_in(daemon, certified(daemon, "lamp-2"), handing("lamp-2", RED))).code == "secrets_locked"
        assert "secrets are locked" in (await not_taken(there)).json["detail"]
        key.write_bytes(kept)
        key.chmod(0o600)
        assert len((await take(there))["devices"]) == 1


async def test_only_admins_take(daemon: Service, admin: Admin, clock: Clock) -> None:
    made = await admin.ok("POST", "/v1/tokens", {"kind": "admin", "name": "eve", "role": "editor"})
    key = pki.generate_key()
    async with daemon.remote() as stranger:
        answer = await stranger.ok("POST", "/v1/login", enrolment(made["token"], key, "eve"))
    editor = Identity("eve", "eve", base64.b64decode(answer["certificate"]), key)
    async with daemon.remote(editor) as remote:
        for method, path, body in [
            ("PUT", "/v1/rescue-window", {"open_s": 60}), ("POST", "/v1/rescues/take", {}),
        ]:  # fmt: skip
            assert (await remote.refused(method, path, body)).code == "wrong_role"
        assert (await remote.ok("GET", "/v1/rescues"))["total"] == 0


async def test_a_device_of_the_old_client_authority_is_not_left_behind_by_whatever_step_comes_next(
    daemon: Service, admin: Admin
) -> None:
    """What signed its certificate is known when it is taken, not guessed at the next step of a rotation."""
    lamp = certified(daemon, "lamp-1")
    await admin.ok("POST", "/v1/authorities/client/begin", {})
    await open_window(admin)
    assert (await hand_in(daemon, lamp, handing("lamp-1", RED, schema=LAMP))).status == 202
    await take(admin)
    await admin.ok("POST", "/v1/authorities/server/begin", {})

    refused = await admin.refused("POST", "/v1/authorities/client/finish", {})
    assert (refused.code, [one["object"] for one in refused.json["errors"]]) == ("left_behind", ["device/lamp-1"])
