"""A store's file that is cut off, bent or somebody else's is refused and left alone, and never ends the process."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.datafile import check_file
from hengd.store import Store, Transaction
from hengd.transactions import open_databases, open_environment
from henge_protocol.errors import Internal
from tests.hengd.damage import Damage, outcomes

PAGE = 4096
META_BYTES = 136
FLAGS = (28, 29, 76, 77)
LAST_PAGE_AND_NUMBER = range(120, 136)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has been in use: records were replaced, pages are free, the last page is one of them."""
    path = tmp_path_factory.mktemp("store")
    rng = random.Random(2)

    async def use() -> None:
        store = Store.open(path, map_bytes=1024**2)
        for number in range(60):
            record = (b"k%02d" % (number % 40), rng.randbytes(rng.choice([50, 700, 5000])))
            await store.write(lambda tx, record=record: tx.put("objects", *record))
        await store.close()

    asyncio.run(use())
    return path


def met(folder: Path, damages: list[Damage]) -> Counter[str]:
    return Counter(outcomes(folder, damages))


_KEYS = st.binary(min_size=1, max_size=3) | st.integers(0, 400).map(lambda number: b"key-%d" % number)
_WRITES = st.tuples(_KEYS, st.sampled_from([None, 0, 100, 1500, 3000, 4070, 9000, 20000, 200_000]))


@given(st.lists(st.lists(_WRITES, max_size=12), max_size=12))
def test_what_the_engine_wrote_is_never_refused(transactions: list[list[tuple[bytes, int | None]]]) -> None:
    """Whatever is written, shortened, lengthened and deleted within one commit and in the next ones."""
    with tempfile.TemporaryDirectory() as name:
        env = open_environment(Path(name), 64 * 1024**2)
        databases = open_databases(env)
        for writes in transactions:
            with env.begin(write=True) as txn:
                for key, size in writes:
                    if size is None:
                        txn.delete(key, db=databases["objects"])
                    else:
                        txn.put(key, bytes(size), db=databases["objects"])
        env.close()

        check_file(Path(name) / "data.mdb")


@pytest.mark.parametrize("seed", range(4))
def test_a_store_of_many_pages_is_never_refused(tmp_path: Path, seed: int) -> None:
    """Deep trees, lists of free pages that fill pages of their own, a last page that was given back."""
    rng = random.Random(seed)
    env = open_environment(tmp_path, 64 * 1024**2)
    databases = open_databases(env)
    for _ in range(60):
        with env.begin(write=True) as txn:
            for _ in range(rng.choice([1, 30, 400])):
                key = b"%d" % rng.randrange(3000)
                if rng.random() < 0.45:
                    txn.delete(key, db=databases["reported"])
                else:
                    txn.put(key, bytes(rng.choice([10, 400, 2500, 6000])), db=databases["reported"])
        if rng.random() < 0.1:
            with env.begin(write=True) as txn:
                txn.drop(databases["reported"], delete=False)
        check_file(tmp_path / "data.mdb")
    env.close()


def test_a_file_cut_off_anywhere_is_refused(folder: Path) -> None:  # F18
    size = (folder / "data.mdb").stat().st_size
    cuts = [*range(0, 300, 8), *range(PAGE, size, 1000), *range(PAGE, size, PAGE), size - 1]
    assert met(folder, [{"keep": cut} for cut in cuts]) == {"refused": len(cuts)}


def test_every_cut_of_pages_in_use_is_refused_and_of_free_ones_means_nothing(tmp_path: Path) -> None:
    """Values of many pages: a cut through one leaves its first page, and all that the structure knows of it."""

    async def use() -> None:
        store = Store.open(tmp_path, map_bytes=1024**2)
        for number in range(12):
            await store.write(lambda tx, number=number: tx.put("objects", b"k%d" % (number % 3), bytes(20_000)))
        await store.write(lambda tx: tx.delete("objects", b"k2"))
        await store.close()

    asyncio.run(use())
    size = (tmp_path / "data.mdb").stat().st_size
    found = outcomes(tmp_path, [{"keep": cut} for cut in range(2 * PAGE, size, PAGE)])
    assert set(found) <= {"refused", "same"}
    assert "refused" in found
    first_same = found.index("same") if "same" in found else len(found)
    assert "refused" not in found[first_same:]


async def test_a_value_that_became_shorter_within_a_commit_is_sound(tmp_path: Path) -> None:
    """It keeps the pages that it had; ``lmdb.verify`` takes that for damage."""
    store = Store.open(tmp_path, map_bytes=1024**2)

    def operation(tx: Transaction) -> None:
        tx.put("objects", b"a", bytes(20_000))
        tx.put("objects", b"a", b"")

    await store.write(operation)
    await store.close()
    store = Store.open(tmp_path, map_bytes=1024**2)
    with store.read() as tx:
        assert tx.get("objects", b"a") == b""
    await store.write(lambda tx: tx.put("objects", b"b", bytes(50_000)))
    await store.close()
    check_file(tmp_path / "data.mdb")


def test_a_page_of_zeros_is_refused_or_was_free_or_is_found_when_read(folder: Path) -> None:
    size = (folder / "data.mdb").stat().st_size
    found = met(folder, [{"zero": at, "size": PAGE} for at in range(0, size, PAGE)])
    assert set(found) <= {"refused", "same", "found when read"}
    assert found["refused"] > 5


def test_a_bent_bit_in_a_meta_page_is_refused_or_means_nothing(folder: Path) -> None:
    """All bits of what matters most, and every seventh of the rest."""
    data = (folder / "data.mdb").read_bytes()
    numbers = [int.from_bytes(data[page * PAGE + 16 + 128 :][:8], "little") for page in (0, 1)]
    older = numbers.index(min(numbers))
    known = 8 * (older * PAGE + 16 + 128) + 1  # in the older number: it looks like the newest, one commit back, whole
    bits = {
        8 * (page * PAGE + 16 + byte) + bit
        for page in (0, 1)
        for byte in range(META_BYTES)
        for bit in range(8)
        if byte in FLAGS or byte in LAST_PAGE_AND_NUMBER or (byte * 8 + bit) % 7 == 0
    }
    found = met(folder, [{"flip": bit} for bit in sorted(bits - {known, known + 8 * PAGE})])
    assert set(found) == {"refused", "same"}
    assert found["refused"] > 300


def test_a_bent_bit_anywhere_else_is_refused_or_found_when_read(folder: Path) -> None:  # D11
    size = (folder / "data.mdb").stat().st_size
    rng = random.Random(8)
    found = met(folder, [{"flip": rng.randrange(8 * 2 * PAGE, 8 * size)} for _ in range(200)])
    assert set(found) == {"refused", "same", "found when read"}


@pytest.mark.parametrize("content", [b"", b"\x00" * 8192, b"not a database at all" * 500, b"SQLite format 3\x00" * 300])
def test_what_is_no_lmdb_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:  # F17
    file = tmp_path / "data.mdb"
    file.write_bytes(content)
    with pytest.raises(Internal) as refused:
        check_file(file)
    assert (refused.value.code, str(file) in refused.value.message) == ("storage_foreign", True)
    assert "backup" in refused.value.cure


def test_a_file_of_another_engine_is_refused(tmp_path: Path) -> None:  # F17
    lmdb.open(str(tmp_path), lib_version=1).close()
    with pytest.raises(Internal) as refused:
        open_environment(tmp_path, 1024**2)
    assert (refused.value.code, "LMDB 0.9" in refused.value.message) == ("storage_foreign", True)


def test_a_new_file_and_one_with_a_single_commit_are_whole(tmp_path: Path) -> None:
    env = open_environment(tmp_path, 1024**2)
    env.close()
    check_file(tmp_path / "data.mdb")
    env = open_environment(tmp_path, 1024**2)
    env.open_db(b"one")
    env.close()
    check_file(tmp_path / "data.mdb")
