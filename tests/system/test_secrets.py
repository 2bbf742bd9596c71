"""The main job with a secret in it, by the real programs; then all that anybody but the device has is searched."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.programs import PATIENCE_S, PROGRAMS, Daemon, output_of, running, until

pytestmark = pytest.mark.system

CANARY = "Kanarienvogel-7f31 im Keller"
SECOND = "Zeisig-20c9 unter dem Dach"
FLEET = """
apiVersion: henge/v1
kind: Schema
metadata: {name: node}
spec:
  schema:
    type: object
    properties:
      level: {type: integer, default: 1}
      wifi: {type: object, properties: {ssid: {type: string}, psk: {type: string, minLength: 8, writeOnly: true}}}
---
apiVersion: henge/v1
kind: Group
metadata: {name: home}
spec: {selector: place=home, schema: node, values: {wifi: {ssid: den, psk: {$secret: wifi/home}}}}
---
apiVersion: henge/v1
kind: Device
metadata: {name: node-1, labels: {place: home}}
spec: {schema: node}
"""


class Person:
    """Somebody at the daemon's machine, and all that was shown to them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.seen = b""

    def types(self, *words: str, stdin: bytes = b"") -> int:
        """Run hengectl with everything that it can tell; the exit code."""
        command = [str(PROGRAMS / "hengectl"), "--socket", str(self._daemon.socket), "-v", "--debug", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=PATIENCE_S)
        self.seen += b"$ " + " ".join(words[:2]).encode() + b"\n" + done.stdout + done.stderr
        return done.returncode


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        yield started


def hook(folder: Path) -> Path:
    """An on-change command that tells all it knows, and fails when it is told to."""
    script = folder / "hook"
    script.write_text('#!/bin/sh\ncat "$HENGE_DOCUMENT"; ! grep -q \'"level":13\' "$HENGE_DOCUMENT"\n')
    script.chmod(0o755)
    return script


def test_nobody_but_the_device_ever_has_a_byte_of_a_secret_s6(daemon: Daemon, tmp_path: Path) -> None:
    person, fleet = Person(daemon), tmp_path / "fleet.yaml"
    fleet.write_text(FLEET)
    assert person.types("secret", "set", "wifi/home", "--from-file", "-", stdin=CANARY.encode() + b"\n") == 0
    assert person.types("apply", "-f", str(fleet)) == 0
    state = daemon.join("node-1")
    with daemon.agent(state, "--on-change", str(hook(tmp_path))):
        daemon.admin.until("node-1", config="in-sync", connection="online")
        assert json.loads(output_of(state).read_text())["wifi"] == {"psk": CANARY, "ssid": "den"}

        (tmp_path / "next").write_text(SECOND)
        assert person.types("secret", "set", "wifi/home", "--from-file", str(tmp_path / "next"), "--dry-run") == 0
        assert person.types("secret", "set", "wifi/home", "--from-file", str(tmp_path / "next")) == 0
        until(lambda: SECOND in output_of(state).read_text())
        daemon.admin.until("node-1", config="in-sync")
        person.types("set", "device/node-1", "level=13")
        daemon.admin.until("node-1", config="quarantined")
        reported = daemon.admin.status("node-1")["reported"]
        assert "[secret]" in str(reported["errors"])

        fleet.write_text(FLEET.replace("{$secret: wifi/home}", f"'{CANARY}'"))
        assert person.types("apply", "-f", str(fleet)) == 6
        assert person.types("diff", "-f", str(fleet)) == 6
        assert person.types("secret", "delete", "wifi/home", "--yes") == 5
        for words in (
            "get devices -o wide", "get device node-1 -o yaml", "get groups -o wide", "get group/home -o json",
            "get secrets", "get secret/wifi/home -o yaml", "secret list -o json", "why node-1", "why node-1 wifi.psk",
            "why node-1 wifi -o json", "document node-1", "document node-1 -o yaml", "describe device/node-1",
            "describe group/home", "history", "history secret/wifi/home -o json", "get revision 1", "get revision 2",
            "get revision 4 -o yaml", "events --since 0 -o json", "status", "rollback --all --to 2 --dry-run",
            "rollback group/home --to 0 --dry-run", "unset device/node-1 level", "rollback device/node-1 --to 2",
            "audit list -o json", "audit verify", "factor --dry-run", "doctor --no-mdns -o json",
        ):  # fmt: skip
            assert person.types(*words.split()) in (0, 1), words
        daemon.admin.until("node-1", config="in-sync")
        assert person.types("check", "-f", str(tmp_path / "fleet.yaml"), "--on-device") == 6
        sealed, shown = tmp_path / "henge.backup", tmp_path / "support.tar.gz"
        assert person.types("backup", "-o", str(sealed), "--passphrase-file", "-", stdin=b"correct horse battery") == 0
        assert person.types("support", "-o", str(shown), "--no-mdns") == 0
        metrics = daemon.admin.fetch("GET", "/metrics")
        kept = {path: path.read_bytes() for path in daemon.data.rglob("*") if path.is_file()}  # under way
        daemon.stop()
        daemon.start()
        daemon.admin.until("node-1", config="in-sync", connection="online")
    daemon.stop()

    places: dict[str, bytes] = {f"{path} under way": content for path, content in kept.items()}
    places |= {str(path): path.read_bytes() for path in daemon.data.rglob("*") if path.is_file()}
    places |= {"a backup": sealed.read_bytes(), "what is shown to supporters": gzip.decompress(shown.read_bytes())}
    places |= {"the metrics": metrics}
    places |= {"what a person saw": person.seen, "the daemon's log": daemon.output.encode()}
    assert any(place.endswith("data.mdb") for place in places)
    assert b"secret wifi/home" in person.seen
    for value in (CANARY, SECOND):
        for part in (value, value[:12], value[-12:]):
            assert [place for place, content in places.items() if part.encode() in content] == []


def test_a_secret_is_no_argument_c15(daemon: Daemon, tmp_path: Path) -> None:
    person, fleet = Person(daemon), tmp_path / "fleet.yaml"
    fleet.write_text(FLEET)
    person.types("secret", "set", "wifi/home", "--from-file", "-", stdin=b"some long phrase")
    person.types("apply", "-f", str(fleet))

    assert person.types("set", "device/node-1", f"wifi.psk={CANARY}") == 2
    assert person.types("set", "device/node-1", f'wifi.psk={{"$secret": "{CANARY}"}}') == 2
    assert person.types("set", "group/home", "--json", f'wifi.psk="{CANARY}"') == 2
    assert person.types("secret", "set", "wifi/home", CANARY) == 2
    assert person.types("secret", "set", f"wifi/home={CANARY}") == 2
    assert person.types("secret", "set", "wifi/home") == 2
    assert b"secret set wifi/psk" in person.seen
    assert b"--from-file" in person.seen
    assert CANARY.encode() not in person.seen
    assert person.types("set", "device/node-1", "wifi.psk=secret/wifi/home") == 0


def test_the_key_may_be_systemds_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credential = tmp_path / "credentials" / "henge-secret-key"
    credential.parent.mkdir()
    credential.write_bytes(b"Y2FuYXJpZXMgc2luZyBpbiB0aGUgZGFyayBjZWxsYXI=\n")
    credential.chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credential.parent))
    with running(tmp_path) as daemon:
        person = Person(daemon)
        assert person.types("secret", "set", "wifi/home", "--from-file", "-", stdin=CANARY.encode()) == 0
        daemon.stop()
        monkeypatch.delenv("CREDENTIALS_DIRECTORY")
        daemon.start()
        assert person.types("secret", "set", "wifi/home", "--from-file", "-", stdin=SECOND.encode()) == 7
        assert person.types("status") == 0

    assert not (daemon.data / "keys").exists()
    assert b"the secrets are locked" in person.seen
