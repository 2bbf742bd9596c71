from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.transactions import Ahead, Transaction, open_databases, open_environment


@given(
    stored=st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=4), max_size=8),
    changes=st.dictionaries(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=4), max_size=8),
    prefix=st.binary(max_size=1),
)
def test_the_store_ahead_reads_as_it_will_once_the_changes_are_written(
    stored: dict[bytes, bytes], changes: dict[bytes, bytes | None], prefix: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(open_environment(Path(folder), 2**20)) as env:
        databases = open_databases(env)
        with env.begin(write=True) as txn:
            tx = Transaction(txn, databases)
            for key, payload in stored.items():
                tx.put("objects", key, payload)
            ahead = Ahead(tx, "objects", changes)
            told = list(ahead.scan("objects", prefix)), ahead.keys("objects", prefix)
            each = {key: ahead.get("objects", key) for key in {*stored, *changes}}
            assert list(tx.scan("objects")) == sorted(stored.items()), "nothing is written by looking"

            for key, change in changes.items():
                if change is None:
                    tx.delete("objects", key)
                else:
                    tx.put("objects", key, change)
            assert told == (list(tx.scan("objects", prefix)), tx.keys("objects", prefix))
            assert each == {key: tx.get("objects", key) for key in each}


def test_the_store_ahead_is_read_only_in_the_ways_that_know_of_the_changes(tmp_path: Path) -> None:
    with closing(open_environment(tmp_path, 2**20)) as env:
        databases = open_databases(env)
        with env.begin() as txn:
            ahead = Ahead(Transaction(txn, databases), "objects", {b"a": b"1"})

            assert (ahead.count("ids"), ahead.get("ids", b"a"), ahead.keys_after("ids", b"", most=3)) == (0, None, [])
            with pytest.raises(LookupError):
                ahead.count("objects")
            with pytest.raises(LookupError):
                ahead.scan_back("objects")
            with pytest.raises(LookupError):
                ahead.keys_after("objects", b"", most=1)
