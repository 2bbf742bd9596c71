"""Who may administer from other machines: operators with a certificate, and the end of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from hengd.http import shapes_joining
from hengd.http.edge import Auth, Route, author_of
from hengd.http.parse import Query, name_of, no_body
from hengd.http.views import json_response, moment
from hengd.rules.authority import Authority
from hengd.rules.certificates import Operator


class OperatorRoutes:
    """List and revoke."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route("GET", "/v1/operators", Auth.ADMIN, self.operators, gives={200: shapes_joining.OperatorList})
        yield Route("DELETE", "/v1/operators/{name}", Auth.ADMIN, self.revoke, gives={200: shapes_joining.Ended})

    async def operators(self, request: web.Request) -> web.Response:
        """Who is logged in."""
        no_body(request)
        Query(request)
        items = [_operator_view(operator) for operator in self._authority.operators()]
        return json_response({"kind": "OperatorList", "items": items})

    async def revoke(self, request: web.Request) -> web.Response:
        """End an operator's identity; what waits for him is cut before the answer. Also one's own."""
        no_body(request)
        Query(request)
        name = name_of(request, "operator name")
        await self._authority.revoke_operator(name, author_of(request))
        return json_response({"name": name, "state": "revoked"})


def _operator_view(operator: Operator) -> dict[str, Any]:
    return {
        "name": operator.name, "role": operator.rights, "certificates": operator.certificates,
        "since": moment(operator.since), "expires": moment(operator.expires), "via": operator.via,
    }  # fmt: skip
