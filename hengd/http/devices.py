"""What can be asked of and done to one device beyond its object."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from hengd.http import shapes, shapes_changes, shapes_joining
from hengd.http.edge import WRITE_QUERY, Auth, Route, author_of, change_request
from hengd.http.parse import Query, if_match, json_object, name_of, no_body, text_field
from hengd.http.views import device_view, dry_run_response, explained_response, json_response, token_view
from hengd.rules.authority import Authority
from hengd.rules.configs import Configs
from hengd.rules.devices import Devices
from hengd.rules.reports import Reports
from hengd.rules.tokens import Tokens


class DeviceRoutes:
    """Document, why, revoke, replace, rename, retry."""

    def __init__(
        self, configs: Configs, devices: Devices, authority: Authority, tokens: Tokens, reports: Reports
    ) -> None:
        self._configs = configs
        self._devices = devices
        self._authority = authority
        self._tokens = tokens
        self._reports = reports

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        path = "/v1/devices/{name}"
        yield Route("GET", f"{path}/document", Auth.VIEWER, self.document, gives={200: shapes.DOCUMENT})
        yield Route("GET", f"{path}/why", Auth.VIEWER, self.why, query=("field",), gives={200: shapes.Why})
        for verb, auth, handler in (("revoke", Auth.ADMIN, self.revoke), ("retry", Auth.EDITOR, self.retry)):
            yield Route(
                "POST", f"{path}/{verb}", auth, handler,
                takes=shapes.NoBody, body_optional=True, gives={200: shapes.Device},
            )  # fmt: skip
        yield Route(
            "POST", f"{path}/replace", Auth.ADMIN, self.replace,
            takes=shapes_joining.ReplaceBody, body_optional=True, gives={201: shapes_joining.Token},
        )  # fmt: skip
        yield Route(
            "POST", f"{path}/rename", Auth.EDITOR, self.rename,
            query=(*WRITE_QUERY, "take_over"), headers=("If-Match",), takes=shapes_changes.RenameBody,
            gives={200: (shapes.Device, shapes_changes.Outcome)},
        )  # fmt: skip

    async def document(self, request: web.Request) -> web.Response:
        """What the device gets: its exact bytes, or with references in the place of secrets."""
        no_body(request)
        Query(request)
        rendered = self._configs.document(name_of(request))
        headers = {"ETag": f'"{rendered.digest}"', "Henge-Revision": str(rendered.revision)}
        if rendered.redacted:
            headers["Henge-Redacted"] = "1"
        return web.Response(body=rendered.data, headers=headers, content_type="application/json")

    async def why(self, request: web.Request) -> web.Response:
        """Where each value comes from."""
        no_body(request)
        name = name_of(request)
        return await explained_response(name, await self._configs.why(name, Query(request, "field").text("field")))

    async def revoke(self, request: web.Request) -> web.Response:
        """End the device's identity; its links are closed before the answer."""
        await _empty(request)
        name = name_of(request)
        await self._authority.ends.revoke_device(name, author_of(request))
        return json_response(device_view(self._devices.view(name)))

    async def replace(self, request: web.Request) -> web.Response:
        """Let other hardware take the device's place: a token for its name, and the end of the identity it has."""
        Query(request)
        fields = shapes.fields_of(shapes_joining.ReplaceBody)
        body = await json_object(request, fields) if request.can_read_body else {}
        text, record = await self._tokens.replace(name_of(request), body, author_of(request))
        return json_response({**token_view(record), "token": text}, status=201)

    async def rename(self, request: web.Request) -> web.Response:
        """Give the device another name."""
        match, wanted = if_match(request), change_request(request, "take_over")
        to = text_field(await json_object(request, shapes.fields_of(shapes_changes.RenameBody)), "to", default=None)
        outcome = await self._configs.rename(name_of(request), to, match, wanted)
        if outcome.dry_run:
            return await dry_run_response(outcome)
        return json_response(device_view(self._devices.view(to)))

    async def retry(self, request: web.Request) -> web.Response:
        """Offer a quarantined document again."""
        await _empty(request)
        name = name_of(request)
        await self._reports.retry(name, author_of(request))
        return json_response(device_view(self._devices.view(name)))


async def _empty(request: web.Request) -> None:
    Query(request)
    if request.can_read_body:
        await json_object(request, ())
