"""Devices as people see them: the object with its derived status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hengd.records import Desired, ObjectRecord, Reported, pack
from hengd.rules.certificates import identity_state
from hengd.rules.fleet import find_desired, find_reported, objects_of, read_meta, required_object
from hengd.rules.notes import Rung
from hengd.rules.presence import Live, Presence
from hengd.rules.states import Line, configuration_of, connection_of, forgiven
from hengd.store import Reader, Store, Transaction
from henge_protocol.model import Configuration, Connection
from henge_protocol.selector import Selector


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device: what was asked for, what it says, how it is connected."""

    record: ObjectRecord
    identity: str
    connection: Connection
    since: float
    configuration: Configuration
    desired: Desired | None
    reported: Reported
    live: Live | None


class Devices:
    """Reads devices with their status."""

    def __init__(self, store: Store, presence: Presence, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._presence = presence
        self._clock = clock

    def view(self, name: str) -> DeviceView:
        """One device, or ``NotFound``."""
        with self._store.read() as tx:
            return self._view(tx, required_object(tx, "Device", name), _line(tx))

    def views(self, selector: Selector) -> list[DeviceView]:
        """All devices that ``selector`` selects, by name."""
        with self._store.read() as tx:
            line = _line(tx)
            return [
                self._view(tx, record, line) for record in objects_of(tx, "Device") if selector.matches(record.labels)
            ]

    async def retry(self, name: str) -> None:
        """Offer a quarantined document again."""

        def operation(tx: Transaction) -> None:
            device = required_object(tx, "Device", name)
            reported = find_reported(tx, device.id)
            tx.put("reported", device.id.encode(), pack(forgiven(reported)))
            tx.note(Rung(device.id))

        await self._store.write(operation)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many devices are in each state, on both axes."""
        counts: dict[str, dict[str, int]] = {"connection": {}, "config": {}}
        for view in self._all():
            counts["connection"][view.connection] = counts["connection"].get(view.connection, 0) + 1
            counts["config"][view.configuration] = counts["config"].get(view.configuration, 0) + 1
        return counts

    def _all(self) -> Iterator[DeviceView]:
        return iter(self.views(Selector()))

    def _view(self, tx: Reader, record: ObjectRecord, line: Line) -> DeviceView:
        desired, reported = find_desired(tx, record.id), find_reported(tx, record.id)
        live = self._presence.find(record.id)
        return DeviceView(
            record,
            identity_state(tx, "device", record.id),
            connection_of(online=live is not None, reported=reported, now=self._clock()),
            live.since if live else self._presence.left(record.id) or reported.seen,
            configuration_of(desired, reported, line),
            desired,
            reported,
            live,
        )


def _line(tx: Reader) -> Line:
    meta = read_meta(tx)
    return Line(meta.epoch, meta.revision)
