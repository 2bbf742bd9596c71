"""The one assembler: settings in, a running daemon out. Used by the command line and by the tests alike."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hengd.aftermath import Aftermath
from hengd.announce import Announcer
from hengd.backup import Backups
from hengd.datadir import DataDir, open_data_dir
from hengd.events import EventLog
from hengd.http.audit import AuditRoutes
from hengd.http.authorities import AuthorityRoutes
from hengd.http.backup import BackupRoutes
from hengd.http.checks import CheckRoutes
from hengd.http.devices import DeviceRoutes
from hengd.http.edge import DEVICES, Edge, Route
from hengd.http.enrol import EnrolRoutes
from hengd.http.history import HistoryRoutes
from hengd.http.joining import JoiningRoutes
from hengd.http.objects import ObjectRoutes
from hengd.http.openapi import OpenApiRoutes
from hengd.http.operators import OperatorRoutes
from hengd.http.poll import PollRoutes
from hengd.http.rescue import RescueRoutes
from hengd.http.secrets import SecretRoutes
from hengd.http.status import Daemon, StatusRoutes
from hengd.http.stream import Links
from hengd.hub import Hub
from hengd.listeners import Listeners, Serving
from hengd.local import local_admin
from hengd.migrations import MIGRATIONS, Migrated, Migration
from hengd.pulse import Pulse
from hengd.rules.audit import Audit
from hengd.rules.authority import Authority
from hengd.rules.candidates import Candidates
from hengd.rules.changes import Changes
from hengd.rules.checks import Checks
from hengd.rules.configs import Configs
from hengd.rules.contact import Contacts
from hengd.rules.custody import find_vault, tend_vault
from hengd.rules.deliveries import Deliveries
from hengd.rules.devices import Devices
from hengd.rules.enrolment import Enrolment
from hengd.rules.expiry import ITSELF, Overrides
from hengd.rules.fleet import read_meta
from hengd.rules.joins import Joins
from hengd.rules.presence import Presence
from hengd.rules.reports import Reports
from hengd.rules.rescue import Rescue
from hengd.rules.rescue_window import RescueWindow
from hengd.rules.rotation import Rotation
from hengd.rules.schemas import SchemaCache
from hengd.rules.secrets import Secrets
from hengd.rules.taking import Taking
from hengd.rules.tokens import Tokens
from hengd.schedule import Schedule, plan_of
from hengd.settings import Settings
from hengd.store import Store
from hengd.upkeep import Kept, Upkeep
from henge_protocol import __version__, pki
from henge_protocol.errors import HengeError, Invalid
from henge_protocol.tls import device_server_context
from henge_protocol.wire import SUPPORTED

log = logging.getLogger("hengd")

LEAST_FILES: Final = 128


@dataclass(frozen=True, slots=True)
class Environment:
    """What is particular to a process: where things lie, what time it is, what chance says (0 to 1)."""

    data_dir: Path
    socket: Path
    credentials: Path | None = None
    """Folder of systemd's credentials."""
    max_files: int = 65_536
    """Descriptors that the process may have open."""
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    speaks: tuple[int, int] = SUPPORTED
    """Lowest and highest protocol version for devices."""
    migrations: Mapping[int, Migration] = field(default_factory=lambda: MIGRATIONS)


class App:
    """A daemon from start to stop. ``start`` brings everything up or nothing."""

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self._settings = settings
        self._environment = environment
        self._pulse = Pulse()
        self._announcer: Announcer | None = None
        self._announced = b""
        """The server authority that the announcement names."""
        self._background: list[asyncio.Task[None]] = []
        """What goes on as long as the daemon does."""
        self._opened = AsyncExitStack()
        """What is open, to be closed in the opposite order."""
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolved with the reason when the store is beyond use: the process must end."""
        self.listeners = Listeners(
            settings, environment.socket, self._opened,
            max_files=environment.max_files, monotonic=environment.monotonic,
        )  # fmt: skip
        self.founded = False
        self.migrated: Migrated | None = None
        """What was done to a store of an older format at this start."""

    async def start(self) -> None:
        """Open the data folder and the store, listen, announce. Raises our errors; then nothing is left open."""
        try:
            await self._start()
        except BaseException:
            await self._opened.aclose()
            raise

    async def _start(self) -> None:
        settings = self._settings
        if self._environment.max_files < LEAST_FILES:
            message = f"{self._environment.max_files} open files are allowed, hengd needs {LEAST_FILES} at least"
            raise Invalid("bad_setting", message, cure="raise it: ulimit -n 4096, or LimitNOFILE=4096 in the unit")
        self.listeners.bind()
        self._open()
        self._assemble(self._folder)
        self._upkeep.tell_doubt()
        await tend_vault(self.vault, self._store)
        await self.rotation.make_up()
        await self.overrides.end_due()
        if self.founded and settings.seconds("join.window_after_init"):
            await self.joins.open(settings.seconds("join.window_after_init"), ITSELF)
        app = self._edge.application(self._routes)
        await self.listeners.serve(Serving(app, self._links.protocol, self._server_context))
        await self._announce()
        lasting = self._upkeep.run(), self.overrides.keep_ending(), self._pulse.run()
        self._background = [asyncio.create_task(work) for work in lasting]

    async def stop(self) -> None:
        """Say goodbye to devices, finish what is under way, commit, close. No acknowledged write is lost."""
        retry_after_s = self._settings.seconds("limits.retry_after")
        self._edge.stopping = True
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.listeners.stop_accepting()
        self._links.say_goodbye(retry_after_s)
        self._polls.wake_all()
        self.events.close()
        if self._announcer is not None:
            await self._announcer.stop()
        await self.listeners.close()
        try:
            await self.devices.note_contacts()
        except HengeError as error:  # a full or broken disk does not keep the daemon from ending
            log.warning("who was in contact last is not noted: %s", error, extra={"event": "upkeep_waits"})
        await self._opened.aclose()

    def beat(self) -> bool:
        """Whether the daemon serves, for the watchdog and ``/readyz``."""
        return all(self._checks().values())

    def summary(self) -> dict[str, int]:
        """Counts for the second and later starts."""
        with self._store.read() as tx:
            return {"devices": tx.count("ids"), "revision": read_meta(tx).revision}

    @property
    def routes(self) -> Sequence[Route]:
        """Every route that is served, for the tests of the documents."""
        return self._routes

    # ---- assembly ------------------------------------------------------------------------------------

    def _open(self) -> None:
        settings, environment = self._settings, self._environment
        map_bytes = settings.bytes("store.map_size")
        self._folder = open_data_dir(
            environment.data_dir,
            allow_network_fs=settings["store.allow_network_fs"],
            now=environment.clock(),
            map_bytes=map_bytes,
        )
        self._opened.callback(self._folder.close)
        self.founded = self._folder.founded
        opening = self._folder.opening(environment.migrations)
        self._store = Store.open(self._folder.database, map_bytes=map_bytes, databases_of=opening.databases)
        self.migrated = opening.migrated
        self._opened.push_async_callback(self._store.close)
        self._store.on_failure(lambda reason: None if self.failed.done() else self.failed.set_result(reason))

    def _assemble(self, folder: DataDir) -> None:
        clock, monotonic = self._environment.clock, self._environment.monotonic
        store, hub = self._store, Hub()
        self.vault = vault = find_vault(
            store, self._settings["secrets.key_file"], self._environment.credentials, self._environment.data_dir
        )
        changes = Changes(SchemaCache(), vault, clock, _new_id)
        self.events = EventLog(start=int(clock() * 1000))
        self.presence = Presence()
        window = RescueWindow(store, clock=clock, monotonic=monotonic)
        self.authority = Authority(
            store, folder.authorities, folder.journal,
            is_rescue=lambda: window.is_open, clock=clock, monotonic=monotonic,
        )  # fmt: skip
        self.rotation = Rotation(
            store, folder.authorities, self.authority, names=self._names, put_in_force=self._put_authorities_in_force,
            recall=lambda: self._links.recall(self._settings.seconds("limits.retry_after")), clock=clock,
        )  # fmt: skip
        self.configs = Configs(store, changes, self.presence)
        self._candidates = Candidates(store, changes)
        self.secrets = Secrets(store, self.configs)
        self.overrides = Overrides(store, self.configs, self.authority.timekeeper)
        self._audit = Audit(store)
        self._backups = Backups(store, folder, vault.keys, clock=clock)
        self.devices = Devices(store, self.presence, speaks=self._environment.speaks, clock=clock)
        enrolment = Enrolment(self.authority.issuer, changes)
        self.tokens = Tokens(store, self.authority, enrolment, clock=clock, monotonic=monotonic)
        self.joins = Joins(
            store, self.authority, enrolment, self.events,
            clock=clock, monotonic=monotonic, max_pending=self._settings["join.max_pending"],
        )  # fmt: skip
        self._rescue = Rescue(store, window, self.authority, vault, clock=clock, monotonic=monotonic)
        self._taking = Taking(store, self.authority, changes)
        deliveries, reports = Deliveries(store, vault), Reports(store, clock=clock)
        self.contacts = Contacts(
            self.authority,
            deliveries,
            reports,
            self.presence,
            hub,
            self.events,
            speaks=self._environment.speaks,
            clock=clock,
            monotonic=monotonic,
        )
        self._links = Links(self.contacts, monotonic=monotonic, chance=self._environment.chance)
        self._polls = PollRoutes(self.contacts)
        self._hub = hub
        self.aftermath = Aftermath(
            self.events, deliveries, self.overrides, self.authority, hub, forgive=self._links.forgive, clock=clock
        )
        store.on_commit(self.aftermath.follow)  # before anything writes
        self._upkeep = Upkeep(
            store, folder.database, self.configs, self._audit, self.tokens, vault, self.authority.timekeeper,
            kept=Kept(self._settings["store.keep_revisions"], self._settings.seconds("store.keep_for")),
            renew_certificate=self.listeners.renew_context,
            back_up=Schedule(self._backups, plan_of(self._settings), clock=clock).turn,
            note_contacts=self.devices.note_contacts,
        )  # fmt: skip
        self._edge = Edge(self.authority, lambda peer: local_admin(peer.uid, peer.gid), monotonic=monotonic)
        self._routes = self._make_routes()

    def _make_routes(self) -> list[Route]:
        environment = self._environment
        daemon = Daemon(
            self._settings.name, __version__, environment.clock(), str(environment.data_dir), self.listeners.urls,
            self._checks, self._pulse.vitals, self.listeners.turned_away,
        )  # fmt: skip
        resources = (
            StatusRoutes(
                daemon, self._store, self.authority, self.devices, self.joins, self.vault, self.overrides,
                self._rescue, self.rotation, clock=environment.clock,
            ),
            ObjectRoutes(self._store, self.configs, self.overrides, self.devices, self.events),
            DeviceRoutes(self.configs, self.devices, self.authority, self.tokens, self.contacts.reports),
            SecretRoutes(self.secrets),
            HistoryRoutes(self.configs, self.events),
            EnrolRoutes(self.authority, self.tokens, self.joins),
            JoiningRoutes(self.tokens, self.joins, self.devices),
            RescueRoutes(self._rescue, self._taking),
            OperatorRoutes(self.authority),
            AuthorityRoutes(self.rotation, self._folder.authorities, self.devices, self._backups),
            AuditRoutes(self._audit),
            BackupRoutes(self._backups, monotonic=environment.monotonic),
            CheckRoutes(Checks(self._candidates, self.presence, self._links.ask)),
            self._polls,
            OpenApiRoutes(lambda: self._routes, __version__),
        )  # fmt: skip
        return [route for resource in resources for route in resource.table()]

    # ---- certificates and announcement ---------------------------------------------------------------

    def _server_context(self) -> ssl.SSLContext:
        return device_server_context(self.rotation.renewed_leaf().pem, self._folder.authorities.client_ders)

    def _names(self) -> list[str]:
        """What the server's certificate is for, beside the fleet's own name."""
        names = ["localhost", "127.0.0.1", socket.gethostname().lower(), *self._settings["tls.names"]]
        return [name for name in dict.fromkeys(names) if name and "_" not in name]

    async def _put_authorities_in_force(self) -> None:
        """New connections are verified by the authorities as they are now, and devices are told who signs."""
        self.listeners.renew_context()
        if self._announcer is not None and self._announced != self.authority.pin:
            await self._announcer.stop()
            await self._announce()

    async def _announce(self) -> None:
        host, port = self.listeners.addresses[DEVICES]
        if not self._settings["join.mdns"] or host.startswith("127."):
            return
        self._announced = self.authority.pin
        self._announcer = Announcer(
            name=self._settings.name, port=port, fleet_id=self.authority.fleet, server_ca_fingerprint=self._announced
        )
        await self._announcer.start()

    def _checks(self) -> dict[str, bool]:
        return {
            "store": self._store.is_writing and not self.failed.done(),
            "listeners": self.listeners.are_open,
            "serving": not self._edge.stopping,
        }


def _new_id() -> str:
    return pki.new_id(secrets.token_bytes(16))
