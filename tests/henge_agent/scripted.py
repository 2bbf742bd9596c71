"""A daemon that does what a test tells it to: real TLS, real certificates, real frames, no rules and no store."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from henge_agent.settings import Address
from henge_protocol import joining, pki
from henge_protocol.model import digest_of
from henge_protocol.strictjson import canonical
from henge_protocol.tls import device_server_context
from henge_protocol.trust import Trust, trust_answer
from henge_protocol.wire import Config, Hello, Message, Receipt, Report, Welcome, decode, encode
from tests.henge_protocol.authorities import FLEET, Fleet

EPOCH = "0123456789abcdefghjkmnpqrs"


@dataclass
class Scripted:
    """What the daemon wants, and what it has seen."""

    fleet: Fleet
    address: Address = field(default_factory=lambda: Address("127.0.0.1", 1))
    name: str = "lamp-1"
    desired: bytes | None = None
    revision: int = 0
    confirm_s: int = 120
    websockets: bool = True
    receipts: bool = True
    refuse: tuple[int, str] | None = None
    """Status and code with which every request of a device is refused."""
    rescue: str = ""
    """Its history line, if it wants to know what devices run that it refuses."""
    refuse_hand_in: tuple[int, str] | None = None
    handed_in: list[dict[str, Any]] = field(default_factory=list)
    refuse_renewal: tuple[int, str] | None = None
    renew_within_s: int = 0
    """What every welcome asks until the device has renewed."""
    lose_enrolments: int = 0
    """So many identities are issued, and the answers lost."""
    lifetime_s: float = 90 * pki.DAY_S
    frames: list[Message] = field(default_factory=list)
    enrolments: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    renewals_wanted: int = 0
    renewals: int = 0
    """Identities issued to devices that renewed."""
    polls: int = 0
    certificates: list[bytes] = field(default_factory=list)
    """Certificates that used a device's route, in order of their first use."""
    refused_certificates: set[bytes] = field(default_factory=set)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    joins: dict[str, dict[str, Any]] = field(default_factory=dict)
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    on_frame: Callable[[Message], Message | None] | None = None
    schema: dict[str, Any] | None = None
    schema_name: str = "lamp"
    schemas_asked: int = 0
    hold: Callable[[Message], Awaitable[None]] | None = None
    """Awaited before a report by long-poll is answered."""

    # ---- what tests do

    async def want(self, document: bytes) -> None:
        """The newest document from now on."""
        self.desired, self.revision = document, self.revision + 1
        await self.ring()

    async def ring(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def seen(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; looked at whenever something was seen."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: bool(condition()))

    async def reported(self, state: str, digest: str | None = None) -> Report:
        """The first report in this state, about this digest."""

        def found() -> list[Report]:
            return [
                frame
                for frame in self.frames
                if isinstance(frame, Report) and frame.state == state and digest in (None, frame.digest)
            ]

        await self.seen(found)
        return found()[0]

    @property
    def hellos(self) -> list[Hello]:
        return [frame for frame in self.frames if isinstance(frame, Hello)]

    @property
    def reports(self) -> list[Report]:
        return [frame for frame in self.frames if isinstance(frame, Report)]

    def config(self) -> Config:
        assert self.desired is not None
        schema = "" if self.schema is None else digest_of(canonical(self.schema))
        return Config(EPOCH, self.revision, digest_of(self.desired), self.confirm_s, "apply", self.desired, schema)

    def token(self) -> joining.JoinToken:
        fingerprint = pki.fingerprint(self.fleet.server_ca.certificate_der)
        return joining.new_token("join", fingerprint, random=secrets.token_bytes)

    # ---- what devices do

    def app(self) -> web.Application:
        app = web.Application(client_max_size=128 * 1024)
        app.router.add_get("/v1/trust", self._trust)
        app.router.add_post("/v1/enrol", self._enrol)
        app.router.add_post("/v1/enrol/begin", self._begin)
        app.router.add_post("/v1/enrol/reveal", self._reveal)
        app.router.add_get("/v1/enrol/{sid}", self._wait)
        app.router.add_post("/v1/enrol/{sid}/answer", self._answer)
        app.router.add_post("/v1/renew", self._renew)
        app.router.add_get("/v1/device/stream", self._stream)
        app.router.add_get("/v1/device/config", self._config)
        app.router.add_post("/v1/device/report", self._report)
        app.router.add_get("/v1/device/schema", self._schema)
        app.router.add_post("/v1/device/rescue", self._hand_in)
        return app

    async def _schema(self, request: web.Request) -> web.Response:
        self.schemas_asked += 1
        if self.schema is None:
            return problem(404, "no_document")
        return web.Response(
            body=canonical(self.schema), content_type="application/json", headers={"Henge-Schema": self.schema_name}
        )

    async def _hand_in(self, request: web.Request) -> web.Response:
        self.handed_in.append(await request.json())
        await self.ring()
        return problem(*self.refuse_hand_in) if self.refuse_hand_in else web.json_response({}, status=202)

    async def _trust(self, request: web.Request) -> web.Response:
        return web.Response(body=trust_answer(Trust(FLEET, (self.fleet.server_ca.certificate_der,))))

    async def _enrol(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.enrolments.append(body)
        if self.refuse:
            return problem(*self.refuse)
        identity = self.issue(base64.b64decode(body["csr"]), body["name"])
        if self.lose_enrolments:
            self.lose_enrolments -= 1
            assert request.transport is not None
            request.transport.abort()  # type: ignore[attr-defined]
        return web.json_response(identity, status=201)

    def issue(self, csr: bytes, name: str) -> dict[str, Any]:
        """An identity for the request; the device's id follows from its key, so repeating gives the same."""
        now = time.time()
        key = pki.read_csr(csr)
        certificate = pki.issue_client(
            self.fleet.client_ca,
            key.spki_der,
            fleet_id=FLEET,
            role="device",
            subject=pki.new_id(b"a lamp in attic."),
            now=now,
            lifetime_s=self.lifetime_s,
        )
        return {
            "fleet": FLEET,
            "device_id": pki.new_id(b"a lamp in attic."),
            "name": name,
            "certificate": base64.b64encode(certificate).decode(),
            "server_ca": [base64.b64encode(self.fleet.server_ca.certificate_der).decode()],
            "now": int(now),
            "renew_after": int(now + self.lifetime_s * 2 / 3),
        }

    async def _begin(self, request: web.Request) -> web.Response:
        body = await request.json()
        sid = secrets.token_hex(16)
        self.joins[sid] = {"begin": body, "nonce": secrets.token_bytes(32), "identity": None, "accept": None}
        nonce = self.joins[sid]["nonce"].hex()
        return web.json_response({"sid": sid, "nonce": nonce, "fleet": FLEET, "expires_in_s": 600}, status=201)

    async def _reveal(self, request: web.Request) -> web.Response:
        body = await request.json()
        join = self.joins[body["sid"]]
        nonce, csr = bytes.fromhex(body["nonce"]), base64.b64decode(body["csr"])
        spki = pki.read_csr(csr).spki_der
        if joining.commitment(nonce, spki).hex() != join["begin"]["commit"]:
            return problem(400, "join_mismatch")
        fingerprint = pki.fingerprint(self.fleet.server_ca.certificate_der)
        join |= {"csr": csr, "nonce_device": nonce}
        join["code"] = joining.code(body["sid"], nonce, join["nonce"], spki, fingerprint)
        await self.ring()
        return web.json_response({"state": "waiting"})

    async def approve(self) -> str:
        """Approve the one request that waits, as an operator does; its code."""
        await self.seen(lambda: any("code" in join for join in self.joins.values()))
        join = next(join for join in self.joins.values() if "code" in join)
        join["identity"] = self.issue(join["csr"], join["begin"]["name"])
        await self.ring()
        return str(join["code"])

    async def _wait(self, request: web.Request) -> web.Response:
        join = self.joins[request.match_info["sid"]]
        await self.seen(lambda: join["identity"])
        return web.json_response(join["identity"])

    async def _answer(self, request: web.Request) -> web.Response:
        self.joins[request.match_info["sid"]]["accept"] = (await request.json())["accept"]
        return web.json_response({})

    async def _renew(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.renewals_wanted += 1
        await self.ring()
        if self.refuse_renewal:
            return problem(*self.refuse_renewal, cure="join again with a token")
        if self.refuse and self.refuse[1] != "certificate_expired":
            return problem(*self.refuse)
        self.refuse = None
        self.renewals += 1
        return web.json_response(self.issue(base64.b64decode(body["csr"]), "lamp-1"))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if not self.websockets:
            return web.Response(status=404)
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        self.sockets.add(socket)
        pushing: asyncio.Task[None] | None = None
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                frame = decode(message.data)
                await self._note(frame)
                reply = self._reply(frame)
                if reply is not None:
                    await socket.send_str(encode(reply).decode())
                if isinstance(frame, Hello) and pushing is None:
                    pushing = asyncio.create_task(self._push(socket, frame.digest))
        finally:
            self.sockets.discard(socket)
            if pushing is not None:
                pushing.cancel()
                await asyncio.wait([pushing])
        return socket

    def _reply(self, frame: Message) -> Message | None:
        if self.on_frame is not None and (answer := self.on_frame(frame)) is not None:
            return answer
        if isinstance(frame, Hello):
            return self._welcome(int(time.time()))
        if isinstance(frame, Report) and self.receipts:
            return Receipt(frame.revision, frame.digest, frame.state)
        return None

    def _welcome(self, time_s: int) -> Welcome:
        asked_s = 0 if self.renewals else self.renew_within_s
        return Welcome(epoch=EPOCH, name=self.name, time=time_s, renew_within_s=asked_s)

    async def _push(self, socket: web.WebSocketResponse, sent: str) -> None:
        while True:
            await self.newer_than(sent)
            config = self.config()
            sent = config.digest
            await socket.send_str(encode(config).decode())

    async def newer_than(self, digest: str) -> None:
        """Wait until another document than this one is wanted."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.desired is not None and digest_of(self.desired) != digest)

    async def _config(self, request: web.Request) -> web.Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if "have" not in request.query:
            return web.Response(body=encode(self._welcome(0)))
        self.polls += 1
        await self.ring()
        have = request.query["have"]
        await self.newer_than(have)
        return web.Response(body=encode(self.config()))

    async def _report(self, request: web.Request) -> web.Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        frame = decode(await request.read())
        await self._note(frame)
        if self.hold is not None:
            await self.hold(frame)
        assert isinstance(frame, Hello | Report)
        withheld = isinstance(frame, Report) and not self.receipts  # the answer must be one all the same
        body = encode(Receipt(frame.revision + withheld, frame.digest, frame.state))
        have = request.query.get("have")
        if have is not None and self.desired is not None and digest_of(self.desired) != have:
            body += b"\n" + encode(self.config())
        return web.Response(body=body)

    async def _note(self, frame: Message) -> None:
        self.frames.append(frame)
        await self.ring()

    def _refusal(self, request: web.Request) -> web.Response | None:
        certificate = shown(request)
        if certificate is None:
            return problem(401, "certificate_required")
        if certificate in self.refused_certificates:
            return problem(403, "certificate_superseded")
        if certificate not in self.certificates:
            self.certificates.append(certificate)
        return problem(*self.refuse, rescue=self.rescue) if self.refuse else None


def problem(status: int, code: str, cure: str = "", rescue: str = "") -> web.Response:
    body = {"type": "about:blank", "title": code, "status": status, "detail": f"because of {code}", "code": code}
    body |= {name: said for name, said in (("cure", cure), ("rescue", rescue)) if said}
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/problem+json")


def shown(request: web.Request) -> bytes | None:
    """The client certificate of this connection."""
    assert request.transport is not None
    tls = request.transport.get_extra_info("ssl_object")
    der: bytes | None = tls.getpeercert(binary_form=True)
    return der


@asynccontextmanager
async def serving(daemon: Scripted, identity: bytes | None = None) -> AsyncIterator[Scripted]:
    """Listen on a free port of loopback with the fleet's own identity, or another one."""
    context = device_server_context(
        identity or daemon.fleet.server_identity(), [daemon.fleet.client_ca.certificate_der]
    )
    runner = web.AppRunner(daemon.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", daemon.address.port if daemon.address.port > 1 else 0, ssl_context=context)
    await site.start()
    daemon.address = Address("127.0.0.1", runner.addresses[0][1])
    try:
        yield daemon
    finally:
        for socket in list(daemon.sockets):
            await socket.close(code=1001)
        await runner.cleanup()
