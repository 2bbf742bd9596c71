"""The operator's side of joining: tokens, waiting requests, the window."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from hengd.http import shapes, shapes_joining
from hengd.http.edge import Auth, Route, author_of
from hengd.http.parse import Query, json_object, no_body, text_field
from hengd.http.views import device_view, join_view, json_response, moment, token_view
from hengd.rules.devices import Devices
from hengd.rules.joins import Joins
from hengd.rules.tokens import Tokens
from henge_protocol.errors import Invalid
from henge_protocol.model import check_name
from henge_protocol.selector import check_labels


class JoiningRoutes:
    """Who may become known."""

    def __init__(self, tokens: Tokens, joins: Joins, devices: Devices) -> None:
        self._tokens = tokens
        self._joins = joins
        self._devices = devices

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route("GET", "/v1/tokens", Auth.ADMIN, self.tokens, gives={200: shapes_joining.TokenList})
        yield Route(
            "POST",
            "/v1/tokens",
            Auth.ADMIN,
            self.create,
            takes=shapes_joining.TokenBody,
            gives={201: shapes_joining.Token},
        )
        yield Route("DELETE", "/v1/tokens/{id}", Auth.ADMIN, self.revoke, gives={200: shapes_joining.Ended})
        yield Route("GET", "/v1/joins", Auth.VIEWER, self.joins, gives={200: shapes_joining.JoinList})
        yield Route(
            "POST", "/v1/joins/{code}/approve", Auth.ADMIN, self.approve,
            takes=shapes_joining.ApproveBody, body_optional=True, gives={200: shapes.Device},
        )  # fmt: skip
        yield Route("GET", "/v1/join-window", Auth.VIEWER, self.window, gives={200: shapes_joining.Window})
        yield Route(
            "PUT",
            "/v1/join-window",
            Auth.ADMIN,
            self.open,
            takes=shapes_joining.WindowBody,
            gives={200: shapes_joining.Window},
        )

    async def tokens(self, request: web.Request) -> web.Response:
        """What was given out."""
        no_body(request)
        Query(request)
        return json_response({"kind": "TokenList", "items": [token_view(token) for token in self._tokens.list()]})

    async def create(self, request: web.Request) -> web.Response:
        """A new token, shown this once."""
        Query(request)
        wanted = await json_object(request, shapes.fields_of(shapes_joining.TokenBody))
        if wanted.get("kind", "join") not in ("join", "admin"):
            raise Invalid("bad_parameter", "kind is neither join nor admin")
        text, record = await self._tokens.create(wanted, author_of(request))
        return json_response({**token_view(record), "token": text}, status=201)

    async def revoke(self, request: web.Request) -> web.Response:
        """Make a token worthless."""
        no_body(request)
        Query(request)
        await self._tokens.revoke(request.match_info["id"], author_of(request))
        return json_response({"id": request.match_info["id"], "state": "revoked"})

    async def joins(self, request: web.Request) -> web.Response:
        """Who waits."""
        no_body(request)
        Query(request)
        return json_response({"kind": "JoinList", "items": [join_view(one) for one in self._joins.waiting()]})

    async def approve(self, request: web.Request) -> web.Response:
        """Somebody typed the code that a device shows."""
        Query(request)
        body = await json_object(request, shapes.fields_of(shapes_joining.ApproveBody)) if request.can_read_body else {}
        labels, schema = body.get("labels", {}), text_field(body, "schema")
        if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
            raise Invalid("bad_object", "labels is an object of texts")
        check_labels(labels)
        name = await self._joins.approve(
            request.match_info["code"],
            name=text_field(body, "name"),
            schema=check_name(schema, "schema") if schema else "",
            labels=labels,
            by=author_of(request),
        )
        return json_response(device_view(self._devices.view(name)))

    async def window(self, request: web.Request) -> web.Response:
        """Whether devices may ask to join."""
        no_body(request)
        Query(request)
        return self._window()

    async def open(self, request: web.Request) -> web.Response:
        """Open or close the window."""
        Query(request)
        body = await json_object(request, shapes.fields_of(shapes_joining.WindowBody))
        await self._joins.open(body.get("open_s", 600), author_of(request))
        return self._window()

    def _window(self) -> web.Response:
        closes = self._joins.closes
        return json_response({"open": bool(closes), "closes": moment(closes)})
