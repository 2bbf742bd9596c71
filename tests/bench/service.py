"""A daemon as a process of its own, pinned to a core, for benchmarks; its clients and its figures."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from henge_protocol import pki
from henge_protocol.joining import parse_token
from henge_protocol.tls import pinned_client_context
from henge_protocol.trust import server_name
from tests.bench.process import cpu_s, resident_bytes

MAX_REQUESTS_PER_CONNECTION = 900
TOKEN_USES = 1000


class _Unix(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("henge", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Pinned(http.client.HTTPSConnection):
    """HTTPS that checks the fleet's fixed name whatever the address."""

    def __init__(self, host: str, port: int, context: Any, name: str) -> None:
        super().__init__(host, port, context=context, timeout=120)
        self._pinned = (context, name)

    def connect(self) -> None:
        context, name = self._pinned
        self.sock = context.wrap_socket(socket.create_connection((self.host, self.port), 120), server_hostname=name)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Bench:
    """One running daemon."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process
        self.socket = folder / "admin.sock"
        self._admin = _Unix(self.socket)
        self._served = 0

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request of an operator; its JSON."""
        self._served += 1
        if self._served % MAX_REQUESTS_PER_CONNECTION == 0:
            self.hang_up()
        return _call(self._admin, method, path, body)

    def hang_up(self) -> None:
        """Close the operator's connection; the next call opens another."""
        self._admin.close()

    def cpu_s(self) -> float:
        """CPU seconds that the daemon has used."""
        return cpu_s(self.process.pid)

    def resident_bytes(self) -> int:
        """Memory that the daemon holds now."""
        return resident_bytes(self.process.pid)

    @property
    def address(self) -> tuple[str, int]:
        """The device port."""
        host, _, port = (
            self.call("GET", "/v1/status")["listeners"]["devices"][0].removeprefix("https://").rpartition(":")
        )
        return host, int(port)

    @property
    def fleet(self) -> str:
        """The fleet's id."""
        return str(self.call("GET", "/v1/status")["fleet"])

    def enrol(self, names: list[str]) -> list[dict[str, str]]:
        """Enrol devices by real tokens; name, certificate and key of each, in PEM."""
        trust = _call(_https(self.address, None, ""), "GET", "/v1/trust")
        authorities = [base64.b64decode(one) for one in trust["server_ca"]]
        context, name = pinned_client_context(authorities, passed=0.0), server_name(trust["fleet"])
        made: list[dict[str, str]] = []
        for start in range(0, len(names), MAX_REQUESTS_PER_CONNECTION):
            some = names[start : start + MAX_REQUESTS_PER_CONNECTION]
            token = parse_token(self.call("POST", "/v1/tokens", {"name": "*", "uses": TOKEN_USES})["token"])
            connection = _https(self.address, context, name)
            made += [_enrol(connection, token.id, token.secret, one) for one in some]
            connection.close()
        return made

    def ended(self) -> int:
        """Stop the daemon; its exit code."""
        self.hang_up()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(*, core: int | None = 0, flags: list[str] | None = None) -> Iterator[Bench]:
    """A daemon on a fresh folder, port 0, limits raised to what one address needs for a whole fleet."""
    with tempfile.TemporaryDirectory(prefix="henge-bench-") as name:
        folder = Path(name)
        config = folder / "hengd.toml"
        config.write_text(
            "[limits]\nmax_connections = 20000\nper_address = 20000\nhandshakes = 256\nhandshakes_per_address = 256\n"
        )
        program = Path(sys.executable).parent / "hengd"
        command = [
            str(program), "run", "--config", str(config), "--data-dir", str(folder / "data"), "--socket",
            str(folder / "admin.sock"), "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--no-mdns",
        ]  # fmt: skip
        pinned = ["taskset", "-c", str(core), *command] if core is not None else command
        with open(folder / "hengd.log", "wb") as log:
            process = subprocess.Popen([*pinned, *(flags or [])], stdout=log, stderr=log)
            try:
                yield _wait(Bench(folder, process))
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def _wait(bench: Bench) -> Bench:
    deadline = time.monotonic() + 20
    while True:
        try:
            bench.call("GET", "/v1/status")
        except OSError:
            bench.hang_up()
            if time.monotonic() > deadline or bench.process.poll() is not None:
                raise RuntimeError((bench.folder / "hengd.log").read_text()) from None
            time.sleep(0.01)
        else:
            return bench


def _enrol(connection: http.client.HTTPConnection, token_id: str, secret: str, name: str) -> dict[str, str]:
    key = pki.generate_key()
    csr = base64.b64encode(pki.make_csr(key, name)).decode()
    body = {"token_id": token_id, "secret": secret, "csr": csr, "name": name}
    answer = _call(connection, "POST", "/v1/enrol", body)
    certificate = pki.certificate_pem(base64.b64decode(answer["certificate"])).decode()
    return {"name": name, "pem": certificate + key.decode()}


def _https(address: tuple[str, int], context: Any, name: str) -> http.client.HTTPConnection:
    from henge_protocol.tls import unverified_context

    return _Pinned(*address, context or unverified_context(), name or "henge.internal")


def _call(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    response = connection.getresponse()
    text = response.read()
    if response.status >= 300:
        raise RuntimeError(f"{method} {path}: {response.status} {text[:500]!r}")
    return json.loads(text) if text else None
