"""Last night's backup on another machine: the agents come back by themselves."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.service import device, schema, verify_store
from tests.system.programs import PATIENCE_S, PROGRAMS, Daemon, output_of, running

pytestmark = pytest.mark.system

COPIES = int(os.environ.get("HENGE_CYCLES", "1"))


def command(*words: str) -> str:
    """Run one of our commands with the passphrase on standard input; its output."""
    done = subprocess.run(
        [str(PROGRAMS / words[0]), *words[1:], "--passphrase-file", "-"],
        input="correct horse battery staple\n", capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S,
        env={**os.environ, "HENGE_CONFIG": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(state: Path) -> dict[str, object]:
    return dict(json.loads(output_of(state).read_text()))


def test_a_daemon_killed_under_load_goes_on_elsewhere_and_nobody_touches_a_device(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1"), device("lamp-2")]})
        lamps = [daemon.join("lamp-1"), daemon.join("lamp-2")]
        with daemon.agent(lamps[0]), daemon.agent(lamps[1]):
            daemon.admin.set("lamp-1", brightness=1)
            for name in ("lamp-1", "lamp-2"):
                daemon.admin.until(name, config="in-sync")
            backup = tmp_path / "last-night.backup"
            command("hengectl", "--socket", str(daemon.socket), "backup", "-o", str(backup))
            for number in range(2, 12):  # after the backup: lamp-1 runs what it does not know
                daemon.admin.set("lamp-1", brightness=number)
            daemon.admin.until("lamp-1", config="in-sync")
            daemon.kill()

            elsewhere = Daemon(tmp_path, tmp_path / "other")
            elsewhere.port = daemon.port
            told = command("hengd", "restore", str(backup), "--data-dir", str(elsewhere.data))
            assert "2 devices" in told
            try:
                elsewhere.start()
                elsewhere.admin.until("lamp-2", config="in-sync", connection="online")
                elsewhere.admin.until("lamp-1", config="ahead", connection="online")
                assert shown(lamps[0])["brightness"] == 11
                elsewhere.admin.set("lamp-2", color="red")
                elsewhere.admin.until("lamp-2", config="in-sync")
                elsewhere.admin.call("POST", "/v1/devices/lamp-1/retry")
                elsewhere.admin.until("lamp-1", config="in-sync")
                assert (shown(lamps[0])["brightness"], shown(lamps[1])["color"]) == (1, "red")
                assert elsewhere.stop() == 0
            finally:
                elsewhere.clean()
    verify_store(tmp_path / "other")


def test_a_backup_while_changes_are_written_is_one_moment_of_them(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1"), device("lamp-2")]})
        words = ["hengectl", "--socket", str(daemon.socket), "backup", "--passphrase-file", "-", "-o"]
        for copy in range(COPIES):
            backup = tmp_path / f"{copy}.backup"
            making = subprocess.Popen([str(PROGRAMS / words[0]), *words[1:], str(backup)], stdin=subprocess.PIPE,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
            assert making.stdin is not None
            making.stdin.write("correct horse battery staple\n")
            making.stdin.close()
            number = 0
            while making.poll() is None:  # both devices get the same value in one transaction
                number += 1
                objects = [device(name, brightness=number % 100) for name in ("lamp-1", "lamp-2")]
                daemon.admin.call("POST", "/v1/apply", {"objects": objects})
            assert making.returncode == 0
            command("hengd", "restore", str(backup), "--data-dir", str(tmp_path / f"restored-{copy}"))
            with running(tmp_path, tmp_path / f"restored-{copy}") as restored:
                one, two = (restored.admin.call("GET", f"/v1/devices/{name}") for name in ("lamp-1", "lamp-2"))
                assert one["spec"] == two["spec"]
                assert one["metadata"]["revision"] == two["metadata"]["revision"]


def test_a_daemon_killed_in_the_midst_of_a_backup_leaves_no_rest(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        (daemon.data / "backup.left-behind").mkdir(mode=0o700)
        (daemon.data / "backup.left-behind" / "data.mdb").write_bytes(b"half")
        daemon.kill()
        daemon.start()
        assert not list(daemon.data.glob("backup.*"))
