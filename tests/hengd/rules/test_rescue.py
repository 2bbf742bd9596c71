"""The rescue window: who may hand in what, what is kept of it, and what none of it opens."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from hengd.rules import rescue
from henge_protocol import pki
from tests.hengd.rescuekit import certified, hand_in, handing, open_window, rescued, waiting
from tests.service import LAMP, Admin, Clock, Identity, Service

RUNS = {"color": "red", "brightness": 7}


async def refusal(service: Service, identity: Identity) -> dict[str, Any]:
    """What everything else answers the device."""
    async with service.remote(identity) as device:
        answer = await device.refused("GET", "/v1/device/config")
    assert (answer.status, answer.code) == (403, "unknown_certificate")
    return dict(answer.json)


async def test_a_refusal_says_that_a_device_is_wanted_only_while_the_window_is_open(
    daemon: Service, admin: Admin
) -> None:
    lamp = certified(daemon, "lamp-1")
    closed = await refusal(daemon, lamp)
    answer = await hand_in(daemon, lamp, handing("lamp-1", RUNS))
    assert "rescue" not in closed
    assert (answer.status, answer.code) == (403, "rescue_closed")

    await open_window(admin)

    assert (await refusal(daemon, lamp))["rescue"] == (await admin.ok("GET", "/v1/status"))["epoch"]
    assert (await hand_in(daemon, lamp, handing("lamp-1", RUNS))).status == 202
    await admin.ok("PUT", "/v1/rescue-window", {"open_s": 0})
    assert "rescue" not in await refusal(daemon, lamp)
    assert (await hand_in(daemon, lamp, handing("lamp-1", RUNS))).code == "rescue_closed"
    assert [one["name"] for one in await waiting(admin)] == ["lamp-1"]


async def test_a_websocket_is_refused_with_the_same_hint(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    lamp = certified(daemon, "lamp-1")
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    }  # fmt: skip
    async with daemon.remote(lamp) as device:
        answer = await device.call("GET", "/v1/device/stream", headers=upgrade)

    assert (answer.status, answer.code) == (403, "unknown_certificate")
    assert answer.json["rescue"] == (await admin.ok("GET", "/v1/status"))["epoch"]


async def test_who_is_wanted_raises_no_alarm(daemon: Service, admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    lamp = certified(daemon, "lamp-1")
    await refusal(daemon, lamp)
    assert "not on the list was refused" in caplog.text
    caplog.clear()
    await open_window(admin)

    await refusal(daemon, lamp)
    assert "not on the list was refused" not in caplog.text


async def test_handing_in_opens_nothing(daemon: Service, admin: Admin) -> None:
    """A stolen key of the authority can fill the list of requests, and that is all."""
    await open_window(admin)
    before = await admin.ok("GET", "/v1/status")
    thief = await rescued(daemon, "lamp-1", RUNS, schema=LAMP)

    async with daemon.remote(thief) as device:
        for method, path in [
            ("GET", "/v1/device/config"), ("GET", "/v1/device/schema"), ("GET", "/v1/devices"), ("GET", "/v1/rescues"),
            ("POST", "/v1/device/report"), ("POST", "/v1/renew"), ("POST", "/v1/rescues/take"),
        ]:  # fmt: skip
            assert (await device.refused(method, path)).code == "unknown_certificate"
    after = await admin.ok("GET", "/v1/status")
    assert [after[name] for name in ("revision", "devices", "schemas")] == [
        before[name] for name in ("revision", "devices", "schemas")
    ]


async def test_the_list_shows_who_handed_in_from_where_and_when(daemon: Service, admin: Admin, clock: Clock) -> None:
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RUNS, schema=LAMP, facts={"schema": "lamp", "host": "a\u202eb\n"})

    (one,) = await waiting(admin)
    assert (one["name"], one["id"], one["address"], one["newest"]) == ("lamp-1", lamp.id, "127.0.0.1", True)
    assert (one["client"], one["facts"]) == ("henge-agent/1", {"schema": "lamp", "host": "ab"})
    assert one["handed_in"].startswith("20")
    assert one["certificate_expires"] > one["handed_in"]


async def test_of_each_certificate_the_newest_word_counts(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RUNS)
    body = handing("lamp-1", {"color": "blue"})
    assert (await hand_in(daemon, lamp, body)).status == 202

    (one,) = await waiting(admin)
    assert one["digest"] == body["digest"]


async def test_of_two_certificates_of_one_device_the_newer_counts_and_the_other_is_listed(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await open_window(admin)
    new = await rescued(daemon, "lamp-1", RUNS)
    old = certified(daemon, "lamp-1", device_id=new.id, at=clock.wall() - 10 * pki.DAY_S)
    assert (await hand_in(daemon, old, handing("lamp-1", {"color": "blue"}))).status == 202

    first, second = await waiting(admin)
    assert (first["newest"], first["digest"]) == (True, handing("lamp-1", RUNS)["digest"])
    assert (second["newest"], second["id"]) == (False, new.id)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"[1]", "bad_object"),
        (b"{", "bad_json"),
        (b'{"a": NaN}', "number_out_of_range"),
        (b'{"a": 1e999}', "number_out_of_range"),
        (b'{"a": 9007199254740993}', "number_out_of_range"),
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": "\xff"}', "bad_encoding"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "too_deep"),
        (b'{"a":[' + b"0," * 6000 + b"0]}", None),
        (b'{"a":"' + b"x" * 16384 + b'"}', "too_large"),
        (b'{"a":"' + b"x" * 40000 + b'"}', "bad_object"),
        (b'{"wifi": {"psk": {"$secret": "wifi/home"}}}', "bad_object"),
        (b"", "body_required"),
    ],
)
async def test_hostile_documents_are_refused_and_nothing_is_kept(
    daemon: Service, admin: Admin, document: bytes, code: str | None
) -> None:
    await open_window(admin)
    answer = await hand_in(daemon, certified(daemon, "lamp-1"), handing("lamp-1", document))

    assert (answer.status == 202) == (code is None)
    assert code is None or answer.code == code
    assert len(await waiting(admin)) == (code is None)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"digest": "0" * 64}, "bad_object"),
        ({"digest": "x"}, "bad_object"),
        ({"document": "***"}, "bad_object"),
        ({"schema": base64.b64encode(b"[]").decode()}, "bad_object"),
        ({"schema": base64.b64encode(b'{"a":' * 40 + b"1" + b"}" * 40).decode()}, "too_deep"),
        ({"schema": base64.b64encode(b'{"a":"' + b"x" * 65536 + b'"}').decode()}, "too_large"),
        ({"schema": base64.b64encode(b"x" * 65537).decode()}, "too_large"),
        ({"schema": "A" * 125_000}, "bad_object"),
        ({"schema": "A" * 140_000}, "too_large"),
        ({"name": "../lamp"}, "bad_name"),
        ({"name": "Lamp"}, "bad_name"),
        ({"revision": -1}, "bad_object"),
        ({"revision": 2**53}, "number_out_of_range"),
        ({"revision": True}, "bad_object"),
        ({"epoch": "A"}, "bad_object"),
        ({"facts": {"a": "x" * 200}}, "bad_object"),
        ({"id": "0" * 26}, "unknown_field"),
    ],
)
async def test_what_a_device_says_of_itself_has_limits(daemon: Service, admin: Admin, wrong: Any, code: str) -> None:
    await open_window(admin)
    answer = await hand_in(daemon, certified(daemon, "lamp-1"), handing("lamp-1", RUNS) | wrong)

    assert (answer.code, await waiting(admin)) == (code, [])


async def test_who_is_no_device_of_this_fleet_hands_in_nothing(daemon: Service, admin: Admin, clock: Clock) -> None:
    await open_window(admin)
    known = await daemon.join(admin, "known")
    long_ago = clock.wall() - 300 * pki.DAY_S
    for identity, code in [
        (None, "certificate_required"),
        (known, "exists"),
        (certified(daemon, "ada", role="admin"), "unknown_certificate"),
        (certified(daemon, "lamp-1", fleet="0" * 26), "unknown_certificate"),
        (certified(daemon, "known", device_id=known.id), "unknown_certificate"),
        (certified(daemon, "lamp-1", at=long_ago, lifetime_s=pki.DAY_S), "unknown_certificate"),
    ]:
        answer = await hand_in(daemon, identity, handing("lamp-1", RUNS))
        assert (answer.code, "rescue" in answer.json) == (code, False)
    assert await waiting(admin) == []


async def test_a_certificate_that_has_ended_lately_is_good_for_handing_in(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await open_window(admin)
    sleeper = certified(daemon, "lamp-1", at=clock.wall() - 170 * pki.DAY_S, lifetime_s=pki.DAY_S)

    assert (await hand_in(daemon, sleeper, handing("lamp-1", RUNS))).status == 202


async def test_who_was_revoked_by_a_journal_that_is_left_stays_out(daemon: Service, admin: Admin, clock: Clock) -> None:
    lost, kept = certified(daemon, "lamp-1"), certified(daemon, "lamp-2")
    await daemon.stop()
    journal = daemon.data_dir / "data" / "revocations"
    journal.write_text(f"{clock.wall() + 1} device {lost.id}\n{clock.wall() - 999} device {kept.id}\n")
    await daemon.start()
    async with daemon.admin() as there:
        await open_window(there)
        assert "rescue" not in await refusal(daemon, lost)
        assert (await hand_in(daemon, lost, handing("lamp-1", RUNS))).code == "unknown_certificate"
        assert (await hand_in(daemon, kept, handing("lamp-2", RUNS))).status == 202


async def test_a_restart_neither_forgets_requests_nor_shuts_the_window(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    window = await open_window(admin, 3600)
    await rescued(daemon, "lamp-1", RUNS)
    clock.jump(-7 * pki.DAY_S)  # setting the clock does not keep it open longer
    await daemon.restart()
    async with daemon.admin() as there:
        assert [one["name"] for one in await waiting(there)] == ["lamp-1"]
        assert (await there.ok("GET", "/v1/rescue-window"))["open"]
        clock.advance(3601)
        assert await there.ok("GET", "/v1/rescue-window") == {"open": False, "closes": "", "waiting": 1}
    assert window["waiting"] == 0


async def test_an_open_window_is_told_in_the_status_and_the_audit(daemon: Service, admin: Admin) -> None:
    calm = await admin.ok("GET", "/v1/status")
    await open_window(admin)
    status = await admin.ok("GET", "/v1/status")
    await admin.ok("PUT", "/v1/rescue-window", {"open_s": 0})
    await admin.ok("PUT", "/v1/rescue-window", {"open_s": 0})  # closes nothing

    assert calm["rescue"] == {"open": False, "closes": "", "waiting": 0}
    assert (status["rescue"]["open"], any("rescue window" in warning for warning in status["warnings"])) == (True, True)
    assert (await admin.ok("GET", "/v1/status"))["warnings"] == calm["warnings"]
    audit = (await admin.ok("GET", "/v1/audit"))["items"]
    assert [one["what"] for one in audit if "rescue" in one["what"]] == [
        "rescue-window.opened", "rescue-window.closed",
    ]  # fmt: skip


async def test_closing_can_forget_what_was_handed_in(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RUNS, schema=LAMP)

    assert (await open_window(admin, 0, forget=True))["waiting"] == 0
    assert await waiting(admin) == []


@pytest.mark.parametrize("open_s", [-1, 30 * 86400 + 1, "1h", True, 1.5, None])
async def test_times_that_are_none_open_nothing(daemon: Service, admin: Admin, open_s: Any) -> None:
    await admin.refused("PUT", "/v1/rescue-window", {"open_s": open_s})

    assert not (await admin.ok("GET", "/v1/rescue-window"))["open"]


async def test_no_more_requests_and_schemas_are_kept_than_the_limits_say(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "MAX_REQUESTS", 2)
    monkeypatch.setattr(rescue, "MAX_SCHEMAS", 1)
    await open_window(admin)
    first = await rescued(daemon, "lamp-1", RUNS, schema=LAMP)
    await rescued(daemon, "lamp-2", RUNS, schema={"title": "another"})
    third = await hand_in(daemon, certified(daemon, "lamp-3"), handing("lamp-3", RUNS))

    assert (third.status, third.code, third.headers["Retry-After"]) == (429, "rescue_full", "3600")
    assert (await hand_in(daemon, first, handing("lamp-1", {"color": "blue"}))).status == 202
    assert [bool(one["schema"]) for one in await waiting(admin)] == [False, False]


async def test_one_address_hands_in_so_much_and_no_more(daemon: Service, admin: Admin, clock: Clock) -> None:
    clock.freeze()
    await open_window(admin)
    lamp, body = certified(daemon, "lamp-1"), handing("lamp-1", RUNS)
    async with daemon.remote(lamp) as device:
        statuses = [(await device.call("POST", "/v1/device/rescue", body)).status for _ in range(rescue.AT_ONCE + 1)]

    assert statuses == [202] * rescue.AT_ONCE + [429]


async def test_nothing_that_was_handed_in_stands_in_the_store_as_it_is(
    daemon: Service, admin: Admin, data_dir: Path
) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", {"wifi": {"psk": "canary-in-the-wifi"}})
    await admin.ok("PUT", "/v1/rescue-window", {"open_s": 0})

    assert "canary-in-the-wifi" not in str(await waiting(admin))
    assert b"canary-in-the-wifi" not in (data_dir / "data" / "db" / "data.mdb").read_bytes()


async def test_a_full_disk_refuses_and_closing_goes_on(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_window(admin)
    monkeypatch.setattr("hengd.room.free_bytes", lambda folder: 0)
    monkeypatch.setattr("hengd.groupcommit.free_bytes", lambda folder: 0)
    answer = await hand_in(daemon, certified(daemon, "lamp-1"), handing("lamp-1", RUNS))

    assert (answer.status, answer.code) == (507, "storage_full")
    assert not (await open_window(admin, 0))["open"]
