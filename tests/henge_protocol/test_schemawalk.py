"""Which fields a schema marks: under every combination, and never fewer than there are."""

from __future__ import annotations

from typing import Any

import pytest

from henge_protocol.schemawalk import is_marked

SECRET = {"type": "string", "writeOnly": True}
DEEP = {"type": "object", "properties": {"psk": SECRET}}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": {"psk": SECRET}}, ("psk",)),
        ({"properties": {"login": {"writeOnly": True}}}, ("login", "user")),
        ({"patternProperties": {"^psk": SECRET}}, ("psk1",)),
        ({"additionalProperties": SECRET}, ("any",)),
        ({"unevaluatedProperties": SECRET}, ("any",)),
        ({"dependentSchemas": {"on": {"properties": {"psk": SECRET}}}}, ("psk",)),
        ({"if": {}, "then": {"properties": {"psk": SECRET}}}, ("psk",)),
        ({"not": {"properties": {"psk": SECRET}}}, ("psk",)),
        ({"anyOf": [{}, {"properties": {"psk": SECRET}}]}, ("psk",)),
        ({"properties": {"wifi": {"$ref": "#/$defs/wifi"}}, "$defs": {"wifi": DEEP}}, ("wifi", "psk")),
        ({"properties": {"list": {"items": DEEP}}}, ("list", 3, "psk")),
        ({"properties": {"list": {"prefixItems": [DEEP]}}}, ("list", 0, "psk")),
    ],
)
def test_a_mark_is_found(schema: dict[str, Any], path: tuple[str | int, ...]) -> None:
    assert is_marked(schema, path, "writeOnly")


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": {"psk": SECRET}}, ("ssid",)),
        ({"properties": {"psk": {"writeOnly": False}}}, ("psk",)),
        ({"properties": {"wifi": DEEP}}, ("wifi",)),
        ({"properties": {"loop": {"$ref": "#/$defs/loop"}}, "$defs": {"loop": {"$ref": "#/$defs/loop"}}}, ("loop",)),
        ({"additionalProperties": False}, ("any",)),
        ({"properties": {"ssid": {}}, "additionalProperties": SECRET}, ("ssid",)),
    ],
)
def test_what_is_not_marked_is_not_called_so(schema: dict[str, Any], path: tuple[str, ...]) -> None:
    assert not is_marked(schema, path, "writeOnly")
