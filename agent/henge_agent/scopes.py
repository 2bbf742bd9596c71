"""What a change asks for: which fields differ, and what the schema says must be started again for them. Pure.

``x-henge-restart`` in a schema marks a field, and all that is in it: ``none`` (programs look at it by themselves),
``section`` (what belongs to its top-level field), ``reboot`` (it counts after the machine's next start). A mark
farther inside beats one farther out; where alternatives disagree the one that does more counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from henge_agent.settings import Field
from henge_protocol.schemawalk import Node, judging, parts_at

MARK: Final = "x-henge-restart"
_STRENGTH: Final = ("none", "section", "reboot")


@dataclass(frozen=True, slots=True)
class Scope:
    """What has to be started again."""

    sections: tuple[str, ...] = ()
    """Top-level fields whose own commands are enough for some of the change."""
    everything: bool = False
    """Some of the change is not marked, so that the command for all is needed."""
    reboot: bool = False


def changed_fields(old: object, new: object) -> list[Field]:
    """The fields that differ, as deep as objects go; a list is one value."""
    return sorted(_differing(old, new, ()))


def scope_of(schema: Mapping[str, Any] | None, changed: list[Field]) -> Scope:
    """What the schema says of these fields; without one nothing is marked."""
    marks = {field: _mark_of(schema, field) for field in changed}
    return Scope(
        sections=tuple(sorted({field[0] for field, mark in marks.items() if mark == "section" and field})),
        everything=any(mark is None or (mark == "section" and not field) for field, mark in marks.items()),
        reboot="reboot" in marks.values(),
    )


_ABSENT: Final = object()


def _differing(old: object, new: object, path: Field) -> Iterator[Field]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differing(old.get(key, _ABSENT), new.get(key, _ABSENT), (*path, key))
    elif old is _ABSENT and isinstance(new, dict) and new:
        yield from _differing({}, new, path)
    elif new is _ABSENT and isinstance(old, dict) and old:
        yield from _differing(old, {}, path)
    elif type(old) is not type(new) or old != new:
        yield path


def _mark_of(schema: Mapping[str, Any] | None, field: Field) -> str | None:
    if schema is None:
        return None
    nodes = _judging(schema, [schema])
    mark = _strongest(nodes)
    for key in field:
        nodes = _judging(schema, [part for node in nodes for part in parts_at(node, key)])
        mark = _strongest(nodes) or mark
    return mark


def _strongest(nodes: list[Node]) -> str | None:
    found = [node[MARK] for node in nodes if node.get(MARK) in _STRENGTH]
    return max(found, key=_STRENGTH.index) if found else None


def _judging(root: Any, start: Iterable[object]) -> list[Node]:
    """The subschemas that may judge the same value, under whatever condition, each once."""
    return list({id(part): part for node in start for part in judging(root, node)}.values())
