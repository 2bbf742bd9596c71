"""The data folder: founded whole or not at all, one daemon on it, on a disk that keeps its promises, private."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from hengd import datadir
from hengd.datadir import NETWORK_FILE_SYSTEMS, DataDir, file_system_of, open_data_dir
from henge_protocol import pki
from henge_protocol.errors import Conflict, Denied, HengeError, Internal, Invalid, Unavailable

NOW = 1_900_000_000.0
MIB = 1024 * 1024


def opened(path: Path) -> DataDir:
    return open_data_dir(path, allow_network_fs=False, now=NOW, map_bytes=64 * MIB)


def test_the_first_start_founds_and_the_second_finds(tmp_path: Path) -> None:
    first = opened(tmp_path / "state")
    pin = pki.fingerprint(first.authorities.server.certificate_der)
    first.close()
    second = opened(tmp_path / "state")
    assert (first.founded, second.founded) == (True, False)
    assert pki.fingerprint(second.authorities.server.certificate_der) == pin
    second.close()


@pytest.mark.parametrize("years", [11, 30, 100])
def test_nothing_is_founded_by_a_clock_far_ahead_and_all_is_well_once_it_is_set(tmp_path: Path, years: int) -> None:
    ahead = pki.EARLIEST_CREATION + years * 365.0 * pki.DAY_S
    with pytest.raises(Unavailable) as refusal:
        open_data_dir(tmp_path / "state", allow_network_fs=False, now=ahead, map_bytes=64 * MIB)
    assert (refusal.value.code, "timedatectl" in refusal.value.cure) == ("clock_suspect", True)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["hengd.lock"]

    opened(tmp_path / "state").close()


def test_a_clock_that_is_ahead_later_does_not_keep_a_daemon_from_its_folder(tmp_path: Path) -> None:
    opened(tmp_path / "state").close()
    later = NOW + 30 * 365 * pki.DAY_S

    open_data_dir(tmp_path / "state", allow_network_fs=False, now=later, map_bytes=64 * MIB).close()


def test_nobody_else_can_read_what_is_made(tmp_path: Path) -> None:  # S12, F16
    before = os.umask(0)
    try:
        opened(tmp_path / "state").close()
    finally:
        os.umask(before)
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.suffix == ".crt":
            assert mode == 0o644, path
        elif path.name != "ballast":
            assert mode == 0o600, (path, oct(mode))


class Cut(BaseException):
    """The power went away."""


CUT_POINTS = (
    "os.mkdir", "os.open", "os.write", "os.fsync", "os.replace", "os.rename", "os.fchmod", "datadir.make_authorities",
    "datadir.make_store", "datadir.sync_folder", "datadir.open_environment",
)  # fmt: skip


def test_a_first_start_that_is_cut_at_any_operation_starts_the_next_time(  # D9, F20
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that touches the disk is cut once, before and after it is done."""
    ended = 0
    for nth in range(500):
        folder = tmp_path / f"state-{nth}"
        with monkeypatch.context() as patch:
            calls = _counting(patch, cut_at=nth)
            try:
                opened(folder).close()
            except Cut:
                ended = nth
            if calls[0] <= nth:
                break
        opened(folder).close()
        assert not (folder / "data.new").exists()
        last = opened(folder)
        assert not last.founded
        last.close()
        shutil.rmtree(folder)
    assert ended > 100


def _counting(patch: pytest.MonkeyPatch, *, cut_at: int) -> list[int]:
    calls = [0]

    def cutting(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            number, calls[0] = calls[0], calls[0] + 2
            if number == cut_at:
                raise Cut
            answer = real(*arguments, **named)
            if number + 1 == cut_at:
                raise Cut
            return answer

        return call

    for name in CUT_POINTS:
        module, _, attribute = name.partition(".")
        owner: Any = os if module == "os" else datadir
        patch.setattr(owner, attribute, cutting(getattr(owner, attribute)))
    return calls


def test_a_second_daemon_is_refused_and_told_who_is_there(tmp_path: Path) -> None:  # D12
    first = opened(tmp_path / "state")
    with pytest.raises(Conflict) as refused:
        opened(tmp_path / "state")
    assert refused.value.code == "already_running"
    assert f"pid {os.getpid()}" in refused.value.message
    first.close()
    opened(tmp_path / "state").close()


def test_deleting_the_lock_file_lets_nobody_in(tmp_path: Path) -> None:
    first = opened(tmp_path / "state")
    (tmp_path / "state" / "hengd.lock").unlink()
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            opened(tmp_path / "state")
        assert refused.value.code == "already_running"
    assert not (tmp_path / "state" / "hengd.lock").exists()
    first.close()
    opened(tmp_path / "state").close()


def test_a_file_system_that_locks_no_folders_locks_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS, which somebody may allow, answers EBADF for a folder."""
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    first = opened(tmp_path / "state")
    with pytest.raises(Conflict):
        opened(tmp_path / "state")
    first.close()


def test_on_a_disk_that_takes_nothing_the_folder_is_locked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    opened(tmp_path / "state").close()
    monkeypatch.setattr(os, "pwrite", full)
    first = opened(tmp_path / "state")
    with pytest.raises(Conflict) as refused:
        opened(tmp_path / "state")
    assert "another process" in refused.value.message
    first.close()


def mountinfo(tmp_path: Path, kind: str, point: str) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        f"40 22 0:44 / {point} rw,relatime - {kind} server:/export rw\n"
        "41 22 0:45 / /elsewhere rw - tmpfs tmpfs rw\n"
        "a line of another form\n"
    )
    return file


@pytest.mark.parametrize("kind", [*sorted(NETWORK_FILE_SYSTEMS), "fuse.sshfs", "fuse", "fuseblk"])
def test_a_disk_that_breaks_promises_is_refused_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:  # D12
    mounts = mountinfo(tmp_path, kind, str(tmp_path))
    monkeypatch.setattr(datadir, "file_system_of", lambda path: file_system_of(path, mounts))
    with pytest.raises(Invalid) as refused:
        opened(tmp_path / "state")
    assert refused.value.code == "storage_unsuitable"
    assert kind in refused.value.message
    assert not list((tmp_path / "state").iterdir())
    open_data_dir(tmp_path / "state", allow_network_fs=True, now=NOW, map_bytes=64 * MIB).close()


def test_a_folder_in_memory_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # F15
    mounts = mountinfo(tmp_path, "tmpfs", str(tmp_path))
    monkeypatch.setattr(datadir, "file_system_of", lambda path: file_system_of(path, mounts))
    opened(tmp_path / "state").close()

    [record] = [record for record in caplog.records if record.name == "hengd.datadir"]
    assert str(tmp_path / "state") in record.getMessage()


def test_the_file_system_is_that_of_the_nearest_mount_point(tmp_path: Path) -> None:
    mounts = mountinfo(tmp_path, "nfs4", "/srv/my\\040data")
    for path, kind in (("/srv/my data/henge", "nfs4"), ("/srv/my data", "nfs4"), ("/srv/my datax", "ext4"),
                       ("/elsewhere/x", "tmpfs"), ("/", "ext4")):  # fmt: skip
        assert file_system_of(Path(path), mounts) == kind
    assert file_system_of(Path("/"), tmp_path / "none") == ""


def test_a_folder_that_others_can_enter_is_refused_with_the_cure(tmp_path: Path) -> None:  # F15
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)
    with pytest.raises(Denied) as refused:
        opened(tmp_path / "state")
    assert (refused.value.code, refused.value.cure.startswith("chmod 700")) == ("not_private", True)


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(HengeError) as refused:
        opened(tmp_path / "state")
    assert refused.value.code == "bad_file"


def test_a_lock_file_that_is_a_link_or_a_folder_is_refused(tmp_path: Path) -> None:
    for make in (lambda path: path.symlink_to("/etc/hostname"), lambda path: path.mkdir()):
        folder = tmp_path / "state"
        folder.mkdir(mode=0o700)
        make(folder / "hengd.lock")
        with pytest.raises(Invalid) as refused:
            opened(folder)
        assert refused.value.code == "bad_file"
        shutil.rmtree(folder)


@pytest.mark.parametrize("damage", ["missing", "empty", "folder"])
def test_a_store_that_is_gone_is_never_made_anew(tmp_path: Path, damage: str) -> None:  # F17
    opened(tmp_path / "state").close()
    file = tmp_path / "state" / "data" / "db" / "data.mdb"
    file.unlink()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "folder":
        file.mkdir()
    with pytest.raises(Internal) as refused:
        opened(tmp_path / "state")
    assert refused.value.code == "storage_foreign"
    assert not file.exists() or not file.is_file() or file.stat().st_size == 0
    again = tmp_path / "state"
    with pytest.raises(Internal):
        opened(again)


def bend(which: str) -> dict[str, Callable[[Path], object]]:
    """What can happen to the files of an authority, by what is said of it (F12, F13)."""
    certificate, key = f"{which}-ca.crt", f"{which}-ca.key"
    other = "client" if which == "server" else "server"
    wrong = pki.make_ca("server" if which == "server" else "client", pki.new_id(bytes(16)), now=NOW)

    def flipped(folder: Path) -> None:
        der = bytearray(pki.certificate_der((folder / certificate).read_bytes()))
        der[-1] ^= 1
        (folder / certificate).write_bytes(pki.certificate_pem(bytes(der)))

    def swapped(folder: Path) -> None:
        for suffix in (".crt", ".key"):
            (folder / f"{which}-ca{suffix}").write_bytes((folder / f"{other}-ca{suffix}").read_bytes())

    def of_another_fleet(folder: Path) -> None:
        (folder / certificate).write_bytes(pki.certificate_pem(wrong.certificate_der))
        (folder / key).write_bytes(wrong.key_pem)

    def leaf(folder: Path) -> None:
        der, key_pem = pki.issue_server(wrong, fleet_id=pki.new_id(bytes(16)), dns_names=[], ip_addresses=[], now=NOW)
        (folder / certificate).write_bytes(pki.certificate_pem(der))
        (folder / key).write_bytes(key_pem)

    def replaced_by_folder(folder: Path) -> None:
        (folder / key).unlink()
        (folder / key).mkdir()

    def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
        return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))

    return {
        "certificate missing": lambda folder: (folder / certificate).unlink(),
        "certificate empty": rewritten(certificate, lambda data: b""),
        "certificate cut off": rewritten(certificate, lambda data: data[:300]),
        "certificate twice": rewritten(certificate, lambda data: data + data),
        "certificate not base64": rewritten(certificate, lambda data: data.replace(b"M", b"*")),
        "certificate of other bytes": rewritten(certificate, lambda data: pki.certificate_pem(b"not DER at all")),
        "certificate with a wrong label": rewritten(certificate, lambda data: data.replace(b"CERT", b"ZERT")),
        "certificate a link": lambda folder: link(folder / certificate),
        "certificate with a bent bit": flipped,
        "certificate of a server": leaf,
        "key missing": lambda folder: (folder / key).unlink(),
        "key empty": rewritten(key, lambda data: b""),
        "key cut off": rewritten(key, lambda data: data[:100]),
        "key with a wrong label": rewritten(key, lambda data: data.replace(b"PRIVATE", b"PUBLIC")),
        "key encrypted": rewritten(key, encrypted),
        "key of another certificate": rewritten(key, lambda data: pki.generate_key()),
        "key a folder": replaced_by_folder,
        "key too large": rewritten(key, lambda data: data + bytes(100_000)),
        "files swapped": swapped,
        "files of another fleet": of_another_fleet,
    }


def encrypted(key_pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(key_pem, None)
    kept = serialization.BestAvailableEncryption(b"a passphrase")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize("damage", sorted(bend("server")))
@pytest.mark.parametrize("which", ["server", "client"])
def test_a_damaged_authority_is_refused_by_name_and_left_alone(tmp_path: Path, which: str, damage: str) -> None:
    opened(tmp_path / "state").close()
    folder = tmp_path / "state" / "data" / "ca"
    bend(which)[damage](folder)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(Internal) as refused:
        opened(tmp_path / "state")
    assert refused.value.code == "bad_authority"
    assert str(folder) in refused.value.message
    if damage != "files of another fleet":  # which of the two is the other's cannot be said
        assert f"{which}-ca.crt" in refused.value.message
    assert "backup" in refused.value.cure
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:  # F03
    opened(tmp_path / "state").close()
    key = tmp_path / "state" / "data" / "ca" / "client-ca.key"
    key.chmod(0o644)
    with pytest.raises(Denied) as refused:
        opened(tmp_path / "state")
    assert (refused.value.code, refused.value.cure) == ("not_private", f"chmod 600 {key}")


def test_a_file_that_the_system_does_not_let_it_read_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the system's answer is played."""
    opened(tmp_path / "state").close()
    key = tmp_path / "state" / "data" / "ca" / "client-ca.key"
    real = os.open

    def denied(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path) == key:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(Invalid) as refused:
        opened(tmp_path / "state")
    assert refused.value.message == f"cannot read {key}: Permission denied"
    assert isinstance(refused.value.__cause__, PermissionError)


def test_after_a_refusal_the_folder_is_free_for_another_attempt(tmp_path: Path) -> None:
    opened(tmp_path / "state").close()
    key = tmp_path / "state" / "data" / "ca" / "client-ca.key"
    key.chmod(0o644)
    with pytest.raises(Denied):
        opened(tmp_path / "state")
    key.chmod(0o600)
    opened(tmp_path / "state").close()
