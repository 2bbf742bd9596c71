"""The boards' client as an implementation for ``run_vectors``, on MicroPython and on CPython."""

from henge_micro import backoff, mdns, wire


def decode(frame):
    """The message, or the code of the refusal."""
    try:
        return _read(frame), None
    except wire.Trouble as error:
        return None, error.code


def _read(frame):
    """A whole frame as ``henge_micro.link`` takes it: the header, and as many bytes as it says behind it."""
    head, _, document = frame.partition(b"\n")
    message = wire.read_header(head)
    if message.pop("size", 0) != len(document):
        raise wire.Trouble("bad_frame", "size")
    if message["type"] == "config":
        message["document"] = document
    return message


class BoardSession:
    """``wire.Session`` with the runner's signatures. One role, and no clock: its link waits for no frame for ever."""

    def __init__(self, role, now):
        self._session = wire.Session()

    def receive(self, frame, now):
        """Event, reply, close."""
        try:
            message = _read(frame)
        except wire.Trouble as error:
            return self._session.fault(error.code, now)
        return self._session.take(message, now)

    def send(self, message, now):
        """The frame; ``LookupError`` where the table does not allow it."""
        return self._session.send(message)

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
