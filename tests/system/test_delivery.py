"""The main job with the real programs, and the programs ended in the midst of it."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import device, schema
from tests.system.programs import Daemon, Program, output_of, running, until

pytestmark = pytest.mark.system

CYCLES = int(os.environ.get("HENGE_CYCLES", "10"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        started.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1")]})
        yield started


@pytest.fixture
def state(daemon: Daemon) -> Path:
    return daemon.join("lamp-1")


def shown(state: Path) -> dict[str, object]:
    return dict(json.loads(output_of(state).read_text()))


def last_good(state: Path) -> dict[str, object]:
    """The document that an agent puts back when it starts: on trial, or confirmed."""
    progress = json.loads((state / "progress.json").read_text())
    digest = (progress["trial"] or progress["current"])["digest"]
    return dict(json.loads((state / "documents" / digest).read_text()))


def test_a_change_is_in_the_file_and_its_report_durable(daemon: Daemon, state: Path) -> None:
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        assert shown(state) == {"brightness": 80, "color": "green"}
        daemon.admin.set("lamp-1", color="red")
        daemon.admin.until("lamp-1", config="in-sync")
        assert shown(state) == {"brightness": 80, "color": "red"}


def test_an_agent_that_was_away_gets_the_newest_when_it_returns(daemon: Daemon, state: Path) -> None:
    with daemon.agent(state) as agent:
        daemon.admin.until("lamp-1", config="in-sync")
        assert agent.ended() == 0
    daemon.admin.until("lamp-1", connection="offline")
    for number in range(10):
        daemon.admin.set("lamp-1", brightness=number)
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        assert shown(state)["brightness"] == 9


def test_a_daemon_that_is_stopped_ends_in_order_and_its_agent_comes_back(daemon: Daemon, state: Path) -> None:
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="in-sync")
        assert daemon.stop() == 0
        assert not daemon.socket.exists()
        daemon.start()
        daemon.admin.set("lamp-1", color="blue")
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        assert shown(state)["color"] == "blue"


def test_a_daemon_killed_in_mid_push_delivers_after_its_restart(daemon: Daemon, state: Path) -> None:
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="in-sync")
        for number in range(2):
            daemon.admin.set("lamp-1", brightness=number)
            daemon.kill()
            daemon.start()
            assert daemon.admin.call("GET", "/v1/devices/lamp-1")["spec"]["values"]["brightness"] == number
            daemon.admin.until("lamp-1", config="in-sync", connection="online")
            assert shown(state)["brightness"] == number


def test_a_killed_agent_leaves_the_old_file_or_the_new_one_and_goes_on(daemon: Daemon, state: Path) -> None:
    rng = random.Random(11)
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="in-sync")
    old = before = 80
    for cycle in range(CYCLES):
        good = last_good(state)["brightness"]  # a file was perhaps written that the agent had no time to keep as good
        with daemon.agent(state) as agent:
            until(lambda: daemon.admin.status("lamp-1")["connection"] == "online", agent)
            new = cycle % 100
            daemon.admin.set("lamp-1", brightness=new)
            time.sleep(rng.uniform(0, 0.03))
            agent.kill()
            found = shown(state)["brightness"]
            assert found in (old, good, before, new)  # what was there, what is put back, what was due, what is set now
            old, before = found, new
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        assert shown(state)["brightness"] == new
    assert {path.name for path in state.parent.glob("lamp-1.json*")} == {"lamp-1.json"}


def test_a_revocation_holds_though_the_daemon_dies_with_the_answer(daemon: Daemon, state: Path) -> None:
    with daemon.agent(state) as agent:
        daemon.admin.until("lamp-1", config="in-sync")
        before = output_of(state).read_bytes()
        daemon.admin.call("POST", "/v1/devices/lamp-1/revoke")
        daemon.kill()
        daemon.start()
        daemon.admin.set("lamp-1", color="red")
        refusals = state.with_suffix(".log")
        until(lambda: "revoked" in refusals.read_text(), agent)
        assert daemon.admin.status("lamp-1")["connection"] != "online"
        assert output_of(state).read_bytes() == before


def test_a_second_daemon_on_the_same_folder_is_refused_and_the_first_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    command = daemon.command()
    command[command.index("--listen") + 1] = "127.0.0.1:0"
    command[command.index("--socket") + 1] = str(tmp_path / "other.sock")
    for number in range(3):
        with Program(command, tmp_path / f"second-{number}.log") as second:
            assert second.process.wait(10) == 73
            assert daemon.program is not None
            assert f"pid {daemon.program.process.pid}" in second.log.read_text()
    assert daemon.answers()
    assert daemon.stop() == 0


def test_an_output_that_cannot_be_written_after_a_restart_is_drift_until_it_can(daemon: Daemon, state: Path) -> None:
    with daemon.agent(state) as agent:
        daemon.admin.until("lamp-1", config="in-sync")
        assert agent.ended() == 0
    daemon.admin.until("lamp-1", connection="offline")
    output_of(state).unlink()
    output_of(state).mkdir()
    with daemon.agent(state):
        daemon.admin.until("lamp-1", config="drifted", connection="online")
        until(lambda: daemon.admin.status("lamp-1")["reported"]["reason"] == "write-failed")
        assert "not a regular file" in daemon.admin.status("lamp-1")["reported"]["errors"][0]["message"]
        output_of(state).rmdir()
        daemon.admin.until("lamp-1", config="in-sync")
        assert shown(state) == {"brightness": 80, "color": "green"}
