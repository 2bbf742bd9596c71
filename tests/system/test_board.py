"""``make board``: a simulated board beside a daemon, with the real programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.henge_micro.boards import REPOSITORY
from tests.henge_micro.conftest import interpreter_of
from tests.system.programs import PATIENCE_S, Daemon, running

pytestmark = pytest.mark.system


def test_the_simulated_board_joins_and_draws_what_it_is_told(tmp_path: Path) -> None:
    interpreter_of("native")
    with running(tmp_path) as daemon:
        (tmp_path / "admin.sock").symlink_to(daemon.socket)
        hengectl(daemon, "apply", "-f", str(REPOSITORY / "examples" / "homelab"))
        with open(tmp_path / "board.log", "wb") as log:
            board = subprocess.Popen(
                [sys.executable, REPOSITORY / "contrib" / "board.py", "--folder", tmp_path],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        try:
            daemon.admin.until("lamp-2", config="in-sync")
            hengectl(daemon, "set", "device/lamp-2", "color=pink", "brightness=33", "--wait", "--timeout", "10s")
            wait_for(tmp_path / "board.log", "pink 33%")
        finally:
            os.killpg(board.pid, signal.SIGINT)
            board.wait(PATIENCE_S)

        assert "hengectl set device/lamp-2" in (tmp_path / "board.log").read_text()
        assert not (tmp_path / "board" / "henge.json").stat().st_mode & 0o077


def hengectl(daemon: Daemon, *arguments: str) -> None:
    """A command that must succeed."""
    program = Path(sys.executable).parent / "hengectl"
    environment = {**os.environ, "HENGE_SOCKET": str(daemon.socket)}
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def wait_for(log: Path, text: str) -> None:
    """Until a program's log has the text."""
    deadline = time.monotonic() + PATIENCE_S
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
