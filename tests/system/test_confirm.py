"""Documents that cut a device off, and a daemon that goes away in the middle of one: real programs and networks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.service import device, schema
from tests.system.programs import PROGRAMS, Daemon, Program, output_of, running, until

pytestmark = pytest.mark.system

CONFIRM_S = 3


class Road:
    """What lies between agent and daemon: a forwarder that lets nobody new through while ``barrier`` exists."""

    def __init__(self, port: int, barrier: Path) -> None:
        self._to = ("127.0.0.1", port)
        self._barrier = barrier
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        """Ends when both sides of all connections have."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._barrier.exists():
                    near.close()
                    continue
                self._threads.append(threading.Thread(target=self._connect, args=(near,)))
                self._threads[-1].start()

    def _connect(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(self._to) as far:
            back = threading.Thread(target=_carry, args=(far, near))
            back.start()
            _carry(near, far)
            back.join()


def _carry(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        lamp = schema()
        lamp["spec"]["confirm_s"] = CONFIRM_S
        started.admin.call("POST", "/v1/apply", {"objects": [lamp, device("lamp-1", color="green")]})
        yield started


@pytest.fixture
def road(daemon: Daemon, tmp_path: Path) -> Iterator[Road]:
    road = Road(daemon.port, tmp_path / "barrier")
    yield road
    road.close()


def told(daemon: Daemon, *words: str) -> str:
    """What hengectl prints."""
    command = [str(PROGRAMS / "hengectl"), "--socket", str(daemon.socket), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def assert_taken_back(daemon: Daemon, state: Path, ran: Path) -> None:
    status = daemon.admin.until("lamp-1", config="quarantined", connection="online")
    assert status["reported"]["reason"] == "connectivity-lost"
    assert '"color":"green"' in output_of(state).read_text()
    assert ran.read_text().split() == ["green", "blue", "green"]
    assert "quarantined" in told(daemon, "get", "devices")
    assert "connectivity-lost" in told(daemon, "describe", "device/lamp-1")


def test_a_document_that_lets_no_new_connection_through_is_taken_back_and_quarantined(
    daemon: Daemon, road: Road, tmp_path: Path
) -> None:
    """The connection under way lives on, as behind a firewall: only a new one shows that the device is cut off."""
    ran, barrier = tmp_path / "ran", tmp_path / "barrier"
    hook = (
        f"if grep -q blue $HENGE_DOCUMENT; then touch {barrier}; echo blue >> {ran}; "
        f"else rm -f {barrier}; echo green >> {ran}; fi"
    )
    state = daemon.join("lamp-1", address=road.address)
    with daemon.agent(state, "--on-change", hook):
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        daemon.admin.set("lamp-1", color="blue")
        assert_taken_back(daemon, state, ran)

        daemon.admin.set("lamp-1", color="red")
        daemon.admin.until("lamp-1", config="in-sync")
        assert '"color":"red"' in output_of(state).read_text()


def test_a_daemon_that_is_down_while_a_document_is_on_trial_is_no_fault_of_it(daemon: Daemon, tmp_path: Path) -> None:
    wait, arrived = tmp_path / "wait", tmp_path / "arrived"
    hook = f"grep -q green $HENGE_DOCUMENT || {{ touch {arrived}; while [ -e {wait} ]; do sleep 0.02; done; }}"
    state = daemon.join("lamp-1")
    with daemon.agent(state, "--on-change", hook) as agent:
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        wait.touch()
        daemon.admin.set("lamp-1", color="blue")
        until(arrived.exists, agent)
        daemon.kill()
        wait.unlink()
        until(lambda: "server-unreachable" in agent.log.read_text(), agent)
        assert '"color":"green"' in output_of(state).read_text()

        daemon.start()
        until(lambda: "server-unreachable" in reason(daemon), agent)
        assert "quarantined" not in told(daemon, "get", "devices")
        daemon.admin.call("POST", "/v1/devices/lamp-1/retry")  # the daemon itself waits for a quarter of a minute
        daemon.admin.until("lamp-1", config="in-sync", connection="online")
        assert '"color":"blue"' in output_of(state).read_text()


def reason(daemon: Daemon) -> str:
    return str(daemon.admin.status("lamp-1")["reported"]["reason"])


# ---- a device in a network of its own


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def house() -> Iterator[tuple[str, str]]:
    """A network namespace and the address at which it sees this machine."""
    tag = uuid.uuid4().hex[:6]
    name, link, number = f"henge-{tag}", f"hv{tag}", int(tag[:2], 16)
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this system makes no network namespaces: {error.stderr!r}")
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"10.78.{number}.1/24", "dev", link)
        ip("link", "set", link, "up")
        ip("-n", name, "addr", "add", f"10.78.{number}.2/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        yield name, f"10.78.{number}.1"
    finally:
        ip("netns", "del", name)


@pytest.mark.root("ip")
def test_a_document_that_takes_the_network_away_is_taken_back_and_quarantined(
    tmp_path: Path, house: tuple[str, str]
) -> None:
    name, host = house
    daemon = Daemon(tmp_path, host="0.0.0.0")
    ran = tmp_path / "ran"
    hook = (
        f"if grep -q blue $HENGE_DOCUMENT; then ip link set eth0 down; echo blue >> {ran}; "
        f"else ip link set eth0 up; echo green >> {ran}; fi"
    )
    inside = (str(shutil.which("ip")), "netns", "exec", name)
    try:
        daemon.start()
        lamp: dict[str, Any] = schema()
        lamp["spec"]["confirm_s"] = CONFIRM_S
        daemon.admin.call("POST", "/v1/apply", {"objects": [lamp, device("lamp-1", color="green")]})
        state = daemon.join("lamp-1", address=f"{host}:{daemon.port}", prefix=inside)
        agent = [
            *inside, str(PROGRAMS / "henge-agent"), "run", "--state-dir", str(state),
            "--output", f"{output_of(state)}:json", "--on-change", hook,
        ]  # fmt: skip
        with Program(agent, state.with_suffix(".log")):
            daemon.admin.until("lamp-1", config="in-sync", connection="online")
            daemon.admin.set("lamp-1", color="blue")
            assert_taken_back(daemon, state, ran)
    finally:
        daemon.clean()
