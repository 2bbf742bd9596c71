"""How strangers become known, the operator's side: tokens, the window, discover-and-approve (E29 to E38, S5, S9)."""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime
from typing import Any

import pytest

from hengd.rules import joins
from hengd.rules.outcome import Author
from henge_protocol import pki
from henge_protocol.errors import Gone, Limited
from henge_protocol.joining import format_code, parse_token
from tests.hengd.http.conftest import Standing
from tests.hengd.http.joinkit import ask, begin, csr_of, identity_in, token_of
from tests.service import Admin, Clock, Service, connected, device, schema

APPROVE = "/v1/joins/{}/approve"


@pytest.fixture
def flags() -> dict[str, Any]:
    """The window is closed at first."""
    return {"join.window_after_init": "0s"}


async def open_window(admin: Admin, seconds: int = 3600) -> None:
    """Let devices ask."""
    await admin.ok("PUT", "/v1/join-window", {"open_s": seconds})


async def state_of(stranger: Admin, sid: str) -> str:
    """What a device that waits is told: 202 waiting, or the code of the refusal."""
    answer = await stranger.call("GET", f"/v1/enrol/{sid}")
    return "waiting" if answer.status == 202 else "approved" if answer.status == 200 else answer.code


# ---- discover and approve -----------------------------------------------------------------------------


async def test_a_device_is_discovered_compared_and_approved(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema())
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "pico-3", client="test/1", facts={"model": "Pico W", "cores": 2})
        waiting = (await admin.ok("GET", "/v1/joins"))["items"]
        poll = asyncio.create_task(stranger.ok("GET", f"/v1/enrol/{joiner.sid}?wait=10"))
        await asyncio.sleep(0)
        typed = format_code(joiner.code).replace(" ", "%20")
        approved = await admin.ok("POST", APPROVE.format(typed), {"schema": "lamp", "labels": {"room": "hall"}})
        identity = identity_in(await poll, joiner.key)

    assert [(one["name"], one["client"], one["facts"]) for one in waiting] == [
        ("pico-3", "test/1", {"model": "Pico W", "cores": 2})
    ]
    assert joiner.code not in str(waiting)
    assert (approved["metadata"]["name"], approved["metadata"]["labels"]) == ("pico-3", {"room": "hall"})
    assert pki.fingerprint(daemon.app.authority.server_cas[0]) == joiner.pin
    async with connected(daemon, identity) as pico:
        assert await pico.apply_next() == {"brightness": 80, "color": "green"}
    assert (await admin.ok("GET", "/v1/joins"))["items"] == []


async def test_the_operator_may_give_another_name(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "esp32")
        await admin.ok("POST", APPROVE.format(joiner.code), {"name": "kiln"})
        identity = await stranger.ok("GET", f"/v1/enrol/{joiner.sid}")

    assert identity["name"] == "kiln"


async def test_a_device_from_files_is_claimed_with_its_schema_labels_and_values(daemon: Service, admin: Admin) -> None:
    await admin.apply(schema(), schema("heater", type="object"), device("lamp-1", labels={"room": "hall"}, color="red"))
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        found = await admin.ok("POST", APPROVE.format(joiner.code), {"schema": "heater", "labels": {"room": "cellar"}})

    assert found["spec"] == {"schema": "lamp", "values": {"color": "red"}}
    assert found["metadata"]["labels"] == {"room": "hall"}
    assert found["status"]["identity"] == "active"


async def test_a_name_in_use_is_refused_and_the_request_waits_on_e27(daemon: Service, admin: Admin) -> None:
    async with connected(daemon, await daemon.join(admin, "lamp-1")):
        pass
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        refused = await admin.refused("POST", APPROVE.format(joiner.code))
        assert await state_of(stranger, joiner.sid) == "waiting"
        await admin.ok("POST", APPROVE.format(joiner.code), {"name": "lamp-2"})

    assert (refused.status, refused.code) == (409, "name_taken")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"name": "Lamp"}, 422, "bad_name", id="name"),
        pytest.param({"name": 7}, 422, "bad_object", id="name-number"),
        pytest.param({"schema": "nothing"}, 422, "no_such_schema", id="schema"),
        pytest.param({"schema": "No"}, 422, "bad_name", id="schema-name"),
        pytest.param({"labels": {"a b": "c"}}, 422, "bad_object", id="label"),
        pytest.param({"labels": {"a": 1}}, 422, "bad_object", id="label-number"),
        pytest.param({"labels": []}, 422, "bad_object", id="labels-list"),
        pytest.param({"labels": {f"k{n}": "v" for n in range(33)}}, 422, "bad_object", id="33-labels"),
        pytest.param({"code": "1"}, 422, "unknown_field", id="unknown-field"),
        pytest.param(b"{", 400, "bad_json", id="not-json"),
    ],
)
async def test_a_bad_approval_leaves_the_request_waiting(
    daemon: Service, admin: Admin, body: Any, status: int, code: str
) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        refused = await admin.refused("POST", APPROVE.format(joiner.code), body)

        assert (refused.status, refused.code) == (status, code)
        assert await state_of(stranger, joiner.sid) == "waiting"
        assert (await admin.ok("GET", "/v1/devices"))["items"] == []


@pytest.mark.parametrize("code", ["1234567", "123456789", "12a45678", "%D9%A1" * 8, "%00", "%ff", "x" * 500])
async def test_a_code_has_eight_digits(daemon: Service, admin: Admin, code: str) -> None:
    refused = await admin.refused("POST", APPROVE.format(code))

    assert (refused.status, refused.code) == (400, "bad_code")


async def test_three_wrong_codes_close_the_window_e35(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        wrong = str((int(joiner.code) + 1) % 10**8).zfill(8)
        answers = [await admin.refused("POST", APPROVE.format(wrong)) for _ in range(3)]
        right = await admin.refused("POST", APPROVE.format(joiner.code))

        assert [(one.status, one.code) for one in answers] == [
            (404, "no_such_join"),
            (404, "no_such_join"),
            (403, "enrolment_closed"),
        ]
        assert right.status in (403, 404)
        assert await state_of(stranger, joiner.sid) == "no_such_join"
    assert (await admin.ok("GET", "/v1/join-window"))["open"] is False
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        again = await ask(daemon, stranger, "lamp-1")
        await admin.ok("POST", APPROVE.format(again.code))


async def test_a_code_is_taken_once_however_often_it_is_typed(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        answers = await asyncio.gather(*[admin.call("POST", APPROVE.format(joiner.code)) for _ in range(2)])
        identity = identity_in(await stranger.ok("GET", f"/v1/enrol/{joiner.sid}"), joiner.key)

    assert sorted(answer.status for answer in answers) == [200, 409]
    async with connected(daemon, identity):
        pass


async def test_the_code_of_a_request_that_ended_is_told_as_such_e36(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        clock.advance(601)
        late = [await admin.refused("POST", APPROVE.format(joiner.code)) for _ in range(4)]

        assert {(one.status, one.code) for one in late} == {(410, "join_expired")}
        assert (await admin.ok("GET", "/v1/join-window"))["open"] is True
        assert await state_of(stranger, joiner.sid) in ("no_such_join", "join_expired")


async def test_a_request_ends_after_ten_minutes(daemon: Service, admin: Admin, clock: Clock) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner, half = await ask(daemon, stranger, "lamp-1"), await begin(daemon, stranger, "lamp-2")
        clock.advance(601)
        answers = [
            await stranger.refused("GET", f"/v1/enrol/{joiner.sid}"),
            await stranger.refused("POST", "/v1/enrol/reveal", half.revelation()),
        ]

    assert [(one.status, one.code) for one in answers] == [(410, "join_expired")] * 2
    assert (await admin.ok("GET", "/v1/joins"))["items"] == []


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, -56 * 365 * 86400.0, 29 * 365 * 86400.0])
async def test_setting_the_clock_neither_ends_nor_extends_window_and_requests_k1(
    daemon: Service, admin: Admin, clock: Clock, jump_s: float
) -> None:
    await open_window(admin, 900)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        clock.jump(jump_s)
        assert await state_of(stranger, joiner.sid) == "waiting"
        closes = datetime.fromisoformat((await admin.ok("GET", "/v1/join-window"))["closes"]).timestamp()
        assert closes == pytest.approx(clock.wall() + 900, abs=60)
        clock.advance(601)
        assert await state_of(stranger, joiner.sid) in ("no_such_join", "join_expired")
        clock.advance(300)
        assert (await admin.ok("GET", "/v1/join-window"))["open"] is False


async def test_two_requests_with_one_code_are_both_void_e37(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joins, "code", lambda *parts: "47110815")
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        one, other = await ask(daemon, stranger, "lamp-1"), await ask(daemon, stranger, "lamp-2")

        assert [await state_of(stranger, joiner.sid) for joiner in (one, other)] == ["no_such_join"] * 2
    assert (await admin.refused("POST", APPROVE.format("47110815"))).code == "no_such_join"


async def test_a_device_that_says_no_voids_its_request_e38(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        yes = await stranger.ok("POST", f"/v1/enrol/{joiner.sid}/answer", {"accept": True})
        assert await state_of(stranger, joiner.sid) == "waiting"
        no = await stranger.ok("POST", f"/v1/enrol/{joiner.sid}/answer", {"accept": False})
        assert await state_of(stranger, joiner.sid) == "no_such_join"
        odd = await stranger.refused("POST", f"/v1/enrol/{joiner.sid}/answer", {"accept": "no"})

    assert (yes["state"], no["state"], odd.status) == ("accepted", "void", 422)
    closed = [
        event for event in (await admin.ok("GET", "/v1/events?since=0"))["events"] if event["type"] == "join.closed"
    ]
    assert [event["outcome"] for event in closed] == ["void"]


@pytest.mark.parametrize(("said", "given"), [("", "lamp"), ("heater", "heater")])
async def test_a_device_may_wish_for_a_schema_and_the_operator_decides(
    daemon: Service, admin: Admin, said: str, given: str
) -> None:
    await admin.apply(schema(), schema("heater", type="object"))
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1", facts={"schema": "lamp"})
        found = await admin.ok("POST", APPROVE.format(joiner.code), {"schema": said} if said else {})

    assert found["spec"]["schema"] == given


async def outcomes(admin: Admin) -> list[str]:
    """How join requests ended, by the events."""
    told = (await admin.ok("GET", "/v1/events?since=0"))["events"]
    return [event["outcome"] for event in told if event["type"] == "join.closed"]


async def test_an_approved_request_is_told_once(daemon: Service, admin: Admin, clock: Clock) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        await admin.ok("POST", APPROVE.format(joiner.code))
        clock.advance(601)
        await admin.ok("GET", "/v1/joins")

    assert await outcomes(admin) == ["approved"]


async def test_wrong_codes_void_what_waits_and_leave_what_is_approved(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        approved, waiting = await ask(daemon, stranger, "lamp-1"), await ask(daemon, stranger, "lamp-2")
        await admin.ok("POST", APPROVE.format(approved.code))
        wrong = next(code for code in ("00000000", "00000001") if code != waiting.code)
        for _ in range(3):
            await admin.refused("POST", APPROVE.format(wrong))

        assert await state_of(stranger, approved.sid) == "approved"
        assert await state_of(stranger, waiting.sid) == "no_such_join"
    assert await outcomes(admin) == ["approved", "void"]


async def test_a_no_while_the_approval_is_being_written_revokes_what_was_given(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        approval = asyncio.create_task(
            daemon.app.joins.approve(
                joiner.code, name="", schema="", labels={}, by=Author("ada", "socket", may_end_identities=True)
            )
        )
        await asyncio.sleep(0)  # its write is queued, its answer comes by this loop
        await daemon.app.joins.reject(joiner.sid)
        with pytest.raises(Gone) as refusal:
            await approval

        assert await state_of(stranger, joiner.sid) == "no_such_join"
    assert refusal.value.code == "join_rejected"
    assert (await admin.ok("GET", "/v1/devices/lamp-1"))["status"]["identity"] == "revoked"
    assert await outcomes(admin) == ["void"]


async def test_an_approval_takes_a_name_whose_certificate_was_never_used(daemon: Service, admin: Admin) -> None:
    lost = await daemon.join(admin, "lamp-1")
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        await admin.ok("POST", APPROVE.format(joiner.code))
        found = identity_in(await stranger.ok("GET", f"/v1/enrol/{joiner.sid}"), joiner.key)

    assert found.id == lost.id
    async with daemon.remote(lost) as late:
        assert (await late.refused("GET", "/v1/device/config")).code == "certificate_superseded"
    async with connected(daemon, found):
        pass


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        pytest.param({"nonce": "00" * 32}, 400, "join_mismatch", id="E32-wrong-nonce"),
        pytest.param({"csr": csr_of(pki.generate_key())}, 400, "join_mismatch", id="E32-wrong-key"),
        pytest.param({"csr": "AAAA"}, 400, "bad_csr", id="E32-bad-csr"),
    ],
)
async def test_a_wrong_revelation_voids_the_request(
    daemon: Service, admin: Admin, changed: dict[str, str], status: int, code: str
) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await begin(daemon, stranger, "lamp-1")
        wrong = await stranger.refused("POST", "/v1/enrol/reveal", joiner.revelation(**changed))
        right = await stranger.refused("POST", "/v1/enrol/reveal", joiner.revelation())

    assert (wrong.status, wrong.code) == (status, code)
    assert (right.status, right.code) == (404, "no_such_join")


async def test_a_second_revelation_voids_the_request_e32(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        again = await stranger.refused("POST", "/v1/enrol/reveal", joiner.revelation())

        assert (again.status, again.code) == (409, "join_mismatch")
        assert await state_of(stranger, joiner.sid) == "no_such_join"


@pytest.mark.parametrize("code", ["sid", "nonce", "csr"])
async def test_a_revelation_has_all_its_parts(daemon: Service, admin: Admin, code: str) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        joiner = await begin(daemon, stranger, "lamp-1")
        body = {key: value for key, value in joiner.revelation().items() if key != code}
        answer = await stranger.refused("POST", "/v1/enrol/reveal", body)

    assert (answer.status, answer.code) == (422, "bad_object")


async def test_nobody_joins_through_a_closed_window_e33(daemon: Service, admin: Admin, clock: Clock) -> None:
    commit = {"commit": "00" * 32, "name": "lamp-1"}
    async with daemon.remote(verified=False) as stranger:
        before = await stranger.refused("POST", "/v1/enrol/begin", commit)
        await open_window(admin, 60)
        await stranger.ok("POST", "/v1/enrol/begin", commit)
        clock.advance(60)
        after = await stranger.refused("POST", "/v1/enrol/begin", commit)

    assert [(one.status, one.code) for one in (before, after)] == [(403, "enrolment_closed")] * 2


async def test_three_requests_of_one_address_are_enough_and_approved_ones_do_not_count(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        asked = [await ask(daemon, stranger, f"lamp-{number}") for number in range(3)]
        full = await stranger.refused("POST", "/v1/enrol/begin", {"commit": "00" * 32, "name": "lamp-9"})
        await admin.ok("POST", APPROVE.format(asked[0].code))
        more = await ask(daemon, stranger, "lamp-9")
        assert await state_of(stranger, more.sid) == "waiting"
        clock.advance(601)
        await ask(daemon, stranger, "lamp-10")

    assert (full.status, full.code, full.headers["Retry-After"]) == (429, "enrolment_full", "60")


async def test_a_flood_of_requests_leaves_sixteen_and_ends_with_their_time_s9_e31(
    daemon: Service, admin: Admin, clock: Clock
) -> None:
    await open_window(admin)
    taken = 0
    for number in range(10_000):
        try:
            daemon.app.joins.begin(secrets.token_bytes(32), "lamp-1", "", {}, f"10.0.0.{number % 50}")
            taken += 1
        except Limited as error:
            assert error.code == "enrolment_full"
    clock.advance(601)
    async with daemon.remote(verified=False) as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        await admin.ok("POST", APPROVE.format(joiner.code))

    assert taken == 16


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        pytest.param({"commit": "00" * 31}, 400, "bad_request", id="commit-short"),
        pytest.param({"commit": "zz" * 32}, 400, "bad_request", id="commit-not-hex"),
        pytest.param({"commit": 7}, 422, "bad_object", id="commit-number"),
        pytest.param({"name": "Lamp"}, 422, "bad_name", id="E28-name"),
        pytest.param({"client": "x" * 65}, 422, "bad_object", id="client-long"),
        pytest.param({"facts": {"a": []}}, 422, "bad_object", id="E29-list"),
        pytest.param({"facts": {"a": None}}, 422, "bad_object", id="E29-null"),
        pytest.param({"facts": {f"f{n}": 1 for n in range(1000)}}, 422, "bad_object", id="E29-1000"),
        pytest.param({"facts": {"k" * 65: 1}}, 422, "bad_object", id="E29-key"),
    ],
)
async def test_a_bad_beginning_is_refused(
    daemon: Service, admin: Admin, changed: dict[str, Any], status: int, code: str
) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        answer = await stranger.refused("POST", "/v1/enrol/begin", {"commit": "00" * 32, "name": "lamp-1"} | changed)

    assert (answer.status, answer.code) == (status, code)


async def test_what_a_stranger_says_moves_no_cursor_e29(daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    async with daemon.remote(verified=False) as stranger:
        facts = {"a\n": "\u202eb\x00", "b": "\u00fc"}
        await ask(daemon, stranger, "lamp-1", client="\x1b[2J", facts=facts)
    shown = (await admin.ok("GET", "/v1/joins"))["items"][0]

    assert (shown["client"], shown["facts"]) == ("?[2J", {"a?": "?b?", "b": "\u00fc"})


# ---- the window and tokens ----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-1, 86401, 1.5, True, "600", None, [], 10**15])
@pytest.mark.asyncio(loop_scope="module")
async def test_the_window_opens_for_a_day_at_most(standing: Standing, seconds: Any) -> None:
    answer = await standing.admin.refused("PUT", "/v1/join-window", {"open_s": seconds})

    assert (answer.status, answer.code) == (422, "bad_parameter")


@pytest.mark.parametrize("seconds", [1, 86399, 86400])
async def test_the_window_opens_for_a_second_to_a_day(daemon: Service, admin: Admin, seconds: int) -> None:
    daemon.clock.freeze()

    assert (await admin.ok("PUT", "/v1/join-window", {"open_s": seconds}))["open"]
    daemon.clock.advance(seconds - 0.5)
    assert (await admin.ok("GET", "/v1/join-window"))["open"]
    daemon.clock.advance(1)
    assert not (await admin.ok("GET", "/v1/join-window"))["open"]


async def test_opening_for_less_never_shortens_what_another_person_opened(daemon: Service, admin: Admin) -> None:
    await open_window(admin, 3600)
    before = daemon.app.joins.closes
    await open_window(admin, 60)
    assert daemon.app.joins.closes == pytest.approx(before, abs=1)

    await open_window(admin, 7200)
    assert daemon.app.joins.closes > before + 3000


async def test_the_window_opens_and_closes(daemon: Service, admin: Admin) -> None:
    closed = await admin.ok("GET", "/v1/join-window")
    opened = await admin.ok("PUT", "/v1/join-window", {})
    again = await admin.ok("PUT", "/v1/join-window", {"open_s": 0})

    assert (closed, again) == ({"open": False, "closes": ""},) * 2
    assert opened["open"]
    assert opened["closes"]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        pytest.param({"kind": "root"}, "bad_parameter", id="kind"),
        pytest.param({"kind": []}, "bad_parameter", id="kind-list"),
        pytest.param({"ttl_s": 0}, "bad_parameter", id="ttl-0"),
        pytest.param({"ttl_s": 30 * 86400 + 1}, "bad_parameter", id="ttl-over-30-days"),
        pytest.param({"ttl_s": "60"}, "bad_parameter", id="ttl-text"),
        pytest.param({"ttl_s": True}, "bad_parameter", id="ttl-true"),
        pytest.param({"ttl_s": 1.5}, "bad_parameter", id="ttl-fraction"),
        pytest.param({"uses": 0}, "bad_parameter", id="uses-0"),
        pytest.param({"uses": 1001}, "bad_parameter", id="uses-1001"),
        pytest.param({"name": "LAMP-*"}, "bad_parameter", id="pattern-upper-case"),
        pytest.param({"name": "lamp-[12]"}, "bad_parameter", id="pattern-brackets"),
        pytest.param({"name": "x" * 64}, "bad_parameter", id="pattern-64"),
        pytest.param({"name": ""}, "bad_parameter", id="pattern-empty"),
        pytest.param({"name": 0}, "bad_parameter", id="pattern-number"),
        pytest.param({"schema": "Lamp"}, "bad_name", id="schema-name"),
        pytest.param({"schema": 0}, "bad_name", id="schema-number"),
        pytest.param({"schema": "nothing"}, "no_such_schema", id="schema-unknown"),
        pytest.param({"labels": []}, "bad_parameter", id="labels-list"),
        pytest.param({"labels": {"a": None}}, "bad_parameter", id="label-null"),
        pytest.param({"labels": {"a": "b c"}}, "bad_object", id="label-space"),
        pytest.param({"groups": ["lab"]}, "unknown_field", id="unknown-field"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_bad_wish_for_a_token_is_refused(standing: Standing, wanted: dict[str, Any], code: str) -> None:
    before = await standing.admin.ok("GET", "/v1/tokens")
    answer = await standing.admin.refused("POST", "/v1/tokens", wanted)

    assert (answer.status, answer.code) == (422, code)
    assert await standing.admin.ok("GET", "/v1/tokens") == before


@pytest.mark.parametrize(
    "wanted",
    [
        {"ttl_s": 1},
        {"ttl_s": 30 * 86400 - 1},
        {"ttl_s": 30 * 86400},
        {"uses": 1},
        {"uses": 999},
        {"uses": 1000},
        {"name": "x" * 62},
        {"name": "x" * 63},
    ],
    ids=str,
)
async def test_a_wish_for_a_token_is_good_up_to_its_limits(admin: Admin, wanted: dict[str, Any]) -> None:
    await admin.ok("POST", "/v1/tokens", wanted)
    shown = (await admin.ok("GET", "/v1/tokens"))["items"][0]

    assert {key: shown[key] for key in wanted if key != "ttl_s"} == {
        key: value for key, value in wanted.items() if key != "ttl_s"
    }


async def test_a_token_is_shown_once_and_listed_without_its_secret(daemon: Service, admin: Admin) -> None:
    made = await admin.call("POST", "/v1/tokens", {"name": "lamp-*", "uses": 3, "ttl_s": 60, "labels": {"a": "b"}})
    listed = await admin.call("GET", "/v1/tokens")
    token = parse_token(made.json["token"])

    assert made.status == 201
    assert token.fingerprint == daemon.app.authority.pin
    assert token.secret.encode() not in listed.body
    shown = listed.json["items"][0]
    assert (shown["id"], shown["name"], shown["uses"], shown["used"]) == (token.id, "lamp-*", 3, 0)
    assert "secret" not in str(shown)


async def test_a_token_is_revoked_once(daemon: Service, admin: Admin) -> None:
    token = parse_token(await token_of(admin))
    first = await admin.ok("DELETE", f"/v1/tokens/{token.id}")
    second = await admin.refused("DELETE", f"/v1/tokens/{token.id}")

    assert first == {"id": token.id, "state": "revoked"}
    assert (second.status, second.code) == (404, "token_invalid")


async def test_a_code_that_was_approved_is_no_wrong_code_when_it_is_typed_again(daemon: Service, admin: Admin) -> None:
    await admin.ok("PUT", "/v1/join-window", {"open_s": 60})
    async with daemon.remote() as stranger:
        joiner = await ask(daemon, stranger, "lamp-1")
        await admin.ok("POST", APPROVE.format(joiner.code), {})
        again = [await admin.refused("POST", APPROVE.format(joiner.code), {}) for _ in range(4)]
    window = await admin.ok("GET", "/v1/join-window")

    assert {(one.status, one.code) for one in again} == {(409, "join_approved")}
    assert "device/lamp-1" in again[0].json["detail"]
    assert window["open"]
