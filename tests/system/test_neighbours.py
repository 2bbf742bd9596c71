"""The daemon among hostile neighbours: whatever they hold open, an honest device joins and gets its document."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from henge_protocol.tls import unverified_context
from tests.service import device, schema
from tests.system.programs import Daemon, running

pytestmark = pytest.mark.system

DRIBBLERS = 1000
KIB = 1024


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        started.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1")]})
        yield started


@pytest.mark.parametrize(("count", "addresses"), [(600, 100), (200, 200)])
def test_half_open_handshakes_from_many_addresses_keep_no_device_out(
    daemon: Daemon, count: int, addresses: int
) -> None:
    with ExitStack() as held:
        for number in range(count):
            source = f"127.0.{1 + number % addresses}.1"
            held.enter_context(socket.create_connection(("127.0.0.1", daemon.port), source_address=(source, 0)))

        it_serves(daemon)


def test_dribblers_from_many_addresses_keep_no_device_out_and_cost_little_memory(daemon: Daemon) -> None:
    before = resident_bytes(daemon)
    with ExitStack() as held:
        dribblers = [held.enter_context(stranger(daemon.port, number)) for number in range(DRIBBLERS)]
        for byte in b"GET /":
            for dribbler in dribblers:
                with suppress(OSError):  # a slow machine's first ones have had their time
                    dribbler.send(bytes([byte]))

        assert resident_bytes(daemon) - before < DRIBBLERS * 100 * KIB + 20 * KIB**2
        it_serves(daemon)


def it_serves(daemon: Daemon) -> None:
    """A device joins, links, gets its document and says that it runs it."""
    with daemon.agent(daemon.join("lamp-1")):
        daemon.admin.until("lamp-1", config="in-sync", connection="online")


def stranger(port: int, number: int) -> ssl.SSLSocket:
    """A connection without a certificate that has its handshake behind it."""
    sock = socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.{1 + number // 50}.1", 0))
    return unverified_context().wrap_socket(sock)


def resident_bytes(daemon: Daemon) -> int:
    """What the daemon's process holds in memory."""
    assert daemon.program is not None
    status = Path(f"/proc/{daemon.program.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * KIB
