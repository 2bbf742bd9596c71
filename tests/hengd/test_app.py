"""The main job through the real assembler: join, change, push, report, restart."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from hengd.rules.fleet import read_meta
from hengd.rules.notes import Committed
from hengd.store import Store
from henge_protocol import pki
from henge_protocol.errors import HengeError
from tests.service import Admin, Clock, Service, connected, device, group, schema


async def test_a_value_set_reaches_the_device_and_its_report_is_durable(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        assert await lamp.apply_next() == {"brightness": 80, "color": "green"}
        await admin.set("lamp-1", color="red")
        assert await lamp.apply_next() == {"brightness": 80, "color": "red"}

        status = await admin.until("lamp-1", config="in-sync", connection="online")

    assert status["reported"]["state"] == "applied"
    assert status["reported"]["digest"] == status["desired"]["digest"]


async def test_what_was_reported_survives_a_restart(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        config = await lamp.config()
        await lamp.report(config)

    await daemon.restart()

    async with daemon.admin() as again:
        status = (await again.ok("GET", "/v1/devices/lamp-1"))["status"]
    assert (status["config"], status["connection"]) == ("in-sync", "offline")
    assert status["reported"]["digest"] == config.digest


async def test_a_device_offline_during_fifty_changes_gets_exactly_the_newest(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    for number in range(50):
        await admin.set("lamp-1", brightness=number)

    async with connected(daemon, identity) as lamp:
        assert await lamp.apply_next() == {"brightness": 49, "color": "green"}
        assert len(lamp.documents) == 1


async def test_a_burst_of_fifty_changes_arrives_as_few_frames_the_last_the_newest(
    daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        first = await lamp.config()
        for number in range(50):
            await admin.set("lamp-1", brightness=number)
        await lamp.report(first)

        assert await lamp.apply_next() == {"brightness": 49, "color": "green"}
        assert len(lamp.documents) == 2


async def test_one_change_of_a_group_reaches_all_its_devices_as_one_revision(daemon: Service, admin: Admin) -> None:
    names = [f"lamp-{number}" for number in range(5)]
    await admin.apply(
        schema(), group("kitchen", "room=kitchen"), *[device(name, labels={"room": "kitchen"}) for name in names]
    )
    changed = await admin.apply(group("kitchen", "room=kitchen", brightness=5))

    assert [moved["name"] for moved in changed["devices"]] == names
    assert changed["revision"] == 2
    assert len({moved["after"] for moved in changed["devices"]}) == 1


async def test_one_note_that_cannot_be_told_silences_no_other(
    daemon: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rung: list[object] = []
    monkeypatch.setattr(daemon.app._hub, "ring", rung.append)
    daemon.app.aftermath.follow([Committed(2, (("Device",),), (), {}), Committed(3, (), (), {"d1": None})])  # type: ignore[arg-type]
    assert rung == [{"d1": None}]
    assert "a commit was not told on" in caplog.text


async def test_a_daemon_whose_writer_has_ended_is_not_ready(daemon: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert daemon.app.beat()
    monkeypatch.setattr(Store, "is_writing", False)
    assert not daemon.app.beat()


# --- upkeep -------------------------------------------------------------------------------------------------


def high_water(daemon: Service) -> float:
    with daemon.app._store.read() as tx:
        return read_meta(tx).clock_high_water


async def test_a_clock_that_is_wrong_at_boot_is_not_believed_at_once(daemon: Service, clock: Clock) -> None:
    """Upkeep waits: by then the time has come from the network. A mark from the future would hold all certificates."""
    before = high_water(daemon)
    clock.jump(30 * 365 * 86400)
    await daemon.restart()
    await daemon.app._store.write(lambda tx: None)  # upkeep that ran at once would have been queued before this
    assert high_water(daemon) == before


# --- what it prints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listening", "shown"),
    [("0.0.0.0", ["192.168.1.20"]), ("[::]", ["192.168.1.20", "[fd00::20]"]), ("127.0.0.1", ["127.0.0.1"])],
)
async def test_only_addresses_that_reach_the_listener_are_shown(
    listening: str, shown: list[str], data_dir: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ":" in listening and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr("hengd.announce.local_addresses", lambda: ("192.168.1.20", "fd00::20", "fe80::20%2"))
    service = Service(data_dir, clock, {"listen.devices": f"{listening}:0"})
    await service.start()
    try:
        assert service.app.listeners.urls()["devices"] == [f"https://{host}:{service.port}" for host in shown]
    finally:
        await service.stop()
        service.clean()


async def server_certificate(daemon: Service) -> bytes:
    """What the device port shows now (DER)."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", daemon.port, ssl=daemon.context(), server_hostname=daemon.server_name
    )
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown


@pytest.mark.parametrize("is_of_another_key", [False, True])
async def test_a_new_server_certificate_is_for_the_next_connections_and_ends_none_t39_t40(
    daemon: Service, admin: Admin, *, is_of_another_key: bool
) -> None:
    await admin.apply(schema(), device("lamp-1"))
    folder, before = daemon.app._folder.authorities, await server_certificate(daemon)
    async with connected(daemon, await daemon.join(admin, "lamp-1")) as lamp:
        await lamp.apply_next()
        daemon.app.listeners.renew_context()
        kept = await server_certificate(daemon)
        other, other_key = pki.issue_server(
            folder.server, fleet_id=daemon.app.authority.fleet, dns_names=[], ip_addresses=[],
            now=daemon.clock.wall(),
        )  # fmt: skip
        folder.keep_leaf(pki.certificate_pem(before) + other_key if is_of_another_key else pki.certificate_pem(other))
        daemon.app.listeners.renew_context()
        after = await server_certificate(daemon)
        await admin.set("lamp-1", color="red")

        assert (await lamp.apply_next())["color"] == "red"
    assert kept == before
    assert after not in (before, other)


async def test_a_server_certificate_that_cannot_be_written_leaves_the_one_before_in_place_t40(
    daemon: Service, admin: Admin
) -> None:
    before = await server_certificate(daemon)
    file = daemon.app._folder.authorities.folder / "server.pem"
    file.unlink()
    file.mkdir()
    with pytest.raises(HengeError):
        daemon.app.listeners.renew_context()
    kept = await server_certificate(daemon)
    file.rmdir()
    daemon.app.listeners.renew_context()

    assert kept == before
    assert await server_certificate(daemon) != before


@pytest.mark.parametrize("flags", [{"listen.devices": "0.0.0.0:0", "join.mdns": True}])
async def test_the_network_is_told_of_the_server_authority_that_signs(
    data_dir: Path, clock: Clock, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, bytes]] = []

    class Recorder:
        def __init__(self, *, server_ca_fingerprint: bytes, **more: object) -> None:
            self._fingerprint = server_ca_fingerprint

        async def start(self) -> None:
            told.append(("start", self._fingerprint))

        async def stop(self) -> None:
            told.append(("stop", self._fingerprint))

    monkeypatch.setattr("hengd.app.Announcer", Recorder)
    service = Service(data_dir, clock, flags)
    await service.start()
    try:
        async with service.admin() as admin:
            first = service.app.authority.pin
            await admin.ok("POST", "/v1/authorities/server/begin")
            assert told == [("start", first)]
            await admin.ok("POST", "/v1/authorities/server/switch")
            assert told == [("start", first), ("stop", first), ("start", service.app.authority.pin)]
    finally:
        await service.stop()
        service.clean()
    assert service.app.authority.pin != first
