from __future__ import annotations

from typing import Any

import pytest

from hengd.rules.schemas import check_schema
from henge_agent.scopes import Scope, changed_fields, scope_of

SCHEMA = {
    "type": "object",
    "properties": {
        "color": {"x-henge-restart": "none"},
        "power": {},
        "kernel": {"x-henge-restart": "reboot"},
        "wifi": {
            "x-henge-restart": "section",
            "properties": {"ssid": {}, "band": {"x-henge-restart": "reboot"}, "deep": {"$ref": "#/$defs/deep"}},
        },
        "either": {"anyOf": [{"x-henge-restart": "none"}, {"x-henge-restart": "reboot"}]},
    },
    "additionalProperties": {"x-henge-restart": "none"},
    "$defs": {"deep": {"type": "object", "properties": {"x": {"x-henge-restart": "none"}}}},
}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": True}, [("a",)]),
        ({"a": 1}, {"a": 1.0}, [("a",)]),
        ({"a": 1}, {}, [("a",)]),
        ({}, {"a": {"b": 1, "c": {}}}, [("a", "b"), ("a", "c")]),
        ({"a": {"b": 1}}, {"a": 2}, [("a",)]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1]}}, [("a", "b")]),
        ({"a": {"b": 1, "x": 1}}, {"a": {"b": 2, "x": 1}, "c": None}, [("a", "b"), ("c",)]),
        ({"a": {"b": 1}}, {}, [("a", "b")]),
    ],
)
def test_fields_that_differ_are_listed(old: Any, new: Any, changed: Any) -> None:
    assert changed_fields(old, new) == changed


@pytest.mark.parametrize(
    ("changed", "scope"),
    [
        ([], Scope()),
        (["color"], Scope()),
        (["power"], Scope(everything=True)),
        (["color", "power"], Scope(everything=True)),
        (["kernel"], Scope(reboot=True)),
        (["wifi.ssid"], Scope(sections=("wifi",))),
        (["wifi"], Scope(sections=("wifi",))),
        (["wifi.band"], Scope(reboot=True)),
        (["wifi.deep.x"], Scope()),
        (["wifi.deep.y"], Scope(sections=("wifi",))),
        (["wifi.ssid", "power", "kernel"], Scope(sections=("wifi",), everything=True, reboot=True)),
        (["either"], Scope(reboot=True)),
        (["other"], Scope()),
    ],
)
def test_the_schema_says_what_has_to_be_started_again(changed: list[str], scope: Scope) -> None:
    check_schema(SCHEMA)

    assert scope_of(SCHEMA, [tuple(field.split(".")) for field in changed]) == scope


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"kernel": {}}, "patternProperties": {"^ker": {"x-henge-restart": "reboot"}}},
        {"allOf": [{"properties": {"color": {}}}], "unevaluatedProperties": {"x-henge-restart": "reboot"}},
        {"properties": {"kernel": {"x-henge-restart": "reboot"}}, "additionalProperties": {"x-henge-restart": "none"}},
        {
            "patternProperties": {"^ker": {"x-henge-restart": "reboot"}},
            "additionalProperties": {"x-henge-restart": "none"},
        },
    ],
)
def test_a_reboot_mark_counts_wherever_it_stands(schema: dict[str, Any]) -> None:
    check_schema({"type": "object", **schema})

    assert scope_of(schema, [("kernel",)]) == Scope(reboot=True)


def test_a_mark_for_what_no_name_covers_does_not_reach_what_is_named() -> None:
    schema = {
        "properties": {"color": {"x-henge-restart": "none"}},
        "additionalProperties": {"x-henge-restart": "reboot"},
        "unevaluatedProperties": {"x-henge-restart": "reboot"},
    }

    assert scope_of(schema, [("color",)]) == Scope()


def test_without_a_schema_everything_is() -> None:
    assert scope_of(None, [("color",)]) == Scope(everything=True)
    assert scope_of(None, []) == Scope()
