"""What long work is at: on a terminal one line that is written over, anywhere else a line of its own now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

from hengectl.fitting import width_of

REDRAWN_EVERY_S: Final = 0.1
"""More often nobody can read, and a slow terminal would hold up the work."""
SHOWN_AFTER_S: Final = 0.2
"""What is done by then needs no word."""
PLAIN_EVERY_S: Final = 10.0
"""A log needs to know that there is life, not each step."""
ERASED: Final = "\r\x1b[K"


class Progress:
    """Told what work is at, as often as one likes; whoever writes anything else calls ``clear`` before."""

    def __init__(self, out: TextIO, *, live: bool, width: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """``live``: ``out`` is a terminal that can erase a line; ``width`` are its columns, 0 if it does not say."""
        self._out = out
        self._live = live
        self._width = width
        self._clock = clock
        self._since: float | None = None
        self._told_at = 0.0
        self._is_shown = False

    def tell(self, text: str, *, long: bool = False) -> None:
        """Show what the work is at, if it has lasted a while; ``long`` when the next step is known to."""
        now = self._clock()
        if self._since is None:
            self._since = self._told_at = now
        if self._live:
            if long or now - self._told_at >= (REDRAWN_EVERY_S if self._is_shown else SHOWN_AFTER_S):
                self._draw(text, now)
        elif now - self._told_at >= PLAIN_EVERY_S:
            self._told_at = now
            self._out.write(f"{text}\n")
            self._out.flush()

    def clear(self) -> None:
        """Take the line away, so that something else can stand there."""
        if self._is_shown:
            self._is_shown = False
            self._out.write(ERASED)
            self._out.flush()

    def _draw(self, text: str, now: float) -> None:
        self._told_at, self._is_shown = now, True
        self._out.write(ERASED + self._cut(text))
        self._out.flush()

    def _cut(self, text: str) -> str:
        """A line that wrapped could not be erased."""
        while self._width and text and width_of(text) >= self._width:
            text = text[:-1]
        return text
