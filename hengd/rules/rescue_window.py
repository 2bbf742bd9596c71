"""The rescue window: for how long devices that the store does not know may hand in what they run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from hengd.records import RescueWindow as WindowRecord
from hengd.records import pack, unpack
from hengd.rules import audit
from hengd.rules.outcome import Author
from hengd.store import Store, Transaction
from henge_protocol import pki
from henge_protocol.errors import HengeError, Invalid, Unavailable

MAX_WINDOW_S: Final = 30 * pki.DAY_S
"""Boards may sleep for weeks."""
WINDOW_KEY: Final = b"window"
"""Of the one record in ``rescues`` that nobody handed in."""


class RescueWindow:
    """When it closes; a restart does not close it."""

    def __init__(self, store: Store, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        with store.read() as tx:
            payload = tx.get("rescues", WINDOW_KEY)
        self._closes = -math.inf
        """Monotonic seconds."""
        if payload is not None:
            window = unpack(WindowRecord, payload)
            left_s = min(window.until - clock(), window.until - window.opened)  # also if the clock was set back
            self._closes = monotonic() + left_s

    @property
    def closes(self) -> float:
        """When the window closes, unix seconds; 0 = it is closed."""
        left_s = self._closes - self._monotonic()
        return self._clock() + left_s if left_s > 0 else 0.0

    @property
    def is_open(self) -> bool:
        """Whether devices may hand in now."""
        return self._closes > self._monotonic()

    def trouble(self) -> HengeError | None:
        """While it is open: that it is, for those who look after the daemon."""
        if not self.is_open:
            return None
        message = "the rescue window is open: devices that the store does not know may hand in what they run"
        return Unavailable("rescue_open", message, cure="take what came, then: hengectl rescue close")

    async def open(self, for_s: int, by: Author, *, forget: bool = False) -> None:
        """Let devices hand in for so many seconds from now; 0 closes. ``forget`` drops what was handed in before.

        ``Invalid`` over 30 days. A restart does not close it.
        """
        if type(for_s) is not int or not 0 <= for_s <= MAX_WINDOW_S:
            most = int(MAX_WINDOW_S)
            raise Invalid("bad_parameter", f"open_s is {ascii(for_s)[:40]}, 0 to {most} seconds are allowed")
        now, was_open = self._clock(), self.is_open
        if not for_s:
            self._closes = -math.inf  # first: nothing more comes in, whatever the disk says

        def operation(tx: Transaction) -> None:
            if for_s:
                tx.put("rescues", WINDOW_KEY, pack(WindowRecord(now, now + for_s)))
            else:
                tx.delete("rescues", WINDOW_KEY)
            if forget:
                for key in [key for key in tx.keys("rescues") if key != WINDOW_KEY]:
                    tx.delete("rescues", key)
            if for_s or was_open:
                act: audit.Act = "rescue-window.opened" if for_s else "rescue-window.closed"
                audit.note(tx, act, "rescue-window", by, now=now)

        await self._store.write(operation, essential=not for_s)
        if for_s:
            self._closes = self._monotonic() + for_s
