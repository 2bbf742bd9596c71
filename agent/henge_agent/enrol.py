"""Joining: by a token that names the daemon's authority, or by a code that two people's eyes compare.

Whoever joins is asked to know the time: a daemon whose certificate has ended by this device's clock gets no token.

The order of steps is the protection. Of an unverified daemon nothing is taken but its public claim
(``GET /v1/trust``); what is secret goes over a second connection, verified against the authority that the
token names. Without a token both sides fix a random value before they see the other's, so that equal codes
mean that nobody sits between them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from henge_agent.exchange import USER_AGENT, Answer, Exchange, encode_body, refusal, whoami
from henge_agent.identity import Issued, read_issued
from henge_agent.records import Membership, Progress
from henge_agent.renew import exchange_as
from henge_agent.settings import Address
from henge_agent.state import State
from henge_protocol import joining, pki
from henge_protocol.errors import Gone, HengeError, Malformed, Unreachable, Untrusted
from henge_protocol.joining import JoinToken
from henge_protocol.peertext import clean_text
from henge_protocol.trust import MAX_TRUST_BYTES, TRUST_PATH, Trust, check_trust_answer

POLL_WAIT_S: Final = 25
MAX_CANDIDATES: Final = 4
"""So many addresses are tried in one go; anybody can announce more."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applicant:
    """What a device says of itself when it asks to join."""

    name: str
    facts: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Joined:
    """A join that succeeded, and what did not: empty, or why the first use of the identity failed."""

    membership: Membership
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Chance:
    """Time and randomness, as arguments."""

    now: Callable[[], float]
    random: Callable[[], float]
    random_bytes: Callable[[int], bytes]


async def join_by_token(
    state: State, token: JoinToken, candidates: Sequence[Address], applicant: Applicant, named: str, chance: Chance
) -> Joined:
    """Join with a token at the first candidate that is the daemon the token names.

    The key is kept until the join is finished: repeated with the same token after a lost answer, the daemon
    gives the same identity. ``named`` is the address as a person gave it, or empty. Raises what the last
    candidate raised: ``Untrusted``, ``Unreachable``, or the daemon's refusal.
    """
    if token.kind != "join":
        raise Malformed(
            "token_malformed", "this token is for operators, not for devices", cure="make one: hengectl token create"
        )
    address, trust = await _first_trusted(candidates, token.fingerprint)
    key_pem = await asyncio.to_thread(_joining_key, state, token.id)
    async with Exchange.verified(address, trust.fleet_id, trust.server_ca_ders, passed=chance.now()) as exchange:
        answer = await exchange.post("/v1/enrol", _token_body(token, key_pem, applicant))
    if answer.status != 201:
        error = refusal(answer)
        if error.code == "key_in_use":
            await asyncio.to_thread(state.drop_joining_key)
        raise error
    issued = read_issued(answer, key_pem, trust.fleet_id)
    membership = await asyncio.to_thread(_keep, state, issued, key_pem, address, named, chance)
    return Joined(membership, await _first_use(state, membership, address))


async def join_by_code(
    state: State,
    candidates: Sequence[Address],
    applicant: Applicant,
    named: str,
    chance: Chance,
    *,
    show: Callable[[str], None],
    confirm: Callable[[str], Awaitable[bool]],
) -> Joined:
    """Ask to join, ``show`` the eight digits, wait for an operator to type them, let ``confirm`` compare.

    All but the daemon's public claim travels over connections verified against the authority that the digits
    cover, and nothing is kept before ``confirm`` has said yes; when it says no, ``Gone join_rejected`` is
    raised. Else raises as ``join_by_token``.
    """
    address, trust = await _first_trusted(candidates, None)
    trust = Trust(trust.fleet_id, trust.server_ca_ders[:1])
    key_pem = await asyncio.to_thread(pki.generate_key)
    async with Exchange.verified(address, trust.fleet_id, trust.server_ca_ders, passed=chance.now()) as exchange:
        sid, code = await _exchange_nonces(exchange, trust, key_pem, applicant, chance)
        show(code)
        answer = await _approved(exchange, sid)
        issued = read_issued(answer, key_pem, trust.fleet_id)
        if not await confirm(code):
            await exchange.post(f"/v1/enrol/{sid}/answer", encode_body({"accept": False}))
            raise Gone("join_rejected", "the codes are not the same, so the request was withdrawn")
    if trust.server_ca_ders[0] not in issued.trust.server_ca_ders:
        raise Untrusted("pin_mismatch", "the daemon names another authority than the one that the code covers")
    membership = await asyncio.to_thread(_keep, state, issued, key_pem, address, named, chance)
    return Joined(membership, await _first_use(state, membership, address))


async def _first_trusted(candidates: Sequence[Address], fingerprint: bytes | None) -> tuple[Address, Trust]:
    cure = "name one: henge-agent join https://HOST:4364"
    trouble: HengeError = Unreachable("no_daemon", "no daemon was found", cure=cure)
    for address in candidates[:MAX_CANDIDATES]:
        try:
            async with Exchange.unverified(address) as exchange:
                answer = await exchange.get(TRUST_PATH, limit_bytes=MAX_TRUST_BYTES)
            if answer.status != 200:
                said = f"{address} answers with status {answer.status}; perhaps it is no henge daemon"
                raise Malformed("bad_trust_answer", said)
            return address, check_trust_answer(answer.body, fingerprint)
        except HengeError as error:
            log.info("%s is not taken: %s", address, error)
            trouble = error
    raise trouble


def _joining_key(state: State, purpose: str) -> bytes:
    key_pem = state.joining_key(purpose)
    if key_pem is None:
        key_pem = pki.generate_key()
        state.keep_joining_key(purpose, key_pem)
    return key_pem


def _token_body(token: JoinToken, key_pem: bytes, applicant: Applicant) -> bytes:
    return encode_body(
        {
            "token_id": token.id,
            "secret": token.secret,
            "csr": pki.make_csr(key_pem, applicant.name),
            "name": applicant.name,
            "facts": dict(applicant.facts),
        }
    )


async def _exchange_nonces(
    exchange: Exchange, trust: Trust, key_pem: bytes, applicant: Applicant, chance: Chance
) -> tuple[str, str]:
    """Commit, learn the daemon's nonce, reveal ours; the request's id and the eight digits."""
    spki, nonce = pki.key_spki_der(key_pem), chance.random_bytes(joining.NONCE_BYTES)
    begin = {
        "commit": joining.commitment(nonce, spki).hex(),
        "name": applicant.name,
        "client": USER_AGENT,
        "facts": dict(applicant.facts),
    }
    begun = await _posted(exchange, "/v1/enrol/begin", begin)
    sid, theirs = _begun(begun, trust)
    csr = pki.make_csr(key_pem, applicant.name)
    await _posted(exchange, "/v1/enrol/reveal", {"sid": sid, "nonce": nonce.hex(), "csr": csr})
    fingerprint = hashlib.sha256(trust.server_ca_ders[0]).digest()
    return sid, joining.code(sid, nonce, theirs, spki, fingerprint)


def _begun(fields: Mapping[str, Any], trust: Trust) -> tuple[str, bytes]:
    sid, nonce = fields.get("sid"), fields.get("nonce")
    if not isinstance(sid, str) or not sid.isascii() or not sid.isalnum() or len(sid) > 64:
        raise Malformed("join_mismatch", "the daemon's answer has no request id")
    if fields.get("fleet") != trust.fleet_id:
        raise Malformed(
            "join_mismatch", f"the daemon names fleet {clean_text(str(fields.get('fleet')), 40)}, not its own"
        )
    try:
        return sid, bytes.fromhex(str(nonce))
    except ValueError:
        raise Malformed("join_mismatch", "the daemon's answer has no nonce") from None


async def _posted(exchange: Exchange, path: str, fields: Mapping[str, object]) -> dict[str, Any]:
    answer = await exchange.post(path, encode_body(fields))
    if answer.status not in (200, 201):
        raise refusal(answer)
    return answer.fields()


async def _approved(exchange: Exchange, sid: str) -> Answer:
    """Wait until an operator approves; ends by the daemon's own deadline for the request."""
    while True:
        answer = await exchange.get(f"/v1/enrol/{sid}", {"wait": str(POLL_WAIT_S)}, timeout_s=POLL_WAIT_S + 15)
        if answer.status == 200:
            return answer
        if answer.status != 202:
            raise refusal(answer)
        await asyncio.sleep(0.2)  # against a daemon that answers at once


def _keep(state: State, issued: Issued, key_pem: bytes, address: Address, named: str, chance: Chance) -> Membership:
    slot = state.free_slot()
    state.write_identity(slot, issued.pem(key_pem))
    membership = Membership(
        fleet_id=issued.trust.fleet_id,
        device_id=issued.device_id,
        name=issued.name,
        server_ca_ders=issued.trust.server_ca_ders,
        slot=slot,
        renew_at=issued.renew_at(chance.now(), chance.random),
        address=named,
        last_address=str(address),
        known_time=int(min(issued.now, chance.now())),
    )
    if state.progress != Progress():
        state.forget_revisions()
    state.keep_membership(membership)
    state.drop_joining_key()
    return membership


async def _first_use(state: State, membership: Membership, address: Address) -> str:
    """Use the identity once, so that the daemon knows it arrived; failing is no reason to join again."""
    try:
        async with exchange_as(state, membership, address) as exchange:
            await whoami(exchange)
    except HengeError as error:
        return error.message
    return ""
