"""What was acknowledged is there: after SIGKILL under load, and with a disk that is full to the byte."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from henge_protocol.pki import generate_key, key_matches
from henge_protocol.tls import unverified_context
from tests.hengd.test_store import fill, small_disk
from tests.service import PATIENCE_S, device, enrolment, schema, verify_store
from tests.system.programs import Admin, Daemon, Refused, output_of, running, until

pytestmark = pytest.mark.system

CYCLES = int(os.environ.get("HENGE_CYCLES", "15"))
WRITERS = 3
NAMES = [f"lamp-{number}" for number in range(WRITERS)]


class Writer:
    """Changes one device as fast as it is answered, and remembers what was acknowledged."""

    def __init__(self, socket: Path, name: str, first: int) -> None:
        self.name = name
        self.acknowledged = first
        self.revision = 0
        self.asked = first
        self._admin = Admin(socket)
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
        self._admin.close()

    def _run(self) -> None:
        try:
            while True:
                self.asked += 1
                answer = self._admin.set(self.name, brightness=self.asked % 101, wifi={"channel": self.asked})
                self.acknowledged, self.revision = self.asked, answer["metadata"]["revision"]
        except (OSError, http.client.HTTPException):
            return  # the daemon is dead


def test_a_daemon_killed_before_it_answered_gives_the_same_identity_again(tmp_path: Path) -> None:  # E43
    with running(tmp_path) as daemon:
        token = daemon.admin.call("POST", "/v1/tokens", {"name": "lamp-1"})["token"]
        key = generate_key()
        body = json.dumps(enrolment(token, key, "lamp-1"))
        lost = asking(daemon.port, body)  # its answer is never read
        until(lambda: bool(daemon.admin.call("GET", "/v1/devices")["items"]))
        device_id = daemon.admin.call("GET", "/v1/devices/lamp-1")["metadata"]["id"]
        daemon.kill()
        lost.close()
        daemon.start()
        with closing(asking(daemon.port, body)) as again:
            answer = again.getresponse()
            identity = json.loads(answer.read())
        devices = daemon.admin.call("GET", "/v1/devices")["items"]

    assert (answer.status, identity["device_id"]) == (201, device_id)
    assert key_matches(base64.b64decode(identity["certificate"]), key)
    assert [one["metadata"]["name"] for one in devices] == ["lamp-1"]


def asking(port: int, body: str) -> http.client.HTTPSConnection:
    """A connection over which somebody asks to be enrolled."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=unverified_context(), timeout=PATIENCE_S)
    connection.request("POST", "/v1/enrol", body, {"Content-Type": "application/json"})
    return connection


def test_every_acknowledged_change_survives_kill_minus_nine(tmp_path: Path) -> None:  # D1, D4
    rng, counts, total, waited_s = random.Random(5), dict.fromkeys(NAMES, 0), 0, 0.0
    with running(tmp_path) as daemon:
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), *[device(name) for name in NAMES]]})
        for _ in range(CYCLES):
            writers = [Writer(daemon.socket, name, counts[name]) for name in NAMES]
            for writer in writers:
                writer.start()
            time.sleep(rng.uniform(0.0, 0.15))
            daemon.kill()
            for writer in writers:
                writer.join()
            began = time.monotonic()
            daemon.start()
            waited_s += time.monotonic() - began
            revision = daemon.admin.call("GET", "/v1/status")["revision"]
            for writer in writers:
                values = daemon.admin.call("GET", f"/v1/devices/{writer.name}")["spec"]["values"]
                found = values.get("wifi", {}).get("channel", 0)
                assert writer.acknowledged <= found <= writer.asked
                assert values.get("brightness", 0) == found % 101
                assert revision >= writer.revision
                total += writer.acknowledged - counts[writer.name]
                counts[writer.name] = found
        history = daemon.admin.call("GET", "/v1/revisions?limit=1")["items"]
        assert daemon.stop() == 0
    assert history
    assert total > CYCLES
    verify_store(tmp_path / "data")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    with small_disk(tmp_path, 40) as disk, running(tmp_path, disk / "data") as daemon:
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1"), device("lamp-2")]})
        yield daemon, disk


@pytest.mark.root
def test_a_full_disk_refuses_changes_while_reading_pushing_and_revoking_go_on(full: tuple[Daemon, Path]) -> None:  # D7
    daemon, disk = full
    admin = daemon.admin
    kept, lost = daemon.join("lamp-1"), daemon.join("lamp-2")
    with daemon.agent(kept), daemon.agent(lost) as revoked:
        admin.until("lamp-1", config="in-sync")
        admin.until("lamp-2", config="in-sync")
        output_of(kept).unlink()
        filler = fill(disk)

        with pytest.raises(Refused) as refused:
            admin.set("lamp-1", color="red")
        assert (refused.value.status, refused.value.code) == (507, "storage_full")
        assert [one["metadata"]["name"] for one in admin.call("GET", "/v1/devices")["items"]] == ["lamp-1", "lamp-2"]
        assert admin.call("GET", "/v1/status")["warnings"]

        admin.call("POST", "/v1/devices/lamp-2/revoke")
        until(lambda: admin.status("lamp-2")["connection"] != "online", revoked)
        assert admin.status("lamp-2")["identity"] == "revoked"
        assert admin.status("lamp-1")["connection"] == "online"

        daemon.kill()
        daemon.start()
        assert admin.status("lamp-2")["identity"] == "revoked"
        admin.until("lamp-1", connection="online")

        filler.unlink()
        admin.set("lamp-1", color="red")
        admin.until("lamp-1", config="in-sync")
        assert b"red" in output_of(kept).read_bytes()
    assert daemon.stop() == 0
    verify_store(daemon.data)


@pytest.mark.root
def test_what_changed_before_the_disk_was_full_is_pushed_while_it_is(full: tuple[Daemon, Path]) -> None:
    daemon, disk = full
    state = daemon.join("lamp-1")
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="in-sync")
    daemon.admin.set("lamp-1", color="blue")
    filler = fill(disk)
    with daemon.agent(state) as agent:
        until(lambda: b"blue" in output_of(state).read_bytes(), agent)
        assert daemon.admin.status("lamp-1")["config"] != "in-sync"
        filler.unlink()
        daemon.admin.until("lamp-1", config="in-sync")
