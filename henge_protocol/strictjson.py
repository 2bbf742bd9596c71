"""JSON as henge reads and writes it: one strict parser, one canonical form.

The standard parser takes bodies that two readers understand differently (a key twice, ``NaN``, lone
surrogates, UTF-16, integers no other language can hold) and fails in four different ways on hostile
ones.  ``parse`` refuses them all with one family of errors, in time proportional to the input and
before anything deep is built.  ``canonical`` writes the bytes whose SHA-256 is a document's digest.

Limits: ``docs/limits.md``.  Syntax: RFC 8259; the number range is the one of RFC 7493 (I-JSON).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, TypeAlias

from henge_protocol.errors import HengeError, Invalid, Malformed, Problem

MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader holds exactly (RFC 7493 section 2.2); the smallest is its negative."""


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """How large a JSON value may be; sizes are counted in UTF-8 bytes, the outermost container has depth 1."""

    max_depth: int = 32
    max_nodes: int = 20_000
    max_keys: int = 1_000
    max_key_bytes: int = 128
    max_string_bytes: int = 65_536


LIMITS = JsonLimits()


def parse(data: bytes, *, limits: JsonLimits = LIMITS) -> object:
    """Read one JSON value from UTF-8 bytes.

    Raises only ``Malformed``: ``body_required``, ``bad_encoding``, ``bad_json`` (``extra`` has ``offset`` in
    bytes, ``line`` and ``column`` from 1), ``duplicate_key``, ``number_out_of_range``, ``too_deep``, ``too_complex``;
    what is wrong with one value or object is told with its pointer.
    """
    if not data or data.isspace():
        raise Malformed("body_required", "the text is empty; one JSON value was expected")
    text = _decode(data)
    opens = data.count(b"{") + data.count(b"[")
    if opens > limits.max_depth:
        _refuse_deep(data, limits)
    many = opens + data.count(b",") >= limits.max_nodes
    if many:
        _refuse_many(data, limits)
    try:
        value: object = _decoder(limits.max_keys, limits.max_key_bytes).decode(text)
    except json.JSONDecodeError as error:
        raise _syntax_error(error) from None
    except _Refused as refused:
        raise _placed(refused, text, limits) from None
    if many or len(data) > limits.max_string_bytes or _SURROGATE_ESCAPE.search(data):
        _inspect(value, limits, Malformed)
    return value


def canonical(value: object, *, limits: JsonLimits = LIMITS) -> bytes:
    """Render a JSON value to the one text that henge hashes, stores and sends.

    UTF-8 without escapes beyond those JSON demands, keys sorted by code point, no spaces.  Integers keep
    their digits; floats are written as Python's ``repr`` does, so they read back bit for bit: ``1.0`` stays
    ``1.0`` and is another document than ``1``, ``-0.0`` keeps its sign, ``1e16`` becomes ``1e+16``.

    Raises ``Invalid`` (``number_out_of_range``, ``bad_encoding``, ``too_deep``, ``too_complex``, and ``bad_object``
    for what is not JSON at all, such as a date) with the pointer of the spot at fault.
    """
    _inspect(value, limits, Invalid)
    return _ENCODER.encode(value).encode()


_Link: TypeAlias = "tuple[_Link, str | int] | None"
"""Where a container stands: its parent's link and its key there."""

_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_TOO_DEEP = "the nesting is deeper than {} levels"
_TOO_MANY_NODES = "the value has more than {} nodes"
_INTEGER_RANGE = f"{{}} is beyond the integers that every reader holds exactly, -{MAX_INTEGER} to {MAX_INTEGER}"

_EXPECTED = {
    "Expecting value": "a value was expected",
    "Expecting property name": "a key in double quotes was expected",
    "Illegal trailing comma": "a trailing comma is not allowed",
    "Expecting ':'": "':' was expected",
    "Expecting ','": "',' or the end of the object or list was expected",
    "Extra data": "the text should end here",
    "Unterminated string": "this string has no closing quote",
    "Invalid control character": "control characters in strings are written as escapes",
    "Invalid \\u": "an escape \\u has four hexadecimal digits",
    "Invalid \\escape": "there is no such escape",
}


class _Refused(Exception):
    """Raised by the checks below, which know what is wrong; whoever called them knows where."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _decode(data: bytes) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        raise Malformed("bad_encoding", "the text starts with a byte order mark; plain UTF-8 was expected")
    if b"\0" in data[:4]:
        raise Malformed("bad_encoding", "the text looks like UTF-16 or UTF-32; UTF-8 was expected")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8"
        raise Malformed("bad_encoding", message, extra={"offset": error.start}) from None


def _refuse_deep(data: bytes, limits: JsonLimits) -> None:
    # No acceptable text has more brackets than twice the nodes, so what follows them needs no look.
    brackets = _outside_strings(data).translate(None, _NOT_BRACKETS)[: 2 * limits.max_nodes + 1]
    if any(depth > limits.max_depth for depth in accumulate(map(_STEPS.__getitem__, brackets))):
        raise Malformed("too_deep", _TOO_DEEP.format(limits.max_depth))


def _refuse_many(data: bytes, limits: JsonLimits) -> None:
    outside = _outside_strings(data)
    containers = outside.count(b"[") + outside.count(b"{")
    if containers > limits.max_nodes or outside.count(b",") >= limits.max_nodes:
        raise Malformed("too_complex", _TOO_MANY_NODES.format(limits.max_nodes))


def _outside_strings(data: bytes) -> bytes:
    # Exact up to the first syntax error, and the parser reads no further than that.
    return b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


@lru_cache(maxsize=16)
def _decoder(max_keys: int, max_key_bytes: int, *, goes_on: bool = False) -> json.JSONDecoder:
    """A strict decoder; one that ``goes_on`` puts the refusal of a value in its place instead of raising it."""

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _Refused("duplicate_key", f"the key {_first_twice(pairs)} stands twice in one object; keep one")
        _check_keys(found, max_keys, max_key_bytes)
        return found

    kept = _kept if goes_on else lambda read: read
    return json.JSONDecoder(
        object_pairs_hook=kept(members),
        parse_int=kept(_integer),
        parse_float=kept(_float),
        parse_constant=kept(_refuse_constant),
    )


def _kept(read: Callable[[Any], object]) -> Callable[[Any], Any]:
    def kept(found: object) -> object:
        try:
            return read(found)
        except _Refused as refused:
            return refused

    return kept


def _placed(refused: _Refused, text: str, limits: JsonLimits) -> HengeError:
    """A refusal with its pointer, which a decoder does not know, because it begins with what is farthest inside."""
    try:
        whole = _decoder(limits.max_keys, limits.max_key_bytes, goes_on=True).decode(text)
    except json.JSONDecodeError:  # what comes behind it is no JSON
        return Malformed(refused.code, refused.message)
    waiting: list[tuple[object, _Link]] = [(whole, (None, 0))]
    while waiting:
        value, link = waiting.pop()
        if isinstance(value, _Refused):
            return _told(value, link, Malformed)
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += reversed([(item, (link, key)) for key, item in inside])
    raise AssertionError("the same text is refused at the same spot")


def _first_twice(pairs: Sequence[tuple[str, object]]) -> str:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return _shown(key)
        seen.add(key)
    return ""


def _integer(digits: str) -> int:
    # "-9007199254740991" has 17 characters; longer texts are refused unread, because int() is quadratic.
    if len(digits) < 16 or (len(digits) <= 17 and abs(int(digits)) <= MAX_INTEGER):
        return int(digits)
    raise _Refused("number_out_of_range", _INTEGER_RANGE.format(_shown(digits, quote="")))


def _float(digits: str) -> float:
    value = float(digits)
    if math.isfinite(value):
        return value
    raise _Refused("number_out_of_range", f"{_shown(digits, quote='')} is too large for a 64-bit float")


def _refuse_constant(name: str) -> float:
    raise _Refused("number_out_of_range", f"{name} is not a JSON number; numbers are finite")


def _syntax_error(error: json.JSONDecodeError) -> HengeError:
    expected = next((ours for theirs, ours in _EXPECTED.items() if error.msg.startswith(theirs)), "not JSON")
    found = _shown(error.doc[error.pos]) if error.pos < len(error.doc) else "the end of the text"
    offset = len(error.doc[: error.pos].encode())
    return Malformed(
        "bad_json",
        f"not JSON at line {error.lineno}, column {error.colno} (offset {offset}): found {found}; {expected}",
        extra={"offset": offset, "line": error.lineno, "column": error.colno},
    )


def _inspect(value: object, limits: JsonLimits, fault: type[HengeError]) -> None:
    """Walk a value level by level (never recursing) and raise ``fault`` at the first spot beyond the limits."""
    level: list[tuple[object, _Link]] = [([value], None)]
    nodes = 0
    link: _Link = None
    key: str | int | None = None
    try:
        for _ in range(limits.max_depth + 1):
            containers, level = level, []
            for container, link in containers:
                key = None
                nodes += len(container)  # type: ignore[arg-type]
                for key, item in _members(container, nodes, limits):
                    kind = type(item)
                    if kind is dict or kind is list:
                        level.append((item, (link, key)))
                    elif kind is str:
                        _check_string(item, limits.max_string_bytes)  # type: ignore[arg-type]
                    else:
                        _check_scalar(item)
        if level:
            _, link = level[0]
            key = None
            raise _Refused("too_deep", _TOO_DEEP.format(limits.max_depth))
    except _Refused as refused:
        raise _told(refused, link if key is None else (link, key), fault) from None


def _told(refused: _Refused, link: _Link, fault: type[HengeError]) -> HengeError:
    pointer = _pointer(link)
    message = f"{_shown(pointer, quote='', most=160)}: {refused.message}" if pointer else refused.message
    return fault(refused.code, message, problems=[Problem(pointer, refused.message)])


def _members(container: object, nodes: int, limits: JsonLimits) -> Iterable[tuple[str | int, object]]:
    if nodes > limits.max_nodes:
        raise _Refused("too_complex", _TOO_MANY_NODES.format(limits.max_nodes))
    if isinstance(container, dict):
        _check_keys(container, limits.max_keys, limits.max_key_bytes)
        return container.items()
    return enumerate(container)  # type: ignore[arg-type]


def _check_keys(keys: dict[str, object], max_keys: int, max_key_bytes: int) -> None:
    if len(keys) > max_keys:
        raise _Refused("too_complex", f"an object has {len(keys)} keys; at most {max_keys} are allowed")
    for key in keys:
        if type(key) is not str:
            raise _Refused("bad_object", f"the key {_shown(repr(key), quote='')} is not text")
        # a character takes up to four bytes; a short ASCII key, the usual one, needs no encoding
        if (len(key) * 4 > max_key_bytes or not key.isascii()) and _utf8_size(key) > max_key_bytes:
            raise _Refused("too_complex", f"the key {_shown(key)} is longer than {max_key_bytes} bytes")


def _check_string(text: str, max_bytes: int) -> None:
    if len(text) * 4 <= max_bytes and text.isascii():
        return
    size = _utf8_size(text)
    if size > max_bytes:
        raise _Refused("too_complex", f"the text is {size} bytes long; at most {max_bytes} are allowed")


def _check_scalar(item: object) -> None:
    kind = type(item)
    if kind is int:
        if not -MAX_INTEGER <= item <= MAX_INTEGER:  # type: ignore[operator]
            raise _Refused("number_out_of_range", _INTEGER_RANGE.format(_shown_integer(item)))  # type: ignore[arg-type]
    elif kind is float:
        if not math.isfinite(item):  # type: ignore[arg-type]
            raise _Refused("number_out_of_range", f"{item} is not a JSON number; numbers are finite")
    elif item is not None and kind is not bool:
        raise _Refused("bad_object", f"a value of type {kind.__name__} cannot be written as JSON")


def _utf8_size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        code_point = ord(text[error.start])
        raise _Refused("bad_encoding", f"U+{code_point:04X} is half a surrogate pair and stands alone") from None


def _pointer(link: _Link) -> str:
    tokens: list[str] = []
    while link is not None:
        link, key = link
        tokens.append(str(key).replace("~", "~0").replace("/", "~1"))
    # the outermost link is the wrapper's index, not a part of the value
    return "".join(f"/{token}" for token in reversed(tokens[:-1]))


def _shown(text: str, *, quote: str = "'", most: int = 40) -> str:
    """Text for a message: short, and nothing in it that moves a cursor."""
    cut = text if len(text) <= most else text[:most] + "…"
    return quote + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut) + quote


def _shown_integer(number: int) -> str:
    # str() of thousands of digits is refused by the interpreter, and no reader wants them
    return str(number) if number.bit_length() < 128 else f"an integer of {number.bit_length()} bits"
