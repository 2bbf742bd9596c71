from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from henge_protocol import __version__
from henge_protocol.beacon import Sighting
from hengectl import checkup
from hengectl.checkup import Finding

NOW = 1_800_000_000.0
TOLD = "2027-01-15T08:00:00Z"
FLEET = "0" * 26
STATUS: dict[str, Any] = {
    "name": "kallisto", "version": __version__, "fleet": FLEET, "now": TOLD, "ca_fingerprint": "SHA256 7F3A 91C2",
    "data_dir": "/var/lib/henge",
    "store": {"free_disk_bytes": 2**33, "used_bytes": 2**20, "map_bytes": 2**30, "backed_up": TOLD},
    "devices": {"total": 3, "config": {"in-sync": 3}, "connection": {"online": 3}},
}  # fmt: skip


def verdicts(found: Finding | Iterable[Finding]) -> list[str]:
    return [one.verdict for one in ([found] if isinstance(found, Finding) else found)]


def changed(part: str, **fields: Any) -> dict[str, Any]:
    return STATUS | {part: STATUS[part] | fields}


def seen(name: str = "kallisto", fleet: str = FLEET, hint: str = "7f3a91c2", address: str = "192.168.1.5") -> Sighting:
    return Sighting(name, (address,), 4364, fleet, hint)


def test_a_daemon_that_is_well_has_nothing_to_mend() -> None:
    found = [
        checkup.daemon(STATUS, "/run/henge/admin.sock"), checkup.clock(STATUS, NOW, NOW), *checkup.warnings(STATUS),
        *checkup.store(STATUS), checkup.backup(STATUS, now=NOW), *checkup.devices(STATUS),
        *checkup.network(STATUS, [seen()]),
    ]  # fmt: skip

    assert set(verdicts(found)) == {"ok"}


@pytest.mark.parametrize(
    ("away_s", "verdict"), [(0, "ok"), (4, "ok"), (-4, "ok"), (60, "look"), (-60, "look"), (3600, "bad"), (-1e8, "bad")]
)
def test_clocks_that_differ_are_told_by_how_much(away_s: float, verdict: str) -> None:
    assert verdicts(checkup.clock(STATUS, NOW + away_s, NOW + away_s + 0.01)) == [verdict]


def test_a_slow_answer_is_no_difference_of_clocks() -> None:
    assert verdicts(checkup.clock(STATUS, NOW - 50, NOW + 50)) == ["ok"]


def test_room_backups_and_versions_are_looked_at() -> None:
    assert verdicts(checkup.store(changed("store", free_disk_bytes=1000))) == ["look", "ok"]
    assert verdicts(checkup.store(changed("store", used_bytes=2**30 - 1))) == ["ok", "look"]
    assert verdicts(checkup.backup(changed("store", backed_up=""), now=NOW)) == ["look"]
    assert verdicts(checkup.backup(STATUS, now=NOW + 8 * 86400)) == ["look"]
    assert verdicts(checkup.daemon(STATUS | {"version": "9.9"}, "x")) == ["look"]
    assert verdicts(checkup.warnings(STATUS | {"warnings": ["the clock"]})) == ["bad"]


def test_devices_that_are_stuck_are_bad_and_those_away_are_not() -> None:
    config, connection = {"in-sync": 1, "quarantined": 1, "ahead": 1}, {"online": 2, "offline": 1}

    found = list(checkup.devices(changed("devices", config=config, connection=connection)))

    assert verdicts(found) == ["bad", "bad", "look"]
    assert all(one.cure for one in found)


def test_the_network_shows_no_daemon_one_two_or_a_stranger_in_its_name() -> None:
    assert verdicts(checkup.network(STATUS, [])) == ["look"]
    assert verdicts(checkup.network(STATUS, [seen(fleet="1" * 26)])) == ["look"]
    assert verdicts(checkup.network(STATUS, [seen(), seen("old", address="192.168.1.6")])) == ["bad"]
    assert verdicts(checkup.network(STATUS, [seen(hint="ffff0000")])) == ["bad", "ok"]


@pytest.mark.parametrize("status", [{}, {"store": None, "devices": None, "warnings": None}, {"now": 7}])
def test_an_answer_of_another_form_is_survived(status: dict[str, Any]) -> None:
    checkup.daemon(status, "x")
    checkup.clock(status, NOW, NOW)
    checkup.backup(status, now=NOW)
    for found in (checkup.warnings(status), checkup.store(status), checkup.devices(status)):
        assert list(found) == []
    assert verdicts(checkup.network(status, [])) == ["look"]
