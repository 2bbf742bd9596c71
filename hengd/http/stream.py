"""A device's live link: the shell around the session machine, role daemon. One object lives for one connection."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

from hengd.http.dispatch import Peer
from hengd.http.edge import Auth, check_caller
from hengd.http.head import Refusal
from hengd.http.problems import refusal_of
from hengd.http.stream_protocol import GOING_AWAY, StreamLimits, StreamProtocol, StrictListener, websocket_protocol
from hengd.rules.contact import Contact, Contacts
from hengd.rules.states import FAILED
from henge_protocol.backoff import delay_s
from henge_protocol.errors import HengeError, Internal, Invalid, Unavailable
from henge_protocol.session import CLOSE_PROTOCOL, CLOSE_RENEW, CLOSE_REPLACED, CLOSE_REVOKED, Session
from henge_protocol.wire import (
    MAX_DEVICE_FRAME_BYTES,
    Bye,
    Config,
    Error,
    Hello,
    Message,
    Report,
    decode,
    encode,
)  # fmt: skip

log = logging.getLogger("hengd.link")

LIMITS: Final = StreamLimits(max_message_bytes=MAX_DEVICE_FRAME_BYTES, ping_after_s=25.0, reply_s=15.0)
"""Links are looked at every five seconds, so a dead peer is noticed after 45."""
INTERNAL_ERROR: Final = 1011
LOOK_EVERY_S: Final = 30.0
"""A look at the newest document without a ring: a lost bell costs this much time and no more."""
RETRY_BASE_S: Final = 15.0
RETRY_SPREAD: Final = 10
"""A passing refusal is offered again after ``RETRY_BASE_S`` and so many times a backoff's delay: at most 10 minutes."""
REPORTS_REMEMBERED: Final = 32
REPORTS_PER_DELIVERY: Final = 2
"""``applying`` and how it ended: what a device says because it was sent something is not held against it."""
EXPIRY_GRACE_S: Final = 24 * 3600.0
"""A device that is connected when its certificate ends gets this long to renew."""


class Links:
    """All live links and what they need; makes new ones, says goodbye to all."""

    def __init__(
        self,
        contacts: Contacts,
        *,
        monotonic: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.monotonic = monotonic
        self.chance = chance
        self.stopping = False
        self._contacts = contacts
        self._open_links: set[DeviceLink] = set()
        self._live: dict[str, DeviceLink] = {}
        """Those that have said hello, by device."""
        self._reports_read: dict[bytes | str, Report] = {}

    def protocol(self, peer: Peer) -> StreamProtocol:
        """The server's end of one WebSocket (``stream_factory`` of the gate)."""
        return websocket_protocol(lambda: self._open(peer), limits=LIMITS, log=log)

    def forgive(self, device_id: str) -> None:
        """A person said retry: the link of this device forgets what was refused."""
        link = self._live.get(device_id)
        if link is not None:
            link.forgive()

    def say_goodbye(self, retry_after_s: int) -> None:
        """Tell every device that the daemon stops and when to come back, and close."""
        self.stopping = True
        self.recall(retry_after_s, "stopping")

    def recall(self, retry_after_s: int, reason: str = "greet-anew") -> None:
        """End all links and say when to come back, so that each device is greeted anew; not all at once."""
        spread_s = max(1, len(self._open_links) // 200)
        for link in list(self._open_links):
            link.say_bye(reason, retry_after_s + secrets.randbelow(spread_s + 1))

    def ask(self, device_id: str, candidate: Config) -> asyncio.Future[Report | Error] | None:
        """Send a device a candidate to check; its answer, cancelled when there will be none. None: it has no link."""
        link = self._live.get(device_id)
        return None if link is None else link.ask(candidate)

    def read_frame(self, frame: bytes | str) -> Message:
        """``decode``, remembering reports: a fleet that applies one document says the same words thousands of times."""
        known = self._reports_read.get(frame)
        if known is not None:
            return known
        message = decode(frame)
        if type(message) is Report:
            if len(self._reports_read) >= REPORTS_REMEMBERED:
                self._reports_read.clear()
            self._reports_read[frame] = message
        return message

    def opened(self, link: DeviceLink) -> None:
        """A connection was made; it has not said hello yet."""
        self._open_links.add(link)

    def enter(self, link: DeviceLink) -> None:
        """A link said hello; an older one of the same device is replaced."""
        older = self._live.get(link.device_id)
        self._live[link.device_id] = link
        if older is not None:
            older.close(CLOSE_REPLACED, "replaced")

    def leave(self, link: DeviceLink) -> None:
        """A link ended."""
        self._open_links.discard(link)
        if self._live.get(link.device_id) is link:
            del self._live[link.device_id]

    def _open(self, peer: Peer) -> StrictListener | Refusal:
        if self.stopping:
            return Refusal(503, "stopping", "the daemon is shutting down", ("Retry-After: 5",))
        try:
            caller = self._contacts.identify(peer.certificate, peer.address)
            check_caller(caller, Auth.DEVICE)
        except HengeError as error:
            return refusal_of(error)
        return DeviceLink(self, self._contacts.meet(caller, peer.address), peer.address)


class DeviceLink(StrictListener):
    """One connection of one device, identified by its certificate."""

    def __init__(self, links: Links, contact: Contact, address: str) -> None:
        super().__init__(limits=LIMITS, monotonic=links.monotonic)
        self.device_id = contact.device_id
        self._links = links
        self._contact = contact
        self._address = address
        self._session = Session("daemon", now=links.monotonic(), decode=links.read_frame)
        self._look_at = 0.0
        self._missed = False
        """A look was asked for while a delivery was in flight or the device did not read."""
        self._retry_at = 0.0
        self._failures = 0
        """Passing refusals in a row."""
        self._asked: asyncio.Future[Report | Error] | None = None
        """Who waits for what the device says of a candidate."""
        self._renew_by = links.monotonic() + contact.caller.left_s + EXPIRY_GRACE_S

    # ---- what the transport says ---------------------------------------------------------------------

    def opened(self) -> None:
        self._links.opened(self)
        valid = self._contact.hold(self.revoked)
        self._contact.arrive()
        if valid:
            self._contact.note_use()
        else:
            self.revoked()

    def received(self, text: str) -> None:
        event, reply, close = self._session.receive(text, now=self.heard_at)
        if reply is not None:
            self.send(reply)
        if close is not None:
            self.close(close.code, close.reason)
        elif type(event) is Report and event.state == "checked":
            self._answered(event)
        elif type(event) is Report:
            self._take_report(event)
        elif type(event) is Hello:
            self._greet(event)
        elif type(event) is Error:
            log.info(
                "device says %s: %s",
                event.code,
                ascii(self._contact.hidden(event.message)),
                extra=self._fields("device_error"),
            )
            self._answered(event)

    def beat(self, now: float) -> None:
        super().beat(now)
        close = self._session.tick(now=now)
        if close is not None:
            self.close(close.code, close.reason)
        elif now >= self._renew_by:
            self.close(CLOSE_RENEW, "renew")
        elif now >= self._look_at:
            self.look(fresh=True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._missed:
            self.look(fresh=True)

    def lost(self) -> None:
        self._contact.ignore(self.look)
        self._contact.release(self.revoked)
        self._links.leave(self)
        self._contact.leave()
        if self._asked is not None:
            self._asked.cancel()

    # ---- what the daemon says ------------------------------------------------------------------------

    def look(self, *, fresh: bool = False) -> None:
        """Compare the newest document with what the device runs, and send it if it should.

        A ring may be answered from memory; a ``fresh`` look asks the store and needs no bell to be right.
        A damaged record ends this link and no other.
        """
        try:
            self._look(fresh=fresh)
        except Unavailable as locked:  # the next look finds the key again
            log.debug("cannot deliver yet: %s", locked, extra=self._fields("delivery_waits"))
        except Internal as error:
            log.exception("cannot deliver", extra=self._fields("delivery_failed"))
            self.close(INTERNAL_ERROR, error.code)

    def _look(self, *, fresh: bool) -> None:
        now = self._links.monotonic()
        self._look_at = now + LOOK_EVERY_S
        if now < self._retry_at:
            self._look_at = min(self._look_at, self._retry_at)
        self._missed = self._session.state != "idle" or not self.is_writable
        if self._missed:
            return
        desired = self._contact.due(self._retry_at - now, fresh=fresh)
        if desired is not None:
            delivery = self._contact.delivery(desired)
            self._session.sent(delivery.config, now=now)
            self.send(delivery.frame)
            self.expect(REPORTS_PER_DELIVERY)

    def ask(self, candidate: Config) -> asyncio.Future[Report | Error]:
        """Send a candidate to be checked; see ``Links.ask``. While another document is under way it is ``busy``."""
        asked: asyncio.Future[Report | Error] = asyncio.get_running_loop().create_future()
        if self._session.state != "idle" or not self.is_writable:
            asked.set_result(Report(digest=candidate.digest, state="checked", reason="busy"))
            return asked
        self._session.sent(candidate, now=self._links.monotonic())
        self.send(encode(candidate))
        self.expect(REPORTS_PER_DELIVERY)
        self._asked = asked
        asked.add_done_callback(self._asked_no_more)
        return asked

    def _answered(self, answer: Report | Error) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(answer)

    def _asked_no_more(self, _: object) -> None:
        """Answered, or nobody waits any longer: the next document may go out."""
        self._asked = None
        self._session.abandon()
        if self._missed and not self._session.closed:
            self.look(fresh=True)

    def revoked(self) -> None:
        """The identity ended: cut at once, nothing more is sent."""
        self.close(CLOSE_REVOKED, "revoked")
        self.abort()

    def say_bye(self, reason: str, retry_after_s: int) -> None:
        """End the link and say when to come back."""
        if not self._session.closed and self._session.state != "expect-hello":
            self._say(Bye(reason, retry_after_s))
        self.close(GOING_AWAY, reason)

    def forgive(self) -> None:
        """Offer again what was refused."""
        self._contact.forgive()
        self.look()

    def _say(self, message: Message) -> None:
        self._session.sent(message, now=self._links.monotonic())
        self.send(encode(message))

    # ---- what the device says ------------------------------------------------------------------------

    def _greet(self, hello: Hello) -> None:
        try:
            version = self._contact.agree(hello)
        except Invalid as foreign:
            self._say(Error(foreign.code, f"{foreign.message}; {foreign.cure}"))
            self.close(CLOSE_PROTOCOL, foreign.code)
            return
        changed = self._contact.hello(hello)
        self._contact.greeted(announce=changed, now=self._links.monotonic())
        self._links.enter(self)
        self._say(self._contact.welcome(version, int(LIMITS.ping_after_s)))
        self._contact.listen(self.look)
        self.look(fresh=True)

    def _take_report(self, report: Report) -> None:
        if not self._contact.report(report):
            log.warning("report of a revision never issued", extra=self._fields("report_ignored"))
            return
        if report.state == "applied":
            self._failures = 0
        elif report.state in FAILED and self._contact.reported.transient:
            self._wait_before_retry()
        self._contact.record(announce=True, done=partial(self._acknowledge, report))
        if self._missed:
            self.look(fresh=True)

    def _acknowledge(self, report: Report, error: BaseException | None) -> None:
        if error is None and not self._session.closed:
            receipt, frame = self._contact.receipt(report)
            self._session.sent(receipt, now=self.heard_at)
            self.send(frame)

    def _wait_before_retry(self) -> None:
        self._failures += 1
        wait_s = RETRY_BASE_S + RETRY_SPREAD * delay_s(self._failures, self._links.chance())
        self._retry_at = self._links.monotonic() + wait_s
        self._look_at = min(self._look_at, self._retry_at)

    def _fields(self, event: str) -> dict[str, str]:
        return {"event": event, "device": self._contact.caller.name, "remote": self._address}
