"""The daemon about itself: health for machines, status for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from hengd.http import shapes, shapes_daemon
from hengd.http.edge import CALLER, LOCAL, PEER, Auth, Route
from hengd.http.parse import Query, no_body, refuse_host
from hengd.http.views import json_response, moment
from hengd.records import object_key
from hengd.rules.authority import Authority
from hengd.rules.devices import Devices
from hengd.rules.expiry import Overrides
from hengd.rules.fleet import read_meta
from hengd.rules.health import warnings_of
from hengd.rules.joins import Joins
from hengd.rules.vault import Vault
from hengd.store import Figures, Store
from henge_protocol import pki

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


class StatusRoutes:
    """Health, status, whoami."""

    def __init__(
        self, daemon: Daemon, store: Store, authority: Authority, devices: Devices, joins: Joins, vault: Vault,
        overrides: Overrides, *, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._daemon = daemon
        self._store = store
        self._authority = authority
        self._devices = devices
        self._joins = joins
        self._vault = vault
        self._overrides = overrides
        self._clock = clock

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route("GET", "/livez", Auth.HEALTH, self.alive, gives={200: shapes.TEXT})
        yield Route(
            "GET", "/readyz", Auth.HEALTH, self.ready, gives={200: shapes_daemon.Ready, 503: shapes_daemon.Ready}
        )
        yield Route("GET", "/v1/status", Auth.VIEWER, self.status, gives={200: shapes_daemon.Status})
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
            troubles = self._authority.timekeeper.trouble(tx), self._vault.trouble(tx), *self._overrides.stuck[:SHOWN]
        closes, daemon, figures = self._joins.closes, self._daemon, self._store.figures()
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
                "devices": {"total": sum(counts["connection"].values()), **counts},
                "join": {"open": bool(closes), "closes": moment(closes), "waiting": len(self._joins.waiting())},
                "store": _store_view(figures) | {"backed_up": moment(meta.backed_up)},
                "warnings": warnings_of(figures, daemon.data_dir, troubles),
            }
        )

    async def whoami(self, request: web.Request) -> web.Response:
        """Who the daemon takes the caller for."""
        no_body(request)
        Query(request)
        caller, peer = request[CALLER], request[PEER]
        return json_response({"name": caller.name, "role": caller.rights, "via": peer.listener})

    def _refuse_foreign_host(self, request: web.Request) -> None:
        no_body(request)
        Query(request)
        if request[PEER].listener == LOCAL:
            refuse_host(request, _is_local_host)


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
