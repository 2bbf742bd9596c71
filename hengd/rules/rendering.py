"""From layers to the one document of a device: merge, validate, bytes, digest. Pure.

A document depends only on (schema, groups that speak, the device's own values), so devices that share these
share one rendering: a change of a whole fleet costs one validation, not thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any, Final, Protocol

from hengd.records import ObjectRecord
from hengd.rules.merge import leaves, overlay
from hengd.rules.objects import object_path
from hengd.rules.references import placed
from hengd.rules.schemas import CompiledSchema
from henge_protocol.errors import Problem
from henge_protocol.model import digest_of
from henge_protocol.selector import Selector, parse_selector
from henge_protocol.strictjson import canonical


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of values for a device: a schema's defaults, a group, or the device itself."""

    kind: str
    name: str
    values: dict[str, Any]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class SchemaEntry:
    """A stored schema, ready to use."""

    name: str
    compiled: CompiledSchema
    max_document: int
    confirm_s: int


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A stored group, ready to use."""

    name: str
    selector: Selector
    priority: int
    schema: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """The rendered bytes of a device, or why there are none."""

    data: bytes
    digest: str
    confirm_s: int
    problems: tuple[Problem, ...] = ()
    code: str = ""
    shown: bytes = b""
    """If it holds secrets: what people may see of it, with references in their place."""


class Secrets(Protocol):
    """Where a renderer gets secrets from, at need."""

    def find(self, name: str) -> tuple[int, object]:
        """Revision and value of a secret; ``KeyError`` if there is none."""

    def blinded(self, document: bytes) -> bytes:
        """A document with blanks behind it, so that its digest proves no guess about what it holds."""


def group_entry(record: ObjectRecord) -> GroupEntry:
    """A group's record, ready to use; its spec was checked when it was written."""
    spec = record.spec
    return GroupEntry(record.name, parse_selector(spec["selector"]), spec["priority"], spec["schema"], spec["values"])


class Renderer:
    """Renders devices against one consistent set of schemas and groups."""

    def __init__(self, schemas: dict[str, SchemaEntry], groups: Iterable[GroupEntry], secrets: Secrets) -> None:
        self._schemas = schemas
        self._secrets = secrets
        self._groups = sorted(groups, key=lambda group: (group.priority, group.name))
        self._speaking: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[GroupEntry, ...]] = {}
        self._documents: dict[tuple[str, tuple[str, ...], bytes], Document] = {}

    def render(self, device: ObjectRecord) -> Document | None:
        """The document of ``device``; None if it has no schema. Problems are in the answer, not raised."""
        schema = self._schemas.get(device.spec["schema"])
        if schema is None:
            return None
        groups = self._groups_of(schema.name, device.labels)
        values = device.spec["values"]
        key = (schema.name, tuple(group.name for group in groups), canonical(values) if values else b"")
        document = self._documents.get(key)
        if document is None:
            document = self._documents[key] = _document(schema, groups, values, self._secrets)
        return document

    def layers(self, device: ObjectRecord) -> list[Layer]:
        """All sources that speak to ``device``, the weakest first."""
        schema = self._schemas.get(device.spec["schema"])
        if schema is None:
            return []
        groups = self._groups_of(schema.name, device.labels)
        return list(_layers(schema, groups, device.spec["values"], device.name))

    def _groups_of(self, schema: str, labels: dict[str, str]) -> tuple[GroupEntry, ...]:
        key = (schema, tuple(labels.items()))
        groups = self._speaking.get(key)
        if groups is None:
            groups = self._speaking[key] = tuple(
                group for group in self._groups if group.schema in ("", schema) and group.selector.matches(labels)
            )
        return groups


def _document(
    schema: SchemaEntry, groups: tuple[GroupEntry, ...], values: dict[str, Any], secrets: Secrets
) -> Document:
    clash = _clash(schema, groups)
    if clash is not None:
        return Document(b"", "", schema.confirm_s, (clash,), "conflicting_groups")
    merged = overlay(layer.values for layer in _layers(schema, groups, values, ""))
    data, shown = canonical(merged), b""
    holds_secrets = _REFERENCE in data
    if holds_secrets or schema.compiled.secret_pointers:
        put = placed(schema.compiled, merged, secrets.find)
        problems = put.problems or schema.compiled.validate(put.values)
    else:
        problems = schema.compiled.validate(merged)
    if problems:
        return Document(b"", "", schema.confirm_s, tuple(problems), "does_not_fit")
    if holds_secrets:
        data, shown = secrets.blinded(canonical(put.values)), canonical(put.shown)
    if len(data) > schema.max_document:
        text = f"the document has {len(data)} bytes, schema {schema.name} allows {schema.max_document}"
        return Document(b"", "", schema.confirm_s, (Problem("", text),), "document_too_large")
    return Document(data, digest_of(data), schema.confirm_s, shown=shown)


_REFERENCE: Final = b'"$secret":'
"""What canonical bytes hold if and only if a key is so called: in a text the quotes would be escaped."""


def _layers(
    schema: SchemaEntry, groups: tuple[GroupEntry, ...], values: dict[str, Any], device: str
) -> Iterator[Layer]:
    said = [Layer("group", group.name, _spoken(group, schema), group.priority) for group in groups]
    said.append(Layer("device", device, values))
    yield Layer("schema", schema.name, schema.compiled.defaults_for(overlay(layer.values for layer in said)))
    yield from said


def _spoken(group: GroupEntry, schema: SchemaEntry) -> dict[str, Any]:
    """What a group says to devices of a schema: a bound one everything, an unbound one what the schema declares."""
    if group.schema:
        return group.values
    declared = schema.compiled.top_level_fields
    return {field: value for field, value in group.values.items() if field in declared}


def _clash(schema: SchemaEntry, groups: tuple[GroupEntry, ...]) -> Problem | None:
    for priority, peers in groupby(groups, key=lambda group: group.priority):
        for one, other in combinations(peers, 2):
            pointer = _differing(_spoken(one, schema), _spoken(other, schema))
            if pointer is not None:
                return Problem(
                    pointer,
                    f"{object_path('group', one.name)} and {object_path('group', other.name)} "
                    f"set it differently at priority {priority}",
                )
    return None


def _differing(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """The first pointer where two layers of equal rank disagree, or where one sets inside what the other sets."""
    if not one or not other:
        return None
    for pointer, value in leaves(one):
        for path, said in leaves(other):
            if path == pointer:
                differ = not _equal(said, value)
            elif path.startswith(pointer + "/"):
                differ = value != {}  # an empty object leaves room for what the other sets inside of it
            else:
                differ = pointer.startswith(path + "/") and said != {}
            if differ:
                return pointer
    return None


def _equal(one: object, other: object) -> bool:
    return canonical(one) == canonical(other)
