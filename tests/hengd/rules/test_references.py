"""References in values of any shape: where they may stand, and that putting secrets in shows none to people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.rules.references import misplaced, placed, references
from hengd.rules.schemas import PLACES_REMEMBERED, CompiledSchema, compile_schema
from tests.hengd.rules.test_rendering import NoSecrets

SCHEMA: dict[str, Any] = {
    "properties": {
        "secret": {"writeOnly": True},
        "open": {},
        "list": {"items": {"$ref": "#/$defs/part"}},
        "map": {"additionalProperties": {"$ref": "#/$defs/part"}},
    },
    "$defs": {"part": {"properties": {"secret": {"writeOnly": True}, "next": {"$ref": "#/$defs/part"}}}},
}
NAMES = ("a", "b/c", "d.e/f-g")

plain = st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
reference = st.sampled_from(NAMES).map(lambda name: {"$secret": name})
part = st.recursive(
    st.fixed_dictionaries({}, optional={"secret": reference, "other": plain}),
    lambda inner: st.fixed_dictionaries({"next": inner}, optional={"secret": reference, "other": plain}),
    max_leaves=3,
)
values = st.fixed_dictionaries(
    {},
    optional={
        "secret": reference,
        "open": plain,
        "list": st.lists(part, max_size=3),
        "map": st.dictionaries(st.sampled_from("xyz"), part),
    },
)


def compiled() -> CompiledSchema:
    """The schema, ready to use."""
    return compile_schema("node", SCHEMA)


@given(values)
def test_each_reference_becomes_its_secret_and_people_see_the_rest_with_names(layers: dict[str, Any]) -> None:
    secrets = {name: (number, object()) for number, name in enumerate(NAMES)}
    found = placed(compiled(), layers, secrets.__getitem__)

    assert found.problems == []
    assert list(references(found.values)) == []
    for place, name in references(layers):
        value, shown = found.values, found.shown
        for key in place:
            value, shown = value[key], shown[key]
        assert value is secrets[str(name)][1]
        assert shown == {"$secret": name, "revision": secrets[str(name)][0]}
    assert [place for place, _ in references(found.shown)] == [place for place, _ in references(layers)]


@given(values, st.data())
def test_one_value_in_clear_text_is_found_wherever_it_stands(layers: dict[str, Any], data: st.DataObject) -> None:
    places = [place for place, _ in references(layers)]
    if not places:
        return
    place = data.draw(st.sampled_from(places))
    spoilt = _with(layers, list(place), data.draw(plain))

    assert [problem.pointer for problem in misplaced(compiled(), spoilt)] == ["".join(f"/{key}" for key in place)]


@given(plain, reference)
def test_a_reference_in_an_open_field_is_found(before: Any, misled: dict[str, str]) -> None:
    for inside in (misled, [before, misled], {"x": {"y": misled}}):
        assert len(misplaced(compiled(), {"open": inside})) == 1


def test_a_name_that_is_no_secrets_is_told_at_its_place() -> None:
    found = placed(compiled(), {"list": [{"secret": {"$secret": "a"}}]}, NoSecrets().find)

    assert [(problem.pointer, problem.message) for problem in found.problems] == [
        ("/list/0/secret", "there is no secret a")
    ]


@pytest.mark.parametrize("value", [None, {"list": None}, {"map": {"x": {"secret": None}}}])
def test_what_takes_away_is_no_secret_in_clear_text(value: object) -> None:
    assert misplaced(compiled(), {"secret": None, "open": value}) == []


def test_places_that_are_remembered_are_bounded() -> None:
    schema = compiled()
    for number in range(PLACES_REMEMBERED + 100):
        assert schema.is_secret(("map", f"k{number}", "secret"))

    assert len(schema._secret_places) == PLACES_REMEMBERED


def _with(value: Any, place: list[Any], new: object) -> Any:
    if not place:
        return new
    key, *rest = place
    if isinstance(value, list):
        return [*value[:key], _with(value[key], rest, new), *value[key + 1 :]]
    return {**value, key: _with(value[key], rest, new)}
