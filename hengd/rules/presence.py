"""Who is connected now. In memory only: after a restart nobody is, until they say hello.

When each was there last is written down now and then; see ``Devices.note_contacts``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Live:
    """A device's live connection(s)."""

    since: float
    address: str
    links: int = 1


class Presence:
    """Devices with at least one live link or long-poll."""

    def __init__(self) -> None:
        self._live: dict[str, Live] = {}
        self._left: dict[str, float] = {}
        """When the last link of those who are away ended."""

    def __len__(self) -> int:
        return len(self._live)

    @property
    def links(self) -> int:
        """Live links and long-polls; a device may have several for a moment."""
        return sum(live.links for live in self._live.values())

    def arrive(self, device_id: str, address: str, *, now: float) -> bool:
        """A link opened; whether the device was not connected before."""
        live = self._live.get(device_id)
        if live is None:
            self._live[device_id] = Live(now, address)
            self._left.pop(device_id, None)
            return True
        live.links += 1
        live.address = address
        return False

    def leave(self, device_id: str, *, now: float) -> bool:
        """A link ended; whether it was the last one."""
        live = self._live.get(device_id)
        if live is None:
            return False
        live.links -= 1
        if live.links > 0:
            return False
        del self._live[device_id]
        self._left[device_id] = now
        return True

    def find(self, device_id: str) -> Live | None:
        """The live connection of a device, or None."""
        return self._live.get(device_id)

    def contacts(self, *, now: float) -> dict[str, float]:
        """When each device was in contact last that was since the daemon started; those that are here are now."""
        return self._left | dict.fromkeys(self._live, now)

    def left(self, device_id: str) -> float:
        """When a device that is away was connected last; 0 if it was not since the daemon started."""
        return self._left.get(device_id, 0.0)
