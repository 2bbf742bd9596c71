"""A fleet of one in simulated time: the daemon's side, the device's side, and a link that delays, drops and cuts.

Both sides use the real session machines and the daemon's real rules about states; only sockets, disk and clock
are replaced by lists and numbers.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hengd.records import Desired, Reported
from hengd.rules.states import Line, after_hello, after_report, configuration_of, due_in_s, forgiven
from henge_protocol.model import digest_of
from henge_protocol.session import Session
from henge_protocol.wire import Config, Hello, Message, Receipt, Report, Welcome

LOOK_S = 30.0
RETRY_S = 20.0
RECONNECT_S = 1.0


class World:
    """Simulated time: what is due happens in order."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something after a while."""
        self._count += 1
        heapq.heappush(self._due, (self.now + delay_s, self._count, act))

    def run_until(self, end: float) -> None:
        """Let everything happen that is due by then."""
        while self._due and self._due[0][0] <= end:
            self.now, _, act = heapq.heappop(self._due)
            act()
        self.now = end


@dataclass(eq=False)
class Wire:
    """One connection: frames arrive late and in order, or the connection is cut and none arrive any more."""

    world: World
    loss: float
    is_cut: bool = False
    ends: list[Callable[[str, bytes], None]] = field(default_factory=list)
    _last: dict[int, float] = field(default_factory=dict)

    def send(self, to: int, frame: bytes) -> None:
        """Carry a frame to side ``to``; losing one on an ordered link means that the link is dead."""
        if self.is_cut:
            return
        if self.world.random.random() < self.loss:
            self.cut()
            return
        arrives = max(self._last.get(to, 0.0), self.world.now + self.world.random.uniform(0.001, 2.0))
        self._last[to] = arrives
        self.world.later(arrives - self.world.now, lambda: self._arrive(to, frame))

    def cut(self) -> None:
        """The connection breaks; each side notices some time later."""
        if not self.is_cut:
            self.is_cut = True
            for end in self.ends:
                self.world.later(self.world.random.uniform(0.0, 45.0), lambda end=end: end("lost", b""))  # type: ignore[misc]

    def _arrive(self, to: int, frame: bytes) -> None:
        if not self.is_cut:
            self.ends[to]("frame", frame)


class DaemonSide:
    """What hengd knows of one device, and its present link."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.line = Line("e1", 0)
        self.documents: dict[str, bytes] = {}
        self.desired: Desired | None = None
        self.reported = Reported()
        self.in_flight: list[int] = []
        self._link: tuple[Wire, Session] | None = None
        self._retry_at = 0.0

    def change(self, document: bytes, *, ring: bool) -> None:
        """A person changes the configuration; the bell may be lost."""
        digest = digest_of(document)
        self.documents[digest] = document
        self.line = Line("e1", self.line.revision + 1)
        if self.desired is None or self.desired.digest != digest:
            self.desired = Desired(self.line.revision, digest, len(document), confirm_s=20)
        if ring:
            self.look()

    def retry(self) -> None:
        """A person says retry."""
        self.reported = forgiven(self.reported)
        self.look()

    def accept(self, wire: Wire) -> Callable[[str, bytes], None]:
        """A new connection; an older one of the device is replaced at its hello."""
        session = Session("daemon", now=self.world.now)
        self.world.later(LOOK_S / 3, lambda: self._beat(wire, session))
        return lambda what, frame: self._hear(wire, session, frame) if what == "frame" else self._forget(wire)

    def look(self) -> None:
        """Send the newest document if the device should have it."""
        if self._link is None or self.desired is None:
            return
        wire, session = self._link
        wait_s = due_in_s(self.desired, self.reported, self.line, retry_after_s=self._retry_at - self.world.now)
        if session.state == "idle" and wait_s == 0.0:
            config = Config(
                "e1", self.desired.revision, self.desired.digest, self.desired.confirm_s, "apply",
                self.documents[self.desired.digest],
            )  # fmt: skip
            wire.send(1, session.send(config, now=self.world.now))

    def _beat(self, wire: Wire, session: Session) -> None:
        if wire.is_cut or session.closed:
            return
        if session.tick(now=self.world.now) is not None:
            wire.cut()
        elif self._link is not None and self._link[0] is wire:
            self.look()
        self.world.later(LOOK_S, lambda: self._beat(wire, session))

    def _forget(self, wire: Wire) -> None:
        if self._link is not None and self._link[0] is wire:
            self._link = None

    def _hear(self, wire: Wire, session: Session, frame: bytes) -> None:
        step = session.receive(frame, now=self.world.now)
        if step.close is not None:
            wire.cut()
        if isinstance(step.event, Hello):
            self.reported = after_hello(self.reported, step.event, now=self.world.now, address="")
            if self._link is not None and self._link[0] is not wire:
                self._link[0].cut()
            self._link = (wire, session)
            wire.send(1, session.send(Welcome(epoch="e1"), now=self.world.now))
        elif isinstance(step.event, Report):
            taken = after_report(self.reported, step.event, self.line, now=self.world.now)
            if taken is not None:
                self.reported = taken
                self._retry_at = self.world.now + RETRY_S if taken.transient else 0.0
                event = step.event
                self.world.later(self.world.random.uniform(0.0, 0.5), lambda: self._acknowledge(wire, session, event))
        self.look()

    def _acknowledge(self, wire: Wire, session: Session, report: Report) -> None:
        if not session.closed:
            wire.send(1, session.send(Receipt(report.revision, report.digest, report.state), now=self.world.now))

    @property
    def state(self) -> str:
        """The configuration axis of the device's state."""
        return configuration_of(self.desired, self.reported, self.line)


class DeviceSide:
    """A device: keeps what it runs over reboots, applies what it gets after a while, refuses what it must."""

    def __init__(self, world: World, daemon: DaemonSide, *, loss: Callable[[], float]) -> None:
        self.world = world
        self.daemon = daemon
        self.loss = loss
        self.running: Config | None = None
        self.bad: set[str] = set()
        self.broken_until = 0.0
        self.history: list[str] = []
        self.wire: Wire | None = None
        self._session = Session("device", now=0.0)
        self.unsaid: Report | None = None
        self._boots = 0

    def connect(self) -> None:
        """Open a new link and say hello."""
        self.wire = wire = Wire(self.world, self.loss())
        session = self._session = Session("device", now=self.world.now)
        wire.ends = [self.daemon.accept(wire), partial(self._hear, wire, session)]
        running = self.running
        hello = Hello() if running is None else Hello(
            epoch=running.epoch, revision=running.revision, digest=running.digest, state="applied"
        )  # fmt: skip
        self._send(wire, session, hello)

    def reboot(self) -> None:
        """Forget everything but the document; what was being applied is not."""
        self.unsaid = None
        self._boots += 1
        if self.wire is not None:
            self.wire.cut()

    def _hear(self, wire: Wire, session: Session, what: str, frame: bytes) -> None:
        if wire is not self.wire:
            return
        if what == "lost":
            self.world.later(self.world.random.uniform(0, RECONNECT_S), self.connect)
            self.wire = None
            return
        step = session.receive(frame, now=self.world.now)
        if isinstance(step.event, Welcome) and self.unsaid is not None:
            self._send(wire, session, self.unsaid)
        elif isinstance(step.event, Receipt) and self.unsaid is not None and step.event.digest == self.unsaid.digest:
            self.unsaid = None
        elif isinstance(step.event, Config):
            config = step.event
            self._send(wire, session, Report(config.epoch, config.revision, config.digest, "applying"))
            boot = self._boots
            self.world.later(self.world.random.uniform(0, 5), lambda: self._apply(wire, session, config, boot))

    def _apply(self, wire: Wire, session: Session, config: Config, boot: int) -> None:
        assert config.intact
        if boot != self._boots:
            return
        state, reason = "applied", ""
        if config.digest in self.bad:
            state, reason = "rejected", "invalid"
        elif self.world.now < self.broken_until:
            state, reason = "rejected", "write-failed"
        else:
            self.running = config
            self.history.append(config.digest)
        self.unsaid = Report(config.epoch, config.revision, config.digest, state, reason)
        if wire is self.wire:
            self._send(wire, session, self.unsaid)

    def _send(self, wire: Wire, session: Session, message: Message) -> None:
        if not session.closed and not wire.is_cut:
            try:
                frame = session.send(message, now=self.world.now)
            except LookupError:
                return  # the link is not greeted yet; said again after the welcome
            wire.send(0, frame)
