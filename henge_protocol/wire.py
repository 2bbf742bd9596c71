"""The frames between daemon and device: dataclasses, ``encode`` and ``decode``. Pure.

``docs/protocol.md`` is normative and ``tests/vectors/frames.json`` is shared with the boards' client.
A frame is text: one JSON header line; a ``config`` frame goes on with a line feed and the document's
bytes verbatim. Nobody re-serialises a document: its digest is over the bytes that travel.
Unknown fields are ignored, so that either side may grow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from henge_protocol.errors import Malformed
from henge_protocol.model import FINAL_STATES, INTENTS, REPORT_STATES, digest_of, is_digest

PROTOCOL_VERSION: Final = 1
SUPPORTED: Final = (1, 1)
"""Lowest and highest protocol version this code speaks."""

MAX_HEADER_BYTES: Final = 8 * 1024
MAX_FRAME_BYTES: Final = 1024 * 1024 + MAX_HEADER_BYTES
"""Daemon to device; what a device accepts is its own ``max_document``."""
MAX_DEVICE_FRAME_BYTES: Final = MAX_HEADER_BYTES
"""Device to daemon: only headers travel that way."""

MAX_FACTS: Final = 32
MAX_FACT_CHARS: Final = 128
MAX_ERRORS: Final = 32
MAX_TEXT_CHARS: Final = 300
MAX_CONTACT_S: Final = 366 * 86400
MAX_DAY_S: Final = 86400
"""For ``confirm_s`` and ``retry_after_s``: a device that waits longer looks broken to its owner."""
MAX_PING_S: Final = 3600
MAX_SIZE_BYTES: Final = 2**31
MAX_VERSION: Final = 999
MAX_INTEGER: Final = 2**53 - 1

_EPOCH = re.compile(r"[0-9a-z]{0,32}", re.ASCII)
_CODE = re.compile(r"[a-z0-9_-]{0,48}", re.ASCII)
_VISIBLE = re.compile(r"[\x20-\x7e]{0,64}", re.ASCII)
_REPORTABLE: Final = REPORT_STATES - {"none"}
"""Who runs nothing of ours says so in ``hello`` and has nothing to report about."""
_LASTING: Final = REPORT_STATES - {"checked"}
"""A look at a candidate is neither a state to be in nor put on the disk."""


class WireError(Malformed):
    """Raised by ``decode`` for a frame that cannot be used; nothing else is ever raised by it."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What a device says about one field of a document."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class Hello:
    """Device to daemon, first: who speaks which protocol and what the device runs now."""

    type: ClassVar[str] = "hello"
    protocol: tuple[int, int] = SUPPORTED
    epoch: str = ""
    revision: int = 0
    digest: str = ""
    state: str = "none"
    boot: str = ""
    """A nonce made at every boot of the device: two live ones under one certificate are a clone."""
    client: str = ""
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    next_contact_s: int = 0
    """When a sleepy device will be back, in seconds; 0 = it stays."""
    max_document: int = 0
    """Largest document the device can hold, in bytes; 0 = the default limit."""


@dataclass(frozen=True, slots=True)
class Report:
    """Device to daemon: what it runs, or why it does not run what it was sent."""

    type: ClassVar[str] = "report"
    epoch: str = ""
    revision: int = 0
    digest: str = ""
    state: str = "applied"
    reason: str = ""
    errors: tuple[FieldError, ...] = ()

    @property
    def final(self) -> bool:
        """Whether this ends the delivery of its digest."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Welcome:
    """Daemon to device: the chosen version, the limits, the time."""

    type: ClassVar[str] = "welcome"
    protocol: int = PROTOCOL_VERSION
    epoch: str = ""
    name: str = ""
    time: int = 0
    """Unix seconds; a device without a clock of its own may set it forward from here."""
    ping_s: int = 30
    max_document: int = 0
    up_s: int = 0
    """How long the daemon has been up; 0 = it does not say."""


@dataclass(frozen=True, slots=True)
class Config:
    """Daemon to device: the newest document, bytes verbatim."""

    type: ClassVar[str] = "config"
    epoch: str = ""
    revision: int = 0
    digest: str = ""
    confirm_s: int = 120
    intent: str = "apply"
    document: bytes = b""
    schema: str = ""
    """Digest of the schema that the document was checked against; a device that validates fetches what it lacks."""

    @property
    def intact(self) -> bool:
        """Whether the bytes hash to the announced digest."""
        return digest_of(self.document) == self.digest


@dataclass(frozen=True, slots=True)
class Receipt:
    """Daemon to device: the report about this digest is durable."""

    type: ClassVar[str] = "receipt"
    revision: int = 0
    digest: str = ""
    state: str = "applied"


@dataclass(frozen=True, slots=True)
class Error:
    """Either side: the last frame could not be used."""

    type: ClassVar[str] = "error"
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Bye:
    """Daemon to device: the link ends; come back after ``retry_after_s`` seconds."""

    type: ClassVar[str] = "bye"
    reason: str = ""
    retry_after_s: int = 0


Message = Hello | Report | Welcome | Config | Receipt | Error | Bye


def encode(message: Message) -> bytes:
    """The frame of ``message`` as UTF-8; fields in order of declaration, defaults included."""
    header: dict[str, Any] = {"type": message.type}
    for name in _FIELDS[message.type]:
        header[name] = getattr(message, name)
    if isinstance(message, Report):
        header["errors"] = [{"pointer": error.pointer, "message": error.message} for error in message.errors]
    if not isinstance(message, Config):
        return _dump(header)
    header["size"] = len(message.document)
    return _dump(header) + b"\n" + message.document


def decode(frame: bytes | str) -> Message:
    """Read one frame; raises ``WireError`` (``bad_frame``, ``unknown_type``) and nothing else."""
    data = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame
    head, line_feed, document = data.partition(b"\n")
    header = _header(head)
    kind = header.get("type")
    if not isinstance(kind, str):
        raise _bad("type", "a text", kind)
    reader = _READERS.get(kind)
    if reader is None:
        raise WireError("unknown_type", f"frame type {ascii(kind)[:40]} is unknown")
    if kind == "config":
        return _config(header, line_feed, document)
    if line_feed:
        raise WireError("bad_frame", f"a {kind} frame is one line; {len(document)} bytes follow")
    return reader(header)


def choose_version(theirs: tuple[int, int], ours: tuple[int, int] = SUPPORTED) -> int | None:
    """The highest protocol version that both ranges hold, or None."""
    highest = min(theirs[1], ours[1])
    return highest if highest >= max(theirs[0], ours[0]) else None


def _dump(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()


def _header(head: bytes) -> dict[str, Any]:
    if len(head) > MAX_HEADER_BYTES:
        raise WireError("bad_frame", f"the header line has {len(head)} bytes, at most {MAX_HEADER_BYTES} are read")
    try:
        header = _decoder.decode(head.decode())
    except UnicodeDecodeError as error:
        raise WireError("bad_frame", f"the header line is not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise WireError("bad_frame", f"the header line is not JSON: {str(error)[:100]}") from None
    if not isinstance(header, dict):
        raise WireError("bad_frame", "the header line is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has the same key twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _bad(name: str, wanted: str, value: object) -> WireError:
    return WireError("bad_frame", f"field {name} is {ascii(value)[:60]}, {wanted} is expected")


def _text(header: Mapping[str, Any], name: str, form: re.Pattern[str], wanted: str) -> str:
    value = header.get(name, "")
    if isinstance(value, str) and form.fullmatch(value):
        return value
    raise _bad(name, wanted, value)


def _free_text(value: object, name: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    if not isinstance(value, str) or len(value) > max_chars:
        raise _bad(name, f"a text of at most {max_chars} characters", value)
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _bad(name, "a text without lone surrogates", value)
    return value


def _number(header: Mapping[str, Any], name: str, default: int = 0, most: int = MAX_INTEGER) -> int:
    value = header.get(name, default)
    if type(value) is int and 0 <= value <= most:
        return value
    raise _bad(name, f"a whole number from 0 to {most}", value)


def _digest(header: Mapping[str, Any], name: str = "digest") -> str:
    """Of a document or schema, or empty for none."""
    return "" if header.get(name, "") == "" else _subject(header, name)


def _subject(header: Mapping[str, Any], name: str = "digest") -> str:
    """The digest of the document that a frame is about."""
    value = header.get(name)
    if is_digest(value):
        return str(value)
    raise _bad(name, "64 characters of lower-case hex", value)


def _one_of(header: Mapping[str, Any], name: str, allowed: frozenset[str], default: str) -> str:
    value = header.get(name, default)
    if isinstance(value, str) and value in allowed:
        return value
    raise _bad(name, "one of " + ", ".join(sorted(allowed)), value)


def _range(value: object) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        low, high = value
        if type(low) is int and type(high) is int and 1 <= low <= high <= MAX_VERSION:
            return low, high
    raise _bad("protocol", "[lowest, highest] version", value)


def _facts(value: object) -> dict[str, str | int | float | bool]:
    if not isinstance(value, dict) or len(value) > MAX_FACTS:
        raise _bad("facts", f"an object of at most {MAX_FACTS} entries", value)
    for key, fact in value.items():
        if not _VISIBLE.fullmatch(key) or not _is_fact(fact):
            raise _bad("facts", "plain keys with text, number or boolean values", {key: fact})
        if isinstance(fact, str):
            _free_text(fact, "facts", MAX_FACT_CHARS)
    return value


def _is_fact(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    return isinstance(value, str)


def _errors(value: object) -> tuple[FieldError, ...]:
    if not isinstance(value, list) or len(value) > MAX_ERRORS:
        raise _bad("errors", f"a list of at most {MAX_ERRORS} entries", value)
    return tuple(_field_error(entry) for entry in value)


def _field_error(entry: object) -> FieldError:
    if not isinstance(entry, dict):
        raise _bad("errors", "objects with pointer and message", entry)
    return FieldError(_free_text(entry.get("pointer", ""), "pointer"), _free_text(entry.get("message", ""), "message"))


def _hello(header: dict[str, Any]) -> Hello:
    return Hello(
        _range(header.get("protocol")),
        _text(header, "epoch", _EPOCH, "an epoch"),
        _number(header, "revision"),
        _digest(header),
        _one_of(header, "state", _LASTING, "none"),
        _text(header, "boot", _VISIBLE, "at most 64 plain characters"),
        _text(header, "client", _VISIBLE, "at most 64 plain characters"),
        _facts(header.get("facts", {})),
        _number(header, "next_contact_s", most=MAX_CONTACT_S),
        _number(header, "max_document", most=MAX_SIZE_BYTES),
    )


def _report(header: dict[str, Any]) -> Report:
    return Report(
        _text(header, "epoch", _EPOCH, "an epoch"),
        _number(header, "revision"),
        _subject(header),
        _one_of(header, "state", _REPORTABLE, ""),
        _text(header, "reason", _CODE, "a reason code"),
        _errors(header["errors"]) if "errors" in header else (),
    )


def _welcome(header: dict[str, Any]) -> Welcome:
    return Welcome(
        _number(header, "protocol", most=MAX_VERSION),
        _text(header, "epoch", _EPOCH, "an epoch"),
        _text(header, "name", _VISIBLE, "a device name"),
        _number(header, "time"),
        _number(header, "ping_s", 30, most=MAX_PING_S),
        _number(header, "max_document", most=MAX_SIZE_BYTES),
        _number(header, "up_s"),
    )


def _config(header: dict[str, Any], line_feed: bytes, document: bytes) -> Config:
    size = _number(header, "size", most=MAX_FRAME_BYTES)
    if not line_feed or size != len(document):
        raise WireError("bad_frame", f"size says {size} bytes, {len(document)} follow the header line")
    return Config(
        _text(header, "epoch", _EPOCH, "an epoch"),
        _number(header, "revision"),
        _subject(header),
        _number(header, "confirm_s", 120, most=MAX_DAY_S),
        _one_of(header, "intent", INTENTS, "apply"),
        document,
        _digest(header, "schema"),
    )


def _receipt(header: dict[str, Any]) -> Receipt:
    return Receipt(_number(header, "revision"), _digest(header), _one_of(header, "state", _LASTING, ""))


def _error(header: dict[str, Any]) -> Error:
    return Error(_text(header, "code", _CODE, "an error code"), _free_text(header.get("message", ""), "message"))


def _bye(header: dict[str, Any]) -> Bye:
    return Bye(_text(header, "reason", _CODE, "a reason code"), _number(header, "retry_after_s", most=MAX_DAY_S))


_READERS: Final[dict[str, Callable[[dict[str, Any]], Message]]] = {
    "hello": _hello,
    "report": _report,
    "welcome": _welcome,
    "config": lambda header: _config(header, b"", b""),
    "receipt": _receipt,
    "error": _error,
    "bye": _bye,
}
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    kind.type: tuple(name for name in kind.__slots__ if name != "document")
    for kind in (Hello, Report, Welcome, Config, Receipt, Error, Bye)
}
