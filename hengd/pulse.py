"""How the process fares: how late its event loop is, its memory, its time on the processor."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

BEAT_S: Final = 0.5
"""Often enough to meet any stall of a second, rare enough to cost nothing."""
WINDOW_S: Final = 60.0
"""Longer than people's intervals of scraping, so that no stall is missed between two scrapes."""


class Vitals(NamedTuple):
    """Figures of the process."""

    lag_s: float
    """The longest delay of a turn on the event loop within the last minute."""
    cpu_s: float
    memory_bytes: int


class Pulse:
    """Beats on the loop as long as ``run`` does."""

    def __init__(self, *, beat_s: float = BEAT_S) -> None:
        self._beat_s = beat_s
        self._lags: deque[float] = deque([0.0], maxlen=round(WINDOW_S / beat_s))

    def vitals(self) -> Vitals:
        """How it fares now."""
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return Vitals(max(self._lags), time.process_time(), pages * os.sysconf("SC_PAGE_SIZE"))

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            due = time.monotonic() + self._beat_s
            await asyncio.sleep(self._beat_s)
            self._lags.append(max(0.0, time.monotonic() - due))
