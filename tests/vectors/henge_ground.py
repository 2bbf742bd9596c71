"""The ground package as an implementation for ``run_vectors``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from henge_protocol import backoff, beacon, wire
from henge_protocol.errors import HengeError
from henge_protocol.model import digest_of
from henge_protocol.session import Role, Session
from henge_protocol.strictjson import canonical

MESSAGES = (wire.Hello, wire.Report, wire.Welcome, wire.Config, wire.Receipt, wire.Error, wire.Bye)
CLASS_OF = {kind.type: kind for kind in MESSAGES}


def as_dict(message: wire.Message) -> dict[str, Any]:
    """A message as vectors write it: lists for tuples, ``type`` among the fields."""
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(message).items()}
    return {"type": message.type, **fields}


def message_from(fields: dict[str, Any]) -> wire.Message:
    """The message that a vector writes."""
    values = {name: value for name, value in fields.items() if name != "type"}
    if "protocol" in values and fields["type"] == "hello":
        values["protocol"] = tuple(values["protocol"])
    if "errors" in values:
        values["errors"] = tuple(wire.FieldError(**error) for error in values["errors"])
    return CLASS_OF[fields["type"]](**values)


def decode(frame: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """The message, or the code of the refusal."""
    try:
        return as_dict(wire.decode(frame)), None
    except wire.WireError as error:
        return None, error.code


class GroundSession:
    """``Session`` with dicts in place of dataclasses."""

    def __init__(self, role: Role, now: float) -> None:
        self._session = Session(role, now=now)

    def receive(self, frame: bytes, now: float) -> tuple[dict[str, Any] | None, bytes | None, Any]:
        """Event, reply, close."""
        event, reply, close = self._session.receive(frame, now=now)
        return as_dict(event) if event is not None else None, reply, close

    def send(self, message: dict[str, Any], now: float) -> bytes:
        """The frame; ``LookupError`` where the table does not allow it."""
        return self._session.send(message_from(message), now=now)

    def tick(self, now: float) -> Any:
        """Close or None."""
        return self._session.tick(now=now)

    def state(self) -> str:
        """The state's name."""
        return self._session.state

    def in_flight(self) -> str:
        """Digest of the delivery under way."""
        return self._session.in_flight


def _canonical(value: object) -> tuple[bytes | None, str | None]:
    try:
        return canonical(value), None
    except HengeError as error:
        return None, error.code


def _parse_txt(data: bytes) -> tuple[dict[str, Any] | None, str | None]:
    try:
        hint = beacon.parse_txt(data)
    except HengeError as error:
        return None, error.code
    return {"fleet": hint.fleet, "fp": hint.fp_hint, "t": hint.unix_s}, None


IMPLEMENTATION: dict[str, Any] = {
    "roles": ("daemon", "device"),
    "decode": decode,
    "encode": lambda message: wire.encode(message_from(message)),
    "digest": digest_of,
    "canonical": _canonical,
    "parse_txt": _parse_txt,
    "delay": backoff.delay_s,
    "hinted": backoff.hinted_delay_s,
    "backoff": backoff.Backoff,
    "session": GroundSession,
}
