"""The validation engine, set up one way: draft 2020-12, offline, linear patterns, formats always checked.

No other module builds a validator, so nothing can fetch a schema or skip a format by an option forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from jsonschema_rs import Draft202012Validator as Validator
from jsonschema_rs import EmailOptions, ValidationError

from hengd.rules.merge import pointer
from hengd.rules.schema_keywords import DIALECT, Node, subschemas
from hengd.rules.schema_messages import HIDDEN
from hengd.rules.schema_patterns import ENGINE, check_pattern
from henge_protocol.errors import Problem

__all__ = [
    "META",
    "ValidationError",
    "Validator",
    "asks_for_whole_numbers",
    "holds_whole_float",
    "validator_for",
    "whole_float_problems",
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


def whole_float_problems(validator: Validator, value: object) -> list[Problem]:
    """Find whole numbers written with a fraction where an integer is due.

    The engine takes 1.0 for an integer, so it is shown the next float in its place: where that is
    refused for not being one, an integer was asked for.
    """
    found = {}
    for error in _with_branches(validator.iter_errors(_nudged(value))):
        kind: Any = error.kind
        if kind.name == "type" and "integer" in kind.types:
            written = _part_at(value, error.instance_path)
            if isinstance(written, float) and written.is_integer():
                where = pointer(error.instance_path)
                found[where] = Problem(
                    where, f"{written} has a fraction and is not a whole number; write {written:.0f}"
                )
    return [found[where] for where in sorted(found)]


_MAY_HOLD: Final = frozenset({float, dict, list})
"""Types worth a second look; this runs over every document, most of which is text and integers."""


def _built_in(name: str) -> Callable[[str], bool]:
    return Validator({"format": name}, validate_formats=True, offline=True).is_valid


_is_date, _is_date_time, _is_time = _built_in("date"), _built_in("date-time"), _built_in("time")


def _date(text: str) -> bool:
    # the year 9999 leaves the calendar of most languages as soon as a zone is applied
    return _is_date(text) and not text.startswith("9999")


def _date_time(text: str) -> bool:
    return _is_date_time(text) and not text.startswith("9999") and text[17:19] != "60"


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


def _nudged(value: object) -> object:
    if isinstance(value, dict):
        return {key: _nudged(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_nudged(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        # from 2**52 on all floats are whole
        return math.nextafter(value, math.inf) if abs(value) < 2**52 else 0.5
    return value


def _with_branches(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    for error in errors:
        yield error
        for branch in getattr(error.kind, "context", ()):
            yield from _with_branches(branch)


def _part_at(value: Any, path: list[str | int]) -> object:
    for step in path:
        value = value[step]
    return value
