from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from henge_agent.cli import exit_code, run_command_line
from henge_agent.records import Progress, Version
from henge_agent.state import State
from henge_agent.trial import undone
from henge_protocol import joining
from henge_protocol.errors import CODES, HengeError, Invalid, NotFound
from henge_protocol.joining import format_token
from henge_protocol.model import digest_of, short_digest
from henge_protocol.wire import Report
from tests.henge_agent.scripted import Scripted

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user with an empty home, and logging put back as it was."""
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HENGE_TOKEN_FILE", "JOURNAL_STREAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def token_text() -> str:
    return format_token(joining.new_token("join", b"x" * 32, random=secrets.token_bytes))


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> tuple[str, str]:
    assert run_command_line(list(arguments)) == code
    said = capsys.readouterr()
    return said.out, said.err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version", code=0)[0].startswith("henge-agent 0.")
    for command in ("join", "run", "status"):
        assert f"henge-agent {command} [OPTIONS]" in run(capsys, command, "-h", code=0)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["joni"],
        ["join", "--tokenfile", "x"],
        ["join", "http://henge.lan"],
        ["join", "henge.lan", "--name", "No_Name"],
        ["join", "henge.lan", "--token", token_text(), "--token-file", "x"],
        ["join", "henge.lan"],
        ["run", "--output", "x:xml"],
        ["run", "--output", "/tmp/x", "--output", "/tmp/x"],
        ["run", "--hook-timeout", "0"],
        ["run", "--state-dir", ""],
        ["status", "--state-dir="],
        [],
    ],
)
def test_wrong_usage_exits_2_and_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    _, err = run(capsys, *arguments, code=2)

    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "line", ["join --name a --name b", "run --on-change x --on-change=y", "status --state-dir /a --state-dir /b"]
)
def test_an_option_given_twice_exits_2(capsys: pytest.CaptureFixture[str], line: str) -> None:
    _, err = run(capsys, *line.split(), code=2)

    assert "is given twice" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["join", ""], "'[URL]': it is empty", id="C04 address"),
        pytest.param(["join", "h", "--token-file="], "'--token-file': it is empty", id="C04 file"),
        pytest.param(["join", "h", "--token", ""], "'--token': it is empty", id="C04 token"),
        pytest.param(["join", "h", "--name", ""], "'--name': it is empty", id="C04 name"),
        pytest.param(["join", "h", "--schema="], "'--schema': it is empty", id="C04 schema"),
        pytest.param(["run", "--config", ""], "'--config': it is empty", id="C04 settings"),
        pytest.param(["run", "--output", ""], "'--output': it is empty", id="C04 output"),
        pytest.param(["run", "--hook-timeout="], "'--hook-timeout': it is empty", id="C04 time"),
        pytest.param(["status", "--state-dir", ""], "'--state-dir': it is empty", id="C04 folder"),
        pytest.param(["join", "\udcff"], r"'\udcff' is not UTF-8", id="C31 address"),
        pytest.param(["join", "h", "--name", "\udcff"], r"'\udcff' is not UTF-8", id="C31 name"),
        pytest.param(["status", "\x07"], r"argument (\x07)", id="C30 escaped"),
        pytest.param(["status", "--state", "x"], "No such option '--state'", id="C06 abbreviated"),
        pytest.param(["staus"], "Did you mean 'status'?", id="C02 command"),
        pytest.param(["join", "::1", "--accept-first"], "IPv6 address stands in brackets", id="C08 IPv6"),
        pytest.param(["join", "u@h", "--accept-first"], "is not a daemon's address", id="C08 user"),
        pytest.param(["join", "h:65536", "--accept-first"], "1 to 65535", id="C08 port"),
        pytest.param(["run", "--hook-timeout", "1e9"], "'1e9' is not a time", id="C07 exponent"),
        pytest.param(["run", "--hook-timeout", "nan"], "'nan' is not a time", id="C07 nan"),
        pytest.param(["run", "--hook-timeout", "-1s"], "'-1s' is not a time", id="C07 negative"),
    ],
)
def test_what_is_doubtful_is_no_guess(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], told: str
) -> None:
    out, err = run(capsys, *words, code=2)

    assert (out, told in err, err.isascii()) == ("", True, True), err
    assert "\x07" not in err
    assert not (tmp_path / "state").exists()


def test_hooks_may_be_none_and_may_name_files_of_any_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "run", "--on-change", "", "--health", "/x/\udcff", "--output", "/x/\udcff", code=78)

    assert err.startswith("Error: this device has not joined a fleet yet")


def test_the_name_of_a_file_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, err = run(capsys, "run", "--config", str(tmp_path / "x\x1b[2J"), code=66)

    assert r"x\x1b[2J: No such file" in err
    assert "\x1b" not in err


def test_a_device_that_has_not_joined_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "status"):
        _, err = run(capsys, command, code=78)
        assert err.startswith("Error: this device has not joined a fleet yet")
        assert "henge-agent join" in err


@pytest.mark.parametrize("option", ["--state-dir", "--config"])
def test_a_folder_of_a_user_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str], option: str) -> None:
    _, err = run(capsys, "run", option, "~no-such-user/henge", code=2)

    assert "'~no-such-user/henge' is below the home" in err


def test_the_next_step_keeps_the_folder_that_was_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["--state-dir", str(tmp_path / "own")], [f"--state-dir={tmp_path / 'own'}"]):
        _, err = run(capsys, "status", *words, code=78)
        assert f"henge-agent join --state-dir {tmp_path / 'own'} https://HOST:4364" in err


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", 65),
        (b"henge-join-1.x", 65),
        (b"\xff\xfe", 65),
        (b"x" * 5000, 65),
        (None, 66),
    ],
)
def test_a_token_file_that_holds_no_token(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, code: int
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    run(capsys, "join", "henge.lan", "--token-file", str(tmp_path / "token"), code=code)


def test_a_folder_is_no_token_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, err = run(capsys, "join", "henge.lan", "--token-file", str(tmp_path), code=73)

    assert "neither a file nor a pipe" in err


def test_a_pipe_that_nobody_fills_is_not_waited_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    run(capsys, "join", "henge.lan", "--token-file", str(tmp_path / "pipe"), code=65)


def test_a_token_comes_through_a_pipe_of_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    text = token_text() + "\n"

    def write_slowly() -> None:
        with os.fdopen(writing, "w") as pipe:
            for part in (text[:20], text[20:]):
                pipe.write(part)
                pipe.flush()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    try:
        _, err = run(capsys, "join", "127.0.0.1:9", "--token-file", f"/dev/fd/{reading}", code=69)
    finally:
        writer.join()
        os.close(reading)

    assert "no daemon answers at 127.0.0.1:9: connection refused" in err
    assert "everybody can read" not in err


def test_a_token_on_the_command_line_works_and_is_warned_about(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    token = token_text()

    _, err = run(capsys, "join", "127.0.0.1:9", "--token", token, code=69)

    assert "process list" in err
    assert "no daemon answers at 127.0.0.1:9" in err
    assert token not in err


def test_a_token_file_that_everybody_can_read_is_warned_about(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"  {token_text()}\r\n")
    (tmp_path / "token").chmod(0o644)

    _, err = run(capsys, "join", "127.0.0.1:9", "--token-file", str(tmp_path / "token"), code=69)

    assert "everybody can read" in err


def test_a_device_that_has_joined_is_not_joined_again_by_accident(
    capsys: pytest.CaptureFixture[str], joined: State, tmp_path: Path
) -> None:
    joined.close()

    _, err = run(capsys, "join", "127.0.0.1:9", "--token", token_text(), code=73)

    assert "lamp-1" in err
    assert "--replace" in err


def test_a_damaged_state_can_be_replaced(capsys: pytest.CaptureFixture[str], joined: State) -> None:
    joined.close()
    (joined.folder / "membership.json").write_bytes(b"{")

    _, err = run(capsys, "join", "127.0.0.1:9", "--token", token_text(), code=65)
    assert "--replace" in err
    run(capsys, "join", "127.0.0.1:9", "--token", token_text(), "--replace", code=69)

    assert (joined.folder / "membership.json.damaged").read_bytes() == b"{"


def test_a_second_agent_on_the_folder_exits_75(capsys: pytest.CaptureFixture[str], joined: State) -> None:
    _, err = run(capsys, "run", code=75)

    assert f"another henge-agent works on {joined.folder}" in err


def test_a_key_that_others_can_read_exits_77(capsys: pytest.CaptureFixture[str], joined: State) -> None:
    joined.close()
    joined.identity_file("a").chmod(0o644)

    for command in ("run", "status"):
        _, err = run(capsys, command, code=77)
        assert f"chmod 600 {joined.folder}/identity-a.pem" in err


@pytest.mark.root("setpriv")
@pytest.mark.parametrize("owned", ["", "membership.json", "identity-a.pem", "lock"])
@pytest.mark.parametrize("line", ["run", "join h --replace --token-file TOKEN"])
def test_the_state_of_another_user_exits_77_and_names_what_is_closed(
    joined: State, tmp_path: Path, owned: str, line: str
) -> None:  # C42
    """Root without its capabilities is a user like others."""
    joined.close()
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(token_text())
    closed = joined.folder / owned
    os.chown(closed, 65534, 65534)
    words = [str(token) if word == "TOKEN" else word for word in line.split()]
    ran = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command(*words, "--state-dir", str(joined.folder))],
        env=environ(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (ran.returncode, ran.stdout) == (77, ""), ran
    assert "Permission denied" in ran.stderr
    assert f"see: ls -ld {closed}\n" in ran.stderr


def test_status_says_what_runs_and_what_is_owed(capsys: pytest.CaptureFixture[str], joined: State) -> None:
    joined.keep_document(b"{}")
    version = Version("e", 41, digest_of(b"{}"))
    joined.keep_progress(Progress(current=version, report=Report("e", 41, version.digest, "applied")))

    out, _ = run(capsys, "status", code=0)

    assert "lamp-1 (id " in out
    assert f"{version.digest[:12]} of revision 41" in out
    assert "applied, the daemon has not confirmed it yet" in out
    assert "agent      running" in out


def test_status_says_that_a_document_is_on_trial_or_was_taken_back(
    capsys: pytest.CaptureFixture[str], joined: State
) -> None:
    good, new = Version("e", 40, digest_of(b"{}")), Version("e", 41, digest_of(b'{"a":1}'))
    joined.keep_document(b"{}")
    joined.keep_document(b'{"a":1}')
    trial = Progress(current=good, trial=new, boot="b", until_s=1.0)
    joined.keep_progress(trial)
    out, _ = run(capsys, "status", code=0)
    assert f"document   {short_digest(new.digest)} of revision 41" in out
    assert "report     applied, the daemon has not confirmed it yet" in out

    joined.keep_progress(undone(trial, "", "late"))
    out, _ = run(capsys, "status", code=0)
    assert f"document   {short_digest(good.digest)} of revision 40" in out
    assert "report     rolled-back, the next contact tells why" in out


def test_status_says_that_the_daemon_lets_the_device_in_no_more(
    capsys: pytest.CaptureFixture[str], joined: State
) -> None:
    joined.update_membership(lambda membership: replace(membership, refused="revoked"))

    out, _ = run(capsys, "status", code=0)

    assert "refused    revoked: the daemon lets this device in no more" in out
    assert "henge-agent join --replace --token-file FILE" in out


def test_status_of_a_device_that_the_daemon_forgot_speaks_of_a_rescue_first(
    capsys: pytest.CaptureFixture[str], joined: State
) -> None:  # who joins anew comes back without its values
    joined.update_membership(lambda membership: replace(membership, refused="unknown_certificate"))

    out, _ = run(capsys, "status", code=0)

    assert 0 < out.index("hengectl rescue open") < out.index("henge-agent join --replace")


def test_status_says_that_the_daemon_speaks_another_protocol(capsys: pytest.CaptureFixture[str], joined: State) -> None:
    joined.update_membership(lambda membership: replace(membership, refused="unsupported_protocol"))

    out, _ = run(capsys, "status", code=0)

    assert "refused    unsupported_protocol: the daemon speaks other versions of the protocol; update" in out
    assert "--replace" not in out


def test_every_code_has_an_exit_code_and_files_have_their_own() -> None:
    assert {exit_code(HengeError(code, "x")) for code in CODES if code != "bad_file"} <= {
        1, 2, 65, 69, 70, 73, 74, 75, 76, 77, 78
    }  # fmt: skip
    denied = Invalid("bad_file", "x")
    denied.__cause__ = PermissionError(13, "x")
    assert [exit_code(denied), exit_code(NotFound("bad_file", "x")), exit_code(Invalid("bad_file", "x"))] == [
        77,
        66,
        73,
    ]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'agent'}"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from henge_agent.cli import main; main()", *arguments]


def test_the_agent_imports_neither_the_daemon_nor_its_libraries_nor_what_is_rarely_needed() -> None:
    script = "import sys, json, henge_agent.cli, henge_agent.serve; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", script], env=environ(), capture_output=True, check=True).stdout

    roots = {name.partition(".")[0] for name in json.loads(said)}
    assert not roots & {"hengd", "hengectl", "lmdb", "msgspec", "jsonschema", "jsonschema_rs", "picows", "uvloop"}
    assert not roots & {"cryptography", "zeroconf"}


async def test_joined_by_token_and_run_as_a_process_until_sigterm(scripted: Scripted, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(format_token(scripted.token()))
    token.chmod(0o600)
    state, output = tmp_path / "state", tmp_path / "lamp.toml"
    join = await asyncio.create_subprocess_exec(
        *command("join", str(scripted.address), "--token-file", str(token), "--name", "lamp-1"),
        "--state-dir", str(state),
        env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = (await join.communicate())[0].decode()
    assert join.returncode == 0, said
    assert "as lamp-1." in said

    agent = await asyncio.create_subprocess_exec(
        *command("run", "--state-dir", str(state), "--output", str(output)),
        env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        await scripted.want(b'{"color":"red"}')
        await scripted.reported("applied")
        assert await asyncio.to_thread(output.read_text) == 'color = "red"\n'
        agent.send_signal(signal.SIGTERM)
        said = (await agent.communicate())[0].decode()
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.wait()

    assert agent.returncode == 0
    assert "connected to 127.0.0.1" in said
    assert "Traceback" not in said


async def test_the_settings_file_says_what_the_command_line_does_not(
    scripted: Scripted, joined: State, tmp_path: Path
) -> None:
    assert joined.membership is not None
    joined.keep_membership(replace(joined.membership, address=str(scripted.address)))
    joined.close()
    said = tmp_path / "said"
    (tmp_path / "agent.toml").write_text(
        f"""
        on_change = "echo file >> {said}"
        health = "echo health >> {said}"
        [[output]]
        path = "{tmp_path}/lamp.yaml"
        [[output]]
        path = "{tmp_path}/wifi.env"
        field = "wifi"
        """
    )
    agent = await asyncio.create_subprocess_exec(
        *command("run", "--state-dir", str(joined.folder), "--on-change", f"echo flag >> {said}"),
        env=environ() | {"HENGE_AGENT_CONFIG": str(tmp_path / "agent.toml")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await scripted.want(b'{"color":"red","wifi":{"ssid":"home"}}')
        await scripted.reported("applied")
    finally:
        agent.kill()
        await agent.wait()

    assert said.read_text() == "flag\nhealth\n"
    assert (tmp_path / "lamp.yaml").read_text() == 'color: "red"\nwifi:\n  ssid: "home"\n'
    assert (tmp_path / "wifi.env").read_text() == "SSID=home\n"


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ("helth = 'x'", 78, "did you mean health?"),
        ("hook_timeout = '5x'", 2, "5x"),
        ("[[output]]\npath = '/etc/x'\ntemplate = '/no/such.tmpl'", 66, "/no/such.tmpl"),
        (None, 66, "agent.toml"),
    ],
)
def test_a_settings_file_with_a_mistake_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str | None, code: int, said: str
) -> None:
    path = tmp_path / "agent.toml"
    if config is not None:
        path.write_text(config)

    assert run_command_line(["run", "--config", str(path), "--state-dir", str(tmp_path / "state")]) == code
    assert said in capsys.readouterr().err


async def test_killed_at_any_moment_the_agent_comes_back(scripted: Scripted, joined: State, tmp_path: Path) -> None:
    """kill -9 while changes stream in: the file is whole each time, and in the end it is the newest."""
    assert joined.membership is not None
    joined.keep_membership(replace(joined.membership, address=str(scripted.address)))
    joined.close()
    output = tmp_path / "lamp.json"
    for turn in range(4):
        agent = await asyncio.create_subprocess_exec(
            *command("run", "--state-dir", str(joined.folder), "--output", str(output)),
            env=environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            for number in range(5 + 3 * turn):
                await scripted.want(b'{"turn":%d,"number":%d}' % (turn, number))
                await asyncio.sleep(0.001 * turn)
            await scripted.reported("applied", digest_of(scripted.desired or b""))
            await scripted.want(b'{"turn":%d,"number":"last"}' % turn)
        finally:
            agent.kill()
            await agent.wait()
        assert json.loads(await asyncio.to_thread(output.read_bytes))["turn"] == turn
        with closing(State(joined.folder)) as state:
            assert state.progress.running is not None


def test_an_output_that_cannot_be_written_is_told(joined: State) -> None:
    with open("/dev/full", "w") as full:
        asking = command("status", "--state-dir", str(joined.folder))
        ran = subprocess.run(asking, env=environ(), stdout=full, stderr=subprocess.PIPE, check=False)

    assert (ran.returncode, ran.stderr) == (74, b"Error: cannot write the output (No space left on device)\n")
