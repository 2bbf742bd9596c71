"""YAML as henge reads and writes it: the core rules of YAML 1.2 on libyaml's events.

libyaml knows the syntax; what a scalar means, which keys are allowed and how much an alias may cost is
decided here. ``no``, ``on`` and ``12:30`` are text, a key stands once, nothing is built from tags, and
every value knows its place, so that a refusal by the daemon can name line and column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml._yaml import CParser

from henge_protocol.errors import Malformed
from henge_protocol.strictjson import MAX_INTEGER

MAX_DEPTH: Final = 40
"""Above the daemon's limit for values, so that its message about the field is the one people see."""
MAX_ALIASES: Final = 100
MAX_NODES: Final = 500_000
"""Counted with every alias expanded: a few lines of aliases can stand for gigabytes."""

_SUSPICIOUS = re.compile(r"[^\x20-\x7e\n]")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)


@dataclass(slots=True)
class Node:
    """A value and where it stands; lines and columns from 1. Containers also know their children's places."""

    value: Any
    line: int
    column: int
    children: dict[str, Node] | list[Node] | None = None
    size: int = 1
    complete: bool = True

    def at(self, tokens: list[str]) -> Node:
        """The node at the end of a path of keys and indexes, or the deepest one on the way that exists."""
        node = self
        for token in tokens:
            child = node.child(token)
            if child is None:
                break
            node = child
        return node

    def child(self, token: str) -> Node | None:
        """One step down, or nothing if there is no such key or index."""
        if isinstance(self.children, dict):
            return self.children.get(token)
        if isinstance(self.children, list) and token.isdecimal() and int(token) < len(self.children):
            return self.children[int(token)]
        return None


def read_documents(text: str, name: str) -> list[Node]:
    """Read all documents of a text; empty ones are left out.

    Raises ``Malformed``: ``bad_yaml``, ``duplicate_key``, ``number_out_of_range``, ``too_deep``, ``too_complex``,
    each message beginning with ``name:line:column``.
    """
    builder = _Builder(name)
    try:
        for event in _events(text):
            builder.feed(event)
    except yaml.reader.ReaderError as error:
        line, column = _line_and_column(text, error.position)
        raise _bad_yaml(name, line, column, f"character U+{_code_point(error):04X} is not allowed in YAML") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _bad_yaml(name, *place, _explained(error, text, place)) from None
    return [document for document in builder.documents if document.value is not None]


def write(value: object) -> str:
    """Render a value so that YAML 1.1 and 1.2 readers get the same text, number or truth from every scalar.

    Characters that move a cursor, hide or turn text round are escaped.
    """
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100)
    return _SUSPICIOUS.sub(lambda found: found[0] if found[0].isprintable() else _escaped(found[0]), str(text))


def _events(text: str) -> Iterator[yaml.Event]:
    parser = CParser(text)
    try:
        while (event := parser.get_event()) is not None:
            yield event
    finally:
        parser.dispose()


@dataclass(slots=True)
class _Builder:
    """Turns events into nodes without recursion: hostile nesting costs a message, not the process."""

    name: str
    documents: list[Node] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    open: list[tuple[Node, Node | None]] = field(default_factory=list)
    """Containers being filled, outermost first, each with the key that waits for its value."""
    aliases: int = 0
    nodes: int = 0

    def feed(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event), event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event), event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.anchors.clear()

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag not in (None, "!"):
            raise self._refused(event, "bad_yaml", f"the tag {event.tag[:60]} is not supported; write plain values")
        if len(self.open) >= MAX_DEPTH:
            raise self._refused(event, "too_deep", f"the nesting is deeper than {MAX_DEPTH} levels")
        if self.open and isinstance(self.open[-1][0].children, dict) and self.open[-1][1] is None:
            raise self._refused(event, "bad_yaml", "a list or mapping cannot be a key; keys are text")
        mapping = isinstance(event, yaml.MappingStartEvent)
        node = Node({} if mapping else [], *_place(event), children={} if mapping else [], complete=False)
        self._count(1, event)
        if event.anchor:
            self.anchors[event.anchor] = node
        self.open.append((node, None))

    def _close(self) -> None:
        node, _ = self.open.pop()
        node.complete = True
        self._attach(node)

    def _add(self, node: Node, event: yaml.NodeEvent) -> None:
        self._count(node.size, event)
        if self.open and isinstance(self.open[-1][0].children, dict) and self.open[-1][1] is None:
            self._take_key(node, event)
        else:
            self._attach(node)

    def _take_key(self, key: Node, event: yaml.NodeEvent) -> None:
        mapping, _ = self.open[-1]
        if not isinstance(key.value, str):
            written = getattr(event, "value", "") or "(nothing)"
            raise self._refused(event, "bad_yaml", f"the key {_shown(written)} is not text; put it in quotes")
        if key.value == "<<" and getattr(event, "style", None) in (None, ""):
            raise self._refused(event, "bad_yaml", "merge keys (<<) are not part of YAML 1.2; write the fields out")
        if key.value in mapping.value:
            assert isinstance(mapping.children, dict)
            first = mapping.children[key.value]
            raise self._refused(
                event, "duplicate_key", f"the key {_shown(key.value)} stands twice here, first near line {first.line}"
            )
        self.open[-1] = (mapping, key)

    def _attach(self, node: Node) -> None:
        if not self.open:
            self.documents.append(node)
            return
        parent, key = self.open[-1]
        parent.size += node.size
        if isinstance(parent.children, list):
            parent.children.append(node)
            parent.value.append(node.value)
        elif key is not None and parent.children is not None:
            parent.children[key.value] = node
            parent.value[key.value] = node.value
            self.open[-1] = (parent, None)

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        if event.tag not in (None, "!"):
            raise self._refused(event, "bad_yaml", f"the tag {event.tag[:60]} is not supported; use quotes for text")
        value = self._plain(event) if event.implicit[0] and event.tag is None else event.value
        node = Node(value, *_place(event))
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _plain(self, event: yaml.ScalarEvent) -> object:
        """What an unquoted scalar means by the core schema of YAML 1.2 (section 10.3.2)."""
        text: str = event.value
        if text in _NULLS:
            return None
        if text in _TRUTHS:
            return _TRUTHS[text]
        if _INTEGER.fullmatch(text):
            return self._integer(text, event)
        if _FLOAT.fullmatch(text):
            return self._finite(float(text), event)
        if _NOT_FINITE.fullmatch(text):
            return self._finite(math.inf, event)
        return text

    def _integer(self, text: str, event: yaml.ScalarEvent) -> int:
        value = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)) if len(text) <= 20 else MAX_INTEGER + 1
        if abs(value) > MAX_INTEGER:
            raise self._refused(
                event, "number_out_of_range", f"{text[:40]} lies beyond 2^53-1; put it in quotes if it is text"
            )
        return value

    def _finite(self, value: float, event: yaml.ScalarEvent) -> float:
        if not math.isfinite(value):
            raise self._refused(event, "number_out_of_range", f"{event.value[:40]} is not a finite number")
        return value

    def _alias(self, event: yaml.AliasEvent) -> Node:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise self._refused(event, "too_complex", f"there are more than {MAX_ALIASES} aliases")
        name = str(event.anchor)
        node = self.anchors.get(name)
        if node is None or not node.complete:
            what = "is not defined before" if node is None else "contains itself"
            raise self._refused(event, "bad_yaml", f"the alias *{name[:40]} {what}")
        return node

    def _count(self, nodes: int, event: yaml.Event) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self._refused(event, "too_complex", f"there are more than {MAX_NODES} values, aliases expanded")

    def _refused(self, event: yaml.Event, code: str, message: str) -> Malformed:
        line, column = _place(event)
        return Malformed(code, f"{self.name}:{line}:{column}: {message}", cure=f"mend line {line} of {self.name}")


class _Dumper(yaml.CSafeDumper):
    """Quotes whatever either YAML version would take for something else than text; never writes aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """What has characters to escape stands in double quotes: only there escapes mean something."""
    quoted = not text.replace("\n", "").isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


_Dumper.add_representer(str, _represent_text)

for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:int", rf"^(?:{_INTEGER.pattern})$", list("-+0123456789")),
    ("tag:yaml.org,2002:float", rf"^(?:{_FLOAT.pattern}|{_NOT_FINITE.pattern})$", list("-+.0123456789")),
):
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _bad_yaml(name: str, line: int, column: int, message: str) -> Malformed:
    return Malformed("bad_yaml", f"{name}:{line}:{column}: {message}", cure=f"mend line {line} of {name}")


def _explained(error: yaml.MarkedYAMLError, text: str, place: tuple[int, int]) -> str:
    """libyaml's words, with the two commonest mistakes told the way a person would."""
    problem = str(error.problem or "cannot be read")
    if "mapping values are not allowed" in problem:
        return "a second ': ' on this line, or wrong indentation above; put text with ': ' in quotes"
    if "cannot start any token" in problem and "\t" in text.splitlines()[place[0] - 1][: place[1]]:
        return "a tab is used to indent; use spaces"
    return f"{problem}, {error.context}" if error.context else problem


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - before.rfind("\n")


def _code_point(error: yaml.reader.ReaderError) -> int:
    return error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")


def _shown(text: str) -> str:
    return ascii(text[:40]) if text.isascii() else repr(text[:40])
