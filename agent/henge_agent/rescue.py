"""Handing in what runs here, to a daemon of this fleet that has lost its store and wants to know.

It gives away no more than the daemon had: the pinned authority vouches for it, as for every other request. What comes
of it a person decides there; this device goes on with what it runs, and asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from henge_agent.applier import Applier
from henge_agent.exchange import USER_AGENT, Exchange, encode_body, refusal
from henge_agent.link import Greeting
from henge_agent.state import State
from henge_protocol.errors import HengeError
from henge_protocol.model import MAX_RESCUED_SCHEMA_BYTES

RESCUE_PATH: Final = "/v1/device/rescue"
AGAIN_S: Final = 3600.0
"""How long what was handed in is taken for kept there."""

log = logging.getLogger(__name__)


def wanted_by(error: HengeError) -> str:
    """The history line of a daemon that refuses this device and wants to know what it runs; else nothing."""
    wish = error.extra.get("rescue")
    return wish if error.code == "unknown_certificate" and isinstance(wish, str) else ""


class Rescue:
    """Hands in the last good document, once an hour for each history line of the daemon, and when it is another one."""

    def __init__(self, state: State, applier: Applier, greeting: Greeting, *, clock: Callable[[], float]) -> None:
        self._state = state
        self._applier = applier
        self._greeting = greeting
        self._clock = clock
        self._done = ("", "")
        """For which line of the daemon, and which document."""
        self._until = 0.0

    async def hand_in(self, exchange: Exchange, epoch: str) -> bool:
        """Hand in what runs here, unless that was done lately; whether it was done now. The log tells of a refusal."""
        current, membership = self._state.progress.current, self._state.membership
        if current is None or membership is None:
            return False
        if self._done == (epoch, current.digest) and self._clock() < self._until:
            return False
        document = await asyncio.to_thread(self._state.document, current.digest)
        if document is None:
            return False
        named = {"schema": membership.schema} if membership.schema else {}
        body: dict[str, object] = {
            "name": membership.name, "document": document, "digest": current.digest, "epoch": current.epoch,
            "revision": current.revision, "client": USER_AGENT, "facts": {**self._greeting.facts, **named},
        }  # fmt: skip
        schema = await asyncio.to_thread(self._applier.schemas.newest)
        if schema is not None and len(schema) <= MAX_RESCUED_SCHEMA_BYTES:
            body["schema"] = schema
        try:
            answer = await exchange.post(RESCUE_PATH, encode_body(body))
            if answer.status != 202:
                raise refusal(answer)
        except HengeError as error:
            log.warning("%s does not take what runs here: %s", exchange.address, error.message)
            return False
        self._done, self._until = (epoch, current.digest), self._clock() + AGAIN_S
        log.warning(
            "%s has lost what it knew; it was told what runs here, and waits for a person: hengectl rescue list",
            exchange.address,
        )
        return True
