"""Which parts of a JSON Schema speak about a field, as the daemon, the CLI and the agent all read it. Pure.

All functions expect a schema that the daemon took: references lead to ``$defs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

Node = dict[str, Any]
"""One subschema that is an object; ``true`` and ``false`` are subschemas too and have no parts."""

REF_PREFIX: Final = "#/$defs/"

BRANCHES: Final = ("allOf", "anyOf", "oneOf")
"""Keywords that hold a list of subschemas for the same value."""

CONDITIONS: Final = ("if", "then", "else", "not")
"""Keywords that hold one subschema for the same value."""


def target(root: Node, node: Node) -> Node | None:
    """Return the ``$defs`` entry that ``node`` refers to, if it refers to one that is an object."""
    reference = node.get("$ref")
    if reference is None:
        return None
    found = root.get("$defs", {}).get(reference.removeprefix(REF_PREFIX))
    return found if isinstance(found, dict) else None


def unconditional(root: Node, node: object) -> Iterator[Node]:
    """Yield the subschemas that always judge the same value as ``node``: itself, ``$ref`` and ``allOf``, each once."""
    return _reached(node, lambda part: (target(root, part), *part.get("allOf", ())))


def judging(root: Node, node: object) -> Iterator[Node]:
    """Yield the subschemas that may judge the same value as ``node``, under whatever condition, each once."""
    return _reached(
        node,
        lambda part: (
            target(root, part),
            *(branch for keyword in BRANCHES for branch in part.get(keyword, ())),
            *(part.get(keyword) for keyword in CONDITIONS),
            *part.get("dependentSchemas", {}).values(),
        ),
    )


def unnamed_parts(node: Node) -> Iterator[object]:
    """Yield the subschemas that may judge a member or an entry that ``properties`` does not name."""
    yield from _patterns_and_entries(node)
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in node:
            yield node[keyword]


def parts_at(node: Node, token: str | int) -> Iterator[object]:
    """Yield the subschemas that may judge the member or entry at ``token``; never fewer than there are."""
    named = node.get("properties", {})
    if str(token) in named:
        yield named[str(token)]
        yield from _patterns_and_entries(node)
    else:
        yield from unnamed_parts(node)


def is_marked(root: Node, path: Iterable[str | int], mark: str) -> bool:
    """Tell whether the value at ``path`` is, or lies inside of, a field with this annotation, under any condition."""
    nodes = list(judging(root, root))
    for token in path:
        if any(node.get(mark) for node in nodes):
            return True
        parts = {id(part): part for node in nodes for part in parts_at(node, token)}
        nodes = [inner for part in parts.values() for inner in judging(root, part)]
    return any(node.get(mark) for node in nodes)


def _patterns_and_entries(node: Node) -> Iterator[object]:
    yield from node.get("patternProperties", {}).values()
    yield from node.get("prefixItems", ())
    for keyword in ("items", "contains", "unevaluatedItems"):
        if keyword in node:
            yield node[keyword]


def _reached(start: object, following: Callable[[Node], Iterable[object]]) -> Iterator[Node]:
    # each once: definitions that double each other would be visited a thousand times otherwise
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict) and id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += following(node)
