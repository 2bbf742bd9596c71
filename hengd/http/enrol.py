"""How a stranger becomes known: trust, tokens, join requests, renewal, login."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from hengd.http import shapes, shapes_joining
from hengd.http.edge import CALLER, PEER, Auth, Route
from hengd.http.parse import (
    MAX_WAIT_S,
    Query,
    base64_field,
    facts_field,
    flag_field,
    hex_field,
    json_object,
    no_body,
    text_field,
)
from hengd.http.views import json_response
from hengd.rules.authority import Authority
from hengd.rules.enrolment import is_board
from hengd.rules.joins import Joins
from hengd.rules.tokens import Tokens
from henge_protocol.errors import Unauthenticated
from henge_protocol.trust import Trust, trust_answer

MAX_ENROL_BYTES = 32 * 1024


class EnrolRoutes:
    """The device's and the new operator's side of joining."""

    def __init__(self, authority: Authority, tokens: Tokens, joins: Joins) -> None:
        self._authority = authority
        self._tokens = tokens
        self._joins = joins

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route("GET", "/v1/trust", Auth.NONE, self.trust, gives={200: shapes_joining.Trust})
        yield Route(
            "POST",
            "/v1/enrol",
            Auth.ENROL,
            self.enrol,
            takes=shapes_joining.EnrolBody,
            gives={201: shapes_joining.Identity},
        )
        yield Route(
            "POST",
            "/v1/enrol/begin",
            Auth.ENROL,
            self.begin,
            takes=shapes_joining.BeginBody,
            gives={201: shapes_joining.Begun},
        )
        yield Route(
            "POST",
            "/v1/enrol/reveal",
            Auth.ENROL,
            self.reveal,
            takes=shapes_joining.RevealBody,
            gives={200: shapes_joining.State},
        )
        yield Route(
            "GET", "/v1/enrol/{sid}", Auth.ENROL, self.wait,
            query=("wait",), gives={200: shapes_joining.Identity, 202: shapes_joining.State},
        )  # fmt: skip
        yield Route(
            "POST", "/v1/enrol/{sid}/answer", Auth.ENROL, self.answer,
            takes=shapes_joining.AnswerBody, gives={200: shapes_joining.State},
        )  # fmt: skip
        yield Route(
            "POST", "/v1/renew", Auth.DEVICE_EXPIRED, self.renew,
            takes=shapes_joining.RenewBody, gives={200: shapes_joining.Identity},
        )  # fmt: skip
        yield Route(
            "POST",
            "/v1/login",
            Auth.ENROL,
            self.login,
            takes=shapes_joining.LoginBody,
            gives={201: shapes_joining.Identity},
        )

    async def trust(self, request: web.Request) -> web.Response:
        """The certificate to compare with the pin; no secret crosses this connection."""
        no_body(request)
        Query(request)
        body = trust_answer(Trust(self._authority.fleet, self._authority.server_cas))
        return web.Response(body=body, content_type="application/json")

    async def enrol(self, request: web.Request) -> web.Response:
        """A token for an identity."""
        body = await _body(request, shapes_joining.EnrolBody)
        facts = facts_field(body)
        identity = await self._tokens.enrol(
            text_field(body, "token_id", default=None),
            text_field(body, "secret", default=None),
            base64_field(body, "csr"),
            text_field(body, "name", default=None),
            address=request[PEER].address,
            board=is_board(text_field(body, "client")),
            wish=facts.get("schema"),
        )
        return json_response(identity, status=201)

    async def begin(self, request: web.Request) -> web.Response:
        """The device commits to its key."""
        body = await _body(request, shapes_joining.BeginBody)
        pending = self._joins.begin(
            hex_field(body, "commit", 32),
            text_field(body, "name", default=None),
            _plain(text_field(body, "client", max_chars=64)),
            {
                _plain(key): _plain(value) if isinstance(value, str) else value
                for key, value in facts_field(body).items()
            },
            request[PEER].address,
        )
        expires_in_s = int(pending.expires - pending.asked)
        return json_response(
            {
                "sid": pending.sid,
                "nonce": pending.nonce.hex(),
                "fleet": self._authority.fleet,
                "expires_in_s": expires_in_s,
            },
            status=201,
        )

    async def reveal(self, request: web.Request) -> web.Response:
        """The device shows what it committed to; from here on both sides know the code."""
        body = await _body(request, shapes_joining.RevealBody)
        self._joins.reveal(
            text_field(body, "sid", default=None), hex_field(body, "nonce", 32), base64_field(body, "csr")
        )
        return json_response({"state": "waiting"})

    async def wait(self, request: web.Request) -> web.Response:
        """The identity, once a person approved."""
        no_body(request)
        wait_s = Query(request, "wait").number("wait", 0, most=MAX_WAIT_S)
        identity = await self._joins.wait(request.match_info["sid"], wait_s)
        return json_response({"state": "waiting"}, status=202) if identity is None else json_response(identity)

    async def answer(self, request: web.Request) -> web.Response:
        """The person at the device compared the codes."""
        body = await _body(request, shapes_joining.AnswerBody)
        is_accepted = flag_field(body, "accept", default=None)
        if not is_accepted:
            await self._joins.reject(request.match_info["sid"])
        return json_response({"state": "accepted" if is_accepted else "void"})

    async def renew(self, request: web.Request) -> web.Response:
        """A new certificate for the identity that is shown."""
        body = await _body(request, shapes_joining.RenewBody)
        shown = request[PEER].certificate
        if shown is None:
            raise Unauthenticated("certificate_required", "show the certificate that is to be renewed")
        csr = base64_field(body, "csr") if "csr" in body else None
        board = is_board(text_field(body, "client"))
        return json_response(
            await self._authority.renew(request[CALLER], shown, csr, board=board, origin=f"tls {request[PEER].address}")
        )

    async def login(self, request: web.Request) -> web.Response:
        """An admin token for an operator's identity."""
        body = await _body(request, shapes_joining.LoginBody)
        identity = await self._tokens.log_in(
            text_field(body, "token_id", default=None),
            text_field(body, "secret", default=None),
            base64_field(body, "csr"),
            text_field(body, "name", default=None),
            address=request[PEER].address,
        )
        return json_response(identity, status=201)


async def _body(request: web.Request, shape: type[shapes.Shape]) -> dict[str, Any]:
    Query(request)
    return await json_object(request, shapes.fields_of(shape), max_bytes=MAX_ENROL_BYTES)


def _plain(text: str) -> str:
    """A stranger's text without what could move a terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
