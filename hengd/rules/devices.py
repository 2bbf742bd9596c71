"""Devices as people see them: the object with its derived status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec.structs import replace

from hengd.records import Desired, ObjectRecord, Reported, pack
from hengd.rules.certificates import identity_state
from hengd.rules.fleet import find_desired, find_reported, read_line, required_object
from hengd.rules.presence import Live, Presence
from hengd.rules.states import Line, configuration_of, connection_of
from hengd.store import Reader, Store, Transaction
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
    speaks: tuple[int, int]
    """What this daemon speaks, lowest and highest."""


class Devices:
    """Reads devices with their status."""

    def __init__(
        self, store: Store, presence: Presence, *, speaks: tuple[int, int], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._presence = presence
        self._speaks = speaks
        self._clock = clock

    @property
    def links(self) -> int:
        """Live links and long-polls of devices."""
        return self._presence.links

    def view(self, name: str) -> DeviceView:
        """One device, or ``NotFound``."""
        with self._store.read() as tx:
            return self._view(tx, required_object(tx, "Device", name), read_line(tx))

    def connection(self, device_id: str) -> tuple[Connection, float]:
        """Whether a device is there, and since when; one that is gone was never seen."""
        with self._store.read() as tx:
            reported = find_reported(tx, device_id)
        live = self._presence.find(device_id)
        since = live.since if live else self._presence.left(device_id) or reported.seen
        return connection_of(online=live is not None, reported=reported, now=self._clock()), since

    async def note_contacts(self) -> None:
        """Write down when devices were in contact last, for the next start of the daemon; in pieces.

        Done now and then and at the end, never for a single message: nothing that is correct depends on it.
        """
        contacts = list(self._presence.contacts(now=self._clock()).items())
        for start in range(0, len(contacts), PIECE):
            with self._store.read() as tx:
                newer = [one for one in contacts[start : start + PIECE] if 0 < find_reported(tx, one[0]).seen < one[1]]
            if newer:
                await self._store.write(partial(_note_contacts, contacts=newer))
            await asyncio.sleep(0)

    async def counts(self) -> dict[str, dict[str, int]]:
        """How many devices are in each state, on each axis; in pieces, between which others have their turn.

        Those that were revoked count in their identity alone: that they are not there is no news.
        """
        identities: Counter[str] = Counter()
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
                    identity = self._identity(tx, device_id.decode())
                    identities[identity] += 1
                    if identity == "revoked":
                        continue
                    connection, configuration = self._states(tx, device_id.decode(), line)
                    connections[connection] += 1
                    configurations[configuration] += 1
            await asyncio.sleep(0)
        return {"identity": dict(identities), "connection": dict(connections), "config": dict(configurations)}

    def _identity(self, tx: Reader, device_id: str) -> str:
        is_here = self._presence.find(device_id) is not None  # so it was let in, and needs no look at its certificates
        return "active" if is_here else identity_state(tx, "device", device_id)

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
            self._speaks,
        )


def _note_contacts(tx: Transaction, contacts: Sequence[tuple[str, float]]) -> None:
    for device_id, at in contacts:
        reported = find_reported(tx, device_id)  # anew: it may have spoken, or be gone, since
        if 0 < reported.seen < at:
            tx.put("reported", device_id.encode(), pack(replace(reported, seen=at)))
