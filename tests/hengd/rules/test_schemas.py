"""Schemas: the catalogue of bad ones (ids J..), of bad values (ids V..), and what is derived from good ones."""

from __future__ import annotations

import copy
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hengd.rules.merge import leaves
from hengd.rules.schema_keywords import FORMATS
from hengd.rules.schema_messages import UNFIT_SECRET
from hengd.rules.schemas import CompiledSchema, SchemaCache, check_schema, compile_schema, schema_digest
from henge_protocol.errors import Invalid, Malformed
from henge_protocol.model import MAX_SCHEMA_BYTES
from henge_protocol.strictjson import canonical, parse
from tests.effort import no_blow_up

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("schemas/*.yaml"))


def of(**properties: Any) -> dict[str, Any]:
    """A closed object schema with these properties."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def compiled(schema: dict[str, Any]) -> CompiledSchema:
    check_schema(schema)
    return compile_schema("lamp", schema)


def refusal(schema: object) -> Invalid:
    with pytest.raises(Invalid) as caught:
        check_schema(schema)
    return caught.value


def nested(keyword: str, levels: int, *, as_list: bool = False) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {keyword: [inner] if as_list else inner}
    return {"type": "object", **inner}


def laughs(depth: int, via: str = "allOf") -> dict[str, Any]:
    def twice(name: str) -> dict[str, Any]:
        reference = {"$ref": f"#/$defs/{name}"}
        return {"allOf": [reference, reference]} if via == "allOf" else {via: {"a": reference, "b": reference}}

    definitions = {f"d{n}": twice(f"d{n + 1}") for n in range(depth)} | {f"d{depth}": {"type": "object"}}
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": definitions}


def chain(length: int) -> dict[str, Any]:
    links = {f"d{n}": {"properties": {"x": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(length)}
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": links | {f"d{length}": {}}}


REMOTE = ("http://a.example/x", "https://a.example/x", "file:///etc/passwd", "ftp://a/x", "//host/x", "x.json", "urn:x")

BAD_SCHEMAS: dict[str, tuple[object, str, str]] = {
    **{f"J01 {ref}": (of(a={"$ref": ref}), "remote_ref", "/properties/a/$ref") for ref in REMOTE},
    "J02 $id with relative $ref": (
        {"$id": "http://a.example/", **of(a={"$ref": "b.json"})},
        "remote_ref",
        "/properties/a/$ref",
    ),
    "J02 $id in a subschema": (of(a={"$id": "http://a.example/"}), "unsupported_keyword", "/properties/a/$id"),
    "J03 $schema draft-04": (
        {"$schema": "http://json-schema.org/draft-04/schema#", "type": "object"},
        "bad_schema",
        "/$schema",
    ),
    "J03 $schema unknown": ({"$schema": "http://127.0.0.1:9/x", "type": "object"}, "bad_schema", "/$schema"),
    "J03 $schema in a subschema": (
        of(a={"$schema": "https://json-schema.org/draft/2020-12/schema"}),
        "unsupported_keyword",
        "/properties/a/$schema",
    ),
    "J04 $ref to itself": ({"type": "object", "$ref": "#"}, "cyclic_ref", "/$ref"),
    "J04 two that refer to each other": (
        {"type": "object", "$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "cyclic_ref",
        "/$defs/b",
    ),
    "J04 through allOf": (
        {"type": "object", "$defs": {"a": {"allOf": [{"not": {"$ref": "#/$defs/a"}}]}}},
        "cyclic_ref",
        "/$defs/a",
    ),
    "J04 through dependentSchemas": (
        {"type": "object", "$defs": {"a": {"dependentSchemas": {"x": {"$ref": "#/$defs/a"}}}}},
        "cyclic_ref",
        "/$defs/a",
    ),
    **{
        f"J05 {word}": ({"type": "object", word: value}, "unsupported_keyword", f"/{word}")
        for word, value in {
            "$dynamicRef": "#x",
            "$dynamicAnchor": "x",
            "$anchor": "x",
            "$recursiveRef": "#",
            "$recursiveAnchor": "x",
            "$vocabulary": {},
        }.items()
    },
    "J06 $ref to nothing": (of(a={"$ref": "#/$defs/b"}), "bad_schema", "/properties/a/$ref"),
    "J06 $ref outside of $defs": (of(a={"$ref": "#/properties/b"}, b={}), "remote_ref", "/properties/a/$ref"),
    "J07 pointer with ~2": ({**of(a={"$ref": "#/$defs/x~2"}), "$defs": {"x": {}}}, "bad_schema", "/properties/a/$ref"),
    "J07 pointer with %20": (
        {**of(a={"$ref": "#/$defs/x%20"}), "$defs": {"x": {}}},
        "bad_schema",
        "/properties/a/$ref",
    ),
    "J07 pointer with index 01": (
        {**of(a={"$ref": "#/$defs/x/allOf/01"}), "$defs": {"x": {"allOf": [{}, {}]}}},
        "bad_schema",
        "/properties/a/$ref",
    ),
    "J07 name of a definition": ({"type": "object", "$defs": {"a b": {}}}, "bad_schema", "/$defs"),
    "J08 18 doublings in place": (laughs(18), "too_complex", "/$defs/d6"),
    "J08 25 doublings below": (laughs(25, "properties"), "too_complex", "/$defs/d13"),
    "J08 never referred to": ({**laughs(18), "$ref": "#/$defs/d18"}, "too_complex", "/$defs/d6"),
    "J08 many users of one large definition": (
        {**laughs(10), "$defs": laughs(10)["$defs"] | {f"u{n}": {"$ref": "#/$defs/d0"} for n in range(900)}},
        "too_complex",
        "/$defs",
    ),
    "J08 chain of 40 references": (chain(40), "too_deep", "/$defs/d32"),
    "J09 400 nested allOf": (nested("allOf", 400, as_list=True), "too_deep", "/allOf/0" * 16),
    "J09 16 nested allOf": (nested("allOf", 16, as_list=True), "too_deep", "/allOf/0" * 16),
    **{
        f"J11 {pattern}": (of(a={"pattern": pattern}), "pattern_unsupported", "/properties/a/pattern")
        for pattern in (
            r"(a)\1",
            r"(?=a)",
            r"(?!a)",
            r"(?<=a)b",
            r"(?<!a)b",
            r"a{1,2000}",
            r"a{1001}",
            r"(a{1000}){1000}",
            r"((a{99}){99}){99}",
        )
    },
    **{
        f"J12 {pattern}": (of(a={"pattern": pattern}), "pattern_unsupported", "/properties/a/pattern")
        for pattern in ("(", ")", "[", "*a", "\\", "a**", "[z-a]", "a{2,1}", "a{", "a{,5}", "[]", "[^]")
    },
    **{
        f"J13 {pattern}": (of(a={"pattern": pattern}), "pattern_unsupported", "/properties/a/pattern")
        for pattern in (
            r"(?P<a>x)",
            r"(?<a>x)",
            r"\cA",
            r"\Z",
            r"\A",
            r"\z",
            r"(?i)a",
            r"(?i:a)",
            r"(?>a)",
            r"a++",
            r"a{1,2}+",
            r"\p{L}",
            r"\Ka",
            r"[[:alpha:]]",
            r"[a&&b]",
            r"[a--b]",
            r"\<a",
            r"\0",
            r"\x1",
            r"\u12",
            r"(?#x)",
            r"(?(1)a)",
            r"\k<a>",
        )
    },
    "J14 1,000 patternProperties": (
        {"type": "object", "patternProperties": {f"^a{n}$": {} for n in range(1000)}},
        "too_complex",
        "",
    ),
    "J14 33 patterns": (of(**{f"p{n}": {"pattern": "a"} for n in range(33)}), "too_complex", None),
    "J14 bad pattern as a name": (
        {"type": "object", "patternProperties": {"(?=a)": {}}},
        "pattern_unsupported",
        "/patternProperties",
    ),
    "J12 pattern of 201 characters": (of(a={"pattern": "a" * 201}), "pattern_unsupported", "/properties/a/pattern"),
    "J15 uniqueItems without maxItems": (of(a={"uniqueItems": True}), "bad_schema", "/properties/a/uniqueItems"),
    "J15 uniqueItems with maxItems 257": (
        of(a={"uniqueItems": True, "maxItems": 257}),
        "bad_schema",
        "/properties/a/uniqueItems",
    ),
    "J17 enum of 100,000": (of(a={"enum": list(range(100_000))}), "too_complex", "/properties/a/enum"),
    "J17 enum of 1,001": (of(a={"enum": list(range(1001))}), "too_complex", "/properties/a/enum"),
    "J17 const of 1 MiB": (of(a={"const": "x" * 2**20}), "too_complex", "/properties/a/const"),
    "J17 schema over 256 KiB": (of(a={"enum": [f"{n}" + "x" * 60_000 for n in range(5)]}), "too_complex", ""),
    "J18 multipleOf 0": (of(a={"multipleOf": 0}), "bad_schema", "/properties/a/multipleOf"),
    "J18 multipleOf -1": (of(a={"multipleOf": -1}), "bad_schema", "/properties/a/multipleOf"),
    "J18 multipleOf 1e-308": (of(a={"multipleOf": 1e-308}), "bad_schema", "/properties/a/multipleOf"),
    "J18 multipleOf with ten places": (of(a={"multipleOf": 0.1234567891}), "bad_schema", "/properties/a/multipleOf"),
    **{
        f"J19 {low} above {high}": (of(a={low: 5, high: 4}), "unsatisfiable", "/properties/a")
        for low, high in [
            ("minimum", "maximum"),
            ("exclusiveMinimum", "maximum"),
            ("minimum", "exclusiveMaximum"),
            ("exclusiveMinimum", "exclusiveMaximum"),
            ("minLength", "maxLength"),
            ("minItems", "maxItems"),
            ("minProperties", "maxProperties"),
            ("minContains", "maxContains"),
        ]
    },
    "J19 exclusive bounds that meet": (of(a={"exclusiveMinimum": 4, "maximum": 4}), "unsatisfiable", "/properties/a"),
    "J19 empty enum": (of(a={"enum": []}), "unsatisfiable", "/properties/a/enum"),
    "J19 enum of another type": (of(a={"type": "integer", "enum": ["a", True]}), "unsatisfiable", "/properties/a/enum"),
    "J19 const of another type": (
        of(a={"type": ["string", "null"], "const": 1}),
        "unsatisfiable",
        "/properties/a/const",
    ),
    "J20 minLength 10^400": (of(a={"minLength": 10**400}), "number_out_of_range", "/properties/a/minLength"),
    "J20 maximum infinite": (of(a={"maximum": float("inf")}), "number_out_of_range", "/properties/a/maximum"),
    "J21 type int": (of(a={"type": "int"}), "bad_schema", "/properties/a/type"),
    "J21 no types": (of(a={"type": []}), "bad_schema", "/properties/a/type"),
    "J21 type twice": (of(a={"type": ["string", "string"]}), "bad_schema", "/properties/a/type"),
    "J21 type 5": (of(a={"type": 5}), "bad_schema", "/properties/a/type"),
    "J22 unknown keyword": (of(a={"typ": "string"}), "unsupported_keyword", "/properties/a/typ"),
    "J22 keyword of an older draft": ({"type": "object", "definitions": {}}, "unsupported_keyword", "/definitions"),
    "J22 $defs in a subschema": (of(a={"$defs": {}}), "unsupported_keyword", "/properties/a/$defs"),
    **{f"J23 {value!r}": (value, "bad_schema", "") for value in (True, False, [], "x", None, 5)},
    "J24 outermost without type": ({"properties": {}}, "bad_schema", "/type"),
    "J24 outermost is a list": ({"type": "array"}, "bad_schema", "/type"),
    "J24 outermost has two types": ({"type": ["object", "null"]}, "bad_schema", "/type"),
    "J25 default of wrong type": (of(a={"type": "string", "default": 5}), "bad_default", "/properties/a/default"),
    "J25 default null": (of(a={"type": "string", "default": None}), "bad_default", "/properties/a/default"),
    "J25 default behind a reference": (
        {**of(a={"$ref": "#/$defs/x", "default": 9}), "$defs": {"x": {"maximum": 8}}},
        "bad_default",
        "/properties/a/default",
    ),
    "J25 default in $defs": (
        {"type": "object", "$defs": {"x": {"type": "string", "default": 1}}},
        "bad_default",
        "/$defs/x/default",
    ),
    "J25 default of an object that lacks a field": (
        of(a={"type": "object", "required": ["b"], "default": {}}),
        "bad_default",
        "/properties/a/default",
    ),
    "J25 defaults that do not fit together": (
        {"type": "object", "maxProperties": 1, "properties": {"a": {"default": 1}, "b": {"default": 2}}},
        "bad_default",
        "",
    ),
    "J26 default of a secret": (
        of(a={"type": "string", "writeOnly": True, "default": "x"}),
        "bad_default",
        "/properties/a/default",
    ),
    "J26 default around a secret": (
        of(a={"properties": {"b": {"writeOnly": True}}, "default": {"b": "x"}}),
        "bad_default",
        "",
    ),
    "J26 default of a secret behind a reference": (
        {**of(a={"$ref": "#/$defs/x", "default": "y"}), "$defs": {"x": {"writeOnly": True}}},
        "bad_default",
        "",
    ),
    "J27 example of wrong type": (
        of(a={"type": "string", "examples": ["x", 5]}),
        "bad_default",
        "/properties/a/examples/1",
    ),
    "J27 33 examples": (of(a={"examples": list(range(33))}), "too_complex", "/properties/a/examples"),
    "J27 example of 70 KB": (of(a={"examples": ["x" * 70_000]}), "too_complex", "/properties/a/examples/0"),
    "J28 required and not declared": ({**of(a={}), "required": ["b"]}, "unsatisfiable", "/required"),
    "J29 dependentRequired of wrong type": (
        {**of(a={}), "dependentRequired": {"a": "b"}},
        "bad_schema",
        "/dependentRequired/a",
    ),
    "J30 empty name": (of(**{"": {}}), "bad_schema", "/properties"),
    "J30 name of 129 bytes": (of(**{"x" * 129: {}}), "too_complex", "/properties"),
    "J30 name with NUL": (of(**{"a\0b": {}}), "bad_schema", "/properties"),
    "J30 name with escape": (of(**{"a\x1b[2J": True}), "bad_schema", "/properties"),
    "J30 names that look the same": (of(**dict.fromkeys(["\u00e9", "e\u0301"], True)), "bad_schema", "/properties"),
    "J30 name of secret references": (of(**{"$secret": {}}), "bad_schema", "/properties"),
    "J32 unknown format": (of(a={"format": "ip"}), "bad_schema", "/properties/a/format"),
    **{
        f"J34 {word}": (of(a={word: value}), "unsupported_keyword", f"/properties/a/{word}")
        for word, value in {"contentMediaType": "text/html", "contentEncoding": "base64", "contentSchema": {}}.items()
    },
    "J35 if nested 20": (nested("if", 20), "too_deep", "/if" * 16),
    "J35 else nested 40": (nested("else", 40), "too_deep", "/else" * 32),
    "J36 unevaluatedProperties with 900 branches": (
        {
            "type": "object",
            "unevaluatedProperties": False,
            "anyOf": [{"properties": {f"p{n}": {}}} for n in range(900)],
        },
        "too_complex",
        "/anyOf",
    ),
    **{
        f"J36 33 of {word}": (of(a={word: [{}] * 33}), "too_complex", f"/properties/a/{word}")
        for word in ("allOf", "anyOf", "oneOf", "prefixItems")
    },
    "J36 2,001 subschemas": (
        of(**{f"p{n}": {"items": {}} if n else {} for n in range(1000)}),
        "too_complex",
        "",
    ),
    "J37 description of 2,049 bytes": (of(a={"description": "x" * 2049}), "too_complex", "/properties/a/description"),
    "J37 title of 64 KiB": (of(a={"title": "x" * 65_536}), "too_complex", "/properties/a/title"),
    "J42 1,001 properties": (of(**{f"p{n}": {} for n in range(1001)}), "too_complex", "/properties"),
    "J42 2,000 properties": (of(**{f"p{n}": {} for n in range(2000)}), "too_complex", "/properties"),
    "J45 NaN": (of(a={"const": float("nan")}), "number_out_of_range", "/properties/a/const"),
    "J45 lone surrogate": (of(a={"const": "\ud800"}), "bad_encoding", "/properties/a/const"),
}


@pytest.mark.parametrize(("schema", "code", "where"), BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_bad_schema_is_refused(schema: object, code: str, where: str | None) -> None:
    with no_blow_up():
        error = refusal(schema)

    assert (code, where) == (error.code, error.problems[0].pointer if where is not None else None)
    assert error.cure or code in ("number_out_of_range", "bad_encoding", "too_complex", "too_deep")
    assert error.message.isprintable()


GOOD_SCHEMAS: dict[str, dict[str, Any]] = {
    "J02 $id at the top": {"$id": "https://example.org/lamp.json", **of(a={"$ref": "#/$defs/x"}), "$defs": {"x": {}}},
    "J03 $schema absent": of(),
    "J03 $schema 2020-12": {"$schema": "https://json-schema.org/draft/2020-12/schema", **of()},
    "J04 recursion through properties": {
        **of(a={"$ref": "#/$defs/n"}),
        "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}, "default": {}}},
    },
    "J04 recursion through items": {**of(a={"$ref": "#/$defs/n"}), "$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}},
    "J08 doublings within the budget": laughs(10),
    "J08 chain of 31 references": chain(31),
    "J09 15 nested allOf": nested("allOf", 15, as_list=True),
    "J10 nested repetition": of(a={"pattern": "^(a+)+$"}),
    "J13 the common subset": of(
        a={"pattern": r"^(?:[a-zA-Z_][\w.-]{0,62}|\d{1,3}(\.\d{1,3}){3}|\[x\]|\x41\u00e9\/\-[\]\\^]|a*?b+?c??)$"}
    ),
    "J11 repetition of 1,000": of(a={"pattern": "a{1000}"}, b={"pattern": "a{999}"}),
    "J12 pattern of 200 characters": of(a={"pattern": "a" * 200}, b={"pattern": "a" * 199}),
    "J14 32 patterns": of(**{f"p{n}": {"pattern": "a"} for n in range(32)}),
    "J15 uniqueItems with maxItems": of(a={"uniqueItems": True, "maxItems": 256}),
    "J15 uniqueItems false": of(a={"uniqueItems": False}),
    "J17 enum of 1,000": of(a={"enum": list(range(1000))}),
    "J18 multipleOf with nine places": of(a={"multipleOf": 0.123456789}),
    "J18 multipleOf 0.1": of(a={"type": "number", "multipleOf": 0.1}),
    "J19 bounds that meet": of(a={"minimum": 4, "maximum": 4}),
    "J22 own keywords": of(a={"x-unit": "s", "x-anything": {"typ": 1}}),
    "J23 boolean subschemas": of(a=True, b=False),
    "J25 default": of(a={"type": "string", "default": "x"}),
    "J27 32 examples": of(a={"examples": list(range(32))}),
    "J28 required through a pattern": {
        "type": "object",
        "required": ["b1"],
        "patternProperties": {"^b": {}},
        "additionalProperties": False,
    },
    "J30 names that mean something elsewhere": of(
        **dict.fromkeys(["__proto__", "constructor", "$ref", "type", "\u202ex"], True)
    ),
    "J32 every format": of(**{name: {"format": name} for name in FORMATS}),
    "J35 if nested 15": nested("if", 15),
    **{
        f"J36 {count} of {word}": of(a={word: [{}] * count})
        for word in ("allOf", "anyOf", "oneOf", "prefixItems")
        for count in (31, 32)
    },
    "J36 1,999 subschemas": of(**{f"p{n}": {"items": {}} if n else {} for n in range(999)}),
    "J36 2,000 subschemas": of(**{f"p{n}": {"items": {}} for n in range(999)}),
    "J37 text with markup and escapes": of(a={"title": "<b>\x1b[1m", "description": "x" * 2048}),
    "J42 1,000 properties": of(**{f"p{n}": {"type": "string"} for n in range(1000)}),
}


@pytest.mark.parametrize("schema", GOOD_SCHEMAS.values(), ids=GOOD_SCHEMAS)
def test_good_schema_is_accepted_and_the_oracle_agrees(schema: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    compiled(schema)

    assert schema == before
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_schema_of_the_examples_is_accepted(path: Path) -> None:
    schema = compiled(yaml.safe_load(path.read_text("utf-8"))["spec"]["schema"])

    assert not schema.open
    assert schema.validate_layer(schema.defaults) == []


def test_every_line_about_the_text_of_a_schema_has_a_case() -> None:
    covered = {name.split()[0] for name in (*BAD_SCHEMAS, *GOOD_SCHEMAS)}
    elsewhere = {"J16", "J31", "J33"}  # below
    by_the_store = {"J38", "J39", "J40", "J41", "J43", "J44", "J46"}

    assert covered | elsewhere | by_the_store == {f"J{n:02}" for n in range(1, 47)}


@pytest.mark.parametrize(("beyond", "fits"), [(-1, True), (0, True), (1, False)])
def test_j17_a_schema_has_at_most_256_kib(beyond: int, fits: bool) -> None:
    texts = [f"{number}" + "x" * 65_000 for number in range(4)]
    short = len(canonical(of(a={"enum": [*texts, ""]})))
    schema = of(a={"enum": [*texts, "y" * (MAX_SCHEMA_BYTES + beyond - short)]})

    assert len(canonical(schema)) == MAX_SCHEMA_BYTES + beyond
    if fits:
        compiled(schema)
    else:
        assert refusal(schema).code == "too_complex"


def test_j01_nothing_is_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        for schema in (of(a={"$ref": url}), {"$schema": url, "type": "object"}, {"$id": url, **of(a={"$ref": "y"})}):
            refusal(schema)

        with pytest.raises(BlockingIOError):
            server.accept()


def test_j08_billion_laughs_cost_nothing() -> None:
    with no_blow_up():
        refusal(laughs(25))


def test_j10_nested_repetition_runs_in_linear_time() -> None:
    schema = compiled(of(a={"pattern": "^(a+)+$"}))
    with no_blow_up():
        found = schema.validate({"a": "a" * 60_000 + "!"})

    assert len(found) == 1


@pytest.mark.parametrize(
    ("pattern", "position"),
    [("ab(?=c)", 2), (r"(a)\1", 3), ("ab(", 2), ("x[[:alpha:]]", 2), ("a{1,2000}", 1), ("ab*{", 3), ("ab\\", 2)],
)
def test_j11_j12_refused_pattern_names_the_position(pattern: str, position: int) -> None:
    assert f"position {position}" in refusal(of(a={"pattern": pattern})).message


def test_j16_without_limits_of_its_own_a_schema_has_those_of_the_parser() -> None:
    with pytest.raises(Malformed, match="65537 bytes"):
        parse(b'{"a":"' + b"x" * 65_537 + b'"}')


def test_j31_duplicate_keys_in_the_text_of_a_schema() -> None:
    with pytest.raises(Malformed) as caught:
        parse(b'{"type":"object","type":"string"}')

    assert caught.value.code == "duplicate_key"


@pytest.mark.parametrize("name", ["regex", "uri", "email", "hostname", "date-time", "duration", "uri-template"])
def test_j33_formats_are_checked_in_linear_time(name: str) -> None:
    schema = compiled(of(a={"format": name}))
    with no_blow_up():
        for evil in (
            "a" * 60_000,
            "(" * 30_000 + "a" * 30_000,
            "a." * 30_000,
            "@" * 60_000,
            "%" * 60_000,
            "-" * 60_000,
        ):
            schema.validate({"a": evil})


def test_refusal_lists_every_spot_and_suggests_the_keyword() -> None:
    error = refusal(of(a={"typ": "string"}, b={"pattern": "(?=a)"}, c={"format": "ip"}))

    assert {problem.pointer for problem in error.problems} == {
        "/properties/a/typ",
        "/properties/b/pattern",
        "/properties/c/format",
    }
    assert "there is no keyword 'typ'; did you mean type?" in {problem.message for problem in error.problems}
    assert "(and 2 more)" in error.message


LAMP = of(
    name={"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-zé💡]*$"},
    level={"type": "integer", "minimum": 1, "maximum": 100},
    warmth={"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.1},
    on={"type": "boolean"},
    effect={"enum": ["none", "rainbow", "candle"]},
    kind={"const": "lamp"},
    wifi=of(ssid={"type": "string"}, psk={"type": "string", "minLength": 8, "writeOnly": True}),
    address={"type": "string", "format": "ipv4"},
    host={"anyOf": [{"format": "ipv4", "type": "string"}, {"type": "integer"}]},
    pins={"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
    never=False,
    port={"oneOf": [{"minimum": 5}, {"maximum": 10}]},
    labels={"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "minProperties": 1},
    colour={"not": {"const": "red"}},
    note={"type": ["string", "null"]},
    loud={"contains": {"const": 1}},
)
LAMP["required"] = ["level"]


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({}, "/level", "is required and missing"),
        ({"level": 0}, "/level", "0 is below the minimum 1"),
        ({"level": 101}, "/level", "101 is above the maximum 100"),
        ({"level": "x"}, "/level", '"x" is not a whole number'),
        ({"level": None}, "/level", "null is not a whole number"),
        ({"level": 1.5}, "/level", "1.5 is not a whole number"),
        ({"level": 1, "warmth": 0}, "/warmth", "0 is not above 0"),
        ({"level": 1, "warmth": 0.25}, "/warmth", "0.25 is not a multiple of 0.1"),
        ({"level": 1, "on": "true"}, "/on", '"true" is not true or false'),
        ({"level": 1, "effect": "rain"}, "/effect", '"rain" is not one of "none", "rainbow", "candle"'),
        ({"level": 1, "kind": "fan"}, "/kind", '"fan" is not "lamp"'),
        ({"level": 1, "wifi": {"sid": "x"}}, "/wifi/sid", "the schema declares no such field; did you mean ssid?"),
        ({"level": 1, "zzz": "x"}, "/zzz", "the schema declares no such field"),
        ({"level": 1, "wifi": []}, "/wifi", "a list is not an object"),
        ({"level": 1, "address": "127.1"}, "/address", '"127.1" is not an IPv4 address such as 192.0.2.1'),
        ({"level": 1, "name": ""}, "/name", "the text has 0 characters; at least 1 are needed"),
        ({"level": 1, "name": "aaaaaa"}, "/name", "the text has 6 characters; at most 5 are allowed"),
        ({"level": 1, "name": "A\x1b"}, "/name", '"A\\u001b" does not match the pattern ^[a-zé💡]*$'),
        ({"level": 1, "pins": [1, 1]}, "/pins", "the list holds the same entry twice"),
        ({"level": 1, "pins": []}, "/pins", "the list has 0 entries; at least 1 are needed"),
        ({"level": 1, "pins": [1, "a"]}, "/pins/1", '"a" is not a whole number'),
        ({"level": 1, "never": 1}, "/never", "the schema allows no value here"),
        ({"level": 1, "port": 7}, "/port", "7 fits more than one of the alternatives; exactly one is allowed"),
        (
            {"level": 1, "labels": {"A": 1}},
            "/labels/A",
            'the name is not allowed: "A" does not match the pattern ^[a-z]+$',
        ),
        ({"level": 1, "labels": {}}, "/labels", "the object has 0 fields; at least 1 are needed"),
        ({"level": 1, "colour": "red"}, "/colour", '"red" is what the schema excludes'),
        ({"level": 1, "note": 5}, "/note", "5 is not text or null"),
        ({"level": 1, "loud": [2]}, "/loud", "the list does not hold the entries that the schema asks for"),
        (
            {"level": 1, "host": "x"},
            "/host",
            '"x" fits none of the 2 alternatives: (1) /host "x" is not an IPv4 address such as 192.0.2.1; '
            '(2) /host "x" is not a whole number',
        ),
        ({"level": 1, "wifi": {"psk": "hunter2"}}, "/wifi/psk", UNFIT_SECRET),
        ({"level": 1, "wifi": {"psk": 12345678}}, "/wifi/psk", UNFIT_SECRET),
    ],
)
def test_v01_problem_says_where_and_what_would_be_right(values: object, where: str, message: str) -> None:
    schema = compiled(LAMP)

    assert [(problem.pointer, problem.message) for problem in schema.validate(values)] == [(where, message)]
    assert not schema.is_valid(values)


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param({"minLength": 99, "pattern": "^x", "format": "ipv4"}, id="several-reasons"),
        pytest.param({"anyOf": [{"maxLength": 3}, {"type": "integer"}]}, id="alternatives"),
        pytest.param({"oneOf": [{}, {"minLength": 1}]}, id="more-than-one"),
        pytest.param({"const": "battery"}, id="const"),
        pytest.param({"not": {"pattern": "horse"}}, id="excluded"),
    ],
)
def test_of_a_secret_nothing_is_said_but_that_it_does_not_fit(secret: dict[str, Any]) -> None:
    schema = compiled(of(psk={**secret, "writeOnly": True}))

    assert [(one.pointer, one.message) for one in schema.validate({"psk": "correct horse"})] == [("/psk", UNFIT_SECRET)]


@pytest.mark.parametrize(
    ("login", "value"),
    [
        ({"required": ["user"]}, {"pin": 1}),
        ({"properties": {"pin": {"type": "integer"}}}, {"pin": 5.0}),
        ({"properties": {"pin": {"type": "integer"}, "user": False}}, {"pin": 5.0, "user": "ada"}),
        ({"properties": {"pin": {}}, "additionalProperties": False}, {"pni": 1}),
        ({"propertyNames": {"maxLength": 2}}, {"pin": 1}),
        ({"properties": {"pins": {"items": {"maximum": 9}}}}, {"pins": [1, 47, 11]}),
    ],
)
def test_nor_of_what_is_inside_of_it(login: dict[str, Any], value: object) -> None:
    schema = compiled(of(list={"items": of(login={"type": "object", **login, "writeOnly": True})}))
    found = schema.validate({"list": [{"login": value}]})

    assert [(one.pointer, one.message) for one in found] == [("/list/0/login", UNFIT_SECRET)]


def test_alternatives_around_a_secret_say_as_little() -> None:
    inner = {"type": "object", "properties": {"psk": {"type": "string", "writeOnly": True, "minLength": 8}}}
    schema = compiled(of(net={"anyOf": [inner, {"type": "integer"}]}))
    told = schema.validate({"net": {"psk": "hunter2"}})[0].message

    assert f"/net/psk {UNFIT_SECRET}" in told
    assert "7" not in told


def test_v01_all_problems_are_listed_in_order_of_pointers() -> None:
    found = compiled(LAMP).validate({"zzz": 1, "on": 1, "name": 5})

    assert [problem.pointer for problem in found] == ["/level", "/name", "/on", "/zzz"]


@pytest.mark.parametrize("value", [9007199254740992, -9007199254740992])
def test_v03_integers_beyond_the_range_never_arrive(value: int) -> None:
    with pytest.raises(Malformed):
        parse(b"%d" % value)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("integer", 1.0, "1.0 has a fraction and is not a whole number; write 1"),
        ("integer", -0.0, "-0.0 has a fraction and is not a whole number; write 0"),
        ("integer", 1e300, None),
        ("integer", True, "true is not a whole number"),
        ("integer", "1", '"1" is not a whole number'),
        ("number", True, "true is not a number"),
        ("string", 1, "1 is not text"),
        ("boolean", 1, "1 is not true or false"),
    ],
)
def test_v06_no_value_stands_for_one_of_another_type(kind: str, value: object, message: str | None) -> None:
    schema = compiled(of(a={"type": kind}))

    assert not schema.is_valid({"a": value})
    assert message is None or [problem.message for problem in schema.validate({"a": value})] == [message]
    assert [problem.pointer for problem in schema.validate_layer({"a": value})] == ["/a"]


def test_v06_whole_floats_are_numbers_and_are_found_in_lists_and_alternatives() -> None:
    schema = compiled(
        of(n={"type": "number", "maximum": 2}, l={"items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}})
    )

    assert schema.validate({"n": 2.0, "l": [1, "a"]}) == []
    assert [problem.pointer for problem in schema.validate({"n": 1.0, "l": [1, "a", 3.0]})] == ["/l/2"]


@pytest.mark.parametrize("text", ["\0", "\x1b[2J", "\x7f", "\u2028", "\u202e", "\ufeff", "\uffff", "{{7*7}}", "../.."])
def test_v08_v29_odd_text_is_data(text: str) -> None:
    schema = compiled(of(a={"type": "string"}, b={"type": "integer"}))

    assert schema.validate({"a": text}) == []
    assert all(problem.message.isprintable() for problem in schema.validate({"b": text}))


def test_v11_length_counts_code_points() -> None:
    schema = compiled(LAMP)

    assert schema.validate({"level": 1, "name": "💡💡💡💡💡"}) == []
    assert schema.validate({"level": 1, "name": "💡💡💡💡💡💡"}) != []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "date",
            ["2026-02-28", "0002-01-01", "9998-12-31"],
            ["2026-02-30", "0000-01-01", "0001-12-31", "9999-01-01", "20260228", "2026-2-8"],
        ),
        (
            "date-time",
            ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00"],
            [
                *("2026-01-01T00:00:00", "2016-12-31T23:59:60Z", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z"),
                *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "2026-01-01 00:00:00Z"),
            ],
        ),
        ("time", ["12:00:00Z"], ["12:00:00", "23:59:60Z", "24:00:00Z"]),
        ("ipv4", ["192.0.2.1"], ["010.0.0.1", "1", "127.1", "1.2.3.4.5", "256.0.0.1", " 1.2.3.4"]),
        ("ipv6", ["::1", "2001:db8::1"], ["fe80::1%eth0", "1.2.3.4", "::g", "1::2::3"]),
        ("email", ["a@example.org"], ["a", "A <a@example.org>"]),
        ("hostname", ["a.example"], ["-a", "a_b", "a b"]),
        ("regex", ["^(a+)+$"], ["(", "(?=a)"]),
        ("uuid", ["12345678-1234-1234-1234-123456789abc"], ["12345678"]),
        ("duration", ["PT15M"], ["1h30", "90", "-5s"]),
    ],
)
def test_v41_v42_formats_are_strict(name: str, good: list[str], bad: list[str]) -> None:
    schema = compiled(of(a={"format": name}))

    assert [text for text in good if not schema.is_valid({"a": text})] == []
    assert [text for text in bad if schema.is_valid({"a": text})] == []
    assert schema.is_valid({"a": 5})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"level": None, "wifi": None},
        {"zzz": None},
        {"wifi": {"ssid": None}},
        {"wifi": {"psk": {"$secret": "wifi/home"}}},
        {"wifi": {"psk": "long enough"}},
    ],
)
def test_v18_v19_layer_may_be_partial_and_null_removes(values: object) -> None:
    assert compiled(LAMP).validate_layer(values) == []


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({"level": 0}, "/level", "0 is below the minimum 1"),
        ({"wifi": {"sid": 1}}, "/wifi/sid", "the schema declares no such field; did you mean ssid?"),
        ({"wifi": {"psk": "short"}}, "/wifi/psk", "the text has 5 characters; at least 8 are needed"),
        ({"wifi": {"psk": 1}}, "/wifi/psk", "[hidden] is not text"),
        ({"wifi": {"psk": {"$secret": 5}}}, "/wifi/psk/$secret", "[hidden] is not text"),
        (
            {"wifi": {"psk": {"$secret": "a", "x": 1}}},
            "/wifi/psk/x",
            "the schema declares no such field",
        ),
        (
            {"name": {"$secret": "a"}},
            "/name",
            "a secret may stand only in a field that the schema marks writeOnly",
        ),
        (
            {"wifi": {"$secret": "a"}},
            "/wifi/$secret",
            "a secret may stand only in a field that the schema marks writeOnly",
        ),
    ],
)
def test_v25_layer_is_judged_by_types_and_secrets_by_their_place(values: object, where: str, message: str) -> None:
    found = compiled(LAMP).validate_layer(values)

    assert [(problem.pointer, problem.message) for problem in found] == [(where, message)]


def test_conditions_and_alternatives_do_not_refuse_a_layer_that_others_complete() -> None:
    schema = of(mode={"enum": ["dhcp", "fixed"]}, ip={"type": "string"}, a={"type": "string"}, b={"type": "string"})
    schema |= {
        "if": {"properties": {"mode": {"const": "fixed"}}},
        "then": {"required": ["ip"]},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "not": {"required": ["a", "b"]},
        "dependentRequired": {"mode": ["a"]},
        "minProperties": 2,
        "unevaluatedProperties": False,
    }
    fixed = compiled(schema)

    assert fixed.validate_layer({"mode": "fixed"}) == []
    assert fixed.validate_layer({}) == []
    assert fixed.validate({"mode": "fixed", "ip": "x", "a": "y"}) == []
    assert [problem.pointer for problem in fixed.validate({"mode": "fixed", "a": "y"})] == ["/ip"]


def test_entries_of_a_list_are_judged_in_full_in_a_layer_because_lists_replace() -> None:
    entry = {**of(at={"type": "string"}, psk={"type": "string", "writeOnly": True}), "required": ["at"]}
    schema = compiled({**of(plan={"items": {"$ref": "#/$defs/e"}}, one={"$ref": "#/$defs/e"}), "$defs": {"e": entry}})

    assert schema.validate_layer({"one": {}, "plan": [{"at": "x", "psk": {"$secret": "a"}}]}) == []
    assert [problem.pointer for problem in schema.validate_layer({"plan": [{}]})] == ["/plan/0/at"]


def test_defaults_come_from_properties_references_and_all_of_but_not_from_alternatives() -> None:
    schema = of(
        wifi=of(power={"type": "integer", "default": 20}, ssid={}),
        ntp={"$ref": "#/$defs/ntp"},
        both={
            "allOf": [{"properties": {"a": {"default": 1}, "b": {"default": 1}}}],
            "properties": {"b": {"default": 2}},
        },
        whole={"properties": {"x": {"default": 1}, "y": {"default": 1}}, "default": {"y": 2}},
        list={"default": [1], "items": {"properties": {"z": {"default": 1}}}},
        maybe={"anyOf": [{"default": 1}], "oneOf": [{"properties": {"q": {"default": 1}}}], "if": {"default": 3}},
        nothing={"type": ["string", "null"], "default": None},
    )
    schema["$defs"] = {"ntp": of(host={"default": "pool.ntp.org"})}

    assert compiled(schema).defaults == {
        "wifi": {"power": 20},
        "ntp": {"host": "pool.ntp.org"},
        "both": {"a": 1, "b": 2},
        "whole": {"x": 1, "y": 2},
        "list": [1],
    }


def test_defaults_of_an_optional_object_that_they_do_not_complete_wait_for_it() -> None:
    mqtt = {**of(host={"type": "string"}, port={"type": "integer", "default": 1883}), "required": ["host"]}
    schema = compiled(of(mqtt=mqtt, level={"type": "integer", "default": 5}))

    assert schema.defaults == {"level": 5}
    assert schema.validate(schema.defaults) == []
    assert schema.defaults_for({}) is schema.defaults
    assert schema.defaults_for({"mqtt": {"host": "h"}}) == {"level": 5, "mqtt": {"port": 1883}}
    assert compiled({**of(mqtt=mqtt), "required": ["mqtt"]}).defaults == {"mqtt": {"port": 1883}}


def test_defaults_of_a_recursive_schema_end() -> None:
    node = {"properties": {"level": {"default": 1}, "next": {"$ref": "#/$defs/n"}}}
    schema = compiled({**of(a={"$ref": "#/$defs/n"}), "$defs": {"n": node}})

    assert schema.defaults == {"a": {"level": 1}}


def test_secrets_are_known_by_pointer_and_at_any_depth_of_recursion() -> None:
    node = {"properties": {"key": {"writeOnly": True}, "next": {"$ref": "#/$defs/n"}}}
    schema = of(
        a={"$ref": "#/$defs/n"},
        nets={"items": of(psk={"$ref": "#/$defs/secret"})},
        any={"anyOf": [{"properties": {"x": {"writeOnly": True}}}, {"type": "string"}]},
        map={"additionalProperties": {"properties": {"p": {"writeOnly": True}}}},
    )
    schema["$defs"] = {"n": node, "secret": {"type": "string", "writeOnly": True}}
    found = compiled(schema)

    assert found.secret_pointers == {"/a/key", "/nets/*/psk", "/any/x", "/map/*/p"}
    assert found.is_secret(["a", "next", "next", "next", "key"])
    assert found.is_secret(["nets", 3, "psk", "inside"])
    assert found.is_secret(["map", "k", "p"])
    assert not found.is_secret(["a", "next"])
    assert not found.is_secret([])


def test_top_level_fields_and_openness() -> None:
    closed = compiled(
        {
            **of(a={}),
            "allOf": [{"properties": {"b": {}}}],
            "$ref": "#/$defs/r",
            "$defs": {"r": {"properties": {"c": {}}}},
        }
    )

    assert (closed.top_level_fields, closed.open) == ({"a", "b", "c"}, False)
    assert compiled({"type": "object"}).open
    assert compiled({"type": "object", "unevaluatedProperties": False}).open is False
    assert compiled({"type": "object", "patternProperties": {"^a": {}}, "additionalProperties": False}).open


def test_cache_compiles_each_version_once_and_forgets_the_least_used() -> None:
    cache = SchemaCache(max_entries=2)
    one, two, three = of(a={}), of(b={}), of(c={})
    first = cache.get("lamp", one)

    assert cache.get("lamp", copy.deepcopy(one)) is first
    assert cache.get("lamp", one, digest=schema_digest(one)) is first
    assert cache.get("lamp", two) is not first
    cache.get("lamp", one)
    cache.get("lamp", three)
    assert cache.get("lamp", one) is first
    assert len(cache) == 2
    assert first.digest == schema_digest(one)


def test_the_cache_may_be_asked_from_several_threads() -> None:
    cache, faults = SchemaCache(max_entries=1), []
    digests = [bytes([number]) for number in range(8)]

    def ask(shift: int) -> None:
        try:
            for number in range(400):
                cache.get("lamp", {"type": "object"}, digest=digests[(number + shift) % 8])
        except KeyError as fault:
            faults.append(fault)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(shift,)) for shift in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert not faults
    assert len(cache) == 1


def test_budget_is_what_the_documentation_says() -> None:
    assert MAX_SCHEMA_BYTES == 262_144


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 2.5])
    | st.sampled_from(["", "a", "ab", "b1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)
small = st.integers(0, 3)
assertions = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["integer", "number", "string", "boolean", "array", "object", "null"]),
        "enum": st.lists(json_values, min_size=1, max_size=3),
        "minimum": st.integers(-3, 0),
        "maximum": small,
        "exclusiveMaximum": st.integers(1, 3),
        "multipleOf": st.integers(1, 3),
        "minLength": small,
        "maxLength": st.integers(3, 4),
        "pattern": st.sampled_from(["^a", "[0-9]$", "^(a|b)+$"]),
        "minItems": st.integers(0, 2),
        "maxItems": st.integers(2, 3),
        "minProperties": st.integers(0, 1),
        "required": st.lists(st.sampled_from(["a", "b"]), unique=True, max_size=2),
        "dependentRequired": st.just({"a": ["b"]}),
    },
)


def composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    maps = st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    lists = st.lists(inner, min_size=1, max_size=2)
    optional = {
        "properties": maps,
        "additionalProperties": inner | st.booleans(),
        "items": inner,
        "contains": inner,
        "prefixItems": lists,
        "allOf": lists,
        "anyOf": lists,
        "oneOf": lists,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "dependentSchemas": maps,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2),
        "propertyNames": inner,
        "unevaluatedProperties": inner | st.booleans(),
        "unevaluatedItems": inner | st.booleans(),
        "$ref": st.just("#/$defs/x"),
    }
    return st.fixed_dictionaries({}, optional=optional) | assertions


schemas = st.tuples(
    st.recursive(assertions, composed, max_leaves=6), st.recursive(assertions, composed, max_leaves=3)
).map(lambda parts: {**parts[0], "type": "object", "$defs": {"x": parts[1]}})
documents = st.dictionaries(st.sampled_from(["a", "b", "c", "d1"]), json_values, max_size=4)


def accepted(schema: dict[str, Any]) -> CompiledSchema:
    try:
        return compiled(schema)
    except Invalid:
        assume(False)
        raise


@settings(max_examples=100, deadline=None)
@given(schemas, st.lists(documents, min_size=1, max_size=4))
def test_engine_and_oracle_agree(schema: dict[str, Any], values: list[dict[str, Any]]) -> None:
    """Whole floats and multiples of fractions, where henge differs on purpose, are not generated."""
    ours = accepted(schema)
    oracle = jsonschema.Draft202012Validator(schema)

    for value in values:
        assert ours.is_valid(value) == oracle.is_valid(value)
        assert (ours.validate(value) == []) == ours.is_valid(value)


@settings(max_examples=60, deadline=None)
@given(schemas, documents)
def test_a_document_that_fits_is_also_a_layer_that_fits_in_any_part(
    schema: dict[str, Any], value: dict[str, Any]
) -> None:
    """Weakening is sound: no part of a good document is refused as a layer."""
    ours = accepted(schema)
    assume(ours.is_valid(value))
    assume(all(leaf is not None for _, leaf in leaves(value)))

    assert ours.validate_layer(value) == []
    for key in value:
        assert ours.validate_layer({other: value[other] for other in value if other != key}) == []


@given(
    st.dictionaries(
        st.sampled_from(["type", "properties", "$ref", "enum", "allOf", "x-a", "$defs", "pattern"]), json_values
    )
)
def test_any_object_is_accepted_or_refused_with_a_code(schema: dict[str, Any]) -> None:
    try:
        check_schema(schema)
    except Invalid:
        return
    jsonschema.Draft202012Validator.check_schema(schema)
