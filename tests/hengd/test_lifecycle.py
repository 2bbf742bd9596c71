"""Starting whole or not at all, and stopping without losing what was acknowledged."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hengd import app
from hengd.datadir import DataDir, open_data_dir
from hengd.records import Meta, pack, unpack
from hengd.rules.fleet import META_KEY
from hengd.store import Store
from hengd.transactions import DATABASES, Reader, open_environment
from henge_protocol.errors import Conflict, HengeError, Internal, Invalid
from henge_protocol.wire import Report
from tests.service import Admin, Clock, Service, connected, device, schema, verify_store


@pytest.fixture
async def service(data_dir: Path, clock: Clock) -> AsyncIterator[Service]:
    """A daemon that is not started."""
    made = Service(data_dir, clock)
    yield made
    made.clean()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def assert_nothing_is_open(data_dir: Path, *ports: int) -> None:
    """Ports, lock, writer thread: all as before the start."""
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
    assert "store-writer" not in {thread.name for thread in threading.enumerate()}
    if (data_dir / "hengd.lock").exists():
        with open(data_dir / "hengd.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_there(path: Path) -> bool:
    return os.path.lexists(path)


async def refused(service: Service) -> HengeError:
    with pytest.raises(HengeError) as error:
        await service.start()
    return error.value


async def test_a_port_in_use_leaves_nothing_open(service: Service, data_dir: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service._flags |= {
            "listen.devices": f"127.0.0.1:{port}", "listen.local": f"127.0.0.1:{taken.getsockname()[1]}"
        }  # fmt: skip
        error = await refused(service)
    assert isinstance(error, Conflict)
    assert "listen.local" in error.cure
    assert_nothing_is_open(data_dir, port)
    assert not is_there(data_dir)


async def test_a_program_that_was_faster_to_listen_is_told_too(
    service: Service, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two programs may bind one port with SO_REUSEADDR; the second to listen loses."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        service._flags |= {"listen.local": f"127.0.0.1:{other.getsockname()[1]}"}

        def meanwhile(*arguments: Any, **options: Any) -> DataDir:
            other.listen()
            return open_data_dir(*arguments, **options)

        monkeypatch.setattr(app, "open_data_dir", meanwhile)
        assert (await refused(service)).code == "address_in_use"
    assert_nothing_is_open(data_dir)
    assert not service.socket.exists()


async def test_a_damaged_store_leaves_nothing_open(service: Service, data_dir: Path) -> None:
    await service.start()
    await service.stop()
    file = data_dir / "data" / "db" / "data.mdb"
    good = file.read_bytes()
    file.write_bytes(b"garbage" * 3000)
    assert (await refused(service)).code == "storage_foreign"
    assert_nothing_is_open(data_dir)
    assert file.read_bytes() == b"garbage" * 3000
    file.write_bytes(good)
    await service.start()
    await service.stop()


async def change_meta(data_dir: Path, **fields: Any) -> None:
    store = Store.open(data_dir / "data" / "db")

    def operation(tx: Any) -> None:
        meta = unpack(Meta, tx.get("meta", META_KEY))
        tx.put("meta", META_KEY, pack(msgspec.structs.replace(meta, **fields)))

    await store.write(operation)
    await store.close()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"format": 0}, "format 0", id="older"),
        pytest.param({"format": 2}, "format 2", id="F17 newer"),
        pytest.param({"format": 99}, "format 99", id="much newer"),
        pytest.param({"fleet": "f" * 26}, f"is of fleet {'f' * 26}", id="F17 another fleet"),
    ],
)
async def test_a_store_of_another_format_or_fleet_is_refused_and_left_alone(  # D13
    service: Service, data_dir: Path, fields: dict[str, Any], said: str
) -> None:
    await service.start()
    await service.stop()
    await change_meta(data_dir, **fields)
    before = (data_dir / "data" / "db" / "data.mdb").read_bytes()
    error = await refused(service)
    assert isinstance(error, Internal)
    assert said in error.message
    assert_nothing_is_open(data_dir)
    assert (data_dir / "data" / "db" / "data.mdb").read_bytes() == before


async def test_a_damaged_meta_record_is_refused(service: Service, data_dir: Path) -> None:
    await service.start()
    await service.stop()
    env = open_environment(data_dir / "data" / "db", 2**26)
    with env.begin(write=True) as txn:
        txn.put(META_KEY, b"\x01\x00badc{}", db=env.open_db(b"meta", txn=txn))
    env.close()
    assert (await refused(service)).code == "storage_corrupt"
    assert_nothing_is_open(data_dir)


async def test_a_socket_path_that_is_no_socket_leaves_nothing_open(service: Service, data_dir: Path) -> None:
    service.socket.write_text("precious")
    assert isinstance(await refused(service), Invalid)
    assert_nothing_is_open(data_dir)
    assert service.socket.read_text() == "precious"


async def test_a_second_daemon_takes_neither_folder_nor_socket_of_the_first(
    daemon: Service, admin: Admin, clock: Clock, tmp_path: Path
) -> None:
    second = Service(daemon.data_dir, clock)
    assert (await refused(second)).code == "already_running"
    second.clean()
    third = Service(tmp_path / "other", clock)
    third.clean()
    third.socket = daemon.socket
    assert (await refused(third)).code == "address_in_use"
    assert (await admin.ok("GET", "/v1/status"))["revision"] == 0
    async with daemon.admin() as again:
        await again.ok("GET", "/v1/status")


async def test_the_folder_is_free_after_a_stop(daemon: Service, clock: Clock) -> None:
    await daemon.stop()
    open_data_dir(daemon.data_dir, allow_network_fs=False, now=0, map_bytes=2**20).close()
    assert not daemon.socket.exists()
    await daemon.start()


async def test_what_was_acknowledged_during_a_stop_is_kept(daemon: Service, admin: Admin, data_dir: Path) -> None:
    """Writers go on while the daemon stops: each is answered and kept, or refused, never both."""
    await admin.apply(schema(), device("lamp-1"))
    acknowledged = 0

    async def change() -> None:
        nonlocal acknowledged
        async with daemon.admin() as mine:
            while True:
                try:
                    answer = await mine.call(
                        "PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"wifi": {"channel": acknowledged + 1}}}}
                    )
                except OSError:
                    return
                if answer.status != 200:
                    assert answer.code == "stopping"
                    return
                acknowledged += 1

    changing = asyncio.create_task(change())
    while acknowledged < 5:  # noqa: ASYNC110 (counts several)
        await asyncio.sleep(0)
    await daemon.stop()
    await changing
    env = open_environment(data_dir / "data" / "db", 2**26)
    databases = {name: env.open_db(name.encode()) for name in DATABASES}
    with env.begin() as txn:
        meta = unpack(Meta, Reader(txn, databases).get("meta", META_KEY) or b"")
    env.close()
    assert meta.revision in (acknowledged + 1, acknowledged + 2)
    verify_store(data_dir)
    await daemon.start()


async def test_a_report_under_way_during_a_stop_is_durable_or_unacknowledged(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    identity = await daemon.join(admin, "lamp-1")
    async with connected(daemon, identity) as lamp:
        config = await lamp.config()
        await lamp.send(Report(config.epoch, config.revision, config.digest, "applied"))
        stopping = asyncio.create_task(daemon.stop())
        try:
            while True:
                lamp._note(await lamp.event())
        except ConnectionError:
            await stopping
    await daemon.start()
    if lamp.receipts:
        async with daemon.admin() as again:
            await again.until("lamp-1", config="in-sync")


async def test_a_start_after_a_stop_serves_the_same_fleet(daemon: Service, admin: Admin) -> None:
    before = await admin.ok("GET", "/v1/status")
    await daemon.restart()
    async with daemon.admin() as again:
        after = await again.ok("GET", "/v1/status")
    assert (after["fleet"], after["epoch"]) == (before["fleet"], before["epoch"])
