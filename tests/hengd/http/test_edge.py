"""Who may call what (S1, S10, R05 to R26, R53 to R55): every route, every kind of caller, a rule written by hand."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from hengd.http.edge import OPERATORS, Auth, Edge, Route
from hengd.rules.authority import NOBODY
from hengd.rules.issuing import BOARD_LIFETIME_S
from hengd.rules.outcome import Author
from henge_protocol import pki
from henge_protocol.errors import CODES
from henge_protocol.joining import parse_token
from tests.hengd.http.conftest import Standing
from tests.hengd.http.raw import exchange, request
from tests.hengd.rescuekit import certified, open_window
from tests.service import Admin, Answer, Clock, Identity, Service, device, enrolment, schema, verify_store

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADA = Author("ada", "test", may_end_identities=True)
THROUGH = "through"
PEOPLE = ("viewer", "editor", "admin")
"""From the one who may least."""
CALLERS = (
    "none", "active", "issued", "expired", "long-expired", "revoked", "superseded", "unknown", "deleted", "viewer",
    "editor", "admin", "admin-expired", "socket", "local",
)  # fmt: skip

REFUSED = {
    "none": (401, "certificate_required"),
    "expired": (401, "certificate_expired"),
    "long-expired": (401, "certificate_expired"),
    "admin-expired": (401, "certificate_expired"),
    "revoked": (403, "certificate_revoked"),
    "superseded": (403, "certificate_superseded"),
    "unknown": (403, "unknown_certificate"),
    "deleted": (403, "certificate_revoked"),
}


def expected(auth: Auth, caller: str) -> tuple[int, str] | str:
    """The rule: what a caller gets at a route."""
    if auth is Auth.METRICS and caller != "local":
        auth = Auth.VIEWER
    if caller in ("socket", "local") or auth is Auth.HEALTH:
        served = {
            Auth.HEALTH: ("socket", "local"),
            Auth.METRICS: ("local",),
            Auth.NONE: ("socket",),
            **dict.fromkeys(OPERATORS, ("socket",)),
        }.get(auth, ())
        return THROUGH if caller in served else (404, "not_implemented_here")
    if auth in (Auth.NONE, Auth.ENROL):
        return THROUGH
    if auth is Auth.RESCUE:  # for those alone that are unknown, once a person wants it
        refused = {caller: REFUSED[caller] for caller in ("none", "revoked", "superseded", "deleted")}
        return {**refused, "unknown": (403, "rescue_closed")}.get(caller, (409, "exists"))
    if auth is Auth.DEVICE_EXPIRED and caller in (
        "active",
        "issued",
        "expired",
        "long-expired",
        *PEOPLE,
        "admin-expired",
    ):
        return THROUGH
    if caller in REFUSED:
        return REFUSED[caller]
    if auth is Auth.DEVICE_EXPIRED or (auth is Auth.DEVICE and caller not in PEOPLE):
        return THROUGH
    if auth in OPERATORS and caller in PEOPLE[OPERATORS.index(auth) :]:
        return THROUGH
    return (403, "wrong_role")


@dataclass
class Fleet:
    """A daemon, one client per kind of caller, and the clock that makes some of them old."""

    service: Service
    clients: dict[str, Admin]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """All callers, made by the real protocol: joined, used, renewed, revoked, deleted, forged; then 300 days pass."""
    clock, folder = Clock(), tmp_path_factory.mktemp("fleet") / "state"
    service = Service(folder, clock)
    await service.start()
    try:
        async with AsyncExitStack() as stack:
            admin = await stack.enter_async_context(service.admin())
            await admin.apply(schema(), device("lamp-1"))
            identities = await every_identity(service, admin, clock)
            clients = {"socket": admin, "none": await stack.enter_async_context(service.remote())}
            for caller, identity in identities.items():
                clients[caller] = await stack.enter_async_context(service.remote(identity))
            clients["local"] = await stack.enter_async_context(local_port(service))
            yield Fleet(service, clients)
    finally:
        await service.stop()
        service.clean()
    verify_store(folder)


@asynccontextmanager
async def local_port(service: Service) -> AsyncIterator[Admin]:
    """Anybody at the plain port."""
    async with aiohttp.ClientSession(service.local_url) as session:
        yield Admin(session)


async def every_identity(service: Service, admin: Admin, clock: Clock) -> dict[str, Identity]:
    """A client certificate of every state; 300 days pass meanwhile."""
    found = {"long-expired": await service.join(admin, "drawer")}
    await use(service, found["long-expired"])
    clock.advance(150 * pki.DAY_S)
    found["expired"] = await service.join(admin, "shelf")
    found["admin-expired"] = await log_in(service, admin, "old-ada")
    for one in ("expired", "admin-expired"):
        await use(service, found[one])
    clock.advance(150 * pki.DAY_S)
    for caller in ("active", "issued", "revoked", "superseded", "deleted"):
        found[caller] = await service.join(admin, caller)
        if caller != "issued":
            await use(service, found[caller])
    found["admin"] = await log_in(service, admin, "ada")
    for role in ("viewer", "editor"):
        found[role] = await log_in(service, admin, role, role=role)
    async with service.remote(found["superseded"]) as old:
        await use(service, renewed(found["superseded"], await old.ok("POST", "/v1/renew", {})))
    await admin.ok("POST", "/v1/devices/revoked/revoke")
    await admin.ok("DELETE", "/v1/devices/deleted")
    found["unknown"] = forged(service, found["active"], clock.wall())
    return found


def renewed(identity: Identity, answer: dict[str, Any]) -> Identity:
    """The identity with the certificate of an answer and the same key."""
    return Identity(identity.name, identity.id, base64.b64decode(answer["certificate"]), identity.key)


async def use(service: Service, identity: Identity) -> None:
    """Show a certificate once, whatever comes of it: its first use makes it active."""
    async with service.remote(identity) as client:
        await client.call("GET", "/v1/device/config")


async def log_in(service: Service, admin: Admin, name: str, **token: Any) -> Identity:
    """An operator on another machine, by a real token."""
    made = await admin.ok("POST", "/v1/tokens", {"kind": "admin", **token})
    key = pki.generate_key()
    async with service.remote() as stranger:
        answer = await stranger.ok("POST", "/v1/login", enrolment(made["token"], key, name))
    return renewed(Identity(name, name, b"", key), answer)


def forged(service: Service, victim: Identity, now: float, *, role: Any = "device", subject: str = "") -> Identity:
    """A certificate that chains to our client authority, made with its real key behind the daemon's back (S10)."""
    key = pki.generate_key()
    der = pki.issue_client(
        service.app._folder.authorities.client,
        pki.key_spki_der(key),
        fleet_id=service.app.authority.fleet,
        role=role,
        subject=subject or victim.id,
        now=now,
        lifetime_s=BOARD_LIFETIME_S,
    )
    return Identity(victim.name, victim.id, der, key)


def is_problem(answer: Answer) -> bool:
    """Whether an answer is a complete problem document."""
    body = answer.json
    return (
        answer.headers["Content-Type"].startswith("application/problem+json")
        and body["status"] == answer.status
        and body["code"] in CODES
        and body["type"] == f"urn:henge:error:{body['code']}"
        and bool(body["title"] and body["detail"])
        and len(body["detail"]) <= 600
        and body["request_id"] == answer.headers["Henge-Request-Id"]
    )


def targets(service: Service) -> list[tuple[str, str, Auth]]:
    """Every route with values for its placeholders that name nothing."""
    fill = {
        "name": "nobody-here",
        "secret": "no/body",
        "id": "zzzzzzzz",
        "sid": "0" * 32,
        "code": "00000000",
        "revision": "999999",
    }
    found = []
    for route in service.app.routes:
        path = route.path
        for key, value in fill.items():
            path = path.replace(f"{{{key}}}", value)
        assert "{" not in path, route
        found.append((route.method, path, route.auth))
    return found


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_route_answers_every_caller_by_the_rule_s1(fleet: Fleet, caller: str) -> None:
    wrong = []
    for method, path, auth in targets(fleet.service):
        if (method, path) == ("POST", "/v1/joins/00000000/approve"):
            await fleet.service.app.joins.open(0, ADA)  # so that three wrong codes mean nothing here
        answer = await fleet.clients[caller].call(method, path)
        rule = expected(auth, caller)
        if rule == THROUGH:
            fine = answer.status < 500 and (answer.status not in (401, 403) or answer.code == "enrolment_closed")
        else:
            fine = (answer.status, answer.code) == rule and is_problem(answer)
        if not fine or answer.status >= 500 or not answer.headers["Henge-Request-Id"]:
            wrong.append((method, path, auth, rule, answer.status, answer.body[:200]))

    assert wrong == []


def served_to(auth: Auth) -> str:
    """A caller whom routes of ``auth`` let through."""
    callers = {Auth.ENROL: "none", Auth.DEVICE: "active", Auth.DEVICE_EXPIRED: "active"}
    return callers.get(auth, "socket")


async def test_every_route_refuses_a_parameter_that_it_does_not_know_r27(fleet: Fleet) -> None:
    wrong = []
    await open_window(fleet.clients["socket"])
    lost = certified(fleet.service, "lost", at=fleet.service.clock.wall())
    async with fleet.service.remote(lost) as stray:
        for (method, path, auth), route in zip(targets(fleet.service), fleet.service.app.routes, strict=True):
            body = None if route.takes is None else {}
            client = stray if auth is Auth.RESCUE else fleet.clients[served_to(auth)]
            answer = await client.call(method, f"{path}?no_such=1", body)
            if (answer.status, answer.code) != (400, "unknown_parameter"):
                wrong.append((method, path, answer.status, answer.body[:200]))
    await open_window(fleet.clients["socket"], 0)

    assert wrong == []


async def test_every_route_that_takes_no_body_refuses_one_r17(fleet: Fleet) -> None:
    wrong = []
    for (method, path, auth), route in zip(targets(fleet.service), fleet.service.app.routes, strict=True):
        if route.takes is not None:
            continue
        answer = await fleet.clients[served_to(auth)].call(method, path, {})
        if (answer.status, answer.code) != (400, "body_refused"):
            wrong.append((method, path, answer.status, answer.body[:200]))

    assert wrong == []


async def test_the_table_covers_every_route_and_each_kind_of_caller_somewhere(fleet: Fleet) -> None:
    kinds = {auth for _, _, auth in targets(fleet.service)}

    assert kinds == set(Auth)
    assert set(CALLERS) == set(fleet.clients)


async def test_viewers_read_editors_change_configuration_admins_decide_who_belongs(
    fleet: Fleet,
) -> None:
    by_role = {
        role: {f"{route.method} {route.path}" for route in fleet.service.app.routes if route.auth.value == role}
        for role in PEOPLE
    }
    writes = {"PUT", "PATCH", "DELETE"}

    assert all(route.startswith("GET ") for route in by_role["viewer"])
    assert by_role["editor"] == {
        f"{method} /v1/{plural}/{{name}}" for method in writes for plural in ("schemas", "groups", "devices")
    } | {
        "PATCH /v1/groups/{name}/overrides", "PATCH /v1/devices/{name}/overrides", "POST /v1/overrides",
        "POST /v1/apply", "POST /v1/check", "POST /v1/rollback",
        "POST /v1/devices/{name}/rename", "POST /v1/devices/{name}/retry",
        *(f"{method} /v1/secrets/{{secret}}" for method in ("PUT", "DELETE")),
    }  # fmt: skip
    assert {route for route in by_role["admin"] if route.startswith("GET ")} == {
        "GET /v1/tokens", "GET /v1/operators", "GET /v1/audit", "GET /v1/authorities",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "auth"), [("/v1/tokens", Auth.VIEWER), ("/v1/devices", Auth.ADMIN), ("/v1/secrets", Auth.EDITOR)]
)
async def test_a_route_that_is_read_by_others_than_the_rule_says_cannot_be_served(
    fleet: Fleet, path: str, auth: Auth
) -> None:
    edge = Edge(fleet.service.app.authority, lambda peer: NOBODY, monotonic=lambda: 0.0)
    with pytest.raises(LookupError, match=path):
        edge.application([Route("GET", path, auth, lambda request: None)])


async def test_certificates_forged_with_the_stolen_authority_open_nothing_s10(fleet: Fleet) -> None:
    victim, now = Identity("lamp-1", "ada", b"", b""), fleet.service.clock.wall()
    for role in ("device", "admin"):
        subject = victim.id if role == "admin" else pki.new_id(b"\0" * 16)
        identity = forged(fleet.service, victim, now, role=role, subject=subject)
        async with fleet.service.remote(identity) as thief:
            for path in ("/v1/status", "/v1/device/config"):
                answer = await thief.refused("GET", path)
                assert (answer.status, answer.code) == (403, "unknown_certificate")


async def test_an_expired_certificate_is_told_where_to_renew_r54(fleet: Fleet) -> None:
    answer = await fleet.clients["expired"].refused("GET", "/v1/device/config")

    assert answer.json["renew"] == "/v1/renew"


async def test_whoami_names_the_operator(fleet: Fleet) -> None:
    remote = await fleet.clients["admin"].ok("GET", "/v1/whoami")
    local = await fleet.clients["socket"].ok("GET", "/v1/whoami")

    assert remote == {"name": "ada", "role": "admin", "via": "devices"}
    assert (local["role"], local["via"]) == ("admin", "admin")


async def test_a_route_that_declares_no_authentication_cannot_be_built() -> None:
    async def handler(request: web.Request) -> web.Response:
        raise NotImplementedError

    with pytest.raises(TypeError, match="auth"):
        Route("GET", "/v1/open", handler=handler)  # type: ignore[call-arg]


async def test_a_handler_smuggled_past_the_table_is_not_served(standing: Standing) -> None:
    edge: Edge = standing.service.app._edge
    route = next(route for route in standing.service.app.routes if route.path == "/v1/whoami")
    taken = edge._routes.pop(route.handler)
    try:
        logging.getLogger("hengd.http").disabled = True
        answer = await standing.admin.refused("GET", "/v1/whoami")
    finally:
        logging.getLogger("hengd.http").disabled = False
        edge._routes[route.handler] = taken

    assert (answer.status, answer.code) == (500, "internal")


async def test_a_fault_of_ours_is_told_by_request_id_only(
    standing: Standing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("the inner secret")

    monkeypatch.setattr(standing.service.app.devices, "counts", broken)
    answer = await standing.admin.refused("GET", "/v1/status")

    assert (answer.status, answer.code) == (500, "internal")
    assert b"inner secret" not in answer.body
    assert answer.json["request_id"] in {getattr(record, "request_id", "") for record in caplog.records}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("/v1/nothing", 404, "no_such_route", id="R19-unknown"),
        pytest.param("/V1/status", 404, "no_such_route", id="R19-case"),
        pytest.param("/v1/status/", 404, "no_such_route", id="R19-slash-after"),
        pytest.param("//v1/status", 404, "no_such_route", id="R19-two-slashes"),
        pytest.param("/v1//status", 404, "no_such_route", id="R19-two-slashes-inside"),
        pytest.param("/", 404, "no_such_route", id="R19-root"),
        pytest.param("/v1/devices/", 404, "no_such_route", id="R19-no-name"),
        pytest.param("/v1/devices/..", 422, "bad_name", id="R20-dots"),
        pytest.param("/v1/devices/%2e%2e", 422, "bad_name", id="R20-encoded"),
        pytest.param("/v1/devices/a%2Fb", 422, "bad_name", id="R21"),
        pytest.param("/v1/devices/a%00", 422, "bad_name", id="R22-nul"),
        pytest.param("/v1/devices/a%0d%0aX:1", 422, "bad_name", id="R22-lines"),
        pytest.param("/v1/devices/%ff", 422, "bad_name", id="R23-ff"),
        pytest.param("/v1/devices/%C0%AE", 422, "bad_name", id="R23-overlong"),
        pytest.param("/v1/devices/%", 422, "bad_name", id="R23-percent"),
        pytest.param("/v1/devices/\xff", 400, "bad_request", id="R23-raw"),
        pytest.param("/v1/devices/" + "a" * 300, 422, "bad_name", id="R24-long"),
        pytest.param("/v1/devices/" + "a" * 64, 422, "bad_name", id="R24-64"),
        pytest.param("/v1/devices/" + "a" * 63, 404, "no_such_device", id="R24-63"),
        pytest.param("/v1/devices/lamp-%D9%A3", 422, "bad_name", id="R24-digits"),
        pytest.param("/v1/devices/lamp-%C5%BF", 422, "bad_name", id="R24-long-s"),
        pytest.param("/v1/devices/lamp-1%0a", 422, "bad_name", id="R25"),
        pytest.param("/v1/devices/Lamp-1", 422, "bad_name", id="upper-case"),
        pytest.param("/v1/devices/-lamp", 422, "bad_name", id="hyphen-first"),
        pytest.param("/v1/devices/lamp-", 422, "bad_name", id="hyphen-last"),
        pytest.param("/v1/devices/lamp_1", 422, "bad_name", id="underscore"),
        pytest.param("/v1/revisions/x", 404, "no_such_revision", id="revision-x"),
        pytest.param("/v1/revisions/0", 404, "no_such_revision", id="revision-0"),
        pytest.param("/v1/revisions/%D9%A1", 404, "no_such_revision", id="revision-arabic"),
        pytest.param("/v1/revisions/" + "9" * 40, 404, "no_such_revision", id="revision-40-digits"),
        pytest.param("http://evil.example/v1/status", 421, "wrong_host", id="R07"),
    ],
)
async def test_odd_paths_get_a_problem_document(standing: Standing, path: str, status: int, code: str) -> None:
    sent = request("GET", path).replace("ÿ".encode(), b"\xff")
    answer = (await exchange(standing.service.socket, sent))[0]

    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.fields["content-type"] == "application/problem+json"


@pytest.mark.parametrize("sid", ["x", "%00", "%ff", "..%2f", "\N{SNOWMAN}", "0" * 5000, "%F0%9F%92%A9", "%ED%A0%80"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_odd_join_id_is_not_found_e34(standing: Standing, method: str, sid: str) -> None:
    path = f"/v1/enrol/{sid}" + ("/answer" if method == "POST" else "")
    async with standing.service.remote() as stranger:
        answer = await stranger.refused(method, path, {"accept": False} if method == "POST" else None)

    assert (answer.status, answer.code) == (404, "no_such_join")


@pytest.mark.parametrize("token_id", ["x", "%00", "%ff", "%ED%A0%80", "0" * 5000, "%0a"])
async def test_an_odd_token_id_is_not_found(standing: Standing, token_id: str) -> None:
    answer = await standing.admin.refused("DELETE", f"/v1/tokens/{token_id}")

    assert (answer.status, answer.code) == (404, "token_invalid")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        pytest.param("POST", "/v1/devices", "GET", id="R18"),
        pytest.param("DELETE", "/v1/status", "GET", id="R18-delete"),
        pytest.param("GET", "/v1/apply", "POST", id="R18-get"),
        pytest.param("OPTIONS", "/v1/devices/lamp-1", "DELETE, GET, PATCH, PUT", id="R53-preflight"),
        pytest.param("HEAD", "/v1/devices/lamp-1", "DELETE, GET, PATCH, PUT", id="head"),
    ],
)
async def test_a_method_that_a_path_lacks_is_told_those_it_has(
    standing: Standing, method: str, path: str, allow: str
) -> None:
    answer = await standing.admin.call(method, path)

    assert answer.status == 405
    assert answer.headers["Allow"] == allow
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert method == "HEAD" or is_problem(answer)


@pytest.mark.parametrize("method", ["FOO", "TRACE", "CONNECT"])
async def test_unknown_methods_are_refused_r16(standing: Standing, method: str) -> None:
    answer = (await exchange(standing.service.socket, request(method, "/v1/status")))[0]

    assert answer.status == 405
    assert "GET" in answer.fields["allow"]


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://127.0.0.1:4365", ""])
async def test_web_pages_cannot_use_an_operators_certificate_r53(fleet: Fleet, origin: str) -> None:
    for caller in ("admin", "socket"):
        for method, path in (("GET", "/v1/status"), ("POST", "/v1/devices/lamp-1/retry")):
            answer = await fleet.clients[caller].refused(method, path, headers={"Origin": origin})
            assert (answer.status, answer.code) == (403, "foreign_origin")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:4365", "127.0.0.1.evil.example", "localhost.evil.example", "henge", "",
        "[::1].evil.example", "evil.example#127.0.0.1", "127.0.0.1@evil.example", "local host",
    ],
)  # fmt: skip
async def test_the_local_port_serves_only_names_of_this_machine_r06(standing: Standing, host: str) -> None:
    sent = request("GET", "/livez").replace(b"Host: henge", b"Host: " + host.encode())
    answer = (await exchange(standing.service.app.listeners.addresses["local"], sent))[0]

    assert (answer.status, answer.json["code"]) == (421, "wrong_host")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:4365", "LOCALHOST", "127.0.0.1:4365", "[::1]:4365", "192.168.1.7"]
)
async def test_the_local_port_serves_names_of_this_machine(standing: Standing, host: str) -> None:
    sent = request("GET", "/livez").replace(b"Host: henge", b"Host: " + host.encode())
    answer = (await exchange(standing.service.app.listeners.addresses["local"], sent))[0]

    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_a_host_does_not_matter_where_tls_fixes_the_name_r06(standing: Standing) -> None:
    async with standing.service.remote() as stranger:
        answer = await stranger.call("GET", "/v1/trust", headers={"Host": "evil.example"})

    assert answer.status == 200


async def test_a_daemon_that_stops_says_when_to_come_back_r58(standing: Standing) -> None:
    standing.service.app._edge.stopping = True
    try:
        answer = await standing.admin.refused("PATCH", "/v1/devices/lamp-1", {})
        ready = await standing.admin.call("GET", "/readyz")
    finally:
        standing.service.app._edge.stopping = False

    assert (answer.status, answer.code) == (503, "stopping")
    assert answer.headers["Retry-After"] == "5"
    assert (ready.status, ready.json["ready"]) == (503, False)


async def test_a_token_of_another_shape_is_no_certificate(fleet: Fleet) -> None:
    made = await fleet.clients["socket"].ok("POST", "/v1/tokens", {})
    token = parse_token(made["token"])
    answer = await fleet.clients["none"].refused(
        "GET", "/v1/status", headers={"Authorization": f"Bearer {token.secret}"}
    )

    assert (answer.status, answer.code) == (401, "certificate_required")
