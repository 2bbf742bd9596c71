"""From layers to the one document of a device: merge, validate, bytes, digest. Pure.

A document depends only on (schema, groups that speak, the device's own values), so devices that share these
share one rendering: a change of a whole fleet costs one validation, not thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, Protocol

from hengd.records import ObjectRecord, Override
from hengd.rules.merge import get, is_reference, overlay, same, speaks
from hengd.rules.objects import object_path
from hengd.rules.overrides import override_key, values_of
from hengd.rules.references import placed
from hengd.rules.schemas import CompiledSchema
from hengd.rules.selection import Selection
from henge_protocol.errors import Invalid, Problem
from henge_protocol.fieldpath import Path, pointer, tokens, twin_names
from henge_protocol.model import digest_of
from henge_protocol.selector import Selector, parse_selector
from henge_protocol.strictjson import canonical

SHOWN_GROUPS: Final = 20
MAX_LAYERS: Final = 16
"""Of one device, overrides apart (their number is limited where they are set): more of them nobody oversees."""
MAX_ENDS: Final = 16
"""Moments at which a device's document changes by itself: it has to fit after each of them, at every change."""


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
    later_bytes: int = 0
    """The size of the largest document that ends of overrides make of it; 0 = none is larger."""


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
        self._speaking: dict[tuple[str, tuple[tuple[str, str], ...]], _Choir] = {}
        self._choirs: dict[tuple[str, tuple[str, ...]], _Choir] = {}
        self._documents: dict[tuple[str, tuple[str, ...], bytes, bytes], Document] = {}

    def render(self, device: ObjectRecord) -> Document | None:
        """The document of ``device``; None if it has no schema. Problems are in the answer, not raised."""
        schema = self._schemas.get(device.spec["schema"])
        if schema is None:
            return None
        choir = self._choir_of(schema, device.labels)
        values, overrides = device.spec["values"], device.overrides
        own = canonical(values) if values else b"", override_key(overrides) if overrides else b""
        key = (schema.name, choir.names, *own)
        document = self._documents.get(key)
        if document is None:
            document = choir.fault or _document(schema, _said(choir, device), self._secrets)
            self._documents[key] = document
        return document

    def layers(self, device: ObjectRecord) -> list[Layer]:
        """All sources that speak to ``device``, the weakest first."""
        schema = self._schemas.get(device.spec["schema"])
        if schema is None:
            return []
        return _with_defaults(schema, _said(self._choir_of(schema, device.labels), device))

    def _choir_of(self, schema: SchemaEntry, labels: dict[str, str]) -> _Choir:
        key = (schema.name, tuple(labels.items()))
        choir = self._speaking.get(key)
        if choir is None:
            groups = [group for group in self._groups.matching(labels) if group.schema in ("", schema.name)]
            choir = self._speaking[key] = self._choir(schema, groups)
        return choir

    def _choir(self, schema: SchemaEntry, groups: Sequence[GroupEntry]) -> _Choir:
        key = (schema.name, tuple(group.name for group in groups))
        choir = self._choirs.get(key)
        if choir is None:
            choir = self._choirs[key] = _choir(schema, groups)
        return choir


@dataclass(frozen=True, slots=True)
class _Choir:
    """What all groups together say to devices of a schema; found once for all devices that the same ones speak to."""

    names: tuple[str, ...]
    values: tuple[Layer, ...]
    overrides: tuple[Layer, ...]
    fault: Document | None
    """Why devices that they speak to can have no document, whatever these say themselves."""


def _choir(schema: SchemaEntry, groups: Sequence[GroupEntry]) -> _Choir:
    values = [Layer("group", group.name, _spoken(group, schema, group.values), group.priority) for group in groups]
    overrides = [
        Layer("override", object_path("group", group.name), _spoken(group, schema, values_of(one)), group.priority, one)
        for group in groups
        for one in group.overrides
    ]
    names = tuple(group.name for group in groups)
    return _Choir(names, tuple(values), tuple(overrides), _fault(schema, values, overrides))


def _fault(schema: SchemaEntry, values: Sequence[Layer], overrides: Sequence[Layer]) -> Document | None:
    many = _too_many(values)
    if many is not None:
        return _refused(schema, "too_many_layers", many)
    clash = _clash(values) or _clash(overrides)
    return _refused(schema, "conflicting_groups", clash) if clash is not None else None


def _refused(schema: SchemaEntry, code: str, *problems: Problem) -> Document:
    return Document(b"", "", schema.confirm_s, problems, code)


def _document(schema: SchemaEntry, said: Sequence[Layer], secrets: Secrets) -> Document:
    """The document as it is now; it must fit without each of the overrides, too, because they end by themselves."""
    ends = sorted({layer.override.until for layer in said if layer.override is not None})
    if len(ends) > MAX_ENDS:
        text = f"its overrides end at {len(ends)} different moments, at most {MAX_ENDS} are possible"
        return _refused(schema, "too_complex", Problem("", text))
    values = _merged(schema, said)
    document, before = _fitted(schema, said, values, secrets), values
    largest = len(document.data)
    for end in ends:
        if document.code:
            break
        left = [one for one in said if one.override is None or one.override.until > end]
        values = _merged(schema, left)
        if same(values, before):
            continue
        later, before = _fitted(schema, left, values, secrets), values
        if later.code:
            problems = [replace(one, message=f"when an override ends: {one.message}") for one in later.problems]
            return replace(later, problems=tuple(problems))
        largest = max(largest, len(later.data))
    return replace(document, later_bytes=largest) if largest > len(document.data) else document


def _merged(schema: SchemaEntry, said: Sequence[Layer]) -> dict[str, Any]:
    return overlay(layer.values for layer in _with_defaults(schema, said))


def _fitted(schema: SchemaEntry, said: Sequence[Layer], merged: dict[str, Any], secrets: Secrets) -> Document:
    try:
        made = _made(schema, merged, secrets)
    except Invalid as error:  # layers that are each within the limits of JSON may be beyond them together
        made = _refused(schema, error.code, *error.problems)
    return replace(made, problems=tuple(_with_speaker(one, said) for one in made.problems)) if made.problems else made


def _with_speaker(problem: Problem, said: Sequence[Layer]) -> Problem:
    """A problem with the layer that it comes from, unless that is the device, as whose problem it is told."""
    path = tokens(problem.pointer)
    speaker = next((layer for layer in reversed(said) if path and speaks(layer.values, path)), None)
    if speaker is None or speaker.kind == "device":
        return problem
    name = f"an override of {speaker.name}" if speaker.override is not None else object_path(speaker.kind, speaker.name)
    verb = "takes it away" if get(speaker.values, path) is None else "says so"
    return replace(problem, message=f"{problem.message} ({name} {verb})")


def _made(schema: SchemaEntry, merged: dict[str, Any], secrets: Secrets) -> Document:
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
    if not problems and not data.isascii():
        problems = alike(merged)
    if problems:
        return _refused(schema, "does_not_fit", *problems)
    if holds_secrets:
        data, shown = secrets.blinded(_opened(put.values)), canonical(put.shown)
    if len(data) > schema.max_document:
        text = f"the document has {len(data)} bytes, schema {schema.name} allows {schema.max_document}"
        return _refused(schema, "document_too_large", Problem("", text))
    return Document(data, digest_of(data), schema.confirm_s, shown=shown, schema=fitted)


def alike(values: object) -> list[Problem]:
    """Names side by side that a person cannot tell apart: one of them is what somebody meant to change."""
    return [Problem(pointer(path), "another name beside it looks the same") for path in twin_names(values)]


def _opened(values: object) -> bytes:
    """Values with their secrets as bytes; a refusal does not tell how a secret is made inside."""
    try:
        return canonical(values)
    except Invalid as error:
        text = f"with its secrets, {error.problems[0].message}"
        raise Invalid(error.code, text, problems=[Problem("", text)]) from None


_REFERENCE: Final = b'"$secret":'
"""What canonical bytes hold if and only if a key is so called: in a text the quotes would be escaped."""


def _with_defaults(schema: SchemaEntry, said: Sequence[Layer]) -> list[Layer]:
    defaults = schema.compiled.defaults_for(overlay(layer.values for layer in said))
    return [Layer("schema", schema.name, defaults), *said]


def _said(choir: _Choir, device: ObjectRecord) -> list[Layer]:
    """What is said to a device beside the defaults, the weakest first: groups, itself, then overrides likewise."""
    path = object_path("device", device.name)
    own = [Layer("override", path, values_of(one), -1, one) for one in device.overrides]
    return [*choir.values, Layer("device", device.name, device.spec["values"]), *choir.overrides, *own]


def _spoken(group: GroupEntry, schema: SchemaEntry, values: dict[str, Any]) -> dict[str, Any]:
    """What a group says to devices of a schema: a bound one everything, an unbound one what the schema declares."""
    if group.schema:
        return values
    declared = schema.compiled.top_level_fields
    return {field: value for field, value in values.items() if field in declared}


def _too_many(layers: Iterable[Layer]) -> Problem | None:
    """What is wrong with the number of groups; one that says nothing to the device does not count."""
    groups = [layer.name for layer in layers if layer.values]
    if len(groups) + 2 <= MAX_LAYERS:
        return None
    more = f" and {len(groups) - SHOWN_GROUPS} more" if groups[SHOWN_GROUPS:] else ""
    shown, most = ", ".join(groups[:SHOWN_GROUPS]) + more, MAX_LAYERS - 2
    return Problem("", f"{len(groups)} groups set its values ({shown}), at most {most} may beside schema and device")


def _clash(layers: Iterable[Layer]) -> Problem | None:
    """The first spot of which two groups of equal rank say different things; the layers are in order of rank and name.

    One walk over everything said: comparing groups two by two takes the writer minutes for an ordinary fleet.
    """
    for priority, peers in groupby(layers, key=lambda layer: layer.priority):
        heard: dict[Path, tuple[str, set[bytes]]] = {}
        objects = [(name, list(spoken)) for name, spoken in groupby(peers, key=_object_of)]
        for name, spoken in objects if len(objects) > 1 else ():
            for path, said in _statements(spoken).items():
                first, known = heard.setdefault(path, (name, said))
                if first != name and len(known | said) > 1:
                    return Problem(pointer(path), f"{first} and {name} set it differently at priority {priority}")
    return None


def _object_of(layer: Layer) -> str:
    return layer.name if layer.override is not None else object_path(layer.kind, layer.name)


def _statements(layers: Iterable[Layer]) -> dict[Path, set[bytes]]:
    """What layers of one object say of each spot, as bytes.

    An object with fields says there what an empty one says: it leaves room for what others set inside of it.
    """
    said: dict[Path, set[bytes]] = {}
    for layer in layers:
        _state(said, (), layer.values)
    return said


def _state(said: dict[Path, set[bytes]], path: Path, value: object) -> None:
    has_room = isinstance(value, dict) and not is_reference(value)
    said.setdefault(path, set()).add(b"{}" if has_room else canonical(value))
    if isinstance(value, dict) and has_room:
        for key in sorted(value):
            _state(said, (*path, key), value[key])
