from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hengd.rules.schema_keywords import SUPPORTED
from hengd.rules.schemas import check_schema
from henge_agent.validation import MAX_PROBLEMS, judge, misfits
from tests.hengd.rules.test_schemas import accepted, documents, schemas

UNJUDGED = {"pattern", "format", "patternProperties", "unevaluatedProperties", "unevaluatedItems"}
LAMP = {
    "type": "object",
    "additionalProperties": False,
    "required": ["power", "color"],
    "properties": {
        "power": {"type": "boolean"},
        "color": {"enum": ["red", "green"]},
        "dim": {"type": "integer", "minimum": 0, "maximum": 100},
        "wifi": {"$ref": "#/$defs/wifi"},
    },
    "$defs": {"wifi": {"type": "object", "required": ["ssid"], "properties": {"ssid": {"maxLength": 3}}}},
}


def words(node: Any) -> set[str]:
    if isinstance(node, dict):
        return set(node) | {word for part in node.values() for word in words(part)}
    return {word for part in node for word in words(part)} if isinstance(node, list) else set()


@settings(max_examples=200, deadline=None)
@given(schemas, st.lists(documents, min_size=1, max_size=4))
def test_what_is_certain_here_is_what_the_oracle_says(schema: dict[str, Any], values: list[dict[str, Any]]) -> None:
    accepted(schema)
    oracle = jsonschema.Draft202012Validator(schema)

    for value in values:
        fits = judge(schema, value).fits
        assert fits in (None, oracle.is_valid(value))
        assert fits is not None or words(schema) & UNJUDGED


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"power": True, "color": "red"}, []),
        ({"power": 1, "color": "blue"}, ["/power boolean is expected", '/color one of ["red", "green"] is expected']),
        ({}, ["/power it is required and missing", "/color it is required and missing"]),
        ({"power": True, "color": "red", "dim": 1.0}, ["/dim integer is expected"]),
        ({"power": True, "color": "red", "dim": 101}, ["/dim at most 100 is expected"]),
        ({"power": True, "color": "red", "a/b": 1}, ["/a~1b there is no such field"]),
        ({"power": True, "color": "red", "wifi": {}}, ["/wifi/ssid it is required and missing"]),
        (
            {"power": True, "color": "red", "wifi": {"ssid": "abcd"}},
            ["/wifi/ssid at most 3 characters are expected"],
        ),
        ([], ["object is expected"]),
    ],
)
def test_what_does_not_fit_is_named_with_its_field(value: object, found: list[str]) -> None:
    said = [f"{problem.pointer} {problem.message}".strip() for problem in misfits(LAMP, value)]

    assert sorted(said) == sorted(found)


@pytest.mark.parametrize(("value", "fits"), [(0.3, True), (0.35, False), (1e300, True), (-2, True)])
def test_multiples_are_counted_in_decimals(value: float, fits: bool) -> None:
    assert judge({"multipleOf": 0.1}, value).fits is fits


def test_no_value_is_repeated_in_a_message() -> None:
    schema = {"properties": {"key": {"allOf": [{"type": "integer"}, {"maxLength": 2}, {"const": 1}, {"not": {}}]}}}

    assert "hunter2" not in repr(misfits(schema, {"key": "hunter2"}))


def test_of_very_many_faults_the_first_are_told() -> None:
    assert len(misfits({"items": {"type": "null"}}, [1] * 1000)) == MAX_PROBLEMS


def test_a_schema_that_refers_to_itself_ends_with_the_value() -> None:
    tree = {"type": "object", "properties": {"sub": {"$ref": "#/$defs/t"}}, "$defs": {"t": {
        "type": "object", "required": ["name"], "properties": {"sub": {"$ref": "#/$defs/t"}}}}}  # fmt: skip
    check_schema(tree)

    assert [one.pointer for one in misfits(tree, {"sub": {"name": 1, "sub": {}}})] == ["/sub/sub/name"]


def test_every_keyword_that_henge_takes_is_judged_left_or_means_nothing_here() -> None:
    from hengd.rules.schema_keywords import ANNOTATIONS
    from henge_agent.validation import _NESTED, _PLAIN, _UNJUDGED

    partners = {"then", "else", "minContains", "maxContains", "$defs"}
    assert SUPPORTED - ANNOTATIONS == {*_PLAIN, *_NESTED, *_UNJUDGED, *partners} - ANNOTATIONS


def test_a_schema_that_asks_for_more_looks_than_anybody_has_time_for_is_not_judged() -> None:
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    verdict = judge({"$defs": twice, "$ref": "#/$defs/d0"}, {})

    assert verdict.fits is None


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"contains": {"const": 1}, "maxContains": 2}, [1, 1, 1], "1 to 2 entries that fit `contains` are expected"),
        ({"contains": {"const": 1}}, [2, 2], "1 to 2 entries that fit `contains` are expected"),
        ({"uniqueItems": True}, [1, 1], "no two equal entries are expected"),
        ({"const": {"a": True}}, 1, '{"a": true} is expected'),
        ({"type": ["string", "null"]}, 1, '["string", "null"] is expected'),
    ],
)
def test_what_is_expected_is_said_as_the_schema_has_it(schema: dict[str, Any], value: object, said: str) -> None:
    assert [problem.message for problem in misfits(schema, value)] == [said]
