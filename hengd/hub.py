"""The wake-up bell: tells links *that* their device's document may differ, never *what* it is.

A lost ring loses time, never configuration: every link compares digests when it starts and at each heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

log = logging.getLogger("hengd.hub")

CHUNK: Final = 64
"""Listeners woken per turn of the event loop, so that a change of a whole fleet does not stall the others."""

Listener = Callable[[], None]


class Hub:
    """Listeners by device id; a device may have several (a link and a long-poll)."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    def listen(self, device_id: str, listener: Listener) -> None:
        """Call ``listener`` after each ring for ``device_id``. Listen first, look second."""
        self._listeners.setdefault(device_id, set()).add(listener)

    def forget(self, device_id: str, listener: Listener) -> None:
        """Stop calling ``listener``."""
        listeners = self._listeners.get(device_id)
        if listeners is not None:
            listeners.discard(listener)
            if not listeners:
                del self._listeners[device_id]

    def ring(self, device_ids: Iterable[str]) -> None:
        """Wake the listeners of these devices, a chunk per turn of the loop."""
        waking = [listener for device_id in device_ids for listener in self._listeners.get(device_id, ())]
        self._wake(waking, 0)

    def _wake(self, waking: list[Listener], start: int) -> None:
        for listener in waking[start : start + CHUNK]:
            try:
                listener()
            except Exception:  # task boundary: one device's trouble must not keep the others asleep
                log.exception("a listener failed", extra={"event": "listener_failed"})
        if start + CHUNK < len(waking):
            asyncio.get_running_loop().call_soon(self._wake, waking, start + CHUNK)
