"""``hengectl backup``: one file that was read back, or none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from henge_protocol import sealedfile
from hengectl.refusal import CONFLICT, INVALID, NO, NOT_ALLOWED, NOT_FOUND, OK, UNREACHABLE, USAGE
from tests.hengectl.conftest import Face
from tests.service import Admin, Service, device, schema

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealedfile, "_MEMORY_KIB", 32)
    monkeypatch.setattr(sealedfile, "_ITERATIONS", 1)


@pytest.fixture
def operator(daemon: Service, face: Face) -> Face:
    """A person beside the daemon."""
    face.environ(HENGE_SOCKET=str(daemon.socket))
    return face


def listed(folder: Path) -> list[str]:
    """What lies in the folder, hidden or not."""
    return sorted(entry.name for entry in folder.iterdir())


async def test_a_backup_is_made_shown_and_verified(operator: Face, admin: Admin, tmp_path: Path) -> None:
    await admin.apply(schema(), device("lamp-1"))
    path = tmp_path / "henge.backup"
    assert "last backup never" in await operator.ok("status")

    made = await operator.run("backup", "-o", str(path), "--passphrase-file", "-", stdin=PASSPHRASE + "\n")

    assert made.code == OK, made
    assert "revision 1, 1 device" in made.out
    assert "hengd restore" in made.err
    assert path.stat().st_mode & 0o777 == 0o600
    assert "last backup never" not in await operator.ok("status")
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE)
    file.chmod(0o600)
    told = await operator.ok("backup", "--verify", str(path), "--passphrase-file", str(file))
    assert "is whole" in told
    assert [name for name in listed(tmp_path) if "backup" in name] == ["henge.backup"]


async def test_a_passphrase_is_asked_twice_from_a_person_only(
    operator: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def prompt(_text: str, **options: Any) -> str:
        asked.append((options["hide_input"], options["confirmation_prompt"]))
        return PASSPHRASE

    monkeypatch.setattr("hengectl.commands.backup.click.prompt", prompt)
    made = await operator.run("backup", "-o", str(tmp_path / "b"), terminal=True)
    told = await operator.run("backup", "--verify", str(tmp_path / "b"), terminal=True)
    nobody = await operator.run("backup", "-o", str(tmp_path / "c"))
    for word in ("-o", "--verify"):  # what cannot be is said before anybody types one
        absent = await operator.run("backup", word, str(tmp_path / "nosuch" / "b"), terminal=True)
        assert (absent.code, "No such file" in absent.err) == (NOT_FOUND, True)

    assert (made.code, told.code) == (OK, OK)
    assert asked == [(True, True), (True, False)]
    assert nobody.code == USAGE
    assert "passphrase-file" in nobody.err.lower()


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        ("-o {there}", PASSPHRASE, CONFLICT),
        ("-o {folder}/nosuch/b", PASSPHRASE, NOT_FOUND),
        ("-o {folder}/b", "short", INVALID),
        ("-o {folder}/b", b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe", INVALID),
        ("", PASSPHRASE, USAGE),
        ("-o {folder}/b --verify {there}", PASSPHRASE, USAGE),
        ("--verify {there}", PASSPHRASE, INVALID),
        ("--verify {folder}/nosuch", PASSPHRASE, NOT_FOUND),
        ("--verify {folder}", PASSPHRASE, INVALID),
        ("--verify {sealed}", "some other passphrase", NOT_ALLOWED),
        ("--verify {cut}", PASSPHRASE, INVALID),
        pytest.param("--verify {pipe}", PASSPHRASE, INVALID, id="F01 a pipe"),
        pytest.param("--verify /dev/zero", PASSPHRASE, INVALID, id="F01 a device"),
        pytest.param("--verify {nowhere}", PASSPHRASE, NOT_FOUND, id="F01 nothing"),
        pytest.param("-o {pipe} --force", PASSPHRASE, INVALID, id="a pipe in the place of the file"),
        pytest.param("-o {folder} --force", PASSPHRASE, INVALID, id="a folder in the place of the file"),
    ],
)
async def test_what_cannot_be_done_is_said_and_leaves_nothing(
    operator: Face, tmp_path: Path, arguments: str, stdin: str | bytes, code: int
) -> None:
    there, sealed, cut = tmp_path / "there", tmp_path / "sealed", tmp_path / "cut"
    there.write_bytes(b"a letter")
    sealed.write_bytes(b"".join(sealedfile.seal([b"x" * 99], PASSPHRASE.encode(), {}, salt=bytes(16))))
    cut.write_bytes(sealed.read_bytes()[:-1])
    os.mkfifo(tmp_path / "pipe")
    before = listed(tmp_path)
    names = {"there": there, "sealed": sealed, "cut": cut, "folder": tmp_path}
    names |= {name: tmp_path / name for name in ("pipe", "nowhere")}

    ran = await operator.run(
        "backup", *arguments.format(**names).split(), "--passphrase-file", "-", stdin=stdin
    )  # fmt: skip

    assert ran.code == code, ran
    assert ran.err.startswith("Error: ")
    assert listed(tmp_path) == before
    assert there.read_bytes() == b"a letter"


async def test_a_full_disk_here_leaves_no_half_file(
    operator: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hengectl.commands.backup.os.fsync", full)
        ran = await operator.run("backup", "-o", str(tmp_path / "b"), "--passphrase-file", "-", stdin=PASSPHRASE)

    assert ran.code == NO, ran
    assert f"cannot write {tmp_path / 'b'}: No space left on device" in ran.err
    assert [name for name in listed(tmp_path) if name.strip(".").startswith("b")] == []


def test_without_a_daemon_it_is_unreachable(face: Face, tmp_path: Path) -> None:
    ran = face.now("--socket", str(tmp_path / "none"), "backup", "-o", str(tmp_path / "b"), "--passphrase-file", "-",
                   stdin=PASSPHRASE)  # fmt: skip

    assert ran.code == UNREACHABLE
    assert not (tmp_path / "b").exists()


async def test_force_is_refused_where_nothing_is_written(operator: Face, tmp_path: Path) -> None:
    ran = await operator.run("backup", "--verify", str(tmp_path / "b"), "--force")

    assert (ran.code, "--force is for -o" in ran.err) == (USAGE, True), ran
