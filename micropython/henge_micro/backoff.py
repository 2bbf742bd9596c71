"""How long to wait before the next attempt: docs/protocol.md, section Reconnecting; tests/vectors/backoff.json."""

CAP_S = 60
MAX_HINT_S = 3600
BOOT_SPREAD_S = 10


def delay_s(attempt, chance):
    """Seconds before retry number ``attempt`` (0 is the first)."""
    return (CAP_S if attempt >= 6 else 1 << attempt) * chance


def hinted_delay_s(retry_after_s, chance):
    """Seconds when the daemon named a time: never earlier, at most twice as late."""
    return retry_after_s + retry_after_s * chance


class Backoff:
    """Counts failures and turns them into delays."""

    def __init__(self, random):
        self._random = random
        self._attempt = 0
        self._hint_s = None

    def hint(self, retry_after_s):
        """Honour the daemon's wish for the next delay, once."""
        self._hint_s = max(0, min(retry_after_s, MAX_HINT_S))

    def next_delay_s(self):
        """The delay before the next attempt; counts the attempt."""
        hint_s, self._hint_s = self._hint_s, None
        self._attempt += 1
        if hint_s is not None:
            return hinted_delay_s(hint_s, self._random())
        return delay_s(self._attempt - 1, self._random())

    def reset(self):
        """The daemon gave a good answer."""
        self._attempt = 0
