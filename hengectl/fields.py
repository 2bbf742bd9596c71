"""``FIELD=VALUE`` as people type it, turned into the value that the schema means. Pure.

``10`` is a number where the schema says so and text where it says text; where it allows both, the person says
which with ``--json``. ``null`` always means: hide what would be inherited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from henge_protocol.errors import Invalid
from henge_protocol.fieldpath import Path, parse_path, tokens
from henge_protocol.model import SECRET_KEY, is_secret_name
from henge_protocol.schemawalk import is_marked

Schema = Mapping[str, Any]

JSON_TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_WANTED: Final = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": 'a list in JSON, such as ["a","b"]',
    "object": 'an object in JSON, such as {"a": 1}',
    "null": "null",
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """One ``FIELD=VALUE`` before its type is known."""

    field: str
    path: Path
    text: str


def parse_assignments(texts: Sequence[str]) -> list[Assignment]:
    """Read ``FIELD=VALUE`` texts, split at the first ``=``; ``Invalid`` ``bad_usage`` or ``bad_path``."""
    read: list[Assignment] = []
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise Invalid(
                "bad_usage", f"{ascii(text)[:80]} is not of the form FIELD=VALUE", cure="write for example color=red"
            )
        read.append(Assignment(field, parse_path(field), value))
    _refuse_overlaps([one.path for one in read])
    return read


def parse_fields(texts: Sequence[str]) -> list[Path]:
    """Read field names, each once; ``Invalid`` ``bad_usage`` or ``bad_path``."""
    for text in texts:
        if "=" in text:
            cure = f"write {text.partition('=')[0][:80]} alone"
            raise Invalid("bad_usage", f"{ascii(text)[:80]} is not a field's name: unset takes no value", cure=cure)
    paths = [parse_path(text) for text in texts]
    _refuse_overlaps(paths)
    return paths


def value_of(assignment: Assignment, schemas: Iterable[Schema], *, as_json: bool) -> Any:
    """The value that an assignment means under these schemas.

    In place of a secret stands a reference, written ``secret/wifi/home`` or ``{"$secret": "wifi/home"}``.

    Raises ``Invalid``: ``does_not_fit`` when the text cannot be of the field's type, ``bad_usage`` when it can be
    of two, or when a secret itself is given, which is not repeated.
    """
    if assignment.text == "null":
        return None
    schemas = list(schemas)
    if is_secret(assignment.path, schemas):
        return _reference(assignment)
    types = types_of(assignment.path, schemas)
    if as_json:
        return _as_json(assignment)
    found = _json_or_nothing(assignment.text)
    fits = found is not _NOT_JSON and _is_of(found, types or JSON_TYPES)
    if not types:
        return _guessed(assignment, found)
    if "string" not in types:
        if not fits:
            raise _does_not_fit(assignment, types)
        return _whole(found, types)
    if fits and not isinstance(found, str):
        raise _ambiguous(assignment, types)
    return assignment.text


def types_of(path: Path, schemas: Iterable[Schema]) -> frozenset[str]:
    """The JSON types that the schemas allow at a field; empty when none of them says."""
    return frozenset(kind for schema in schemas for found in at(schema, path) for kind in _own_types(found))


def is_secret(path: Path, schemas: Iterable[Schema]) -> bool:
    """Whether a schema marks the field, or what it is a part of, ``writeOnly``, under whatever condition."""
    return any(is_marked(dict(schema), path, "writeOnly") for schema in schemas)


def at(schema: Schema, path: Path) -> list[Schema]:
    """The parts of a schema that speak about a field: through local references and every combination."""
    return list({id(part): part for part in _at(schema, path, schema, 0)}.values())


def nested(path: Path, value: object) -> dict[str, Any]:
    """``{"wifi": {"ssid": value}}``."""
    whole: Any = value
    for key in reversed(path):
        whole = {key: whole}
    return dict(whole)


def merged(values: Mapping[str, Any], path: Path, value: object) -> dict[str, Any]:
    """A copy of ``values`` in which the field has the value; what is no object on the way becomes one."""
    key, *rest = path
    inner = values.get(key)
    below = merged(inner if isinstance(inner, Mapping) else {}, tuple(rest), value) if rest else value
    return {**values, key: below}


def has(values: object, path: Path) -> bool:
    """Whether the field is set, be it to ``null``."""
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True


def without(values: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """A copy of ``values`` without these fields, nor objects that hold nothing else."""
    left = dict(values)
    for path in {shallowest_gone(values, path, paths) for path in paths if has(values, path)}:
        left = _without(left, path)
    return left


def leaves(value: object, path: Path = ()) -> Iterator[Path]:
    """The paths of all fields; lists, nulls, empty objects and references to secrets are fields."""
    return _leaves(value, path)


def get(values: object, path: Path) -> Any:
    """The value of a field that is set; ``KeyError`` if it is not."""
    for key in path:
        if not isinstance(values, Mapping):
            raise KeyError(key)
        values = values[key]
    return values


def shallowest_gone(values: Mapping[str, Any], path: Path, gone: Sequence[Path]) -> Path:
    """What to remove so that no empty object is left behind where all of its fields are in ``gone``."""
    for length in range(1, len(path)):
        inner: Any = values
        for key in path[:length]:
            inner = inner[key]
        if all(any(leaf[: len(other)] == other for other in gone) for leaf in _leaves(inner, path[:length])):
            return path[:length]
    return path


def _leaves(value: object, path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping) and value and SECRET_KEY not in value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path


def _without(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    key, *rest = path
    if not rest:
        return {name: value for name, value in values.items() if name != key}
    inner = values.get(key)
    return {**values, key: _without(inner, tuple(rest))} if isinstance(inner, Mapping) else dict(values)


class _NotJson:
    """Text that is no JSON value."""


_NOT_JSON: Final = _NotJson()


def _at(part: object, path: Path, root: Schema, depth: int) -> Iterator[Schema]:
    if not isinstance(part, Mapping) or depth > 64:
        return
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        yield from _at(_resolved(root, reference), path, root, depth + 1)
    for word in ("allOf", "anyOf", "oneOf"):
        branches = part.get(word)
        for branch in branches if isinstance(branches, list) else ():
            yield from _at(branch, path, root, depth + 1)
    for word in ("if", "then", "else"):
        yield from _at(part.get(word), path, root, depth + 1)
    if not path:
        yield part
        return
    properties = part.get("properties")
    if isinstance(properties, Mapping) and path[0] in properties:
        yield from _at(properties[path[0]], path[1:], root, depth + 1)
    elif isinstance(part.get("additionalProperties"), Mapping):
        yield from _at(part["additionalProperties"], path[1:], root, depth + 1)


def _resolved(root: Schema, reference: str) -> object:
    found: object = root
    for token in tokens(reference[1:]):
        found = found.get(token) if isinstance(found, Mapping) else None
    return found


def _own_types(part: Schema) -> Iterator[str]:
    told = part.get("type")
    if isinstance(told, str):
        yield told
    elif isinstance(told, list):
        yield from (kind for kind in told if isinstance(kind, str))
    else:
        values = part.get("enum")
        candidates = values if isinstance(values, list) else [part["const"]] if "const" in part else []
        yield from (_type_name(value) for value in candidates)


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _is_of(value: object, types: frozenset[str]) -> bool:
    kind = _type_name(value)
    if kind in types or (kind == "integer" and "number" in types):
        return True
    return isinstance(value, float) and value.is_integer() and "integer" in types


def _whole(value: object, types: frozenset[str]) -> object:
    """``5.0`` is a whole number to JSON Schema; devices are sent ``5``."""
    if isinstance(value, float) and value.is_integer() and "number" not in types:
        return int(value)
    return value


def _guessed(assignment: Assignment, found: object) -> object:
    """Nobody says what the field is: a number or truth if it looks like one, else text."""
    return assignment.text if isinstance(found, _NotJson) else found


def _json_or_nothing(text: str) -> object:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return _NOT_JSON
    return _NOT_JSON if isinstance(value, float) and not math.isfinite(value) else value


def _reference(assignment: Assignment) -> dict[str, str]:
    found = _json_or_nothing(assignment.text)
    name = found[SECRET_KEY] if isinstance(found, dict) and set(found) == {SECRET_KEY} else None
    name = assignment.text.removeprefix("secret/") if assignment.text.startswith("secret/") else name
    if not is_secret_name(name):
        suggested = "/".join(assignment.path).lower()
        suggested = suggested if is_secret_name(suggested) else "NAME"
        raise Invalid(
            "bad_usage",
            f"{assignment.field} is a secret: its value is no argument, where others can read it",
            cure=f"hengectl secret set {suggested}, then {assignment.field}=secret/{suggested}",
        )
    return {SECRET_KEY: str(name)}


def _as_json(assignment: Assignment) -> object:
    value = _json_or_nothing(assignment.text)
    if isinstance(value, _NotJson):
        raise Invalid(
            "bad_usage",
            f"{assignment.text[:60]!r} is not JSON",
            cure=f"write text in quotes: {assignment.field}='\"text\"'",
        )
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _does_not_fit(assignment: Assignment, types: frozenset[str]) -> Invalid:
    return Invalid("does_not_fit", f"{assignment.field}: {assignment.text[:60]!r} is not {_listed(types)}")


def _ambiguous(assignment: Assignment, types: frozenset[str]) -> Invalid:
    field, text = assignment.field, assignment.text[:60]
    return Invalid(
        "bad_usage",
        f"{field} may be text or {_listed(types - {'string'})}, and {text} can be both",
        cure=f"say which: --json {field}={text} or --json {field}='\"{text}\"'",
    )


def _listed(types: frozenset[str]) -> str:
    shown = types - {"integer"} if "number" in types else types
    return " or ".join(_WANTED.get(kind, kind) for kind in sorted(shown) if kind != "null") or "null"


def _refuse_overlaps(paths: Sequence[Path]) -> None:
    for number, path in enumerate(paths):
        for other in paths[:number]:
            shorter = min(len(path), len(other))
            if path[:shorter] == other[:shorter]:
                raise Invalid("bad_usage", f"{'.'.join(path)} is given twice, or together with a part of it")
