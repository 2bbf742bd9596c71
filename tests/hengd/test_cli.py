"""``hengd`` as a command: what it prints, and the exit code of every refusal."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hengd import cli
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


def serving(home: Path, **instead: str) -> list[str]:
    """Flags of a daemon that disturbs nobody; ``instead`` gives single ones another value."""
    flags = {"data_dir": home / "data", "socket": home / "s", "listen": "127.0.0.1:0", "local": "127.0.0.1:0"} | instead
    return [
        *(word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))),
        "--no-mdns",
    ]


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


def ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path, *words: str
) -> tuple[int, str]:
    """Run a command that starts no daemon in this process: its exit code, and what it said of trouble."""
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["hengd", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    said = capsys.readouterr()
    assert said.out == ""
    return end.value.code, said.err


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
    assert checked.returncode == 0
    assert checked.stdout.splitlines()[0] == "All settings are good. Not at their defaults: 0"


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["rum"], "Did you mean 'run'?", id="C02 command"),
        pytest.param(["--lisen", "x"], "Did you mean '--listen'?", id="C02 option"),
        pytest.param(["--name", "a", "--name", "b"], "--name is given twice", id="C03 of run"),
        pytest.param(["config", "show", "--data-dir", "a", "--data-dir", "b"], "given twice", id="C03 of a subcommand"),
        pytest.param(["announce", "https://h", "--port", "1", "--port", "2"], "given twice", id="C03 of announce"),
        pytest.param(["--data-dir", ""], "'--data-dir': it is empty", id="C04 folder"),
        pytest.param(["check", "--config="], "'--config': it is empty", id="C04 file"),
        pytest.param(["restore", ""], "'FILE': it is empty", id="C04 argument"),
        pytest.param(["restore", "x", "--passphrase-file="], "'--passphrase-file': it is empty", id="C04 passphrase"),
        pytest.param(["--data-dir"], "requires an argument", id="C04 no value"),
        pytest.param(["check", "--conf", "x"], "No such option '--conf'", id="C06 abbreviated"),
        pytest.param(["--name", "\udcff"], r"'\udcff' is not UTF-8", id="C31 not UTF-8"),
        pytest.param(["check", "\x07x"], r"argument (\x07x)", id="C30 escaped"),
        pytest.param(["config"], "Commands:", id="C01 no command"),
    ],
)
def test_what_is_not_meant_so_is_a_usage_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    monkeypatch.chdir(home)
    code, said = ended(monkeypatch, capsys, home, *words)

    assert (code, told in said, said.isascii()) == (2, True, True), said
    assert "\x07" not in said
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("named", "told"),
    [
        pytest.param("folder", "folder is neither a file nor a pipe", id="folder"),
        pytest.param("/dev/zero", "/dev/zero is neither a file nor a pipe", id="device"),
        pytest.param("absent", "Cure: make one: hengd config default", id="absent"),
        pytest.param("odd\x07", r"odd\x07: No such file", id="odd name"),
    ],
)
def test_settings_that_cannot_be_are_78_and_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: str, told: str
) -> None:  # F01
    (home / "folder").mkdir()
    code, said = ended(monkeypatch, capsys, home, "check", "--config", str(home / named))

    assert (code, told in said) == (78, True), said
    assert said.startswith("Error: ")
    assert "\x07" not in said


@pytest.mark.parametrize("closed", ["conf.d", "hengd.toml"])
def test_settings_that_the_system_keeps_closed_are_78_and_not_left_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed: str
) -> None:
    """Root may read everything, so the system's answer is played."""
    folder = home / "config/henge"
    folder.mkdir(parents=True)
    (folder / "conf.d").mkdir()
    (folder / "hengd.toml").write_text("")
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(folder))

    def denied(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *arguments: object, **named: object) -> object:
            if str(path) == str(folder / closed):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return real(path, *arguments, **named)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", denied(os.listdir))
        patched.setattr(os, "open", denied(os.open))
        code, said = ended(patched, capsys, home, "check")

    assert code == 78, said
    assert said.startswith(f"Error: cannot read {folder / closed}: Permission denied\nCure: ")


def test_a_file_that_holds_no_passphrase_is_65(home: Path) -> None:
    (home / "passphrase").touch(0o600)
    (home / "passphrase").write_bytes(b"\xff" * 20)
    (home / "backup").write_bytes(b"x")
    refused = hengd(
        home, "restore", str(home / "backup"), "--data-dir", str(home / "data"), "--passphrase-file",
        str(home / "passphrase"),
    )  # fmt: skip

    assert (refused.returncode, "the passphrase is not UTF-8" in refused.stderr) == (65, True), refused
    assert not (home / "data").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param("{absent}", "Cure: look at the path", id="absent"),
        pytest.param("{backup} --revocations {folder}", "{folder}", id="folder as journal"),
    ],
)
def test_a_file_that_cannot_be_restored_from_is_74_and_named(home: Path, words: str, told: str) -> None:  # C35, F01
    (home / "folder").mkdir()
    (home / "backup").write_bytes(b"x")
    (home / "passphrase").touch(0o600)
    (home / "passphrase").write_text("correct horse battery staple")
    names = {name: home / name for name in ("folder", "absent", "backup")}
    refused = hengd(
        home, "restore", *words.format(**names).split(), "--data-dir", str(home / "data"), "--passphrase-file",
        str(home / "passphrase"),
    )  # fmt: skip

    assert refused.returncode == 74, refused
    assert told.format(**names) in refused.stderr
    assert refused.stderr.startswith("Error: ")
    assert not (home / "data").exists()


def test_a_port_in_use_is_75_and_leaves_nothing(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag, key in (("listen", "listen.devices"), ("local", "listen.local")):
            refused = hengd(home, *serving(home, **{flag: f"127.0.0.1:{port}"}))
            assert refused.returncode == 75, refused
            assert f"port 127.0.0.1:{port} is in use" in refused.stderr
            assert key in refused.stderr
    assert not (home / "data").exists()


def test_a_second_daemon_on_the_folder_is_73_and_names_the_first(home: Path) -> None:
    with running(home, *serving(home)) as first:
        second = hengd(home, *serving(home))
        assert (second.returncode, f"pid {first.pid}" in second.stderr) == (73, True)
        third = hengd(home, *serving(home, data_dir=str(home / "other")))
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


@pytest.mark.root("setpriv")
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


@pytest.mark.root("setpriv")
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
        for _ in range(2):
            second = hengd(home, *serving(home, socket=str(home / "other")))
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


@pytest.mark.parametrize("words", [(), ("ca",), ("ca", "rotate"), ("config",), ("service",)], ids=" ".join)
def test_lists_of_commands_say_what_each_does_in_full(home: Path, words: tuple[str, ...]) -> None:
    shown = hengd(home, *words, "--help", COLUMNS="80").stdout
    assert "Commands:" in shown
    assert "..." not in shown.partition("Commands:")[2]


def test_a_file_that_is_no_backup_is_65_and_a_passphrase_must_come_from_somewhere(home: Path) -> None:
    (home / "letter").write_text("Dear Ada")
    (home / "passphrase").touch(0o600)
    (home / "passphrase").write_text("correct horse battery staple")
    options = ["--data-dir", str(home / "d"), "--passphrase-file", str(home / "passphrase")]
    refused = hengd(home, "restore", str(home / "letter"), *options)
    absent = hengd(home, "restore", str(home / "nosuch"), *options)
    nobody = hengd(home, "restore", str(home / "letter"), "--data-dir", str(home / "d"))
    unasked = hengd(home, "restore", str(home / "nosuch"), "--data-dir", str(home / "d"))

    os.mkfifo(home / "pipe")
    (home / "huge").touch(0o600)
    os.truncate(home / "huge", 2**33)
    (home / "loop").symlink_to("loop")
    odd = [hengd(home, "restore", str(home / name), *options) for name in ("pipe", "loop", ".")]
    large = hengd(home, "restore", str(home / "letter"), *options[:-1], str(home / "huge"))

    assert (refused.returncode, absent.returncode, nobody.returncode) == (65, 74, 2)
    assert (unasked.returncode, "No such file" in unasked.stderr) == (74, True)  # before anybody types a passphrase
    assert [ran.returncode for ran in (*odd, large)] == [74, 74, 74, 65]  # F01, F02, F04
    assert "through a pipe" in odd[0].stderr
    for ran in (refused, absent, nobody, *odd, large):
        assert ran.stderr.startswith("Error: ")
        assert "Traceback" not in ran.stderr
    assert not (home / "d").exists()
