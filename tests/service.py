"""The daemon and its peers for tests: real sockets, real TLS, real store; scripted devices with the real session."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from hengd.app import App, Environment
from hengd.migrations import MIGRATIONS, Migration
from hengd.settings import load_settings
from hengd.transactions import DATABASES, Reader, open_environment
from henge_protocol import pki
from henge_protocol.joining import parse_token
from henge_protocol.model import digest_of
from henge_protocol.session import Session
from henge_protocol.tls import pinned_client_context, unverified_context
from henge_protocol.trust import server_name
from henge_protocol.wire import SUPPORTED, Config, Hello, Message, Receipt, Report, Welcome
from tests.contract import Contract

PATIENCE_S = 30.0
"""How long a test waits for what must happen; far beyond what it takes, so that only a fault uses it up."""

LAMP = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "color": {"type": "string", "enum": ["red", "green", "blue"], "default": "green"},
        "brightness": {"type": "integer", "minimum": 0, "maximum": 100, "default": 80},
        "wifi": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"ssid": {"type": "string"}, "channel": {"type": "integer"}},
        },
    },
}
"""A small schema that most service tests use."""


class Clock:
    """Wall and monotonic seconds, real until moved by ``advance``."""

    def __init__(self) -> None:
        self._offset_s = 0.0
        self._jumped_s = 0.0
        self._stands_at: float | None = None

    def wall(self) -> float:
        """Unix seconds."""
        return time.time() + self._offset_s + self._jumped_s

    def monotonic(self) -> float:
        """Monotonic seconds."""
        real = time.monotonic() if self._stands_at is None else self._stands_at
        return real + self._offset_s

    def freeze(self) -> None:
        """Let monotonic time stand from now on, but for ``advance``."""
        self._stands_at = time.monotonic()

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        self._offset_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as people and time servers do; links do not notice."""
        self._jumped_s += seconds


class Service:
    """One daemon on a folder; may be stopped and started again on the same folder."""

    def __init__(self, data_dir: Path, clock: Clock, flags: dict[str, Any] | None = None) -> None:
        self.data_dir = data_dir
        self.clock = clock
        # A socket's path has at most 107 bytes, a test's folder often more.
        self._run = tempfile.TemporaryDirectory(prefix="henge-")
        self.socket = Path(self._run.name) / "admin.sock"
        self._flags = {
            "listen.devices": "127.0.0.1:0",
            "listen.local": "127.0.0.1:0",
            "join.mdns": False,
            "limits.per_address": 1000,
            "limits.handshakes_per_address": 128,
            "limits.retry_after": "1s",
            **(flags or {}),
        }
        self.max_files = 65_536
        self.speaks = SUPPORTED
        self.migrations: Mapping[int, Migration] = MIGRATIONS
        self.app: App
        self.contract: Contract

    async def start(self) -> None:
        """Assemble and listen."""
        settings = load_settings(flags=self._flags)
        environment = Environment(
            self.data_dir, self.socket, clock=self.clock.wall, monotonic=self.clock.monotonic,
            max_files=self.max_files, speaks=self.speaks, migrations=self.migrations,
        )  # fmt: skip
        self.app = App(settings, environment)
        self.contract = Contract(self.app)
        await self.app.start()

    async def stop(self) -> None:
        """Stop cleanly."""
        await self.app.stop()

    def clean(self) -> None:
        """Remove the folder of the socket."""
        self._run.cleanup()

    async def restart(self) -> None:
        """Stop and start on the same folder."""
        await self.stop()
        await self.start()

    @property
    def port(self) -> int:
        """The device port."""
        return self.app.listeners.addresses["devices"][1]

    @property
    def url(self) -> str:
        """The device port's URL."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def local_url(self) -> str:
        """The plain port's URL."""
        return "http://{}:{}".format(*self.app.listeners.addresses["local"])

    @property
    def server_name(self) -> str:
        """The name in the server's certificate."""
        return server_name(self.app.authority.fleet)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Admin]:
        """An operator over the unix socket."""
        connector = aiohttp.UnixConnector(path=str(self.socket))
        async with aiohttp.ClientSession("http://henge", connector=connector) as session:
            yield Admin(session, contract=self.contract)

    @asynccontextmanager
    async def remote(self, identity: Identity | None = None, *, verified: bool = True) -> AsyncIterator[Admin]:
        """Anybody over TLS, with an identity or without."""
        context = self.context(identity) if verified else unverified_context()
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(self.url, connector=connector) as session:
            yield Admin(session, server_hostname=self.server_name if verified else None, contract=self.contract)

    def context(self, identity: Identity | None = None) -> ssl.SSLContext:
        """TLS as a device has it: pinned server authority, own certificate."""
        pem = identity.pem if identity is not None else None
        return pinned_client_context(self.app.authority.server_cas, pem, passed=time.time())

    async def join(self, admin: Admin, name: str, **token: Any) -> Identity:
        """Enrol a device by a real token."""
        made = await admin.ok("POST", "/v1/tokens", {"name": name, **token})
        key = pki.generate_key()
        async with self.remote() as stranger:
            answer = await stranger.ok("POST", "/v1/enrol", enrolment(made["token"], key, name))
        return Identity(name, answer["device_id"], base64.b64decode(answer["certificate"]), key)


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's certificate and key."""

    name: str
    id: str
    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def pem(self) -> bytes:
        """Both in PEM, as ``tls`` loads them."""
        return pki.certificate_pem(self.certificate) + self.key


def enrolment(token: str, key: bytes, name: str) -> dict[str, Any]:
    """The body of ``POST /v1/enrol``."""
    parsed = parse_token(token)
    csr = base64.b64encode(pki.make_csr(key, name)).decode()
    return {"token_id": parsed.id, "secret": parsed.secret, "csr": csr, "name": name}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Our error code of a problem document."""
        return str(self.json["code"])


class Admin:
    """An HTTP client that speaks JSON."""

    def __init__(
        self, session: aiohttp.ClientSession, *, server_hostname: str | None = None, contract: Contract | None = None
    ) -> None:
        self.session = session
        self._hostname = server_hostname
        self._contract = contract

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """Any request; ``body`` is sent as JSON unless it is bytes."""
        data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
        headers = {"Content-Type": "application/json"} if data is not None else {}
        headers |= options.pop("headers", {})
        request = self.session.request(
            method, path, data=data, headers=headers, server_hostname=self._hostname, **options
        )
        async with request as response:
            answer = Answer(response.status, response.headers, await response.read())
        if self._contract is not None:
            self._contract.check(method, path, answer.status, answer.headers, answer.body)
        return answer

    async def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """A request that must succeed; its JSON."""
        answer = await self.call(method, path, body, **options)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body[:500]!r}"
        return answer.json if answer.body else None

    async def refused(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """A request that must be refused with a problem document."""
        answer = await self.call(method, path, body, **options)
        assert answer.status >= 400, f"{method} {path}: {answer.status} {answer.body[:500]!r}"
        assert answer.headers["Content-Type"].startswith("application/problem+json"), answer
        return answer

    async def apply(self, *objects: dict[str, Any]) -> Any:
        """Apply objects as one change."""
        return await self.ok("POST", "/v1/apply", {"objects": list(objects)})

    async def set(self, device: str, **values: Any) -> Any:
        """Patch a device's values."""
        return await self.ok("PATCH", f"/v1/devices/{device}", {"spec": {"values": values}})

    async def until(self, device: str, **wanted: str) -> dict[str, Any]:
        """Wait by events until the device's status has these values; returns its status."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seq = (await self.ok("GET", "/v1/events"))["next"]
                status = (await self.ok("GET", f"/v1/devices/{device}"))["status"]
                if all(status[name] == value for name, value in wanted.items()):
                    return dict(status)
                await self.ok("GET", f"/v1/events?since={seq}&wait=5")


def schema(name: str = "lamp", **content: Any) -> dict[str, Any]:
    """A Schema object."""
    return {"kind": "Schema", "metadata": {"name": name}, "spec": {"schema": content or LAMP}}


def group(name: str, selector: str = "", priority: int = 100, bound: str = "", **values: Any) -> dict[str, Any]:
    """A Group object."""
    spec = {"selector": selector, "priority": priority, "schema": bound, "values": values}
    return {"kind": "Group", "metadata": {"name": name}, "spec": spec}


def device(name: str, bound: str = "lamp", labels: dict[str, str] | None = None, **values: Any) -> dict[str, Any]:
    """A Device object."""
    return {
        "kind": "Device",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"schema": bound, "values": values},
    }


class ScriptedDevice:
    """A real session over a real WebSocket that does what the test tells it; applies what it gets by default."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.session = Session("device", now=0.0)
        self.documents: list[Config] = []
        self._early: list[Config] = []
        self.receipts: list[Receipt] = []
        self.close_code: int | None = None

    async def hello(self, **fields: Any) -> Welcome:
        """Say hello and read the welcome."""
        await self.send(Hello(**{"client": "test/1", "boot": "boot-1", **fields}))
        event = await self.event()
        assert isinstance(event, Welcome), event
        return event

    async def send(self, message: Message) -> None:
        """Send one message of the session."""
        await self.socket.send_str(self.session.send(message, now=0.0).decode())

    async def event(self) -> Message:
        """The next event; ``ConnectionError`` when the link ends."""
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.socket.receive()
        if frame.type is not aiohttp.WSMsgType.TEXT:
            self.close_code = await self._code(frame)
            raise ConnectionError(f"link ended: {frame.type!r} {self.close_code}")
        step = self.session.receive(frame.data, now=0.0)
        assert step.event is not None, step
        return step.event

    async def config(self) -> Config:
        """The next document; one that came before a receipt was read counts."""
        while not self._early:
            self._note(await self.event())
        return self._early.pop(0)

    async def report(self, config: Config, state: str = "applied", **fields: Any) -> Receipt:
        """Report about a document and wait for the receipt."""
        await self.send(Report(config.epoch, config.revision, config.digest, state, **fields))
        while True:
            event = await self.event()
            self._note(event)
            if isinstance(event, Receipt) and event.digest == config.digest and event.state == state:
                return event

    def _note(self, event: Message) -> None:
        if isinstance(event, Config):
            assert event.digest == digest_of(event.document)
            self.documents.append(event)
            self._early.append(event)
        elif isinstance(event, Receipt):
            self.receipts.append(event)

    async def apply_next(self) -> dict[str, Any]:
        """Take the next document, report it applied, return its content."""
        config = await self.config()
        await self.report(config)
        return dict(json.loads(config.document))

    async def gone(self) -> int:
        """Wait until the daemon ends the link; the close code."""
        async with asyncio.timeout(PATIENCE_S):
            while self.close_code is None:
                frame = await self.socket.receive()
                if frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                    self.close_code = await self._code(frame)
        return self.close_code

    async def _code(self, frame: aiohttp.WSMessage) -> int:
        """What the daemon said; aiohttp's own figure becomes 1006 when its answer finds the connection gone."""
        said = int(frame.data) if frame.type is aiohttp.WSMsgType.CLOSE else self.socket.close_code or 1006
        await self.socket.close()
        return said


@asynccontextmanager
async def connected(service: Service, identity: Identity, **hello: Any) -> AsyncIterator[ScriptedDevice]:
    """A device with a live link that has said hello."""
    async with raw_link(service, identity) as device_:
        await device_.hello(**hello)
        yield device_


@asynccontextmanager
async def raw_link(service: Service, identity: Identity, *, local: str = "") -> AsyncIterator[ScriptedDevice]:
    """A device with a live link that has said nothing yet; ``local`` is its address."""
    connector = aiohttp.TCPConnector(ssl=service.context(identity), local_addr=(local, 0) if local else None)
    async with aiohttp.ClientSession(connector=connector) as session:
        link = session.ws_connect(
            f"{service.url}/v1/device/stream",
            server_hostname=service.server_name,
            compress=0,
            max_msg_size=2**21,
            autoclose=False,
        )
        async with link as socket:
            yield ScriptedDevice(socket)


def verify_store(data_dir: Path) -> None:
    """Read every record of a stopped daemon's store; a wrong checksum raises."""
    folder = data_dir / "data" / "db"
    if not folder.exists():
        return
    env = open_environment(folder, 1024**3)
    try:
        databases = {name: env.open_db(name.encode()) for name in DATABASES}
        with env.begin() as txn:
            reader = Reader(txn, databases)
            for name in DATABASES:
                for _ in reader.scan(name):
                    pass
    finally:
        env.close()
