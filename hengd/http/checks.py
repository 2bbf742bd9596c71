"""Whether devices could run a candidate, asked of the devices themselves."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from aiohttp import web

from hengd.http import shapes, shapes_daemon
from hengd.http.edge import OWNER_QUERY, Auth, Route, author_of, writer_of
from hengd.http.parse import APPLY_LIMITS, Query, json_object
from hengd.http.views import json_response
from hengd.rules.checks import Checks
from hengd.rules.configs import Request
from henge_protocol.errors import Invalid
from henge_protocol.selector import parse_selector


class CheckRoutes:
    """Ask; nothing is changed, here or there."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route(
            "POST", "/v1/check", Auth.EDITOR, self.check,
            query=("selector", *OWNER_QUERY), takes=shapes_daemon.CheckBody, gives={200: shapes_daemon.CheckList},
        )  # fmt: skip

    async def check(self, request: web.Request) -> web.Response:
        """Render what ``apply`` of these objects would, and ask each device whether it could run its document."""
        query = Query(request, "selector", *OWNER_QUERY)
        selector = parse_selector(query.text("selector"))
        body = await json_object(request, shapes.fields_of(shapes_daemon.CheckBody), limits=APPLY_LIMITS)
        objects = body.get("objects", [])
        if not isinstance(objects, list):
            raise Invalid("bad_object", 'the body is {"objects": [...]}')
        wanted = Request(author_of(request), dry_run=True, writer=writer_of(query))
        checked = await self._checks.check(objects, selector, wanted)
        return json_response({"kind": "CheckList", "items": [msgspec.to_builtins(one) for one in checked]})
