"""Layers against RFC 7396's own table and against a model that knows only flat paths."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.rules.merge import MISSING, FieldChange, diff, drop_nulls, get, leaves, merge, overlay, same, speaks
from henge_protocol.fieldpath import parse_path

keys = st.sampled_from(["a", "b", "c", "d/e", "~"])
scalars = (
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, -0.0, 1.0, "", "x"]) | st.just([1, None])
)
layers = st.recursive(st.dictionaries(keys, scalars, max_size=3), lambda inner: st.dictionaries(keys, inner | scalars))


def has_null(value: object) -> bool:
    return isinstance(value, dict) and any(member is None or has_null(member) for member in value.values())


@pytest.mark.parametrize(
    ("base", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_follows_the_table_of_rfc_7396(base: Any, patch: Any, merged: Any) -> None:
    assert merge(base, patch) == merged


def test_null_removes_what_a_lower_layer_set_and_a_higher_one_sets_it_again() -> None:
    lowest, middle, highest = {"ntp": {"host": "a", "port": 123}}, {"ntp": None}, {"ntp": {"host": "b"}}

    assert overlay([lowest, middle]) == {}
    assert overlay([lowest, middle, highest]) == {"ntp": {"host": "b"}}
    assert overlay([]) == {}


any_keys = keys | st.just("$secret")
with_references = st.dictionaries(
    keys,
    st.recursive(scalars, lambda inner: st.dictionaries(any_keys, inner, max_size=3), max_leaves=8),
    max_size=3,
)


@given(st.lists(with_references, max_size=4))
def test_overlay_is_one_merge_after_the_other(stack: list[dict[str, object]]) -> None:
    assert overlay(stack) == reduce(merge, stack, {})


@given(st.lists(layers, max_size=4))
def test_overlay_never_leaves_a_null_and_never_changes_its_layers(stack: list[dict[str, object]]) -> None:
    before = copy.deepcopy(stack)
    merged = overlay(stack)

    assert not has_null(merged)
    assert same(stack, before)


@given(layers, layers)
def test_a_field_of_the_patch_wins_and_a_field_it_is_silent_about_stays(
    base: dict[str, object], patch: dict[str, object]
) -> None:
    merged = merge(base, patch)

    for where, leaf in leaves(patch):
        found = get(merged, parse_path(where))
        if leaf is None:
            assert found is MISSING
        elif leaf != {}:
            assert same(found, leaf)
    for key in base.keys() - patch.keys():
        assert same(get(merged, [key]), base[key])


@given(layers, layers)
def test_merging_the_same_patch_twice_changes_nothing(base: dict[str, object], patch: dict[str, object]) -> None:
    once = merge(base, patch)

    assert same(merge(once, patch), once)


@given(layers)
def test_drop_nulls_keeps_everything_else(layer: dict[str, object]) -> None:
    kept = [(where, leaf) for where, leaf in leaves(layer) if leaf is not None and leaf != {}]

    assert same([list(pair) for pair in leaves(drop_nulls(layer)) if pair[1] != {}], [list(pair) for pair in kept])


def test_lists_nulls_and_empty_objects_are_leaves() -> None:
    assert list(leaves({"b": [1, {"x": 2}], "a": {"n": None, "e": {}}})) == [
        ("/a/e", {}),
        ("/a/n", None),
        ("/b", [1, {"x": 2}]),
    ]
    assert list(leaves({})) == []


def with_change(values: object, path: Sequence[str], after: object) -> dict[str, object]:
    """``values`` after one change of a difference; objects that it left empty go along."""
    key, *rest = path
    changed = dict(values) if isinstance(values, dict) else {}
    if rest and (inner := with_change(changed.get(key), rest, after)):
        changed[key] = inner
    elif rest or after is MISSING:
        changed.pop(key, None)
    else:
        changed[key] = after
    return changed


@given(layers, layers)
def test_applying_the_changes_of_a_diff_gives_the_other_side(
    before: dict[str, object], after: dict[str, object]
) -> None:
    changes = diff(before, after)
    rebuilt: dict[str, object] = before
    for change in sorted(changes, key=lambda change: change.after is not MISSING):
        path = parse_path(change.pointer)
        rebuilt = with_change(rebuilt, path, change.after)

    fields = [list(pair) for pair in leaves(rebuilt) if pair[1] != {}]
    assert same(fields, [list(pair) for pair in leaves(after) if pair[1] != {}])
    assert (changes == []) == same(before, after)


def test_diff_names_fields_not_objects() -> None:
    before = {"wifi": {"ssid": "a", "channel": 6}, "level": 1, "on": True}
    after = {"level": 1.0, "mqtt": {"host": "h", "port": 1}, "on": True, "wifi": {"ssid": "b"}}

    assert diff(before, after) == [
        FieldChange("/level", 1, 1.0),
        FieldChange("/mqtt/host", MISSING, "h"),
        FieldChange("/mqtt/port", MISSING, 1),
        FieldChange("/wifi/channel", 6, MISSING),
        FieldChange("/wifi/ssid", "a", "b"),
    ]


@given(layers, layers, st.lists(keys, max_size=3))
def test_a_layer_that_does_not_speak_of_a_place_changes_nothing_there(
    base: dict[str, object], layer: dict[str, object], path: list[str]
) -> None:
    assert all(speaks(layer, parse_path(where)) for where, _ in leaves(layer))
    if not speaks(layer, path):
        assert same(get(overlay([base, layer]), path), get(overlay([base]), path))


def test_what_is_no_object_speaks_for_all_below_it() -> None:
    assert speaks({"a": 5}, ("a", "b"))
    assert speaks({"a": None}, ("a", "b"))
    assert speaks({"a": [1]}, ("a", "0"))
    assert speaks({"a": {"$secret": "home"}}, ("a", "b"))
    assert not speaks({"a": {"c": 1}}, ("a", "b"))


@pytest.mark.parametrize(("left", "right"), [(1, 1.0), (1, True), (0.0, -0.0), ([1], [1.0]), ({"a": 0}, {"a": False})])
def test_values_that_render_differently_are_not_the_same(left: object, right: object) -> None:
    assert left == right
    assert not same(left, right)


# --- references to secrets --------------------------------------------------------------------------------

HOME, LAB = {"$secret": "home"}, {"$secret": "lab"}


def test_a_reference_replaces_and_is_replaced_whole() -> None:
    assert overlay([{"a": {"user": "x", "pin": 1}}, {"a": HOME}]) == {"a": HOME}
    assert overlay([{"a": HOME}, {"a": {"user": "x", "pin": None}}]) == {"a": {"user": "x"}}
    assert overlay([{"a": HOME}, {"a": LAB}]) == {"a": LAB}
    assert overlay([{"a": HOME}, {"a": None}]) == {}


def test_a_reference_is_a_leaf_and_differs_as_one_field() -> None:
    assert list(leaves({"a": {"b": HOME}})) == [("/a/b", HOME)]
    assert diff({"a": HOME}, {"a": LAB}) == [FieldChange("/a", HOME, LAB)]
    assert diff({"a": HOME}, {"a": {"user": "x"}}) == [FieldChange("/a", HOME, {"user": "x"})]
    assert diff({"a": HOME}, {"a": HOME}) == []
