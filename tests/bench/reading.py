"""What reading a large fleet costs, and how long it keeps everybody else from their turn."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

from tests.bench.figures import percentile, show
from tests.bench.service import Bench

ROUNDS = 5
REQUESTS = 500
"""Asked on one connection, of which a thousand are allowed."""
PATHS = ("/v1/status", "/v1/devices")


def show_reading(bench: Bench, count: int) -> None:
    """The lines of one fleet: how long an answer takes, and the longest wait of somebody who asks for little."""
    show(f"reading {count} devices", f"{ROUNDS} times, somebody else asks for little all the while")
    for path in PATHS:
        neighbour = Neighbour(bench.socket)
        times = [_timed(bench, path) for _ in range(ROUNDS)]
        longest_s = neighbour.stop()
        show(f"  GET {path}, p50", f"{percentile(tuple(times), 0.5) * 1000:.0f} ms")
        show("    the other's longest wait", f"{longest_s * 1000:.0f} ms")


def _timed(bench: Bench, path: str) -> float:
    """Seconds until the whole answer is here; it is not read as JSON, which would keep the other thread waiting."""
    with closing(connected(bench.socket)) as connection:
        started = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        while answer.read(65536):
            pass
        assert answer.status == 200
        return time.perf_counter() - started


def connected(path: Path) -> http.client.HTTPConnection:
    """A connection of its own to the admin socket."""
    connection = http.client.HTTPConnection("henge")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    return connection


class Neighbour:
    """A neighbour on a connection of its own that asks who it is, again and again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_over = False
        self._longest_s = 0.0
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> float:
        """End it; its longest wait in seconds."""
        self._is_over = True
        self._thread.join()
        return self._longest_s

    def _ask(self) -> None:
        while not self._is_over:
            with closing(connected(self._path)) as connection:
                self._ask_on(connection)

    def _ask_on(self, connection: http.client.HTTPConnection) -> None:
        for _ in range(REQUESTS):
            if self._is_over:
                return
            started = time.perf_counter()
            connection.request("GET", "/v1/whoami")
            answer = connection.getresponse()
            answer.read()
            self._longest_s = max(self._longest_s, time.perf_counter() - started)
            assert answer.status == 200
            time.sleep(0.001)  # so that this thread does not keep the other from reading its answer
