"""The peer: Debian's MQTT broker ``mosquitto`` as a process of its own, pinned to a core, doing henge's work.

Its settings are what a home lab would write, plus what makes it lose nothing (by default it throws messages
away beyond 1000 that wait for one client). It keeps messages in memory and writes them to disk each half
hour, so that what it acknowledges is not durable, as a report to henge is: the comparison is in its favour.
"""

from __future__ import annotations

import base64
import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from henge_protocol import pki
from tests.bench.figures import FleetFigures, measure
from tests.bench.process import Generator, cpu_s, resident_bytes

HOST = "127.0.0.1"
PATIENCE_S = 20
PORT_ATTEMPTS = 5
"""The broker cannot choose a free port by itself, and between our choice and its start another may take it."""
SETTINGS = """\
user {user}
listener {port} {host}
cafile {folder}/client-ca.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
require_certificate true
use_identity_as_username true
max_connections -1
max_queued_messages 0
set_tcp_nodelay true
persistence true
persistence_location {folder}/
connection_messages false
log_dest file {folder}/mosquitto.log
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """One running broker."""

    folder: Path
    process: subprocess.Popen[bytes]
    port: int

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        return cpu_s(self.process.pid)

    def resident_bytes(self) -> int:
        """Memory held now."""
        return resident_bytes(self.process.pid)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Two authorities as henge has them, and what they issue."""

    fleet_id: str
    server: pki.Authority
    client: pki.Authority
    now: float

    @classmethod
    def make(cls, now: float) -> Certificates:
        """New authorities of a new fleet."""
        fleet_id = pki.new_id(os.urandom(16))
        return cls(fleet_id, pki.make_ca("server", fleet_id, now=now), pki.make_ca("client", fleet_id, now=now), now)

    def write_for_broker(self, folder: Path) -> None:
        """What its settings name."""
        certificate, key = pki.issue_server(
            self.server, fleet_id=self.fleet_id, dns_names=[], ip_addresses=[HOST], now=self.now
        )
        (folder / "client-ca.pem").write_bytes(pki.certificate_pem(self.client.certificate_der))
        (folder / "server.pem").write_bytes(pki.certificate_pem(certificate))
        (folder / "server.key").write_bytes(key)

    def identity(self) -> str:
        """Certificate and key of one more client, PEM."""
        key = pki.generate_key()
        certificate = pki.issue_client(
            self.client,
            pki.key_spki_der(key),
            fleet_id=self.fleet_id,
            role="device",
            subject=pki.new_id(os.urandom(16)),
            now=self.now,
            lifetime_s=90 * pki.DAY_S,
        )
        return pki.certificate_pem(certificate).decode() + key.decode()


def program() -> str | None:
    """Where the broker is installed; None if it is not."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def version(path: str) -> str:
    """Its name and version, as it says them."""
    said = subprocess.run([path, "-h"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0].replace(" version", "")


def fleet(path: str, count: int, *, rounds: int, idle_s: float) -> FleetFigures:
    """The same fleet, the same changes, the same measurements as of henge."""
    certificates = Certificates.make(time.time())
    with running(path, certificates) as broker:
        work = broker.folder / "work.json"
        work.write_text(json.dumps(_work(certificates, broker.port, count)))
        with Generator("tests.bench.mqtt_load", work) as load:
            return measure(broker, load, count, rounds=rounds, idle_s=idle_s, change=lambda _number: None)


@contextmanager
def running(path: str, certificates: Certificates, *, core: int = 0) -> Iterator[Broker]:
    """A broker on a fresh folder and a free port of the loopback."""
    with tempfile.TemporaryDirectory(prefix="henge-bench-") as name:
        folder = Path(name)
        certificates.write_for_broker(folder)
        broker = _start(["taskset", "-c", str(core), path, "-c", str(folder / "mosquitto.conf")], folder)
        try:
            yield broker
        finally:
            broker.process.terminate()
            broker.process.wait()


def _start(command: list[str], folder: Path) -> Broker:
    for _ in range(PORT_ATTEMPTS):
        port = _free_port()
        settings = SETTINGS.format(user=getpass.getuser(), port=port, host=HOST, folder=folder)
        (folder / "mosquitto.conf").write_text(settings)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        if _listens(process, port):
            return Broker(folder, process, port)
        process.kill()
        process.wait()
    raise RuntimeError(f"mosquitto did not start: {(folder / 'mosquitto.log').read_text()}")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return process.poll() is None
    return False


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _work(certificates: Certificates, port: int, count: int) -> dict[str, object]:
    names = [f"lamp-{number}" for number in range(count)]
    return {
        "host": HOST,
        "port": port,
        "fleet": certificates.fleet_id,
        "server_ca": [base64.b64encode(certificates.server.certificate_der).decode()],
        "controller": certificates.identity(),
        "identities": [{"name": name, "pem": certificates.identity()} for name in names],
    }
