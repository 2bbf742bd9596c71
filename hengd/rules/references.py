"""References to secrets in values: where they may stand, which there are, and putting secrets in their place. Pure.

A field is ``writeOnly`` if and only if its value is a reference. So no layer, revision, difference or explanation ever
holds a secret: they are made of layers, and layers hold names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from hengd.rules.merge import drop_nulls, is_reference
from hengd.rules.schemas import CompiledSchema
from henge_protocol.errors import Problem
from henge_protocol.fieldpath import pointer
from henge_protocol.model import SECRET_KEY, is_secret_name

Place = tuple[str | int, ...]
FindSecret = Callable[[str], tuple[int, object]]
"""Revision and value of a secret by its name; ``KeyError`` if there is none."""


def references(value: object) -> Iterator[tuple[Place, object]]:
    """Every reference in a value: where it stands, and which name it gives."""
    for place, found in _walk(value, ()):
        if isinstance(found, dict):
            yield place, found[SECRET_KEY]


def misplaced(schema: CompiledSchema, values: object) -> list[Problem]:
    """What is wrong with references in values of any layer: a secret in clear text, or a reference elsewhere."""
    return list(_misplaced(schema, drop_nulls(values), ()))


@dataclass(frozen=True, slots=True)
class Placed:
    """Values with the secrets in them, and the same for people: with references that name the revision."""

    values: Any
    shown: Any
    problems: list[Problem] = field(default_factory=list)


def placed(schema: CompiledSchema, values: dict[str, Any], find: FindSecret) -> Placed:
    """Put secrets where ``values``, all layers merged, refer to them."""
    problems = list(_misplaced(schema, values, ()))
    if problems:
        return Placed({}, {}, problems)
    return Placed(_put_in(values, (), find, problems, shown=False), _put_in(values, (), find, [], shown=True), problems)


def _misplaced(schema: CompiledSchema, value: object, place: Place) -> Iterator[Problem]:
    if schema.is_secret(place):
        if not is_reference(value):
            yield Problem(pointer(place), IN_THE_CLEAR)
        elif len(value) != 1 or not is_secret_name(value[SECRET_KEY]):  # type: ignore[index,arg-type]
            yield Problem(
                pointer(place), 'a reference is {"$secret": NAME}, with the name of a secret and nothing else'
            )
    elif is_reference(value):
        yield Problem(pointer(place), "a secret may stand only in a field that the schema marks writeOnly")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _misplaced(schema, inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _misplaced(schema, inner, (*place, index))


IN_THE_CLEAR: Final = (
    'the field is writeOnly: keep its value as a secret (hengectl secret set NAME) and write {"$secret": NAME} here'
)


def _walk(value: object, place: Place) -> Iterator[tuple[Place, object]]:
    if is_reference(value):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*place, index))


def _put_in(value: Any, place: Place, find: FindSecret, problems: list[Problem], *, shown: bool) -> Any:
    if is_reference(value):
        name = value[SECRET_KEY]
        try:
            revision, secret = find(name)
        except KeyError:
            problems.append(Problem(pointer(place), f"there is no secret {name}"))
            return value
        return {SECRET_KEY: name, "revision": revision} if shown else secret
    if isinstance(value, dict):
        return {key: _put_in(inner, (*place, key), find, problems, shown=shown) for key, inner in value.items()}
    if isinstance(value, list):
        parts = enumerate(value)
        return [_put_in(inner, (*place, index), find, problems, shown=shown) for index, inner in parts]
    return value
