"""Devices in contact: what a live link and a long-poll do alike, so that both are thin shells around it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from hengd.events import EventLog, Type
from hengd.hub import Hub, Listener
from hengd.records import Desired, Reported
from hengd.rules.authority import Authority, Caller
from hengd.rules.deliveries import Deliveries, Delivery
from hengd.rules.presence import Presence
from hengd.rules.reports import Reports, WhenDurable
from hengd.rules.states import (
    after_foreign_hello,
    after_hello,
    after_report,
    due_in_s,
    forgiven,
    protocol_gap,
    retry_in_s,
)
from henge_protocol.errors import Invalid
from henge_protocol.wire import Hello, Receipt, Report, Welcome, choose_version

FIRST: Final = Hello(protocol=(1, 1))
"""Stands for who asks by long-poll and has not said yet what it speaks."""

log = logging.getLogger("hengd.contact")


class Contacts:
    """Makes a ``Contact`` for each conversation, from the rules that all of them need."""

    def __init__(
        self,
        authority: Authority,
        deliveries: Deliveries,
        reports: Reports,
        presence: Presence,
        hub: Hub,
        events: EventLog,
        *,
        speaks: tuple[int, int],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.authority = authority
        self.deliveries = deliveries
        self.reports = reports
        self.presence = presence
        self.hub = hub
        self.events = events
        self.speaks = speaks
        """Lowest and highest protocol version."""
        self.clock = clock
        self.monotonic = monotonic
        self._began = monotonic()

    @property
    def up_s(self) -> int:
        """How long the daemon has been there for devices, in whole seconds from 1 on."""
        return max(1, int(self.monotonic() - self._began))

    def identify(self, certificate: bytes | None, address: str) -> Caller:
        """Who shows this certificate (DER); see ``Authority.identify``."""
        return self.authority.identify(certificate, address)

    def meet(self, caller: Caller, address: str) -> Contact:
        """A conversation with the device behind a certificate."""
        return Contact(self, caller, address)


class Contact:
    """One conversation with one device: as long as its link, or for one request.

    ``reported`` is what the device last said; ``latest`` reads it, ``hello`` and ``report`` bring it forward and
    ``record`` or ``recorded`` makes it durable.
    """

    __slots__ = ("_address", "_among", "caller", "reported")

    def __init__(self, among: Contacts, caller: Caller, address: str) -> None:
        self._among = among
        self._address = address
        self.caller = caller
        self.reported = Reported()

    @property
    def device_id(self) -> str:
        """Who it is, by its certificate."""
        return self.caller.subject

    # ---- being there ---------------------------------------------------------------------------------

    def arrive(self) -> None:
        """Count the device as connected, once for each ``leave``."""
        if self._among.presence.arrive(self.device_id, self._address, now=self._among.clock()):
            self._tell("device.online", address=self._address)

    def leave(self) -> None:
        """The connection that ``arrive`` counted has ended."""
        if self._among.presence.leave(self.device_id, now=self._among.clock()):
            self._tell("device.offline", address=self._address)

    def hold(self, close: Callable[[], None]) -> bool:
        """Call ``close`` when the identity ends; False if it has ended already. Ends with ``release``."""
        self._among.authority.ends.hold("device", self.device_id, close)
        return not self.is_cut

    def release(self, close: Callable[[], None]) -> None:
        """The conversation ended by itself."""
        self._among.authority.ends.release("device", self.device_id, close)

    @property
    def is_cut(self) -> bool:
        """Whether the identity has ended: nothing more may be sent."""
        return self._among.authority.ends.is_cut("device", self.device_id)

    def note_use(self) -> None:
        """The certificate proved itself on a connection."""
        self._among.authority.note_use(self.caller)

    def listen(self, bell: Listener) -> None:
        """Ring ``bell`` whenever what the device should run may differ. Listen first, look second."""
        self._among.hub.listen(self.device_id, bell)

    def ignore(self, bell: Listener) -> None:
        """Ring ``bell`` no more."""
        self._among.hub.forget(self.device_id, bell)

    # ---- what the device says ------------------------------------------------------------------------

    def latest(self) -> Reported:
        """What the device said last, on this conversation or an earlier one."""
        self.reported = self._among.reports.latest(self.device_id)
        return self.reported

    def agree(self, hello: Hello = FIRST) -> int:
        """The protocol version of this conversation: the highest that both speak.

        Raises ``Invalid unsupported_protocol`` if there is none, and notes it for people to see. Who asks without a
        hello speaks version 1.
        """
        version = choose_version(hello.protocol, self._among.speaks)
        if version is None:
            said, cure = protocol_gap(hello.protocol, self._among.speaks)
            self._note_foreign(hello, f"{said}; {cure}")
            raise Invalid("unsupported_protocol", f"device/{self.caller.name}: {said}", cure=cure)
        return version

    def _note_foreign(self, hello: Hello, why: str) -> None:
        old = self.latest()
        hello = self._among.deliveries.discreet(self.device_id, hello, old.running)
        self.reported = after_foreign_hello(old, hello, now=self._among.clock(), address=self._address)
        is_news = (old.speaks_from, old.speaks_to) != hello.protocol
        if is_news:
            log.warning(
                "%s is sent nothing: %s", self.caller.name, why,
                extra={"event": "protocol_unsupported", "device": self.caller.name},
            )  # fmt: skip
        self.greeted(announce=is_news, now=self._among.monotonic())

    def hello(self, hello: Hello) -> bool:
        """Take a greeting; whether it tells of another state than the device's last words."""
        old = self.latest()
        hello = self._among.deliveries.discreet(self.device_id, hello, old.running)
        self.reported = after_hello(old, hello, now=self._among.clock(), address=self._address)
        if self.reported.shared and not old.shared:
            self._tell_shared(self.reported.shared)
        now = self.reported
        return (old.running, old.state, old.shared) != (now.running, now.state, now.shared)

    def _tell_shared(self, addresses: list[str]) -> None:
        log.warning(
            "two devices show the certificate of %s, from %s: nothing is sent to it until somebody looks",
            self.caller.name, " and ".join(addresses), extra={"event": "identity_shared", "device": self.caller.name},
        )  # fmt: skip
        self._tell("device.shared", addresses=addresses)

    def report(self, report: Report) -> bool:
        """Take a report; False for one about a revision that this daemon never issued."""
        report = self._among.deliveries.redacted(self.device_id, report, self.reported.running)
        taken = after_report(self.reported, report, self._among.deliveries.line, now=self._among.clock())
        if taken is None:
            return False
        self.reported = taken
        return True

    def hidden(self, text: str) -> str:
        """What the device says, without secrets of its documents."""
        return self._among.deliveries.hidden(self.device_id, text, self.reported.running)

    def forgive(self) -> None:
        """A person said retry: nothing is refused any more."""
        self.reported = forgiven(self.reported)

    def greeted(self, *, announce: bool, now: float) -> None:
        """Make what ``hello`` brought durable, soon; see ``Reports.greeted``."""
        self._among.reports.greeted(self.device_id, self.reported, announce=announce, now=now)

    def record(self, *, announce: bool, done: WhenDurable | None = None) -> None:
        """Make ``reported`` durable; see ``Reports.record``."""
        self._among.reports.record(self.device_id, self.reported, announce=announce, done=done)

    async def recorded(self) -> None:
        """Make ``reported`` durable and wait for it; raises what the store raises."""
        await self._among.reports.recorded(self.device_id, self.reported)

    # ---- what the daemon says ------------------------------------------------------------------------

    def welcome(self, version: int, ping_s: int) -> Welcome:
        """The answer to a hello."""
        deliveries, now = self._among.deliveries, int(self._among.clock())
        limit = deliveries.max_document(self.device_id)
        return Welcome(
            version, deliveries.line.epoch, self.caller.name, now, ping_s, limit, self._among.up_s,
            self._among.authority.renew_within_s(self.caller),
        )  # fmt: skip

    def receipt(self, report: Report) -> tuple[Receipt, bytes]:
        """The answer to a durable report, and its frame."""
        return self._among.deliveries.receipt(report)

    def due(self, retry_after_s: float, *, fresh: bool) -> Desired | None:
        """What should be sent now: the newest document, unless the device runs it or refused it.

        What was refused for a passing reason is due again when ``retry_after_s`` has become none. ``fresh`` asks the
        store instead of memory.
        """
        deliveries = self._among.deliveries
        desired = deliveries.newest(self.device_id, fresh=fresh)
        return (
            desired if due_in_s(desired, self.reported, deliveries.line, retry_after_s=retry_after_s) == 0.0 else None
        )

    def due_to(self, have: str, *, fresh: bool) -> tuple[Desired | None, float]:
        """What a device that says it runs ``have`` should be sent, and in how many seconds."""
        deliveries = self._among.deliveries
        desired = deliveries.newest(self.device_id, fresh=fresh)
        running = msgspec.structs.replace(self.latest(), running=have)
        again_s = retry_in_s(running, now=self._among.clock())
        wait_s = None if self.is_cut else due_in_s(desired, running, deliveries.line, retry_after_s=again_s)
        return (None, 0.0) if wait_s is None else (desired, wait_s)

    def schema(self) -> tuple[str, str, bytes]:
        """The device's schema; see ``Deliveries.schema``."""
        return self._among.deliveries.schema(self.device_id)

    def delivery(self, desired: Desired) -> Delivery:
        """The frame of a document; see ``Deliveries.delivery``."""
        return self._among.deliveries.delivery(self.device_id, desired)

    def _tell(self, type_: Type, **detail: object) -> None:
        for name in self._among.deliveries.names([self.device_id]):
            self._among.events.add(self._among.clock(), type_, "Device", name, **detail)
