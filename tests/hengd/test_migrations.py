"""Stores of older formats: kept as they were, brought to today's whole or not at all; newer ones are left alone."""

from __future__ import annotations

import logging
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hengd import migrations
from hengd.cli import _restored
from hengd.migrations import Migrated, Migration, Opening
from hengd.records import META_KEY, Meta, ObjectRecord, object_key, pack, unpack
from hengd.transactions import DATABASES, Reader, Transaction, open_environment
from hengd.welcome import welcome
from henge_protocol import sealedfile
from henge_protocol.errors import HengeError, Internal, StorageFull
from tests.hengd.test_restore import put_back, taken
from tests.hengd.test_store import small_disk
from tests.service import Admin, Clock, Service, device, schema, verify_store

FLEET = "0" * 26
MIB = 1024 * 1024
LAMP = object_key("Device", "lamp-1")


# ---- a format that never was: in format 0 nobody knew what a device's note was called ------------------------


def name_the_note(tx: Transaction) -> None:
    """To format 1: what format 0 called ``remark`` is called ``note``."""
    for key, payload in list(tx.scan("objects", b"Device/")):
        record = unpack(ObjectRecord, payload)
        notes = {"note": record.annotations["remark"]} if "remark" in record.annotations else record.annotations
        tx.put("objects", key, pack(msgspec.structs.replace(record, annotations=notes)))


TO_1: Mapping[int, Migration] = {1: name_the_note}


def make_old(tx: Transaction) -> None:
    """Today's store as format 0 would have it."""
    record = unpack(ObjectRecord, tx.get("objects", LAMP) or b"")
    tx.put("objects", LAMP, pack(msgspec.structs.replace(record, annotations={"remark": "attic"})))
    meta = unpack(Meta, tx.get("meta", META_KEY) or b"")
    tx.put("meta", META_KEY, pack(msgspec.structs.replace(meta, format=0)))


def note_in(folder: Path) -> tuple[int, dict[str, str]]:
    """Format and lamp-1's annotations of a store that nobody has open."""
    with closing(open_environment(folder, 64 * MIB)) as env:
        databases = {name: env.open_db(name.encode(), create=False) for name in ("meta", "objects")}
        with env.begin() as txn:
            tx = Reader(txn, databases)
            meta = unpack(Meta, tx.get("meta", META_KEY) or b"")
            return meta.format, unpack(ObjectRecord, tx.get("objects", LAMP) or b"").annotations


@pytest.fixture
async def old(data_dir: Path, clock: Clock) -> AsyncIterator[Service]:
    """A daemon that has been stopped, whose store is of format 0 now."""
    service = Service(data_dir, clock)
    await service.start()
    async with service.admin() as admin:
        await admin.apply(schema(), device("lamp-1", color="red"))
    await service.app._store.write(make_old)
    await service.stop()
    yield service
    service.clean()


async def annotations(service: Service) -> dict[str, str]:
    async with service.admin() as admin:
        found: dict[str, str] = (await admin.ok("GET", "/v1/devices/lamp-1"))["metadata"]["annotations"]
        return found


async def refused(service: Service) -> HengeError:
    with pytest.raises(HengeError) as refusal:
        await service.start()
    return refusal.value


async def test_an_older_store_is_kept_as_it_was_and_brought_up_to_date(
    old: Service, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old.migrations = TO_1
    await old.start()
    kept = data_dir / "data" / "before-format-1"
    assert await annotations(old) == {"note": "attic"}
    assert old.app.migrated == Migrated(0, 1, kept)
    assert "was of format 0 and is of format 1 now" in caplog.text
    told = "\n".join(welcome(old.app, old.app._settings, old.app._environment))
    assert f"The store was of format 0 and is of format 1 now. As it was it lies in\n  {kept}\n" in told
    await old.stop()
    verify_store(data_dir)

    assert note_in(kept) == (0, {"remark": "attic"})
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, kept / "data.mdb")] == [0o700, 0o600]
    assert not (kept / "data.mdb.part").exists()


async def test_the_second_start_migrates_nothing_and_keeps_the_copy(old: Service, data_dir: Path) -> None:
    old.migrations = TO_1
    await old.start()
    await old.stop()
    kept = (data_dir / "data" / "before-format-1" / "data.mdb").read_bytes()
    await old.start()
    assert old.app.migrated is None
    assert await annotations(old) == {"note": "attic"}
    await old.stop()

    assert (data_dir / "data" / "before-format-1" / "data.mdb").read_bytes() == kept


async def test_the_kept_copy_put_back_is_the_store_as_it_was(old: Service, data_dir: Path) -> None:
    old.migrations = TO_1
    await old.start()
    await old.stop()
    kept = data_dir / "data" / "before-format-1" / "data.mdb"
    (data_dir / "data" / "db" / "data.mdb").write_bytes(kept.read_bytes())
    assert note_in(data_dir / "data" / "db") == (0, {"remark": "attic"})

    await old.start()
    assert await annotations(old) == {"note": "attic"}, "and it can be brought up to date again"
    await old.stop()


async def test_a_step_that_fails_changes_nothing_and_the_start_is_tried_again(old: Service, data_dir: Path) -> None:
    def fails(tx: Transaction) -> None:
        name_the_note(tx)
        raise Internal("storage_corrupt", "a record makes no sense")

    old.migrations = {1: fails}
    assert (await refused(old)).code == "storage_corrupt"
    assert note_in(data_dir / "data" / "db") == (0, {"remark": "attic"})

    old.migrations = TO_1
    await old.start()
    assert await annotations(old) == {"note": "attic"}
    await old.stop()


async def test_without_room_for_the_copy_nothing_is_begun(
    old: Service, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = (data_dir / "data" / "db" / "data.mdb").stat().st_size
    monkeypatch.setattr(migrations, "free_bytes", lambda folder: used)
    old.migrations = TO_1
    error = await refused(old)
    assert isinstance(error, StorageFull)
    assert "nothing was changed" in error.cure
    assert not (data_dir / "data" / "before-format-1").exists()
    assert note_in(data_dir / "data" / "db") == (0, {"remark": "attic"})

    monkeypatch.undo()
    await old.start()
    await old.stop()


async def test_a_store_too_old_for_every_step_is_refused(old: Service, data_dir: Path) -> None:
    error = await refused(old)

    assert error.code == "storage_foreign"
    assert "has format 0, and this hengd knows no way to 1" in error.message
    assert not (data_dir / "data" / "before-format-1").exists()


# ---- on a store alone ----------------------------------------------------------------------------------------


@contextmanager
def environment(folder: Path, map_bytes: int = MIB) -> Iterator[Any]:
    folder.mkdir(exist_ok=True)
    with closing(open_environment(folder, map_bytes)) as env:
        yield env


def make_store(folder: Path, number: int, *, without: str = "") -> bytes:
    """A store of this format with two numbers in it; its bytes."""
    with environment(folder) as env:
        with env.begin(write=True) as txn:
            databases = {name: env.open_db(name.encode(), txn=txn) for name in DATABASES if name != without}
            tx = Transaction(txn, databases)
            tx.put("meta", META_KEY, pack(Meta(format=number, fleet=FLEET, epoch="e")))
            tx.put("keys", b"steps", b"")
        env.sync(True)
    return (folder / "data.mdb").read_bytes()


def steps_in(folder: Path) -> tuple[int, bytes]:
    """The format, and which steps were made."""
    with environment(folder) as env:
        databases = {name: env.open_db(name.encode(), create=False) for name in ("meta", "keys")}
        with env.begin() as txn:
            tx = Reader(txn, databases)
            return unpack(Meta, tx.get("meta", META_KEY) or b"").format, tx.get("keys", b"steps") or b""


def step(number: int) -> Migration:
    """A step that leaves its number behind."""
    return lambda tx: tx.put("keys", b"steps", (tx.get("keys", b"steps") or b"") + b"%d" % number)


def test_steps_are_made_in_order_from_the_store_s_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "FORMAT", 4)
    table = {number: step(number) for number in (4, 3, 2, 1)}
    for begin, made in ((0, b"1234"), (2, b"34"), (4, b"")):
        folder = tmp_path / str(begin)
        make_store(folder, begin)
        opening = Opening(folder, fleet=FLEET, keep=None, migrations=table)
        with environment(folder) as env:
            opening.databases(env)
        assert steps_in(folder) == (4, made)
        assert opening.migrated == (Migrated(begin, 4, None) if made else None)


def test_a_gap_in_the_table_is_refused_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "FORMAT", 3)
    before = make_store(tmp_path / "db", 0)
    opening = Opening(tmp_path / "db", fleet=FLEET, keep=tmp_path, migrations={1: step(1), 3: step(3)})
    with environment(tmp_path / "db") as env, pytest.raises(Internal, match="knows no way to 2"):
        opening.databases(env)

    assert (tmp_path / "db" / "data.mdb").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["db"]


def test_a_newer_store_is_not_touched_even_where_it_lacks_one_of_our_databases(tmp_path: Path) -> None:
    before = make_store(tmp_path / "db", 2, without="audit_ends")
    opening = Opening(tmp_path / "db", fleet=FLEET, keep=tmp_path)
    with environment(tmp_path / "db") as env, pytest.raises(Internal) as refusal:
        opening.databases(env)
    assert (tmp_path / "db" / "data.mdb").read_bytes() == before
    assert (refusal.value.code, "format 2" in refusal.value.message) == ("storage_foreign", True)
    assert "restore a backup of this version" in refusal.value.cure

    make_store(tmp_path / "before-format-2", 1)
    with environment(tmp_path / "db") as env, pytest.raises(Internal) as refusal:
        opening.databases(env)
    kept, place = tmp_path / "before-format-2" / "data.mdb", tmp_path / "db" / "data.mdb"
    assert refusal.value.cure.endswith(f"go back to the store as it was before: cp {kept} {place}")


def test_a_store_of_other_keys_is_not_migrated(tmp_path: Path) -> None:
    before = make_store(tmp_path / "db", 0)
    opening = Opening(tmp_path / "db", fleet="1" * 26, keep=tmp_path, migrations={1: step(1)})
    with environment(tmp_path / "db") as env, pytest.raises(Internal, match="is of fleet"):
        opening.databases(env)

    assert (tmp_path / "db" / "data.mdb").read_bytes() == before


def test_a_step_that_needs_a_larger_map_gets_it(tmp_path: Path) -> None:
    def grows(tx: Transaction) -> None:
        for number in range(200):
            tx.put("documents", b"%d" % number, bytes(20_000))
        step(1)(tx)

    make_store(tmp_path / "db", 0)
    opening = Opening(tmp_path / "db", fleet=FLEET, keep=tmp_path, migrations={1: grows})
    with environment(tmp_path / "db", map_bytes=MIB) as env:
        opening.databases(env)
        assert env.info()["map_size"] > MIB

    assert steps_in(tmp_path / "db") == (1, b"1")


def test_a_copy_of_an_earlier_time_makes_way(tmp_path: Path) -> None:
    make_store(tmp_path / "db", 0)
    make_store(tmp_path / "before-format-1", 7)
    (tmp_path / "before-format-1").chmod(0o700)
    with environment(tmp_path / "db") as env:
        Opening(tmp_path / "db", fleet=FLEET, keep=tmp_path, migrations={1: step(1)}).databases(env)

    assert steps_in(tmp_path / "before-format-1") == (0, b"")


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond this size, as on a disk that becomes full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_in_the_middle_of_the_copy_leaves_everything_as_it_was(tmp_path: Path) -> None:
    before = make_store(tmp_path / "db", 0)
    opening = Opening(tmp_path / "db", fleet=FLEET, keep=tmp_path, migrations={1: step(1)})
    with environment(tmp_path / "db") as env, files_up_to(8192), pytest.raises(StorageFull) as refusal:
        opening.databases(env)

    assert "cannot be kept in" in refusal.value.message
    assert list((tmp_path / "before-format-1").iterdir()) == []
    assert (tmp_path / "db" / "data.mdb").read_bytes() == before


@pytest.mark.root
def test_a_disk_that_is_full_in_the_middle_of_a_step_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    def grows(tx: Transaction) -> None:
        for number in range(2000):
            tx.put("documents", b"%d" % number, bytes(20_000))

    with small_disk(tmp_path, 16) as disk:
        make_store(disk / "db", 0)
        opening = Opening(disk / "db", fleet=FLEET, keep=disk, migrations={1: grows})
        with environment(disk / "db", map_bytes=64 * MIB) as env, pytest.raises(StorageFull) as refusal:
            opening.databases(env)

        assert "cannot be brought to format 1" in refusal.value.message
        assert opening.migrated is None
        assert steps_in(disk / "db") == steps_in(disk / "before-format-1") == (0, b"")


# ---- killed at every moment ----------------------------------------------------------------------------------

KILLED = """
import os, resource, signal, sys
from pathlib import Path
from hengd.migrations import Opening
from tests.hengd.test_migrations import FLEET, environment, make_store, step

calls, moment = 0, 0

def reach():
    global calls
    calls += 1
    if calls == moment:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(call):
    def counting(*arguments, **options):
        reach()
        done = call(*arguments, **options)
        reach()
        return done
    return counting

class Environment:
    def __init__(self, env):
        self._env = env
    def __getattr__(self, name):
        found = getattr(self._env, name)
        return counted(found) if name in ("copyfd", "begin") else found

def migrate(place):
    for name in ("mkdir", "open", "fsync", "replace", "close"):
        setattr(os, name, counted(getattr(os, name)))
    with environment(place / "db") as env:
        opening = Opening(place / "db", fleet=FLEET, keep=place, migrations={1: counted(step(1))})
        opening.databases(Environment(env))
        reach()

def killed(place):  # by which signal, 0 = not at all
    place.mkdir()
    make_store(place / "db", 0)
    child = os.fork()
    if not child:
        migrate(place)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])

top = Path(sys.argv[1])
while killed(top / str(moment := moment + 1)):
    pass
print(moment)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
calls, moment = 0, 0
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
before = os.fork
def limited():
    child = before()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    return child
os.fork = limited
print(killed(top / "halfway"))
"""
"""Migrates store after store, each killed at a later moment; the last one in the midst of the copy."""


def test_a_kill_at_any_moment_leaves_the_old_store_or_the_new_one_and_the_next_start_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    moments, ended = map(int, done.stdout.split())
    assert (moments > 20, ended) == (True, signal.SIGXFSZ)
    halfway = tmp_path / "halfway" / "before-format-1"
    assert [path.name for path in halfway.iterdir()] == ["data.mdb.part"], "no half copy stands under its name"

    seen = set()
    for place in tmp_path.iterdir():
        kept = place / "before-format-1"
        seen.add(state := steps_in(place / "db"))
        assert state == (0, b"") or steps_in(kept) == (0, b""), "what is new has its old self kept"
        with environment(place / "db") as env:
            Opening(place / "db", fleet=FLEET, keep=place, migrations={1: step(1)}).databases(env)
        assert (steps_in(place / "db"), steps_in(kept)) == ((1, b"1"), (0, b""))
        assert not (kept / "data.mdb.part").exists()
    assert seen == {(0, b""), (1, b"1")}


# ---- backups of an older format ------------------------------------------------------------------------------


@pytest.fixture
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real construction at a thousandth of its cost."""
    monkeypatch.setattr(sealedfile, "_MEMORY_KIB", 32)
    monkeypatch.setattr(sealedfile, "_ITERATIONS", 1)


@pytest.mark.usefixtures("_cheap_keys")
async def test_a_backup_of_an_older_format_is_restored_in_today_s(
    daemon: Service, admin: Admin, clock: Clock, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    await daemon.app._store.write(make_old)
    backup = await taken(admin)
    tried = put_back(backup, tmp_path / "other", migrations=TO_1, only_try=True)
    assert tried.migrated == Migrated(0, 1, None)
    assert not (tmp_path / "other").exists()
    with pytest.raises(Internal, match="knows no way to 1"):
        put_back(backup, tmp_path / "other")
    assert not (tmp_path / "other" / "data").exists()

    done = put_back(backup, tmp_path / "other", migrations=TO_1)
    assert "It was made by an older henge: format 0 became 1." in _restored(done, tmp_path, dry_run=False)
    other = Service(tmp_path / "other", clock)
    await other.start()
    try:
        assert await annotations(other) == {"note": "attic"}
    finally:
        await other.stop()
        other.clean()
    verify_store(tmp_path / "other")
