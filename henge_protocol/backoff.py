"""How long to wait before the next attempt: exponential with full jitter. Pure.

The same numbers hold for agent and boards (``tests/vectors/backoff.json``). Full jitter because a
fleet that lost its daemon in one instant must not come back in one instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BASE_S: Final = 1.0
CAP_S: Final = 60.0
MAX_HINT_S: Final = 3600.0
"""Nobody stays away for longer because a daemon said so: it may have been mistaken, or replaced."""
BOOT_SPREAD_S: Final = 10.0
"""After a power cut a whole house boots at once; the first attempt is spread over this time."""


def delay_s(attempt: int, chance: float) -> float:
    """Seconds to wait before retry number ``attempt`` (0 is the first); ``chance`` lies in [0, 1)."""
    ceiling = CAP_S if attempt >= 6 else min(CAP_S, BASE_S * 2**attempt)
    return ceiling * chance


def hinted_delay_s(retry_after_s: float, chance: float) -> float:
    """Seconds to wait when the daemon named a time: never earlier, at most twice as late."""
    return retry_after_s + retry_after_s * chance


class Backoff:
    """Counts failures of one endpoint and turns them into delays; chance is an argument."""

    __slots__ = ("_attempt", "_hint_s", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._attempt = 0
        self._hint_s: float | None = None

    def hint(self, retry_after_s: float) -> None:
        """Honour the daemon's wish for the next delay, once."""
        self._hint_s = max(0.0, min(retry_after_s, MAX_HINT_S))

    def next_delay_s(self) -> float:
        """The delay before the next attempt; counts the attempt."""
        attempt, self._attempt = self._attempt, self._attempt + 1
        hint_s, self._hint_s = self._hint_s, None
        if hint_s is not None:
            return hinted_delay_s(hint_s, self._random())
        return delay_s(attempt, self._random())

    def reset(self) -> None:
        """The daemon gave a good answer: the next failure starts from the base again."""
        self._attempt = 0
