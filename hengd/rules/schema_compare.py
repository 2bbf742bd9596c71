"""Does everything that was valid stay valid under a new version of a schema? Told from the structure alone. Pure.

The answer is a hint with reasons. ``narrower`` names bounds that became tighter; ``unknown`` is said wherever that
cannot be told keyword by keyword, rather than guessed. Documents are made anew with the new defaults, so a field that
becomes required and has a default is no reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor
from typing import Any, Final, Literal

from hengd.rules.schema_keywords import ANNOTATIONS
from henge_protocol.fieldpath import pointer
from henge_protocol.schemawalk import Node, target
from henge_protocol.strictjson import canonical

Verdict = Literal["compatible", "narrower", "unknown"]
Place = tuple[str | int, ...]

MAX_PAIRS: Final = 20_000
"""Pairs of subschemas that are compared; two huge schemas are not worth more than some 100 ms."""
MAX_REASONS: Final = 20


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not everything stays valid, or why that cannot be told; ``pointer`` is into the JSON Schema."""

    verdict: Verdict
    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A new version of a schema against the one before."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()


def compare_versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """As ``compare``, of the specs of two Schema objects: with the room that a document may take."""
    found = compare(old["schema"], new["schema"])
    if new["max_document"] >= old["max_document"]:
        return found
    message = f"a document may have {new['max_document']} bytes, not {old['max_document']}"
    return Comparison("narrower", (*found.reasons, Reason("narrower", "", message)))


def compare(old: Node, new: Node) -> Comparison:
    """Tell whether all documents that fit ``old`` fit ``new``; both must have passed ``check_schema``."""
    reasons = sorted(set(_Pairs(old, new).of(old, new, ())), key=lambda one: (one.verdict, one.pointer, one.message))
    verdicts = {one.verdict for one in reasons}
    verdict: Verdict = "narrower" if "narrower" in verdicts else "unknown" if verdicts else "compatible"
    return Comparison(verdict, tuple(reasons[:MAX_REASONS]))


class _Pairs:
    """Compares subschemas in pairs, each pair once: a pair that is met again inside of itself adds nothing."""

    def __init__(self, old: Node, new: Node) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[int, int]] = set()

    def of(self, old: object, new: object, path: Place) -> Iterator[Reason]:
        """The reasons of one pair; a part that is not there is ``True``, which anything fits."""
        secret = _is_secret(self._new, new)
        if old is not False and new is not False and secret != _is_secret(self._old, old):
            what = "is a secret now, and what was written" if secret else "is no secret any more, and references"
            yield Reason("narrower", pointer((*path, "writeOnly")), f"it {what} here cannot stay")
        old, new = _followed(self._old, old), _followed(self._new, new)
        if new is True or old is False or (id(old), id(new)) in self._seen:
            return
        if isinstance(old, dict) and isinstance(new, dict):
            self._seen.add((id(old), id(new)))
        if len(self._seen) > MAX_PAIRS:
            yield Reason("unknown", "", "the schemas are too large to be compared")
        elif new is False:
            yield Reason("narrower", pointer(path), "nothing is allowed here any more")
        elif isinstance(new, dict):
            yield from self._nodes(old if isinstance(old, dict) else {}, new, path)

    def _nodes(self, old: Node, new: Node, path: Place) -> Iterator[Reason]:
        if _bytes(_asserting(old)) == _bytes(_asserting(new)) and not _refers(old):
            return
        for kind, check in self._checks():
            if kind is None or kind in _types(old):
                found = check(old, new, path)
                yield from found if check in _OF_VALUES or _allowed(old) is None else map(_perhaps, found)
        if any(word in part for part in (old, new) for word in _UNEVALUATED):
            yield Reason("unknown", pointer(path), "what is unevaluated depends on the whole")

    def _checks(self) -> Sequence[tuple[str | None, _Check]]:
        """Each check with the type of values that its keywords judge; None = all."""
        return (
            *_BOUNDS,
            ("object", self._members),
            ("array", self._items),
            ("object", partial(self._part, "propertyNames")),
            (None, self._branches),
            (None, self._conditions),
        )

    def _part(self, word: str, old: Node, new: Node, path: Place) -> Iterator[Reason]:
        yield from self.of(old.get(word, True), new.get(word, True), (*path, word))

    def _members(self, old: Node, new: Node, path: Place) -> Iterator[Reason]:
        before, after = old.get("properties", {}), new.get("properties", {})
        patterns = old.get("patternProperties", {}), new.get("patternProperties", {})
        if any(patterns) and (before.keys() != after.keys() or patterns[0].keys() != patterns[1].keys()):
            yield Reason("unknown", pointer(path), "names are told apart by patterns")
            return
        rest = old.get("additionalProperties", True), new.get("additionalProperties", True)
        for name in sorted(before.keys() | after.keys()):
            pair = before.get(name, rest[0]), after.get(name, rest[1])
            yield from self.of(*pair, (*path, "properties", name))
        for pattern in patterns[0]:
            yield from self.of(patterns[0][pattern], patterns[1][pattern], (*path, "patternProperties", pattern))
        yield from self.of(*rest, (*path, "additionalProperties"))

    def _items(self, old: Node, new: Node, path: Place) -> Iterator[Reason]:
        before, after = old.get("prefixItems", []), new.get("prefixItems", [])
        if len(before) != len(after):
            yield Reason("unknown", pointer((*path, "prefixItems")), "another number of places")
            return
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from self.of(*pair, (*path, "prefixItems", index))
        yield from self._part("items", old, new, path)

    def _branches(self, old: Node, new: Node, path: Place) -> Iterator[Reason]:
        for word in ("allOf", "anyOf", "oneOf"):
            before, after = old.get(word, []), new.get(word, [])
            if not after or (not _refers(before) and not _refers(after) and _covered(word, before, after)):
                continue
            where = (*path, word)
            if len(before) != len(after) or word == "oneOf":
                yield Reason("unknown", pointer(where), "other branches")
                continue
            for index, pair in enumerate(zip(before, after, strict=True)):
                found = self.of(*pair, (*where, index))
                yield from found if word == "allOf" else map(_perhaps, found)

    def _conditions(self, old: Node, new: Node, path: Place) -> Iterator[Reason]:
        for word in ("if", "then", "else", "not", "contains", "dependentSchemas", "$ref"):
            same = word in old and word in new and _bytes(old[word]) == _bytes(new[word])
            if word not in new or (same and not _refers({word: new[word]})):
                continue
            if word == "if" and not {"then", "else"} & new.keys():
                continue
            yield Reason("unknown", pointer((*path, word)), f"another {word}")


_Check = Callable[[Node, Node, Place], Iterator[Reason]]
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")


def _type(old: Node, new: Node, path: Place) -> Iterator[Reason]:
    gone = _types(old) - _types(new)
    if gone and "type" in new:
        yield _tighter(path, "type", f"no longer {', '.join(sorted(gone))}")


def _types(node: Node) -> set[str]:
    """The types that a node lets through, those of its values where it lists them."""
    every = {"null", "boolean", "number", "integer", "string", "array", "object"}
    said = node.get("type")
    if said is None and (allowed := _listed(node)) is not None:
        said = [_NAMES[type(value)] for value in allowed]
    types = every if said is None else {said} if isinstance(said, str) else set(said)
    return types | {"integer"} if "number" in types else types


def _values(old: Node, new: Node, path: Place) -> Iterator[Reason]:
    before, after = _allowed(old), _allowed(new)
    if after is None:
        return
    word = "enum" if "enum" in new else "const"
    if before is None:
        yield _tighter(path, word, "only some values are allowed now")
    elif gone := [text for text in before if text not in after]:
        yield _tighter(path, word, f"no longer {', '.join(gone[:5])}{' and others' if len(gone) > 5 else ''}")


def _allowed(node: Node) -> list[str] | None:
    values = _listed(node)
    return None if values is None else [canonical(value).decode() for value in values]


def _listed(node: Node) -> list[Any] | None:
    return [node["const"]] if "const" in node else node.get("enum")


def _range(word: str, old: Node, new: Node, path: Place) -> Iterator[Reason]:
    low = word == "minimum"
    before, after = _bound(old, low=low), _bound(new, low=low)
    if after is not None and (before is None or (after > before if low else after < before)):
        exclusive = f"exclusiveM{word[1:]}"
        shown = exclusive if exclusive in new else word
        yield _tighter(path, shown, f"{new[shown]} is tighter than {_was(old, word, exclusive)}")


def _bound(node: Node, *, low: bool) -> tuple[float, int] | None:
    """A bound that compares as it limits: at the same number the exclusive one is tighter."""
    words = ("minimum", "exclusiveMinimum") if low else ("maximum", "exclusiveMaximum")
    step = 1 if low else -1
    if "number" not in _types(node):  # whole numbers: more than 0 is at least 1
        wholes = [
            _whole(node[word], exclusive=bool(index), low=low) for index, word in enumerate(words) if word in node
        ]
        return (max(wholes) if low else min(wholes), 0) if wholes else None
    bounds = [(node[word], step if index else 0) for index, word in enumerate(words) if word in node]
    return (max(bounds) if low else min(bounds)) if bounds else None


def _whole(bound: float, *, exclusive: bool, low: bool) -> int:
    if low:
        return floor(bound) + 1 if exclusive else ceil(bound)
    return ceil(bound) - 1 if exclusive else floor(bound)


def _was(old: Node, *words: str) -> object:
    return next((old[word] for word in words if word in old), "before, when there was none")


def _least(word: str, old: Node, new: Node, path: Place) -> Iterator[Reason]:
    default = 1 if word == "minContains" else 0
    if new.get(word, default) > old.get(word, default):
        yield _tighter(path, word, f"{new[word]} is more than {old.get(word, default)}")


def _most(word: str, old: Node, new: Node, path: Place) -> Iterator[Reason]:
    if word in new and new[word] < old.get(word, float("inf")):
        yield _tighter(path, word, f"{new[word]} is less than {old.get(word, 'before, when there was no limit')}")


def _required(old: Node, new: Node, path: Place) -> Iterator[Reason]:
    added = set(new.get("required", ())) - set(old.get("required", ()))
    parts = new.get("properties", {})
    for name in sorted(added):
        if not (isinstance(parts.get(name), dict) and "default" in parts[name]):
            yield _tighter(path, "required", f"{name} is required now and has no default")


def _dependent(old: Node, new: Node, path: Place) -> Iterator[Reason]:
    before: Mapping[str, list[str]] = old.get("dependentRequired", {})
    for name, needed in new.get("dependentRequired", {}).items():
        if set(needed) - set(before.get(name, ())):
            yield _tighter(path, "dependentRequired", f"{name} needs more fields beside it")


def _unique(old: Node, new: Node, path: Place) -> Iterator[Reason]:
    if new.get("uniqueItems") and not old.get("uniqueItems"):
        yield _tighter(path, "uniqueItems", "no entry may be there twice")


def _multiple(old: Node, new: Node, path: Place) -> Iterator[Reason]:
    before, after = old.get("multipleOf"), new.get("multipleOf")
    if after is None:
        return
    if before is None:
        yield _tighter(path, "multipleOf", f"only multiples of {after} are allowed now")
    elif not (isinstance(before, int) and isinstance(after, int)):
        yield Reason("unknown", pointer((*path, "multipleOf")), f"multiples of {before} may be none of {after}")
    elif before % after:
        yield _tighter(path, "multipleOf", f"not every multiple of {before} is one of {after}")


def _text(word: str, old: Node, new: Node, path: Place) -> Iterator[Reason]:
    if word in new and new[word] != old.get(word):
        message = f"another {word}" if word in old else f"there was no {word} before"
        yield Reason("unknown" if word in old else "narrower", pointer((*path, word)), message)


_BOUNDS: Final[tuple[tuple[str | None, _Check], ...]] = (
    (None, _type),
    (None, _values),
    ("integer", partial(_range, "minimum")),
    ("integer", partial(_range, "maximum")),
    ("integer", _multiple),
    ("string", partial(_least, "minLength")),
    ("string", partial(_most, "maxLength")),
    ("string", partial(_text, "pattern")),
    ("string", partial(_text, "format")),
    ("array", partial(_least, "minItems")),
    ("array", partial(_most, "maxItems")),
    ("array", partial(_least, "minContains")),
    ("array", partial(_most, "maxContains")),
    ("array", _unique),
    ("object", partial(_least, "minProperties")),
    ("object", partial(_most, "maxProperties")),
    ("object", _required),
    ("object", _dependent),
)
_OF_VALUES: Final = (_type, _values)
"""What these say is certain also where values are listed; a bound may concern none of them."""
_NAMES: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def _tighter(path: Place, word: str, message: str) -> Reason:
    return Reason("narrower", pointer((*path, word)), message)


def _perhaps(reason: Reason) -> Reason:
    """One of several branches accepts less: another one may make up for it."""
    return Reason("unknown", reason.pointer, reason.message)


def _covered(word: str, before: Sequence[object], after: Sequence[object]) -> bool:
    """Whether branches as they are written show it: fewer of allOf and more of anyOf accept more."""
    old, new = ({_bytes(one) for one in branches} for branches in (before, after))
    return (
        new <= old if word == "allOf" else bool(old) and old <= new if word == "anyOf" else list(before) == list(after)
    )


def _followed(root: Node, node: object) -> object:
    """A subschema that says nothing but a reference is what it refers to."""
    for _ in range(64):
        if not isinstance(node, dict) or "$ref" not in node or _asserting(node).keys() != {"$ref"}:
            break
        found = target(root, node)
        if found is None:
            break
        node = found
    return node


def _is_secret(root: Node, node: object) -> bool:
    """Whether a subschema, or what it refers to, takes references to secrets instead of values."""
    for _ in range(64):
        if not isinstance(node, dict):
            return False
        if node.get("writeOnly") is True:
            return True
        node = target(root, node) if "$ref" in node else None
    return False


def _asserting(node: Node) -> Node:
    ignored = {*ANNOTATIONS, "$defs"}
    return {word: value for word, value in node.items() if word not in ignored and not word.startswith("x-")}


def _bytes(value: object) -> bytes:
    return canonical(value)


def _refers(value: object) -> bool:
    """Whether there is a reference somewhere inside: what is written alike may mean something else then."""
    return b'"$ref":' in _bytes(value)
