from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from henge_protocol.errors import Internal, StorageFull
from henge_protocol.joining import format_token, new_token
from hengectl import cli
from tests.hengectl.conftest import Face

ROOT = Path(__file__).parents[2]


def commands() -> Iterator[str]:
    """Every command's words."""
    ctx = click.Context(cli.hengectl)
    for name in cli.COMMANDS:
        command = cli.hengectl.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {below}" for below in command.commands)
        else:
            yield name


def test_a_command_starts_without_the_heavy_libraries() -> None:
    heavy = "aiohttp jsonschema jsonschema_rs cryptography zeroconf yaml msgspec tomllib asyncio"
    code = (
        "import sys, hengectl.cli, hengectl.commands.get, hengectl.commands.completion, hengectl.commands.values\n"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )

    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


def test_every_command_is_in_the_document_and_the_other_way_round() -> None:
    document = (ROOT / "docs/hengectl.md").read_text()
    listed = set(re.findall(r"^\| `([a-z]+(?: [a-z]+)?)[ `]", document, re.MULTILINE))

    assert listed == set(commands())


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_explains_itself(face: Face, command: str) -> None:
    ran = face.now(*command.split(), "-h")

    assert ran.code == 0
    assert ran.out.startswith(f"Usage: hengectl {command}")
    assert ran.out.split("\n\n")[1].strip(), "after the usage, however long, what it does"


def test_no_command_shows_them_all(face: Face) -> None:
    ran = face.now()

    assert (ran.code, ran.out) == (2, "")
    assert "Commands:" in ran.err
    assert face.now("help").out == face.now("--help").out
    assert face.now("help", "set").out == face.now("set", "--help").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("gett devices", "Did you mean 'get'?"),
        ("token creat", "Did you mean 'create'?"),
        ("help nosuch", "There is no command 'nosuch'"),
        ("restore henge.backup", "Did you mean 'hengd restore'?"),
        ("ca status", "Did you mean 'hengd ca'?"),
        ("get devices --nope -h", "No such option '--nope'"),
        ("get devices lamp-*", "is not of the form"),
        ("delete device/lamp-* --yes", "is not of the form"),
        ("get events", "Shown by: hengectl events"),
        ("get devices --selectr a=b", "Did you mean '--selector'?"),
        ("describe device lamp-1 lamp-2", "one thing is described at a time"),
        ("frobnicate", "See: hengectl --help"),
        ("get devices --watc", "--watch"),
        ("get devices --watch --wat", "--wat"),
        ("get devices -o xml", "'xml' is not one of"),
        ("get devices -o json -o yaml", "--output is given twice"),
        ("get nothing", "is not a kind"),
        ("get devices Lamp_1", "is not of the form"),
        ("get device/../x", "is not of the form"),
        ("get devices -l =", "cannot be read"),
        ("get devices lamp-1 -l a=b", "cannot be given together"),
        ("get tokens -w", "-w watches"),
        ("apply", "either -f FILE or -k DIR is needed"),
        ("apply -f", "requires an argument"),
        ("apply -f x --timeout 0", "not of the form"),
        ("apply -f x --timeout 0s", "not between"),
        ("apply -f x --timeout -1", "not of the form"),
        ("apply -f x --timeout 5x", "not of the form"),
        ("apply -f x --timeout 1e9", "not of the form"),
        ("apply -f x --timeout nan", "not of the form"),
        ("apply -f x --timeout 99999d", "not between"),
        ("set lamp-1 a=b", "is not of the form KIND/NAME"),
        ("set schema/lamp a=b", "write group/NAME or device/NAME"),
        ("set device/lamp-1", "Missing argument"),
        ("set device/lamp-1 a", "is not of the form FIELD=VALUE"),
        ("unset device/lamp-1 a=b", "unset takes no value"),
        ("rollback --to 5", "either KIND/NAME or --all"),
        ("rollback --to 5", "Try: hengectl rollback --all --to 5 --dry-run"),
        ("rollback --all device/x --to 5", "either KIND/NAME or --all"),
        ("rollback --all", "Missing option '--to'"),
        ("approve 1234567", "has 8 digits"),
        ("approve 1234567a", "has 8 digits"),
        ("wait device/lamp-1", "Missing option '--for'"),
        ("wait --for=happy device/lamp-1", "'happy' is not one of"),
        ("token create --ttl 0", "not of the form"),
        ("token create --ttl 31d", "not between 1s and 30d"),
        ("join open --for 25h", "not between 1s and 1d"),
        ("token create --uses 0", "0 is not in the range"),
        ("token create --name Bad_Name", "is not a name"),
        ("token create -l a", "KEY=VALUE"),
        ("token create -l a=1 -l a=2", "given twice"),
        ("token create --admin --schema lamp", "about devices"),
        ("token create --role viewer -l a=1", "about devices"),
        ("token create --role viewer --admin", "--role says viewer"),
        ("token revoke a/b", "is not a token's id"),
        ("login http://x", "the daemon speaks https"),
        ("login https://x:0", "1 to 65535"),
        ("login https://x", "nobody can be asked"),
        ("login https://x --token a --token-file b", "only one of"),
        ("--server= status", "it is empty"),
        ("--socket a --server b status", "only one of"),
        ("status --context a --socket b", "only one of"),
        ("--context a status --context b", "given twice"),
        ("--server http://x status", "the daemon speaks https"),
        ("--color sometimes status", "'sometimes' is not one of"),
        ("explain", "Missing argument"),
        ("explain Lamp", "is not of the form"),
        ("completion tcsh", "'tcsh' is not one of"),
    ],
)
def test_what_is_not_meant_so_is_a_usage_error(face: Face, arguments: str, words: str) -> None:
    ran = face.now(*arguments.split())

    assert ran.code == 2, ran
    assert words in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["apply", "-f", ""], "'--filename': it is empty", id="C04 a file"),
        pytest.param(["apply", "-k", ""], "'--kustomize': it is empty", id="C04 a folder"),
        pytest.param(["check", "-f", "x", "-f", ""], "'--filename': it is empty", id="C04 one of several files"),
        pytest.param(["device", "add", "pico", "--print", ""], "'--print': it is empty", id="C04 where to write"),
        pytest.param(["backup", "-o", ""], "'--output': it is empty", id="C04 what to make"),
        pytest.param(["secret", "set", "x", "--from-file="], "'--from-file': it is empty", id="C04 what to read"),
        pytest.param(["get", "devices", "-l", ""], "'--selector': it is empty", id="C04 whom"),
        pytest.param(["factor", "--selector=", "--yes"], "'--selector': it is empty", id="C04 whom to change"),
        pytest.param(["audit", "verify", "--known", ""], "'--known': it is empty", id="C04 what to compare with"),
        pytest.param(["why", "lamp-1", ""], "'[FIELD]': it is empty", id="C04 an argument"),
        pytest.param(["status", "--context", ""], "'--context': it is empty", id="C04 behind the command"),
        pytest.param(["set", "device/lamp-1", "a=\udcff"], r"'a=\udcff' is not UTF-8", id="C31 a value"),
        pytest.param(["set", "device/lamp-1", "a=1", "-m", "\udcff"], r"'\udcff' is not UTF-8", id="C31 a message"),
        pytest.param(["why", "lamp-1", "\udcff"], r"'\udcff' is not UTF-8", id="C31 a field"),
        pytest.param(["version", "\x1b[31mx"], r"argument (\x1b[31mx)", id="C30 what is shown is escaped"),
        pytest.param(["get", "devices", "\x1b[31mx"], r"'\x1b[31mx' is not of the form", id="C09 a name"),
        pytest.param(["device", "add", "pico", "--print", "x", "--reach", "h:0"], "not 1 to 65535", id="C08 port 0"),
        pytest.param(["device", "add", "pico", "--print", "x", "--reach", "http://h"], "https", id="C08 scheme"),
        pytest.param(["device", "add", "pico", "--print", "x", "--reach", "h/x"], "more than", id="C08 path"),
        pytest.param(["support", "-o", "-"], "- is none", id="support is no stream"),
    ],
)
def test_what_a_script_may_send_by_mistake_is_a_usage_error(
    face: Face, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = face.now(*words)

    assert (ran.code, ran.out) == (2, ""), ran
    assert told in ran.err
    assert ran.err.isascii()
    assert [one.name for one in tmp_path.iterdir()] == ["home"]


def _admin_token() -> str:
    return format_token(new_token("admin", b"x" * 32, random=secrets.token_bytes))


@pytest.mark.parametrize(
    ("form", "code", "told"),
    [
        pytest.param("\ufeff  {} \r\n\n", 7, "cannot reach the daemon", id="C13 white space around"),
        pytest.param("{head}\n{tail}", 6, "", id="C13 wrapped"),
        pytest.param("{head} {tail}", 6, "white space inside", id="C13 a space inside"),
        pytest.param('"{}"', 6, "does not begin with", id="C13 quotes"),
        pytest.param("", 6, "it is empty", id="C13 nothing"),
        pytest.param("{}\0", 6, "", id="C13 NUL"),
    ],
)
def test_a_token_is_taken_as_people_copy_it_or_refused(face: Face, form: str, code: int, told: str) -> None:
    token = _admin_token()
    given = form.format(token, head=token[:30], tail=token[30:])
    ran = face.now("-v", "--debug", "login", "https://127.0.0.1:9", "--token-file", "-", stdin=given)

    assert (ran.code, ran.out, told in ran.err) == (code, "", True), ran
    assert token[30:] not in ran.err
    assert not (face.home / ".config").exists()


def test_a_token_on_the_command_line_works_is_warned_of_and_not_repeated(face: Face) -> None:  # C12, C46
    token = _admin_token()
    ran = face.now("-v", "--debug", "login", "https://127.0.0.1:9", "--token", token)

    assert ran.code == 7
    assert "Warning: a token on the command line is visible to others" in ran.err
    assert token[30:] not in ran.err


@pytest.mark.parametrize(
    ("made", "code", "told"),
    [
        pytest.param("open", 7, "Warning: others can read", id="C14 others can read it"),
        pytest.param("link", 7, "cannot reach", id="C14 behind a link"),
        pytest.param("empty", 6, "it is empty", id="C14 empty"),
        pytest.param("large", 6, "more than 1024 bytes", id="C14 1 MiB"),
        pytest.param("binary", 6, "is not text", id="C14 binary"),
        pytest.param("folder", 6, "neither a file nor a pipe", id="C14 folder"),
        pytest.param("pipe", 6, "it is empty", id="C14 pipe that nobody fills"),
        pytest.param("absent", 3, "No such file", id="C14 absent"),
        pytest.param("loop", 6, "symbolic link", id="C14 circle of links"),
    ],
)
def test_a_file_of_a_token_is_read_warned_of_or_refused(
    face: Face, tmp_path: Path, made: str, code: int, told: str
) -> None:
    path = tmp_path / "token"
    content = {"empty": b"\n", "large": b"x" * 2**20, "binary": b"\xff\xfe"}
    if made == "folder":
        path.mkdir()
    elif made == "pipe":
        os.mkfifo(path)
    elif made in ("loop", "link"):
        path.symlink_to({"loop": path, "link": tmp_path / "real"}[made])
        (tmp_path / "real").touch(0o600)
        (tmp_path / "real").write_text(_admin_token())
    elif made != "absent":
        path.touch()
        path.chmod(0o644 if made == "open" else 0o600)
        path.write_bytes(content.get(made) or _admin_token().encode())
    ran = face.now("login", "https://127.0.0.1:9", "--token-file", str(path))

    assert (ran.code, ran.out, told in ran.err) == (code, "", True), ran
    assert ("Warning" in ran.err) == (made == "open")


@pytest.mark.parametrize("words", [["4711 0815"], ["4711", "0815"], ["4711-0815"], ["4 7 1 1 0 8 1 5"], ["47110815"]])
def test_a_code_is_taken_as_people_type_it(face: Face, words: list[str]) -> None:  # C36
    ran = face.now("--socket", "/absent", "approve", *words, "--yes")

    assert ran.code == 7
    assert "cannot reach the daemon" in ran.err


@pytest.mark.parametrize("code", ["4711081", "471108155", "4711081x", "\uff14\uff17\uff11\uff110815", "4711_0815", "-"])
def test_what_is_no_code_is_a_usage_error(face: Face, code: str) -> None:  # C36
    ran = face.now("approve", code, "--yes")

    assert (ran.code, ran.out) == (2, "")
    assert "has 8 digits" in ran.err


def test_options_may_stand_on_either_side_of_the_command(face: Face) -> None:
    before = face.now("--socket", "/absent", "status")

    assert before.code == 7
    assert face.now("status", "--socket", "/absent") == before
    assert face.now("--socket", "/absent", "status", "--socket", "/absent") == before


def test_without_a_daemon_it_says_how_to_get_one(face: Face) -> None:
    ran = face.now("get", "devices")

    assert ran.code == 7
    assert ran.err == (
        "Error: no henge daemon is configured\n"
        "Start one here with hengd, or log in to one with hengectl login https://HOST:4364\n"
    )


def test_a_socket_without_a_daemon_is_named(face: Face, tmp_path: Path) -> None:
    folder = face.home / "run/henge"
    folder.mkdir(parents=True)
    face.environ(XDG_RUNTIME_DIR=str(face.home / "run"))
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # a socket's path has at most 107 bytes, a test's folder often more
        try:
            listener.bind("admin.sock")
        finally:
            os.chdir(ROOT)
    if len(str(folder / "admin.sock")) > 100:
        pytest.skip("this machine's temporary folder is too long for sockets")

    assert "nobody listens on" in face.now("status").err


def test_settings_that_are_wrong_are_named(face: Face) -> None:
    folder = face.home / ".config/henge"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("current = 5\n")

    ran = face.now("status")
    assert ran.code == 6
    assert "config.toml: current is a text" in ran.err


def test_a_wrong_variable_is_named_and_an_empty_one_is_none(face: Face) -> None:
    face.environ(HENGE_COLOR="pink")
    ran = face.now("status")

    assert ran.code == 2
    assert "HENGE_COLOR is 'pink'" in ran.err


@pytest.mark.parametrize("name", ["HENGE_SEVER", "HENGE_SOCKETT", "HENGE_SERVER_URL", "HENGE_COLOUR"])
def test_a_misspelled_variable_is_warned_of_once(face: Face, name: str) -> None:  # C19
    face.environ(**{name: "x", "HENGE_TOKEN_FILE": "x", "HENGE_LISTEN__SOCKET": "x", "HENGE_CONFIG": "x"})
    ran = face.now("paths")

    assert ran.code == 0
    [warning] = ran.err.splitlines()
    assert warning.startswith(f"Warning: hengectl knows no variable {name}; did you mean HENGE_")


CLOSED = """
import os, sys
from hengectl import cli
real_lstat, real_open = os.lstat, os.open
def denied(real):
    def call(path, *arguments, **named):
        if str(path).endswith("henge/config.toml"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **named)
    return call
os.lstat, os.open = denied(real_lstat), denied(real_open)
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "line", ["status", "context list", "context use home", "logout --yes", "--context home status", "--server h status"]
)
def test_contexts_that_the_system_keeps_closed_are_named_with_a_cure(face: Face, line: str) -> None:
    """Root may read everything, so the system's answer is played."""
    folder = face.home / ".config/henge"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("")
    command = [sys.executable, "-c", CLOSED, *line.split()]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (6, ""), ran
    assert ran.stderr.startswith(f"Error: cannot read {folder}/config.toml: Permission denied\n")
    assert f"see: ls -ld {folder}/config.toml" in ran.stderr


@pytest.mark.root("setpriv")
@pytest.mark.parametrize("line", ["status", "context list", "context use home", "login https://h --token-file TOKEN"])
@pytest.mark.parametrize("owned", [".config", ".config/henge", ".config/henge/config.toml"])
def test_contexts_of_another_user_are_named_with_a_cure(face: Face, tmp_path: Path, line: str, owned: str) -> None:
    """Root without its capabilities is a user like others."""
    config = face.home / ".config/henge/config.toml"
    config.parent.mkdir(parents=True, mode=0o700)
    config.write_text("")
    config.chmod(0o600)
    (face.home / ".config").chmod(0o700)
    os.chown(face.home / owned, 65534, 65534)
    token = tmp_path / "token"
    token.write_text(_admin_token())
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "hengectl"]
    words = [str(token) if word == "TOKEN" else word for word in line.split()]
    ran = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (6, ""), ran
    assert f"Error: cannot read {config}: Permission denied\n" in ran.stderr
    assert ran.stderr.endswith(f"see: ls -ld {face.home / owned}\n")


def test_a_file_that_a_command_may_not_use_is_never_the_outputs_trouble(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/x/y")

    monkeypatch.setattr("hengectl.commands.apply.apply_files", failing)
    ran = face.now("apply", "-f", "x")

    assert ran.code == 6
    assert ran.err.startswith("Error: cannot use /x/y: Permission denied\nNothing was changed.\n")


@pytest.mark.parametrize("columns", ["0", "1", "20", "-1", "x", "\u00b2", "9" * 5000])
def test_the_width_of_a_terminal_may_be_anything(face: Face, columns: str) -> None:  # C29
    face.environ(COLUMNS=columns, TERM="xterm")
    ran = face.now("paths", terminal=True)

    assert (ran.code, ran.err) == (0, "")
    assert "config.toml" in ran.out


def test_no_home_is_no_obstacle_on_the_daemons_machine(face: Face) -> None:
    face.environ(HOME="")

    assert face.now("get", "devices").code == 7
    assert face.now("context", "list").code == 6


def test_files_are_refused_before_a_daemon_is_asked(face: Face, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("apiVersion: henge/v1\nkind: Group\nkind: Device\n")

    ran = face.now("apply", "-f", str(tmp_path / "bad.yaml"))
    assert ran.code == 6
    assert ran.err.startswith(f"Error: {tmp_path}/bad.yaml:3:1: the key 'kind' stands twice")
    assert "Nothing was changed." in ran.err
    assert face.now("apply", "-f", str(tmp_path / "absent.yaml")).code == 3


def test_a_reader_that_leaves_is_no_error(face: Face) -> None:
    command = f"{sys.executable} -m hengectl --help | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)

    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_a_full_disk_behind_the_output_is_told() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "hengectl", "paths"]
        ran = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False)

    assert ran.returncode == 1
    assert ran.stderr == b"Error: cannot write the output (No space left on device)\n"


@pytest.mark.parametrize(
    "trouble",
    [StorageFull("storage_full", "full"), Internal("internal", "x"), RuntimeError("ours"), OSError(28, "no room")],
    ids=lambda trouble: type(trouble).__name__,
)
def test_trouble_of_a_comparison_is_never_the_answer_that_things_differ(
    face: Face, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr("hengectl.commands.diff.apply_files", failing)
    monkeypatch.setattr("hengectl.commands.apply.apply_files", failing)

    assert face.now("diff", "-f", "x").code == 2
    assert face.now("apply", "-f", "x").code == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault(closed: str) -> None:
    command = f"exec {sys.executable} -m hengectl paths {closed}"
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("locale", ["C", "POSIX", "nonsense", "de_DE.ISO-8859-1"])
def test_names_survive_any_locale(locale: str) -> None:
    environ = {**os.environ, "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "HENGE_SOCKET": "/küche"}
    ran = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "hengectl", "status"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        check=False,
    )

    assert ran.returncode == 7
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_load_its_completion(face: Face, shell: str) -> None:
    script = face.now("completion", shell).out

    assert f"_HENGECTL_COMPLETE={shell}_complete" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_tab_knows_commands_and_kinds() -> None:
    def offered(*words: str) -> set[str]:
        environ = {
            **os.environ, "_HENGECTL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1), "HENGE_SOCKET": "/absent", "HENGE_SEVER": "misspelled",
        }  # fmt: skip
        command = [sys.executable, "-m", "hengectl"]
        ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")
        return {line.partition(",")[2] for line in ran.stdout.splitlines() if line}

    assert {"get", "set", "apply"} <= offered("hengectl", "")
    assert offered("hengectl", "get", "de") == {"devices"}
    assert offered("hengectl", "set", "gr") == {"group/"}
    assert offered("hengectl", "set", "device/") == set()


@pytest.mark.parametrize("line", ["unset device/lamp-1 color --for 2h", "explain lamp --foo"])
def test_an_option_that_is_hardly_alike_is_not_suggested(face: Face, line: str) -> None:
    ran = face.now(*line.split())

    assert ran.code == 2
    assert "No such option" in ran.err
    assert "Did you mean" not in ran.err
