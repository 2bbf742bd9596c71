"""Everything is lost but the authorities: the agents tell a new daemon what they run, and nobody touches them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.service import device, schema, verify_store
from tests.system.programs import PATIENCE_S, PROGRAMS, Admin, Daemon, output_of, running, until

pytestmark = pytest.mark.system

PASSPHRASE = "correct horse battery staple"
NODE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "note": {"type": "string", "default": "here"},
        "wifi": {
            "type": "object",
            "properties": {"ssid": {"type": "string"}, "psk": {"type": "string", "writeOnly": True}},
        },
    },
}
PATIENT_S = 150.0
"""A device that is wanted asks once a minute at least; connecting and a delivery come on top."""


def command(*words: str) -> str:
    """Run one of our commands with the passphrase on standard input; its output."""
    done = subprocess.run(
        [str(PROGRAMS / words[0]), *words[1:]], input=f"{PASSPHRASE}\n", capture_output=True, text=True, check=False,
        timeout=2 * PATIENCE_S, env={**os.environ, "HENGE_CONFIG": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(state: Path) -> dict[str, Any]:
    return dict(json.loads(output_of(state).read_text()))


def test_a_fleet_comes_back_from_the_authorities_alone_and_nobody_touches_a_device(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.admin.call("PUT", "/v1/secrets/wifi/home", {"value": "sesame-sesame"})
        node = device("node-1", "node", wifi={"ssid": "attic", "psk": {"$secret": "wifi/home"}})
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), schema("node", **NODE), device("lamp-1"), node]})
        lamp, node_state = daemon.join("lamp-1"), daemon.join("node-1")
        ids = {name: daemon.admin.status(name)["id"] for name in ("lamp-1", "node-1")}
        with daemon.agent(lamp), daemon.agent(node_state):
            for number in (3, 7):
                daemon.admin.set("lamp-1", brightness=number)
            for name in ids:
                daemon.admin.until(name, config="in-sync")
            before = {state: output_of(state).read_bytes() for state in (lamp, node_state)}
            delivered = deliveries(lamp)
            keys = tmp_path / "keys.sealed"
            command("hengd", "ca", "export", "-o", str(keys), "--passphrase-file", "-", "--socket", str(daemon.socket))
            daemon.kill()
            shutil.rmtree(daemon.data)

            elsewhere = Daemon(tmp_path, tmp_path / "other")
            told = command("hengd", "restore", str(keys), "--data-dir", str(elsewhere.data), "--passphrase-file", "-")
            assert "Founded anew" in told
            try:
                rebuild(elsewhere, daemon.port)
                for name, device_id in ids.items():
                    status = elsewhere.admin.until(name, config="in-sync", connection="online")
                    assert status["id"] == device_id
                    schema_name = elsewhere.admin.call("GET", f"/v1/devices/{name}")["spec"]["schema"]
                    assert schema_name == name.partition("-")[0], "agents know what their schema is called"
                after = {state: output_of(state).read_bytes() for state in (lamp, node_state)}
                assert [json.loads(text) for text in after.values()] == [json.loads(text) for text in before.values()]
                assert after[lamp] == before[lamp]
                assert deliveries(lamp) == delivered > 0
                elsewhere.admin.set("lamp-1", color="red")
                elsewhere.admin.set("node-1", note="moved")
                until(lambda: shown(lamp)["color"] == "red" and shown(node_state)["note"] == "moved")
                assert shown(node_state)["wifi"] == {"ssid": "attic", "psk": "sesame-sesame"}
                assert elsewhere.stop() == 0
            finally:
                elsewhere.clean()
    verify_store(tmp_path / "other")


def rebuild(elsewhere: Daemon, port: int) -> None:
    """Open the window where no device looks yet, then serve where they do; take what they hand in."""
    with_socket = ["hengectl", "--socket", str(elsewhere.socket), "rescue"]
    elsewhere.start()
    command(*with_socket, "open")
    assert elsewhere.stop() == 0
    elsewhere.port = port
    elsewhere.start()
    elsewhere.admin.close()
    elsewhere.admin = Admin(elsewhere.socket, patience_s=PATIENT_S)
    waiting: list[str] = []

    def handed_in() -> bool:
        waiting[:] = sorted(one["name"] for one in elsewhere.admin.call("GET", "/v1/rescues")["items"])
        return waiting == ["lamp-1", "node-1"]

    until(handed_in, patience_s=PATIENT_S)
    assert "127.0.0.1" in command(*with_socket, "list")
    looked = command(*with_socket, "take", "--all", "--dry-run")
    assert ("sesame-sesame" in looked, "rescued/wifi/psk" in looked, "brightness" in looked) == (False, True, True)
    assert "2 devices taken: lamp-1, node-1" in command(*with_socket, "take", "--all", "--yes")
    command(*with_socket, "close")


def deliveries(state: Path) -> int:
    """How many documents an agent began to run, as its log tells."""
    return len(re.findall(r"document .* of revision \d+ runs", state.with_suffix(".log").read_text()))
