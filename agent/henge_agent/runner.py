"""Life after life: find the daemon, stay connected, come back politely, renew in time.

A connection lives once (``link``, ``poll``); this module decides where and when the next one begins. The device
works from its last good document whatever happens here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

from henge_agent.applier import Applier
from henge_agent.contacts import Contacts
from henge_agent.exchange import Exchange, UpgradeRefused, device_schema, retry_after_s, whoami
from henge_agent.link import Ended, Greeting, Link
from henge_agent.pauses import Pause
from henge_agent.poll import Poll, read_welcome
from henge_agent.records import Membership
from henge_agent.renew import USELESS_CODES, Due, exchange_as, renew, settle_trial
from henge_agent.rescue import Rescue, wanted_by
from henge_agent.settings import Address, read_address
from henge_agent.state import FOREIGN, REJOIN, State
from henge_agent.watch import Watch
from henge_protocol.backoff import BOOT_SPREAD_S, Backoff
from henge_protocol.errors import HengeError, Untrusted
from henge_protocol.wire import Welcome

STREAM_PATH: Final = "/v1/device/stream"
FRESH_BOOT_S: Final = 120.0
"""A machine that has run for less has probably just got its power back, as have all others in the house."""
WEBSOCKET_AGAIN_S: Final = 600.0
"""After a WebSocket did not come through, how long to make do with long-polling."""
HOURLY_S: Final = 3600.0
UNTRUSTED_S: Final = 300.0
"""Between rounds when whoever answers is not our daemon: no use in hurrying, no harm in looking again."""
SPREAD: Final = 0.2
MAX_HINTS: Final = 4
"""Announcements tried in one round; anybody can announce more."""
MAX_TROUBLES: Final = 16
"""Remembered at most; anybody can announce new addresses in each round."""
CLONED_S: Final = 60.0
"""After another device with this identity took the link over: two of them must not chase each other."""
RENEW_RETRY_S: Final = 3 * 86400.0
"""At most this long until the next try after a failed renewal: a thirtieth of a certificate's life."""
LEAST_RENEW_RETRY_S: Final = 60.0
GOOD_S: Final = 60.0
"""A link that a fault ends sooner than this after its welcome was no good one: the next such fault waits longer."""
PUT_BACK_S: Final = 1.0
"""Between noticing a change and putting back: an editor writes in several steps, and the daemon hears of it."""
QUIET_S: Final = 60.0
"""An output that is changed again sooner than this is put back later each time: somebody disagrees."""

HOPELESS_CODES: Final = USELESS_CODES | {
    "approval_required",
    "certificate_required",
    "no_such_device",
    FOREIGN,
}
"""What only a person can mend: look again every hour."""

_ELSEWHERE: Final = frozenset({"unreachable", "untrusted", "no_daemon"})
"""Endings after which the daemon may be found at another address."""
_LONG_PAUSES_S: Final = {"untrusted": UNTRUSTED_S, "replaced": CLONED_S}

log = logging.getLogger(__name__)

Find = Callable[[str], Awaitable[Sequence[Address]]]
"""Looks for daemons of a fleet; what it finds is a hint where to try."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Time, chance and the neighbourhood, as arguments."""

    now: Callable[[], float]
    """Unix time."""
    clock: Callable[[], float]
    """Seconds that only grow."""
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]
    uptime_s: float
    find: Find
    tell: Callable[[str], None]
    """Says in a few words how things are, for ``systemctl status``."""


class Runner:
    """Keeps one joined device connected. ``run`` returns only by cancellation."""

    def __init__(self, state: State, applier: Applier, greeting: Greeting, around: Surroundings) -> None:
        self._state = state
        self._applier = applier
        self._greeting = greeting
        self._around = around
        self._backoff = Backoff(around.random)
        self._after_faults = Backoff(around.random)
        self._welcomed_at = 0.0
        self._websocket_from = 0.0
        self._troubles: dict[str, str] = {}
        """What was told last of each address, and of what else may fail; the newest last."""
        self._life: asyncio.Task[Ended] | None = None
        self._address: Address | None = None
        """Where the life under way is connected, or tries to be."""
        self._rest = Pause(around.sleep)
        """Between two connections."""
        self._renewing = asyncio.Lock()
        self._renewal = Due(now=around.now, clock=around.clock, random=around.random)
        self._renewal_rest = Pause(around.sleep)
        self._contacts = Contacts(state)
        self._rescue = Rescue(state, applier, greeting, clock=around.clock)

    async def run(self) -> None:
        """Put the outputs in order, then apply, stay connected and renew until cancelled."""
        await self._applier.put_back()
        with closing(Watch(self._applier.paths)) as self._watch:
            await self._run()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._applier.run())
            tasks.create_task(self._live())
            tasks.create_task(self._keep_in_place())
            tasks.create_task(self._notice_changes())
            tasks.create_task(self._prove_trials())
            tasks.create_task(self._come_back())
            tasks.create_task(self._renew_in_time())
            tasks.create_task(self._applier.reboot_when_asked())

    async def _keep_in_place(self) -> None:
        """Try again, with pauses, while an output cannot be written, whether there is a daemon or not."""
        backoff, seen = Backoff(self._around.random), -1
        while True:
            if self._applier.unwritten:
                await self._around.sleep(backoff.next_delay_s())
                await self._applier.put_back()
            else:
                backoff.reset()
                seen = await self._applier.news(seen)
            self._watch.renew()  # the folder of an output may have come with the document

    async def _notice_changes(self) -> None:
        """Say that somebody changed an output, then put it back; ever later if somebody goes on changing it."""
        backoff, last = Backoff(self._around.random), -QUIET_S
        while True:
            await self._watch.changed()
            if not await self._applier.notice_changes():
                continue
            if self._around.clock() - last >= QUIET_S:
                backoff.reset()
            await self._around.sleep(PUT_BACK_S + backoff.next_delay_s())
            await self._applier.put_back()
            last = self._around.clock()

    # ---- trials of documents

    async def _prove_trials(self) -> None:
        """A connection may outlive a firewall that lets no new one through: see whether a new one is possible."""
        seen = -1
        while True:
            seen = await self._applier.news(seen)
            if not self._applier.unproven or self._life is None or self._address is None:
                continue
            try:
                async with exchange_as(self._state, self._membership, self._address) as exchange:
                    await whoami(exchange)
            except HengeError as error:
                self._trouble("no new connection with this document", error.message, error.cure)
                self._hurry()
            else:
                await self._applier.reached()

    async def _come_back(self) -> None:
        """When a trial was undone, connect at once with what runs again: that tells who was guilty."""
        while True:
            await self._applier.undone()
            self._backoff.reset()
            self._hurry()

    def _hurry(self) -> None:
        """End the connection or the pause under way; the next one begins at once."""
        if self._life is not None:
            self._life.cancel()
        self._rest.end()

    # ---- connections

    async def _live(self) -> None:
        if self._around.uptime_s < FRESH_BOOT_S:
            await self._around.sleep(BOOT_SPREAD_S * self._around.random())
        while True:
            await self._applier.put_back()  # a hello promises what the outputs hold
            ended = await self._round()
            await self._rest.take(await self._pause_s(ended))

    async def _round(self) -> Ended:
        """One life with the first address that is our daemon's: the known ones first, then those announced.

        If none is, the place where the daemon was last decides how long to stay away: who is elsewhere may be anybody.
        """
        endings = []
        for address in self._known():
            endings.append(await self._life_at(address))
            if endings[-1].reason not in _ELSEWHERE:
                return endings[-1]
        for address in await self._announced():
            found = await self._life_at(address)
            if found.reason not in _ELSEWHERE:
                return found
        return endings[0] if endings else Ended("no_daemon")

    def _known(self) -> list[Address]:
        """Where the daemon was last, then where it was when the device joined."""
        texts = dict.fromkeys((self._membership.last_address, self._membership.address))
        return [read_address(text) for text in texts if text]

    async def _announced(self) -> Iterable[Address]:
        known = set(self._known())
        found = await self._around.find(self._membership.fleet_id)
        return [address for address in found if address not in known][:MAX_HINTS]

    async def _life_at(self, address: Address) -> Ended:
        life = self._life = asyncio.create_task(self._connected(address))
        self._address = address
        try:
            await asyncio.wait([life])
        except asyncio.CancelledError:
            life.cancel()
            await asyncio.wait([life])
            raise
        finally:
            self._life = None
        if life.cancelled():
            return Ended("again")
        try:
            ended = life.result()
        except HengeError as error:
            self._trouble(str(address), error.message, error.cure)
            reason = "untrusted" if isinstance(error, Untrusted) else error.code
            return Ended("rescue" if wanted_by(error) else reason, retry_after_s=retry_after_s(error))
        if ended.welcome is None:
            said = f"the connection ended before the daemon welcomed this device ({ended.said or ended.reason})"
            self._trouble(str(address), said, "")
        return ended

    async def _connected(self, address: Address) -> Ended:
        if self._membership.trial is not None:
            async with self._renewing:  # a renewal under way writes to the slot on trial
                await settle_trial(self._state, address)
        async with exchange_as(self._state, self._membership, address) as exchange:
            self._applier.schemas.source = partial(device_schema, exchange, self._contacts.keep_schema)
            try:
                return await self._talk(address, exchange)
            except HengeError as error:
                if wanted_by(error) and await self._rescue.hand_in(exchange, wanted_by(error)):
                    self._backoff.reset()
                raise
            finally:
                self._applier.schemas.source = None

    async def _talk(self, address: Address, exchange: Exchange) -> Ended:
        if self._around.clock() < self._websocket_from:
            return await self._polling(exchange)
        try:
            socket = await exchange.websocket(STREAM_PATH)
        except UpgradeRefused as refused:
            return await self._without_websocket(exchange, refused)
        note = partial(self._welcomed, address)
        return await Link(socket, self._applier, self._greeting, clock=self._around.clock, on_welcome=note).run()

    async def _without_websocket(self, exchange: Exchange, refused: UpgradeRefused) -> Ended:
        """A plain request tells whether the daemon refuses us (raised) or something in between the WebSocket."""
        await whoami(exchange)
        log.warning("no WebSocket comes through to %s (%s); long-polling instead", exchange.address, refused)
        self._websocket_from = self._around.clock() + WEBSOCKET_AGAIN_S
        return await self._polling(exchange)

    async def _polling(self, exchange: Exchange) -> Ended:
        welcome = read_welcome(await whoami(exchange))
        await self._welcomed(exchange.address, welcome)
        poll = Poll(exchange, self._applier, self._greeting, clock=self._around.clock, until=self._websocket_from)
        return await poll.run(welcome)

    async def _welcomed(self, address: Address, welcome: Welcome) -> None:
        await self._applier.reached(welcome.up_s)
        name = welcome.name or self._membership.name
        self._backoff.reset()
        self._troubles.clear()
        self._welcomed_at = self._around.clock()
        if welcome.renew_within_s and self._membership.trial is None:
            self._renewal.ask(welcome.renew_within_s)
            self._renewal_rest.end()
        log.info("connected to %s as %s", address, name)
        self._around.tell(f"connected to {address} as {name}")
        await self._contacts.keep(str(address), name, min(welcome.time, self._around.now()))

    async def _pause_s(self, ended: Ended) -> float:
        """How long to stay away after a life that ended so."""
        if ended.reason == "again":
            return 0.0
        reason = ended.reason
        if reason == "certificate_expired":
            reason = await self._renewed()
            if not reason:
                return 0.0
        if ended.welcome is not None:
            self._tell_end(reason)
        self._around.tell(f"not connected ({reason}); running the last good document")
        if reason in USELESS_CODES or reason == FOREIGN:
            await self._contacts.keep_refusal(reason)
        if reason in HOPELESS_CODES:
            return self._spread_s(HOURLY_S)
        if reason in _LONG_PAUSES_S:
            return self._spread_s(_LONG_PAUSES_S[reason])
        if ended.fault and ended.welcome is not None:
            return self._fault_pause_s()
        self._after_faults.reset()
        if ended.retry_after_s is not None:
            self._backoff.hint(ended.retry_after_s)
        return self._backoff.next_delay_s()

    def _fault_pause_s(self) -> float:
        """Each link is welcomed and then breaks: who came back at once would do so for ever, with the whole fleet."""
        if self._around.clock() - self._welcomed_at >= GOOD_S:
            self._after_faults.reset()
        return self._after_faults.next_delay_s()

    def _tell_end(self, reason: str) -> None:
        if reason in USELESS_CODES:
            log.warning(
                "the connection ended (%s): the daemon lets this device in no more; outputs stay as they are (%s)",
                reason,
                REJOIN,
            )
        else:
            log.info("the connection ended (%s)", reason)

    def _trouble(self, subject: str, text: str, cure: str) -> None:
        """A trouble that goes on is told once, though others come in between."""
        level = logging.DEBUG if self._troubles.pop(subject, None) == text else logging.WARNING
        self._troubles[subject] = text
        if len(self._troubles) > MAX_TROUBLES:
            del self._troubles[next(iter(self._troubles))]
        log.log(level, "%s: %s%s", subject, text, f" ({cure})" if cure else "")

    # ---- renewal

    async def _renew_in_time(self) -> None:
        while True:
            left_s = self._renewal.left_s(self._membership.renew_at)
            if left_s > 0:
                await self._renewal_rest.take(left_s)
                continue
            reason = await self._renewed()
            if reason in HOPELESS_CODES:
                self._renewal.put_off(self._spread_s(HOURLY_S))
            elif reason:
                self._renewal.put_off(max(LEAST_RENEW_RETRY_S, RENEW_RETRY_S * self._around.random()))

    async def _renewed(self) -> str:
        """Renew at the address that worked last; empty when it succeeded, else the code of why not.

        On success the link comes back at once, under the new identity. Who had to wait for another renewal to
        succeed has what it wanted.
        """
        known = self._known()
        if not known:
            return "no_daemon"
        before = self._membership
        async with self._renewing:
            if (self._membership.slot, self._membership.renew_at) != (before.slot, before.renew_at):
                return ""
            try:
                await renew(self._state, known[0], now=self._around.now, random=self._around.random)
            except HengeError as error:
                self._trouble("the identity was not renewed", error.message, error.cure)
                return error.code
            self._renewal.done()
        if self._life is not None:
            self._life.cancel()
        return ""

    def _spread_s(self, seconds: float) -> float:
        return seconds * (1 - SPREAD + 2 * SPREAD * self._around.random())

    @property
    def _membership(self) -> Membership:
        if self._state.membership is None:
            raise LookupError("the runner needs a device that has joined")
        return self._state.membership
