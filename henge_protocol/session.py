"""One link between daemon and device as a pure machine, for both roles.

Rules of this file:
1. Everything that decides a transition stands in ``TRANSITIONS``; the boards' client repeats the device half
   and a test compares ``docs/protocol.md`` with the table.
2. The machine takes frames and times and returns what to do; it neither sends, sleeps nor asks the clock.
3. A frame from the peer is never an exception: it becomes an event, an answer or a reason to close.
   A useless one is answered with ``error`` where the table lets that go on, and ends the link everywhere else.
   Sending what the table does not allow is our own bug and raises ``LookupError``.
4. One configuration is in flight at most. A session lives once; reconnecting makes a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from henge_protocol.header import WireError
from henge_protocol.wire import Config, Error, Message, Report, decode, encode

Role = Literal["daemon", "device"]

HELLO_TIMEOUT_S: Final = 10.0
"""A link that says nothing is not a device; boards need 2 s for the handshake before it."""
REPORT_GRACE_S: Final = 30.0
"""Beyond ``confirm_s``: the time a device gets to say how a delivery ended."""
FAULT_WINDOW_S: Final = 60.0
MAX_FAULTS: Final = 3
"""So many useless frames within the window end the link."""
MAX_FAULT_CHARS: Final = 300

CLOSE_POLICY: Final = 1008
CLOSE_REPLACED: Final = 4001
CLOSE_PROTOCOL: Final = 4002
CLOSE_HELLO_TIMEOUT: Final = 4003
CLOSE_RENEW: Final = 4004
CLOSE_REVOKED: Final = 4005

TRANSITIONS: Final[dict[Role, dict[str, dict[str, str]]]] = {
    "daemon": {
        "expect-hello": {"recv hello": "greet"},
        "greet": {"send welcome": "idle", "send error": "closed", "send bye": "closed"},
        "idle": {
            "recv report": "idle",
            "recv error": "idle",
            "send config": "delivering",
            "send receipt": "idle",
            "send error": "idle",
            "send bye": "closed",
        },
        "delivering": {
            "recv report": "delivering",
            "recv final report": "idle",
            "recv error": "delivering",
            "send receipt": "delivering",
            "send error": "delivering",
            "send bye": "closed",
        },
        "closed": {},
    },
    "device": {
        "start": {"send hello": "expect-welcome"},
        "expect-welcome": {"recv welcome": "idle", "recv error": "closed", "recv bye": "closed"},
        "idle": {
            "recv config": "applying",
            "recv receipt": "idle",
            "recv error": "idle",
            "recv bye": "closed",
            "send report": "idle",
            "send error": "idle",
        },
        "applying": {
            "recv config": "applying",
            "recv receipt": "applying",
            "recv error": "applying",
            "recv bye": "closed",
            "send report": "applying",
            "send final report": "idle",
            "send error": "applying",
        },
        "closed": {},
    },
}
"""role -> state -> happening -> next state. A *final* report is one about the digest in flight that ends it."""

INITIAL: Final[dict[Role, str]] = {"daemon": "expect-hello", "device": "start"}


class Close(NamedTuple):
    """End the link with this WebSocket close code; ``reason`` is one of our error codes."""

    code: int
    reason: str


class Step(NamedTuple):
    """What came of one received frame: an event for the owner, an answer to send, a reason to close."""

    event: Message | None = None
    reply: bytes | None = None
    close: Close | None = None


class Session:
    """The state of one link. Feed it ``receive``, ``send`` and ``tick``; do what it returns."""

    __slots__ = ("_deadline", "_decode", "_faults", "_in_flight", "_table", "role", "state")

    def __init__(self, role: Role, *, now: float, decode: Callable[[bytes | str], Message] = decode) -> None:
        self.role = role
        self._decode = decode
        self.state = INITIAL[role]
        self._table = TRANSITIONS[role]
        self._in_flight = ""
        self._deadline = now + HELLO_TIMEOUT_S
        self._faults: tuple[float, ...] = ()

    @property
    def in_flight(self) -> str:
        """Digest of the delivery that has not ended, or empty."""
        return self._in_flight

    @property
    def closed(self) -> bool:
        """Whether nothing may be sent or received any more."""
        return self.state == "closed"

    def receive(self, frame: bytes | str, *, now: float) -> Step:
        """Take one frame of the peer; never raises for what the peer did."""
        try:
            message = self._decode(frame)
        except WireError as error:
            return self._fault(error.code, error.message, now)
        following = self._table[self.state].get("recv " + self._happening(message))
        if following is None:
            return self._fault("unexpected", f"{message.type} is not expected in state {self.state}", now)
        self._enter(following, message, now)
        return Step(message)

    def send(self, message: Message, *, now: float) -> bytes:
        """The frame to write for ``message``; ``LookupError`` if this state does not allow it."""
        self.sent(message, now=now)
        return encode(message)

    def sent(self, message: Message, *, now: float) -> None:
        """Note that ``message`` goes out, for owners that have its frame already."""
        following = self._table[self.state].get("send " + self._happening(message))
        if following is None:
            raise LookupError(f"a {self.role} in state {self.state} may not send {message.type}")
        self._enter(following, message, now)

    def tick(self, *, now: float) -> Close | None:
        """Look at the time: a silent stranger is closed, an overdue delivery no longer blocks the next."""
        if now < self._deadline:
            return None
        if self.state in ("expect-hello", "expect-welcome"):
            self.state = "closed"
            return Close(CLOSE_HELLO_TIMEOUT, "hello_timeout")
        self.abandon()
        return None

    def abandon(self) -> None:
        """The daemon waits no longer for how a delivery ends; what the device says of it later is a plain report."""
        if self.role == "daemon" and self.state == "delivering":
            self.state, self._in_flight = "idle", ""

    def _happening(self, message: Message) -> str:
        if self._in_flight and type(message) is Report and message.digest == self._in_flight and message.final:
            return "final report"
        return message.type

    def _enter(self, state: str, message: Message, now: float) -> None:
        if type(message) is Config:
            self._in_flight = message.digest
            self._deadline = now + message.confirm_s + REPORT_GRACE_S
        elif state == "idle" and self._in_flight:
            self._in_flight = ""
        self.state = state

    def _fault(self, code: str, message: str, now: float) -> Step:
        if self.closed:
            return Step()
        self._faults = (*(time for time in self._faults if now - time <= FAULT_WINDOW_S), now)
        if len(self._faults) >= MAX_FAULTS or self._table[self.state].get("send error") != self.state:
            self.state = "closed"
            return Step(close=Close(CLOSE_POLICY, code))
        return Step(reply=encode(Error(code, message[:MAX_FAULT_CHARS])))
