from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.errors import HengeError
from hengectl import fields

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "on": {"type": "boolean"},
        "level": {"type": "integer"},
        "ratio": {"type": "number"},
        "name": {"type": "string"},
        "list": {"type": "array"},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "either": {"type": ["string", "integer", "null"]},
        "colour": {"enum": ["red", "5"]},
        "mixed": {"enum": ["auto", 5]},
        "any": {},
        "wifi": {"$ref": "#/$defs/wifi"},
        "all": {"allOf": [{"properties": {"x": {"type": "string"}}}, {"properties": {"y": {"type": "integer"}}}]},
        "loop": {"$ref": "#/properties/loop"},
        "psk": {"type": "string", "writeOnly": True},
        "login": {"writeOnly": True, "properties": {"user": {"type": "string"}}},
    },
    "$defs": {"wifi": {"properties": {"ssid": {"type": "string"}, "channel": {"type": "integer"}}}},
}


def value_of(text: str, *, as_json: bool = False, schemas: tuple[dict[str, Any], ...] = (SCHEMA,)) -> object:
    (assignment,) = fields.parse_assignments([text])
    return fields.value_of(assignment, schemas, as_json=as_json)


@pytest.mark.parametrize("text", ["psk=secret/wifi/home", 'psk={"$secret": "wifi/home"}', "login=secret/wifi/home"])
def test_in_place_of_a_secret_stands_its_name(text: str) -> None:
    assert value_of(text) == value_of(text, as_json=True) == {"$secret": "wifi/home"}


def test_a_secret_may_be_hidden_by_null() -> None:
    assert value_of("psk=null") is None


@pytest.mark.parametrize(
    "text",
    ["psk=hunter22", "psk=", 'psk="hunter22"', 'psk={"$secret": "Hunter 22"}', "psk=secret/", "login.user=hunter22",
     'login={"user": "hunter22"}', 'psk={"$secret": "hunter22", "x": 1}', "psk=secret/Hunter22"],
)  # fmt: skip
def test_c15_a_secret_is_no_argument_and_is_not_repeated(text: str) -> None:
    with pytest.raises(HengeError) as refusal:
        value_of(text)

    assert refusal.value.code == "bad_usage"
    assert "unter" not in refusal.value.message + refusal.value.cure
    assert "hengectl secret set " in refusal.value.cure


@pytest.mark.parametrize(
    "schema",
    [
        {"patternProperties": {"^psk": {"type": "string", "writeOnly": True}}},
        {"dependentSchemas": {"on": {"properties": {"psk": {"type": "string", "writeOnly": True}}}}},
        {"unevaluatedProperties": {"type": "string", "writeOnly": True}},
    ],
)
def test_c15_what_the_daemon_calls_a_secret_is_no_argument(schema: dict[str, Any]) -> None:
    with pytest.raises(HengeError) as refusal:
        value_of("psk=hunter22", schemas=(schema,))

    assert refusal.value.code == "bad_usage"
    assert value_of("psk=secret/wifi", schemas=(schema,)) == {"$secret": "wifi"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("level=5", 5),
        ("level=5.0", 5),
        ("level=-5", -5),
        ("ratio=5", 5),
        ("ratio=5.5", 5.5),
        ("ratio=1e3", 1000.0),
        ("name=5", "5"),
        ("name=05", "05"),
        ("name=true", "true"),
        ("name=yes", "yes"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("name='5'", "'5'"),
        ("name=null", None),
        ("level=null", None),
        ("on=true", True),
        ("on=false", False),
        ("list=[1,2]", [1, 2]),
        ('map={"a":1}', {"a": 1}),
        ("map.a=7", 7),
        ("either=x", "x"),
        ("colour=5", "5"),
        ("any=5", 5),
        ("any=x", "x"),
        ("any=05", "05"),
        ("wifi.ssid=12", "12"),
        ("wifi.channel=12", 12),
        ("all.x=1", "1"),
        ("all.y=1", 1),
        ("loop.a=1", 1),
        ("undeclared=1", 1),
        ("undeclared=yes", "yes"),
        ("/wifi/ssid=1", "1"),
    ],
)
def test_the_schema_says_what_a_value_is(text: str, value: object) -> None:
    found = value_of(text)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("level=ten", "does_not_fit", "level: 'ten' is not a whole number"),
        ("level=5.5", "does_not_fit", "a whole number"),
        ("level=05", "does_not_fit", "a whole number"),
        ("level=0x5", "does_not_fit", "a whole number"),
        ("on=yes", "does_not_fit", "true or false"),
        ("on=True", "does_not_fit", "true or false"),
        ("on=1", "does_not_fit", "true or false"),
        ("ratio=NaN", "does_not_fit", "a number"),
        ("ratio=1e999", "does_not_fit", "a number"),
        ("list=1,2", "does_not_fit", 'a list in JSON, such as ["a","b"]'),
        ('map={"a":1,"a":2}', "does_not_fit", "an object in JSON"),
        ("either=5", "bad_usage", "can be both"),
        ("mixed=5", "bad_usage", "can be both"),
    ],
)
def test_what_is_of_no_or_of_two_types_is_refused(text: str, code: str, words: str) -> None:
    with pytest.raises(HengeError) as refusal:
        value_of(text)

    assert refusal.value.code == code
    assert words in refusal.value.message


def test_json_says_it_exactly() -> None:
    assert value_of('name="null"', as_json=True) == "null"
    assert value_of("either=5", as_json=True) == 5
    assert value_of('either="5"', as_json=True) == "5"
    with pytest.raises(HengeError) as refusal:
        value_of("name=red", as_json=True)
    assert refusal.value.code == "bad_usage"


def test_schemas_that_disagree_make_a_value_ambiguous() -> None:
    other = {"properties": {"level": {"type": "string"}}}

    with pytest.raises(HengeError) as refusal:
        value_of("level=5", schemas=(SCHEMA, other))
    assert refusal.value.code == "bad_usage"
    assert value_of("level=x", schemas=(SCHEMA, other)) == "x"


@pytest.mark.parametrize("texts", [["=x"], ["novalue"], ["a=1", "a=2"], ["a=1", "a.b=2"], ["a.b=1", "a=2"]])
def test_unclear_assignments_are_refused(texts: list[str]) -> None:
    with pytest.raises(HengeError) as refusal:
        fields.parse_assignments(texts)
    assert refusal.value.code == "bad_usage"


@pytest.mark.parametrize("text", ["", "a..b", ".a", "a.", "/", "a[0]", ".".join("a" * 40)])
def test_what_is_no_field_is_refused(text: str) -> None:
    with pytest.raises(HengeError) as refusal:
        fields.parse_fields([text])
    assert refusal.value.code == "bad_path"


def test_a_value_is_put_in_its_place_and_the_rest_stays() -> None:
    values = {"wifi": {"ssid": "a", "channel": 1}, "on": True}

    assert fields.merged(values, ("wifi", "ssid"), None) == {"wifi": {"ssid": None, "channel": 1}, "on": True}
    assert fields.merged(values, ("on", "deep"), 1) == {"wifi": {"ssid": "a", "channel": 1}, "on": {"deep": 1}}
    assert values == {"wifi": {"ssid": "a", "channel": 1}, "on": True}


def test_removing_the_last_field_removes_its_object() -> None:
    values = {"wifi": {"ssid": "a", "channel": 1}, "deep": {"er": {"x": 1}}}
    both = [("wifi", "ssid"), ("wifi", "channel")]

    assert fields.shallowest_gone(values, ("wifi", "ssid"), both[:1]) == ("wifi", "ssid")
    assert fields.shallowest_gone(values, ("wifi", "ssid"), both) == ("wifi",)
    assert fields.shallowest_gone(values, ("deep", "er", "x"), [("deep", "er", "x")]) == ("deep",)


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    try:
        value_of(f"any={text}")
        value_of(f"level={text}")
    except HengeError as error:
        assert error.code in ("does_not_fit", "bad_usage")
