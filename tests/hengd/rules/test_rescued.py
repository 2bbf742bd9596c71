"""From a document back to a layer: the least that gives the document again, and no secret in the open."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.rules.merge import overlay, same
from hengd.rules.rescued import concealed, layer_of
from hengd.rules.schemas import compile_schema
from henge_protocol.model import is_secret_name

SCHEMA = {
    "type": "object",
    "properties": {
        "color": {"type": "string", "default": "green"},
        "mode": {"type": "object", "default": {"name": "slow", "step": 1}},
        "wifi": {
            "type": "object",
            "required": ["ssid"],
            "properties": {
                "ssid": {"type": "string"},
                "channel": {"type": "integer", "default": 6},
                "psk": {"type": "string", "writeOnly": True},
            },
        },
        "login": {"type": "object", "writeOnly": True},
        "peers": {"type": "array", "items": {"type": "object", "properties": {"key": {"writeOnly": True}}}},
        "note": {},
    },
}  # fmt: skip
COMPILED = compile_schema("node", SCHEMA)


def none(name: str) -> tuple[int, object]:
    raise KeyError(name)


def layer(document: dict[str, Any], *groups: dict[str, Any], find: Any = none) -> dict[str, Any]:
    return dict(layer_of(COMPILED, groups, document, find))


def rendered(values: dict[str, Any], *groups: dict[str, Any]) -> dict[str, Any]:
    """What a device gets: defaults, groups, its own."""
    said = [*groups, values]
    return dict(overlay([COMPILED.defaults_for(overlay(said)), *said]))


@pytest.mark.parametrize(
    ("document", "groups", "wanted"),
    [
        ({"color": "green", "mode": {"name": "slow", "step": 1}}, [], {}),
        ({"color": "red", "mode": {"name": "slow", "step": 1}}, [], {"color": "red"}),
        ({"color": "green", "mode": {"name": "slow", "step": 2}}, [], {"mode": {"step": 2}}),
        ({"color": "green"}, [], {"mode": None}),
        ({"color": "green", "mode": {"name": "slow"}}, [], {"mode": {"step": None}}),
        ({"color": "green", "mode": {"name": "slow", "step": 1.0}}, [], {"mode": {"step": 1.0}}),
        (
            {"color": "green", "mode": {"name": "slow", "step": 1}, "wifi": {"ssid": "attic", "channel": 6}}, [],
            {"wifi": {"ssid": "attic"}},
        ),
        (
            {"color": "green", "mode": {"name": "slow", "step": 1}, "wifi": {"channel": 6}}, [],
            {"wifi": {"channel": 6}},
        ),
        ({"color": "red", "mode": {"name": "slow", "step": 1}}, [{"color": "red"}], {}),
        ({"color": "green", "mode": {"name": "slow", "step": 1}}, [{"color": "red"}], {"color": "green"}),
        ({"color": "red", "mode": {"name": "slow", "step": 1}, "note": {}}, [{"color": "red"}], {"note": {}}),
        ({"color": "red", "mode": {"name": "slow", "step": 1}, "note": [1]}, [{"color": "red", "note": [1, 2]}],
         {"note": [1]}),
    ],
)  # fmt: skip
def test_the_layer_is_what_nothing_else_says(document: Any, groups: Any, wanted: Any) -> None:
    found = layer(document, *groups)

    assert same(found, wanted)
    assert same(rendered(found, *groups), document)


def test_a_secret_that_a_group_gives_already_is_not_said_again() -> None:
    groups = [{"wifi": {"psk": {"$secret": "home"}, "ssid": "attic"}}]
    document = rendered({}, {"wifi": {"psk": "sesame", "ssid": "attic"}})

    assert layer(document, *groups, find=lambda name: (1, "sesame")) == {}
    assert layer(document, *groups, find=lambda name: (1, "other")) == {"wifi": {"psk": "sesame"}}
    assert layer(document, *groups) == {"wifi": {"psk": "sesame"}}


def test_a_secret_with_parts_is_one_value() -> None:
    groups = [{"login": {"$secret": "login"}}]
    document = rendered({}, {"login": {"user": "ada", "password": "sesame"}})

    found = layer(document, *groups, find=lambda name: (1, {"user": "ada", "password": "other"}))
    assert found == {"login": {"user": "ada", "password": "sesame"}}


def test_secrets_go_and_references_stand_in_their_place() -> None:
    kept: dict[str, object] = {}

    def keep(name: str, value: object) -> str:
        kept[name] = value
        return name

    values = {
        "wifi": {"psk": "sesame", "ssid": "attic"}, "login": {"user": "ada"}, "peers": [{"key": 1, "at": 2}], "x": None,
    }  # fmt: skip
    shown = concealed(COMPILED, values, keep)

    assert shown == {
        "wifi": {"psk": {"$secret": "rescued/wifi/psk"}, "ssid": "attic"}, "login": {"$secret": "rescued/login"},
        "peers": [{"key": {"$secret": "rescued/peers/0/key"}, "at": 2}], "x": None,
    }  # fmt: skip
    assert kept == {"rescued/wifi/psk": "sesame", "rescued/login": {"user": "ada"}, "rescued/peers/0/key": 1}


@pytest.mark.parametrize("field", ["Pass Word", "ключ", "a/b", "x" * 120, "-", "."])
def test_any_field_gives_a_name_that_a_secret_can_have(field: str) -> None:
    schema = compile_schema("node", {"type": "object", "properties": {field: {"writeOnly": True}}})
    offered: list[str] = []

    def keep(name: str, value: object) -> str:
        offered.append(name)
        return name

    concealed(schema, {field: "sesame"}, keep)

    assert len(offered) == 1
    assert all(is_secret_name(name) and is_secret_name(f"{name}-1000") for name in offered)


SCALARS = st.one_of(st.booleans(), st.integers(-3, 3), st.floats(-1, 1, allow_nan=False), st.text("ab", max_size=2))
FIELDS = st.sampled_from(["color", "mode", "wifi", "note", "name", "step", "channel", "ssid"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELDS, inner, max_size=3))
DOCUMENTS = st.dictionaries(FIELDS, VALUES, max_size=5)


@given(DOCUMENTS, st.lists(DOCUMENTS, max_size=2))
def test_whatever_a_document_says_its_layer_gives_it_again(
    document: dict[str, Any], groups: list[dict[str, Any]]
) -> None:
    found = layer(document, *groups)

    assert same(rendered(found, *groups), document)
