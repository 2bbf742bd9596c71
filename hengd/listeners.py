"""Where the daemon is spoken to: addresses bound, a gate in front of each, TLS on that of the devices."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Final

from aiohttp import web

from hengd.announce import reachable, url_of
from hengd.http.admission import GateLimits, connections_within
from hengd.http.dispatch import StreamFactory
from hengd.http.edge import ADMIN, DEVICES, LOCAL
from hengd.http.framing import http_protocol
from hengd.http.gate import Gate
from hengd.listen import bind_error, bind_tcp, bind_unix
from hengd.settings import Settings

log = logging.getLogger("hengd")

GRACE_S: Final = 5.0
"""What requests under way get at shutdown; systemd waits 90 s, Kubernetes 30 s."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served: the application at every listener, and at that of the devices their links, too."""

    app: web.Application
    links: StreamFactory
    context: Callable[[], ssl.SSLContext]
    """For connections of devices from now on."""


class Listeners:
    """Devices, admin socket and local port. What is opened goes to ``opened``, and ends with it."""

    def __init__(
        self, settings: Settings, path: Path, opened: AsyncExitStack, *, max_files: int,
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._path = path
        self._opened = opened
        self._max_files = max_files
        self._monotonic = monotonic
        self._bound: dict[str, socket] = {}
        self._gates: dict[str, Gate] = {}
        self.addresses: dict[str, tuple[str, int]] = {}
        """Host and port by listener, the admin socket's path as host."""

    @property
    def are_open(self) -> bool:
        """Whether somebody is let in."""
        return bool(self._gates)

    def bind(self) -> None:
        """Take the network addresses that the settings name; raises as ``bind_tcp``."""
        for name in (DEVICES, LOCAL):
            key = f"listen.{name}"
            if self._settings[key]:
                self._bound[name] = bind_tcp(self._settings[key], key)
                self._opened.callback(self._bound[name].close)

    async def serve(self, serving: Serving) -> None:
        """Let people and devices in; raises as ``bind_tcp`` and ``bind_unix``."""
        self._bound[ADMIN] = bind_unix(self._path)
        self._opened.callback(self._bound[ADMIN].close)
        self._opened.callback(self._path.unlink, missing_ok=True)
        self._serving = serving
        runner = web.AppRunner(serving.app, handle_signals=False)
        await runner.setup()
        self._opened.push_async_callback(runner.cleanup)
        assert runner.server is not None
        for name, sock in self._bound.items():
            self.addresses[name] = sock.getsockname()[:2] if name != ADMIN else (str(self._path), 0)
            gate = self._gate(name, sock, runner.server)
            try:
                gate.start()
            except OSError as error:  # another program bound the same port a moment ago and listens now
                raise bind_error(error, "{}:{}".format(*self.addresses[name]), f"listen.{name}") from None
            self._gates[name] = gate
            self._opened.push_async_callback(gate.close, 0.0)

    def renew_context(self) -> None:
        """Meet new connections of devices with the certificates as they are now; raises what ``context`` raises."""
        if DEVICES in self._gates:
            self._gates[DEVICES].ssl = self._serving.context()

    def urls(self) -> dict[str, list[str]]:
        """Where the daemon can be reached, by listener."""
        host, port = self.addresses[DEVICES]
        reached = [url_of("https", one, port) for one in reachable(host)]
        urls = {DEVICES: reached, ADMIN: [str(self._path)]}
        if LOCAL in self.addresses:
            urls[LOCAL] = [url_of("http", *self.addresses[LOCAL])]
        return urls

    def turned_away(self) -> tuple[int, int]:
        """How many connections were refused, and how many handshakes failed."""
        gates = self._gates.values()
        refused = sum(gate.refusals.total() for gate in gates)
        return refused, sum(gate.handshake_failures.total() for gate in gates)

    def stop_accepting(self) -> None:
        """Let nobody new in."""
        for gate in self._gates.values():
            gate.stop_accepting()

    async def close(self) -> None:
        """Close every connection once it has its answer, at the latest after ``GRACE_S``."""
        await asyncio.gather(*(gate.close(GRACE_S) for gate in self._gates.values()))

    def _gate(self, name: str, sock: socket, server: web.Server) -> Gate:
        settings, serving = self._settings, self._serving
        limits = GateLimits(
            max_connections=self._max_connections(name),
            per_address=settings["limits.per_address"],
            handshakes=settings["limits.handshakes"],
            handshakes_per_address=settings["limits.handshakes_per_address"],
        )
        return Gate(
            sock,
            name=name,
            ssl=serving.context() if name == DEVICES else None,
            limits=limits,
            http_factory=lambda peer: http_protocol(server),
            stream_factory=serving.links if name == DEVICES else None,
            monotonic=self._monotonic,
            log=logging.getLogger(f"hengd.gate.{name}"),
        )

    def _max_connections(self, name: str) -> int:
        """What is set, or what the descriptors of this process bear."""
        wanted: int = self._settings["limits.max_connections"]
        within = connections_within(self._max_files, local=name != DEVICES)
        if within < wanted and name == DEVICES:
            log.warning(
                "%d open files are allowed: at most %d connections, not %d", self._max_files, within, wanted,
                extra={"event": "few_files"},
            )  # fmt: skip
        return min(wanted, within)
