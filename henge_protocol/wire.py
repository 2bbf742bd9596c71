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

from henge_protocol.header import (
    MAX_HEADER_BYTES,
    WireError,
    choice_field,
    digest_field,
    free_text,
    number_field,
    read_header,
    subject_field,
    text_field,
    unfit,
)
from henge_protocol.model import FINAL_STATES, INTENTS, REPORT_STATES, digest_of
from henge_protocol.strictjson import MAX_INTEGER

PROTOCOL_VERSION: Final = 1
SUPPORTED: Final = (1, 1)
"""Lowest and highest protocol version this code speaks."""

MAX_FRAME_BYTES: Final = 1024 * 1024 + MAX_HEADER_BYTES
"""Daemon to device; what a device accepts is its own ``max_document``."""
MAX_DEVICE_FRAME_BYTES: Final = MAX_HEADER_BYTES
"""Device to daemon: only headers travel that way."""

MAX_FACTS: Final = 32
MAX_FACT_CHARS: Final = 128
MAX_ERRORS: Final = 32
MAX_CONTACT_S: Final = 366 * 86400
MAX_DAY_S: Final = 86400
"""For ``confirm_s`` and ``retry_after_s``: a device that waits longer looks broken to its owner."""
MAX_PING_S: Final = 3600
MAX_RENEW_WITHIN_S: Final = 7 * 86400
MAX_SIZE_BYTES: Final = 2**31
MAX_VERSION: Final = 999

_EPOCH = re.compile(r"[0-9a-z]{0,32}", re.ASCII)
_CODE = re.compile(r"[a-z0-9_-]{0,48}", re.ASCII)
_VISIBLE = re.compile(r"[\x20-\x7e]{0,64}", re.ASCII)
_REPORTABLE: Final = REPORT_STATES - {"none"}
"""Who runs nothing of ours says so in ``hello`` and has nothing to report about."""
_LASTING: Final = REPORT_STATES - {"checked"}
"""A look at a candidate is neither a state to be in nor put on the disk."""


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
    renew_within_s: int = 0
    """The device is asked to renew its identity within this time; 0 = it is not."""


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
    header = read_header(head)
    kind = header.get("type")
    if not isinstance(kind, str):
        raise unfit("type", "a text", kind)
    reader = _READERS.get(kind)
    if reader is None:
        raise WireError("unknown_type", f"frame type {ascii(kind)[:40]} is unknown")
    if kind == "config":
        return _config(header, line_feed, document)
    if line_feed:
        raise WireError("bad_frame", f"a {kind} frame is one line; {len(document)} bytes follow")
    return reader(header)


def choose_version(theirs: tuple[int, int], ours: tuple[int, int]) -> int | None:
    """The highest protocol version that both ranges hold, or None."""
    highest = min(theirs[1], ours[1])
    return highest if highest >= max(theirs[0], ours[0]) else None


def versions_text(versions: tuple[int, int]) -> str:
    """A range of protocol versions for people: ``1``, ``1 to 7``."""
    return str(versions[0]) if versions[0] == versions[1] else f"{versions[0]} to {versions[1]}"


def _dump(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()


def _range(value: object) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        low, high = value
        if type(low) is int and type(high) is int and 1 <= low <= high <= MAX_VERSION:
            return low, high
    raise unfit("protocol", "[lowest, highest] version", value)


def _facts(value: object) -> dict[str, str | int | float | bool]:
    if not isinstance(value, dict) or len(value) > MAX_FACTS:
        raise unfit("facts", f"an object of at most {MAX_FACTS} entries", value)
    for key, fact in value.items():
        if not _VISIBLE.fullmatch(key) or not _is_fact(fact):
            raise unfit("facts", "plain keys with text, number or boolean values", {key: fact})
        if isinstance(fact, str):
            free_text(fact, "facts", MAX_FACT_CHARS)
    return value


def _is_fact(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    return isinstance(value, str)


def _errors(value: object) -> tuple[FieldError, ...]:
    if not isinstance(value, list) or len(value) > MAX_ERRORS:
        raise unfit("errors", f"a list of at most {MAX_ERRORS} entries", value)
    return tuple(_field_error(entry) for entry in value)


def _field_error(entry: object) -> FieldError:
    if not isinstance(entry, dict):
        raise unfit("errors", "objects with pointer and message", entry)
    return FieldError(free_text(entry.get("pointer", ""), "pointer"), free_text(entry.get("message", ""), "message"))


def _hello(header: dict[str, Any]) -> Hello:
    return Hello(
        _range(header.get("protocol")),
        text_field(header, "epoch", _EPOCH, "an epoch"),
        number_field(header, "revision"),
        digest_field(header),
        choice_field(header, "state", _LASTING, "none"),
        text_field(header, "boot", _VISIBLE, "at most 64 plain characters"),
        text_field(header, "client", _VISIBLE, "at most 64 plain characters"),
        _facts(header.get("facts", {})),
        number_field(header, "next_contact_s", most=MAX_CONTACT_S),
        number_field(header, "max_document", most=MAX_SIZE_BYTES),
    )


def _report(header: dict[str, Any]) -> Report:
    return Report(
        text_field(header, "epoch", _EPOCH, "an epoch"),
        number_field(header, "revision"),
        subject_field(header),
        choice_field(header, "state", _REPORTABLE, ""),
        text_field(header, "reason", _CODE, "a reason code"),
        _errors(header["errors"]) if "errors" in header else (),
    )


def _welcome(header: dict[str, Any]) -> Welcome:
    return Welcome(
        number_field(header, "protocol", most=MAX_VERSION),
        text_field(header, "epoch", _EPOCH, "an epoch"),
        text_field(header, "name", _VISIBLE, "a device name"),
        number_field(header, "time"),
        number_field(header, "ping_s", 30, most=MAX_PING_S),
        number_field(header, "max_document", most=MAX_SIZE_BYTES),
        number_field(header, "up_s"),
        number_field(header, "renew_within_s", most=MAX_RENEW_WITHIN_S),
    )


def _config(header: dict[str, Any], line_feed: bytes, document: bytes) -> Config:
    size = number_field(header, "size", most=MAX_FRAME_BYTES)
    if not line_feed or size != len(document):
        raise WireError("bad_frame", f"size says {size} bytes, {len(document)} follow the header line")
    return Config(
        text_field(header, "epoch", _EPOCH, "an epoch"),
        number_field(header, "revision"),
        subject_field(header),
        number_field(header, "confirm_s", 120, most=MAX_DAY_S),
        choice_field(header, "intent", INTENTS, "apply"),
        document,
        digest_field(header, "schema"),
    )


def _receipt(header: dict[str, Any]) -> Receipt:
    return Receipt(number_field(header, "revision"), digest_field(header), choice_field(header, "state", _LASTING, ""))


def _error(header: dict[str, Any]) -> Error:
    return Error(text_field(header, "code", _CODE, "an error code"), free_text(header.get("message", ""), "message"))


def _bye(header: dict[str, Any]) -> Bye:
    return Bye(
        text_field(header, "reason", _CODE, "a reason code"), number_field(header, "retry_after_s", most=MAX_DAY_S)
    )


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
