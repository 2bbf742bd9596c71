"""What the store promises: answered means on disk, refused means untouched, full means full and nothing worse."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from hengd import groupcommit
from hengd.apart import MAX_READINGS
from hengd.room import make_ballast
from hengd.store import Store
from hengd.transactions import Reader, Transaction, open_databases, open_environment
from henge_protocol.errors import HengeError, Internal, Limited, NotFound, StorageFull

MIB = 1024 * 1024


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path, map_bytes=64 * MIB)
    yield opened
    await opened.close()


def putting(key: bytes, value: bytes) -> Callable[[Transaction], None]:
    return lambda tx: tx.put("objects", key, value)


def raising(error: BaseException) -> Callable[[Transaction], None]:
    def operation(tx: Transaction) -> None:
        tx.put("objects", b"half", b"done")
        raise error

    return operation


def value_of(store: Store, key: bytes) -> bytes | None:
    with store.read() as tx:
        return tx.get("objects", key)


def on_disk(folder: Path) -> dict[bytes, bytes]:
    """What another process finds; the environment must not be open in this one."""
    env = open_environment(folder, 64 * MIB)
    try:
        databases = open_databases(env)
        with env.begin() as txn:
            return dict(Reader(txn, databases).scan("objects"))
    finally:
        env.close()


# --- commit -------------------------------------------------------------------------------------------------


async def test_what_was_answered_can_be_read_and_survives_closing(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    answer = await store.write(lambda tx: (tx.put("objects", b"a", b"1"), 42)[1])
    assert (answer, value_of(store, b"a")) == (42, b"1")
    await store.close()
    assert on_disk(tmp_path) == {b"a": b"1"}


async def test_the_answer_comes_after_the_commit(store: Store) -> None:
    """A reader that begins when the answer is there sees the write; one begun inside the operation does not."""
    during: list[bytes | None] = []

    def operation(tx: Transaction) -> None:
        tx.put("objects", b"a", b"1")
        with store._env.begin() as txn:
            during.append(Reader(txn, store._databases).get("objects", b"a"))

    await store.write(operation)
    assert (during, value_of(store, b"a")) == ([None], b"1")


async def test_operations_share_commits(store: Store) -> None:
    before = store.figures().commits
    await asyncio.gather(*(store.write(putting(b"%d" % number, b"x")) for number in range(300)))
    assert store.figures().commits - before < 20


async def test_operations_run_in_the_order_in_which_they_came(store: Store) -> None:
    await asyncio.gather(*(store.write(putting(b"a", b"%d" % number)) for number in range(100)))
    assert value_of(store, b"a") == b"99"


async def test_what_is_essential_waits_for_nothing_but_the_operation_that_runs(store: Store) -> None:
    order: list[str] = []
    running, go_on = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def submit(name: str, *, essential: bool = False) -> asyncio.Task[None]:
        return asyncio.create_task(store.write(lambda tx: order.append(name), essential=essential))

    def hold(turn: int) -> asyncio.Task[None]:
        def operation(tx: Transaction) -> None:
            order.append(f"long {turn}")
            running[turn].set()
            go_on[turn].wait(10)

        return asyncio.create_task(store.write(operation))

    tasks = [hold(0)]
    await asyncio.to_thread(running[0].wait, 10)
    tasks += [submit("queued"), submit("revocation", essential=True), hold(1), submit("change"), submit("report")]
    await asyncio.sleep(0)
    go_on[0].set()
    await asyncio.to_thread(running[1].wait, 10)
    tasks.append(submit("deletion", essential=True))
    await asyncio.sleep(0)
    go_on[1].set()
    await asyncio.gather(*tasks)

    assert order == ["long 0", "revocation", "queued", "long 1", "deletion", "change", "report"]


@pytest.mark.parametrize(
    "error", [NotFound("no_such_object", "not there"), ValueError("a fault of ours"), OSError(5, "the journal's disk")]
)
async def test_an_operation_that_raises_leaves_nothing_and_harms_no_neighbour(store: Store, error: Exception) -> None:
    failures: list[str] = []
    store.on_failure(failures.append)
    for _ in range(3):
        results = await asyncio.gather(
            store.write(putting(b"before", b"1")), store.write(raising(error)), store.write(putting(b"after", b"2")),
            return_exceptions=True,
        )  # fmt: skip
        assert results == [None, error, None]
    assert (value_of(store, b"before"), value_of(store, b"half"), value_of(store, b"after")) == (b"1", None, b"2")
    assert not failures


@pytest.mark.parametrize("key", [b"", b"k" * 600])
async def test_a_key_that_cannot_be_is_the_operations_fault_not_the_stores(store: Store, key: bytes) -> None:
    failures: list[str] = []
    store.on_failure(failures.append)
    for _ in range(3):
        results = await asyncio.gather(
            store.write(putting(key, b"")), store.write(putting(b"good", b"1")), return_exceptions=True
        )
        assert isinstance(results[0], HengeError)
        assert results[1] is None
    assert not failures


async def test_a_caller_that_is_cancelled_is_forgotten_and_its_write_kept(store: Store) -> None:
    holding, go_on = threading.Event(), threading.Event()
    first = asyncio.create_task(store.write(lambda tx: (holding.set(), go_on.wait(10))))
    await asyncio.to_thread(holding.wait, 10)
    second = asyncio.create_task(store.write(putting(b"a", b"1")))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    go_on.set()
    await store.write(lambda tx: None)
    assert value_of(store, b"a") == b"1"


# --- notes --------------------------------------------------------------------------------------------------


async def test_notes_of_committed_operations_are_heard_in_order_before_their_answers(store: Store) -> None:
    heard: list[object] = []
    store.on_commit(heard.extend)

    async def noting(number: int) -> None:
        await store.write(lambda tx: tx.note(number))
        assert number in heard
        heard.append(f"answer {number}")

    await asyncio.gather(*(noting(number) for number in range(50)))
    assert [one for one in heard if isinstance(one, int)] == list(range(50))


async def test_notes_of_refused_operations_are_never_heard(store: Store) -> None:
    heard: list[object] = []
    store.on_commit(heard.extend)

    def refused(tx: Transaction) -> None:
        tx.note("refused")
        raise NotFound("no_such_object", "not there")

    await asyncio.gather(store.write(lambda tx: tx.note("kept")), store.write(refused), return_exceptions=True)
    assert heard == ["kept"]


async def test_a_listener_that_fails_keeps_nobody_from_the_answer(store: Store, caplog: Any) -> None:
    def hook(notes: list[object]) -> None:
        raise RuntimeError("a listener's fault")

    store.on_commit(hook)
    await asyncio.wait_for(store.write(lambda tx: tx.note("heard")), 5)
    store.submit(lambda tx: None, lambda result, error: [].pop())
    await asyncio.wait_for(store.write(lambda tx: None), 5)
    assert "a listener of commits failed" in caplog.text


# --- reading ------------------------------------------------------------------------------------------------


async def test_scans_keep_to_their_prefix_and_their_order(store: Store) -> None:
    keys = [b"a", b"a/1", b"a/2", b"b"]
    await asyncio.gather(*(store.write(putting(key, key)) for key in reversed(keys)))
    with store.read() as tx:
        assert [key for key, _ in tx.scan("objects")] == keys
        assert [key for key, _ in tx.scan("objects", b"a/")] == [b"a/1", b"a/2"]
        assert list(tx.scan("objects", b"c")) == []
        assert [key for key, _ in tx.scan_back("objects")] == keys[::-1]
        assert [key for key, _ in tx.scan_back("objects", b"a/2")] == [b"a/1", b"a"]
        assert [key for key, _ in tx.scan_back("objects", b"zz")] == keys[::-1]
        assert list(tx.scan_back("objects", b"a")) == []
        assert tx.count("objects") == 4


async def test_a_view_stays_as_it_was_while_others_write(store: Store) -> None:
    await store.write(putting(b"a", b"1"))
    written = threading.Event()
    with store.read() as tx:
        store.submit(lambda later: (later.put("objects", b"a", b"2"), written.set()), lambda result, error: None)
        assert written.wait(10)
        assert tx.get("objects", b"a") == b"1"


def _bent(store: Store, key: bytes, bend: Callable[[bytearray], None]) -> None:
    with store._env.begin(write=True) as txn:
        database = store._databases["objects"]
        value = bytearray(txn.get(key, db=database))
        bend(value)
        txn.put(key, bytes(value), db=database)


def test_any_flipped_bit_of_a_record_is_found(tmp_path: Path) -> None:  # D11
    async def flip_all() -> None:
        store = Store.open(tmp_path)
        await store.write(putting(b"a", b'{"color":"red"}'))
        for bit in range(8 * (6 + len(b'{"color":"red"}'))):
            if bit // 8 == 1:
                continue  # the byte of flags, which has no meaning yet

            def bend(value: bytearray, bit: int = bit) -> None:
                value[bit // 8] ^= 1 << bit % 8

            _bent(store, b"a", bend)
            with pytest.raises(Internal) as found, store.read() as tx:
                tx.get("objects", b"a")
            assert found.value.code == "storage_corrupt"
            _bent(store, b"a", bend)
        assert value_of(store, b"a") == b'{"color":"red"}'
        await store.close()

    asyncio.run(flip_all())


async def test_a_record_in_the_wrong_place_is_found(store: Store) -> None:
    await store.write(putting(b"a", b"1"))
    with store._env.begin(write=True) as txn:
        txn.put(b"b", txn.get(b"a", db=store._databases["objects"]), db=store._databases["objects"])
    with pytest.raises(Internal):
        value_of(store, b"b")
    with pytest.raises(Internal), store.read() as tx:
        list(tx.scan("objects"))


# --- the map grows ------------------------------------------------------------------------------------------


async def test_the_map_grows_under_load_while_others_read(tmp_path: Path) -> None:
    store = Store.open(tmp_path, map_bytes=MIB // 2)
    rng, reading = random.Random(7), True
    blobs = {b"%05d" % number: rng.randbytes(3000) for number in range(2000)}

    async def read_on() -> int:
        seen = 0
        while reading:
            with store.read() as tx:
                for key, value in tx.scan("objects"):
                    assert blobs[key] == value
                    seen += 1
            await asyncio.sleep(0)
        return seen

    reader = asyncio.create_task(read_on())
    await asyncio.gather(*(store.write(putting(key, value)) for key, value in blobs.items()))
    reading = False
    assert await reader > 0
    assert store.figures().map_bytes >= 8 * MIB
    await store.close()
    assert on_disk(tmp_path) == blobs


async def test_one_operation_larger_than_the_map_fits_in_the_end(tmp_path: Path) -> None:
    store = Store.open(tmp_path, map_bytes=MIB // 2)

    def operation(tx: Transaction) -> None:
        for number in range(100):
            tx.put("objects", b"%d" % number, bytes(50_000))

    await store.write(operation)
    with store.read() as tx:
        assert tx.count("objects") == 100
    await store.close()


async def test_a_map_at_its_last_size_refuses_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groupcommit, "MAX_MAP_BYTES", MIB)
    store = Store.open(tmp_path, map_bytes=MIB)
    await store.write(putting(b"kept", b"1"))
    results = await asyncio.gather(
        store.write(putting(b"large", bytes(2 * MIB))), store.write(putting(b"small", b"2")), return_exceptions=True
    )
    assert isinstance(results[0], StorageFull)
    assert results[1] is None
    assert (value_of(store, b"kept"), value_of(store, b"small")) == (b"1", b"2")
    assert await store.write(lambda tx: tx.delete("objects", b"kept"))
    await store.close()


async def test_a_growth_that_the_writer_gave_up_never_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is blocked while the map is full: it must not resize the map later, under the writer's feet."""
    monkeypatch.setattr(groupcommit, "GROW_WAIT_S", 0.02)
    store = Store.open(tmp_path, map_bytes=MIB)
    waiting = store.write(putting(b"large", bytes(2 * MIB)))
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)
    while not store.figures().last_error:  # the loop's thread does nothing else meanwhile
        time.sleep(0.001)  # noqa: ASYNC251
    with pytest.raises(StorageFull):
        await task
    assert store.figures().map_bytes == MIB
    monkeypatch.setattr(groupcommit, "GROW_WAIT_S", 30.0)
    await store.write(putting(b"large", bytes(2 * MIB)))
    await store.close()


# --- long readings ------------------------------------------------------------------------------------------


async def test_a_long_reading_keeps_neither_the_writer_nor_the_loop_waiting_and_sees_one_moment(store: Store) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def operation(tx: Reader) -> list[bytes | None]:
        first = tx.get("objects", b"a")
        reading.set()
        go_on.wait(10)
        return [first, tx.get("objects", b"a")]

    await store.write(putting(b"a", b"1"))
    examined = asyncio.create_task(store.examine(operation))
    await asyncio.to_thread(reading.wait, 10)
    await store.write(putting(b"a", b"2"))
    assert value_of(store, b"a") == b"2"
    go_on.set()

    assert await examined == [b"1", b"1"]
    with pytest.raises(NotFound):
        await store.examine(lambda tx: _refuse(NotFound("no_such_object", "not there")))


def _refuse(error: Exception) -> None:
    raise error


async def test_the_map_grows_only_while_nobody_reads_on_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB would move the map under the reader's feet."""
    store = Store.open(tmp_path, map_bytes=MIB)
    grow, asked = store._apart.grow, asyncio.Event()
    monkeypatch.setattr(store._writer, "_grow_apart", lambda growth: (grow(growth), asked.set()))
    await store.write(putting(b"a", b"1"))
    reading, go_on = threading.Event(), threading.Event()

    def operation(tx: Reader) -> bytes | None:
        reading.set()
        go_on.wait(10)
        return tx.get("objects", b"a")

    examined = asyncio.create_task(store.examine(operation))
    await asyncio.to_thread(reading.wait, 10)
    written = asyncio.create_task(store.write(putting(b"large", bytes(2 * MIB))))
    await asked.wait()
    later = asyncio.create_task(store.examine(lambda tx: store.figures().map_bytes))
    await asyncio.sleep(0)
    assert store.figures().map_bytes == MIB
    go_on.set()
    await written

    assert await examined == b"1"
    assert await later > MIB
    await store.close()


async def test_only_so_many_readings_wait(store: Store) -> None:
    go_on = threading.Event()
    waiting = [asyncio.create_task(store.examine(lambda tx: go_on.wait(10))) for _ in range(MAX_READINGS)]
    await asyncio.sleep(0)
    with pytest.raises(Limited):
        await store.examine(lambda tx: None)
    go_on.set()

    assert all(await asyncio.gather(*waiting))
    assert await store.examine(lambda tx: 1) == 1


async def test_closing_waits_for_a_reading_whose_caller_is_gone(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    reading, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def operation(tx: Reader) -> None:
        reading.set()
        go_on.wait(10)
        tx.get("objects", b"a")
        ended.set()

    examined = asyncio.create_task(store.examine(operation))
    await asyncio.to_thread(reading.wait, 10)
    examined.cancel()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing

    assert ended.is_set()
    with pytest.raises(Internal):
        await store.examine(lambda tx: None)


# --- closing ------------------------------------------------------------------------------------------------


async def test_closing_commits_what_is_queued_and_answers_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path, map_bytes=MIB)
    writes = [asyncio.create_task(store.write(putting(b"%d" % number, bytes(4000)))) for number in range(1000)]
    await asyncio.sleep(0)
    await asyncio.wait_for(store.close(), 10)
    assert await asyncio.gather(*writes) == [None] * 1000
    assert len(on_disk(tmp_path)) == 1000


@pytest.mark.parametrize(
    ("number", "said", "cure"),
    [
        pytest.param(errno.ENOSPC, "is full", "free space", id="F21 no room"),
        pytest.param(errno.EDQUOT, "is full", "free space", id="F41 a quota"),
        pytest.param(errno.EROFS, "has become read-only", "make it writable again", id="F40 a worn-out card"),
    ],
)
async def test_a_disk_that_takes_no_more_is_told_as_what_it_is(
    store: Store, tmp_path: Path, number: int, said: str, cure: str
) -> None:
    with pytest.raises(StorageFull) as refused:
        await store.write(raising(OSError(number, os.strerror(number))))

    assert f"the disk of {tmp_path} {said}" in refused.value.message
    assert cure in refused.value.cure
    assert value_of(store, b"half") is None


async def test_after_closing_a_write_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    await store.close()
    with pytest.raises(Internal) as refused:
        await store.write(lambda tx: None)
    assert refused.value.code == "stopping"


# --- files that are not ours --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\x00" * 8192, b"not a database at all" * 500, b"SQLite format 3\x00" * 300])
async def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:  # F17
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(Internal) as refused:
        Store.open(tmp_path)
    assert refused.value.code == "storage_foreign"
    assert (tmp_path / "data.mdb").read_bytes() == content


@pytest.mark.parametrize("table", [b"", b"garbage" * 900, None])
async def test_the_table_of_readers_is_made_anew(tmp_path: Path, table: bytes | None) -> None:  # F19
    store = Store.open(tmp_path)
    await store.write(putting(b"key", b"value"))
    await store.close()
    (tmp_path / "lock.mdb").unlink()
    if table is not None:
        (tmp_path / "lock.mdb").write_bytes(table)
    again = Store.open(tmp_path)
    try:
        await again.write(putting(b"other", b"value"))

        assert value_of(again, b"key") == value_of(again, b"other") == b"value"
    finally:
        await again.close()


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = lmdb.open(str(tmp_path), max_dbs=4)
    with other.begin(write=True) as txn:
        txn.put(b"theirs", b"1", db=other.open_db(b"songs", txn=txn))
    other.close()
    with pytest.raises(Internal) as refused:
        Store.open(tmp_path)
    assert refused.value.code == "storage_foreign"
    again = lmdb.open(str(tmp_path), max_dbs=4, readonly=True)
    assert again.stat()["entries"] == 1
    again.close()


# --- the disk is full (D7) ----------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of its own; needs root."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs root to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Use up the disk to the last byte."""
    filler = disk / "filler"
    with open(filler, "ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return filler


@pytest.mark.root
async def test_a_full_disk_refuses_writes_keeps_reading_and_recovers(tmp_path: Path) -> None:
    with small_disk(tmp_path, 24) as disk:
        failures: list[str] = []
        make_ballast(disk)
        assert (disk / "ballast").stat().st_size >= 2 * MIB
        store = Store.open(disk, map_bytes=64 * MIB)
        store.on_failure(failures.append)
        await store.write(putting(b"kept", b"1"))
        for _ in range(3):
            filler = fill(disk)
            for _ in range(3):
                with pytest.raises(StorageFull) as refused:
                    await store.write(putting(b"a", bytes(5000)))
                assert refused.value.cure
            assert (value_of(store, b"kept"), value_of(store, b"a")) == (b"1", None)
            await store.write(putting(b"revoked", b"yes"), essential=True)
            assert value_of(store, b"revoked") == b"yes"
            filler.unlink()
            await store.write(putting(b"again", b"1"))
            make_ballast(disk)
            assert (disk / "ballast").exists()
        assert not failures
        await store.close()
        assert on_disk(disk) == {b"kept": b"1", b"revoked": b"yes", b"again": b"1"}


@pytest.mark.root
async def test_a_disk_that_fills_up_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with small_disk(tmp_path, 16) as disk:
        failures: list[str] = []
        store = Store.open(disk, map_bytes=64 * MIB)
        store.on_failure(failures.append)
        kept: dict[bytes, bytes] = {}
        rng, refused = random.Random(3), 0

        async def put(number: int) -> None:
            nonlocal refused
            key, value = b"%05d" % number, rng.randbytes(rng.randrange(200, 30_000))
            try:
                await store.write(putting(key, value))
            except StorageFull:
                refused += 1
            else:
                kept[key] = value

        for start in range(0, 2000, 100):
            await asyncio.gather(*(put(number) for number in range(start, start + 100)))
        assert refused > 0
        assert not failures
        await store.close()
        assert on_disk(disk) == kept


@pytest.mark.root
async def test_essential_operations_fit_even_when_others_took_the_last_byte_in_between(tmp_path: Path) -> None:
    with small_disk(tmp_path, 24) as disk:
        make_ballast(disk)
        store = Store.open(disk, map_bytes=64 * MIB)
        await asyncio.gather(*(store.write(putting(b"%d" % number, bytes(2000))) for number in range(500)))
        fill(disk)
        for number in range(100):
            await store.write(lambda tx, number=number: tx.delete("objects", b"%d" % number), essential=True)
            with pytest.raises(StorageFull):
                await store.write(putting(b"more", bytes(MIB)))
        with store.read() as tx:
            assert tx.count("objects") == 400
        await store.close()


async def test_a_store_beyond_use_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # D6
    """Two failed commits in a row, or one after which the environment is unusable."""
    failures: list[str] = []
    store.on_failure(failures.append)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def begin(self, **options: Any) -> Any:
            raise lmdb.DiskError("mdb_txn_commit: Input/output error")

    real = store._env
    monkeypatch.setattr(store._writer, "_env", Broken())
    for expected in ([], ["mdb_txn_commit: Input/output error"]):
        with pytest.raises(Internal) as refused:
            await store.write(lambda tx: None)
        assert refused.value.code == "storage_failed"
        await asyncio.sleep(0)
        assert failures == expected
    monkeypatch.undo()
    await store.write(lambda tx: None)


@pytest.mark.parametrize("fate", ["moved", "removed", "replaced", "folder moved"])
async def test_what_would_be_written_into_a_file_that_nobody_finds_again_is_refused(tmp_path: Path, fate: str) -> None:
    """Somebody puts a backup in place, or tidies up, under a running daemon."""
    folder = tmp_path / "db"
    folder.mkdir()
    store, failures = Store.open(folder), list[str]()
    store.on_failure(failures.append)
    await store.write(putting(b"kept", b"1"))
    if fate == "folder moved":
        folder.rename(tmp_path / "old")
    elif fate == "removed":
        (folder / "data.mdb").unlink()
    else:
        (folder / "data.mdb").rename(folder / "old.mdb")
    if fate == "replaced":
        (folder / "data.mdb").write_bytes((folder / "old.mdb").read_bytes())
    with pytest.raises(Internal, match="moved or removed") as looked:
        store.figures()
    with pytest.raises(Internal) as refused:
        await store.write(putting(b"lost", b"1"))
    await asyncio.sleep(0)
    assert refused.value.code == looked.value.code == "storage_failed"
    assert "start hengd again" in refused.value.cure == looked.value.cure
    assert "moved or removed" in failures[0]
    assert (value_of(store, b"kept"), value_of(store, b"lost")) == (b"1", None)
    await store.close()


async def test_a_fault_of_the_writer_is_answered_and_told_and_the_writer_lives(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    store.on_failure(failures.append)

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(store._writer, "_grow_if_needed", fail)
    with pytest.raises(Internal) as refused:
        await asyncio.wait_for(store.write(putting(b"a", b"1")), 5)
    assert refused.value.code == "storage_failed"
    assert failures == ["RuntimeError('a fault of ours')"]
    monkeypatch.undo()
    await asyncio.wait_for(store.write(putting(b"a", b"2")), 5)
    assert value_of(store, b"a") == b"2"
    assert store.is_writing


async def test_a_writer_that_has_ended_is_noticed(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.is_writing
    await store.close()
    assert not store.is_writing


async def test_reading_a_store_beyond_use_is_refused_as_that(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync LMDB refuses even reads; what a person asks meanwhile is no fault of the daemon's code."""

    class Broken:
        def begin(self, **options: Any) -> Any:
            raise lmdb.PanicError("mdb_txn_begin: MDB_PANIC: Update of meta page failed or environment had fatal error")

    monkeypatch.setattr(store, "_env", Broken())
    with pytest.raises(Internal) as refused, store.read():
        pass
    assert refused.value.code == "storage_failed"
    monkeypatch.undo()
