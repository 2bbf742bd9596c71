"""What follows a commit: listeners are told, bells are rung, links of those who were thrown out are closed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from hengd.events import EventLog
from hengd.hub import Hub
from hengd.records import Reported
from hengd.rules.authority import Authority
from hengd.rules.deliveries import Deliveries
from hengd.rules.expiry import Overrides
from hengd.rules.notes import Committed, Cut, DevicesReported, Rung

log = logging.getLogger("hengd")


@dataclass(frozen=True, slots=True)
class Aftermath:
    """The store's after-commit hook: it hears, on the loop, of facts that are on disk."""

    events: EventLog
    deliveries: Deliveries
    overrides: Overrides
    authority: Authority
    hub: Hub
    forgive: Callable[[str], None]
    """Forget what a live link remembers of a device's refusals."""
    clock: Callable[[], float]

    def follow(self, notes: list[object]) -> None:
        """Act on what the committed transactions noted, in their order."""
        now = self.clock()
        for note in notes:
            try:
                self._heed(note, now)
            except Exception:  # task boundary: one note's trouble must not silence those after it
                log.exception("a commit was not told on", extra={"event": "commit_listener_failed"})

    def _heed(self, note: object, now: float) -> None:
        if isinstance(note, DevicesReported):
            self.events.add_all(now, "device.reported", "Device", note.reports, _told)
        elif isinstance(note, Committed):
            self.deliveries.advance(note.revision, note.rung)
            self._tell(note, now)
            self.hub.ring(note.rung)
            self.overrides.look()
        elif isinstance(note, Cut):
            self.authority.ends.close_links(note.role, note.subject)
        elif isinstance(note, Rung):
            self.forgive(note.device_id)
            self.hub.ring((note.device_id,))

    def _tell(self, note: Committed, now: float) -> None:
        for kind, name in note.changed:
            self.events.add(now, "object.changed", kind, name, revision=note.revision)
        for kind, name in note.deleted:
            self.events.add(now, "object.deleted", kind, name, revision=note.revision)
        told = {name for kind, name in note.changed if kind == "Device"}
        others = [name for name in note.moved if name not in told]
        detail = {"revision": note.revision}
        self.events.add_all(now, "device.changed", "Device", others, lambda name: (name, detail))


def _told(report: tuple[str, Reported]) -> tuple[str, dict[str, object]]:
    name, said = report
    detail = {"revision": said.revision, "digest": said.digest, "state": said.state, "reason": said.reason}
    return name, detail
