"""Manifests: the KRM-shaped form of Schema, Group and Device, checked and made complete. Pure.

Every fault of a manifest is found in one pass and named by its JSON pointer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hengd.records import ObjectRecord
from henge_protocol.errors import HengeError, Invalid, Problem
from henge_protocol.fieldpath import pointer as pointer_of
from henge_protocol.model import API_VERSION, MAX_DOCUMENT_BYTES, PLURALS, check_name, is_name
from henge_protocol.selector import check_labels, parse_selector
from henge_protocol.strictjson import canonical

KINDS: Final = {kind.lower(): kind for kind in PLURALS}
"""Kinds by the word that paths, messages and layers have for them."""
BUILT_IN_GROUP: Final = "all"
DEFAULT_PRIORITY: Final = 100
MAX_PRIORITY: Final = 1000
DEFAULT_CONFIRM_S: Final = 120
MAX_ANNOTATION_CHARS: Final = 4096
MAX_SPEC_DOCUMENT_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a person wants an object to be; ``spec`` is complete, with defaults filled in."""

    kind: str
    name: str
    spec: dict[str, Any]
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def path(self) -> str:
        """``device/lamp-1``, as people and error messages name it."""
        return object_path(self.kind, self.name)


def object_path(kind: str, name: str) -> str:
    """``device/lamp-1``, as people and error messages name an object."""
    return f"{kind.lower()}/{name}"


def parse_object_path(text: str) -> tuple[str, str]:
    """Kind and name of ``device/lamp-1``; ``Invalid`` ``bad_parameter`` otherwise."""
    kind, slash, name = text.partition("/")
    known = {**KINDS, "secret": "Secret"}
    if not slash or kind not in known:
        raise Invalid("bad_parameter", f"object {ascii(text)[:80]} is not of the form device/lamp-1")
    return known[kind], name


def parse_manifest(value: object, *, kind: str = "", name: str = "") -> Manifest:
    """Read one object; ``kind`` and ``name`` come from the path of the request where there is one.

    Raises ``Invalid`` (``unknown_kind``, ``bad_name``, ``bad_object``, ``unknown_field``) with all problems, and as
    ``canonical`` does: an object obeys the limits of JSON by itself, even if a patch adds to it or an apply has many.
    """
    if not isinstance(value, dict):
        raise Invalid("bad_object", "an object is expected: apiVersion, kind, metadata, spec")
    found_kind = _kind(value, kind)
    metadata = value.get("metadata", {})
    if not isinstance(metadata, dict):
        raise Invalid("bad_object", "metadata is not an object", problems=[Problem("/metadata", "object expected")])
    found_name = _name(metadata, name)
    check = _Check(object_path(found_kind, found_name))
    check.known(value, ("apiVersion", "kind", "metadata", "spec", "status"), "")
    check.known(metadata, _METADATA, "/metadata")
    labels = check.texts(metadata.get("labels"), "/metadata/labels")
    annotations = check.texts(metadata.get("annotations"), "/metadata/annotations")
    check.call("/metadata/labels", lambda: check_labels(labels))
    if sum(len(text) for pair in annotations.items() for text in pair) > MAX_ANNOTATION_CHARS:
        check.problem("/metadata/annotations", f"more than {MAX_ANNOTATION_CHARS} characters in all")
    spec = _spec(check, found_kind, value.get("spec", {}))
    check.finish()
    _within_limits({"spec": spec}, check.path)
    manifest = Manifest(found_kind, found_name, spec, labels, annotations)
    _check_built_in(manifest)
    return manifest


def content(record: ObjectRecord) -> bytes:
    """What people said of an object, as bytes: Python would call 1, 1.0 and true the same.

    Raises ``Invalid`` as ``canonical`` does, of this object: its overrides together may be too much.
    """
    said = {
        "spec": record.spec,
        "labels": record.labels,
        "annotations": record.annotations,
        "id": record.id,
        "overrides": {one.pointer: [one.value, one.until] for one in record.overrides},
    }
    return _within_limits(said, object_path(record.kind, record.name))


def inside(error: HengeError, path: str, prefix: str = "", *, cure: str = "") -> HengeError:
    """The same refusal, told about the object that holds the part."""
    problems = [Problem(prefix + problem.pointer, problem.message, path) for problem in error.problems]
    return type(error)(
        error.code, f"{path}: {error.message}", cure=cure or error.cure, problems=problems, extra=error.extra
    )


def manifest_of(record: ObjectRecord) -> Manifest:
    """The manifest that a record came from."""
    return Manifest(record.kind, record.name, record.spec, record.labels, record.annotations)


def _within_limits(said: dict[str, Any], path: str) -> bytes:
    try:
        return canonical(said)
    except Invalid as error:
        raise inside(error, path, cure="make it smaller; docs/limits.md says how large an object may be") from None


_METADATA: Final = (
    "name", "labels", "annotations", "id", "revision", "created", "changed", "author", "set", "taken_from",
)  # fmt: skip


class _Check:
    """Collects what is wrong with one manifest."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._problems: list[Problem] = []
        self._code = "bad_object"

    def problem(self, pointer: str, message: str, code: str = "bad_object") -> None:
        self._problems.append(Problem(pointer, message, self.path))
        if code != "bad_object" and len(self._problems) == 1:
            self._code = code

    def known(self, value: Mapping[str, Any], names: tuple[str, ...], pointer: str) -> None:
        for key in value:
            if key not in names:
                message = f"unknown field; known are {', '.join(names)}"
                self.problem(pointer + pointer_of((key,)), message, "unknown_field")

    def call(self, pointer: str, check: Callable[[], object]) -> None:
        try:
            check()
        except HengeError as error:
            self.problem(pointer, error.message)

    def texts(self, value: object, pointer: str) -> dict[str, str]:
        if value is None:
            return {}
        if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            return value
        self.problem(pointer, "an object of texts is expected (quote numbers and booleans)")
        return {}

    def field(self, spec: Mapping[str, Any], name: str, default: Any, good: Callable[[Any], bool], wanted: str) -> Any:
        value = spec.get(name, default)
        if not good(value):
            self.problem(f"/spec/{name}", f"{wanted} is expected")
            return default
        return value

    def finish(self) -> None:
        if not self._problems:
            return
        first = self._problems[0]
        raise Invalid(
            self._code,
            f"{self.path} is not of its kind's form: {first.pointer or '/'}: {first.message}",
            cure="see docs/http-api.md for the fields of each kind",
            problems=self._problems,
        )


def _kind(value: Mapping[str, Any], expected: str) -> str:
    if value.get("apiVersion", API_VERSION) != API_VERSION:
        raise Invalid(
            "unknown_kind",
            f"apiVersion {ascii(value['apiVersion'])[:60]} is not {API_VERSION}",
            problems=[Problem("/apiVersion", f"{API_VERSION} is expected")],
        )
    kind = value.get("kind", expected)
    if not isinstance(kind, str) or kind not in PLURALS:
        raise Invalid(
            "unknown_kind",
            f"kind {ascii(kind)[:60]} is none of {', '.join(PLURALS)}",
            problems=[Problem("/kind", f"one of {', '.join(PLURALS)} is expected")],
        )
    if expected and kind != expected:
        raise Invalid("bad_object", f"the path says {expected}, the body says kind {kind}")
    return kind


def _name(metadata: Mapping[str, Any], expected: str) -> str:
    name = check_name(metadata.get("name", expected), "metadata.name")
    if expected and name != expected:
        raise Invalid("bad_object", f"the path says {expected}, the body says name {name}")
    return name


def _spec(check: _Check, kind: str, spec: object) -> dict[str, Any]:
    if not isinstance(spec, dict):
        check.problem("/spec", "an object is expected")
        return {}
    return _SPECS[kind](check, spec)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_schema_name(value: object) -> bool:
    return value == "" or is_name(value)


def _is_number(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _schema_spec(check: _Check, spec: dict[str, Any]) -> dict[str, Any]:
    check.known(spec, ("schema", "max_document", "confirm_s"), "/spec")
    if "schema" not in spec:
        check.problem("/spec/schema", "a JSON Schema is required")
    number = _is_number(64, MAX_SPEC_DOCUMENT_BYTES)
    return {
        "schema": check.field(spec, "schema", {}, _is_object, "a JSON Schema object"),
        "max_document": check.field(spec, "max_document", MAX_DOCUMENT_BYTES, number, "64 to 1048576 bytes"),
        "confirm_s": check.field(spec, "confirm_s", DEFAULT_CONFIRM_S, _is_number(1, 3600), "1 to 3600 seconds"),
    }


def _group_spec(check: _Check, spec: dict[str, Any]) -> dict[str, Any]:
    check.known(spec, ("selector", "priority", "schema", "values"), "/spec")
    selector = check.field(
        spec, "selector", "", lambda value: isinstance(value, str), "a label selector such as room=a"
    )
    check.call("/spec/selector", lambda: parse_selector(selector))
    priority = _is_number(0, MAX_PRIORITY)
    return {
        "selector": selector,
        "priority": check.field(spec, "priority", DEFAULT_PRIORITY, priority, f"0 to {MAX_PRIORITY}"),
        "schema": check.field(spec, "schema", "", _is_schema_name, "the name of a schema"),
        "values": check.field(spec, "values", {}, _is_object, "an object"),
    }


def _device_spec(check: _Check, spec: dict[str, Any]) -> dict[str, Any]:
    check.known(spec, ("schema", "values"), "/spec")
    return {
        "schema": check.field(spec, "schema", "", _is_schema_name, "the name of a schema"),
        "values": check.field(spec, "values", {}, _is_object, "an object"),
    }


_SPECS: Final = {"Schema": _schema_spec, "Group": _group_spec, "Device": _device_spec}


def _check_built_in(manifest: Manifest) -> None:
    if manifest.kind != "Group" or manifest.name != BUILT_IN_GROUP:
        return
    spec = manifest.spec
    if spec["selector"] or spec["schema"] or spec["priority"] not in (0, DEFAULT_PRIORITY):
        raise Invalid(
            "read_only",
            "the group all selects every device at priority 0; only its values can be changed",
            cure="make a group of your own with a selector",
        )
    spec["priority"] = 0
