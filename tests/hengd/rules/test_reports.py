"""Reports: durable before they are acknowledged, together, in order, and none lost to a neighbour or a full disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from hengd.records import ObjectRecord, Reported, object_key, pack
from hengd.rules import reports as reports_module
from hengd.rules.fleet import find_reported
from hengd.rules.notes import DevicesReported
from hengd.rules.reports import HELLOS_A_MINUTE, Reports
from hengd.store import Reader, Store, Transaction
from henge_protocol.errors import Internal, NotFound, StorageFull
from tests.hengd.http.gatekit import until
from tests.hengd.rules.conftest import ADA, NOW


class Disk:
    """The real store, which can be told to be full."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_full = False
        self.refused = 0

    def read(self) -> AbstractContextManager[Reader]:
        return self.store.read()

    def submit(
        self, operation: Callable[[Transaction], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        if self.is_full:
            self.refused += 1
            asyncio.get_running_loop().call_soon(done, None, StorageFull("storage_full", "the disk is full"))
        else:
            self.store.submit(operation, done)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    store = Store.open(tmp_path)
    await store.write(lambda tx: [tx.put("ids", b"d%d" % number, b"lamp-%d" % number) for number in range(200)])
    yield Disk(store)
    await store.close()


@pytest.fixture
def reports(disk: Disk) -> Reports:
    return Reports(disk, clock=lambda: NOW)  # type: ignore[arg-type]


def stored(disk: Disk, device: str) -> Reported:
    with disk.store.read() as tx:
        return find_reported(tx, device)


def said(number: int) -> Reported:
    return Reported(revision=number, state="applied")


async def test_a_report_is_on_disk_when_it_is_acknowledged(disk: Disk, reports: Reports) -> None:
    await reports.recorded("d1", said(7))
    assert stored(disk, "d1").revision == 7


async def test_many_reports_share_commits_and_all_are_acknowledged(disk: Disk, reports: Reports) -> None:
    before, acknowledged = disk.store.figures().commits, []
    done = asyncio.Event()

    def heard(error: BaseException | None) -> None:
        acknowledged.append(error)
        if len(acknowledged) == 1000:
            done.set()

    for number in range(1000):
        reports.record(f"d{number % 200}", said(number), announce=False, done=heard)
    await asyncio.wait_for(done.wait(), 10)
    assert set(acknowledged) == {None}
    assert disk.store.figures().commits - before < 10
    assert [stored(disk, f"d{number}").revision for number in (0, 199)] == [800, 999]


async def test_only_announced_reports_are_told(disk: Disk, reports: Reports) -> None:
    notes: list[object] = []
    disk.store.on_commit(notes.extend)
    reports.record("d1", said(1), announce=False)
    await reports.recorded("d2", said(2))
    assert notes == [DevicesReported((("lamp-2", said(2)),))]


async def test_a_report_of_a_deleted_device_is_dropped_and_acknowledged(disk: Disk, reports: Reports) -> None:
    await reports.recorded("gone", said(1))
    assert stored(disk, "gone") == Reported()


async def test_a_full_disk_keeps_the_newest_of_each_link_until_there_is_room(
    disk: Disk, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports_module, "RETRY_S", 0.001)
    disk.is_full = True
    acknowledged: list[int] = []
    everything = asyncio.Event()

    def done(number: int) -> Callable[[BaseException | None], None]:
        def heard(error: BaseException | None) -> None:
            assert error is None
            acknowledged.append(number)
            if number == 49:
                everything.set()

        return heard

    for number in range(50):
        reports.record("d1", said(number), announce=True, done=done(number))
    while disk.refused < 5:  # noqa: ASYNC110 (counts several)
        await asyncio.sleep(0.001)
    assert acknowledged == []
    assert len(reports._waiting) <= 1
    disk.is_full = False
    await asyncio.wait_for(everything.wait(), 5)
    assert acknowledged == [49]
    assert stored(disk, "d1").revision == 49


async def test_who_waits_for_the_answer_is_told_that_the_disk_is_full(disk: Disk, reports: Reports) -> None:
    disk.is_full = True
    with pytest.raises(StorageFull):
        await asyncio.wait_for(reports.recorded("d1", said(1)), 5)


async def test_one_damaged_record_fails_its_own_device_and_no_other(disk: Disk, reports: Reports) -> None:
    with disk.store._env.begin(write=True) as txn:
        txn.put(b"d1", b"\x01\x00damaged", db=disk.store._databases["ids"])
    results = await asyncio.gather(
        *(reports.recorded(f"d{number}", said(3)) for number in range(4)), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), Internal, type(None), type(None)]
    await reports.recorded("d2", said(4))
    assert stored(disk, "d2").revision == 4


async def test_reports_during_closing_are_refused_rather_than_left_hanging(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    reports = Reports(store, clock=lambda: NOW)
    await store.close()
    with pytest.raises(Internal):
        await asyncio.wait_for(reports.recorded("d1", said(1)), 5)


async def test_one_that_waits_and_fails_stops_no_other(
    disk: Disk, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: BaseException | None) -> None:
        raise RuntimeError("a fault of ours")

    reports.record("d1", said(1), announce=False, done=fail)
    await asyncio.wait_for(reports.recorded("d2", said(2)), 5)
    await asyncio.wait_for(reports.recorded("d1", said(3)), 5)
    assert stored(disk, "d1").revision == 3
    assert "who waited for a report failed" in caplog.text


async def test_the_latest_is_what_was_said_last_although_it_is_not_on_disk(disk: Disk, reports: Reports) -> None:
    await reports.recorded("d1", said(1))
    disk.is_full = True
    reports.record("d1", said(2), announce=False)
    assert (reports.latest("d1").revision, stored(disk, "d1").revision) == (2, 1)
    with pytest.raises(StorageFull):
        await asyncio.wait_for(reports.recorded("d1", said(3)), 5)
    assert reports.latest("d1").revision == 2
    assert reports.latest("d2") == Reported()


async def test_the_latest_is_read_from_the_store_once_it_is_there(disk: Disk, reports: Reports) -> None:
    await reports.recorded("d1", said(1))
    await disk.store.write(lambda tx: tx.put("reported", b"d1", pack(said(2))))
    assert reports.latest("d1").revision == 2


# --- hellos ---------------------------------------------------------------------------------------------------


async def greeting(reports: Reports, numbers: range, *, now: float = 0.0) -> None:
    """A device that says hello as often as that, each time after what it said before was written."""
    for number in numbers:
        reports.greeted("d1", said(number), announce=True, now=now)
        await reports.recorded("d2", said(1))


async def test_a_device_that_says_hello_again_and_again_is_written_seldom(
    disk: Disk, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    disk.store.on_commit(written.extend)
    await greeting(reports, range(1, HELLOS_A_MINUTE + 1))
    monkeypatch.setattr(reports_module, "LATE_S", 3600.0)
    await greeting(reports, range(100, 150))

    assert stored(disk, "d1").revision == HELLOS_A_MINUTE
    assert reports.latest("d1").revision == 149
    told = [name for note in written if isinstance(note, DevicesReported) for name, _ in note.reports]
    assert told.count("lamp-1") == HELLOS_A_MINUTE


async def test_the_newest_of_many_hellos_is_written_in_the_end(
    disk: Disk, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports_module, "LATE_S", 0.0)
    await greeting(reports, range(1, 40))
    await until(lambda: stored(disk, "d1").revision == 39)

    assert reports.latest("d1").revision == 39


async def test_a_report_is_written_at_once_and_outlives_the_hello_before_it(disk: Disk, reports: Reports) -> None:
    await greeting(reports, range(1, 20))
    await reports.recorded("d1", said(50))
    reports._take_late()
    await reports.recorded("d2", said(1))

    assert stored(disk, "d1").revision == reports.latest("d1").revision == 50


# --- retry ----------------------------------------------------------------------------------------------------

REFUSING = Reported(revision=3, digest="ab", state="rejected", refused="ab")


@pytest.fixture
async def lamp(disk: Disk) -> None:
    """``lamp-1`` is an object, too."""
    record = ObjectRecord(kind="Device", name="lamp-1", spec={}, id="d1")
    await disk.store.write(lambda tx: tx.put("objects", object_key("Device", "lamp-1"), pack(record)))


async def settled(reports: Reports) -> None:
    """Everything that was said before is on disk."""
    await reports.recorded("d2", said(1))


async def test_a_retry_is_not_undone_by_a_hello_that_waited(disk: Disk, reports: Reports, lamp: None) -> None:
    await greeting(reports, range(1, 20))
    reports.greeted("d1", REFUSING, announce=False, now=0.0)
    await reports.retry("lamp-1", ADA)
    assert reports.latest("d1").refused == ""

    reports._take_late()
    await settled(reports)
    assert stored(disk, "d1").refused == ""


async def test_a_retry_is_not_undone_by_a_report_that_waited(disk: Disk, reports: Reports, lamp: None) -> None:
    reports.record("d1", REFUSING, announce=False)
    await reports.retry("lamp-1", ADA)
    assert reports.latest("d1").refused == ""

    await settled(reports)
    assert stored(disk, "d1").refused == ""


async def test_a_retry_is_not_undone_by_what_is_said_while_it_is_written(
    disk: Disk, reports: Reports, lamp: None
) -> None:
    retrying = asyncio.create_task(reports.retry("lamp-1", ADA))
    await asyncio.sleep(0)
    reports.record("d1", REFUSING, announce=False)
    await settled(reports)
    await retrying
    await settled(reports)

    assert stored(disk, "d1").refused == reports.latest("d1").refused == ""


async def test_a_retry_is_not_undone_by_a_report_that_waited_for_the_disk(
    disk: Disk, reports: Reports, lamp: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports_module, "RETRY_S", 0.001)
    acknowledged: list[BaseException | None] = []
    disk.is_full = True
    reports.record("d1", REFUSING, announce=False, done=acknowledged.append)
    await until(lambda: disk.refused > 0)
    disk.is_full = False
    await reports.retry("lamp-1", ADA)
    await until(lambda: bool(acknowledged))

    assert acknowledged == [None]
    assert (stored(disk, "d1").refused, stored(disk, "d1").revision) == ("", 0)


async def test_a_retry_that_cannot_be_written_forgives_nothing(disk: Disk, reports: Reports, lamp: None) -> None:
    reports.record("d1", REFUSING, announce=False)
    disk.is_full = True
    with pytest.raises(StorageFull):
        await reports.retry("lamp-1", ADA)
    with pytest.raises(NotFound):
        await reports.retry("lamp-99", ADA)

    assert reports.latest("d1") == REFUSING


async def test_after_a_minute_hellos_are_written_at_once_again(disk: Disk, reports: Reports) -> None:
    await greeting(reports, range(1, 20))
    await greeting(reports, range(30, 31), now=61.0)

    assert stored(disk, "d1").revision == 30
