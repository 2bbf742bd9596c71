from __future__ import annotations

import asyncio
import base64
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from henge_agent.enrol import Applicant, Chance, Joined, join_by_code, join_by_token
from henge_agent.records import Progress, Version
from henge_agent.settings import Address
from henge_agent.state import State, read_progress
from henge_protocol import joining, pki
from henge_protocol.errors import Conflict, Denied, Gone, HengeError, Malformed, Unreachable, Untrusted
from henge_protocol.joining import JoinToken
from henge_protocol.model import digest_of
from henge_protocol.wire import Report
from tests.henge_agent.scripted import Scripted, serving
from tests.henge_protocol.authorities import DEVICE, FLEET, Fleet
from tests.henge_protocol.impostors import IMPOSTORS, TRUST_ANSWERS, Impostor, claim, context_of, pretending

CHANCE = Chance(time.time, random.random, secrets.token_bytes)
APPLICANT = Applicant("lamp-1", {"arch": "aarch64"})
NOBODY = Address("127.0.0.1", 9)


async def join(state: State, token: JoinToken, *candidates: Address) -> Joined:
    return await join_by_token(state, token, candidates, APPLICANT, "", CHANCE)


# ---- by token


async def test_a_token_makes_the_device_known(state: State, scripted: Scripted) -> None:
    token = scripted.token()

    joined = await join(state, token, scripted.address)

    membership = joined.membership
    assert joined.warning == ""
    assert (membership.fleet_id, membership.device_id, membership.name) == (FLEET, DEVICE, "lamp-1")
    assert (membership.slot, membership.last_address) == ("a", str(scripted.address))
    assert [(body["token_id"], body["secret"]) for body in scripted.enrolments] == [(token.id, token.secret)]
    assert scripted.enrolments[0]["facts"] == {"arch": "aarch64"}
    assert len(scripted.certificates) == 1
    assert state.joining_key(token.id) is None


async def test_renewal_is_planned_at_two_thirds_of_life_give_or_take_a_tenth(state: State, scripted: Scripted) -> None:
    joined = await join(state, scripted.token(), scripted.address)

    days = (joined.membership.renew_at - time.time()) / pki.DAY_S
    assert 60 * 0.9 - 0.01 <= days <= 60 * 1.1 + 0.01


async def test_the_first_candidate_that_is_the_tokens_daemon_is_taken(state: State, scripted: Scripted) -> None:
    async with serving(Scripted(Fleet())) as other:
        joined = await join(state, scripted.token(), NOBODY, other.address, scripted.address)

    assert joined.membership.last_address == str(scripted.address)
    assert other.enrolments == []


async def test_revisions_of_the_daemon_before_mean_nothing_to_a_new_one(state: State, scripted: Scripted) -> None:
    document = b'{"color":"red"}'
    ran = Version("epoch", 40, digest_of(document))
    state.keep_document(document)
    state.keep_progress(Progress(ran, report=Report("epoch", 40, ran.digest, "applied")))

    await join(state, scripted.token(), scripted.address)

    assert state.progress == Progress(Version("", 0, ran.digest))
    assert state.document(ran.digest) == document
    assert read_progress(state.folder) == state.progress


async def test_a_lost_answer_is_asked_for_again_with_the_same_token_and_key(state: State, scripted: Scripted) -> None:
    token, scripted.lose_enrolments = scripted.token(), 1

    with pytest.raises(Unreachable):
        await join(state, token, scripted.address)
    joined = await join(state, token, scripted.address)

    keys = {pki.read_csr(base64.b64decode(body["csr"])).spki_sha256 for body in scripted.enrolments}
    assert (len(scripted.enrolments), len(keys)) == (2, 1)
    assert joined.membership.device_id == DEVICE


async def test_the_daemons_refusal_arrives_with_its_code_and_nothing_is_kept(state: State, scripted: Scripted) -> None:
    for status, code, kind in (
        (401, "token_expired", HengeError),
        (409, "token_used", Conflict),
        (403, "token_name", Denied),
    ):
        scripted.refuse = (status, code)
        with pytest.raises(kind) as refusal:
            await join(state, scripted.token(), scripted.address)
        assert refusal.value.code == code

    assert state.membership is None


async def test_a_key_that_is_in_use_is_not_tried_again(state: State, scripted: Scripted) -> None:
    token, scripted.refuse = scripted.token(), (409, "key_in_use")

    with pytest.raises(Conflict):
        await join(state, token, scripted.address)

    assert state.joining_key(token.id) is None


async def test_an_operators_token_is_refused_before_anything_is_sent(state: State, scripted: Scripted) -> None:
    with pytest.raises(Malformed):
        await join(state, replace(scripted.token(), kind="admin"), scripted.address)

    assert scripted.enrolments == []


async def test_an_identity_for_another_key_is_refused(state: State, scripted: Scripted) -> None:
    other = pki.make_csr(pki.generate_key(), "lamp-1")
    honest = scripted.issue
    scripted.issue = lambda csr, name: honest(other, name)  # type: ignore[method-assign]

    with pytest.raises(Untrusted) as refusal:
        await join(state, scripted.token(), scripted.address)

    assert "key" in refusal.value.message
    assert state.membership is None


async def test_an_identity_of_another_fleet_is_refused(state: State, scripted: Scripted) -> None:
    honest = scripted.issue
    scripted.issue = lambda csr, name: honest(csr, name) | {"fleet": pki.new_id(b"another fleet...")}  # type: ignore[method-assign]

    with pytest.raises(Untrusted):
        await join(state, scripted.token(), scripted.address)

    assert state.membership is None


# ---- impostors: how many bytes of the token do they see?


@pytest.mark.parametrize("identity", IMPOSTORS.values(), ids=IMPOSTORS.keys())
async def test_an_impostor_with_the_right_public_claim_gets_no_byte_of_the_token(
    state: State, fleet: Fleet, identity: Callable[[Fleet], bytes]
) -> None:
    """Everybody may know the authority's certificate; only the daemon can prove that it has one from it."""
    token = Scripted(fleet).token()
    impostor = Impostor(claim(fleet))
    async with pretending(impostor, context_of(fleet, identity(fleet))) as port:
        with pytest.raises(Untrusted) as refusal:
            await join(state, token, Address("127.0.0.1", port))

    assert refusal.value.code == "pin_mismatch"
    assert not impostor.heard_of(token)
    assert impostor.requests == 1
    assert state.membership is None


YEAR_S = 365 * 86400.0


def at(years: float) -> Chance:
    """Chance of a device whose clock is wrong by so many years."""
    return replace(CHANCE, now=lambda: max(60.0, time.time() + years * YEAR_S))


@pytest.mark.parametrize("years", [-56, -1, 1])
async def test_a_device_whose_clock_is_wrong_joins_all_the_same_k1(
    state: State, scripted: Scripted, years: int
) -> None:
    joined = await join_by_token(state, scripted.token(), [scripted.address], APPLICANT, "", at(years))

    assert joined.warning == ""
    assert joined.membership.known_time <= time.time()
    assert joined.membership.known_time == pytest.approx(min(time.time(), at(years).now()), abs=60)


async def test_a_device_whose_clock_is_decades_ahead_is_told_to_set_it_and_says_nothing_k1(
    state: State, fleet: Fleet
) -> None:
    """It cannot tell the daemon from somebody with a key that the daemon used long ago."""
    token = Scripted(fleet).token()
    impostor = Impostor(claim(fleet))
    async with pretending(impostor, context_of(fleet, fleet.server_identity())) as port:
        with pytest.raises(Untrusted) as refusal:
            await join_by_token(state, token, [Address("127.0.0.1", port)], APPLICANT, "", at(30))

    assert "timedatectl" in refusal.value.cure
    assert time.strftime("%Y", time.gmtime(at(30).now())) in refusal.value.message
    assert not impostor.heard_of(token)


@pytest.mark.parametrize(("answer", "code"), TRUST_ANSWERS.values(), ids=TRUST_ANSWERS.keys())
async def test_a_wrong_public_claim_ends_the_attempt(
    state: State, fleet: Fleet, answer: Callable[[Fleet], bytes], code: str
) -> None:
    token, impostor = Scripted(fleet).token(), Impostor(answer(fleet))
    async with pretending(impostor, context_of(fleet, fleet.server_identity())) as port:
        with pytest.raises(HengeError) as refusal:
            await join(state, token, Address("127.0.0.1", port))

    assert refusal.value.code == code
    assert not impostor.heard_of(token)
    assert impostor.requests == 1


async def test_a_redirect_is_not_followed(state: State, fleet: Fleet, scripted: Scripted) -> None:
    token, impostor = scripted.token(), Impostor(b"", status=302, location=scripted.address.url("/v1/trust"))
    async with pretending(impostor, context_of(fleet, fleet.server_identity())) as port:
        with pytest.raises(Malformed) as refusal:
            await join(state, token, Address("127.0.0.1", port))

    assert refusal.value.code == "bad_trust_answer"
    assert "302" in refusal.value.message
    assert scripted.enrolments == []
    assert not impostor.heard_of(token)


async def test_plain_http_hears_nothing(state: State, fleet: Fleet) -> None:
    token, impostor = Scripted(fleet).token(), Impostor(claim(fleet))
    async with pretending(impostor, None) as port:
        with pytest.raises(Unreachable):
            await join(state, token, Address("127.0.0.1", port))

    assert not impostor.heard_of(token)
    assert impostor.requests == 0


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 4096, b""])
async def test_other_protocols_and_garbage_hear_nothing(state: State, fleet: Fleet, greeting: bytes) -> None:
    token, heard = Scripted(fleet).token(), bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        heard.extend(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unreachable) as refusal:
            await join(state, token, Address("127.0.0.1", server.sockets[0].getsockname()[1]))

    assert refusal.value.code == "unreachable"
    assert token.secret.encode() not in heard


# ---- by code


async def by_code(
    state: State, scripted: Scripted, confirm: Callable[[str], Awaitable[bool]], shown: list[str]
) -> Joined:
    async with asyncio.timeout(20):
        return await join_by_code(
            state, [scripted.address], APPLICANT, "henge.lan:4364", CHANCE, show=shown.append, confirm=confirm
        )


async def test_both_sides_show_the_same_code_and_approval_makes_the_device_known(
    state: State, scripted: Scripted
) -> None:
    shown: list[str] = []
    asked: list[str] = []

    async def confirm(code: str) -> bool:
        asked.append(code)
        return True

    asking = asyncio.create_task(by_code(state, scripted, confirm, shown))
    code = await scripted.approve()
    joined = await asking

    assert (shown, asked) == ([code], [code])
    assert len(code) == 8
    assert code.isdigit()
    assert (joined.membership.address, joined.membership.last_address) == ("henge.lan:4364", str(scripted.address))
    begin = next(iter(scripted.joins.values()))["begin"]
    assert (begin["name"], begin["facts"]) == ("lamp-1", {"arch": "aarch64"})
    assert len(scripted.certificates) == 1


async def test_saying_no_withdraws_the_request_and_keeps_nothing(state: State, scripted: Scripted) -> None:
    async def confirm(code: str) -> bool:
        return False

    asking = asyncio.create_task(by_code(state, scripted, confirm, []))
    await scripted.approve()
    with pytest.raises(Gone) as refusal:
        await asking

    assert refusal.value.code == "join_rejected"
    assert next(iter(scripted.joins.values()))["accept"] is False
    assert state.membership is None
    assert not state.identity_file("a").exists()


async def test_somebody_in_between_shows_another_code_than_the_daemon(state: State, fleet: Fleet) -> None:
    """He may pass on every message; the code covers the authority, and that he had to replace."""
    shown: list[str] = []

    async def confirm(code: str) -> bool:
        return code == honest

    async with serving(Scripted(Fleet())) as man_in_between:
        joining_in = asyncio.create_task(by_code(state, man_in_between, confirm, shown))
        await man_in_between.approve()
        sid, seen = next(iter(man_in_between.joins.items()))
        pin = pki.fingerprint(fleet.server_ca.certificate_der)
        honest = joining.code(sid, seen["nonce_device"], seen["nonce"], pki.read_csr(seen["csr"]).spki_der, pin)
        with pytest.raises(Gone):
            await joining_in

    assert shown != [honest]
    assert state.membership is None


async def test_a_renewed_join_uses_the_other_slot(tmp_path: Path, scripted: Scripted) -> None:
    with closing(State(tmp_path / "state")) as state:
        first = await join(state, scripted.token(), scripted.address)
        second = await join(state, scripted.token(), scripted.address)

    assert (first.membership.slot, second.membership.slot) == ("a", "b")
