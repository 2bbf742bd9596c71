"""Asking a real device about a candidate by the real command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.service import device, schema
from tests.system.programs import PROGRAMS, Daemon, output_of, running

pytestmark = pytest.mark.system


def check(daemon: Daemon, folder: Path, color: str) -> tuple[int, str]:
    """Exit code and output of ``hengectl check`` for lamp-1 and lamp-2 in another colour."""
    files = folder / "fleet"
    files.mkdir(exist_ok=True)
    for name in ("lamp-1", "lamp-2"):
        manifest = {"apiVersion": "henge/v1", **device(name, color=color)}
        (files / f"{name}.json").write_text(json.dumps(manifest))
    command = [str(PROGRAMS / "hengectl"), "--socket", str(daemon.socket), "check", "--on-device", "-f", str(files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.returncode, done.stdout + done.stderr


def test_a_device_is_asked_and_keeps_what_it_runs(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1"), device("lamp-2")]})
        state = daemon.join("lamp-1")
        look = "! grep -q blue $HENGE_DOCUMENT || { echo no blue bulb; exit 3; }"
        with daemon.agent(state, "--check", look):
            daemon.admin.until("lamp-1", config="in-sync", connection="online")
            before = output_of(state).read_bytes()
            assert check(daemon, tmp_path, "red") == (
                9, "device/lamp-1 could run it\ndevice/lamp-2 is not connected\n",
            )  # fmt: skip
            assert check(daemon, tmp_path, "blue") == (
                6,
                "device/lamp-1 refuses it (invalid)\n  exit code 3: no blue bulb\ndevice/lamp-2 is not connected\n",
            )
            assert output_of(state).read_bytes() == before
            assert daemon.admin.status("lamp-1")["config"] == "in-sync"

            daemon.admin.set("lamp-1", color="blue")
            status = daemon.admin.until("lamp-1", config="quarantined")
            assert status["reported"]["errors"] == [{"pointer": "", "message": "exit code 3: no blue bulb"}]
