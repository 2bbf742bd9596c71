"""Devices as people see them: the object with its derived status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hengd.records import Desired, ObjectRecord, Reported
from hengd.rules.certificates import identity_state
from hengd.rules.fleet import find_desired, find_reported, read_line, required_object
from hengd.rules.presence import Live, Presence
from hengd.rules.states import Line, configuration_of, connection_of
from hengd.store import Reader, Store
from henge_protocol.model import Configuration, Connection

PIECE: Final = 200
"""Devices counted before everybody else has a turn."""


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

    @property
    def links(self) -> int:
        """Live links and long-polls of devices."""
        return self._presence.links

    def view(self, name: str) -> DeviceView:
        """One device, or ``NotFound``."""
        with self._store.read() as tx:
            return self._view(tx, required_object(tx, "Device", name), read_line(tx))

    async def counts(self) -> dict[str, dict[str, int]]:
        """How many devices are in each state, on both axes; in pieces, between which others have their turn."""
        connections: Counter[str] = Counter()
        configurations: Counter[str] = Counter()
        with self._store.read() as tx:
            ids = tx.keys("ids")
        for start in range(0, len(ids), PIECE):
            with self._store.read() as tx:
                line = read_line(tx)
                for device_id in ids[start : start + PIECE]:
                    if tx.get("ids", device_id) is None:  # deleted meanwhile
                        continue
                    connection, configuration = self._states(tx, device_id.decode(), line)
                    connections[connection] += 1
                    configurations[configuration] += 1
            await asyncio.sleep(0)
        return {"connection": dict(connections), "config": dict(configurations)}

    def _states(self, tx: Reader, device_id: str, line: Line) -> tuple[Connection, Configuration]:
        reported, is_online = find_reported(tx, device_id), self._presence.find(device_id) is not None
        return (
            connection_of(online=is_online, reported=reported, now=self._clock()),
            configuration_of(find_desired(tx, device_id), reported, line),
        )

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
