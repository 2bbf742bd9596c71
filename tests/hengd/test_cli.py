"""``hengd`` as a command: what it prints, and the exit code of every refusal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from henge_protocol import __version__, pki
from henge_protocol.keyfiles import write_private

HENGD = Path(sys.executable).parent / "hengd"
PATIENCE_S = 20.0

FAILING = """
import asyncio, sys
from hengd import app, cli
start = app.App.start
async def failing(self):
    await start(self)
    asyncio.get_running_loop().call_later(0.05, self.failed.set_result, "mdb_txn_commit: Input/output error")
app.App.start = failing
sys.argv = ["hengd", *sys.argv[1:]]
cli.main()
"""

DENIED = """
import errno, os, sys
from hengd import cli
real = os.open
def denied(path, *arguments, **named):
    if str(path).endswith("hengd.lock"):
        raise PermissionError(errno.EACCES, "Permission denied")
    return real(path, *arguments, **named)
os.open = denied
sys.argv = ["hengd", *sys.argv[1:]]
cli.main()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HENGE_", "XDG_", "NOTIFY"))}
    return {
        **kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "XDG_STATE_HOME": str(home / "state"),
        "XDG_RUNTIME_DIR": str(home / "run"),
    }  # fmt: skip


def hengd(
    home: Path, *arguments: str, program: list[str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*(program or [str(HENGD)]), *arguments], env=environment(home) | variables, capture_output=True, text=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip


def serving(home: Path) -> list[str]:
    """Flags of a daemon that disturbs nobody."""
    return [
        "--data-dir", str(home / "data"), "--socket", str(home / "s"), "--listen", "127.0.0.1:0", "--local",
        "127.0.0.1:0", "--no-mdns",
    ]  # fmt: skip


@contextmanager
def running(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon that has printed where it listens."""
    process = subprocess.Popen(
        [str(HENGD), *arguments], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "administration" in line:
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def test_version_and_help(home: Path) -> None:
    assert __version__ in hengd(home, "--version").stdout
    assert "run" in hengd(home, "--help").stdout


def test_the_default_settings_are_toml_and_good(home: Path) -> None:
    shown = hengd(home, "config", "default")
    assert shown.returncode == 0
    assert set(tomllib.loads(shown.stdout)) == {
        "daemon",
        "listen",
        "tls",
        "store",
        "secrets",
        "backup",
        "join",
        "limits",
    }
    (home / "mine.toml").write_text(shown.stdout)
    checked = hengd(home, "check", "--config", str(home / "mine.toml"))
    assert (checked.returncode, checked.stdout.splitlines()[0]) == (0, "0 settings changed, all good.")


def test_settings_are_shown_with_their_origin(home: Path) -> None:
    (home / "mine.toml").write_text('[daemon]\nname = "attic"\n')
    options = ["--config", str(home / "mine.toml")]
    text = hengd(home, "config", "show", "--origin", *options, HENGE_JOIN__MDNS="false").stdout
    assert f'* daemon.name = "attic"   # {home}/mine.toml' in text
    assert "* join.mdns = false   # HENGE_JOIN__MDNS" in text
    assert '  listen.devices = "0.0.0.0:4364"   # built-in' in text
    found = json.loads(hengd(home, "config", "show", "-o", "json", *options).stdout)
    assert found["daemon.name"] == {"value": "attic", "origin": f"{home}/mine.toml"}


def test_paths_say_where_everything_lies(home: Path) -> None:
    found = json.loads(hengd(home, "paths", "-o", "json", "--data-dir", str(home / "d")).stdout)
    assert found["data"] == str(home / "d")
    assert found["config"].endswith("hengd.toml")
    assert found["key of secrets"] == str(home / "d" / "keys" / "secrets.key")
    assert set(found) == {"config", "config drop-ins", "data", "key of secrets", "socket"}


@pytest.mark.parametrize(
    ("text", "command"),
    [("[daemon\n", "check"), ("[daemon]\nnome = 'a'\n", "check"), ("[daemon]\nname = 'Two Words'\n", "run"),
     ("[store]\nmap_size = 5\n", "run")],
)  # fmt: skip
def test_bad_settings_are_78_and_named(home: Path, text: str, command: str) -> None:
    (home / "mine.toml").write_text(text)
    refused = hengd(home, command, "--config", str(home / "mine.toml"), "--data-dir", str(home / "data"))
    assert refused.returncode == 78
    assert refused.stderr.startswith(f"Error: {home}/mine.toml")
    assert not (home / "data").exists()


def test_a_settings_file_that_is_not_there_is_78(home: Path) -> None:
    assert hengd(home, "check", "--config", str(home / "none.toml")).returncode == 78


def test_unknown_flags_are_2(home: Path) -> None:
    assert hengd(home, "run", "--nonsense").returncode == 2
    assert hengd(home, "dance").returncode == 2


def test_a_port_in_use_is_75_and_leaves_nothing(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag, key in (("--listen", "listen.devices"), ("--local", "listen.local")):
            refused = hengd(home, *serving(home), flag, f"127.0.0.1:{port}")
            assert refused.returncode == 75, refused
            assert f"port 127.0.0.1:{port} is in use" in refused.stderr
            assert key in refused.stderr
    assert not (home / "data").exists()


def test_a_second_daemon_on_the_folder_is_73_and_names_the_first(home: Path) -> None:
    with running(home, *serving(home)) as first:
        second = hengd(home, *serving(home))
        assert (second.returncode, f"pid {first.pid}" in second.stderr) == (73, True)
        elsewhere = [*serving(home), "--data-dir", str(home / "other")]
        third = hengd(home, *elsewhere)
        assert third.returncode == 75
        assert f"another daemon serves {home}/s" in third.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(PATIENCE_S) == 0
    assert not (home / "s").exists()


def test_a_folder_that_others_can_enter_is_77(home: Path) -> None:
    (home / "data").mkdir(mode=0o755)
    refused = hengd(home, *serving(home))
    assert refused.returncode == 77
    assert f"Cure: chmod 700 {home}/data" in refused.stderr


@pytest.mark.parametrize("damage", ["key", "garbage", "empty", "cut", "missing"])
def test_a_damaged_folder_is_65_with_a_cure_and_left_as_it_is(home: Path, damage: str) -> None:  # F12, F17, F18
    with running(home, *serving(home)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    folder = home / "data" / "data"
    store = folder / "db" / "data.mdb"
    if damage == "key":
        write_private(folder / "ca" / "client-ca.key", pki.generate_key())
    elif damage == "missing":
        store.unlink()
    else:
        store.write_bytes({"garbage": b"garbage" * 2000, "empty": b"", "cut": store.read_bytes()[:-4096]}[damage])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".names"}
    refused = hengd(home, *serving(home))
    assert refused.returncode == 65, refused
    assert [line.split(":")[0] for line in refused.stderr.splitlines()] == ["Error", "Cure"]
    assert str(folder) in refused.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert store.exists() == (damage != "missing")


def test_a_file_that_the_system_does_not_let_it_use_is_77(home: Path) -> None:
    """Root may read everything, so the system's answer is played."""
    refused = hengd(home, *serving(home), program=[sys.executable, "-c", DENIED])
    assert (refused.returncode, "hengd.lock: Permission denied" in refused.stderr) == (77, True)


AS_A_USER = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", str(HENGD)]
"""Root without its capabilities is a user like others."""


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize(
    "arguments", [["check"], ["accept-clock", "--data-dir", "closed/data"], ["check", "--config", "closed/x"]]
)
def test_what_lies_in_a_folder_that_it_may_not_enter_is_named(home: Path, arguments: list[str]) -> None:
    closed = home / "closed"
    closed.mkdir(0o700)
    os.chown(closed, 65534, 65534)
    refused = hengd(
        home, *(word.replace("closed", str(closed)) for word in arguments), program=AS_A_USER,
        CONFIGURATION_DIRECTORY=str(closed) if len(arguments) == 1 else str(home),
    )  # fmt: skip

    assert refused.returncode in (77, 78), refused
    assert "Permission denied" in refused.stderr
    assert str(closed) in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("owned", [".", "data/db/data.mdb", "data/ca/client-ca.key", "hengd.lock"])
def test_what_belongs_to_another_user_is_77_and_named(home: Path, owned: str) -> None:  # C39, F15
    with running(home, *serving(home)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    os.chown(home / "data" / owned, 65534, 65534)
    refused = hengd(home, *serving(home), program=AS_A_USER)
    assert refused.returncode == 77, refused
    assert "Permission denied" in refused.stderr
    assert str(home / "data" / owned) in refused.stderr


def test_deleting_the_lock_file_of_a_running_daemon_lets_no_second_one_in(home: Path) -> None:
    with running(home, *serving(home)):
        (home / "data" / "hengd.lock").unlink()
        elsewhere = [*serving(home), "--socket", str(home / "other")]
        for _ in range(2):
            second = hengd(home, *elsewhere)
            assert (second.returncode, "another hengd works on" in second.stderr) == (73, True)


def test_the_first_run_says_what_it_made_and_what_to_do_next(home: Path) -> None:
    with running(home, *serving(home)) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    process = subprocess.Popen([str(HENGD), *serving(home)], env=environment(home), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "devices, revision" in line:
            break
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    process.stdout.close()
    assert lines[-1] == "0 devices, revision 0.\n"


def test_a_store_beyond_use_ends_the_process_with_70(home: Path) -> None:  # D6
    refused = hengd(home, *serving(home), program=[sys.executable, "-c", FAILING])
    assert refused.returncode == 70
    assert "the store failed (mdb_txn_commit: Input/output error)" in refused.stderr


def test_a_file_that_is_no_backup_is_65_and_a_passphrase_must_come_from_somewhere(home: Path) -> None:
    (home / "letter").write_text("Dear Ada")
    (home / "passphrase").touch(0o600)
    (home / "passphrase").write_text("correct horse battery staple")
    options = ["--data-dir", str(home / "d"), "--passphrase-file", str(home / "passphrase")]
    refused = hengd(home, "restore", str(home / "letter"), *options)
    absent = hengd(home, "restore", str(home / "nosuch"), *options)
    nobody = hengd(home, "restore", str(home / "letter"), "--data-dir", str(home / "d"))

    os.mkfifo(home / "pipe")
    (home / "huge").touch(0o600)
    os.truncate(home / "huge", 2**33)
    (home / "loop").symlink_to("loop")
    odd = [hengd(home, "restore", str(home / name), *options) for name in ("pipe", "loop", ".")]
    large = hengd(home, "restore", str(home / "letter"), *options[:-1], str(home / "huge"))

    assert (refused.returncode, absent.returncode, nobody.returncode) == (65, 74, 2)
    assert [ran.returncode for ran in (*odd, large)] == [74, 74, 74, 65]  # F01, F02, F04
    assert "through a pipe" in odd[0].stderr
    for ran in (refused, absent, nobody, *odd, large):
        assert ran.stderr.startswith("Error: ")
        assert "Traceback" not in ran.stderr
    assert not (home / "d").exists()
