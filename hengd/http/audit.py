"""The audit chain: who changed, let in and threw out what."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from aiohttp import web

from hengd.http import shapes_daemon
from hengd.http.edge import Auth, Route
from hengd.http.parse import Query, no_body
from hengd.http.views import json_response
from hengd.rules.audit import Audit
from henge_protocol.model import MAX_LISTED


class AuditRoutes:
    """Read it; nobody can write into it."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route(
            "GET", "/v1/audit", Auth.ADMIN, self.audit,
            query=("since", "limit"), gives={200: shapes_daemon.AuditList},
        )  # fmt: skip

    async def audit(self, request: web.Request) -> web.Response:
        """Records after a number, or the newest, with the ends of the chain."""
        no_body(request)
        query = Query(request, "since", "limit")
        since = query.number("since", 0) if query.has("since") else None
        anchor, head, records = self._audit.read(since, query.number("limit", 100, least=1, most=MAX_LISTED))
        return json_response(
            {
                "kind": "AuditList",
                "anchor": {"number": anchor.number, "digest": anchor.digest},
                "head": {"number": head.number, "digest": head.digest},
                "items": [msgspec.to_builtins(record) for record in records],
            }
        )
