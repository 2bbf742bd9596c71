"""The description of the API is the API: parameters, bodies and answers, tried by hand and by schemathesis."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from hengd.http import shapes
from hengd.http.edge import OPERATORS, Auth, Route
from hengd.http.openapi import IN_PATH, IN_QUERY
from henge_protocol.model import is_name, is_secret_name
from tests.hengd.http.conftest import Standing
from tests.hengd.rescuekit import certified, open_window
from tests.service import Admin, Identity, Service, connected, group, schema

EXAMPLE = {"name": "lamp-1", "secret": "wifi/home", "revision": "1", "id": "x", "sid": "x", "code": "00000000"}
OVER_SOCKET = (*OPERATORS, Auth.NONE, Auth.HEALTH, Auth.METRICS)
EXISTING = {"schemas": "lamp", "groups": "kitchen"}
EXAMPLES_EACH = 6
"""Requests for each operation and kind (good, bad): all in all some 600, about fifteen seconds."""

STATEFUL = {"use_after_free", "ensure_resource_availability", "ignored_auth", "object_level_authorization"}
OURS_TO_JUDGE = {"positive_data_acceptance"}
"""A good form can still name a schema that is not there, a stale version or a taken name."""
JUDGED = [check for check in CHECKS.get_all() if check.__name__ not in STATEFUL | OURS_TO_JUDGE]


def path_of(route: Route) -> str:
    return re.sub(r"{(\w+)}", lambda match: EXAMPLE[match[1]], route.path)


def body_for(route: Route, **fields: Any) -> Any:
    return fields if route.takes is not None else None


@pytest.fixture
async def lamp(daemon: Service, admin: Admin) -> Identity:
    """A device that joined, so that its own routes can be asked."""
    await admin.apply(schema(), group("kitchen", "room=kitchen", brightness=5))
    return await daemon.join(admin, "lamp-1", schema="lamp")


async def test_the_description_is_served_and_says_of_itself_that_it_is(daemon: Service, admin: Admin) -> None:
    document = await admin.ok("GET", "/v1/openapi.json")

    assert document == daemon.contract.document
    assert document["openapi"] == "3.1.0"
    assert "/v1/openapi.json" in document["paths"]


async def test_every_route_is_described_with_a_sentence_and_an_answer(daemon: Service) -> None:
    paths = daemon.contract.document["paths"]
    operations = [paths[route.path][route.method.lower()] for route in daemon.app.routes]

    assert sum(len(item) for item in paths.values()) == len(daemon.app.routes) + len(["the link of a device"])
    assert [one["operationId"] for one in operations if not one["summary"]] == []
    assert [route.path for route in daemon.app.routes if not route.gives] == []
    assert len({one["operationId"] for one in operations}) == len(operations)


async def test_the_link_of_a_device_is_described_although_it_is_no_route(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    described = (await admin.ok("GET", "/v1/openapi.json"))["paths"]["/v1/device/stream"]["get"]
    assert (set(described["responses"]), described["security"]) == ({"101", "4XX", "503"}, [{"certificate": []}])

    async with connected(daemon, lamp):
        pass
    async with daemon.remote(lamp) as remote:
        await remote.refused("GET", "/v1/device/stream")


async def test_every_described_parameter_is_used(daemon: Service) -> None:
    routes = daemon.app.routes

    assert set(IN_QUERY) == {name for route in routes for name in route.query}
    assert set(IN_PATH) == {name for route in routes for name in re.findall(r"{(\w+)}", route.path)}


async def test_a_route_takes_the_query_parameters_that_it_declares_and_no_other(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    declared, taken = {}, {}
    await open_window(admin)
    async with daemon.remote(lamp) as remote, daemon.remote(certified(daemon, "stray")) as stray:
        for route in daemon.app.routes:
            client = {Auth.RESCUE: stray}.get(route.auth, admin if route.auth in OVER_SOCKET else remote)
            answer = await client.refused(route.method, f"{path_of(route)}?zz=1", body_for(route))
            known = answer.json["detail"].partition("known are ")[2]
            declared[route.method, route.path] = (answer.code, sorted(route.query))
            taken[route.method, route.path] = (
                "unknown_parameter",
                [] if known == "none" else sorted(known.split(", ")),
            )

    assert taken == declared


async def test_a_body_takes_the_fields_that_its_shape_has_and_no_other(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    declared, taken = {}, {}
    await open_window(admin)
    async with daemon.remote(lamp) as remote, daemon.remote(certified(daemon, "stray")) as stray:
        for route in daemon.app.routes:
            if not (isinstance(route.takes, type) and issubclass(route.takes, shapes.Shape)):
                continue
            client = {Auth.RESCUE: stray}.get(route.auth, admin if route.auth in OVER_SOCKET else remote)
            headers = {"If-Match": "*"} if "If-Match" in route.headers else {}
            answer = await client.refused(route.method, path_of(route), body_for(route, zz=1), headers=headers)
            declared[route.method, route.path] = sorted(shapes.fields_of(route.takes))
            known = re.search(r"known are ([\w, ]*)", str(answer.json))
            taken[route.method, route.path] = (
                sorted(known[1].strip().split(", ")) if known and known[1] else [answer.code]
            )

    assert taken == {key: fields or ["unknown_field"] for key, fields in declared.items()}


async def test_a_route_looks_at_if_match_where_it_says_so(daemon: Service, admin: Admin, lamp: Identity) -> None:
    for route in [one for one in daemon.app.routes if "If-Match" in one.headers]:
        body = body_for(route, to=0) if route.path == "/v1/rollback" else body_for(route)
        answer = await admin.refused(route.method, path_of(route), body, headers={"If-Match": "nonsense"})

        assert answer.code == "bad_parameter", route


@pytest.mark.parametrize("name", ["wifi/home-5g", "mqtt.ca", "a_b", "x", "a/b/c", "a" * 63])
async def test_the_name_of_a_secret_is_described_as_it_is_taken(daemon: Service, admin: Admin, name: str) -> None:
    await admin.ok("PUT", f"/v1/secrets/{name}", {"value": "x"})

    assert re.search(IN_PATH["secret"]["pattern"], name)


@pytest.mark.parametrize("name", ["a//b", "A", "a/", "-a", "a/.b", "a" * 64])
async def test_what_is_no_name_of_a_secret_is_not_described_as_one(daemon: Service, admin: Admin, name: str) -> None:
    await admin.refused("PUT", f"/v1/secrets/{name}", {"value": "x"})

    assert not re.search(IN_PATH["secret"]["pattern"], name)


@given(st.text("ab-._/9A", max_size=8))
def test_names_are_described_as_they_are_judged(text: str) -> None:
    assert bool(re.search(IN_PATH["name"]["pattern"], text)) == is_name(text)
    assert bool(re.search(IN_PATH["secret"]["pattern"], text)) == is_secret_name(text)


async def test_a_manifest_has_the_kinds_that_are_described_and_no_other(daemon: Service, admin: Admin) -> None:
    schemas = (await admin.ok("GET", "/v1/openapi.json"))["components"]["schemas"]
    for kind in get_args(shapes.Kind):
        made = await admin.call("POST", "/v1/apply", {"objects": [{"kind": kind, "metadata": {"name": "Bad"}}]})
        gone = await admin.call("POST", "/v1/apply", {"delete": [{"kind": kind, "name": "Bad"}]})

        is_taken = kind in schemas["Deletion"]["properties"]["kind"]["enum"]
        assert schemas["ObjectBody"]["properties"]["kind"] == schemas["Deletion"]["properties"]["kind"]
        assert (made.code, gone.code) == (("bad_name",) * 2 if is_taken else ("unknown_kind",) * 2)


async def test_the_first_revision_of_a_difference_is_described_as_it_is_taken(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema())
    await admin.ok("GET", "/v1/revisions/0/diff")

    assert IN_PATH["revision"]["minimum"] == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_body_that_a_route_does_not_declare_is_refused(standing: Standing) -> None:
    routes = [route for route in standing.service.app.routes if route.takes is None and route.auth in OVER_SOCKET]
    codes = {
        (route.method, route.path): (await standing.admin.refused(route.method, path_of(route), {})).code
        for route in routes
    }

    assert len(routes) > 20
    assert set(codes.values()) == {"body_refused"}, codes


# ---- schemathesis ------------------------------------------------------------------------------------------


class SocketConnection(HTTPConnection):
    """HTTP through the admin socket."""

    def __init__(self, socket_path: str) -> None:
        super().__init__("henge")
        self._socket_path = socket_path

    def _new_conn(self) -> Any:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(20)
        sock.connect(self._socket_path)
        return sock


class Through(HTTPAdapter):
    """Sends every request through one pool."""

    def __init__(self, pool: HTTPConnectionPool) -> None:
        self._pool = pool
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """The pool's own context verifies."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return request.path_url


def socket_pool(service: Service) -> HTTPConnectionPool:
    pool = HTTPConnectionPool("henge")
    pool._new_conn = lambda: SocketConnection(str(service.socket))  # type: ignore[method-assign]
    return pool


def tls_pool(service: Service, identity: Identity) -> HTTPConnectionPool:
    context: ssl.SSLContext = service.context(identity)
    return HTTPSConnectionPool(
        "127.0.0.1", service.port, ssl_context=context, cert_reqs="CERT_REQUIRED",
        server_hostname=service.server_name, assert_hostname=service.server_name,
    )  # fmt: skip


@contextmanager
def session_through(pool: HTTPConnectionPool) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", Through(pool))
        yield session
    pool.close()


def try_operation(operation: Any, mode: GenerationMode, session: requests.Session, tried: list[int]) -> None:
    """Some requests of one kind to one operation; every answer is held against the description."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES_EACH, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def attempt(case: Any) -> None:
        if isinstance(case.query, dict) and "wait" in case.query:
            case.query["wait"] = 0
        if mode is GenerationMode.POSITIVE and len(tried) % 2 and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = EXISTING.get(operation.path.split("/")[2], "lamp-1")
        response = case.call(base_url="http://henge", session=session, timeout=20)
        tried.append(response.status_code)
        case.validate_response(response, checks=JUDGED)

    attempt()


def explore(document: dict[str, Any], session: requests.Session, wanted: Callable[[str, str], bool]) -> list[int]:
    """Good and bad requests to every wanted operation; the statuses that came back."""
    tried: list[int] = []
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        if not wanted(operation.method, operation.path):
            continue
        try_operation(operation, GenerationMode.POSITIVE, session, tried)
        if operation.body or any(True for _ in operation.iter_parameters()):
            try_operation(operation, GenerationMode.NEGATIVE, session, tried)
    return tried


async def test_no_request_makes_the_daemon_fail_or_answer_what_it_does_not_declare(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    document = await admin.ok("GET", "/v1/openapi.json")
    over_socket = {(route.method, route.path) for route in daemon.app.routes if route.auth in OVER_SOCKET}
    with session_through(socket_pool(daemon)) as session:
        tried = await asyncio.to_thread(
            explore, document, session, lambda method, path: (method.upper(), path) in over_socket
        )

    assert len(tried) > 400
    assert {status // 100 for status in tried} == {2, 4}
    assert (await admin.ok("GET", "/v1/status"))["warnings"] == []


async def test_no_stranger_and_no_device_makes_the_daemon_fail(daemon: Service, admin: Admin, lamp: Identity) -> None:
    document = await admin.ok("GET", "/v1/openapi.json")
    over_tls = {(route.method, route.path) for route in daemon.app.routes if route.auth not in OVER_SOCKET}
    with session_through(tls_pool(daemon, lamp)) as session:
        tried = await asyncio.to_thread(
            explore, document, session, lambda method, path: (method.upper(), path) in over_tls
        )

    assert len(tried) > 50
    assert {status for status in tried if status >= 500} == set()
