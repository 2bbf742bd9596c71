"""``doctor`` and ``support`` against a real daemon."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hengectl.commands import doctor
from hengectl.refusal import CONFLICT, NO, NOT_FOUND, OK
from tests.hengectl.conftest import Face
from tests.service import Admin, Clock, Service, connected, device, group, schema


@pytest.fixture
def operator(daemon: Service, face: Face, monkeypatch: pytest.MonkeyPatch) -> Face:
    """A person beside the daemon, in a network where nobody announces anything."""
    monkeypatch.setattr(doctor, "sightings", list)
    face.environ(HENGE_SOCKET=str(daemon.socket))
    return face


async def test_a_new_daemon_has_nothing_to_mend_and_a_backup_to_make(operator: Face) -> None:
    ran = await operator.run("doctor")

    assert ran.code == OK, ran
    assert "none was ever made" in ran.out
    assert "0 things to mend" in ran.out
    assert "hengectl backup -o FILE" in ran.out


async def test_a_device_that_is_stuck_is_to_be_mended(operator: Face, daemon: Service, admin: Admin) -> None:
    await admin.apply(schema())
    lamp = await daemon.join(admin, "lamp-1", schema="lamp")
    async with connected(daemon, lamp) as link:
        await link.report(await link.config(), "rejected", reason="invalid")
    await admin.until("lamp-1", config="quarantined")

    ran = await operator.run("doctor", "--no-mdns", "-o", "json")

    assert ran.code == NO
    [found] = [one for one in json.loads(ran.out) if one["verdict"] == "bad"]
    assert (found["what"], found["text"]) == ("devices", "1 quarantined")


async def test_clocks_that_are_apart_are_found(operator: Face, clock: Clock) -> None:
    clock.jump(3600)

    ran = await operator.run("doctor", "--no-mdns")

    assert ran.code == NO
    assert "clock" in ran.out


def unpacked(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: json.loads(file.read()) for name, file in files.items() if file}


async def test_a_support_file_shows_how_things_are_and_no_value(
    operator: Face, daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    await admin.ok("PUT", "/v1/secrets/wifi", {"value": "canary-secret"})
    await admin.apply(schema(), group("attic", wifi={"ssid": "canary-of-a-group"}), device("lamp-1", color="blue"))
    await admin.ok(
        "PATCH", "/v1/devices/lamp-1/overrides", {"set": {"wifi": {"ssid": "canary-for-a-time"}}, "for_s": 60}
    )
    token = (await admin.ok("POST", "/v1/tokens", {"name": "x"}))["token"]
    path = tmp_path / "s.tar.gz"

    ran = await operator.run("support", "-o", str(path), "--no-mdns")

    assert ran.code == OK, ran
    found = unpacked(path)
    assert {name.removeprefix("henge-support/") for name in found} == {
        "doctor.json", "status.json", "versions.json", "schemas.json", "groups.json", "devices.json", "events.json",
    }  # fmt: skip
    [lamp] = found["henge-support/devices.json"]
    assert lamp["spec"] == {"schema": "lamp", "fields": ["color"]}
    text = json.dumps(found)
    for hidden in ("canary-secret", token, '"blue"', "canary-of-a-group", "canary-for-a-time"):
        assert hidden not in text.replace(found["henge-support/status.json"]["ca_fingerprint"], "")
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_support_file_replaces_nothing(operator: Face, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")

    there = await operator.run("support", "-o", str(tmp_path / "there"), "--no-mdns")
    nowhere = await operator.run("support", "-o", str(tmp_path / "no" / "s"), "--no-mdns")

    assert (there.code, nowhere.code) == (CONFLICT, NOT_FOUND)
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('"192.168.7.23"', '"192.168.0.0/16"'),
        ('"2001:db8:1:2::7"', '"2001:db8::/32"'),
        ('"127.0.0.1:4365"', '"127.0.0.1:4365"'),
        ('"2026-11-26T13:36:01Z"', '"2026-11-26T13:36:01Z"'),
        ('"1.2.3"', '"1.2.3"'),
        ('"192.168.7.23:4364"', '"192.168.0.0/16:4364"'),
    ],
)
def test_addresses_lose_their_end_and_times_do_not(text: str, shown: str) -> None:
    assert doctor._masked(text) == shown
