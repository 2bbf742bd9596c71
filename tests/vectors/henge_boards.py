"""The boards' client as an implementation for ``run_vectors``, on MicroPython and on CPython."""

from henge_micro import backoff, mdns, wire


def decode(frame):
    """The message, or the code of the refusal."""
    try:
        return wire.decode(frame), None
    except wire.Trouble as error:
        return None, error.code


class BoardSession:
    """``wire.Session`` with the runner's signatures; the board has one role."""

    def __init__(self, role, now):
        self._session = wire.Session(now)

    def receive(self, frame, now):
        """Event, reply, close."""
        return self._session.receive(frame, now)

    def send(self, message, now):
        """The frame; ``LookupError`` where the table does not allow it."""
        return self._session.send(message)

    def tick(self, now):
        """Close or None."""
        return self._session.tick(now)

    def state(self):
        """The state's name."""
        return self._session.state

    def in_flight(self):
        """Digest of the delivery under way."""
        return self._session.in_flight


def _parse_txt(data):
    try:
        return mdns.parse_txt(data), None
    except wire.Trouble as error:
        return None, error.code


IMPLEMENTATION = {
    "roles": ("device",),
    "decode": decode,
    "digest": wire.digest_of,
    "parse_txt": _parse_txt,
    "delay": backoff.delay_s,
    "hinted": backoff.hinted_delay_s,
    "backoff": backoff.Backoff,
    "session": BoardSession,
}
