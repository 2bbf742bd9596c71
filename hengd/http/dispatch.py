"""One accepted connection: its first request head decides who serves it, its deadlines decide how long.

``Connection`` reads the first head, then either stays as a thin forwarder in front of the HTTP library's
protocol (so that later heads and idle times stay under a deadline) or hands the transport to the device
link for good and is out of the data's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, cast

from aiohttp import web

from hengd.http.admission import GateLimits
from hengd.http.head import METHODS, Head, Refusal, opening_of, read_head, refuse_upgrade
from henge_protocol.errors import Malformed, MethodNotAllowed, Misdirected


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as far as the connection itself tells."""

    listener: str
    """Name of the listener it came through."""
    address: str = ""
    """IP address; empty on a unix socket."""
    port: int = 0
    certificate: bytes | None = None
    """The client certificate (DER) whose key the peer has proved to hold; not looked up anywhere yet."""
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    """Of the process at the other end of a unix socket when it connected."""


class Stream(Protocol):
    """What a stream factory returns: a buffered asyncio protocol that tells its end and keeps its own time."""

    def connection_made(self, transport: asyncio.BaseTransport, /) -> None:
        """As in asyncio."""

    def get_buffer(self, sizehint: int, /) -> memoryview:
        """As in asyncio."""

    def buffer_updated(self, nbytes: int, /) -> None:
        """As in asyncio."""

    def when_lost(self, callback: Callable[[], None], /) -> None:
        """Remember ``callback``; it is to be called once, from ``connection_lost``."""

    def beat(self, now: float, /) -> None:
        """Called every few seconds: ping a silent peer, drop a dead one."""


HttpFactory = Callable[[Peer], asyncio.Protocol]
StreamFactory = Callable[[Peer], Stream]


class Owner(Protocol):
    """What a connection needs of its gate."""

    limits: GateLimits
    http_factory: HttpFactory
    stream_factory: StreamFactory | None

    def now(self) -> float:
        """Monotonic seconds."""

    def refused(self, reason: str, peer: Peer) -> None:
        """Count and perhaps log a refusal."""

    def ended(self, connection: Connection) -> None:
        """The connection is gone."""


class Phase(IntEnum):
    """Where a connection stands."""

    HANDSHAKE = 0
    HEAD = 1
    HTTP = 2
    STREAM = 3
    CLOSING = 4


class Connection(asyncio.Protocol):
    """A connection from accept to end.  Owned by a gate, which calls ``sweep`` about once a second."""

    __slots__ = (
        "_head",
        "_inner",
        "_is_heading",
        "_owner",
        "_requests",
        "_since",
        "_turns",
        "origin",
        "peer",
        "phase",
        "share",
        "transport",
    )

    def __init__(self, owner: Owner, peer: Peer, origin: str, *, share: int = 0) -> None:
        self.peer = peer
        self.share = share
        self.origin = origin
        self.phase = Phase.HANDSHAKE
        self.transport: asyncio.Transport | None = None
        self._owner = owner
        self._head = bytearray()
        self._inner: asyncio.Protocol | Stream | None = None
        self._since: float | None = owner.now()
        """When the present waiting began (``phase`` says for what); None while a request is served."""
        self._is_heading = False
        """A later head has begun to arrive."""
        self._turns = 0
        self._requests = 0

    # --- what the requests say ------------------------------------------------------------------------------

    def request_started(self) -> None:
        """A request is being served: no deadline of the gate runs."""
        self._turns += 1
        self._requests += 1
        self._since = None
        self._is_heading = False

    def request_finished(self) -> None:
        """The request has its answer: the connection is idle from now."""
        self._turns -= 1
        if self._turns == 0:
            self._since = self._owner.now()

    @property
    def is_strangers(self) -> bool:
        """True of an open connection whose peer could show a certificate and has not."""
        return self.transport is not None and not self.transport.is_closing() and self.peer.certificate is None

    @property
    def is_spent(self) -> bool:
        """True when the connection should be closed after the present request."""
        return self._requests >= self._owner.limits.max_requests_per_connection or self.phase == Phase.CLOSING

    # --- what the gate says ---------------------------------------------------------------------------------

    def is_late_for_handshake(self, now: float, patience_s: float) -> bool:
        """True when the TLS handshake is not over after so long."""
        return self.phase == Phase.HANDSHAKE and self._waited(now) >= patience_s

    def sweep(self, now: float) -> None:
        """Enforce the deadline that runs at ``now``."""
        if self.phase is Phase.STREAM:
            cast(Stream, self._inner).beat(now)
            return
        limits, waited = self._owner.limits, self._waited(now)
        if self.phase == Phase.HEAD and waited >= limits.head_s:
            self._refuse(_late(limits.head_s))
        elif self.phase == Phase.HTTP and self._turns == 0:
            self._sweep_http(waited)
        elif self.phase == Phase.CLOSING and self._turns == 0 and waited >= limits.linger_s:
            self.abort()

    def retire(self) -> None:
        """Close as soon as nothing is being served; a stream is left to its owner."""
        if self.transport is None or self.phase == Phase.STREAM:
            return
        self.phase = Phase.CLOSING
        if self._turns == 0:
            self._since = self._owner.now()
            self.transport.close()

    def abort(self) -> None:
        """Cut the connection now; nothing more is sent."""
        if self.transport is not None:
            self.transport.abort()

    # --- what the transport says ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.phase = Phase.HEAD
        self._since = self._owner.now()
        self.peer = _with_certificate(self.peer, self.transport)

    def data_received(self, data: bytes) -> None:
        if self.phase == Phase.HEAD:
            self._head += data
            self._read_head()
        elif self.phase == Phase.HTTP or (self.phase == Phase.CLOSING and self._turns):
            if not self._turns and not self._is_heading:
                self._is_heading, self._since = True, self._owner.now()
            cast(asyncio.Protocol, self._inner).data_received(data)

    def eof_received(self) -> bool | None:
        if self.phase == Phase.HTTP:
            return cast(asyncio.Protocol, self._inner).eof_received()
        return None

    def pause_writing(self) -> None:
        if self._inner is not None and self.phase != Phase.STREAM:
            cast(asyncio.Protocol, self._inner).pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None and self.phase != Phase.STREAM:
            cast(asyncio.Protocol, self._inner).resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        inner, self._inner = self._inner, None
        self._owner.ended(self)
        if inner is not None:
            cast(asyncio.Protocol, inner).connection_lost(exc)

    # --- inside ---------------------------------------------------------------------------------------------

    def _waited(self, now: float) -> float:
        return 0.0 if self._since is None else now - self._since

    def _read_head(self) -> None:
        head = read_head(self._head, max_bytes=self._owner.limits.max_head_bytes)
        if isinstance(head, Head) and head.is_stream and self._owner.stream_factory is not None:
            head = refuse_upgrade(head) or head
        if isinstance(head, Refusal):
            self._refuse(head)
        elif head is not None and head.is_stream and self._owner.stream_factory is not None:
            self._become_stream(head, self._owner.stream_factory(self.peer))
        elif head is not None:
            self._become_http(self._owner.http_factory(self.peer))

    def _become_http(self, inner: asyncio.Protocol) -> None:
        transport, received = self.transport, bytes(self._head)
        assert transport is not None
        self.phase, self._inner, self._head = Phase.HTTP, inner, bytearray()
        self._is_heading, self._since = True, self._owner.now()
        inner.connection_made(transport)
        inner.data_received(received)

    def _become_stream(self, head: Head, stream: Stream) -> None:
        transport, received = self.transport, memoryview(opening_of(head) + self._head[head.size :])
        assert transport is not None
        self.phase, self._inner, self._head = Phase.STREAM, stream, bytearray()
        stream.when_lost(self._forget_stream)
        transport.set_protocol(cast(asyncio.BaseProtocol, stream))
        stream.connection_made(transport)
        while received and not transport.is_closing():
            space = stream.get_buffer(len(received))
            taken = min(len(space), len(received))
            space[:taken] = received[:taken]
            stream.buffer_updated(taken)
            received = received[taken:]

    def _forget_stream(self) -> None:
        self._inner = None
        self._owner.ended(self)

    def _sweep_http(self, waited: float) -> None:
        assert self.transport is not None
        if self.transport.is_closing():
            self.phase, self._since = Phase.CLOSING, self._owner.now()
        elif self._is_heading and waited >= self._owner.limits.head_s:
            self._refuse(_late(self._owner.limits.head_s))
        elif waited >= self._owner.limits.idle_s:
            self.retire()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, then end: at once under TLS (whose closing drains what still comes), else when the peer has read."""
        assert self.transport is not None
        self.phase, self._since = Phase.CLOSING, self._owner.now()
        self._owner.refused(refusal.code, self.peer)
        self.transport.write(refusal.response())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


def connection_of(request: web.Request) -> Connection | None:
    """The connection that ``request`` came by; None when it is gone or did not come through a gate."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, Connection) else None


@web.middleware
async def keep_turns(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The outermost middleware of every application behind a gate: tells the connection that it is at work."""
    connection = connection_of(request)
    if connection is None:
        return await handler(request)
    connection.request_started()
    try:
        response = await handler(request)
    finally:
        connection.request_finished()
    if connection.is_spent and response.prepared:  # it is written already and could not say so
        connection.retire()
    elif connection.is_spent:
        response.force_close()
    return response


def refuse_odd_request(request: web.Request) -> None:
    """Hold later requests of a connection to the same rules as the first.

    Raises MethodNotAllowed, Misdirected ``wrong_host`` or Malformed ``bad_request``; to be called within
    the middleware that turns errors into problem documents.
    """
    if request.method not in METHODS:
        raise MethodNotAllowed("method_not_allowed", f"no resource takes {request.method}")
    if "://" in request.raw_path.partition("?")[0]:
        raise Misdirected("wrong_host", "the target must be a path; this daemon is no proxy")
    if not request.raw_path.startswith("/"):
        raise Malformed("bad_request", "the target must be a path that begins with /")
    if len(request.headers.getall("Host", ())) != 1:
        raise Malformed("bad_request", "exactly one Host field is expected")
    if any(coding.lower() != "chunked" for coding in request.headers.getall("Transfer-Encoding", ())):
        raise Malformed("bad_request", "the only transfer coding is chunked")


def _with_certificate(peer: Peer, transport: asyncio.Transport) -> Peer:
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return peer
    return Peer(peer.listener, peer.address, peer.port, certificate=tls.getpeercert(True))


def _late(limit_s: float) -> Refusal:
    return Refusal(408, "request_timeout", f"the request head did not arrive within {limit_s:g} seconds")
