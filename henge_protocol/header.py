"""The header line of a frame: strict JSON, and its fields by their forms. Pure.

Everything here raises ``WireError`` (``bad_frame``) and nothing else. ``wire`` says which frame has which fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from henge_protocol.errors import Malformed
from henge_protocol.model import is_digest
from henge_protocol.strictjson import MAX_INTEGER

MAX_HEADER_BYTES: Final = 8 * 1024
MAX_TEXT_CHARS: Final = 300


class WireError(Malformed):
    """Raised by ``wire.decode`` for a frame that cannot be used; nothing else is ever raised by it."""


def read_header(head: bytes) -> dict[str, Any]:
    """The object of a frame's header line: strict JSON, no key twice."""
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


def unfit(name: str, wanted: str, value: object) -> WireError:
    """The refusal of a field whose value has not the form that is wanted."""
    return WireError("bad_frame", f"field {name} is {ascii(value)[:60]}, {wanted} is expected")


def text_field(header: Mapping[str, Any], name: str, form: re.Pattern[str], wanted: str) -> str:
    """A text that matches ``form``, or empty."""
    value = header.get(name, "")
    if isinstance(value, str) and form.fullmatch(value):
        return value
    raise unfit(name, wanted, value)


def free_text(value: object, name: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Words for a person, if they are short enough and can be written as UTF-8."""
    if not isinstance(value, str) or len(value) > max_chars:
        raise unfit(name, f"a text of at most {max_chars} characters", value)
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise unfit(name, "a text without lone surrogates", value)
    return value


def number_field(header: Mapping[str, Any], name: str, default: int = 0, most: int = MAX_INTEGER) -> int:
    """A whole number from 0 to ``most``, or its default."""
    value = header.get(name, default)
    if type(value) is int and 0 <= value <= most:
        return value
    raise unfit(name, f"a whole number from 0 to {most}", value)


def digest_field(header: Mapping[str, Any], name: str = "digest") -> str:
    """Of a document or schema, or empty for none."""
    return "" if header.get(name, "") == "" else subject_field(header, name)


def subject_field(header: Mapping[str, Any], name: str = "digest") -> str:
    """The digest of the document that a frame is about."""
    value = header.get(name)
    if is_digest(value):
        return str(value)
    raise unfit(name, "64 characters of lower-case hex", value)


def choice_field(header: Mapping[str, Any], name: str, allowed: frozenset[str], default: str) -> str:
    """One of the texts allowed, or its default."""
    value = header.get(name, default)
    if isinstance(value, str) and value in allowed:
        return value
    raise unfit(name, "one of " + ", ".join(sorted(allowed)), value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has the same key twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
