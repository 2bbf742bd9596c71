"""Waiting until devices are as they should be: told by the daemon's events, never by asking in a loop.

The number of the newest event is read together with the devices, so nothing that happens in between is missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from henge_protocol.errors import NotFound
from hengectl.client import Client
from hengectl.kinds import DEVICE, Object, Ref, name_of

LONGEST_POLL_S: Final = 50
REFUSED: Final = frozenset({"rejected", "rolled-back", "quarantined"})

Verdict = Literal["reached", "refused", "away", "open"]


@dataclass(frozen=True, slots=True)
class Waited:
    """How a wait ended, device by device."""

    verdicts: Mapping[str, Verdict]
    devices: Mapping[str, Object]

    def having(self, verdict: Verdict) -> list[str]:
        """The names with that verdict, sorted."""
        return sorted(name for name, found in self.verdicts.items() if found == verdict)


def in_sync(device: Object | None) -> Verdict:
    """Whether a device runs what it should; ``away`` when it is not connected and cannot say so."""
    if device is None:
        return "refused"
    status = device.get("status", {})
    if status.get("config") == "in-sync":
        return "reached"
    if status.get("config") in REFUSED:
        return "refused"
    return "open" if status.get("connection") == "online" else "away"


def in_sync_strictly(device: Object | None) -> Verdict:
    """The same, but a device that is away is waited for."""
    verdict = in_sync(device)
    return "open" if verdict == "away" else verdict


def online(device: Object | None) -> Verdict:
    """Whether a device is connected."""
    if device is None:
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
    clock: Callable[[], float] = time.monotonic,
) -> Waited:
    """Wait until no device is ``open`` any more, at most ``timeout_s``; ``told`` hears each verdict once."""
    deadline = clock() + timeout_s
    heard: dict[str, Verdict] = {}
    while True:
        devices, seq = _look(client, names)
        verdicts = {name: judge(devices.get(name)) for name in names}
        for name, verdict in verdicts.items():
            if told is not None and verdict != "open" and heard.get(name) != verdict:
                told(name, verdict, devices.get(name))
        heard = verdicts
        left = deadline - clock()
        if "open" not in verdicts.values() or left <= 0:
            return Waited(verdicts, devices)
        _sleep(client, seq, names, left, deadline, clock)


def _look(client: Client, names: Collection[str]) -> tuple[dict[str, Object], int]:
    """The devices as they are now, and the number of the newest event before that."""
    if len(names) == 1:
        seq = int(client.events()["next"])
        return _one(client, next(iter(names))), seq
    listing = client.listing(DEVICE)
    wanted = set(names)
    found = {name_of(device): device for device in listing["items"] if name_of(device) in wanted}
    return found, int(listing["metadata"]["event_seq"])


def _one(client: Client, name: str) -> dict[str, Object]:
    try:
        return {name: client.read(Ref(DEVICE, name))}
    except NotFound:
        return {}


def _sleep(
    client: Client, seq: int, names: Collection[str], left_s: float, deadline: float, clock: Callable[[], float]
) -> None:
    """Until something happened to one of the devices, or events were lost, or the time is over."""
    while left_s > 0:
        events: dict[str, Any] = client.events(seq, wait_s=max(1, min(LONGEST_POLL_S, round(left_s))))
        if events.get("gap") or any(event.get("name") in names for event in events["events"]):
            return
        seq, left_s = int(events["next"]), deadline - clock()
