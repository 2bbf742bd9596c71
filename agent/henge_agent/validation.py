"""Does a document fit its schema? The device's own look, before anything is changed. Pure.

The daemon checks every document in full before it sends it. This look needs no library, so that every agent has it,
and takes the same schema (JSON Schema 2020-12 as docs/schemas.md has it). What it cannot judge it leaves to the daemon
and refuses nothing for: ``pattern``, ``patternProperties`` and ``format``, because Python's regular expressions know no
time limit, and ``unevaluatedProperties`` and ``unevaluatedItems``. So each verdict has three values: it fits, it does
not, or nobody here can tell; under ``not``, ``oneOf`` and ``if`` only what is certain counts.

Messages say what is expected and repeat no value, which may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from henge_protocol.errors import Problem
from henge_protocol.fieldpath import pointer
from henge_protocol.schemawalk import REF_PREFIX

MAX_PROBLEMS: Final = 32
MAX_LOOKS: Final = 200_000
"""Of values at subschemas; a few seconds on the slowest board. The daemon has looked at all of it."""
_SHOWN_CHARS: Final = 100


@dataclass(slots=True)
class Verdict:
    """What is wrong for certain, and whether there is something that nobody here can judge."""

    problems: list[Problem] = field(default_factory=list)
    unsure: bool = False

    @property
    def fits(self) -> bool | None:
        """None: nobody here can tell."""
        return False if self.problems else None if self.unsure else True

    def add(self, other: Verdict) -> None:
        """All of the other has to hold as well."""
        self.problems += other.problems
        self.unsure |= other.unsure


def judge(schema: Mapping[str, Any], document: object) -> Verdict:
    """Whether a document fits its schema."""
    return _Judge(schema).look(schema, document, "")


def misfits(schema: Mapping[str, Any], document: object) -> list[Problem]:
    """Where a document certainly does not fit its schema; the first few, if there are many."""
    return judge(schema, document).problems[:MAX_PROBLEMS]


class _Judge:
    """Holds the definitions that subschemas refer to."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._definitions = root.get("$defs", {})
        self._looks = 0

    def look(self, node: Any, value: object, at: str) -> Verdict:
        """Judge a value by a subschema; after ``MAX_LOOKS`` nobody here can tell."""
        self._looks += 1
        if self._looks > MAX_LOOKS:
            return Verdict(unsure=True)
        if not isinstance(node, Mapping):
            return Verdict([] if node else [Problem(at, "nothing may stand here")])
        verdict = Verdict()
        for word, argument in node.items():
            if word in _UNJUDGED:
                verdict.unsure = True
            elif word in _PLAIN:
                kinds, check, expected = _PLAIN[word]
                if _is_any(value, kinds) and not check(value, argument):
                    verdict.problems.append(Problem(at, expected.replace("%s", _shown(argument))))
            elif word in _NESTED:
                verdict.add(_NESTED[word](self, node, argument, value, at))
        return verdict

    def definition(self, reference: str) -> Any:
        """What a ``$ref`` means; a stored schema refers to what it has."""
        return self._definitions.get(reference.removeprefix(REF_PREFIX), True)


# ---- keywords that look at one value

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}
_NUMBER: Final = (int, float)


def _shown(argument: object) -> str:
    """What a keyword asks for, as a schema has it; a type without quotes."""
    text = argument if isinstance(argument, str) else json.dumps(argument, ensure_ascii=False)
    return text[:_SHOWN_CHARS]


def _is_any(value: object, kinds: tuple[type, ...]) -> bool:
    """By type, and without taking true for 1; no kinds are all kinds."""
    return not kinds or type(value) in kinds


def _has_type(value: object, argument: str | list[str]) -> bool:
    names = [argument] if isinstance(argument, str) else argument
    return any(_is_any(value, _TYPES[name]) for name in names if name in _TYPES)


def _same(one: object, other: object) -> bool:
    """JSON Schema's equality: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(item, other[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _is_multiple(value: Any, argument: Any) -> bool:
    """In decimals, as they are written: 0.3 is a multiple of 0.1."""
    return (Fraction(repr(value)) / Fraction(repr(argument))).denominator == 1


def _is_unique(value: Any, argument: Any) -> bool:
    if not argument:
        return True
    return not any(_same(one, other) for at, one in enumerate(value) for other in value[:at])


_PLAIN: Final[dict[str, tuple[tuple[type, ...], Callable[[Any, Any], bool], str]]] = {
    "type": ((), _has_type, "%s is expected"),
    "enum": ((), lambda value, choices: any(_same(value, one) for one in choices), "one of %s is expected"),
    "const": ((), _same, "%s is expected"),
    "minimum": (_NUMBER, lambda value, bound: value >= bound, "at least %s is expected"),
    "maximum": (_NUMBER, lambda value, bound: value <= bound, "at most %s is expected"),
    "exclusiveMinimum": (_NUMBER, lambda value, bound: value > bound, "more than %s is expected"),
    "exclusiveMaximum": (_NUMBER, lambda value, bound: value < bound, "less than %s is expected"),
    "multipleOf": (_NUMBER, _is_multiple, "a multiple of %s is expected"),
    "minLength": ((str,), lambda value, bound: len(value) >= bound, "at least %s characters are expected"),
    "maxLength": ((str,), lambda value, bound: len(value) <= bound, "at most %s characters are expected"),
    "minItems": ((list,), lambda value, bound: len(value) >= bound, "at least %s entries are expected"),
    "maxItems": ((list,), lambda value, bound: len(value) <= bound, "at most %s entries are expected"),
    "minProperties": ((dict,), lambda value, bound: len(value) >= bound, "at least %s fields are expected"),
    "maxProperties": ((dict,), lambda value, bound: len(value) <= bound, "at most %s fields are expected"),
    "uniqueItems": ((list,), _is_unique, "no two equal entries are expected"),
}
_UNJUDGED: Final = frozenset({"pattern", "format", "patternProperties", "unevaluatedProperties", "unevaluatedItems"})


# ---- keywords that look at parts

_Look = Callable[[_Judge, Mapping[str, Any], Any, Any, str], Verdict]


def _together(verdicts: Iterator[Verdict]) -> Verdict:
    verdict = Verdict()
    for one in verdicts:
        verdict.add(one)
    return verdict


def _below(at: str, key: str | int) -> str:
    return at + pointer((key,))


def _properties(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    if not isinstance(value, dict):
        return Verdict()
    named = ((key, value[key], node) for key, node in argument.items() if key in value)
    return _together(judge.look(node, item, _below(at, key)) for key, item, node in named)


def _additional(judge: _Judge, node: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    if not isinstance(value, dict):
        return Verdict()
    others = [key for key in value if key not in node.get("properties", {})]
    if node.get("patternProperties"):
        return Verdict(unsure=bool(others))
    if argument is False:
        return Verdict([Problem(_below(at, key), "there is no such field") for key in others])
    return _together(judge.look(argument, value[key], _below(at, key)) for key in others)


def _names(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    if not isinstance(value, dict):
        return Verdict()
    return _together(judge.look(argument, key, _below(at, key)) for key in value)


def _required(_: _Judge, __: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    missing = [key for key in argument if key not in value] if isinstance(value, dict) else []
    return Verdict([Problem(_below(at, key), "it is required and missing") for key in missing])


def _dependent_required(_: _Judge, __: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    present = [names for key, names in argument.items() if key in value] if isinstance(value, dict) else []
    missing = [key for names in present for key in names if key not in value]
    return Verdict([Problem(_below(at, key), "it is required with another field and missing") for key in missing])


def _dependent(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    if not isinstance(value, dict):
        return Verdict()
    return _together(judge.look(node, value, at) for key, node in argument.items() if key in value)


def _items(judge: _Judge, node: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    if not isinstance(value, list):
        return Verdict()
    first = len(node.get("prefixItems", ()))
    return _together(judge.look(argument, value[n], _below(at, n)) for n in range(first, len(value)))


def _prefix(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    if not isinstance(value, list):
        return Verdict()
    pairs = enumerate(zip(argument, value, strict=False))
    return _together(judge.look(node, item, _below(at, n)) for n, (node, item) in pairs)


def _contains(judge: _Judge, node: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    if not isinstance(value, list):
        return Verdict()
    fits = [judge.look(argument, item, at).fits for item in value]
    sure, possible = fits.count(True), len(fits) - fits.count(False)
    least, most = node.get("minContains", 1), node.get("maxContains", len(value))
    if possible < least or sure > most:
        return Verdict([Problem(at, f"{least} to {most} entries that fit `contains` are expected")])
    return Verdict(unsure=sure < least or possible > most)


def _all_of(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    return _together(judge.look(node, value, at) for node in argument)


def _any_of(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    fits = [judge.look(node, value, at).fits for node in argument]
    if all(fit is False for fit in fits):
        return Verdict([Problem(at, "it fits none of the alternatives")])
    return Verdict(unsure=True not in fits)


def _one_of(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    fits = [judge.look(node, value, at).fits for node in argument]
    if fits.count(True) > 1 or all(fit is False for fit in fits):
        return Verdict([Problem(at, "it does not fit exactly one of the alternatives")])
    return Verdict(unsure=None in fits)


def _not(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    fits = judge.look(argument, value, at).fits
    return Verdict([Problem(at, "it is what it must not be")] if fits else [], unsure=fits is None)


def _if(judge: _Judge, node: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    fits = judge.look(argument, value, at).fits
    if fits is None:
        return Verdict(unsure=True)
    return judge.look(node.get("then" if fits else "else", True), value, at)


def _reference(judge: _Judge, _: Mapping[str, Any], argument: Any, value: Any, at: str) -> Verdict:
    return judge.look(judge.definition(argument), value, at)


_NESTED: Final[dict[str, _Look]] = {
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "required": _required,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent,
    "items": _items,
    "prefixItems": _prefix,
    "contains": _contains,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "$ref": _reference,
}
