"""What is wrong with a value, found at bounded cost.

The engine says in microseconds whether a value fits, but it cannot be asked for one reason: it collects all of them
first, each with copies of the values it is about, and those of nested alternatives multiply.  Two nested lists of 32
branches over a list of some thousand entries are gigabytes.  Therefore it is asked only about pieces of schema and
value whose reasons are known to be few; larger ones are taken apart, and only the parts that do not fit are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

from hengd.rules.schema_engine import ValidationError, Validator, holds_whole_float, validator_for
from hengd.rules.schema_keywords import in_place, subschemas
from hengd.rules.schema_messages import Misfit
from henge_protocol.errors import Problem
from henge_protocol.fieldpath import pointer
from henge_protocol.schemawalk import Node, target

MAX_COST: Final = 10_000
"""Values that the reasons of one question to the engine may copy: a tenth of a second and some tens of megabytes."""
MAX_WORK: Final = 20 * MAX_COST
"""The same for all questions about one value; then what was found has to do."""
COMPILE_COST: Final = 2_000
MAX_STEPS: Final = 100
"""How deep schema and value are taken apart."""

_TEXT_UNIT: Final = 64

Place = tuple[str | int, ...]


def misfits(root: Node, validator: Validator, value: object) -> Iterator[Misfit]:
    """Yield what in ``value`` does not fit ``root`` (which ``validator`` was made of); nothing if it fits.

    Where the reasons are too many to be told, the last one has no ``error``.
    """
    search = _Search(root)
    search.know(root, validator)
    yield from search.misfits(root, value, ())
    if search.is_exhausted:
        yield Misfit((), root, None, value)


def whole_float_problems(root: Node, validator: Validator, value: object) -> Iterator[Problem]:
    """Yield whole numbers written with a fraction where an integer is due, each once.

    The engine takes 1.0 for an integer, so it is shown the next float in its place: where that is
    refused for not being one, an integer was asked for.
    """
    told = set()
    for misfit in misfits(root, validator, _nudged(value)):
        for where, written in _whole_floats(misfit, value):
            if where not in told:
                told.add(where)
                yield Problem(where, _fraction(written))


class _Search:
    def __init__(self, root: Node) -> None:
        self._root = root
        self._work = MAX_WORK
        self._sizes: dict[int, int] = {}
        self._validators: dict[int, Validator] = {}
        self._kept: list[Node] = []
        """What is known by its id must not go away."""

    @property
    def is_exhausted(self) -> bool:
        return self._work <= 0

    def know(self, node: Node, validator: Validator) -> None:
        """Use ``validator`` for ``node``."""
        self._kept.append(node)
        self._validators[id(node)] = validator

    def misfits(self, node: Node, value: object, place: Place, steps: int = 0) -> Iterator[Misfit]:
        if self.is_exhausted or self._fits(node, value):
            return
        if self._has_few_reasons(node, value):
            yield from self._reasons(node, value, place)
        elif steps >= MAX_STEPS:
            yield Misfit(place, node, None, value)
        else:
            yield from self._of_parts(node, value, place, steps)

    def _of_parts(self, node: Node, value: object, place: Place, steps: int) -> Iterator[Misfit]:
        for step, part, inner in _parts(self._root, node, value):
            yield from self.misfits(part, inner, (*place, *step), steps + 1)
        rest = _without_parts(node)
        if self.is_exhausted or self._fits(rest, value):
            return
        if self._has_few_reasons(rest, value):
            yield from self._reasons(rest, value, place)
        else:
            yield Misfit(place, node, None, value)

    def _reasons(self, node: Node, value: object, place: Place) -> Iterator[Misfit]:
        return (Misfit(place, node, error, value) for error in self._validator(node).iter_errors(value))

    def _fits(self, node: Node, value: object) -> bool:
        self._work -= self._size(value)
        return self._validator(node).is_valid(value)

    def _validator(self, node: Node) -> Validator:
        validator = self._validators.get(id(node))
        if validator is None:
            self._work -= COMPILE_COST
            validator = validator_for({**node, "$defs": self._root.get("$defs", {})})
            self.know(node, validator)
        return validator

    def _has_few_reasons(self, node: Node, value: object) -> bool:
        """Whether all reasons together, however many of the subschemas give one, copy little."""
        cost = 0
        waiting: list[tuple[object, Any]] = [(node, value)]
        while waiting and cost + len(waiting) <= MAX_COST:
            part, inner = waiting.pop()
            cost += self._weight(part) + self._size(inner)
            if cost <= MAX_COST:
                waiting += [(below, found) for below, found in _judged_by(self._root, part, inner) if below is not True]
        self._work -= min(cost, MAX_COST)
        return not waiting and cost <= MAX_COST

    def _weight(self, node: object) -> int:
        """What a reason copies of the schema."""
        if not isinstance(node, dict):
            return 1
        return 1 + sum(self._size(node[keyword]) for keyword in ("enum", "const", "required") if keyword in node)

    def _size(self, value: object) -> int:
        if isinstance(value, str):
            return 1 + len(value) // _TEXT_UNIT
        if not isinstance(value, dict | list):
            return 1
        size = self._sizes.get(id(value))
        if size is None:
            parts: Iterable[object] = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            size = self._sizes[id(value)] = 1 + sum(map(self._size, parts))
        return size


def _judged_by(root: Node, node: object, value: Any) -> Iterator[tuple[object, Any]]:
    """Every subschema that may be asked about ``value`` or a direct part of it, with what it is asked about."""
    if not isinstance(node, dict):
        return
    if (referred := target(root, node)) is not None:
        yield referred, value
    for path, part in subschemas(node):
        if in_place(path):
            yield part, value
        elif path[0] == "properties":
            if isinstance(value, dict) and path[1] in value:
                yield part, value[path[1]]
        elif path[0] in ("items", "prefixItems", "contains", "unevaluatedItems"):
            yield from ((part, inner) for inner in (value if isinstance(value, list) else ()))
        elif path[0] == "propertyNames":
            yield from ((part, name) for name in (value if isinstance(value, dict) else ()))
        elif path[0] != "$defs":
            yield from ((part, inner) for inner in (value.values() if isinstance(value, dict) else ()))


def _parts(root: Node, node: Node, value: Any) -> Iterator[tuple[Place, Node, Any]]:
    """The subschemas that ``_without_parts`` leaves out and what they judge: both together say what all said."""
    if not _looks_back(node):
        in_place_parts = [target(root, node), *node.get("allOf", ())]
        yield from (((), part, value) for part in in_place_parts if isinstance(part, dict))
    if isinstance(value, dict):
        declared, others = node.get("properties", {}), node.get("additionalProperties")
        for name, inner in value.items():
            part = declared.get(name, others if "patternProperties" not in node else None)
            if isinstance(part, dict):
                yield (name,), part, inner
    elif isinstance(value, list):
        first, others = node.get("prefixItems", []), node.get("items")
        for index, inner in enumerate(value):
            part = first[index] if index < len(first) else others
            if isinstance(part, dict):
                yield (index,), part, inner


def _without_parts(node: Node) -> Node:
    left_out = () if _looks_back(node) else ("$ref", "allOf")
    rest = {keyword: content for keyword, content in node.items() if keyword not in left_out}
    if "properties" in node:
        rest["properties"] = {name: _opened(part) for name, part in node["properties"].items()}
    if "prefixItems" in node:
        rest["prefixItems"] = [_opened(part) for part in node["prefixItems"]]
    if "items" in node:
        rest["items"] = _opened(node["items"])
    if "additionalProperties" in node and "patternProperties" not in node:
        rest["additionalProperties"] = _opened(node["additionalProperties"])
    if "allOf" in left_out and any(not isinstance(part, dict) for part in node.get("allOf", ())):
        rest["allOf"] = [part for part in node["allOf"] if not isinstance(part, dict)]
    return rest


def _looks_back(node: Node) -> bool:
    """Whether a keyword asks what its neighbours have judged."""
    return "unevaluatedProperties" in node or "unevaluatedItems" in node


def _opened(part: object) -> object:
    return True if isinstance(part, dict) else part


def _whole_floats(misfit: Misfit, value: Any) -> Iterator[tuple[str, float | None]]:
    """Where an integer is due and stands as ``1.0``; with None where one of many may be it."""
    if misfit.error is None:
        if holds_whole_float(_part_at(value, misfit.place)):
            yield pointer(misfit.place), None
        return
    for error in _with_branches([misfit.error]):
        kind: Any = error.kind
        place = (*misfit.place, *error.instance_path)
        if kind.name == "type" and "integer" in kind.types:
            written = _part_at(value, place)
            if isinstance(written, float) and written.is_integer():
                yield pointer(place), written


def _fraction(written: float | None) -> str:
    if written is None:
        return "some whole number in it has a fraction; write 1 for 1.0"
    return f"{written} has a fraction and is not a whole number; write {int(written)}"


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


def _part_at(value: Any, path: Iterable[str | int]) -> object:
    for step in path:
        value = value[step]
    return value
