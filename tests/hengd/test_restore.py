"""A backup taken from a running daemon becomes the same fleet elsewhere, or nothing at all."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hengd import archive, restore
from hengd.journal import read_ends
from hengd.restore import Restored
from henge_protocol import sealedfile
from henge_protocol.errors import Conflict, Denied, HengeError, Invalid, StorageFull
from tests.service import Admin, Clock, Service, connected, device, group, schema, verify_store

PASSPHRASE = "correct horse battery staple"
NODE = {"type": "object", "properties": {"psk": {"type": "string", "writeOnly": True}, "note": {"type": "string"}}}


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real construction at a thousandth of its cost."""
    monkeypatch.setattr(sealedfile, "_MEMORY_KIB", 32)
    monkeypatch.setattr(sealedfile, "_ITERATIONS", 1)


async def taken(admin: Admin, passphrase: str = PASSPHRASE) -> bytes:
    """A backup of the running daemon."""
    answer = await admin.call("POST", "/v1/backup", {"passphrase": passphrase})
    assert answer.status == 200, answer.body
    return answer.body


def put_back(backup: bytes, path: Path, passphrase: str = PASSPHRASE, **options: Any) -> Restored:
    file = path.parent / "henge.backup"
    file.write_bytes(backup)
    with file.open("rb") as stream:
        return restore.restore(
            stream, path, passphrase.encode(), **{"now": time.time(), "allow_network_fs": False} | options
        )


def left_of_tries(folder: Path) -> list[Path]:
    return list(folder.glob(".henge*"))


async def elsewhere(path: Path, clock: Clock) -> Service:
    service = Service(path, clock)
    await service.start()
    return service


async def test_everything_comes_back_on_another_machine(
    daemon: Service, admin: Admin, clock: Clock, tmp_path: Path
) -> None:
    await admin.ok("PUT", "/v1/secrets/wifi", {"value": "canary-in-the-wifi"})
    await admin.apply(schema("node", **NODE), group("attic", "room=attic", note="here"), device("lamp-2", "node"))
    lamp = await daemon.join(admin, "lamp-1", schema="node")
    await admin.set("lamp-1", psk={"$secret": "wifi"})
    async with connected(daemon, lamp) as link:
        await link.apply_next()
    before = await admin.ok("GET", "/v1/devices")
    backup = await taken(admin)
    assert b"canary-in-the-wifi" not in backup

    done = put_back(backup, tmp_path / "other")

    assert (done.about["devices"], done.about["revision"]) == (2, before["metadata"]["revision"])
    assert done.epoch != before["metadata"]["epoch"]
    other = await elsewhere(tmp_path / "other", clock)
    try:
        async with other.admin() as there:
            after = await there.ok("GET", "/v1/devices")
            assert [item["spec"] for item in after["items"]] == [item["spec"] for item in before["items"]]
            assert after["metadata"]["epoch"] == done.epoch
            assert [one["what"] for one in (await there.ok("GET", "/v1/audit"))["items"]][-2:] == [
                "backup.begun", "store.restored",
            ]  # fmt: skip
            await there.set("lamp-1", note="moved")
            async with connected(other, lamp) as link:  # untouched: the same certificate, the same trust
                assert await link.apply_next() == {"psk": "canary-in-the-wifi", "note": "moved"}
            await there.until("lamp-1", config="in-sync")
    finally:
        await other.stop()
        other.clean()
    verify_store(tmp_path / "other")


async def test_what_ran_something_newer_is_held_until_a_person_decides(
    daemon: Service, admin: Admin, clock: Clock, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-2"))
    lamp = await daemon.join(admin, "lamp-1", schema="lamp")
    backup = await taken(admin)
    await admin.set("lamp-1", color="red")
    async with connected(daemon, lamp) as link:
        config = await link.config()
        await link.report(config)
    put_back(backup, tmp_path / "other")
    other = await elsewhere(tmp_path / "other", clock)
    try:
        async with other.admin() as there:
            ahead = {"epoch": config.epoch, "revision": config.revision, "digest": config.digest, "state": "applied"}
            async with connected(other, lamp, **ahead) as link:
                for colour in ("green", "blue", "red", "blue"):  # far beyond the revision that the device knows
                    await there.set("lamp-2", color=colour)
                    await there.set("lamp-1", color=colour)
                assert (await there.until("lamp-1", config="ahead"))["connection"] == "online"
                assert link.documents == []
                await there.ok("POST", "/v1/devices/lamp-1/retry")
                assert (await link.apply_next())["color"] == "blue"
            await there.until("lamp-1", config="in-sync")
    finally:
        await other.stop()
        other.clean()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"once upon a time\n", "no journal"),
        (b"\x00\xff", "no journal"),
        ("/dev/zero", "not a file"),
    ],
    ids=["missing", "text", "binary", "F01 a device"],
)
async def test_revocations_that_cannot_be_read_are_refused_before_anything_is_written(
    admin: Admin, tmp_path: Path, content: bytes | str | None, said: str
) -> None:
    """Devices that were thrown out would be let in again, and nobody would have been told."""
    backup, journal = await taken(admin), tmp_path / "revocations"
    if isinstance(content, str):
        journal.symlink_to(content)
    elif content is not None:
        journal.write_bytes(content)
    with pytest.raises(HengeError, match=said) as refused:
        put_back(backup, tmp_path / "other", journal=journal)

    assert (refused.value.code, str(journal) in refused.value.message) == ("bad_file", True)
    assert not (tmp_path / "other").exists()


async def test_a_journal_of_a_daemon_that_threw_nobody_out_is_one(admin: Admin, tmp_path: Path) -> None:
    backup, journal = await taken(admin), tmp_path / "revocations"
    journal.touch()

    assert put_back(backup, tmp_path / "other", journal=journal).revocations == 0


async def test_tokens_are_void_and_revocations_made_since_are_not(
    daemon: Service, admin: Admin, clock: Clock, tmp_path: Path
) -> None:
    await admin.apply(schema())
    lamp, thief = await daemon.join(admin, "lamp-1", schema="lamp"), await daemon.join(admin, "lamp-2", schema="lamp")
    await admin.ok("POST", "/v1/tokens", {"name": "lamp-3"})
    backup = await taken(admin)
    await admin.ok("POST", "/v1/devices/lamp-2/revoke")
    journal = daemon.data_dir / "data" / "revocations"

    done = put_back(backup, tmp_path / "other", journal=journal)

    assert done.revocations == 1
    other = await elsewhere(tmp_path / "other", clock)
    try:
        async with other.admin() as there:
            assert (await there.ok("GET", "/v1/tokens"))["items"] == []
        async with connected(other, lamp):
            pass
        async with other.remote(thief) as remote:
            refused = await remote.refused("GET", "/v1/device/config")
            assert refused.code == "certificate_revoked"
    finally:
        await other.stop()
        other.clean()


async def test_a_dry_run_reads_everything_and_leaves_nothing(admin: Admin, tmp_path: Path) -> None:
    backup = await taken(admin)

    (tmp_path / ".henge-try-killed").mkdir()

    assert put_back(backup, tmp_path / "other", only_try=True).about["devices"] == 0
    assert not (tmp_path / "other").exists()
    assert left_of_tries(tmp_path) == []


async def test_data_that_are_there_are_left_alone(daemon: Service, admin: Admin, data_dir: Path) -> None:
    backup = await taken(admin)
    with pytest.raises(Conflict) as running:
        put_back(backup, data_dir)
    await daemon.stop()
    before = {path: path.read_bytes() for path in (data_dir / "data").rglob("*") if path.is_file()}
    with pytest.raises(Conflict) as there:
        put_back(backup, data_dir)
    assert (running.value.code, there.value.code) == ("already_running", "exists")
    assert {path: path.read_bytes() for path in (data_dir / "data").rglob("*") if path.is_file()} == before
    await daemon.start()


async def test_another_key_of_secrets_is_not_overwritten(admin: Admin, tmp_path: Path) -> None:
    backup = await taken(admin)
    key = tmp_path / "other" / "keys" / "secrets.key"
    key.parent.mkdir(parents=True, mode=0o700)
    (tmp_path / "other").chmod(0o700)
    key.write_bytes(b"00" * 32 + b"\n")
    key.chmod(0o600)

    with pytest.raises(Conflict) as refusal:
        put_back(backup, tmp_path / "other")

    assert refusal.value.code == "exists"
    assert not (tmp_path / "other" / "data").exists()
    key.unlink()
    put_back(backup, tmp_path / "other")
    assert (tmp_path / "other" / "data").exists()


async def test_a_disk_that_is_too_small_is_refused_before_a_byte_is_written(
    admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await taken(admin)
    monkeypatch.setattr(restore, "free_bytes", lambda folder: len(backup) // 2)

    with pytest.raises(StorageFull):
        put_back(backup, tmp_path / "other")

    assert {path.name for path in (tmp_path / "other").iterdir()} == {"hengd.lock"}


async def test_damage_anywhere_and_wrong_passphrases_are_refused_with_nothing_written(
    admin: Admin, tmp_path: Path
) -> None:
    backup = await taken(admin)
    step = max(1, len(backup) // 60)
    bent = [backup[:at] + bytes([backup[at] ^ 1]) + backup[at + 1 :] for at in range(20, len(backup), step)]
    for bad in [*bent, *(backup[:end] for end in range(0, len(backup), step)), backup + b"x", b"PK\3\4", b""]:
        with pytest.raises(HengeError) as refusal:
            put_back(bad, tmp_path / "other")
        assert refusal.value.code in ("bad_backup", "wrong_passphrase")
    with pytest.raises(HengeError) as refusal:
        put_back(backup, tmp_path / "other", "some other passphrase")
    assert refusal.value.code == "wrong_passphrase"
    assert not (tmp_path / "other").exists()


def sealed(small: dict[str, bytes], store: bytes, tmp_path: Path, **about: Any) -> bytes:
    """A backup of our own making."""
    (tmp_path / "data.mdb").write_bytes(store)
    header = {"kind": "backup", "format": 1, "fleet": "f", "made": "", "devices": 0, "revision": 0} | about
    pieces = archive.pack(small, tmp_path / "data.mdb")
    return b"".join(sealedfile.seal(pieces, PASSPHRASE.encode(), header, salt=bytes(16)))


@pytest.mark.parametrize(
    ("about", "reason"),
    [({"kind": "letter"}, "letter"), ({"format": 99}, "newer henge"), ({"kind": None}, "None")],
)
def test_sealed_files_that_are_no_backups_or_of_a_newer_henge(tmp_path: Path, about: Any, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        put_back(sealed({}, b"", tmp_path, **about), tmp_path / "other")

    assert refusal.value.code == "bad_backup"
    assert reason in refusal.value.message


async def test_a_backup_whose_store_is_damaged_restores_nothing(daemon: Service, admin: Admin, tmp_path: Path) -> None:
    await daemon.stop()
    data = daemon.data_dir / "data"
    small = {name: (data / name).read_bytes() for name in archive.AUTHORITIES}
    store = (data / "db" / "data.mdb").read_bytes()
    for bad in (store[: len(store) // 2], b"", b"x" * 8192):
        with pytest.raises(HengeError):
            put_back(sealed(small, bad, tmp_path), tmp_path / "other")
        assert not (tmp_path / "other" / "data").exists()
    put_back(sealed(small, store, tmp_path), tmp_path / "other")
    await daemon.start()


def authorities_alone(data: Path, *, without: str = "") -> bytes:
    """A sealed file of the authorities of a data folder and of nothing else."""
    pieces = io.BytesIO()
    with tarfile.open(fileobj=pieces, mode="w") as made:
        for name in archive.AUTHORITIES:
            if name != without:
                made.add(data / name, arcname=name)
    header = {"kind": "authorities", "fleet": "f", "made": "2026-11-26T00:00:00Z"}
    return b"".join(sealedfile.seal([pieces.getvalue()], PASSPHRASE.encode(), header, salt=bytes(16)))


@pytest.mark.parametrize("whole", [True, False], ids=["of a backup", "alone"])
async def test_the_authorities_found_an_empty_store_that_devices_trust(
    daemon: Service, admin: Admin, clock: Clock, tmp_path: Path, whole: bool
) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    await admin.apply(schema(), device("lamp-2"))
    before = await admin.ok("GET", "/v1/status")
    file = await taken(admin) if whole else authorities_alone(daemon.data_dir / "data")

    done = put_back(file, tmp_path / "other", only_authorities=whole)

    assert done.founded
    assert not (tmp_path / "other" / "keys").exists()
    other = await elsewhere(tmp_path / "other", clock)
    try:
        async with other.admin() as there:
            after = await there.ok("GET", "/v1/status")
            assert [after[name] for name in ("fleet", "ca_fingerprint")] == [
                before[name] for name in ("fleet", "ca_fingerprint")
            ]
            assert after["epoch"] == done.epoch != before["epoch"]
            assert [after[name] for name in ("revision", "schemas", "groups")] == [0, 0, 1]
            assert [one["what"] for one in (await there.ok("GET", "/v1/audit"))["items"]] == ["store.restored"]
        async with other.remote(lamp) as remote:
            assert (await remote.refused("GET", "/v1/device/config")).code == "unknown_certificate"
    finally:
        await other.stop()
        other.clean()
    verify_store(tmp_path / "other")


async def test_revocations_outlive_the_store_that_is_founded_anew(
    daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    thief, lost = await daemon.join(admin, "lamp-1"), await daemon.join(admin, "lamp-2")
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    backup = await taken(admin)
    await admin.ok("POST", "/v1/devices/lamp-2/revoke")
    journal = daemon.data_dir / "data" / "revocations"

    done = put_back(backup, tmp_path / "other", only_authorities=True, journal=journal)

    ends = read_ends(tmp_path / "other" / "data" / "revocations")
    assert (done.revocations, set(ends)) == (1, {("device", thief.id), ("device", lost.id)})


async def test_a_damaged_store_does_not_keep_the_authorities_from_founding_a_new_one(
    daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    small = {name: (daemon.data_dir / "data" / name).read_bytes() for name in archive.AUTHORITIES}
    backup = sealed(small, b"x" * 8192, tmp_path)

    assert put_back(backup, tmp_path / "tried", only_authorities=True, only_try=True).founded
    assert not (tmp_path / "tried").exists()
    assert put_back(backup, tmp_path / "other", only_authorities=True).founded


@pytest.mark.parametrize("name", archive.AUTHORITIES)
async def test_authorities_that_are_not_all_there_found_nothing(daemon: Service, tmp_path: Path, name: str) -> None:
    file = authorities_alone(daemon.data_dir / "data", without=name)

    with pytest.raises(Invalid, match=name) as refusal:
        put_back(file, tmp_path / "other")

    assert refusal.value.code == "bad_backup"
    assert not (tmp_path / "other" / "data").exists()


async def test_a_restore_that_is_cut_at_any_step_leaves_nothing_or_a_folder_that_starts(
    admin: Admin, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await taken(admin)
    steps: list[Callable[..., Any]] = [
        restore.unpack, restore.Authorities, restore.verify_copy, restore.own_key, restore.make_private_dir,
    ]  # fmt: skip
    for step in steps:
        with monkeypatch.context() as patch:

            def cut(*_arguments: Any, **_named: Any) -> Any:
                raise KeyboardInterrupt

            patch.setattr(restore, step.__name__, cut)
            with pytest.raises(KeyboardInterrupt):
                put_back(backup, tmp_path / "other")
        assert not (tmp_path / "other" / "data").exists()
    put_back(backup, tmp_path / "other")
    other = await elsewhere(tmp_path / "other", clock)
    await other.stop()
    other.clean()


@pytest.mark.root
async def test_a_folder_of_another_user_is_not_filled_with_files_that_he_cannot_read(
    admin: Admin, tmp_path: Path
) -> None:
    backup = await taken(admin)
    (tmp_path / "other").mkdir(mode=0o700)
    os.chown(tmp_path / "other", 65534, 65534)

    with pytest.raises(Denied) as refusal:
        put_back(backup, tmp_path / "other")

    assert "nobody" in refusal.value.message
    assert f"sudo -u nobody hengd restore --data-dir {tmp_path / 'other'} " in (refusal.value.cure or "")
    assert os.listdir(tmp_path / "other") == []
