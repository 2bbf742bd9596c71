"""Who did what: every fact that matters leaves its record, in a chain that a client can follow."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hengd.records import AuditRecord, number_key, pack, unpack
from hengd.rules.audit import ACTS
from hengd.transactions import Transaction, open_databases, open_environment
from henge_protocol import pki
from henge_protocol.audit import START, Link, verify
from henge_protocol.joining import parse_token
from henge_protocol.pki import DAY_S
from tests.hengd.http.joinkit import ask, csr_of, identity_in, spend, token_of
from tests.hengd.rescuekit import open_window, rescued, take
from tests.service import Admin, Clock, Service, device, group, schema


def said(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """What was done to what."""
    return [(item["what"], item["object"]) for item in answer["items"]]


def fault_of(answer: dict[str, Any]) -> str:
    """What verifying an answer of the whole chain says."""
    anchor, head = (Link(answer[end]["number"], answer[end]["digest"]) for end in ("anchor", "head"))
    return verify(answer["items"], anchor, head=head).fault


async def test_the_chain_of_a_new_store_begins_with_the_window_that_a_new_daemon_opens(admin: Admin) -> None:
    answer = await admin.ok("GET", "/v1/audit")

    assert answer["anchor"] == {"number": 0, "digest": START.digest}
    assert said(answer) == [("join-window.opened", "join-window")]
    assert answer["items"][0]["who"] == "henge"
    assert fault_of(answer) == ""


async def test_every_kind_of_act_leaves_its_record_and_the_chain_is_whole(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("planned"))
    lamp = await daemon.join(admin, "lamp-1", schema="lamp")
    async with daemon.remote(lamp) as remote:
        await remote.ok("POST", "/v1/renew", {})
    key = pki.generate_key()
    ada = identity_in((await spend(daemon, await token_of(admin, kind="admin"), key, "ada", "/v1/login")).json, key)
    await admin.ok("PUT", "/v1/join-window", {"open_s": 60})
    async with daemon.remote() as stranger:
        joiner = await ask(daemon, stranger, "board")
        async with daemon.remote(ada) as operator:
            await operator.ok("POST", f"/v1/joins/{joiner.code}/approve", {})
            await operator.ok("PATCH", "/v1/devices/planned", {"spec": {"values": {"color": "red"}}})
            await operator.ok("POST", "/v1/devices/planned/retry")
            await operator.refused("POST", f"/v1/joins/{(int(joiner.code) + 1) % 10**8:08}/approve", {})
    await admin.ok("PUT", "/v1/join-window", {"open_s": 0})
    await admin.ok("PUT", "/v1/secrets/wifi", {"value": "correct horse"})
    await admin.ok("PUT", "/v1/schemas/guess?dry_run=1", GUESS)
    token = await token_of(admin)
    await admin.ok("DELETE", f"/v1/tokens/{parse_token(token).id}")
    await spend(daemon, token, pki.generate_key(), "late")
    await open_window(admin)
    await rescued(daemon, "lost", {"color": "red"}, facts={"schema": "lamp"})
    await take(admin)
    await open_window(admin, 0)
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    await admin.ok("DELETE", "/v1/devices/board")
    await admin.ok("DELETE", "/v1/operators/ada")
    answer = await admin.ok("GET", "/v1/audit?since=0&limit=1000")

    elsewhere = {"backup.begun", "backup.made", "store.restored"}  # told in test_restore
    elsewhere |= {act for act in ACTS if act.startswith(("authority.", "server-certificate."))}  # in test_authorities
    assert {what for what, _ in said(answer)} == set(ACTS) - elsewhere
    assert said(answer)[:2] == [("join-window.opened", "join-window"), ("configuration.changed", "2 objects")]
    assert {one for what, one in said(answer) if what == "identity.revoked"} == {
        "device/lamp-1", "device/board", "operator/ada",
    }  # fmt: skip
    by = {(item["what"], item["object"]): (item["who"], item["origin"]) for item in answer["items"]}
    assert by["device.approved", "device/board"] == ("ada", "tls 127.0.0.1")
    assert by["operator.logged-in", "operator/ada"][0].startswith("token:")
    assert by["certificate.renewed", "device/lamp-1"] == ("lamp-1", "tls 127.0.0.1")
    assert fault_of(answer) == ""


async def test_what_is_refused_or_only_tried_leaves_no_record(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1"))
    before = (await admin.ok("GET", "/v1/audit"))["head"]
    await admin.refused("PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"brightness": 101}}})
    await admin.ok("PATCH", "/v1/devices/lamp-1?dry_run=1", {"spec": {"values": {"color": "red"}}})
    await admin.refused("DELETE", "/v1/tokens/nosuch")
    await spend(daemon, await token_of(admin, name="other-*"), pki.generate_key(), "lamp-9")
    await admin.set("lamp-1")  # nothing changed
    after = await admin.ok("GET", f"/v1/audit?since={before['number']}")

    assert [what for what, _ in said(after)] == ["token.created"]


async def test_refused_tokens_are_told_with_the_address_and_without_what_was_made_up(
    daemon: Service, admin: Admin
) -> None:
    token = await token_of(admin)
    known = parse_token(token).id
    await spend(daemon, token, pki.generate_key(), "lamp-1")
    before = (await admin.ok("GET", "/v1/audit"))["head"]["number"]
    guess = {"secret": "A" * 26, "csr": csr_of(pki.generate_key()), "name": "lamp-2"}
    async with daemon.remote() as stranger:
        await spend(daemon, token, pki.generate_key(), "lamp-2")  # used
        await stranger.refused("POST", "/v1/enrol", {**guess, "token_id": known})
        await stranger.refused("POST", "/v1/enrol", {**guess, "token_id": "made-up"})
    answer = await admin.ok("GET", f"/v1/audit?since={before}")

    assert said(answer) == [
        ("token.refused", f"token/{known}"), ("token.refused", f"token/{known}"), ("token.refused", "token"),
    ]  # fmt: skip
    assert {(item["who"], item["origin"]) for item in answer["items"]} == {("nobody", "enrol 127.0.0.1")}
    assert fault_of(await admin.ok("GET", "/v1/audit?since=0&limit=1000")) == ""


async def test_a_login_that_is_refused_is_told_as_one(daemon: Service, admin: Admin) -> None:
    token = await token_of(admin, kind="admin")
    for name in ("ada", "eve"):
        await spend(daemon, token, pki.generate_key(), name, "/v1/login")
    newest = (await admin.ok("GET", "/v1/audit"))["items"][-1]

    assert (newest["what"], newest["who"], newest["origin"]) == ("token.refused", "nobody", "login 127.0.0.1")


async def test_who_opens_and_closes_the_join_window_is_told(daemon: Service, admin: Admin) -> None:
    await admin.ok("PUT", "/v1/join-window", {"open_s": 60})
    await admin.ok("PUT", "/v1/join-window", {"open_s": 0})
    await admin.ok("PUT", "/v1/join-window", {"open_s": 0})  # closes nothing
    answer = await admin.ok("GET", "/v1/audit?since=1")

    assert [what for what, _ in said(answer)] == ["join-window.opened", "join-window.closed"]
    assert {item["origin"] for item in answer["items"]} == {"socket"}


async def test_the_third_wrong_code_leaves_a_record_of_the_window_that_it_closes(daemon: Service, admin: Admin) -> None:
    await admin.ok("PUT", "/v1/join-window", {"open_s": 60})
    for _ in range(4):
        await admin.refused("POST", "/v1/joins/00000000/approve", {})
    answer = await admin.ok("GET", "/v1/audit?since=1")

    assert [what for what, _ in said(answer)] == [
        "join-window.opened", "code.refused", "code.refused", "code.refused", "join-window.closed", "code.refused",
    ]  # fmt: skip


async def test_overrides_leave_records_when_they_begin_and_when_they_end(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await admin.apply(schema(), group("hall", "room=hall"), device("lamp-1"))
    before = (await admin.ok("GET", "/v1/audit"))["head"]["number"]
    for path, for_s in (("devices/lamp-1", 60), ("groups/hall", 90)):
        await admin.ok("PATCH", f"/v1/{path}/overrides", {"set": {"color": "red"}, "for_s": for_s})
    await admin.ok("PATCH", "/v1/devices/lamp-1/overrides?dry_run=1", {"unset": ["color"]})
    clock.advance(61)
    await daemon.app.overrides.end_due()
    await admin.ok("PATCH", "/v1/groups/hall/overrides", {"unset": ["color"]})
    answer = await admin.ok("GET", f"/v1/audit?since={before}")

    assert [(item["object"], item["revision"], item["origin"]) for item in answer["items"]] == [
        ("device/lamp-1", 2, "socket"), ("group/hall", 3, "socket"),
        ("device/lamp-1", 4, "daemon"), ("group/hall", 5, "socket"),
    ]  # fmt: skip
    assert {item["what"] for item in answer["items"]} == {"configuration.changed"}
    assert answer["items"][2]["who"] == "henge"


async def test_records_are_read_in_pages(daemon: Service, admin: Admin) -> None:
    for _ in range(4):  # after the one of the window that the daemon opened
        await admin.ok("POST", "/v1/tokens", {})
    newest = await admin.ok("GET", "/v1/audit?limit=2")
    second = await admin.ok("GET", "/v1/audit?since=2&limit=2")
    beyond = await admin.ok("GET", "/v1/audit?since=99")

    assert [item["number"] for item in newest["items"]] == [4, 5]
    assert [item["number"] for item in second["items"]] == [3, 4]
    assert beyond["items"] == []


async def test_old_records_go_and_the_rest_hangs_on_the_anchor(daemon: Service, admin: Admin, clock: Clock) -> None:
    for _ in range(3):  # after the one of the window that the daemon opened
        await admin.ok("POST", "/v1/tokens", {})
    clock.advance(10 * DAY_S)
    await admin.ok("POST", "/v1/tokens", {})
    kept_by_age = await daemon.app._audit.prune(1, 20 * DAY_S, now=clock.wall())
    dropped = await daemon.app._audit.prune(3, 5 * DAY_S, now=clock.wall())
    answer = await admin.ok("GET", "/v1/audit?since=0")

    assert (kept_by_age, dropped) == (0, 2)
    assert answer["anchor"]["number"] == 2
    assert [item["number"] for item in answer["items"]] == [3, 4, 5]
    assert fault_of(answer) == ""


@pytest.mark.parametrize("number", [1, 3, 5])
async def test_a_record_edited_beside_the_daemon_is_named_f45(daemon: Service, admin: Admin, number: int) -> None:
    for _ in range(5):
        await admin.ok("POST", "/v1/tokens", {})
    await daemon.stop()
    edit(daemon, number, who="mallory")
    await daemon.start()
    async with daemon.admin() as again:
        answer = await again.ok("GET", "/v1/audit?since=0")

    assert f"record {number} was changed" in fault_of(answer)


def edit(daemon: Service, number: int, **fields: Any) -> None:
    """Change a record as somebody would who knows the store and its checksums."""
    env = open_environment(daemon.data_dir / "data" / "db", 2**30)
    databases = open_databases(env)
    with env.begin(write=True) as txn:
        tx = Transaction(txn, databases)
        payload = tx.get("audit", number_key(number))
        assert payload is not None
        tx.put("audit", number_key(number), pack(msgspec.structs.replace(unpack(AuditRecord, payload), **fields)))
    env.close()


GUESS = schema("guess", type="object", properties={"psk": {"type": "string", "writeOnly": True, "pattern": "^c"}})


async def test_trying_schemas_on_secrets_leaves_records(admin: Admin) -> None:
    async def tried() -> list[str]:
        answer = await admin.ok("GET", "/v1/audit?since=0&limit=1000")
        return [item["object"] for item in answer["items"] if item["what"] == "schema.tried"]

    def guess(pattern: str, name: str) -> list[dict[str, Any]]:
        judge = schema(
            name, type="object", properties={"psk": {"type": "string", "writeOnly": True, "pattern": pattern}}
        )
        return [judge, device("mine", name, psk={"$secret": "wifi"})]

    await admin.ok("PUT", "/v1/schemas/guess?dry_run=1", GUESS)
    assert await tried() == [], "there is no secret to be guessed"
    await admin.ok("PUT", "/v1/secrets/wifi", {"value": "correct horse"})
    await admin.ok("POST", "/v1/apply?dry_run=1", {"objects": guess("^c", "yes")})
    await admin.refused("POST", "/v1/apply?dry_run=1", {"objects": guess("^d", "no")})
    await admin.refused("POST", "/v1/apply", {"objects": guess("^e", "real")})
    await admin.ok("POST", "/v1/check", {"objects": guess("^c", "asked")})
    await admin.refused("POST", "/v1/check", {"objects": guess("^f", "asked-no")})
    await admin.ok("POST", "/v1/apply?dry_run=1", {"objects": [schema("plain", type="object")]})
    await admin.ok("POST", "/v1/apply", {"objects": [*guess("^c", "kept"), GUESS]})
    await admin.ok("POST", "/v1/apply?dry_run=1", {"objects": guess("^c", "kept")})

    assert await tried() == [f"schema/{name}" for name in ("yes", "no", "real", "asked", "asked-no")]
