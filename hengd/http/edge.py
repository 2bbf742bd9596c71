"""The edge: one table of routes with their authentication, and the middlewares around every handler.

Order, outermost first: turn-keeping for the gate, errors to problem documents, identity. A route without a
declared authentication cannot exist: ``Route`` has no default for it, and the application takes nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Middleware

from hengd.http.dispatch import Peer, connection_of, keep_turns, refuse_odd_request
from hengd.http.parse import Query
from hengd.http.problems import problem_response, stamp
from hengd.rules.authority import NOBODY, Authority, Caller
from hengd.rules.configs import Request
from hengd.rules.limits import RateLimit
from hengd.rules.outcome import Author
from hengd.rules.ownership import Writer
from henge_protocol.errors import (
    Denied,
    HengeError,
    Internal,
    Malformed,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
    Unavailable,
)  # fmt: skip
from henge_protocol.model import ROLES, check_name

log = logging.getLogger("hengd.http")

DEVICES: Final = "devices"
ADMIN: Final = "admin"
LOCAL: Final = "local"
"""Names of the listeners: TLS port, unix socket, plain local port."""


class Auth(Enum):
    """Who may call a route."""

    HEALTH = "none, local"
    NONE = "none"
    ENROL = "enrol"
    RESCUE = "rescue"
    DEVICE = "device"
    DEVICE_EXPIRED = "device-expired"
    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"
    METRICS = "viewer, or anybody at the local port"


WRITE_QUERY: Final = ("dry_run", "message", "all_at_once")
"""Query parameters of every route that changes configuration."""
OWNER_QUERY: Final = ("set", "take_over")
"""And of those that write objects themselves: for which apply-set, and whether also what belongs to others."""
OPERATORS: Final = (Auth.VIEWER, Auth.EDITOR, Auth.ADMIN)
"""Routes for people: reading, changing configuration, deciding who belongs."""
READ_BY_ADMINS: Final = frozenset({"/v1/tokens", "/v1/operators", "/v1/audit", "/v1/authorities"})
"""Who belongs is read by those who decide it. Everything else that is for people is read by all of them, values of
secrets by nobody: what holds some is shown with their names (``docs/decisions/0012``)."""

_SERVED: Final = {
    Auth.HEALTH: frozenset({LOCAL, ADMIN}),
    Auth.NONE: frozenset({DEVICES, ADMIN}),
    Auth.ENROL: frozenset({DEVICES}),
    Auth.RESCUE: frozenset({DEVICES}),
    Auth.DEVICE: frozenset({DEVICES}),
    Auth.DEVICE_EXPIRED: frozenset({DEVICES}),
    **dict.fromkeys(OPERATORS, frozenset({DEVICES, ADMIN})),
    Auth.METRICS: frozenset({DEVICES, ADMIN, LOCAL}),
}

_ASKED_BY_THE_ROUTE: Final = (Auth.HEALTH, Auth.NONE, Auth.ENROL, Auth.RESCUE)
"""Nobody needs to be known here; who may do what is for what serves the route."""

RATES: Final = {"device": (20.0, 60), "admin": (50.0, 500)}
"""Requests of one identity in a second, and at once after a rest; what comes through the unix socket is not counted."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RENEW_HEADER: Final = "Henge-Renew"
"""On an answer: the operator who asked had better renew his certificate now."""
LASTING_S: Final = 1.0
"""Who read for so long is asked again who it is, before it gets the answer."""


@dataclass(frozen=True, slots=True)
class Admission:
    """By what a request was let in: a certificate can end while an answer lasts, which no commit tells."""

    check: Callable[[], object]
    """Raises what a new request would be refused with."""

    @property
    def lasts(self) -> bool:
        """Whether a new request would be let in now."""
        try:
            self.check()
        except HengeError:
            return False
        return True


ADMISSION: Final = web.RequestKey("admission", Admission)
CALLER: Final = web.RequestKey("caller", Caller)
PEER: Final = web.RequestKey("peer", Peer)
REQUEST_ID: Final = web.RequestKey("request_id", str)


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path, who may call it, and what answers; the rest describes it for ``/v1/openapi.json``."""

    method: str
    path: str
    auth: Auth
    handler: Handler
    query: tuple[str, ...] = ()
    """Names of its query parameters; ``openapi.IN_QUERY`` says what they mean."""
    takes: Any = None
    """Shape of its body; None = it takes none."""
    body_optional: bool = False
    gives: Mapping[int, Any] = field(default_factory=dict)
    """Shape of each answer that is no refusal, by status; several in a tuple, None for no body."""
    headers: tuple[str, ...] = ()
    """Request headers with a meaning of their own here; ``openapi.IN_HEADER`` has them."""

    @property
    def pattern(self) -> str:
        """The path as the router reads it: the name of a secret has slashes in it."""
        return self.path.replace("{secret}", "{secret:.+}")


class Edge:
    """Builds the application: routes in, middlewares around them."""

    def __init__(
        self, authority: Authority, local_user: Callable[[Peer], Caller], *, monotonic: Callable[[], float]
    ) -> None:
        self._authority = authority
        self._monotonic = monotonic
        self._rates = {role: RateLimit(*rate) for role, rate in RATES.items()}
        self._local_user = local_user
        self._routes: dict[Handler, Route] = {}
        self.stopping = False

    def application(self, routes: Iterable[Route]) -> web.Application:
        """The application that serves ``routes`` and nothing else."""
        app = web.Application(middlewares=[keep_turns, self.answer_errors, self.identify], client_max_size=2**21)
        for route in routes:
            _refuse_other_readers(route)
            self._routes[route.handler] = route
            app.router.add_route(route.method, route.pattern, route.handler, expect_handler=_continue)
        return app

    @property
    def answer_errors(self) -> Middleware:
        """Turn everything that is raised into a problem document with the request's id."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            request_id = request[REQUEST_ID] = secrets.token_hex(8)
            try:
                response = await handler(request)
            except HengeError as error:
                response = problem_response(error, request_id)
            except web.HTTPException as error:
                response = problem_response(_translated(error, request), request_id)
            except ConnectionError:
                raise
            except Exception:  # task boundary: a bug of ours must not leak its details
                log.exception("request failed", extra={"event": "request_failed", "request_id": request_id})
                problem = Internal("internal", f"the daemon failed; its log has the details under {request_id}")
                response = problem_response(problem, request_id)
            if not response.prepared:
                stamp(response, request_id)
            return response

        return middleware

    @property
    def identify(self) -> Middleware:
        """Find out who is calling, and whether this route is for them."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            refuse_odd_request(request)
            if "#" in request.raw_path:
                raise Malformed("bad_request", "the target must be a path without a fragment")
            connection = connection_of(request)
            if connection is None:
                raise ConnectionResetError("the connection is gone")
            route = self._route_of(request)
            auth = route.auth
            if connection.peer.listener not in _SERVED[auth]:
                raise NotFound("not_implemented_here", f"{request.path[:80]} is not served on this listener")
            if "Origin" in request.headers and auth is not Auth.HEALTH:
                raise Denied("foreign_origin", "web pages may not call this listener; programs send no Origin")
            if self.stopping and auth is not Auth.HEALTH:
                raise Unavailable("stopping", "the daemon is shutting down", extra={"retry_after_s": 5})
            if "If-Match" in request.headers and request.method != "GET" and "If-Match" not in route.headers:
                raise Malformed("bad_parameter", f"{request.method} takes no If-Match here: it would not be heeded")
            request[PEER] = connection.peer
            caller = request[CALLER] = await self._caller(connection.peer, auth)
            admission = request[ADMISSION] = Admission(partial(self._admitted, connection.peer, auth))
            began = self._monotonic()
            with self._held(request, caller):
                response = await handler(request)
            self._hint(caller, response)
            lasted = self._monotonic() - began >= LASTING_S
            if lasted and not response.prepared and _is_read_by_operator(request, caller):
                admission.check()
            return response

        return middleware

    def _hint(self, caller: Caller, response: web.StreamResponse) -> None:
        """An operator's certificate is from before the authorities in force: it is renewed when he asks next."""
        if caller.role == "admin" and not response.prepared and self._authority.renew_within_s(caller):
            response.headers[RENEW_HEADER] = "1"

    @contextmanager
    def _held(self, request: web.Request, caller: Caller) -> Iterator[None]:
        """Cut a reading request when its operator's identity ends, so that none waits on. What writes runs to its
        end: cut off, nobody would know what it did, and an operator who revokes himself hears that it is done."""
        if not _is_read_by_operator(request, caller):
            yield
            return
        cut = cutter_of(request)
        self._authority.ends.hold("admin", caller.subject, cut)
        try:
            yield
        finally:
            self._authority.ends.release("admin", caller.subject, cut)

    def _route_of(self, request: web.Request) -> Route:
        refusal = request.match_info.http_exception
        if refusal is not None:
            raise _translated(refusal, request)
        route = self._routes.get(request.match_info.handler)
        if route is None:
            raise LookupError(f"route {request.path} declares no authentication")
        return route

    def _admitted(self, peer: Peer, auth: Auth) -> Caller:
        if auth in _ASKED_BY_THE_ROUTE or peer.listener == LOCAL:
            return NOBODY
        is_local = peer.listener == ADMIN
        caller = self._local_user(peer) if is_local else self._authority.identify(peer.certificate, peer.address)
        check_caller(caller, Auth.VIEWER if auth is Auth.METRICS else auth)
        return caller

    async def _caller(self, peer: Peer, auth: Auth) -> Caller:
        caller = self._admitted(peer, auth)
        if caller is NOBODY:
            return caller
        if peer.listener == DEVICES:
            self._rates[caller.role].take(caller.subject, now=self._monotonic())
        await self._authority.used(caller)
        return caller


def _is_read_by_operator(request: web.Request, caller: Caller) -> bool:
    return request.method == "GET" and caller.role == "admin" and bool(caller.certificate)


def _refuse_other_readers(route: Route) -> None:
    """One rule says who reads what; a route that declares another cannot be served."""
    rule = Auth.ADMIN if route.path in READ_BY_ADMINS else Auth.VIEWER
    if route.method == "GET" and route.auth in OPERATORS and route.auth is not rule:
        raise LookupError(f"{route.path} is read by {rule.value}s, and its route says {route.auth.value}")


def cutter_of(request: web.Request) -> Callable[[], None]:
    """What ends this request at once, to be held by an identity: the connection goes, and who waits is cancelled."""
    waiting = asyncio.current_task()

    def cut() -> None:
        if request.transport is not None:
            request.transport.abort()
        if waiting is not None:
            waiting.cancel()

    return cut


def check_caller(caller: Caller, auth: Auth) -> None:
    """Whether ``caller`` may use routes of ``auth``; raises ``Unauthenticated`` or ``Denied``."""
    if caller.role == "nobody":
        raise Unauthenticated(
            "certificate_required", "this route needs a client certificate", cure="join as a device, or: hengectl login"
        )
    if caller.expired_s and auth is not Auth.DEVICE_EXPIRED:
        raise Unauthenticated(
            "certificate_expired",
            "the certificate has expired",
            cure="renew it: POST /v1/renew with the same certificate",
            extra={"renew": "/v1/renew"},
        )
    if (auth is Auth.DEVICE and caller.role != "device") or (auth in OPERATORS and caller.role != "admin"):
        wanted, shown = ("device", "operator") if auth is Auth.DEVICE else ("operator", "device")
        raise Denied("wrong_role", f"this route is for {wanted}s, the certificate is a {shown}'s")
    if auth in OPERATORS and ROLES.index(caller.rights) < ROLES.index(auth.value):
        raise Denied(
            "wrong_role",
            f"this needs the role {auth.value}, {caller.name} has the role {caller.rights}",
            cure=f"an admin gives it: hengectl token create --role {auth.value} --name {caller.name}",
        )


def author_of(request: web.Request) -> Author:
    """Who makes a change through this request, and which way it came."""
    peer = request[PEER]
    caller, origin = request[CALLER], "socket" if peer.listener == ADMIN else f"tls {peer.address}"
    return Author(caller.name, origin, may_end_identities=caller.rights == "admin")


def change_request(request: web.Request, *more: str) -> Request:
    """Who wants a change, why, and whether only to see it, from the query of a writing request."""
    query = Query(request, *WRITE_QUERY, *more)
    return Request(
        author_of(request),
        query.text("message"),
        query.flag("dry_run"),
        all_at_once=query.flag("all_at_once"),
        writer=writer_of(query),
        prune=query.flag("prune"),
    )


def writer_of(query: Query) -> Writer:
    """For which apply-set a change is, and whether it may write what belongs to others (``OWNER_QUERY``)."""
    apply_set = query.text("set")
    return Writer(check_name(apply_set, "set") if apply_set else "", take_over=query.flag("take_over"))


async def _continue(request: web.Request) -> web.Response | None:
    """Ask for the body if the caller waits for that (RFC 9110 section 10.1.1); other expectations are refused."""
    if request.headers["Expect"].lower() != "100-continue":
        return problem_response(Malformed("bad_request", "Expect can only be 100-continue"), secrets.token_hex(8))
    if request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    return None


def _translated(error: web.HTTPException, request: web.Request) -> HengeError:
    path = ascii(request.path)[:120]
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(
            "method_not_allowed", f"{error.method} is not possible here, {allow} is", extra={"allow": allow}
        )
    if isinstance(error, web.HTTPNotFound):
        cure = "see docs/http-api.md; if hengectl asked, it is of another version: hengectl version"
        return NotFound("no_such_route", f"there is nothing at {path}", cure=cure)
    return Internal("internal", f"unexpected answer {error.status}")
