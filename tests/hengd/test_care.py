"""``hengd ca`` as a command: what it says, the files it writes, and the exit code of every refusal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from hengd.cli import main
from tests.system.programs import Daemon, running

HENGD = Path(sys.executable).parent / "hengd"
PASSPHRASE = "correct horse battery staple"

pytestmark = pytest.mark.system


@dataclass
class Desk:
    """A daemon and the commands beside it."""

    daemon: Daemon
    folder: Path
    patch: pytest.MonkeyPatch

    def ca(self, *words: str | Path, code: int = 0, passphrase: str = PASSPHRASE) -> str:
        """``hengd ca ...``; what it says, on both streams."""
        said, typed = io.StringIO(), io.TextIOWrapper(io.BytesIO(passphrase.encode() + b"\n"))
        with self.patch.context() as patch, redirect_stdout(said), redirect_stderr(said):
            patch.setenv("HOME", str(self.folder))
            patch.setenv("HENGE_SOCKET", str(self.daemon.socket))
            patch.setattr(sys, "argv", ["hengd", "ca", *map(str, words)])
            patch.setattr(sys, "stdin", typed)
            with pytest.raises(SystemExit) as ended:
                main()
        assert (ended.value.code or 0) == code, (words, said.getvalue())
        assert PASSPHRASE not in said.getvalue()
        return said.getvalue()

    @property
    def key(self) -> Path:
        """Where the server authority's key lies."""
        return self.daemon.data / "data" / "ca" / "server-ca.key"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with running(tmp_path) as daemon:
        yield Desk(daemon, tmp_path, monkeypatch)


def test_the_key_is_taken_away_and_brought_back_also_while_no_daemon_runs(desk: Desk) -> None:
    file, read = desk.folder / "ca.sealed", ("--passphrase-file", "-")
    said = desk.ca("export", "-o", file, "--remove-key", *read)
    assert "is in that file only now" in said
    assert not desk.key.exists()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in desk.folder.iterdir() if "sealed" in path.name) == ["ca.sealed"]
    status = desk.ca("status")
    assert ("key elsewhere" in status, "on: hengd ca reissue --from FILE" in status) == (True, True)
    assert "exists; nothing was done" in desk.ca("export", "-o", file, *read, code=73)
    assert "kept elsewhere" in desk.ca("export", "-o", desk.folder / "other", *read, code=73)
    assert "name the file that holds it" in desk.ca("reissue", code=73)
    assert "does not open" in desk.ca("reissue", "--from", file, *read, code=77, passphrase="another passphrase")
    assert "until 20" in desk.ca("reissue", "--from", file, *read)

    assert desk.daemon.stop() == 0
    desk.daemon.start()
    assert desk.daemon.stop() == 0
    (desk.daemon.data / "data" / "ca" / "server.pem").unlink()
    started = subprocess.run(desk.daemon.command(), capture_output=True, text=True, check=False, timeout=60,
                             executable=HENGD)  # fmt: skip
    assert (started.returncode, "hengd ca import FILE" in started.stderr) == (65, True)
    assert "is back in the data folder" in desk.ca("import", file, "--data-dir", desk.daemon.data, *read)
    assert desk.key.exists()
    assert "was there already" in desk.ca("import", file, "--data-dir", desk.daemon.data, *read)
    assert "no store" in desk.ca("import", file, "--data-dir", desk.folder / "none", *read, code=74)
    desk.daemon.start()
    assert "key here" in desk.ca("status")
    assert [one["what"] for one in desk.daemon.admin.call("GET", "/v1/audit")["items"]][-3:] == [
        "authority.key-removed", "server-certificate.made", "authority.key-imported",
    ]  # fmt: skip


@pytest.mark.root
def test_a_key_that_the_daemons_user_could_not_read_is_not_put_into_his_folder(desk: Desk) -> None:
    file, read = desk.folder / "ca.sealed", ("--passphrase-file", "-")
    desk.ca("export", "-o", file, "--remove-key", *read)
    desk.daemon.stop()
    os.chown(desk.daemon.data, 65534, 65534)

    said = desk.ca("import", file, "--data-dir", desk.daemon.data, *read, code=77)

    assert f"sudo -u nobody hengd ca import --data-dir {desk.daemon.data} FILE" in said
    assert not desk.key.exists()


def test_files_that_are_not_of_this_daemon_or_not_whole_are_refused(desk: Desk, tmp_path: Path) -> None:
    file, read = desk.folder / "ca.sealed", ("--passphrase-file", "-")
    desk.ca("export", "-o", file, *read)
    assert desk.key.exists()
    (tmp_path / "stranger").mkdir()
    with running(tmp_path / "stranger") as stranger:
        foreign = Desk(stranger, tmp_path / "stranger", desk.patch)
        assert "not of the server authority" in foreign.ca("import", file, *read, code=65)
        assert "not of the server authority" in foreign.ca("reissue", "--from", file, *read, code=65)
    whole = file.read_bytes()
    damaged = {"cut": whole[:-100], "bent": whole[:-9] + b"x" * 9, "letter": b"Dear Ada", "empty": b""}
    for name, content in damaged.items():
        (desk.folder / name).write_bytes(content)
        assert "no backup that can be used" in desk.ca("import", desk.folder / name, *read, code=65)
    assert "No such file" in desk.ca("import", desk.folder / "none", *read, code=74)
    assert "at least 8 are needed" in desk.ca("import", file, *read, code=2, passphrase="short")
    assert "nobody can be asked" in desk.ca("import", file, code=2)
    for words in (("import",), ("reissue", "--from")):  # the file comes first: nobody types a passphrase in vain
        assert "No such file" in desk.ca(*words, desk.folder / "none", code=74)
        assert "no backup that can be used" in desk.ca(*words, desk.folder / "letter", code=65)


def test_where_the_file_does_not_fit_the_key_stays(desk: Desk) -> None:
    for place in ("/dev/full/x", desk.folder / "no" / "such" / "folder"):
        said = desk.ca("export", "-o", place, "--remove-key", "--passphrase-file", "-", code=74)
        assert "nothing was removed" in said
    assert desk.key.exists()


def test_a_backup_holds_the_key_as_well(desk: Desk, tmp_path: Path) -> None:
    backup, passphrase = tmp_path / "henge.backup", tmp_path / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text(PASSPHRASE)
    backup.write_bytes(desk.daemon.admin.fetch("POST", "/v1/backup", {"passphrase": PASSPHRASE}))
    desk.ca("export", "-o", tmp_path / "ca.sealed", "--remove-key", "--passphrase-file", passphrase)

    assert "is back" in desk.ca("import", backup, "--passphrase-file", passphrase)


def test_the_status_of_a_rotation_fits_a_terminal(desk: Desk) -> None:
    desk.ca("rotate", "begin")
    desk.ca("rotate", "begin", "--client")
    lines = [one for one in desk.ca("status").splitlines() if "certificate  of" not in one]  # of any name
    assert any("know the one that is to sign" in line for line in lines)
    assert [line for line in lines if len(line) > 80] == []


def test_without_a_daemon_and_with_words_that_make_no_sense_one_line_says_what_to_do(desk: Desk) -> None:
    assert "not between 1s and 7d" in desk.ca("rotate", "begin", "--within", "8d", code=2)
    assert "--within" in desk.ca("rotate", "begin", "--within", "soon", code=2)
    assert "leaves nobody behind" in desk.ca("rotate", "finish", "--leave-behind", code=2)
    assert "is for --from FILE" in desk.ca("reissue", "--passphrase-file", "-", code=2)
    for words in (["rotate"], ["rotate", "sideways"], ["export"], ["status", "-o", "yaml"]):
        desk.ca(*words, code=2)
    desk.daemon.stop()
    for words in (["status"], ["rotate", "begin"], ["export", "-o", str(desk.folder / "x"), "--passphrase-file", "-"]):
        said = desk.ca(*words, code=69)
        assert ("no hengd runs here" in said, "--socket PATH" in said) == (True, True)
    assert not (desk.folder / "x").exists()
