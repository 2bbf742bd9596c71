"""What a schema says about its fields: their defaults, which are secret, and what a single layer must obey.

All functions expect a schema that passed ``check_schema``: references lead to ``$defs``, and following
them in place ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from hengd.rules.merge import MISSING, Values, drop_nulls, merge
from hengd.rules.schema_keywords import ANNOTATIONS, BELOW, MAPS
from henge_protocol.fieldpath import Path, pointer
from henge_protocol.model import SECRET_KEY
from henge_protocol.schemawalk import (
    BRANCHES,
    CONDITIONS,
    REF_PREFIX,
    Node,
    is_marked,
    judging,
    target,
    unconditional,
    unnamed_parts,
)

ANY: Final = "*"
"""In a secret's pointer: any key, or any entry of a list."""

_LEFT_OUT: Final = frozenset(
    {*CONDITIONS, "required", "dependentRequired", "minProperties", "unevaluatedProperties", "unevaluatedItems"}
)
_LIST_PARTS: Final = ("items", "prefixItems", "contains")
_REFERENCE: Final[Node] = {
    "if": {"type": "object", "required": [SECRET_KEY]},
    "then": {"properties": {SECRET_KEY: {"type": "string", "minLength": 1}}, "additionalProperties": False},
}


class Defaults:
    """The values a schema itself gives: those that always hold, and those of objects that may be left out.

    Nested defaults make their object appear, except one that is optional and whose own required fields have
    no defaults (``mqtt`` with a default port and a required host): such defaults hold only where the object is set.
    Defaults under ``anyOf``, ``oneOf``, ``if`` and in entries of lists are never used; recursion ends at re-entry.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self.optional: list[tuple[Path, Values]] = []
        found = self._of(root, (), frozenset())
        self.always: Values = found if isinstance(found, dict) else {}
        self.optional.sort(key=lambda entry: len(entry[0]))

    def _of(self, node: object, path: Path, entered: frozenset[str]) -> object:
        if not isinstance(node, dict) or node.get("$ref") in entered:
            return MISSING
        found: object = MISSING
        if (referred := target(self._root, node)) is not None:
            found = self._of(referred, path, entered | {node["$ref"]})
        for part in node.get("allOf", ()):
            found = _over(found, self._of(part, path, entered))
        if nested := self._nested(node, path, entered):
            found = _over(found, nested)
        return _over(found, drop_nulls(node["default"])) if node.get("default") is not None else found

    def _nested(self, node: Node, path: Path, entered: frozenset[str]) -> Values:
        found: Values = {}
        for name, part in node.get("properties", {}).items():
            value = self._of(part, (*path, name), entered)
            if value is MISSING:
                continue
            needed = {field for where in unconditional(self._root, part) for field in where.get("required", ())}
            if isinstance(value, dict) and name not in node.get("required", ()) and needed - value.keys():
                self.optional.append(((*path, name), value))
            else:
                found[name] = value
        return found


def top_level_fields(root: Node) -> frozenset[str]:
    """Return the names that the outermost object declares, under whatever condition."""
    return frozenset(name for node in judging(root, root) for name in node.get("properties", ()))


def is_open(root: Node) -> bool:
    """Tell whether the outermost object takes names that it does not declare."""
    nodes = list(unconditional(root, root))
    closed = any(
        node.get(word) is False for node in nodes for word in ("additionalProperties", "unevaluatedProperties")
    )
    return not closed or any(node.get("patternProperties") for node in nodes)


def secret_pointers(root: Node) -> frozenset[str]:
    """Return the pointers of all ``writeOnly`` fields; recursion is followed once, ``is_secret`` follows it on."""
    return frozenset(pointer(path) for path in _marked_paths(root, root, "writeOnly", (), frozenset()))


def risky_pointers(root: Node) -> frozenset[str]:
    """Return the pointers of all fields marked ``x-henge-risk``; as ``secret_pointers``."""
    return frozenset(pointer(path) for path in _marked_paths(root, root, "x-henge-risk", (), frozenset()))


def is_secret(root: Node, path: Iterable[str | int]) -> bool:
    """Tell whether the value at ``path`` is, or lies inside of, a ``writeOnly`` field, under whatever condition."""
    return is_marked(root, path, "writeOnly")


def layer_schema(root: Node) -> Node:
    """Return the schema of a single layer: what must hold although other layers add, change and remove.

    Nothing is required, conditions are left out (other layers decide them), ``oneOf`` is ``anyOf``.  Lists are
    never merged, so inside of a list everything holds in full.  Where a secret belongs, a reference to one fits.
    """
    layered = _layered(root, root, whole=False)
    definitions = root.get("$defs", {})
    layered["$defs"] = {name: _part(root, node, whole=False) for name, node in definitions.items()} | {
        _whole_name(name): _part(root, node, whole=True) for name, node in definitions.items()
    }
    return layered


def _over(lower: object, upper: object) -> object:
    return lower if upper is MISSING else upper if lower is MISSING else merge(lower, upper)


def _marked_paths(root: Node, node: object, mark: str, path: Path, entered: frozenset[int]) -> Iterator[Path]:
    nodes = list(judging(root, node))
    if any(id(inner) in entered for inner in nodes):
        return
    if any(inner.get(mark) for inner in nodes):
        yield path
        return
    inside = entered | {id(inner) for inner in nodes}
    for inner in nodes:
        for token, part in _named_parts(inner):
            yield from _marked_paths(root, part, mark, (*path, token), inside)


def _named_parts(node: Node) -> Iterator[tuple[str, object]]:
    yield from node.get("properties", {}).items()
    yield from ((ANY, part) for part in unnamed_parts(node))


def _part(root: Node, node: object, *, whole: bool) -> object:
    if not isinstance(node, dict):
        return node
    layered = _layered(root, node, whole=whole)
    secret = any(inner.get("writeOnly") for inner in unconditional(root, node))
    return {**_REFERENCE, "else": layered} if secret else layered


def _layered(root: Node, node: Node, *, whole: bool) -> Node:
    layered: Node = {}
    for keyword, value in node.items():
        if keyword in ANNOTATIONS or keyword == "$defs" or keyword.startswith("x-"):
            continue
        if whole or keyword not in _LEFT_OUT:
            layered[keyword] = _keyword(root, keyword, value, whole=whole or keyword in _LIST_PARTS)
    return layered if whole else _weakened(layered)


def _keyword(root: Node, keyword: str, value: Any, *, whole: bool) -> object:
    if keyword == "$ref" and whole:
        return REF_PREFIX + _whole_name(value.removeprefix(REF_PREFIX))
    if keyword in CONDITIONS or keyword in BELOW:
        return _part(root, value, whole=whole)
    if keyword in BRANCHES or keyword == "prefixItems":
        return [_part(root, part, whole=whole) for part in value]
    if keyword in MAPS:
        return {name: _part(root, part, whole=whole) for name, part in value.items()}
    return value


def _weakened(layered: Node) -> Node:
    if "oneOf" in layered:
        # without required fields several alternatives may fit
        layered["allOf"] = [*layered.get("allOf", ()), {"anyOf": layered.pop("oneOf")}]
    if any(isinstance(value, dict) for value in (*layered.get("enum", ()), layered.get("const"))):
        layered.pop("enum", None)
        layered.pop("const", None)
    return layered


def _whole_name(name: str) -> str:
    # ':' is not allowed in the names of $defs, so the two never meet
    return f"whole:{name}"
