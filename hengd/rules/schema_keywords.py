"""The part of JSON Schema 2020-12 that henge speaks: which keywords, which formats, where subschemas stand.

Sources: JSON Schema Core (2020-12) sections 8 and 10, Validation sections 6, 7 and 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from henge_protocol.schemawalk import BRANCHES, CONDITIONS, Node

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

BELOW: Final = (
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "contains",
    "unevaluatedItems",
)
"""Keywords that hold one subschema for parts of the value."""

MAPS: Final = ("properties", "patternProperties", "dependentSchemas", "$defs")
"""Keywords that hold named subschemas."""

ANNOTATIONS: Final = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema", "$id", "x-henge-risk", "x-henge-restart"),
    }
)
"""Keywords that never make a value valid or invalid."""

ASSERTIONS: Final = frozenset(
    {
        *("$ref", "type", "enum", "const", "required", "dependentRequired", "format", "pattern", "uniqueItems"),
        *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
        *("minItems", "maxItems", "minContains", "maxContains", "minProperties", "maxProperties"),
    }
)

SUPPORTED: Final = ANNOTATIONS | ASSERTIONS | {*BRANCHES, *CONDITIONS, *BELOW, *MAPS, "prefixItems"}

ROOT_ONLY: Final = frozenset({"$schema", "$id", "$defs"})

REPLACEMENTS: Final = {
    "definitions": "$defs",
    "dependencies": "dependentRequired or dependentSchemas",
    "additionalItems": "items with prefixItems",
    "id": "$id",
    "nullable": "nothing: null removes a field, so no document holds it",
    "$anchor": "$ref to #/$defs/...",
    "$dynamicRef": "$ref to #/$defs/...",
    "$dynamicAnchor": "$ref to #/$defs/...",
    "$recursiveRef": "$ref to #/$defs/...",
    "$recursiveAnchor": "$ref to #/$defs/...",
    "contentEncoding": "format or pattern",
    "contentMediaType": "format or pattern",
    "contentSchema": "the schema of an object in place of text",
}
"""Known keywords that are refused, and what to write instead."""

FORMATS: Final = {
    "date": "a date such as 2026-03-01",
    "date-time": "a date and time with zone such as 2026-03-01T08:00:00Z",
    "time": "a time with zone such as 08:00:00Z",
    "duration": "an ISO 8601 duration such as PT15M",
    "email": "an email address",
    "idn-email": "an email address",
    "hostname": "a host name",
    "idn-hostname": "a host name",
    "ipv4": "an IPv4 address such as 192.0.2.1",
    "ipv6": "an IPv6 address without zone such as 2001:db8::1",
    "uri": "a URI with scheme such as https://example.org/",
    "uri-reference": "a URI or a relative reference",
    "uri-template": "a URI template",
    "iri": "an IRI with scheme",
    "iri-reference": "an IRI or a relative reference",
    "uuid": "a UUID",
    "json-pointer": "a JSON pointer such as /a/b",
    "relative-json-pointer": "a relative JSON pointer",
    "regex": "a regular expression of the linear-time subset",
}
"""Every format that is checked, in words."""


def subschemas(node: Node) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Yield ``(path, subschema)`` of the direct parts of ``node``, booleans included."""
    for keyword in (*CONDITIONS, *BELOW):
        if keyword in node:
            yield (keyword,), node[keyword]
    for keyword in (*BRANCHES, "prefixItems"):
        for index, part in enumerate(node.get(keyword, ())):
            yield (keyword, index), part
    for keyword in MAPS:
        for name, part in node.get(keyword, {}).items():
            yield (keyword, name), part


def in_place(path: tuple[str | int, ...]) -> bool:
    """Tell whether the part at ``path`` judges the same value as the subschema it stands in."""
    return path[0] in BRANCHES or path[0] in CONDITIONS or path[0] == "dependentSchemas"
