"""Discover and approve: commit, reveal, compare a code of eight digits, approve.

Each side fixes its own value before it learns the other's, so a man in the middle has one blind guess.
The window is closed unless a person opened it (or the daemon is new), requests live ten minutes, in memory:
a restart asks the devices to begin again. What ends by itself is timed by the monotonic clock, so that setting the
machine's clock neither ends it nor keeps it alive.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hengd.events import EventLog
from hengd.rules import audit
from hengd.rules.authority import Authority
from hengd.rules.certificates import USED
from hengd.rules.enrolment import Enrolment, is_board, known_schema
from hengd.rules.limits import counted_as
from hengd.rules.outcome import Author
from hengd.store import Store, Transaction
from henge_protocol.csr import Csr, read_csr
from henge_protocol.errors import (
    Conflict,
    Denied,
    Gone,
    HengeError,
    Invalid,
    Limited,
    Malformed,
    NotFound,
)  # fmt: skip
from henge_protocol.joining import code, commitment, parse_code
from henge_protocol.model import check_name
from henge_protocol.pki import DAY_S

log = logging.getLogger("hengd.joins")

REQUEST_LIFETIME_S: Final = 600.0
MAX_PENDING_PER_ADDRESS: Final = 3
MAX_WRONG_CODES: Final = 3
MAX_WINDOW_S: Final = DAY_S


@dataclass(slots=True)
class JoinRequest:
    """One device that asks to become known."""

    sid: str
    commit: bytes
    name: str
    client: str
    facts: dict[str, str | int | float | bool]
    address: str
    nonce: bytes
    asked: float
    """Unix seconds, as ``expires``: for people."""
    expires: float
    ends: float
    """When its time is over, monotonic seconds."""
    code: str = ""
    key: Csr | None = None
    identity: dict[str, Any] | None = None
    taken: bool = False
    """Its approval is on its way to the disk."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Joins:
    """The join window and the requests that wait in it."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        enrolment: Enrolment,
        events: EventLog,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        max_pending: int = 16,
    ) -> None:
        self._store = store
        self._authority = authority
        self._enrolment = enrolment
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._max_pending = max_pending
        self._requests: dict[str, JoinRequest] = {}
        self._closes = -math.inf
        """Monotonic seconds."""
        self._wrong = 0
        self._refusals = audit.Refusals(store, clock=clock, monotonic=monotonic)
        self._lapsed: deque[str] = deque(maxlen=max_pending)

    # ---- the window ----------------------------------------------------------------------------------

    @property
    def closes(self) -> float:
        """When the window closes, unix seconds; 0 = it is closed."""
        left_s = self._closes - self._monotonic()
        return self._clock() + left_s if left_s > 0 else 0.0

    async def open(self, for_s: int, by: Author) -> None:
        """Accept requests for at least so many seconds; 0 closes. ``Invalid`` over a day."""
        if type(for_s) is not int or not 0 <= for_s <= MAX_WINDOW_S:
            raise Invalid("bad_parameter", f"open_s is {ascii(for_s)[:40]}, 0 to {MAX_WINDOW_S} seconds are allowed")
        if for_s:
            await self._note("join-window.opened", by)  # first: nobody gets in by a window that nobody opened
            self._closes = max(self._closes, self._monotonic() + for_s)
        else:
            was_open, self._closes = self.closes, -math.inf
            if was_open:
                await self._note("join-window.closed", by)
        self._wrong = 0

    async def _note(self, act: audit.Act, by: Author) -> None:
        now = self._clock()
        await self._store.write(lambda tx: audit.note(tx, act, "join-window", by, now=now), essential=True)

    def waiting(self) -> list[JoinRequest]:
        """Requests whose code can be typed now."""
        self._sweep()
        return [one for one in self._requests.values() if one.code and not one.taken and one.identity is None]

    # ---- the device's side ---------------------------------------------------------------------------

    def begin(
        self, commit: bytes, name: str, client: str, facts: dict[str, str | int | float | bool], address: str
    ) -> JoinRequest:
        """Step 2 and 3: the device has committed; answer with our nonce."""
        self._sweep()
        if not self.closes:
            raise Denied(
                "enrolment_closed", "the daemon accepts no join requests now", cure="on its machine: hengectl join open"
            )
        if len(commit) != 32:
            raise Malformed("join_mismatch", f"the commitment has {len(commit)} bytes, 32 are expected")
        check_name(name, "device name")
        pending = [request for request in self._requests.values() if request.identity is None]
        mine = sum(counted_as(request.address) == counted_as(address) for request in pending)
        if len(pending) >= self._max_pending or mine >= MAX_PENDING_PER_ADDRESS:
            raise Limited(
                "enrolment_full", "too many join requests are waiting", extra={"retry_after_s": 60},
                cure="approve or wait for the ones before",
            )  # fmt: skip
        now = self._clock()
        request = JoinRequest(
            secrets.token_hex(16), commit, name, client, facts, address, secrets.token_bytes(32), now,
            now + REQUEST_LIFETIME_S, self._monotonic() + REQUEST_LIFETIME_S,
        )  # fmt: skip
        self._requests[request.sid] = request
        return request

    def reveal(self, sid: str, nonce: bytes, csr: bytes) -> None:
        """Step 4: check what was committed; any mismatch voids the request."""
        request = self._live(sid)
        try:
            if request.key is not None:
                raise Conflict("join_mismatch", "the request was revealed already")
            key = read_csr(csr)
            if not hmac.compare_digest(commitment(nonce, key.spki_der), request.commit):
                raise Malformed("join_mismatch", "the key revealed is not the one committed to")
        except HengeError:
            self._void(request)
            raise
        request.key = key
        request.code = code(request.sid, nonce, request.nonce, key.spki_der, self._authority.pin)
        if self._twins(request):
            return
        self._events.add(self._clock(), "join.requested", "Join", request.name, address=request.address)

    async def wait(self, sid: str, timeout_s: float) -> dict[str, Any] | None:
        """Step 8: the identity once approved, None while waiting."""
        request = self._live(sid)
        if request.identity is None and timeout_s > 0:
            try:
                await asyncio.wait_for(request.changed.wait(), timeout_s)
            except TimeoutError:
                return None
            request = self._live(sid)
        return request.identity

    async def reject(self, sid: str) -> None:
        """The person at the device says the codes differ: void the request, and an identity that was already given."""
        request = self._live(sid)
        log.warning(
            "a device rejected its join code: look for a stranger on the network",
            extra={"event": "join_rejected", "device": request.name, "remote": request.address},
        )
        self._void(request)
        if request.identity is not None:
            by = Author(request.name, f"enrol {request.address}", may_end_identities=False)
            await self._authority.ends.revoke("device", request.identity["device_id"], by)

    # ---- the operator's side -------------------------------------------------------------------------

    async def approve(self, typed: str, *, name: str, schema: str, labels: dict[str, str], by: Author) -> str:
        """Step 6: somebody typed the code that a device shows; returns the device's name.

        A device of that name that never used its certificate gives way: a person says which one is meant.
        Raises ``NotFound`` ``no_such_join`` for an unknown code; three of those close the window. ``Conflict``
        ``join_approved`` for one that was approved before, ``Gone`` ``join_rejected`` if the device said no meanwhile.
        """
        was_open = bool(self.closes)
        try:
            request, key = self._typed(parse_code(typed))
        except (NotFound, Denied):
            await self._refusals.note("code.refused", "join", by)
            if was_open and not self.closes:
                await self._note("join-window.closed", by)
            raise
        name = check_name(name or request.name, "device name")
        request.taken = True
        try:
            request.identity = await self._store.write(
                lambda tx: self._admit(tx, request, key, name, schema, labels, by=by)
            )
        finally:
            request.taken = False
        device_id = request.identity["device_id"]
        self._authority.ends.restored("device", device_id)
        if request.sid not in self._requests:
            await self._authority.ends.revoke("device", device_id, by)
            raise Gone("join_rejected", "the request was rejected or ended meanwhile; what it got is revoked")
        request.changed.set()
        self._events.add(self._clock(), "join.closed", "Join", request.name, outcome="approved", device=name)
        return name

    def _admit(
        self, tx: Transaction, request: JoinRequest, key: Csr, name: str, schema: str, labels: dict[str, str],
        *, by: Author,
    ) -> dict[str, Any]:  # fmt: skip
        schema = schema or known_schema(tx, request.facts.get("schema"))
        return self._enrolment.admit(
            tx, name, key, by, schema=schema, labels=labels, via="approved", by=by.name,
            board=is_board(request.client), taken=USED,
        )  # fmt: skip

    def _typed(self, wanted: str) -> tuple[JoinRequest, Csr]:
        """The request that a typed code belongs to; raises ``NotFound``, or ``Gone`` for one whose time is over."""
        self._sweep()
        for request in self._requests.values():
            if request.key is not None and hmac.compare_digest(request.code, wanted):
                if request.taken or request.identity is not None:
                    raise _approved(request)
                return request, request.key
        if wanted in self._lapsed:
            raise Gone("join_expired", "the join request of this code has expired", cure="let the device ask again")
        raise self._wrong_code()

    def _wrong_code(self) -> HengeError:
        self._wrong += 1
        if self._wrong >= MAX_WRONG_CODES:
            self._closes = -math.inf
            for request in [one for one in self._requests.values() if one.identity is None]:
                self._void(request)
            return Denied(
                "enrolment_closed",
                f"{MAX_WRONG_CODES} wrong codes: the window is closed and all requests that wait are void",
                cure="look for a stranger on the network, then: hengectl join open",
            )
        return NotFound(
            "no_such_join",
            "no waiting device has this code: a typing error, another fleet, or somebody in between",
            cure="read the code from the device again; see who waits: hengectl get joins",
        )

    # ---- requests ------------------------------------------------------------------------------------

    def _live(self, sid: str) -> JoinRequest:
        request = self._requests.get(sid)
        if request is None:
            raise NotFound("no_such_join", "there is no such join request; it ended or never was", cure="begin again")
        if request.ends <= self._monotonic() and not request.taken:
            self._void(request)
            raise Gone("join_expired", "the join request's time is over", cure="begin again")
        return request

    def _twins(self, request: JoinRequest) -> bool:
        """Two requests with one code (one in a hundred million, or an attack): both are void."""
        twins = [other for other in self._requests.values() if other.code == request.code]
        if len(twins) < 2:
            return False
        for twin in twins:
            self._void(twin)
        return True

    def _void(self, request: JoinRequest) -> None:
        """Forget a request; unless it was approved, which was told then, tell that it came to nothing."""
        if self._requests.pop(request.sid, None) is not None:
            request.changed.set()
            if request.identity is None:
                self._events.add(self._clock(), "join.closed", "Join", request.name, outcome="void")

    def _sweep(self) -> None:
        now = self._monotonic()
        for request in list(self._requests.values()):
            if request.ends <= now and not request.taken:
                self._lapsed.append(request.code)
                self._void(request)


def _approved(request: JoinRequest) -> Conflict:
    """Typing a code once more is no guess, and does nothing."""
    name = request.identity["name"] if request.identity is not None else request.name
    return Conflict(
        "join_approved", f"the join request of this code was approved already, as device/{name}",
        cure=f"see it: hengectl describe device/{name}",
    )  # fmt: skip
