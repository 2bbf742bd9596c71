"""The daemon about itself: health for machines, status for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from aiohttp import web

from hengd.http import shapes, shapes_daemon
from hengd.http.edge import CALLER, LOCAL, PEER, Auth, Route
from hengd.http.exposition import CONTENT_TYPE, Metric, counter, exposition, gauge
from hengd.http.parse import Query, no_body, refuse_host
from hengd.http.views import json_response, moment
from hengd.pulse import Vitals
from hengd.records import object_key
from hengd.rules.authority import Authority
from hengd.rules.devices import Devices
from hengd.rules.expiry import Overrides
from hengd.rules.fleet import read_meta
from hengd.rules.health import warnings_of
from hengd.rules.joins import Joins
from hengd.rules.rescue import Rescue
from hengd.rules.rotation import Rotation
from hengd.rules.vault import Vault
from hengd.store import Figures, Store
from henge_protocol import pki
from henge_protocol.errors import HengeError
from henge_protocol.model import Configuration, Connection

_LOCAL_HOST: Final = re.compile(
    r"(?:localhost|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE
)


SHOWN: Final = 8
"""Overrides that cannot end; the log names all."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """Facts about the running process that the assembler knows."""

    name: str
    version: str
    started: float
    data_dir: str
    addresses: Callable[[], dict[str, list[str]]]
    ready: Callable[[], dict[str, bool]]
    vitals: Callable[[], Vitals]
    turned_away: Callable[[], tuple[int, int]]
    """Connections (or their first requests) refused, and TLS handshakes failed, since the start."""


class StatusRoutes:
    """Health, status, whoami."""

    def __init__(
        self, daemon: Daemon, store: Store, authority: Authority, devices: Devices, joins: Joins, vault: Vault,
        overrides: Overrides, rescue: Rescue, rotation: Rotation, *, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._daemon = daemon
        self._store = store
        self._authority = authority
        self._devices = devices
        self._joins = joins
        self._vault = vault
        self._overrides = overrides
        self._rescue = rescue
        self._rotation = rotation
        self._clock = clock

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route("GET", "/livez", Auth.HEALTH, self.alive, gives={200: shapes.TEXT})
        yield Route(
            "GET", "/readyz", Auth.HEALTH, self.ready, gives={200: shapes_daemon.Ready, 503: shapes_daemon.Ready}
        )
        yield Route("GET", "/v1/status", Auth.VIEWER, self.status, gives={200: shapes_daemon.Status})
        yield Route("GET", "/metrics", Auth.METRICS, self.metrics, gives={200: shapes.METRICS})
        yield Route("GET", "/v1/whoami", Auth.VIEWER, self.whoami, gives={200: shapes_daemon.WhoAmI})

    async def alive(self, request: web.Request) -> web.Response:
        """The event loop turns."""
        self._refuse_foreign_host(request)
        return web.Response(text="ok\n")

    async def ready(self, request: web.Request) -> web.Response:
        """The store is open and the listeners are up."""
        self._refuse_foreign_host(request)
        checks = self._daemon.ready()
        good = all(checks.values())
        return json_response({"ready": good, "checks": checks}, status=200 if good else 503)

    async def status(self, request: web.Request) -> web.Response:
        """All that a person wants to know first."""
        no_body(request)
        Query(request)
        with self._store.read() as tx:
            meta = read_meta(tx)
            schemas, groups = (len(tx.keys("objects", object_key(kind, ""))) for kind in ("Schema", "Group"))
        closes, ends = self._joins.closes, self._rescue.window.closes
        daemon, figures = self._daemon, self._store.figures()
        counts = await self._devices.counts()
        return json_response(
            {
                "name": daemon.name,
                "version": daemon.version,
                "fleet": meta.fleet,
                "epoch": meta.epoch,
                "revision": meta.revision,
                "started": moment(daemon.started),
                "now": moment(self._clock()),
                "data_dir": daemon.data_dir,
                "listeners": daemon.addresses(),
                "ca_fingerprint": pki.format_fingerprint(self._authority.pin),
                "schemas": schemas,
                "groups": groups,
                "devices": {"total": sum(counts["identity"].values()), **counts},
                "join": {"open": bool(closes), "closes": moment(closes), "waiting": len(self._joins.waiting())},
                "rescue": {"open": bool(ends), "closes": moment(ends), "waiting": self._rescue.count},
                "store": _store_view(figures) | {"backed_up": moment(meta.backed_up)},
                "warnings": self._warnings(figures),
            }
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """Figures for Prometheus."""
        self._refuse_foreign_host(request)
        counts, figures, vitals = await self._devices.counts(), self._store.figures(), self._daemon.vitals()
        refused, failed = self._daemon.turned_away()
        with self._store.read() as tx:
            meta = read_meta(tx)
        text = exposition(
            [
                Metric("henge_info", "gauge", "Version of the daemon.", {self._daemon.version: 1}, "version"),
                gauge("henge_start_time_seconds", "When the daemon started, in Unix seconds.", self._daemon.started),
                *_device_metrics(counts),
                gauge("henge_links", "Live links and long-polls of devices.", self._devices.links),
                counter(
                    "henge_refused_connections_total", "Connections that were over a limit or made no sense.", refused
                ),
                counter("henge_failed_handshakes_total", "TLS handshakes that failed.", failed),
                gauge("henge_joins_waiting", "Join requests that wait for a person.", len(self._joins.waiting())),
                gauge("henge_revision", "The newest revision; a change of configuration is one.", meta.revision),
                gauge("henge_backup_time_seconds", "The newest backup, in Unix seconds; 0: none yet.", meta.backed_up),
                *_store_metrics(figures),
                gauge("henge_warnings", "What `hengectl status` warns of.", len(self._warnings(figures))),
                gauge("henge_loop_lag_seconds", "The event loop's longest delay in the last minute.", vitals.lag_s),
                counter("process_cpu_seconds_total", "Time on the processor.", vitals.cpu_s),
                gauge("process_resident_memory_bytes", "Memory in use.", vitals.memory_bytes),
            ]
        )
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def whoami(self, request: web.Request) -> web.Response:
        """Who the daemon takes the caller for."""
        no_body(request)
        Query(request)
        caller, peer = request[CALLER], request[PEER]
        return json_response({"name": caller.name, "role": caller.rights, "via": peer.listener})

    def _warnings(self, figures: Figures) -> list[str]:
        with self._store.read() as tx:
            troubles: tuple[HengeError | None, ...] = (
                self._authority.timekeeper.trouble(tx),
                self._vault.trouble(tx),
                self._rescue.window.trouble(),
                *self._overrides.stuck[:SHOWN],
                *self._rotation.troubles(),
            )
        return warnings_of(figures, self._daemon.data_dir, troubles)

    def _refuse_foreign_host(self, request: web.Request) -> None:
        no_body(request)
        Query(request)
        if request[PEER].listener == LOCAL:
            refuse_host(request, _is_local_host)


def _device_metrics(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    """Every state has its line, that nobody is in it too: what is missing draws no graph."""
    for axis, states in (("connection", get_args(Connection)), ("config", get_args(Configuration))):
        by_state = {state: counts[axis].get(state, 0) for state in states}
        yield Metric(f"henge_devices_by_{axis}", "gauge", f"Devices by state of {axis}.", by_state, "state")


def _store_metrics(figures: Figures) -> Iterator[Metric]:
    yield gauge("henge_store_used_bytes", "Space of the store's map that is in use.", figures.used_bytes)
    yield gauge("henge_store_map_bytes", "Size of the store's map; it grows by itself.", figures.map_bytes)
    yield gauge("henge_store_free_disk_bytes", "Free space on the store's disk.", figures.free_disk_bytes)
    yield counter("henge_store_commits_total", "Transactions committed to disk.", figures.commits)


def _store_view(figures: Figures) -> dict[str, Any]:
    return {
        "used_bytes": figures.used_bytes,
        "map_bytes": figures.map_bytes,
        "free_disk_bytes": figures.free_disk_bytes,
        "commits": figures.commits,
    }


def _is_local_host(host: str) -> bool:
    """On the plain port the Host must be this machine's or an address: a web page's name is neither."""
    return _LOCAL_HOST.fullmatch(host) is not None
