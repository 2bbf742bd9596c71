"""``GET /v1/openapi.json``: OpenAPI 3.1 made from what each route declares, so that it cannot drift."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import msgspec
from aiohttp import web

from hengd.http import shapes
from hengd.http.edge import OPERATORS, Auth, Route
from hengd.http.head import STREAM_PATH
from hengd.http.parse import MAX_WAIT_S, Query, no_body
from hengd.http.views import json_response
from henge_protocol.model import (
    MAX_LISTED,
    MAX_NAME_CHARS,
    MAX_SECRET_NAME_CHARS,
    NAME_PATTERN,
    SECRET_NAME_PATTERN,
    VERSION_TAG_PATTERN,
)  # fmt: skip

MAX_PARAMETER: Final = 10**15
_NAME: Final = {"type": "string", "pattern": f"^{NAME_PATTERN}$", "maxLength": MAX_NAME_CHARS}
_TEXT: Final = {"type": "string", "maxLength": 1024}
_FLAG: Final = {"type": "string", "enum": ["", "0", "1", "true", "false"]}


def _number(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


IN_PATH: Final[dict[str, dict[str, Any]]] = {
    "name": _NAME,
    "secret": {"type": "string", "pattern": f"^{SECRET_NAME_PATTERN}$", "maxLength": MAX_SECRET_NAME_CHARS},
    "id": _TEXT,
    "sid": _TEXT,
    "code": _TEXT,
    "revision": _number(0, MAX_PARAMETER - 1),
}
IN_QUERY: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "all_at_once": ("yes, as wide as it is", _FLAG),
    "before": ("only revisions below this one", _number(0, MAX_PARAMETER)),
    "continue": ("go on after the list that gave this", _NAME),
    "diff": ("with the fields that each of them changed", _FLAG),
    "dry_run": ("do everything but keep it", _FLAG),
    "expect": ("same-documents: refuse if any device would get another document", {"enum": ["", "same-documents"]}),
    "field": ("one field, such as wifi.ssid", _TEXT),
    "have": ("digest that the device runs; empty: none", {"type": "string", "pattern": "^([0-9a-f]{64})?$"}),
    "limit": ("how many at most", _number(1, MAX_LISTED)),
    "message": ("kept in the history", {"type": "string", "maxLength": 1000}),
    "object": ("one object, such as device/lamp-1", _TEXT),
    "prune": ("delete what belongs to the set and is not among the objects", _FLAG),
    "selector": ("label selector, such as room=kitchen,!spare", _TEXT),
    "set": ("the apply-set for which this is done; empty: by hand", {**_NAME, "pattern": f"^$|{_NAME['pattern']}"}),
    "since": ("what came after this number", _number(0, MAX_PARAMETER)),
    "take_over": ("yes, also what belongs to an apply-set", _FLAG),
    "to": ("the newer revision; without: the newest", _number(0, MAX_PARAMETER)),
    "wait": ("seconds to wait for something new", _number(0, MAX_WAIT_S)),
}
"""Every query parameter of the API: one name has one meaning, whatever the route."""

IN_HEADER: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "If-Match": (
        "the version that this change is for, or *",
        {"type": "string", "pattern": rf"^(\*|{VERSION_TAG_PATTERN})$"},
    ),
    "Last-Event-ID": ("of a stream of events: what came after this number", _number(0, MAX_PARAMETER - 1)),
}
_FAILURES: Final = {
    "500": "The daemon failed; its log has the details under the request's id.",
    "503": "The daemon is stopping.",
    "507": "Its disk is full.",
}
_WHO: Final = {
    Auth.HEALTH: "Anybody on this machine.",
    Auth.NONE: "Anybody.",
    Auth.ENROL: "Anybody who holds a token or asks to join.",
    Auth.RESCUE: "Whoever shows a certificate of a device that the store does not know, while the window is open.",
    Auth.DEVICE: "A device, by its certificate.",
    Auth.DEVICE_EXPIRED: "Whoever shows a certificate, also one that has expired lately.",
    Auth.VIEWER: "Operators of every role, by certificate or over the admin socket.",
    Auth.EDITOR: "Operators with the role editor or admin.",
    Auth.ADMIN: "Operators with the role admin.",
    Auth.METRICS: "Operators of every role; on the local port anybody on this machine.",
}


class OpenApiRoutes:
    """The description of the routes that are served, itself included."""

    def __init__(self, routes: Callable[[], Sequence[Route]], version: str) -> None:
        self._routes = routes
        self._version = version

    def table(self) -> Iterator[Route]:
        """The routes of this resource."""
        yield Route("GET", "/v1/openapi.json", Auth.VIEWER, self.show, gives={200: dict[str, Any]})

    async def show(self, request: web.Request) -> web.Response:
        """This description (OpenAPI 3.1)."""
        no_body(request)
        Query(request)
        return json_response(self._document)

    @cached_property
    def _document(self) -> dict[str, Any]:
        """Made when somebody asks first: the table is complete by then."""
        return openapi(self._routes(), self._version)


def openapi(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The document for these routes; ``KeyError`` for a parameter that nobody described."""
    types = _types(routes)
    found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(map(repr, types), found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    paths[STREAM_PATH] = {"get": _stream(schemas)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "henge",
            "version": version,
            "description": "Desired configuration of a fleet of small devices. Prose: docs/http-api.md",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"certificate": {"type": "mutualTLS"}}},
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    """Every type that a route takes or gives, once."""
    found: dict[str, Any] = {repr(shapes.Problem): shapes.Problem}
    for route in routes:
        given = [one for answer in route.gives.values() for one in _each(answer)]
        for one in [route.takes, *given]:
            if one is not None and not isinstance(one, (shapes.Media, str)):
                found[repr(one)] = one
    return list(found.values())


def _each(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    summary = (inspect.getdoc(route.handler) or "").partition("\n")[0].rstrip(".")
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": summary,
        "description": _WHO[route.auth],
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
    }
    if route.auth in (Auth.DEVICE, Auth.DEVICE_EXPIRED, Auth.METRICS, *OPERATORS):
        by_device = route.auth in (Auth.DEVICE, Auth.DEVICE_EXPIRED)
        operation["security"] = [{"certificate": []}] if by_device else [{}, {"certificate": []}]
    if route.takes is not None:
        operation["requestBody"] = _body(route, schemas)
    return operation


def _stream(schemas: dict[str, Any]) -> dict[str, Any]:
    """The link of a device: no route, because it is taken over before a request is made of it (``dispatch``)."""
    responses = {
        "101": {"description": shapes.DEVICE_SOCKET},
        "4XX": {"description": "Refused.", "content": _problem(schemas)},
        "503": {"description": _FAILURES["503"], "content": _problem(schemas)},
    }
    return {
        "operationId": "get_device_stream",
        "summary": "The live link of a device",
        "description": _WHO[Auth.DEVICE],
        "parameters": [],
        "responses": responses,
        "security": [{"certificate": []}],
    }


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", route.path.lower().removeprefix("/v1/")).strip("_")
    return f"{route.method.lower()}_{words}"


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": IN_PATH[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    for name in route.query:
        description, schema = IN_QUERY[name]
        found.append({"name": name, "in": "query", "description": description, "schema": schema})
    for name in route.headers:
        description, schema = IN_HEADER[name]
        found.append({"name": name, "in": "header", "description": description, "schema": schema})
    return found


def _body(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(route.takes, shapes.Media):
        content: dict[str, Any] = {route.takes.type: {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": schemas[repr(route.takes)]}}
    return {"required": not route.body_optional, "content": content}


def _responses(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    problem = _problem(schemas)
    responses: dict[str, Any] = {str(status): _response(answer, schemas) for status, answer in route.gives.items()}
    responses["4XX"] = {"description": "Refused; nothing was changed.", "content": problem}
    for status, meaning in _FAILURES.items():
        responses.setdefault(status, {"description": meaning, "content": problem})
    return responses


def _problem(schemas: dict[str, Any]) -> dict[str, Any]:
    return {"application/problem+json": {"schema": schemas[repr(shapes.Problem)]}}


def _response(answer: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if answer is None:
        return {"description": "Nothing new."}
    if isinstance(answer, str):
        return {"description": answer}
    media = [one for one in _each(answer) if isinstance(one, shapes.Media)]
    said = [schemas[repr(one)] for one in _each(answer) if one not in media]
    content: dict[str, Any] = {
        one.type: {"schema": {} if one.type == "application/json" else {"type": "string"}} for one in media
    }
    if said:
        schema: Any = said[0] if len(said) == 1 else {"anyOf": said}
        content["application/json"] = {"schema": schema}
    return {"description": "; ".join(one.description for one in media) or "Done.", "content": content}
