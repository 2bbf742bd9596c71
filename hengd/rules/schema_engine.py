"""The validation engine, set up one way: draft 2020-12, offline, linear patterns, formats always checked.

No other module builds a validator, so nothing can fetch a schema or skip a format by an option forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from jsonschema_rs import Draft202012Validator as Validator
from jsonschema_rs import EmailOptions, ValidationError

from hengd.rules.schema_keywords import DIALECT, subschemas
from hengd.rules.schema_messages import HIDDEN
from hengd.rules.schema_patterns import ENGINE, check_pattern
from henge_protocol.schemawalk import Node

__all__ = [
    "META",
    "ValidationError",
    "Validator",
    "asks_for_whole_numbers",
    "holds_whole_float",
    "validator_for",
]

META: Final = Validator({"$ref": DIALECT}, offline=True)
"""Judges schemas by the meta-schema, which the engine carries with it."""


def validator_for(schema: Node) -> Validator:
    """Compile a schema; raises ``ValidationError`` if the engine refuses it."""
    return Validator(
        schema,
        formats=_FORMATS,
        validate_formats=True,
        ignore_unknown_formats=False,
        offline=True,
        mask=HIDDEN,
        pattern_options=ENGINE,
        email_options=EmailOptions(allow_display_text=False),
    )


def asks_for_whole_numbers(root: Node) -> bool:
    """Tell whether any part of a schema has the type ``integer``."""
    waiting: list[object] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "integer" in node.get("type", ()):
                return True
            waiting += [part for _, part in subschemas(node)]
    return False


def holds_whole_float(value: object) -> bool:
    """Tell whether a value holds a float without fraction, such as ``1.0``."""
    parts: Iterable[object] = (value,)
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    for part in parts:
        if type(part) in _MAY_HOLD and (part.is_integer() if type(part) is float else holds_whole_float(part)):
            return True
    return False


_MAY_HOLD: Final = frozenset({float, dict, list})
"""Types worth a second look; this runs over every document, most of which is text and integers."""


def _built_in(name: str) -> Callable[[str], bool]:
    return Validator({"format": name}, validate_formats=True, offline=True).is_valid


_is_date, _is_date_time, _is_time = _built_in("date"), _built_in("date-time"), _built_in("time")


_EDGES: Final = ("0000", "0001", "9999")
"""Years that are not in the calendar of most languages, or leave it as soon as a zone is applied."""


def _date(text: str) -> bool:
    return _is_date(text) and not text.startswith(_EDGES)


def _date_time(text: str) -> bool:
    return _is_date_time(text) and not text.startswith(_EDGES) and text[17:19] != "60"


def _time(text: str) -> bool:
    # RFC 3339 has leap seconds, hardly any clock has
    return _is_time(text) and text[6:8] != "60"


def _regex(text: str) -> bool:
    return not check_pattern(text)


_FORMATS: Final[dict[str, Callable[..., bool]]] = {
    "date": _date,
    "date-time": _date_time,
    "time": _time,
    "regex": _regex,
}
"""Formats that are stricter here than in the engine."""
