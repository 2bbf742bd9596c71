"""The journal of revocations: added to, read back, forgiving about what a power cut leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hengd.journal import append_end, read_ends
from henge_protocol.errors import Internal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revocations"


def test_a_journal_that_is_not_there_says_nothing(path: Path) -> None:
    assert read_ends(path) == {}


def test_what_was_added_is_read_back_exactly_and_the_last_end_counts(path: Path) -> None:
    for ended in (1_800_000_000.123456, 1_800_000_001.5, 1_800_000_000.9):
        append_end(path, ended, "device", "0abc", durable=True)
    append_end(path, 3.0, "admin", "ada", durable=False)

    assert read_ends(path) == {("device", "0abc"): 1_800_000_001.5, ("admin", "ada"): 3.0}
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_name_of_a_new_journal_is_on_disk_before_the_revocation_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    append_end(path, 1.0, "device", "a", durable=False)
    assert synced == []
    append_end(path, 2.0, "device", "a", durable=True)

    assert synced == [str(path), str(path.parent)]


def test_lines_of_whole_seconds_are_read(path: Path) -> None:
    path.write_text("1800000000 device 0abc\n")

    assert read_ends(path) == {("device", "0abc"): 1_800_000_000.0}


def test_a_torn_last_line_is_ignored_and_does_not_spoil_the_next(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("5.0 device a\n6.0 admin ad")

    assert read_ends(path) == {("device", "a"): 5.0}
    assert caplog.records == []
    append_end(path, 7.0, "device", "b", durable=True)
    assert read_ends(path) == {("device", "a"): 5.0, ("device", "b"): 7.0}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x device a",
        b"nan device a",
        b"inf device a",
        b"1 root a",
        b"1 device",
        b"1 device ",
        b"1 device a b",
        b"\xff",
    ],
)
def test_a_bad_line_is_warned_of_and_skipped(path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"1.0 device a\n" + line + b"\n2.0 device b\n")

    assert read_ends(path) == {("device", "a"): 1.0, ("device", "b"): 2.0}
    assert [record.__dict__["event"] for record in caplog.records] == ["journal_unreadable"]
    assert "line 2" in caplog.text


def test_a_journal_that_cannot_be_read_is_no_empty_one(path: Path) -> None:
    path.mkdir()
    with pytest.raises(Internal) as refusal:
        read_ends(path)

    assert refusal.value.code == "storage_failed"


def test_a_line_that_is_written_in_part_is_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, write = tmp_path / "journal", os.write
    append_end(journal, 1.0, "device", "a", durable=True)
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises(OSError, match="No space left"):
        append_end(journal, 2.0, "device", "b", durable=True)
    monkeypatch.undo()
    append_end(journal, 3.0, "device", "c", durable=True)

    assert read_ends(journal) == {("device", "a"): 1.0, ("device", "c"): 3.0}
