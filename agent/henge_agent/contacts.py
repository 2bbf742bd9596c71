"""When and where the daemon was met last, what it calls this device and its schema, and whether it lets it in."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Final

from henge_agent.records import Membership
from henge_agent.state import State
from henge_protocol.errors import HengeError
from henge_protocol.model import is_name

KNOWN_TIME_S: Final = 86400
"""How much newer a moment is that is worth a write to the card."""

log = logging.getLogger(__name__)


class Contacts:
    """Remembers for one joined device; a disk that takes nothing is told to the log and costs a search later."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._address_not_kept = ""

    async def keep(self, address: str, name: str, passed: float) -> None:
        """Remember where the daemon answered and what it calls this device, and once a day when.

        ``passed`` is what the clocks of both say has passed. One alone is not believed: with a moment to come no daemon
        would be let in.
        """
        known, moment = self._membership.known_time, int(passed)
        name = name if is_name(name) else self._membership.name
        if moment < known + KNOWN_TIME_S:
            moment = known
        kept = partial(replace, last_address=address, name=name, known_time=moment, refused="")
        if kept(self._membership) == self._membership:
            return
        try:
            await asyncio.to_thread(self._state.update_membership, kept)
        except HengeError as error:
            level = logging.DEBUG if self._address_not_kept == address else logging.WARNING
            self._address_not_kept = address
            log.log(level, "the daemon's address %s is not kept: %s", address, error)

    async def keep_schema(self, name: str) -> None:
        """Remember what the daemon calls the schema of this device, should it have to be told one day."""
        if not is_name(name) or self._membership.schema == name:
            return
        try:
            await asyncio.to_thread(self._state.update_membership, partial(replace, schema=name))
        except HengeError as error:
            log.warning("the name of the schema is not kept: %s", error)

    async def keep_refusal(self, code: str) -> None:
        """Remember that the daemon lets this device in no more, for ``henge-agent status``."""
        if self._membership.refused == code:
            return
        try:
            await asyncio.to_thread(self._state.update_membership, partial(replace, refused=code))
        except HengeError as error:
            log.warning("it is not kept that the daemon refuses this device: %s", error)

    @property
    def _membership(self) -> Membership:
        if self._state.membership is None:
            raise LookupError("only a device that has joined has contacts")
        return self._state.membership
