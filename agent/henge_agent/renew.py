"""Renewing the identity: a new key in the free slot, tried, and only then the one that counts.

At no point is there less than one identity that works: the daemon keeps the old one until the new one is used
for the first time, and so does the agent. A cut anywhere leaves a trial that is tried again, or nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from henge_agent.exchange import Exchange, encode_body, refusal, whoami
from henge_agent.records import Membership, Slot
from henge_agent.settings import Address
from henge_agent.state import State
from henge_protocol.errors import HengeError, Untrusted

RENEW_PATH: Final = "/v1/renew"
USELESS_CODES: Final = frozenset(
    {"certificate_revoked", "certificate_superseded", "unknown_certificate", "bad_certificate", "revoked", "wrong_role"}
)
"""What a daemon says of an identity that will not work again by trying."""

LOOK_S: Final = 3600.0
"""Between looks at the clock on the wall, because a Pi's may jump by years when it learns the time."""

log = logging.getLogger(__name__)


class Due:
    """When to renew next: when the identity's own time has come, sooner if the daemon asks, later after a failure.

    Its own time is one of the clock on the wall; what was asked or failed lies some time away from now.
    """

    def __init__(self, *, now: Callable[[], float], clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._now = now
        self._clock = clock
        self._random = random
        self._asked_at = math.inf
        self._again_at: float | None = None

    def left_s(self, renew_at: float) -> float:
        """Seconds until a renewal is due, or until the next look at the clock; 0 or less when it is due."""
        own_s = min(renew_at - self._now(), LOOK_S) if self._again_at is None else self._again_at - self._clock()
        return min(own_s, self._asked_at - self._clock())

    def ask(self, within_s: int) -> None:
        """The daemon wishes for a renewal within this time: at a random moment, or the whole fleet comes at once."""
        self._asked_at = min(self._asked_at, self._clock() + within_s * self._random())

    def put_off(self, seconds: float) -> None:
        """A renewal failed: try again after this time, unless it is asked for sooner."""
        self._asked_at, self._again_at = math.inf, self._clock() + seconds

    def done(self) -> None:
        """The identity was renewed: its own time counts, and who asked has what it wanted."""
        self._asked_at, self._again_at = math.inf, None


def exchange_as(state: State, membership: Membership, address: Address, slot: Slot | None = None) -> Exchange:
    """Verified requests as this device, with the identity that counts or the one on trial."""
    identity = state.identity_file(slot or membership.slot)
    return Exchange.verified(
        address, membership.fleet_id, membership.server_ca_ders, identity, passed=membership.known_time
    )


async def renew(state: State, address: Address, *, now: Callable[[], float], random: Callable[[], float]) -> None:
    """Get a new identity and make it count.

    Raises the daemon's refusal (``Denied approval_required``: expired too long ago, only joining again helps) or
    ``Unreachable``; the old identity stays.
    """
    from henge_agent.identity import read_issued  # cryptography: a fifth of the agent's memory, needed once in months
    from henge_protocol import pki

    membership = _membership(state)
    key_pem = await asyncio.to_thread(pki.generate_key)
    async with exchange_as(state, membership, address) as exchange:
        answer = await exchange.post(RENEW_PATH, encode_body({"csr": pki.make_csr(key_pem, membership.name)}))
    if answer.status != 200:
        raise refusal(answer)
    issued = read_issued(answer, key_pem, membership.fleet_id)
    slot = state.free_slot()
    await asyncio.to_thread(state.write_identity, slot, issued.pem(key_pem))
    on_trial = partial(
        replace,
        trial=slot,
        renew_at=issued.renew_at(now(), random),
        server_ca_ders=issued.trust.server_ca_ders,
    )
    await asyncio.to_thread(state.update_membership, on_trial)
    if not await settle_trial(state, address):
        raise Untrusted("bad_certificate", "the daemon refuses the identity that it has just issued")


async def settle_trial(state: State, address: Address) -> bool:
    """Use the identity on trial, if there is one: it counts from then on, or is forgotten if it is refused (False).

    Raises ``Unreachable`` and the like when no verdict could be had; the trial goes on.
    """
    membership = _membership(state)
    if membership.trial is None:
        return True
    try:
        async with exchange_as(state, membership, address, membership.trial) as exchange:
            await whoami(exchange)
    except HengeError as error:
        if error.code not in USELESS_CODES:
            raise
        log.warning("the renewed identity is refused, the old one stays: %s", error)
        await asyncio.to_thread(state.update_membership, partial(replace, trial=None, renew_at=0))
        return False
    await asyncio.to_thread(state.update_membership, partial(replace, slot=membership.trial, trial=None))
    log.info("the identity was renewed")
    return True


def _membership(state: State) -> Membership:
    if state.membership is None:
        raise LookupError("nothing is renewed before joining")
    return state.membership
