"""What a schema may cost and contain, judged from its text before anything is compiled.

The budget is what bounds the time of every later step: with patterns linear, references acyclic in place
and the expanded size limited, validating a document needs no thread, no timer and no trust in its author.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final

from hengd.rules.schema_keywords import DIALECT, FORMATS, REPLACEMENTS, ROOT_ONLY, SUPPORTED, in_place, subschemas
from hengd.rules.schema_patterns import check_pattern
from henge_protocol.errors import Invalid, Problem
from henge_protocol.fieldpath import is_clean, pointer, unclean_names
from henge_protocol.model import MAX_SCHEMA_BYTES, SECRET_KEY
from henge_protocol.schemawalk import REF_PREFIX, Node
from henge_protocol.strictjson import canonical

MAX_DEPTH: Final = 16
MAX_SUBSCHEMAS: Final = 2_000
MAX_EXPANDED: Final = 10_000
"""Subschemas of the whole, or of one definition, after replacing every reference by its target."""

MAX_EXPANDED_TOGETHER: Final = 4 * MAX_EXPANDED
"""The same, summed over the whole and all definitions: each is looked at by itself too."""

MAX_REFERENCE_CHAIN: Final = 32
MAX_BRANCHES: Final = 32
MAX_PATTERNS: Final = 32
MAX_ENUM: Final = 1_000
MAX_EXAMPLES: Final = 32
MAX_TEXT_BYTES: Final = 2_048
MAX_UNIQUE_ITEMS: Final = 256
MIN_MULTIPLE: Final = Decimal("1e-9")

CURES: Final = {
    "bad_schema": "see docs/schemas.md for what a schema may contain",
    "remote_ref": "copy the definition into the schema's own $defs and refer to #/$defs/NAME",
    "cyclic_ref": "let a schema reach itself only through properties or items",
    "unsupported_keyword": "see docs/schemas.md for the keywords; names with x- are your own, but for x-henge-",
    "pattern_unsupported": "write the pattern without look-around, back-references, flags and named groups",
    "unsatisfiable": "loosen one of the two so that some value fits",
    "bad_default": "change the default or example, or what the schema demands of it",
    "too_complex": "split the schema or simplify it; docs/limits.md lists the limits",
    "too_deep": "flatten the schema; docs/limits.md lists the limits",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a schema."""

    code: str
    path: tuple[str | int, ...]
    message: str


def refusal(findings: list[Finding]) -> Invalid:
    """Make the error for what was found; the first finding gives code and cure."""
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    where = f"at {pointer(first.path)}: " if first.path else ""
    return Invalid(
        first.code,
        f"the schema is not acceptable: {where}{first.message}{more}",
        cure=CURES[first.code],
        problems=[Problem(pointer(finding.path), finding.message) for finding in findings[:100]],
    )


def check_size(schema: object) -> Node:
    """Return the schema if it is an object within the limits of JSON and of a schema's size, else raise ``Invalid``."""
    if not isinstance(schema, dict):
        raise refusal([Finding("bad_schema", (), 'a schema is a JSON object such as {"type": "object"}')])
    size = len(canonical(schema))
    if size > MAX_SCHEMA_BYTES:
        raise refusal([Finding("too_complex", (), f"it has {size} bytes; at most {MAX_SCHEMA_BYTES} are allowed")])
    dialect = schema.get("$schema", DIALECT)
    if dialect not in (DIALECT, DIALECT + "#"):
        raise refusal([Finding("bad_schema", ("$schema",), f"{dialect!r} is not supported; write {DIALECT}")])
    return schema


def check_keywords(root: Node) -> None:
    """Judge every subschema by itself; the values of keywords must be of the types the meta-schema asks for.

    Raises ``Invalid`` with all findings; limits of depth and number end the walk at once.
    """
    findings: list[Finding] = []
    waiting: list[tuple[tuple[str | int, ...], object, int]] = [((), root, 1)]
    seen = patterns = 0
    while waiting:
        path, node, depth = waiting.pop()
        seen += 1
        if seen > MAX_SUBSCHEMAS:
            raise refusal([Finding("too_complex", (), f"it has more than {MAX_SUBSCHEMAS} subschemas")])
        if not isinstance(node, dict):
            continue
        if depth > MAX_DEPTH:
            raise refusal([Finding("too_deep", path, f"subschemas are nested deeper than {MAX_DEPTH} levels")])
        patterns += ("pattern" in node) + len(node.get("patternProperties", ()))
        if patterns > MAX_PATTERNS:
            raise refusal([Finding("too_complex", path, f"the schema has more than {MAX_PATTERNS} patterns")])
        findings += _judged(node, path)
        waiting += [((*path, *step), part, depth + 1) for step, part in subschemas(node)]
    if findings:
        raise refusal(findings)


def check_references(root: Node) -> None:
    """Refuse references that lead nowhere, that never end, or that unfold beyond the budget."""
    graph = {"": _Outgoing(root, ()), **{n: _Outgoing(d, ("$defs", n)) for n, d in root.get("$defs", {}).items()}}
    for outgoing in graph.values():
        for path, name, _ in outgoing.references:
            if name not in graph or not name:
                raise refusal([Finding("bad_schema", (*path, "$ref"), f"there is no {REF_PREFIX}{name}")])
    _refuse_cycles(graph)
    sizes: dict[str, tuple[int, int]] = {}
    for name in graph:
        _unfold(graph, name, sizes, frozenset())
    if sum(size for size, _ in sizes.values()) > MAX_EXPANDED_TOGETHER:
        message = f"its definitions, each with references followed, have more than {MAX_EXPANDED_TOGETHER} subschemas"
        raise refusal([Finding("too_complex", ("$defs",), message)])


class _Outgoing:
    """The references that leave the root or one of its definitions."""

    def __init__(self, node: object, path: tuple[str | int, ...]) -> None:
        self.path = path
        self.size = 0
        self.references: list[tuple[tuple[str | int, ...], str, bool]] = []
        waiting: list[tuple[tuple[str | int, ...], object, bool]] = [(path, node, True)]
        while waiting:
            where, part, here = waiting.pop()
            self.size += 1
            if not isinstance(part, dict):
                continue
            if "$ref" in part:
                self.references.append((where, part["$ref"].removeprefix(REF_PREFIX), here))
            waiting += [
                ((*where, *step), inner, here and in_place(step))
                for step, inner in subschemas(part)
                if step[0] != "$defs"
            ]


def _refuse_cycles(graph: dict[str, _Outgoing]) -> None:
    ended: set[str] = set()
    for start in graph:
        trail: list[tuple[str, Iterator[str]]] = [(start, _in_place_targets(graph[start]))]
        while trail:
            name, targets = trail[-1]
            following = next((other for other in targets if other not in ended), None)
            if following is None:
                ended.add(name)
                trail.pop()
            elif any(following == passed for passed, _ in trail):
                raise refusal([Finding("cyclic_ref", graph[name].path, f"{REF_PREFIX}{following} refers to itself")])
            else:
                trail.append((following, _in_place_targets(graph[following])))


def _in_place_targets(outgoing: _Outgoing) -> Iterator[str]:
    return iter({name for _, name, here in outgoing.references if here})


def _unfold(
    graph: dict[str, _Outgoing], name: str, sizes: dict[str, tuple[int, int]], entered: frozenset[str]
) -> tuple[int, int]:
    """Return how many subschemas ``name`` has with references followed, and the longest chain of references."""
    if name in sizes:
        return sizes[name]
    if name in entered:
        return 1, 0
    size, chain = graph[name].size, len(entered)
    if chain <= MAX_REFERENCE_CHAIN:
        inner = [_unfold(graph, other, sizes, entered | {name}) for _, other, _ in graph[name].references]
        size, chain = size + sum(size for size, _ in inner), max((chain + 1 for _, chain in inner), default=0)
    if chain > MAX_REFERENCE_CHAIN:
        message = f"references lead to each other more than {MAX_REFERENCE_CHAIN} times in a row"
        raise refusal([Finding("too_deep", graph[name].path, message)])
    if size > MAX_EXPANDED:
        message = f"with references followed it has more than {MAX_EXPANDED} subschemas"
        raise refusal([Finding("too_complex", graph[name].path, message)])
    sizes[name] = size, chain
    return size, chain


def _judged(node: Node, path: tuple[str | int, ...]) -> Iterator[Finding]:
    for keyword in node:
        if keyword not in SUPPORTED and (not keyword.startswith("x-") or keyword.startswith("x-henge-")):
            yield Finding("unsupported_keyword", (*path, keyword), _unsupported(keyword))
        elif path and keyword in ROOT_ONLY:
            yield Finding("unsupported_keyword", (*path, keyword), f"{keyword} may stand only at the top of a schema")
        elif keyword in _CHECKS:
            for code, message in _CHECKS[keyword](node[keyword], node):
                yield Finding(code, (*path, keyword), message)
    for low, high in _contradictions(node):
        yield Finding("unsatisfiable", path, f"{low} {node[low]} and {high} {node[high]} leave no value")
    if not path and node.get("type") != "object":
        yield Finding("bad_schema", ("type",), 'the outermost schema has "type": "object"')


def _unsupported(keyword: str) -> str:
    if keyword in REPLACEMENTS:
        return f"henge does not support {keyword}; use {REPLACEMENTS[keyword]}"
    close = get_close_matches(keyword, sorted(SUPPORTED), 1)
    return f"there is no keyword {keyword!r}" + (f"; did you mean {close[0]}?" if close else "")


def _contradictions(node: Node) -> Iterator[tuple[str, str]]:
    for what in ("Length", "Items", "Properties", "Contains"):
        yield from _above(node, f"min{what}", f"max{what}", strictly=False)
    yield from _above(node, "minimum", "maximum", strictly=False)
    for low, high in (
        ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum"), ("exclusiveMinimum", "exclusiveMaximum"),
    ):  # fmt: skip
        yield from _above(node, low, high, strictly=True)


def _above(node: Node, low: str, high: str, *, strictly: bool) -> Iterator[tuple[str, str]]:
    if low in node and high in node and (node[low] > node[high] or (strictly and node[low] == node[high])):
        yield low, high


_Check = Callable[[Any, Node], Iterator[tuple[str, str]]]
"""Judges a keyword's value, seeing its neighbours; yields codes and messages."""


def _check_reference(value: str, node: Node) -> Iterator[tuple[str, str]]:
    name = value.removeprefix(REF_PREFIX)
    if value == "#":
        yield "cyclic_ref", "$ref # is the whole schema, which contains this reference"
    elif name == value:
        yield "remote_ref", f"{value[:100]!r} is not one of this schema's own $defs"
    elif not _is_definition_name(name):
        yield "bad_schema", f"{value[:100]!r} is not of the form #/$defs/NAME with letters, digits, '_', '-' and '.'"


def _check_definitions(value: Node, node: Node) -> Iterator[tuple[str, str]]:
    for name in value:
        if not _is_definition_name(name):
            yield "bad_schema", f"the name {name[:100]!r} has more than letters, digits, '_', '-' and '.'"


def _is_definition_name(name: str) -> bool:
    return bool(name) and all(c.isascii() and (c.isalnum() or c in "_-.") for c in name)


def _check_pattern(value: str, node: Node) -> Iterator[tuple[str, str]]:
    if problem := check_pattern(value):
        yield "pattern_unsupported", problem


def _check_patterns(value: Node, node: Node) -> Iterator[tuple[str, str]]:
    return (finding for pattern in value for finding in _check_pattern(pattern, node))


def _check_format(value: str, node: Node) -> Iterator[tuple[str, str]]:
    if value not in FORMATS:
        yield "bad_schema", f"there is no format {value[:100]!r}; there are {', '.join(sorted(FORMATS))}"


def _check_multiple(value: float, node: Node) -> Iterator[tuple[str, str]]:
    step = Decimal(repr(value))
    if step < MIN_MULTIPLE or int(step.as_tuple().exponent) < -9:
        yield "bad_schema", f"multipleOf {value} is finer than nine decimal places"


def _check_enum(value: list[object], node: Node) -> Iterator[tuple[str, str]]:
    if not value:
        yield "unsatisfiable", "an empty enum fits no value"
    elif len(value) > MAX_ENUM:
        yield "too_complex", f"enum has {len(value)} values; at most {MAX_ENUM} are allowed"
    elif not any(_is_of_type(option, node.get("type")) for option in value):
        yield "unsatisfiable", f"no value of enum is of type {node['type']}"


def _check_const(value: object, node: Node) -> Iterator[tuple[str, str]]:
    if not _is_of_type(value, node.get("type")):
        yield "unsatisfiable", f"const is not of type {node['type']}"


def _is_of_type(value: object, types: str | list[str] | None) -> bool:
    names = {
        bool: ("boolean",), int: ("integer", "number"), str: ("string",), list: ("array",), dict: ("object",),
        float: ("integer", "number") if isinstance(value, float) and value.is_integer() else ("number",),
    }  # fmt: skip
    wanted = [types] if isinstance(types, str) else types
    return wanted is None or any(name in wanted for name in names.get(type(value), ("null",)))


def _check_branches(value: list[object], node: Node) -> Iterator[tuple[str, str]]:
    if len(value) > MAX_BRANCHES:
        yield "too_complex", f"it has {len(value)} alternatives; at most {MAX_BRANCHES} are allowed"


def _check_unique(value: object, node: Node) -> Iterator[tuple[str, str]]:
    if value and node.get("maxItems", MAX_UNIQUE_ITEMS + 1) > MAX_UNIQUE_ITEMS:
        yield "bad_schema", f"uniqueItems needs a maxItems of at most {MAX_UNIQUE_ITEMS} beside it"


def _check_risk(value: object, node: Node) -> Iterator[tuple[str, str]]:
    if value != "connectivity":
        yield "bad_schema", "the only risk that henge knows is connectivity"


def _check_restart(value: object, node: Node) -> Iterator[tuple[str, str]]:
    if value not in ("none", "section", "reboot"):
        yield "bad_schema", "a change needs a restart of none, section or reboot"


def _check_text(value: str, node: Node) -> Iterator[tuple[str, str]]:
    if len(value.encode()) > MAX_TEXT_BYTES:
        yield "too_complex", f"the text is longer than {MAX_TEXT_BYTES} bytes"


def _check_examples(value: list[object], node: Node) -> Iterator[tuple[str, str]]:
    if len(value) > MAX_EXAMPLES:
        yield "too_complex", f"it has {len(value)} examples; at most {MAX_EXAMPLES} are allowed"


def _check_default(value: object, node: Node) -> Iterator[tuple[str, str]]:
    if node.get("writeOnly"):
        yield "bad_default", "a secret has no default: the schema is readable to everybody"
    if any(unclean_names(value)):
        yield "bad_default", "a name in it has control characters"


def _check_names(value: Node, node: Node) -> Iterator[tuple[str, str]]:
    spelled: dict[str, str] = {}
    for name in value:
        twin = spelled.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            yield "bad_schema", f"the names {twin!a} and {name!a} look the same"
        if not name or not is_clean(name):
            yield "bad_schema", f"the name {name!a} is empty or has control characters"
        if name == SECRET_KEY:
            yield "bad_schema", f"the name {SECRET_KEY} is taken by references to secrets"


def _check_required(value: list[str], node: Node) -> Iterator[tuple[str, str]]:
    if node.get("additionalProperties") is False and not node.get("patternProperties"):
        for name in value:
            if name not in node.get("properties", {}):
                yield "unsatisfiable", f"{name!a} is required, not declared, and no others are allowed"


_CHECKS: Final[dict[str, _Check]] = {
    "$ref": _check_reference,
    "$defs": _check_definitions,
    "pattern": _check_pattern,
    "patternProperties": _check_patterns,
    "format": _check_format,
    "multipleOf": _check_multiple,
    "enum": _check_enum,
    "const": _check_const,
    "allOf": _check_branches,
    "anyOf": _check_branches,
    "oneOf": _check_branches,
    "prefixItems": _check_branches,
    "uniqueItems": _check_unique,
    "title": _check_text,
    "description": _check_text,
    "$comment": _check_text,
    "x-henge-risk": _check_risk,
    "x-henge-restart": _check_restart,
    "examples": _check_examples,
    "default": _check_default,
    "properties": _check_names,
    "required": _check_required,
}
