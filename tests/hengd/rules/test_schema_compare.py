"""Whether a new version of a schema takes what the old one took; what cannot be told is not guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hengd.rules import schema_compare
from hengd.rules.schema_compare import compare


def root(**properties: Any) -> dict[str, Any]:
    """A closed schema with these fields."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def judged(old: Any, new: Any) -> str:
    """The verdict on one field's schema."""
    return compare(root(x=old), root(x=new)).verdict


SAME_OR_WIDER = [
    ({"type": "integer"}, {"type": "number"}),
    ({"type": "integer"}, {"type": ["integer", "string"], "title": "X", "default": 3, "x-mine": 1}),
    ({"enum": ["a"]}, {"enum": ["b", "a"]}),
    ({"const": 1}, {"enum": [1, 2]}),
    ({"enum": [1, 2]}, {"type": "integer"}),
    ({"type": "integer", "minimum": 1}, {"type": "integer", "exclusiveMinimum": 0}),
    ({"type": "number", "exclusiveMaximum": 5}, {"type": "number", "maximum": 5}),
    ({"type": "string"}, {"type": "string", "minimum": 3, "required": ["x"]}),
    ({"maxLength": 3, "pattern": "a"}, {"maxLength": 4}),
    ({"multipleOf": 4}, {"multipleOf": 2}),
    ({"required": ["a", "b"]}, {"required": ["b"]}),
    ({"type": "object", "properties": {}}, {"required": ["a"], "properties": {"a": {"default": 1}}}),
    ({"allOf": [{"minimum": 1}, {"minimum": 2}]}, {"allOf": [{"minimum": 2}]}),
    ({"anyOf": [{"minimum": 1}]}, {"anyOf": [{"minimum": 1}, {"type": "string"}]}),
    ({"items": {"type": "integer"}, "uniqueItems": True}, {"items": {"type": "number"}}),
    ({"not": {"type": "string"}}, {}),
    ({"if": {"minimum": 1}, "then": {"maximum": 2}}, {"if": {"minimum": 1}}),
    (False, {"type": "string"}),
    (False, {"type": "string", "writeOnly": True}),
    ({"writeOnly": True, "maxLength": 3}, {"writeOnly": True, "maxLength": 4}),
    ({"writeOnly": False}, {}),
    ({"type": "string"}, True),
]
NARROWER = [
    ({"type": "string"}, {"type": "string", "writeOnly": True}),
    ({"type": "string", "writeOnly": True}, {"type": "string"}),
    ({"type": "string", "writeOnly": True}, True),
    ({"items": {"writeOnly": True}}, {"items": {"type": "string"}}),
    ({"type": "number"}, {"type": "integer"}),
    ({}, {"type": "integer"}),
    ({"enum": ["a", "b"]}, {"enum": ["a"]}),
    ({"enum": ["a"]}, {"type": "integer"}),
    ({"type": "string"}, {"enum": ["a"]}),
    ({"minimum": 1}, {"exclusiveMinimum": 1}),
    ({"maximum": 5}, {"maximum": 4.5}),
    ({}, {"maxItems": 2}),
    ({"minLength": 1}, {"minLength": 2}),
    ({}, {"pattern": "a"}),
    ({}, {"uniqueItems": True}),
    ({"required": ["a"]}, {"required": ["a", "b"], "properties": {"b": {}}}),
    ({"dependentRequired": {"a": ["b"]}}, {"dependentRequired": {"a": ["b"], "title": ["c"]}}),
    ({"multipleOf": 4}, {"multipleOf": 8}),
    ({"items": {"maximum": 2}}, {"items": {"maximum": 1}}),
    ({"allOf": [{"maximum": 2}]}, {"allOf": [{"maximum": 1}]}),
    ({"additionalProperties": True}, {"additionalProperties": False}),
    ({"properties": {"title": {}}}, {"properties": {"title": {"type": "string"}}}),
    ({"type": "string"}, False),
]
UNKNOWN = [
    ({"pattern": "a"}, {"pattern": "b"}),
    ({"anyOf": [{"maximum": 2}]}, {"anyOf": [{"maximum": 1}]}),
    ({"oneOf": [{"maximum": 2}]}, {"oneOf": [{"maximum": 2}, {"type": "string"}]}),
    ({"not": {"type": "string"}}, {"not": {"type": "integer"}}),
    ({"multipleOf": 0.5}, {"multipleOf": 0.25}),
    ({"prefixItems": [{}]}, {"prefixItems": [{}, {"type": "string"}]}),
    ({"patternProperties": {"a": {}}}, {"patternProperties": {"b": {}}, "additionalProperties": False}),
    ({"if": {"minimum": 1}, "then": {"maximum": 2}}, {"if": {"minimum": 1}, "then": {"maximum": 1}}),
    ({"enum": ["a"]}, {"enum": ["a", "b"], "minLength": 1}),
    ({"properties": {"a": {}}}, {"properties": {"a": {}, "b": {}}, "unevaluatedProperties": False}),
]


@pytest.mark.parametrize(("old", "new"), SAME_OR_WIDER)
def test_what_takes_at_least_the_same_is_compatible(old: Any, new: Any) -> None:
    assert compare(root(x=old), root(x=new)) == schema_compare.Comparison("compatible")


@pytest.mark.parametrize(("old", "new"), NARROWER)
def test_a_tighter_bound_is_narrower(old: Any, new: Any) -> None:
    found = compare(root(x=old), root(x=new))

    assert found.verdict == "narrower"
    assert found.reasons[0].pointer.startswith("/properties/x")


@pytest.mark.parametrize(("old", "new"), UNKNOWN)
def test_what_cannot_be_told_is_unknown(old: Any, new: Any) -> None:
    assert judged(old, new) == "unknown"


def test_a_field_more_is_compatible_where_others_were_refused_and_one_less_is_narrower() -> None:
    assert compare(root(a={}), root(a={}, b={"type": "string"})).verdict == "compatible"
    less = compare(root(a={}, b={}), root(a={}))
    assert (less.verdict, less.reasons[0].pointer) == ("narrower", "/properties/b")

    opened = {"type": "object", "properties": {"a": {}}}
    assert compare(opened, {**opened, "properties": {"a": {}, "b": {"type": "string"}}}).verdict == "narrower"
    assert compare({**opened, "properties": {"a": {}, "b": {"type": "string"}}}, opened).verdict == "compatible"


def test_references_are_followed_also_around_in_circles() -> None:
    def tree(most: int, **more: Any) -> dict[str, Any]:
        node = {"properties": {"size": {"maximum": most}, "below": {"$ref": "#/$defs/node"}}}
        return {**root(tree={"$ref": "#/$defs/node"}, **more), "$defs": {"node": node}}

    assert compare(tree(5), tree(6)).verdict == "compatible"
    assert compare(tree(5), tree(4)).verdict == "narrower"
    assert compare(tree(5), tree(5, other={})).verdict == "compatible"
    inline = root(tree={"type": "string"})
    assert (
        compare(inline, {**root(tree={"$ref": "#/$defs/t"}), "$defs": {"t": {"type": "string"}}}).verdict
        == "compatible"
    )


def test_schemas_that_are_too_large_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_compare, "MAX_PAIRS", 10)
    wide = root(**{f"f{number}": {"type": "integer"} for number in range(40)})
    wider = root(**{f"f{number}": {"type": "number"} for number in range(40)})

    assert compare(wide, wider).verdict == "unknown"


small = st.integers(-2, 3)
scalars = st.one_of(
    small, st.booleans(), st.none(), st.sampled_from(["", "a", "ab", "abc"]), st.sampled_from([0.5, 1.5])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner)),
    max_leaves=5,
)
types = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])


def nodes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Subschemas of most keywords."""
    sizes = st.integers(0, 3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(types, st.lists(types, min_size=1, unique=True)),
            "enum": st.lists(scalars, min_size=1, max_size=3),
            "minimum": small, "exclusiveMinimum": small, "maximum": small, "exclusiveMaximum": small,
            "multipleOf": st.integers(1, 4), "minLength": sizes, "maxLength": sizes, "pattern": st.sampled_from("ab"),
            "minItems": sizes, "maxItems": sizes, "uniqueItems": st.booleans(), "minProperties": sizes,
            "required": st.lists(st.sampled_from("abc"), unique=True),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3), "additionalProperties": inner,
            "patternProperties": st.dictionaries(st.sampled_from("ab"), inner, max_size=1),
            "items": inner, "prefixItems": st.lists(inner, min_size=1, max_size=2), "contains": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2), "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2), "not": inner, "if": inner, "then": inner, "else": inner,
        },
    )  # fmt: skip


schemas_ = st.recursive(st.one_of(st.booleans(), nodes(st.booleans())), nodes, max_leaves=6)


@st.composite
def versions(draw: st.DrawFn) -> tuple[Any, Any]:
    """A schema and another one, mostly near to it: some keywords taken over, some left out, some new."""
    old, other = draw(schemas_), draw(schemas_)
    if not isinstance(old, dict) or not isinstance(other, dict):
        return old, other
    kept = draw(st.sets(st.sampled_from(sorted(old)))) if old else set()
    new = {word: old[word] for word in kept} | {word: other[word] for word in sorted(other)[: draw(st.integers(0, 2))]}
    return old, new


@given(versions(), st.lists(values, min_size=1, max_size=30))
def test_nothing_that_was_valid_is_refused_by_what_is_called_compatible(pair: tuple[Any, Any], said: list[Any]) -> None:
    old, new = pair
    if judged(old, new) != "compatible":
        return
    before, after = Draft202012Validator(old), Draft202012Validator(new)

    assert [value for value in said if before.is_valid(value) and not after.is_valid(value)] == []


@given(schemas_)
def test_a_schema_is_compatible_with_itself_unless_it_looks_at_the_whole(one: Any) -> None:
    assert judged(one, one) == "compatible"
