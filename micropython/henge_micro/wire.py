"""Frames and session of docs/protocol.md, the device's half. Messages are dicts, ``type`` among their fields.

``tests/vectors`` proves it equal to ``henge_protocol``; a test compares ``TRANSITIONS`` with the ground's table.
"""

import hashlib
import json
from binascii import hexlify

CLIENT = "henge-micro/0.1"
MAX_HEADER_BYTES = 8192
FAULT_WINDOW_S = 60
MAX_FAULTS = 3
BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
FINAL = ("applied", "rejected", "rolled-back")

TRANSITIONS = {
    "start": {"send hello": "expect-welcome"},
    "expect-welcome": {"recv welcome": "idle", "recv error": "closed", "recv bye": "closed"},
    "idle": {
        "recv config": "applying",
        "recv receipt": "idle",
        "recv error": "idle",
        "recv bye": "closed",
        "send report": "idle",
        "send error": "idle",
    },
    "applying": {
        "recv config": "applying",
        "recv receipt": "applying",
        "recv error": "applying",
        "recv bye": "closed",
        "send report": "applying",
        "send final report": "idle",
        "send error": "applying",
    },
    "closed": {},
}

_INTEGER = (1 << 53) - 1
_DAY_S = 86400
_STATES = FINAL + ("none", "applying", "drifted")

# type -> (field, default, form): a number is the largest allowed, a tuple what is allowed, a text a name in _is_form
_FIELDS = {
    "welcome": (
        ("protocol", 0, 999),
        ("epoch", "", "epoch"),
        ("name", "", "visible"),
        ("time", 0, _INTEGER),
        ("ping_s", 30, 3600),
        ("max_document", 0, 1 << 31),
        ("up_s", 0, _INTEGER),
        ("renew_within_s", 0, 604800),
    ),
    "config": (
        ("epoch", "", "epoch"),
        ("revision", 0, _INTEGER),
        ("digest", None, "digest"),
        ("size", 0, 1048576 + MAX_HEADER_BYTES),
        ("confirm_s", 120, _DAY_S),
        ("intent", "apply", ("apply", "check")),
        ("schema", "", "digest or none"),
    ),
    "receipt": (("revision", 0, _INTEGER), ("digest", "", "digest or none"), ("state", "", _STATES)),
    "error": (("code", "", "code"), ("message", "", "text")),
    "bye": (("reason", "", "code"), ("retry_after_s", 0, _DAY_S)),
}


class Trouble(Exception):
    """Raised for everything that ends an attempt: a stable code of docs/errors.md, and words for a person."""

    def __init__(self, code, text="", retry_after_s=None):
        super().__init__("%s: %s" % (code, text) if text else code)
        self.code = code
        self.retry_after_s = retry_after_s
        self.fault = code == "bad_frame" or code == "internal"
        """Whether it is the kind that comes back with each link."""


def digest_of(data):
    """SHA-256 of these bytes in lower-case hex."""
    return hexlify(hashlib.sha256(data).digest()).decode()


def read_header(line):
    """The message of a header line, defaults filled in; a config has ``size`` and the document follows elsewhere."""
    try:
        if len(line) > MAX_HEADER_BYTES:
            raise ValueError
        given = json.loads(bytes(line).decode())
        kind = given["type"]
        if not isinstance(given, dict) or not isinstance(kind, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RuntimeError):  # RuntimeError: nested too deeply
        raise Trouble("bad_frame", "header")
    if kind not in _FIELDS:
        raise Trouble("unexpected" if kind in ("hello", "report") else "unknown_type", "type")
    message = {"type": kind}
    for name, default, form in _FIELDS[kind]:
        value = given.get(name, default)
        if not _is_form(value, form):
            raise Trouble("bad_frame", name)
        message[name] = value
    return message


def encode(message):
    """The frame of a hello, report or error."""
    return json.dumps(message).encode()


def is_digest(text):
    """Whether this is a digest in its one spelling."""
    return isinstance(text, str) and len(text) == 64 and _only(text, "0123456789abcdef")


def is_id(text):
    """Whether this has the form of a fleet's or device's id."""
    return len(text) == 26 and _only(text, BASE32) and BASE32.find(text[-1]) & 3 == 0


class Session:
    """The state of one link, as ``henge_protocol.session.Session`` in the role of a device. Times are seconds."""

    def __init__(self):
        self.state = "start"
        self.in_flight = ""
        self._faults = []

    def take(self, message, now):
        """Take a message whose header was read: (event, reply, close), each of them None or what to do."""
        following = TRANSITIONS[self.state].get("recv " + message["type"])
        if following is None:
            return self.fault("unexpected", now)
        self._enter(following, message)
        return message, None, None

    def send(self, message):
        """The frame to write; ``LookupError`` if this state does not allow it."""
        happening = message["type"]
        if happening == "report" and self.in_flight == message["digest"] and message["state"] in FINAL:
            happening = "final report"
        following = TRANSITIONS[self.state].get("send " + happening)
        if following is None:
            raise LookupError(happening)
        self._enter(following, message)
        return encode(message)

    def fault(self, code, now):
        """The peer sent something useless: an answer where the table lets that go on, the end elsewhere."""
        if self.state == "closed":
            return None, None, None
        self._faults = [time for time in self._faults if now - time <= FAULT_WINDOW_S] + [now]
        if len(self._faults) >= MAX_FAULTS or TRANSITIONS[self.state].get("send error") != self.state:
            self.state = "closed"
            return None, None, (1008, code)
        return None, encode({"type": "error", "code": code, "message": ""}), None

    def _enter(self, state, message):
        if message["type"] == "config":
            self.in_flight = message["digest"]
        elif state == "idle":
            self.in_flight = ""
        self.state = state


def _is_form(value, form):
    if isinstance(form, int):
        return type(value) is int and 0 <= value <= form
    if not isinstance(value, str):
        return False
    if isinstance(form, tuple):
        return value in form
    if form == "epoch":
        return len(value) <= 32 and _only(value, "0123456789abcdefghijklmnopqrstuvwxyz")
    if form == "code":
        return len(value) <= 48 and _only(value, "0123456789abcdefghijklmnopqrstuvwxyz_-")
    if form == "visible":
        return len(value) <= 64 and all(" " <= char <= "~" for char in value)
    if form == "text":
        return len(value) <= 300 and not any("\ud800" <= char <= "\udfff" for char in value)
    return is_digest(value) or (form == "digest or none" and value == "")


def _only(text, allowed):
    return all(char in allowed for char in text)
