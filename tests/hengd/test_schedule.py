from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hengd.schedule import Plan, Schedule, plan_of
from hengd.settings import load_settings
from henge_protocol import sealedfile
from henge_protocol.errors import Invalid
from henge_protocol.sealedfile import read_header, unseal
from tests.service import Admin, Service

PASSPHRASE = b"correct horse battery staple"
NIGHT = datetime(2027, 3, 1, 2, 0, tzinfo=UTC).timestamp()
DAY_S = 86_400


class Nights:
    """A schedule of a running daemon, with a clock that is set."""

    def __init__(self, daemon: Service, folder: Path, passphrase_file: Path) -> None:
        self.now = NIGHT
        self.folder = folder
        self.passphrase_file = passphrase_file
        plan = Plan(folder, DAY_S, 3, str(passphrase_file))
        self.schedule = Schedule(daemon.app._backups, plan, clock=lambda: self.now)

    @property
    def names(self) -> list[str]:
        """What lies in the folder."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
async def nights(daemon: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    monkeypatch.setattr(sealedfile, "_MEMORY_KIB", 32)
    monkeypatch.setattr(sealedfile, "_ITERATIONS", 1)
    folder, passphrase_file = tmp_path / "usb", tmp_path / "passphrase"
    folder.mkdir()
    passphrase_file.write_bytes(PASSPHRASE + b"\n")
    passphrase_file.chmod(0o600)
    return Nights(daemon, folder, passphrase_file)


async def test_one_is_made_a_day_and_the_newest_are_kept(nights: Nights) -> None:
    for _ in range(5):
        await nights.schedule.turn()
        nights.now += DAY_S / 2
        await nights.schedule.turn()
        nights.now += DAY_S / 2

    assert nights.names == [f"henge-2027030{day}T020000Z.backup" for day in (3, 4, 5)]
    newest = nights.folder / nights.names[-1]
    assert newest.stat().st_mode & 0o777 == 0o600
    with newest.open("rb") as file:
        header = read_header(file.read)
        assert sum(map(len, unseal(header, file.read, PASSPHRASE))) > 1000


async def test_other_files_in_the_folder_are_left_alone(nights: Nights) -> None:
    (nights.folder / "henge-by-hand.backup").write_bytes(b"mine")
    (nights.folder / "henge-20279999T000000Z.backup").write_bytes(b"no such day")
    for _ in range(4):
        await nights.schedule.turn()
        nights.now += DAY_S

    assert {"henge-by-hand.backup", "henge-20279999T000000Z.backup"} < set(nights.names)


async def test_a_backup_that_a_wrong_clock_dated_years_ahead_stops_none(nights: Nights) -> None:
    nights.now += 10 * 365 * DAY_S
    await nights.schedule.turn()
    nights.now = NIGHT
    await nights.schedule.turn()

    assert "henge-20270301T020000Z.backup" in nights.names


async def test_backups_dated_in_the_future_push_no_new_one_out(nights: Nights) -> None:
    for year in (2031, 2032, 2033, 2034):
        (nights.folder / f"henge-{year}0101T000000Z.backup").write_bytes(b"of a clock that was ahead")
    for _ in range(5):
        await nights.schedule.turn()
        nights.now += DAY_S

    assert [name for name in nights.names if "2027" in name] == [
        f"henge-2027030{day}T020000Z.backup" for day in (3, 4, 5)
    ]
    assert len(nights.names) == 7


async def test_a_folder_that_is_not_there_costs_no_copy_and_no_record(nights: Nights, admin: Admin) -> None:
    nights.folder.rmdir()
    for _ in range(3):
        await nights.schedule.turn()

    assert await acts(admin) == []
    nights.folder.mkdir()
    await nights.schedule.turn()
    assert await acts(admin) == ["backup.begun", "backup.made"]


async def acts(admin: Admin) -> list[str]:
    """What the audit says of backups."""
    items = (await admin.ok("GET", "/v1/audit"))["items"]
    return [one["what"] for one in items if one["what"].startswith("backup")]


async def test_a_backup_without_the_key_of_the_secrets_says_so(
    nights: Nights, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data_dir / "keys" / "secrets.key").unlink()
    await nights.schedule.turn()

    assert len(nights.names) == 1
    assert [record.event for record in caplog.records if record.levelname == "WARNING"] == ["backup_without_key"]  # type: ignore[attr-defined]


async def test_older_ones_that_cannot_go_are_no_failed_backup(
    nights: Nights, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hengd.schedule._drop", _stays)
    await nights.schedule.turn()

    assert len(nights.names) == 1
    assert [record.event for record in caplog.records if record.levelname == "WARNING"] == ["backup_kept_too_many"]  # type: ignore[attr-defined]


def _stays(_plan: Plan, _now: float) -> None:
    raise OSError(1, "Operation not permitted")


async def test_trouble_is_logged_and_leaves_nothing_behind(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    nights.passphrase_file.chmod(0o644)
    await nights.schedule.turn()
    nights.passphrase_file.unlink()
    await nights.schedule.turn()
    nights.passphrase_file.write_bytes(b"short\n")
    nights.passphrase_file.chmod(0o600)
    await nights.schedule.turn()
    nights.passphrase_file.write_bytes(PASSPHRASE)
    nights.folder.rmdir()
    await nights.schedule.turn()

    assert [record.event for record in caplog.records if record.name == "hengd.backup"] == ["backup_failed"] * 4  # type: ignore[attr-defined]
    nights.folder.mkdir()
    await nights.schedule.turn()
    assert len(nights.names) == 1


async def test_a_write_that_fails_leaves_the_older_backups_and_no_rest(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nights.schedule.turn()
    nights.now += DAY_S
    before = nights.names
    with monkeypatch.context() as patch:
        patch.setattr("hengd.schedule.os.fsync", _full)
        await nights.schedule.turn()
    assert nights.names == before
    await nights.schedule.turn()
    assert len(nights.names) == 2


def _full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_half_a_plan_is_refused() -> None:
    assert plan_of(load_settings(flags={})) is None
    with pytest.raises(Invalid) as refusal:
        plan_of(load_settings(flags={"backup.folder": "/mnt/usb"}))
    assert refusal.value.code == "bad_setting"
    full = plan_of(load_settings(flags={"backup.folder": "/mnt/usb", "backup.passphrase_file": "/etc/p"}))
    assert full == Plan(Path("/mnt/usb"), DAY_S, 7, "/etc/p")
