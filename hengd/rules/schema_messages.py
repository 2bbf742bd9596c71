"""Sentences for what does not fit: what the value is, and what would have been right.

The engine's own texts are about JSON Schema; these are about the value.  Values of secret fields are never shown,
and of lists and objects only that they are one.  Of a secret that was put into a document nothing is said but that it
does not fit: a reason would tell of its length or its parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from jsonschema_rs import ValidationError

from hengd.rules.schema_keywords import FORMATS
from henge_protocol.errors import Problem
from henge_protocol.fieldpath import pointer
from henge_protocol.model import SECRET_KEY
from henge_protocol.schemawalk import REF_PREFIX, Node

HIDDEN: Final = "[hidden]"
UNFIT_SECRET: Final = "the secret is not what the schema asks for here"
MAX_PROBLEMS: Final = 100
_MAX_SHOWN: Final = 60
_MAX_OPTIONS: Final = 12

_TYPES: Final = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}

IsSecret = Callable[[Sequence[str | int]], bool]
"""Tells whether the value at a path must not be shown."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something that does not fit: what the engine says of the part of a value at ``place``."""

    place: tuple[str | int, ...]
    schema: Node
    """What that part was compared with; the error's own paths begin there."""
    error: ValidationError | None
    """None if the reasons are too many to be told."""
    value: object


def problems(found: Iterable[Misfit], is_secret: IsSecret, *, has_secrets: bool = False) -> list[Problem]:
    """Return the findings in our words, in order of pointers, at most 100, none twice.

    With ``has_secrets`` the values of secret fields are secrets, else what somebody wrote there.
    """
    told: dict[tuple[str, str], Problem] = {}
    for problem in _told(found, is_secret, has_secrets=has_secrets):
        told[problem.pointer, problem.message] = problem
        if len(told) >= MAX_PROBLEMS:
            break
    return [told[key] for key in sorted(told)]


def secret_around(place: Sequence[str | int], is_secret: IsSecret) -> Sequence[str | int] | None:
    """Return where the secret stands that ``place`` is or lies inside of; None if it is no part of one."""
    return next((place[:depth] for depth in range(len(place) + 1) if is_secret(place[:depth])), None)


def _told(found: Iterable[Misfit], is_secret: IsSecret, *, has_secrets: bool) -> Iterator[Problem]:
    for misfit in found:
        words = _Words(misfit.schema, is_secret, misfit.place, has_secrets=has_secrets)
        if misfit.error is not None:
            yield from words.of(misfit.error)
        elif (secret := words.secret_at(misfit.place)) is not None:
            yield Problem(pointer(secret), UNFIT_SECRET)
        else:
            value = HIDDEN if is_secret(misfit.place) else shown(misfit.value)
            yield Problem(pointer(misfit.place), f"{value} does not fit, in more ways than can be told")


def shown(value: object) -> str:
    """Return a value as part of a sentence: short, JSON, nothing in it that moves a cursor."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 256:
        return "a huge integer"
    text = json.dumps(value, ensure_ascii=False)
    cut = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '…"'
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)


class _Words:
    def __init__(self, schema: Node, is_secret: IsSecret, place: tuple[str | int, ...], *, has_secrets: bool) -> None:
        self._schema = schema
        self._is_secret = is_secret
        self._place = place
        self._has_secrets = has_secrets

    def secret_at(self, place: Sequence[str | int]) -> Sequence[str | int] | None:
        """Where the secret stands of which nothing may be said."""
        return secret_around(place, self._is_secret) if self._has_secrets else None

    def of(self, error: ValidationError) -> Iterator[Problem]:
        """Yield one problem, or one for every name that is too many."""
        where = self._place_of(error)
        kind: Any = error.kind
        secret = self.secret_at(where)
        if secret is not None:
            yield Problem(pointer(secret), UNFIT_SECRET)
        elif kind.name == "required":
            yield Problem(pointer([*where, kind.property]), "is required and missing")
        elif kind.name in ("additionalProperties", "unevaluatedProperties"):
            for name in kind.unexpected:
                yield Problem(pointer([*where, name]), self._undeclared(name, error))
        elif kind.name == "propertyNames":
            name = str(kind.error.instance)
            yield Problem(
                pointer([*where, name]), f"the name is not allowed: {self._sentence(kind.error, shown(name))}"
            )
        else:
            yield Problem(pointer(where), self._sentence(error, self._shown(error)))

    def _place_of(self, error: ValidationError) -> list[str | int]:
        return [*self._place, *error.instance_path]

    def _shown(self, error: ValidationError) -> str:
        return HIDDEN if self._is_secret(self._place_of(error)) else shown(error.instance)

    def _sentence(self, error: ValidationError, value: str) -> str:
        kind: Any = error.kind
        instance: Any = error.instance
        if kind.name in _LIMITS:
            return _LIMITS[kind.name].format(value=value, limit=kind.limit)
        if kind.name in _COUNTS:
            return _COUNTS[kind.name].format(size=len(instance), limit=kind.limit)
        if kind.name in ("anyOf", "oneOf"):
            return self._alternatives(error, value)
        return _SENTENCES.get(kind.name, _other)(kind, value, instance)

    def _alternatives(self, error: ValidationError, value: str) -> str:
        kind: Any = error.kind
        if kind.name == "oneOf" and any(not branch for branch in kind.context):
            return f"{value} fits more than one of the alternatives; exactly one is allowed"
        reasons = [self._reason(branch[0]) for branch in kind.context[:3] if branch]
        more = f" (and {len(kind.context) - 3} more)" if len(kind.context) > 3 else ""
        numbered = "; ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, 1))
        return f"{value} fits none of the {len(kind.context)} alternatives: {numbered}{more}"

    def _reason(self, error: ValidationError) -> str:
        problem = next(self.of(error))
        return f"{problem.pointer} {problem.message}" if problem.pointer else problem.message

    def _undeclared(self, name: str, error: ValidationError) -> str:
        if name == SECRET_KEY:
            return _SECRET_HERE
        close = get_close_matches(name, self._declared(error.schema_path), 1)
        return "the schema declares no such field" + (f"; did you mean {close[0]}?" if close else "")

    def _declared(self, path: list[str | int]) -> list[str]:
        node: Any = self._schema
        for step in path[:-1]:
            if step == "$ref" and isinstance(node, dict):
                node = self._schema.get("$defs", {}).get(str(node.get("$ref")).removeprefix(REF_PREFIX))
            elif isinstance(node, list) and isinstance(step, int):
                node = node[step]
            else:
                node = node.get(str(step)) if isinstance(node, dict) else None
        return list(node.get("properties", ())) if isinstance(node, dict) else []


_SECRET_HERE: Final = "a secret may stand only in a field that the schema marks writeOnly"

_LIMITS: Final = {
    "minimum": "{value} is below the minimum {limit}",
    "maximum": "{value} is above the maximum {limit}",
    "exclusiveMinimum": "{value} is not above {limit}",
    "exclusiveMaximum": "{value} is not below {limit}",
}
_COUNTS: Final = {
    "minLength": "the text has {size} characters; at least {limit} are needed",
    "maxLength": "the text has {size} characters; at most {limit} are allowed",
    "minItems": "the list has {size} entries; at least {limit} are needed",
    "maxItems": "the list has {size} entries; at most {limit} are allowed",
    "minProperties": "the object has {size} fields; at least {limit} are needed",
    "maxProperties": "the object has {size} fields; at most {limit} are allowed",
}


def _type(kind: Any, value: str, instance: object) -> str:
    if isinstance(instance, dict) and SECRET_KEY in instance:
        return _SECRET_HERE
    null_last = sorted(kind.types, key=lambda name: name == "null")
    return f"{value} is not {' or '.join(_TYPES[name] for name in null_last)}"


def _enum(kind: Any, value: str, instance: object) -> str:
    options = [shown(option) for option in kind.options]
    listed = ", ".join(options[:_MAX_OPTIONS])
    more = f" and {len(options) - _MAX_OPTIONS} more" if len(options) > _MAX_OPTIONS else ""
    return f"{value} is not one of {listed}{more}"


def _format(kind: Any, value: str, instance: object) -> str:
    return f"{value} is not {FORMATS.get(kind.format, kind.format)}"


def _other(kind: Any, value: str, instance: object) -> str:
    return f"{value} does not satisfy {kind.name}"


_Sentence = Callable[[Any, str, object], str]

_SENTENCES: Final[dict[str, _Sentence]] = {
    "type": _type,
    "enum": _enum,
    "format": _format,
    "const": lambda kind, value, _: f"{value} is not {shown(kind.expected_value)}",
    "multipleOf": lambda kind, value, _: f"{value} is not a multiple of {kind.multiple_of}",
    "pattern": lambda kind, value, _: f"{value} does not match the pattern {kind.pattern}",
    "uniqueItems": lambda *_: "the list holds the same entry twice",
    "contains": lambda *_: "the list does not hold the entries that the schema asks for",
    "unevaluatedItems": lambda *_: "the list has entries that the schema does not allow",
    "not": lambda _, value, __: f"{value} is what the schema excludes",
    "falseSchema": lambda *_: "the schema allows no value here",
}
