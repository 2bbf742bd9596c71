"""A device's live link through the real daemon: hello, deliveries, reports, and every way in which it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from hengd import listeners
from hengd.http.stream import LIMITS
from henge_protocol import pki
from henge_protocol.model import MAX_DOCUMENT_BYTES
from henge_protocol.wire import Bye, Config, Error, FieldError, Hello, Receipt, Report, Welcome, encode
from tests.effort import FAULT_S, no_long_wait
from tests.service import (
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
)  # fmt: skip

log = logging.getLogger("test.stream")

DAY_S = 86400.0
UNKNOWN = '{"type":"weather"}'


@pytest.fixture
async def lamp(daemon: Service, admin: Admin) -> Identity:
    """lamp-1, known and joined."""
    await admin.apply(schema(), device("lamp-1"))
    return await daemon.join(admin, "lamp-1")


def sweep(daemon: Service) -> None:
    """Let the device port look at the clock now."""
    daemon.app.listeners._gates["devices"].sweep()


async def pass_talking(daemon: Service, clock: Clock, seconds: float) -> None:
    """Let time pass with devices that are never silent, and let the device port look at it."""
    clock.advance(seconds)
    for link in daemon.app._links._open_links:
        link.heard_at = clock.monotonic()
    sweep(daemon)


async def next_is_error(link: ScriptedDevice) -> None:
    """Prove that nothing else is on its way: a frame of unknown type is answered, and the answer comes first."""
    await link.socket.send_str(UNKNOWN)
    event = await link.event()
    while isinstance(event, Receipt):
        event = await link.event()
    assert isinstance(event, Error), event
    assert event.code == "unknown_type"


async def reconnect_refused(daemon: Service, identity: Identity | None, **options: Any) -> tuple[int, dict[str, str]]:
    """Status and headers with which an upgrade is refused."""
    connector = aiohttp.TCPConnector(ssl=daemon.context(identity))
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(
                f"{daemon.url}/v1/device/stream", server_hostname=daemon.server_name, compress=0, **options
            )
    return refused.value.status, dict(refused.value.headers or {})


# --- hello --------------------------------------------------------------------------------------------------


async def test_a_hello_is_welcomed_with_name_epoch_time_and_limits(daemon: Service, lamp: Identity) -> None:
    async with raw_link(daemon, lamp) as link:
        welcome = await link.hello()

    assert (welcome.protocol, welcome.name) == (1, "lamp-1")
    assert welcome.epoch == daemon.app.aftermath.deliveries.line.epoch
    assert abs(welcome.time - time.time()) < 5
    assert 0 < welcome.ping_s <= 30
    assert welcome.max_document == MAX_DOCUMENT_BYTES


async def test_a_welcome_tells_the_limit_of_the_devices_schema(daemon: Service, admin: Admin, lamp: Identity) -> None:
    await admin.ok("PATCH", "/v1/schemas/lamp", {"spec": {"max_document": 4096}})
    async with raw_link(daemon, lamp) as link:
        assert (await link.hello()).max_document == 4096


async def test_unknown_fields_of_a_hello_are_ignored(daemon: Service, lamp: Identity) -> None:
    async with raw_link(daemon, lamp) as link:
        link.session.sent(Hello(), now=0.0)
        await link.socket.send_str('{"type":"hello","protocol":[1,9],"mood":"sunny","device":"lamp-2"}')
        assert isinstance(await link.event(), Welcome)


async def test_another_frame_before_hello_ends_the_link(daemon: Service, lamp: Identity) -> None:  # W41
    async with raw_link(daemon, lamp) as link:
        await link.socket.send_str(encode(Report(digest="0" * 64)).decode())
        assert await link.gone() == 1008


async def test_a_link_that_says_no_hello_is_closed_after_ten_seconds(  # W41
    daemon: Service, lamp: Identity, clock: Clock
) -> None:
    async with raw_link(daemon, lamp) as link:
        clock.advance(9)
        sweep(daemon)
        assert not link.socket.closed
        clock.advance(1.5)
        sweep(daemon)
        assert await link.gone() == 4003


@pytest.mark.parametrize("versions", [(1, 1), (1, 7)])
async def test_the_highest_version_that_both_speak_is_chosen(
    daemon: Service, lamp: Identity, versions: tuple[int, int]
) -> None:
    async with raw_link(daemon, lamp) as link:
        assert (await link.hello(protocol=versions)).protocol == 1

    daemon.speaks = (1, 3)
    await daemon.restart()
    async with raw_link(daemon, lamp) as link:
        assert (await link.hello(protocol=versions)).protocol == min(versions[1], 3)


@pytest.mark.parametrize("versions", [(2, 9), (7, 7)])
async def test_versions_that_do_not_overlap_are_told_and_closed(  # W40
    daemon: Service, lamp: Identity, versions: tuple[int, int]
) -> None:
    async with raw_link(daemon, lamp) as link:
        await link.send(Hello(protocol=versions))
        event = await link.event()
        assert isinstance(event, Error)
        assert event.code == "unsupported_protocol"
        assert event.message.endswith(", this daemon 1; update hengd")
        assert await link.gone() == 4002


async def test_a_device_without_a_common_version_is_shown_until_it_has_one(
    daemon: Service, admin: Admin, lamp: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
    for _ in range(2):
        async with raw_link(daemon, lamp) as link:
            await link.send(Hello(protocol=(2, 3), client="future/2"))
            assert await link.gone() == 4002
    status = await admin.until("lamp-1", client="future/2")

    assert [record.levelname for record in caplog.records if "speaks protocol 2 to 3" in record.message] == ["WARNING"]
    assert condition(status) == ("True", "it speaks protocol 2 to 3, this daemon 1; update hengd")
    assert (status["client"], status["config"]) == ("future/2", "in-sync"), "what it ran when it last could say so"
    await daemon.restart()
    async with daemon.admin() as again:
        assert condition((await again.ok("GET", "/v1/devices/lamp-1"))["status"])[0] == "True", "it is durable"
        async with connected(daemon, lamp):
            status = await again.until("lamp-1", client="test/1")

    assert condition(status) == ("False", "protocol 1 is spoken")


async def test_who_was_never_seen_is_not_said_to_speak_anything(admin: Admin, lamp: Identity) -> None:
    status = (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]

    assert condition(status) == ("False", "it never said what it speaks")


def condition(status: dict[str, Any]) -> tuple[str, str]:
    """Whether the protocol of a device is unsupported, and what is said of it."""
    return next((one["status"], one["message"]) for one in status["conditions"] if one["type"] == "ProtocolUnsupported")


async def test_a_second_hello_is_a_fault_and_the_link_stays(daemon: Service, lamp: Identity) -> None:
    async with connected(daemon, lamp) as link:
        await link.config()
        await link.socket.send_str(encode(Hello()).decode())
        event = await link.event()
        assert isinstance(event, Error)
        assert event.code == "unexpected"
        await next_is_error(link)


# --- frames that cannot be used -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "no json",
        "[]",
        '"hello"',
        '{"type":7}',
        '{"no":"type"}',
        '{"type":"report"',
        '{"type":"report","state":"glad"}',
        '{"type":"report","state":"applied","digest":"XY"}',
        '{"type":"report","type":"report"}',
        '{"type":"report","revision":1e400}',
        '{"type":"report","revision":-1}',
        '{"type":"config"}',
        "[" * 5000,
    ],
)
async def test_a_useless_frame_is_told_once_and_the_third_ends_the_link(  # W28, W29
    daemon: Service, lamp: Identity, frame: str
) -> None:
    async with connected(daemon, lamp) as link:
        await link.config()
        for _ in range(2):
            await link.socket.send_str(frame)
            event = await link.event()
            assert isinstance(event, Error), event
            assert event.code in ("bad_frame", "unknown_type", "unexpected")
        await link.socket.send_str(frame)
        assert await link.gone() == 1008


@pytest.mark.parametrize(("size", "fits"), [(8191, True), (8192, True), (8193, False)])
async def test_a_message_of_a_device_has_at_most_8_kib_w16(
    daemon: Service, lamp: Identity, size: int, fits: bool
) -> None:
    start = '{"type":"weather","x":"'
    async with connected(daemon, lamp) as link:
        await link.config()
        await link.socket.send_str(start + "x" * (size - len(start) - 2) + '"}')
        if fits:
            event = await link.event()
            assert isinstance(event, Error)
            assert event.code == "unknown_type"
        else:
            assert await link.gone() == 1009


async def test_faults_are_forgiven_after_a_minute(daemon: Service, lamp: Identity, clock: Clock) -> None:
    async with connected(daemon, lamp) as link:
        await link.config()
        for _ in range(4):
            await next_is_error(link)
            clock.advance(35)


async def test_an_unknown_type_is_told_and_the_link_goes_on(daemon: Service, admin: Admin, lamp: Identity) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        await next_is_error(link)
        await admin.set("lamp-1", color="blue")
        assert (await link.apply_next())["color"] == "blue"


async def test_too_many_frames_end_the_link(daemon: Service, lamp: Identity) -> None:  # W31
    async with connected(daemon, lamp) as link:
        report = encode(Report(daemon.app.aftermath.deliveries.line.epoch, 1, "a" * 64, "applying")).decode()
        for _ in range(90):
            await link.socket.send_str(report)
        assert await link.gone() == 1008


# --- reports ------------------------------------------------------------------------------------------------


async def test_a_report_about_a_revision_never_issued_changes_nothing(  # W30
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.send(Report(config.epoch, config.revision + 1, config.digest, "drifted"))
        receipt = await link.report(config)

        assert (receipt.revision, receipt.state) == (config.revision, "applied")
        assert {one.state for one in link.receipts} == {"applied"}
    assert (await admin.until("lamp-1", config="in-sync"))["reported"]["revision"] == config.revision


async def test_a_report_said_twice_is_received_twice_and_counts_once(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        first = await link.report(config)
        second = await link.report(config)
        assert first == second
        await next_is_error(link)
    assert (await admin.until("lamp-1", config="in-sync"))["reported"]["digest"] == config.digest


async def test_a_device_ahead_on_another_history_line_is_told_nothing(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp, epoch="restored", revision=900, digest="b" * 64, state="applied") as link:
        await next_is_error(link)
        await admin.until("lamp-1", config="ahead")
        await admin.set("lamp-1", color="red")
        await next_is_error(link)


async def test_an_older_history_line_is_overruled(daemon: Service, lamp: Identity) -> None:
    async with connected(daemon, lamp, epoch="restored", revision=0, digest="b" * 64, state="applied") as link:
        assert await link.apply_next() == {"brightness": 80, "color": "green"}


async def test_fields_that_the_device_refused_are_shown(daemon: Service, admin: Admin, lamp: Identity) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config, "rejected", reason="invalid", errors=(FieldError("/color", "no such lamp"),))
    reported = (await admin.until("lamp-1", config="quarantined"))["reported"]
    assert reported["reason"] == "invalid"
    assert reported["errors"] == [{"pointer": "/color", "message": "no such lamp"}]


async def test_who_is_offline_is_so_since_the_connection_ended(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        clock.advance(100)
        sweep(daemon)
        left = clock.wall()
    status = await admin.until("lamp-1", connection="offline")
    assert abs(datetime.fromisoformat(status["since"]).timestamp() - left) < 5
    assert status["seen"] == status["since"]


# --- deliveries ---------------------------------------------------------------------------------------------


async def test_one_delivery_is_in_flight_and_then_comes_the_newest(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        first = await link.config()
        await admin.set("lamp-1", color="red")
        await admin.set("lamp-1", color="blue")
        await next_is_error(link)
        await link.report(first, "applying")
        await next_is_error(link)
        await link.report(first)
        assert json.loads((await link.config()).document)["color"] == "blue"


async def test_a_device_that_runs_the_newest_document_is_sent_nothing(daemon: Service, lamp: Identity) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config)
    running = {"epoch": config.epoch, "revision": config.revision, "digest": config.digest, "state": "applied"}
    async with connected(daemon, lamp, **running) as link:
        await next_is_error(link)


async def test_a_delivery_whose_end_is_overdue_no_longer_blocks_the_next(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    async with connected(daemon, lamp) as link:
        first = await link.config()
        await admin.set("lamp-1", color="red")
        for _ in range(first.confirm_s // 20 + 2):
            clock.advance(20)
            sweep(daemon)
            await link.report(first, "applying")
        assert json.loads((await link.config()).document)["color"] == "red"


async def test_who_runs_something_else_than_was_sent_is_not_in_sync_and_sent_it_once_more_in_time_v38(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    async with connected(daemon, lamp) as link:
        first = await link.config()
        for _ in range(first.confirm_s // 20 + 2):
            clock.advance(20)
            sweep(daemon)
            await link.report(replace(first, digest="ab" * 32))
        again = await link.config()
        shown = (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]
        await link.report(again)

        assert again == first
        assert (shown["config"], shown["reported"]["running"]) == ("pending", "ab" * 32)
        assert len(link.documents) == 2
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["config"] == "in-sync"


async def test_a_rejected_document_is_not_offered_again_until_it_changes(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config, "rejected", reason="invalid")
        await next_is_error(link)
    async with connected(daemon, lamp) as link:
        await next_is_error(link)
        assert (await admin.until("lamp-1", config="quarantined"))["connection"] == "online"
        await admin.set("lamp-1", color="red")
        assert (await link.apply_next())["color"] == "red"


async def test_a_rejected_document_is_offered_again_when_a_person_says_retry(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config, "rolled-back", reason="health-failed")
        await admin.until("lamp-1", config="quarantined")
        await admin.ok("POST", "/v1/devices/lamp-1/retry")
        assert (await link.config()).digest == config.digest


async def test_a_passing_refusal_is_offered_again_after_a_while(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config, "rejected", reason="write-failed")
        clock.advance(12)
        sweep(daemon)
        await next_is_error(link)
        clock.advance(24)
        sweep(daemon)
        again = await link.config()
        assert again.digest == config.digest
        await link.report(again)
    await admin.until("lamp-1", config="in-sync")


async def test_a_passing_refusal_stays_passing_when_the_link_is_cut_in_the_second_attempt(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config, "rejected", reason="write-failed")
        clock.advance(36)
        sweep(daemon)
        await link.report(await link.config(), "applying")
    async with connected(daemon, lamp) as link:
        assert (await link.config()).digest == config.digest


async def test_passing_refusals_wait_longer_each_time_and_work_under_way_does_not_count(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    daemon.app._links.chance = lambda: 0.5
    async with connected(daemon, lamp) as link:
        config = await link.config()
        for wait_s in (25, 35, 55):  # 15 s and 10 times half of 2, 4, 8 s
            await link.report(config, "rejected", reason="write-failed")
            for passed_s in (10, wait_s - 22, 10):
                clock.advance(passed_s)
                sweep(daemon)
                await link.report(config, "applying")
            await next_is_error(link)
            clock.advance(3)
            sweep(daemon)
            config = await link.config()
        await link.report(config)
        await admin.set("lamp-1", color="red")
        await link.report(await link.config(), "rejected", reason="write-failed")
        clock.advance(26)
        sweep(daemon)
        await link.apply_next()


async def test_a_change_during_which_the_device_did_not_read_is_sent_when_it_does(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        (server,) = daemon.app._links._open_links
        server.pause_writing()
        await admin.set("lamp-1", color="red")
        await next_is_error(link)
        server.resume_writing()
        assert (await link.apply_next())["color"] == "red"


async def test_a_device_that_runs_what_it_refused_before_is_in_sync(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config, "rejected", reason="hook-failed")
    running = {"epoch": config.epoch, "revision": config.revision, "digest": config.digest, "state": "applied"}
    async with connected(daemon, lamp, **running):
        await admin.until("lamp-1", config="in-sync")


async def test_a_change_whose_bell_was_lost_arrives_with_the_next_look(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        monkeypatch.setattr(daemon.app._hub, "ring", lambda device_ids: None)
        await admin.set("lamp-1", color="red")
        await next_is_error(link)
        clock.advance(31)
        sweep(daemon)
        assert (await link.apply_next())["color"] == "red"


async def test_a_change_of_which_nothing_was_told_arrives_with_the_next_look(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        daemon.app._store.on_commit(lambda notes: None)
        await admin.set("lamp-1", color="red")
        daemon.app._store.on_commit(daemon.app.aftermath.follow)
        await next_is_error(link)
        clock.advance(31)
        sweep(daemon)
        assert (await link.apply_next())["color"] == "red"
    await admin.until("lamp-1", config="in-sync")


async def test_a_change_of_which_nothing_was_told_arrives_with_the_next_connection(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
    daemon.app._store.on_commit(lambda notes: None)
    await admin.set("lamp-1", color="red")
    async with connected(daemon, lamp) as link:
        assert (await link.apply_next())["color"] == "red"


async def test_a_device_gets_its_own_document_whatever_it_says_of_itself(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", wifi={"ssid": "attic"}), device("lamp-2", wifi={"ssid": "cellar"}))
    lamp = await daemon.join(admin, "lamp-1")
    other = await daemon.join(admin, "lamp-2")
    async with connected(daemon, lamp, facts={"device": "lamp-2", "id": other.id, "name": "lamp-2"}) as link:
        assert (await link.apply_next())["wifi"] == {"ssid": "attic"}
        await admin.set("lamp-2", color="red")
        await next_is_error(link)
        assert all(b"cellar" not in config.document for config in link.documents)


async def test_no_fact_that_a_device_reports_puts_it_into_a_group(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), group("vault", "room=vault", color="blue"), device("lamp-1", labels={"room": "hall"}))
    lamp = await daemon.join(admin, "lamp-1")
    async with connected(daemon, lamp, facts={"room": "vault", "labels": "room=vault", "schema": "lamp"}) as link:
        assert (await link.apply_next())["color"] == "green"
        await admin.set("lamp-1", brightness=7)
        assert await link.apply_next() == {"brightness": 7, "color": "green"}
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["metadata"]["labels"] == {"room": "hall"}


async def test_a_device_whose_document_is_damaged_is_closed_and_the_others_go_on(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", brightness=1), device("lamp-2", brightness=2))
    lamp, other = await daemon.join(admin, "lamp-1"), await daemon.join(admin, "lamp-2")
    digest = (await admin.until("lamp-1", config="unknown"))["desired"]["digest"]
    await daemon.app._store.write(lambda tx: tx.delete("documents", bytes.fromhex(digest)))

    async with raw_link(daemon, lamp) as broken, connected(daemon, other) as link:
        await broken.send(Hello())
        assert await broken.gone() == 1011
        assert (await link.apply_next())["brightness"] == 2
        await admin.apply(group("bright", brightness=3))
        sweep(daemon)


# --- who may connect ----------------------------------------------------------------------------------------


async def test_a_link_from_a_web_page_is_refused(daemon: Service, lamp: Identity) -> None:  # W06
    status, _ = await reconnect_refused(daemon, lamp, origin="https://evil.example")
    assert status == 403


def _unlisted(daemon: Service, lamp: Identity) -> Identity:
    """A certificate that our own client authority signed and that is not on the list (a stolen authority key)."""
    der = pki.issue_client(
        daemon.app._folder.authorities.client, pki.spki_der(lamp.certificate), fleet_id=daemon.app.authority.fleet,
        role="device", subject=lamp.id, now=time.time(), lifetime_s=3600,
    )  # fmt: skip
    return Identity(lamp.name, lamp.id, der, lamp.key)


async def test_a_certificate_that_is_not_on_the_list_is_refused_before_the_upgrade(
    daemon: Service, lamp: Identity
) -> None:
    status, _ = await reconnect_refused(daemon, _unlisted(daemon, lamp))
    assert status == 403


async def test_without_certificate_there_is_no_link(daemon: Service, lamp: Identity) -> None:  # W07
    status, _ = await reconnect_refused(daemon, None)
    assert status == 401


async def test_an_expired_certificate_is_refused_before_the_upgrade(
    daemon: Service, lamp: Identity, clock: Clock
) -> None:
    clock.jump(91 * DAY_S)
    status, _ = await reconnect_refused(daemon, lamp)
    assert status == 401


async def test_the_first_use_of_a_new_certificate_ends_the_one_before(daemon: Service, lamp: Identity) -> None:
    async with connected(daemon, lamp):
        pass
    async with daemon.remote(lamp) as session:
        answer = await session.ok("POST", "/v1/renew", {"client": "test/1"})
        renewed = Identity(lamp.name, lamp.id, base64.b64decode(answer["certificate"]), lamp.key)
    async with connected(daemon, renewed) as link:
        await link.apply_next()
    status, _ = await reconnect_refused(daemon, lamp)
    assert status == 403


@pytest.mark.parametrize("end", ["revoke", "delete"])
async def test_an_identity_that_ended_is_refused_before_the_upgrade(
    daemon: Service, admin: Admin, lamp: Identity, end: str
) -> None:
    await _end_identity(admin, end)
    status, _ = await reconnect_refused(daemon, lamp)
    assert status == 403


# --- how a link ends ----------------------------------------------------------------------------------------


async def test_a_newer_link_of_the_same_device_replaces_the_older(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as older, connected(daemon, lamp) as newer:
        assert await older.gone() == 4001
        assert (await newer.apply_next())["color"] == "green"
        await admin.set("lamp-1", color="red")
        assert (await newer.apply_next())["color"] == "red"
        await admin.until("lamp-1", connection="online", config="in-sync")
    await admin.until("lamp-1", connection="offline")


async def test_a_certificate_that_expires_while_connected_is_served_for_a_day_more(  # W43
    daemon: Service, lamp: Identity, clock: Clock
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        await pass_talking(daemon, clock, 90.5 * DAY_S)
        await next_is_error(link)
        await pass_talking(daemon, clock, 0.6 * DAY_S)
        assert await link.gone() == 4004


async def test_a_clock_set_ahead_by_years_ends_no_link_k1(daemon: Service, lamp: Identity, clock: Clock) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        clock.jump(365 * DAY_S)
        sweep(daemon)
        await next_is_error(link)


async def test_a_silent_peer_is_dropped_within_45_seconds(daemon: Service, lamp: Identity, clock: Clock) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        clock.advance(45)
        sweep(daemon)
        assert await link.gone() == 1006


async def test_a_stop_says_goodbye_and_when_to_come_back(daemon: Service, lamp: Identity) -> None:  # W44
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        stopping = asyncio.create_task(daemon.stop())
        event = await link.event()
        assert isinstance(event, Bye)
        assert event.reason == "stopping"
        assert 1 <= event.retry_after_s <= 3
        assert await link.gone() == 1001
        await stopping
    await daemon.start()


async def test_a_stop_does_not_wait_for_links_that_never_said_hello(
    daemon: Service, lamp: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "GRACE_S", 2 * FAULT_S)
    async with raw_link(daemon, lamp) as link:
        with no_long_wait():
            _, code = await asyncio.gather(daemon.stop(), link.gone())
        assert code == 1001
    await daemon.start()


async def test_a_stop_with_two_hundred_links_waits_for_none_of_them(
    daemon: Service, lamp: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "GRACE_S", 2 * FAULT_S)
    async with asyncio.TaskGroup() as tasks:
        ready, leave = asyncio.Semaphore(0), asyncio.Event()
        for _ in range(200):
            tasks.create_task(_hold(daemon, lamp, ready, leave))
        for _ in range(200):
            await ready.acquire()
        with no_long_wait():
            await daemon.stop()
        leave.set()
    await daemon.start()


async def _hold(daemon: Service, identity: Identity, ready: asyncio.Semaphore, leave: asyncio.Event) -> None:
    async with raw_link(daemon, identity) as link:
        ready.release()
        assert await link.gone() == 1001
        await leave.wait()


async def test_a_stop_cuts_a_peer_that_no_longer_reads(
    daemon: Service, lamp: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "GRACE_S", 0.3)
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        transport: Any = link.socket.get_extra_info("ssl_object") and link.socket._conn.transport  # type: ignore[union-attr]
        transport.pause_reading()
        with no_long_wait():
            await daemon.stop()
        transport.abort()
    await daemon.start()


# --- many changes -------------------------------------------------------------------------------------------


async def test_a_device_that_answers_what_it_is_sent_is_never_too_fast(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        for number in range(2 * LIMITS.burst):
            await admin.set("lamp-1", brightness=number % 100)
            config = await link.config()
            await link.send(Report(config.epoch, config.revision, config.digest, "applying"))
            await link.report(config)
    assert link.close_code is None


# --- revocation ---------------------------------------------------------------------------------------------


async def _end_identity(admin: Admin, end: str) -> None:
    if end == "revoke":
        await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    else:
        await admin.ok("DELETE", "/v1/devices/lamp-1")


@pytest.mark.parametrize("end", ["revoke", "delete"])
async def test_revoking_a_device_ends_its_link_before_the_answer(  # S2, W42
    daemon: Service, admin: Admin, lamp: Identity, end: str
) -> None:
    async with connected(daemon, lamp) as link:
        await link.apply_next()
        began = time.monotonic()
        gone = asyncio.create_task(link.gone())
        await _end_identity(admin, end)
        assert daemon.app.presence.find(lamp.id) is None
        assert await gone in (1006, 4005)
        log.info("%s: the link was gone after %.1f ms", end, 1000 * (time.monotonic() - began))


async def test_no_document_reaches_a_device_once_its_revocation_was_asked_for(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with connected(daemon, lamp) as link, daemon.admin() as other:
        await link.apply_next()
        revoking = asyncio.create_task(admin.ok("POST", "/v1/devices/lamp-1/revoke"))
        changes = [asyncio.create_task(other.set("lamp-1", brightness=number)) for number in range(20)]
        await revoking
        seen = await _drain(link)
        after = [config for config in seen if config.revision > _revision_at(daemon, changes)]
        await asyncio.gather(*changes)
        assert not after
        assert await _drain(link) == []


def _revision_at(daemon: Service, changes: list[asyncio.Task[Any]]) -> int:
    done = [task.result()["revision"] for task in changes if task.done()]
    return max(done, default=daemon.app.aftermath.deliveries.line.revision)


async def _drain(link: ScriptedDevice) -> list[Config]:
    seen: list[Config] = []
    try:
        while True:
            event = await link.event()
            if isinstance(event, Config):
                seen.append(event)
    except (ConnectionError, RuntimeError):
        return seen


async def test_a_revoked_device_stays_out_after_a_restart_and_may_join_anew(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    await daemon.restart()
    assert (await reconnect_refused(daemon, lamp))[0] == 403

    async with daemon.admin() as again:
        anew = await daemon.join(again, "lamp-1")
    async with connected(daemon, anew) as link:
        await link.apply_next()
    assert (await reconnect_refused(daemon, lamp))[0] == 403


async def test_reports_of_many_links_are_all_durable(daemon: Service, admin: Admin) -> None:
    names = [f"lamp-{number}" for number in range(8)]
    await admin.apply(schema(), *[device(name) for name in names])
    identities = [await daemon.join(admin, name) for name in names]

    async def serve(identity: Identity, take: Callable[[dict[str, Any]], bool]) -> None:
        async with connected(daemon, identity) as link:
            while not take(await link.apply_next()):
                pass

    served = [asyncio.create_task(serve(one, lambda values: values["brightness"] == 9)) for one in identities]
    for number in range(10):
        await admin.ok("POST", "/v1/apply?all_at_once=1", {"objects": [group("all", brightness=number)]})
    await asyncio.gather(*served)
    for name in names:
        await admin.until(name, config="in-sync")
