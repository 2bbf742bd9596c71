"""Operators on other machines: several logins of one person, whose name it is, listed and revoked."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from hengd.http.edge import RATES
from hengd.records import CertificateRecord, unpack
from hengd.rules.authority import EXPIRED_OK_S
from hengd.rules.issuing import ADMIN_LIFETIME_S
from hengd.rules.limits import RateLimit
from henge_protocol import pki
from tests.hengd.http.joinkit import identity_in, renewed, spend, token_of
from tests.service import Admin, Clock, Identity, Service, device, schema


async def log_in(service: Service, admin: Admin, name: str = "ada", **token: object) -> Identity:
    """A login by a token bound to the name, from one more machine."""
    key = pki.generate_key()
    made = await token_of(admin, kind="admin", **{"name": name, **token})
    answer = await spend(service, made, key, name, "/v1/login")
    assert answer.status == 201, answer
    return identity_in(answer.json, key)


async def code_for(service: Service, identity: Identity) -> str:
    """What an operator is told: ``ok``, or the code of the refusal."""
    async with service.remote(identity) as remote:
        answer = await remote.call("GET", "/v1/whoami")
    return "ok" if answer.status == 200 else answer.code


async def test_laptop_and_desktop_of_one_operator_both_work(daemon: Service, admin: Admin) -> None:
    laptop, desktop = await log_in(daemon, admin), await log_in(daemon, admin)

    assert [await code_for(daemon, one) for one in (laptop, desktop, laptop)] == ["ok"] * 3


async def test_a_renewal_supersedes_the_certificate_it_renews_and_no_other(daemon: Service, admin: Admin) -> None:
    laptop, desktop = await log_in(daemon, admin), await log_in(daemon, admin)
    assert await code_for(daemon, desktop) == "ok"
    async with daemon.remote(laptop) as remote:
        new = renewed(laptop, await remote.ok("POST", "/v1/renew", {}))
    before = await code_for(daemon, laptop)
    after = [await code_for(daemon, one) for one in (new, laptop, desktop)]

    assert before == "ok"
    assert after == ["ok", "certificate_superseded", "ok"]


async def test_a_lost_renewal_is_superseded_by_the_next_one(daemon: Service, admin: Admin) -> None:
    laptop, desktop = await log_in(daemon, admin), await log_in(daemon, admin)
    async with daemon.remote(laptop) as remote:
        lost = renewed(laptop, await remote.ok("POST", "/v1/renew", {}))
        kept = renewed(laptop, await remote.ok("POST", "/v1/renew", {}))

    assert [await code_for(daemon, one) for one in (lost, kept, desktop)] == ["certificate_superseded", "ok", "ok"]


async def test_a_name_in_use_needs_a_token_made_for_it(daemon: Service, admin: Admin) -> None:
    ada = await log_in(daemon, admin)
    refused = [
        await spend(daemon, await token_of(admin, kind="admin", name=pattern), pki.generate_key(), "ada", "/v1/login")
        for pattern in ("*", "ad?")
    ]

    assert {(one.status, one.code) for one in refused} == {(409, "name_taken")}
    assert "hengectl token create --admin --name ada" in refused[0].json["cure"]
    assert {one["used"] for one in (await admin.ok("GET", "/v1/tokens"))["items"]} == {0, 1}
    assert await code_for(daemon, ada) == "ok"


async def test_a_name_is_free_again_when_its_last_certificate_cannot_be_renewed_any_more(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await log_in(daemon, admin)
    clock.advance(ADMIN_LIFETIME_S + EXPIRED_OK_S - pki.DAY_S)
    taken = await spend(daemon, await token_of(admin, kind="admin"), pki.generate_key(), "ada", "/v1/login")
    clock.advance(2 * pki.DAY_S)
    await daemon.app.authority.timekeeper.note()
    free = await spend(daemon, await token_of(admin, kind="admin"), pki.generate_key(), "ada", "/v1/login")

    assert (taken.status, free.status) == (409, 201)


async def test_a_lost_answer_to_a_login_is_given_again(daemon: Service, admin: Admin) -> None:
    token, key = await token_of(admin, kind="admin"), pki.generate_key()
    lost = await spend(daemon, token, key, "ada", "/v1/login")
    again = await spend(daemon, token, key, "ada", "/v1/login")

    assert (lost.status, again.status) == (201, 201)
    assert await code_for(daemon, identity_in(lost.json, key)) == "certificate_superseded"
    assert await code_for(daemon, identity_in(again.json, key)) == "ok"


async def test_operators_are_listed_with_their_live_certificates(daemon: Service, admin: Admin) -> None:
    nobody = await admin.ok("GET", "/v1/operators")
    ada, _ = await log_in(daemon, admin), await log_in(daemon, admin)
    await log_in(daemon, admin, "bob")
    async with daemon.remote(ada) as remote:
        await code_for(daemon, renewed(ada, await remote.ok("POST", "/v1/renew", {})))
    listed = await admin.ok("GET", "/v1/operators")

    assert nobody == {"kind": "OperatorList", "items": []}
    assert [(one["name"], one["certificates"], one["via"]) for one in listed["items"]] == [
        ("ada", 2, "renew"),
        ("bob", 1, "token"),
    ]
    assert all(one["since"] < one["expires"] for one in listed["items"])


async def test_a_revoked_operator_is_out_on_all_machines_and_over_a_restart(daemon: Service, admin: Admin) -> None:
    machines = [await log_in(daemon, admin), await log_in(daemon, admin)]
    bob = await log_in(daemon, admin, "bob")
    answer = await admin.ok("DELETE", "/v1/operators/ada")
    at_once = [await code_for(daemon, one) for one in (*machines, bob)]
    await daemon.restart()
    later = [await code_for(daemon, one) for one in (*machines, bob)]

    assert answer == {"name": "ada", "state": "revoked"}
    assert at_once == later == ["certificate_revoked", "certificate_revoked", "ok"]


async def test_an_operator_is_found_and_revoked_though_the_clock_is_ahead_by_years(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    ada = await log_in(daemon, admin)
    clock.jump(5 * 365 * pki.DAY_S)
    answer = await admin.ok("DELETE", "/v1/operators/ada")
    clock.jump(-5 * 365 * pki.DAY_S)

    assert answer["state"] == "revoked"
    assert await code_for(daemon, ada) == "certificate_revoked"


async def test_a_revoked_operator_may_log_in_anew(daemon: Service, admin: Admin) -> None:
    old = await log_in(daemon, admin)
    await admin.ok("DELETE", "/v1/operators/ada")
    new = await log_in(daemon, admin, name="ada")

    assert [await code_for(daemon, one) for one in (old, new)] == ["certificate_revoked", "ok"]
    assert [one["certificates"] for one in (await admin.ok("GET", "/v1/operators"))["items"]] == [1]


async def test_what_waits_for_a_revoked_operator_is_cut(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, held = await log_in(daemon, admin), asyncio.Event()
    hold = daemon.app.authority.ends.hold
    monkeypatch.setattr(daemon.app.authority.ends, "hold", lambda *holder: (hold(*holder), held.set()))
    seq = (await admin.ok("GET", "/v1/events"))["next"]
    async with daemon.remote(ada) as remote:
        waiting = asyncio.create_task(remote.call("GET", f"/v1/events?since={seq}&wait=55"))
        async with asyncio.timeout(10):
            await held.wait()
        await admin.ok("DELETE", "/v1/operators/ada")
        async with asyncio.timeout(10):
            answer = await waiting  # the client library asks once more when a connection breaks

    assert answer.code == "certificate_revoked"
    assert daemon.app.authority.ends._holders == {}


async def test_an_operator_may_revoke_himself_and_hears_of_it(daemon: Service, admin: Admin) -> None:
    ada = await log_in(daemon, admin)
    async with daemon.remote(ada) as remote:
        answer = await remote.ok("DELETE", "/v1/operators/ada")

    assert answer["state"] == "revoked"
    assert await code_for(daemon, ada) == "certificate_revoked"


@pytest.mark.parametrize(("name", "status", "code"), [("nobody", 404, "no_such_object"), ("Ada", 422, "bad_name")])
async def test_an_operator_that_is_not_there_cannot_be_revoked(
    daemon: Service, admin: Admin, name: str, status: int, code: str
) -> None:
    answer = await admin.refused("DELETE", f"/v1/operators/{name}")

    assert (answer.status, answer.code) == (status, code)


async def test_a_revoked_operator_is_not_revoked_twice(daemon: Service, admin: Admin) -> None:
    await log_in(daemon, admin)
    await admin.ok("DELETE", "/v1/operators/ada")

    assert (await admin.refused("DELETE", "/v1/operators/ada")).code == "no_such_object"


# ---- how often one may ask ----------------------------------------------------------------------------


async def asked(client: Admin, times: int, path: str = "/v1/whoami") -> Counter[int]:
    """How often which status came back."""
    answers = [await asyncio.gather(*[client.call("GET", path) for _ in range(50)]) for _ in range(times // 50)]
    return Counter(answer.status for some in answers for answer in some)


async def test_an_operator_from_elsewhere_who_asks_without_end_is_told_to_wait_r59(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    clock.freeze()
    ada, bob = await log_in(daemon, admin), await log_in(daemon, admin, "bob")
    _, most = RATES["admin"]
    async with daemon.remote(ada) as remote, daemon.remote(bob) as other:
        counted = await asked(remote, most + 50)
        refused = await remote.refused("GET", "/v1/whoami")
        neighbour = await other.call("GET", "/v1/whoami")
        clock.advance(2)
        later = await remote.call("GET", "/v1/whoami")

    assert counted == {200: most, 429: 50}
    assert (refused.code, refused.headers["Retry-After"]) == ("rate_limited", "1")
    assert (neighbour.status, later.status) == (200, 200)


async def test_who_asks_through_the_admin_socket_is_never_told_to_wait(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RateLimit, "take", lambda *_, **__: pytest.fail("counted"))

    assert await asked(admin, 100) == {200: 100}


async def test_a_device_that_asks_without_end_is_told_to_wait(daemon: Service, admin: Admin, clock: Clock) -> None:
    clock.freeze()
    lamp = await daemon.join(admin, "lamp-1")
    _, most = RATES["device"]
    async with daemon.remote(lamp) as remote:
        counted = await asked(remote, 100, "/v1/device/config?have=")

    assert counted == {304: most, 429: 100 - most}


async def test_a_role_stays_with_the_certificate_and_its_renewals(daemon: Service, admin: Admin) -> None:
    eve = await log_in(daemon, admin, "eve", role="viewer")
    async with daemon.remote(eve) as remote:
        new = renewed(eve, await remote.ok("POST", "/v1/renew", {}))
    async with daemon.remote(new) as remote:
        who = await remote.ok("GET", "/v1/whoami")
        refused = await remote.refused("PUT", "/v1/groups/kitchen", {"spec": {}})

    assert who == {"name": "eve", "role": "viewer", "via": "devices"}
    assert (refused.status, refused.code) == (403, "wrong_role")
    assert "this needs the role editor, eve has the role viewer" in refused.json["detail"]
    assert "hengectl token create --role editor --name eve" in refused.json["cure"]


async def test_an_operator_is_listed_with_the_highest_role_of_his_certificates(daemon: Service, admin: Admin) -> None:
    await log_in(daemon, admin, "eve", role="viewer")
    before = (await admin.ok("GET", "/v1/operators"))["items"][0]["role"]
    await log_in(daemon, admin, "eve", role="editor")
    after = (await admin.ok("GET", "/v1/operators"))["items"][0]["role"]

    assert (before, after) == ("viewer", "editor")


async def test_an_editor_deletes_devices_that_never_joined_and_no_others(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("planned"))
    await daemon.join(admin, "lamp-1")
    eve = await log_in(daemon, admin, "eve", role="editor")
    async with daemon.remote(eve) as editor:
        direct = await editor.refused("DELETE", "/v1/devices/lamp-1")
        applied = await editor.refused("POST", "/v1/apply", {"delete": [{"kind": "Device", "name": "lamp-1"}]})
        await editor.ok("DELETE", "/v1/devices/planned")

    assert {(one.status, one.code) for one in (direct, applied)} == {(403, "wrong_role")}
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "active"


@pytest.mark.parametrize(
    "wanted", [{"kind": "admin", "role": "owner"}, {"kind": "admin", "role": 1}, {"role": "viewer"}]
)
async def test_a_token_for_an_unknown_role_or_a_device_with_a_role_is_refused(
    admin: Admin, wanted: dict[str, object]
) -> None:
    refused = await admin.refused("POST", "/v1/tokens", wanted)

    assert (refused.status, refused.code) == (422, "bad_parameter")


def test_a_certificate_from_before_there_were_roles_is_an_admins() -> None:
    old = b'{"role":"admin","subject":"ada","spki":"00","not_after":1.0,"state":"active","via":"token"}'

    assert unpack(CertificateRecord, old).rights == "admin"
