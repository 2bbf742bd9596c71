"""Secrets: values go in and do not come out; everything else about them can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from hengd.http import shapes, shapes_changes, shapes_secrets
from hengd.http.edge import WRITE_QUERY, Auth, Route, change_request
from hengd.http.parse import Query, if_match, json_object, no_body
from hengd.http.views import dry_run_response, json_response, object_response, object_view
from hengd.rules.secrets import Secrets, SecretView
from henge_protocol.errors import Invalid
from henge_protocol.model import check_secret_name

MAX_SECRET_BODY_BYTES = 64 * 1024


class SecretRoutes:
    """List, show, set, delete."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def table(self) -> Iterator[Route]:
        """The routes of this resource; names have slashes in them."""
        yield Route("GET", "/v1/secrets", Auth.VIEWER, self.all, gives={200: shapes_secrets.SecretList})
        path = "/v1/secrets/{secret}"
        yield Route("GET", path, Auth.VIEWER, self.show, gives={200: shapes_secrets.Secret})
        yield Route(
            "PUT", path, Auth.EDITOR, self.put, query=WRITE_QUERY, headers=("If-Match",),
            takes=shapes_secrets.SecretBody,
            gives={200: (shapes_secrets.Secret, shapes_changes.Outcome), 201: shapes_secrets.Secret},
        )  # fmt: skip
        yield Route(
            "DELETE", path, Auth.EDITOR, self.delete, query=WRITE_QUERY, headers=("If-Match",),
            gives={200: (shapes_secrets.Secret, shapes_changes.Outcome)},
        )  # fmt: skip

    async def all(self, request: web.Request) -> web.Response:
        """Every secret, without its value."""
        no_body(request)
        Query(request)
        return json_response({"kind": "SecretList", "items": [_view(one) for one in self._secrets.list()]})

    async def show(self, request: web.Request) -> web.Response:
        """One secret, without its value."""
        no_body(request)
        Query(request)
        return self._answer(_name(request))

    async def put(self, request: web.Request) -> web.Response:
        """Give a secret a value; the answer does not repeat it."""
        name, match, wanted = _name(request), if_match(request), change_request(request)
        body = await json_object(request, shapes.fields_of(shapes_secrets.SecretBody), max_bytes=MAX_SECRET_BODY_BYTES)
        if "value" not in body:
            raise Invalid("bad_object", 'the body is {"value": ...}')
        outcome = await self._secrets.put(name, body["value"], match, wanted)
        if outcome.dry_run:
            return await dry_run_response(outcome)
        created = any(done.action == "created" for done in outcome.objects)
        return self._answer(name, status=201 if created else 200)

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a secret that nobody refers to."""
        no_body(request)
        name, match, wanted = _name(request), if_match(request), change_request(request)
        gone = self._answer(name)
        outcome = await self._secrets.delete(name, match, wanted)
        gone.headers["Henge-Revision"] = str(outcome.revision)
        return await dry_run_response(outcome) if outcome.dry_run else gone

    def _answer(self, name: str, *, status: int = 200) -> web.Response:
        found = self._secrets.view(name)
        return object_response(found.record, found.epoch, view=_view(found), status=status)


def _view(found: SecretView) -> dict[str, Any]:
    return object_view(found.record, {"used_by": list(found.users)})


def _name(request: web.Request) -> str:
    return check_secret_name(request.match_info["secret"])
