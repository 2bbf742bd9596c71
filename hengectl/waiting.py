"""Waiting until devices are as they should be: told by the daemon's events, never by asking in a loop.

The number of the newest event is read together with the devices, so nothing that happens in between is missed.
After that only the devices that events name are read again, unless events were lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from henge_protocol.errors import NotFound
from hengectl.client import Client
from hengectl.kinds import DEVICE, Object, Ref, name_of

LONGEST_POLL_S: Final = 50
READ_ONE_BY_ONE: Final = 50
"""Up to so many devices are read each by itself at the start; for more the daemon's whole list is asked for."""
REFUSED: Final = frozenset({"rejected", "rolled-back", "quarantined"})
FINAL: Final = "quarantined"
"""The others pass: the daemon offers the document again by itself."""

Verdict = Literal["reached", "refused", "away", "open"]


@dataclass(frozen=True, slots=True)
class Waited:
    """How a wait ended, device by device."""

    verdicts: Mapping[str, Verdict]
    devices: Mapping[str, Object]

    def having(self, verdict: Verdict) -> list[str]:
        """The names with that verdict, sorted."""
        return sorted(name for name, found in self.verdicts.items() if found == verdict)


def is_revoked(device: Object | None) -> bool:
    """Whether a device's identity was ended, so that it is let in no more."""
    return device is not None and device.get("status", {}).get("identity") == "revoked"


def in_sync(device: Object | None) -> Verdict:
    """Whether a device runs what it should; ``away`` when it is not connected and cannot say so.

    One that has begun to apply it and is gone since may have been cut off by that very document: it is ``open``.
    """
    if device is None:
        return "refused"
    status = device.get("status", {})
    if is_revoked(device):
        return "away"
    if status.get("config") == "in-sync":
        return "reached"
    if status.get("config") == FINAL:
        return "refused"
    return "open" if status.get("connection") == "online" or status.get("config") == "applying" else "away"


def in_sync_strictly(device: Object | None) -> Verdict:
    """The same, but a device that is away is waited for, and one that was revoked is not let in whatever it runs."""
    if is_revoked(device):
        return "refused"
    verdict = in_sync(device)
    return "open" if verdict == "away" else verdict


def online(device: Object | None) -> Verdict:
    """Whether a device is connected."""
    if device is None or is_revoked(device):
        return "refused"
    return "reached" if device.get("status", {}).get("connection") == "online" else "open"


def deleted(device: Object | None) -> Verdict:
    """Whether a device is gone."""
    return "reached" if device is None else "open"


def wait_for(
    client: Client,
    names: Collection[str],
    judge: Callable[[Object | None], Verdict],
    timeout_s: float,
    *,
    told: Callable[[str, Verdict, Object | None], None] | None = None,
    watched: Callable[[Mapping[str, Verdict]], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Waited:
    """Wait until no device is ``open`` any more, at most ``timeout_s``.

    ``told`` hears each verdict once, ``watched`` all of them before each time of waiting.
    """
    deadline = clock() + timeout_s
    devices, seq = _look(client, names)
    fresh: Collection[str] = names
    verdicts: dict[str, Verdict] = {}
    while True:
        for name in fresh:
            verdict = judge(devices.get(name))
            if told is not None and verdict != "open" and verdicts.get(name) != verdict:
                told(name, verdict, devices.get(name))
            verdicts[name] = verdict
        left_s = deadline - clock()
        if "open" not in verdicts.values() or left_s <= 0:
            return Waited(verdicts, devices)
        if watched is not None:
            watched(verdicts)
        events = client.events(seq, wait_s=max(1, min(LONGEST_POLL_S, round(left_s))))
        if events.get("gap"):
            devices, seq, fresh = *_look(client, names), names
        else:
            seq, fresh = int(events["next"]), _named(events["events"], names)
            devices = {name: devices[name] for name in devices if name not in fresh} | _read(client, fresh)


def _named(events: Iterable[Mapping[str, Any]], names: Collection[str]) -> Collection[str]:
    """Those of ``names`` that the events are about, of whatever type they are."""
    return {str(event.get("name")) for event in events}.intersection(names)


def _look(client: Client, names: Collection[str]) -> tuple[dict[str, Object], int]:
    """The devices as they are now, and the number of the newest event before that."""
    if len(names) <= READ_ONE_BY_ONE:
        seq = int(client.events()["next"])
        return _read(client, names), seq
    listing = client.listing(DEVICE)
    wanted = set(names)
    found = {name_of(device): device for device in listing["items"] if name_of(device) in wanted}
    return found, int(listing["metadata"]["event_seq"])


def _read(client: Client, names: Collection[str]) -> dict[str, Object]:
    """Those of the devices that exist."""
    found = {}
    for name in names:
        with suppress(NotFound):
            found[name] = client.read(Ref(DEVICE, name))
    return found
