"""The daemon about itself: health, figures, warnings."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from hengd.rules import devices
from henge_protocol import pki
from tests.service import Admin, Clock, Service, connected, device, group, schema


async def test_the_status_counts_what_there_is(daemon: Service, admin: Admin) -> None:
    await admin.apply(
        schema(), group("hall", "room=hall"), device("lamp-1"), device("lamp-2"), device("bare", bound="")
    )
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
        await admin.until("lamp-1", config="in-sync")
        status = await admin.ok("GET", "/v1/status")

    assert (status["schemas"], status["groups"], status["devices"]["total"]) == (1, 2, 3)
    assert status["devices"]["connection"] == {"online": 1, "never-seen": 2}
    assert status["devices"]["config"] == {"in-sync": 1, "unknown": 2}
    assert (status["revision"], status["fleet"]) == (1, daemon.app.authority.fleet)
    assert status["listeners"]["devices"] == [daemon.url]
    assert status["warnings"] == []
    assert status["store"]["used_bytes"] > 0


async def test_a_large_fleet_is_counted_in_pieces_between_which_others_have_their_turn(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "PIECE", 2)
    await admin.apply(schema(), *[device(f"lamp-{number}") for number in range(10)])
    counting = asyncio.create_task(daemon.app.devices.counts())
    turns = 0
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 5
    assert (await counting)["connection"] == {"never-seen": 10}


async def test_deleted_devices_are_not_counted(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"), device("lamp-2"))
    await admin.ok("DELETE", "/v1/devices/lamp-1")
    some = (await admin.ok("GET", "/v1/status"))["devices"]
    await admin.ok("DELETE", "/v1/devices/lamp-2")

    assert (some["total"], some["connection"]) == (1, {"never-seen": 1})
    assert (await admin.ok("GET", "/v1/status"))["devices"] == {
        "total": 0, "identity": {}, "connection": {}, "config": {},
    }  # fmt: skip


async def test_the_status_warns_of_an_override_that_cannot_end(daemon: Service, admin: Admin, clock: Clock) -> None:
    texts = {"type": "object", "properties": {"text": {"type": "string"}}}
    await admin.apply(schema(**texts), device("lamp-1", text="x" * 3000))
    identity = await daemon.join(admin, "lamp-1")
    await admin.ok("PATCH", "/v1/devices/lamp-1/overrides", {"set": {"text": ""}, "for_s": 60})
    async with connected(daemon, identity, max_document=2048) as lamp:
        await lamp.apply_next()
        await admin.until("lamp-1", config="in-sync")
    clock.advance(61)
    await daemon.app.overrides.end_due()
    warned = (await admin.ok("GET", "/v1/status"))["warnings"]
    await admin.apply(device("lamp-1", text="short"))
    await daemon.app.overrides.end_due()

    assert [warning.partition(":")[0] for warning in warned] == ["an override of device/lamp-1 cannot end"]
    assert (await admin.ok("GET", "/v1/status"))["warnings"] == []


async def test_the_fingerprint_is_the_tokens_pin(daemon: Service, admin: Admin) -> None:
    shown = (await admin.ok("GET", "/v1/status"))["ca_fingerprint"]

    assert shown == pki.format_fingerprint(daemon.app.authority.pin)


async def test_health_is_told_on_the_plain_port_and_nothing_else(daemon: Service) -> None:
    async with aiohttp.ClientSession(daemon.local_url) as session:
        plain = Admin(session)
        alive, ready = await plain.call("GET", "/livez"), await plain.call("GET", "/readyz")
        refused = await plain.refused("GET", "/v1/status")

    assert (alive.status, alive.body) == (200, b"ok\n")
    assert (ready.status, ready.json["ready"], all(ready.json["checks"].values())) == (200, True, True)
    assert (refused.status, refused.code) == (404, "not_implemented_here")


async def test_a_store_that_failed_makes_the_daemon_unready_but_alive(daemon: Service, admin: Admin) -> None:
    daemon.app.failed.set_result("EIO")
    ready, alive = await admin.call("GET", "/readyz"), await admin.call("GET", "/livez")

    assert (ready.status, ready.json["checks"]["store"], alive.status) == (503, False, 200)


async def test_health_takes_no_body(daemon: Service) -> None:
    async with aiohttp.ClientSession(daemon.local_url) as session:
        answer = await Admin(session).refused("GET", "/livez", {})

    assert (answer.status, answer.code) == (400, "body_refused")


async def test_a_clock_far_behind_is_a_warning(daemon: Service, admin: Admin) -> None:
    await daemon.app.authority.timekeeper.note()
    daemon.clock.advance(-1000)
    warnings = (await admin.ok("GET", "/v1/status"))["warnings"]

    assert len(warnings) == 1
    assert "clock" in warnings[0]


@pytest.mark.parametrize("path", ["/v1/status", "/v1/whoami", "/v1/trust", "/livez"])
async def test_answers_are_not_kept_by_caches(daemon: Service, admin: Admin, path: str) -> None:
    answer = await admin.call("GET", path)

    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert len(answer.headers["Henge-Request-Id"]) == 16


async def metrics(client: Admin) -> dict[str, float]:
    """What is scraped, by name and labels."""
    answer = await client.call("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_metrics_count_what_there_is(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"), device("lamp-2"), device("bare", bound=""))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        await lamp.apply_next()
        await admin.until("lamp-1", config="in-sync")
        found = await metrics(admin)
    status = await admin.ok("GET", "/v1/status")

    assert found['henge_devices_by_connection{state="online"}'] == 1
    assert found['henge_devices_by_connection{state="never-seen"}'] == 2
    assert found['henge_devices_by_config{state="in-sync"}'] == 1
    assert found['henge_devices_by_config{state="quarantined"}'] == 0
    assert (found["henge_links"], found["henge_revision"], found["henge_warnings"]) == (1, 1, 0)
    assert found["henge_store_map_bytes"] == status["store"]["map_bytes"]
    assert 0 < found["henge_store_used_bytes"] <= status["store"]["used_bytes"]
    assert found["henge_loop_lag_seconds"] >= 0


async def test_metrics_count_who_was_turned_away_t01(daemon: Service, admin: Admin) -> None:
    before = await metrics(admin)
    for said in (b"GET / HTTP/1.1\r\nHost: henge\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(said)
        assert await reader.read() == b""
        writer.close()
    reader, writer = await asyncio.open_connection(*daemon.app.listeners.addresses["local"])
    writer.write(b"no request\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    after = await metrics(admin)
    more = {name: after[name] - before[name] for name in before if name.startswith(("henge_refused", "henge_failed"))}

    assert more == {"henge_refused_connections_total": 1, "henge_failed_handshakes_total": 2}


async def test_metrics_on_the_plain_port_ask_nobody_but_refuse_web_pages(daemon: Service) -> None:
    async with aiohttp.ClientSession(daemon.local_url) as session:
        plain = Admin(session)
        found = await metrics(plain)
        rebound = await plain.refused("GET", "/metrics", headers={"Host": "evil.example"})
        page = await plain.refused("GET", "/metrics", headers={"Origin": "https://evil.example"})

    assert found["henge_links"] == 0
    assert (rebound.code, page.code) == ("wrong_host", "foreign_origin")


async def test_metrics_say_that_the_key_of_the_secrets_is_gone(daemon: Service, admin: Admin) -> None:
    await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": "hush"})
    (daemon.data_dir / "keys" / "secrets.key").unlink()
    await daemon.restart()

    assert (await metrics(admin))["henge_warnings"] == 1
