"""The process around the daemon: whatever streams, signals and limits it is started with, it serves."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hengd.process import note_loop_trouble, reload_settings
from hengd.settings import load_settings
from tests.hengd.test_cli import HENGD, environment, hengd, serving
from tests.service import device
from tests.system.programs import PROGRAMS, Daemon, running, until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


class Shelled(Daemon):
    """A daemon that a shell starts, with other standard streams or limits."""

    def __init__(self, folder: Path, redirection: str = "", *, before: str = "true") -> None:
        super().__init__(folder)
        self._script = f'{before} && exec "$0" "$@" {redirection}'

    def command(self) -> list[str]:
        program, *options = super().command()
        return ["/bin/sh", "-c", self._script, str(PROGRAMS / program), *options]


@pytest.mark.parametrize(
    "redirection",
    [">&-", "<&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>&1", "2>/dev/full --log-level debug"],
)
def test_whatever_its_streams_are_it_serves_and_stops(tmp_path: Path, redirection: str) -> None:
    daemon = Shelled(tmp_path, redirection)
    try:
        daemon.start()
        streams = [os.readlink(f"/proc/{daemon.program.process.pid}/fd/{number}") for number in range(3)]  # type: ignore[union-attr]
        assert not [stream for stream in streams if stream.startswith(("socket:", "anon_inode:"))]
        assert daemon.stop() == 0
    finally:
        daemon.clean()
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
def test_a_refusal_that_nobody_can_read_still_has_its_exit_code(home: Path, stream: str) -> None:
    command = ["/bin/sh", "-c", f'exec "$0" "$@" {stream}', str(HENGD), "check", "--config", str(home / "none.toml")]
    assert subprocess.run(command, env=environment(home), check=False).returncode == 78


def test_an_output_that_cannot_be_written_is_told(home: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [str(HENGD), "config", "default"]
        ran = subprocess.run(command, env=environment(home), stdout=full, stderr=subprocess.PIPE, check=False)

    assert (ran.returncode, ran.stderr) == (74, b"Error: cannot write the output (No space left on device)\n")


class Configured(Daemon):
    """A daemon with a settings file."""

    def command(self) -> list[str]:
        return [*super().command(), "--config", str(self.folder / "hengd.toml")]


def reloaded(daemon: Configured, settings: str, event: str) -> str:
    """The line of the log that a reload with these settings ends with."""
    told = daemon.output.count(event)
    (daemon.folder / "hengd.toml").write_text(settings)
    assert daemon.program is not None
    daemon.program.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.output.count(event) > told, daemon.program)
    return next(line for line in reversed(daemon.output.splitlines()) if event in line)


def test_a_reload_takes_the_logs_level_and_names_what_waits_for_a_restart(tmp_path: Path) -> None:
    (tmp_path / "hengd.toml").write_text("")
    daemon = Configured(tmp_path)
    try:
        daemon.start()
        both = reloaded(daemon, '[daemon]\nlog_level = "debug"\n[join]\nmax_pending = 9\n', '"reloaded"')
        bad = reloaded(daemon, '[daemon]\nlog_level = "loud"\n', '"reload_refused"')
        back = reloaded(daemon, "", '"reloaded"')
        assert daemon.answers()
        assert daemon.stop() == 0
    finally:
        daemon.clean()

    assert "settings read again; a restart is needed for join.max_pending" in both
    assert "settings stay as they were: " in bad
    assert "daemon.log_level" in bad
    assert "restart" not in back


def test_a_reload_changes_the_level_at_once(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        reload_settings(load_settings(), lambda: load_settings(flags={"daemon.log_level": "debug"}))
        assert root.level == logging.DEBUG
    finally:
        root.setLevel(before)


def test_signals_that_ask_other_daemons_to_reload_change_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert daemon.program is not None
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            daemon.program.process.send_signal(number)
        assert daemon.answers()
        assert daemon.stop() == 0


def test_as_many_descriptors_are_taken_as_the_system_allows(home: Path) -> None:
    limited = ["/bin/sh", "-c", 'ulimit -Sn 64 && ulimit -Hn 2000 && exec "$0" "$@"', str(HENGD), *serving(home)]
    process = subprocess.Popen(limited, env=environment(home), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (2000, 2000)
    finally:
        process.kill()
        process.communicate()


def test_with_few_descriptors_connections_are_fewer_and_changes_are_kept(tmp_path: Path) -> None:  # C41
    daemon = Shelled(
        tmp_path, before="ulimit -n 256 && export HENGE_LIMITS__PER_ADDRESS=999 HENGE_LIMITS__HANDSHAKES=999"
        " HENGE_LIMITS__HANDSHAKES_PER_ADDRESS=999",
    )  # fmt: skip
    with ExitStack() as stack:
        stack.callback(daemon.clean)
        daemon.start()
        for _ in range(400):
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        daemon.admin.call("POST", "/v1/apply", {"objects": [device("lamp-1", bound="")]})
        daemon.admin.close()
        daemon.admin.call("POST", "/v1/tokens", {"name": "lamp-1"})
        assert daemon.stop() == 0
    assert "256 open files are allowed: at most 160 connections, not 8192" in daemon.output
    assert "Too many open files" not in daemon.output


def test_too_few_descriptors_are_78_and_nothing_is_made(home: Path) -> None:
    command = ["/bin/sh", "-c", 'ulimit -n 100 && exec "$0" "$@"', str(HENGD)]
    refused = hengd(home, *serving(home), program=command)
    assert (refused.returncode, "hengd needs 128" in refused.stderr) == (78, True)
    assert not (home / "data").exists()


@pytest.mark.parametrize(
    ("context", "level"),
    [({"message": "SSL error in data received", "exception": ConnectionResetError("peer")}, logging.DEBUG),
     ({"message": "broken", "exception": BrokenPipeError}, logging.DEBUG),
     ({"message": "Task exception was never retrieved", "exception": ZeroDivisionError("ours")}, logging.ERROR),
     ({"message": "no exception at all"}, logging.ERROR)],
)  # fmt: skip
def test_the_loops_trouble_is_a_line_and_a_peer_that_breaks_off_none(
    context: dict[str, Any], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "hengd"):
        note_loop_trouble(None, context)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert (record.levelno, record.event) == (level, "loop_trouble")  # type: ignore[attr-defined]
    assert context["message"] in record.message
