"""From layers to the one document of a device: merge, validate, bytes, digest. Pure.

A document depends only on (schema, groups that speak, the device's own values), so devices that share these
share one rendering: a change of a whole fleet costs one validation, not thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import Any, Final, Protocol

from hengd.records import ObjectRecord, Override
from hengd.rules.merge import leaves, overlay
from hengd.rules.objects import object_path
from hengd.rules.overrides import override_key, values_of
from hengd.rules.references import placed
from hengd.rules.schemas import CompiledSchema
from hengd.rules.selection import Selection
from henge_protocol.errors import Problem
from henge_protocol.model import digest_of
from henge_protocol.selector import Selector, parse_selector
from henge_protocol.strictjson import canonical

SHOWN_GROUPS: Final = 20
MAX_LAYERS: Final = 16
"""Of one device, overrides apart (their number is limited where they are set): more of them nobody oversees."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of values for a device: a schema's defaults, a group, the device itself, or an override of these."""

    kind: str
    name: str
    values: dict[str, Any]
    priority: int = 0
    override: Override | None = None


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
    overrides: tuple[Override, ...] = ()


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
    schema: str = ""
    """Digest of the schema that it fits."""


class Secrets(Protocol):
    """Where a renderer gets secrets from, at need."""

    @property
    def are_known(self) -> bool:
        """Whether values are found. If not, documents are made as people see them, and secrets are not validated."""

    def find(self, name: str) -> tuple[int, object]:
        """Revision and value of a secret; ``KeyError`` if there is none."""

    def blinded(self, document: bytes) -> bytes:
        """A document with blanks behind it, so that its digest proves no guess about what it holds."""


def group_entry(record: ObjectRecord) -> GroupEntry:
    """A group's record, ready to use; its spec was checked when it was written."""
    spec = record.spec
    selector, overrides = parse_selector(spec["selector"]), tuple(record.overrides)
    return GroupEntry(record.name, selector, spec["priority"], spec["schema"], spec["values"], overrides)


class Renderer:
    """Renders devices against one consistent set of schemas and groups."""

    def __init__(self, schemas: dict[str, SchemaEntry], groups: Iterable[GroupEntry], secrets: Secrets) -> None:
        self._schemas = schemas
        self._secrets = secrets
        ranked = sorted(groups, key=lambda group: (group.priority, group.name))
        self._groups = Selection((group.selector, group) for group in ranked)
        self._speaking: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[GroupEntry, ...]] = {}
        self._documents: dict[tuple[str, tuple[str, ...], bytes, bytes], Document] = {}

    def render(self, device: ObjectRecord) -> Document | None:
        """The document of ``device``; None if it has no schema. Problems are in the answer, not raised."""
        schema = self._schemas.get(device.spec["schema"])
        if schema is None:
            return None
        groups = self._groups_of(schema.name, device.labels)
        values, overrides = device.spec["values"], device.overrides
        own = canonical(values) if values else b"", override_key(overrides) if overrides else b""
        key = (schema.name, tuple(group.name for group in groups), *own)
        document = self._documents.get(key)
        if document is None:
            document = self._documents[key] = _document(schema, _said(schema, groups, device), self._secrets)
        return document

    def layers(self, device: ObjectRecord) -> list[Layer]:
        """All sources that speak to ``device``, the weakest first."""
        schema = self._schemas.get(device.spec["schema"])
        if schema is None:
            return []
        groups = self._groups_of(schema.name, device.labels)
        return _with_defaults(schema, _said(schema, groups, device))

    def _groups_of(self, schema: str, labels: dict[str, str]) -> tuple[GroupEntry, ...]:
        key = (schema, tuple(labels.items()))
        groups = self._speaking.get(key)
        if groups is None:
            groups = self._speaking[key] = tuple(
                group for group in self._groups.matching(labels) if group.schema in ("", schema)
            )
        return groups


def _document(schema: SchemaEntry, said: Sequence[Layer], secrets: Secrets) -> Document:
    """The document as it is now; it must fit without each of the overrides, too, because they end by themselves."""
    many = _too_many(said)
    if many is not None:
        return Document(b"", "", schema.confirm_s, (many,), "too_many_layers")
    document = _rendered(schema, said, secrets)
    ends = sorted({layer.override.until for layer in said if layer.override is not None})
    for end in ends:
        if document.code:
            break
        left = [one for one in said if one.override is None or one.override.until > end]
        later = _rendered(schema, left, secrets)
        if later.code:
            problems = [replace(one, message=f"when an override ends: {one.message}") for one in later.problems]
            return replace(later, problems=tuple(problems))
    return document


def _rendered(schema: SchemaEntry, said: Sequence[Layer], secrets: Secrets) -> Document:
    clash = _clash(said, "group") or _clash(said, "override")
    if clash is not None:
        return Document(b"", "", schema.confirm_s, (clash,), "conflicting_groups")
    merged = overlay(layer.values for layer in _with_defaults(schema, said))
    data, shown, fitted = canonical(merged), b"", schema.compiled.digest.hex()
    holds_secrets = _REFERENCE in data
    if holds_secrets or schema.compiled.secret_pointers:
        put = placed(schema.compiled, merged, secrets.find)
        if holds_secrets and not put.problems and not secrets.are_known:
            data = canonical(put.shown)
            return Document(data, digest_of(data), schema.confirm_s, shown=data, schema=fitted)
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
    return Document(data, digest_of(data), schema.confirm_s, shown=shown, schema=fitted)


_REFERENCE: Final = b'"$secret":'
"""What canonical bytes hold if and only if a key is so called: in a text the quotes would be escaped."""


def _with_defaults(schema: SchemaEntry, said: Sequence[Layer]) -> list[Layer]:
    defaults = schema.compiled.defaults_for(overlay(layer.values for layer in said))
    return [Layer("schema", schema.name, defaults), *said]


def _said(schema: SchemaEntry, groups: Sequence[GroupEntry], device: ObjectRecord) -> list[Layer]:
    """What is said to a device beside the defaults, the weakest first: groups, itself, then overrides likewise."""
    said = [Layer("group", group.name, _spoken(group, schema, group.values), group.priority) for group in groups]
    said.append(Layer("device", device.name, device.spec["values"]))
    for group in groups:
        path = object_path("group", group.name)
        for one in group.overrides:
            said.append(Layer("override", path, _spoken(group, schema, values_of(one)), group.priority, one))
    path = object_path("device", device.name)
    return said + [Layer("override", path, values_of(one), -1, one) for one in device.overrides]


def _spoken(group: GroupEntry, schema: SchemaEntry, values: dict[str, Any]) -> dict[str, Any]:
    """What a group says to devices of a schema: a bound one everything, an unbound one what the schema declares."""
    if group.schema:
        return values
    declared = schema.compiled.top_level_fields
    return {field: value for field, value in values.items() if field in declared}


def _too_many(said: Sequence[Layer]) -> Problem | None:
    """What is wrong with the number of layers; a group that says nothing to the device is none."""
    groups = [layer.name for layer in said if layer.kind == "group" and layer.values]
    if len(groups) + 2 <= MAX_LAYERS:
        return None
    more = f" and {len(groups) - SHOWN_GROUPS} more" if groups[SHOWN_GROUPS:] else ""
    shown, most = ", ".join(groups[:SHOWN_GROUPS]) + more, MAX_LAYERS - 2
    return Problem("", f"{len(groups)} groups set its values ({shown}), at most {most} may beside schema and device")


def _clash(said: Sequence[Layer], kind: str) -> Problem | None:
    layers = [layer for layer in said if layer.kind == kind]
    for priority, peers in groupby(layers, key=lambda layer: layer.priority):
        for one, other in combinations(peers, 2):
            pointer = _differing(one.values, other.values) if one.name != other.name else None
            if pointer is not None:
                names = [layer.name if kind == "override" else object_path(kind, layer.name) for layer in (one, other)]
                return Problem(pointer, f"{names[0]} and {names[1]} set it differently at priority {priority}")
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
