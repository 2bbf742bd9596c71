from __future__ import annotations

import configparser
import json
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from henge_agent.formats import render
from henge_protocol.errors import Invalid
from henge_protocol.strictjson import canonical

NASTY = {
    "newline": "a\nb",
    "quotes": "'\"`$HOME\\",
    "unicode": "Wohnzimmer – 21 °C 🔥",
    "tab": "a\tb",
    "empty": "",
    "number": -1.5e-07,
    "large": 2**53 - 1,
    "off": False,
    "list": ["a", 1, {"b": "c d"}],
    "wifi": {"ssid": 'it\'s "mine"', "deep er": {"x.y": 1}},
}

text = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(text, values, max_size=4)


def rendered(value: object, form: Any) -> bytes:
    return render(canonical(value), value, form)


def same(one: object, other: object) -> bool:
    """Equal, and of the same types: 1, 1.0 and true are three things."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_json_is_the_documents_bytes_verbatim() -> None:
    assert render(b' {"a":1.0}', {"a": 1.0}, "json") == b' {"a":1.0}'
    assert render(b"[1]", [1], "json") == b"[1]"


@given(documents)
def test_toml_reads_back_as_what_was_written(value: dict[str, Any]) -> None:
    assert tomllib.loads(rendered(value, "toml").decode()) == value


@given(documents)
def test_yaml_reads_back_as_what_was_written(value: dict[str, Any]) -> None:
    assert same(yaml.safe_load(rendered(value, "yaml")), value)


@pytest.mark.parametrize(
    "word", ["no", "Null", "~", "1e5", "0x1f", "1:30", "2026-01-02", "- a", "\x85", "\ufeff", "\u2028", "#"]
)
def test_what_yaml_would_take_for_something_else_stays_a_text(word: str) -> None:
    value = {word: word, "in": [word, [word], {word: [None, 1e300, 2.0, True]}], "none": {}, "few": []}

    assert same(yaml.safe_load(rendered(value, "yaml")), value)


def test_yaml_looks_as_people_write_it() -> None:
    value = {"color": "red", "wifi": {"ssid": "home", "channels": [1, 6]}, "no": {}, "dim": 1e-07}

    assert rendered(value, "yaml") == (
        b'color: "red"\nwifi:\n  ssid: "home"\n  channels:\n    - 1\n    - 6\n"no": {}\ndim: 1.0e-07\n'
    )
    assert rendered({}, "yaml") == b"{}\n"


def test_toml_looks_as_people_write_it() -> None:
    value = {"color": "red", "wifi": {"ssid": "home", "channels": [1, 6]}, "a": {"b": {"c": True}}, "none": {}}

    assert rendered(value, "toml") == (
        b'color = "red"\n\n[wifi]\nssid = "home"\nchannels = [1, 6]\n\n[a.b]\nc = true\n\n[none]\n'
    )


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t"), max_size=12),
        max_size=4,
    )
)
def test_a_shell_reads_an_environment_file_back_as_what_was_written(value: dict[str, str]) -> None:
    script = rendered(value, "env") + b"".join(b'printf "%%s\\0" "$%s"\n' % name.upper().encode() for name in value)

    said = subprocess.run(["/bin/sh"], input=script, capture_output=True, check=True, env={}).stdout

    assert said.split(b"\0")[:-1] == [text.encode() for text in value.values()]


names = st.from_regex(r"[a-z][a-z0-9]{0,3}(_[a-z]{1,2})?", fullmatch=True)
tricky = st.text("a \"'$`\\\n\t#=ü\0", max_size=6)
leaves = st.booleans() | st.integers(-99, 99) | tricky | st.lists(st.text("a'\n", max_size=2))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, leaves | st.dictionaries(names, leaves, max_size=3), max_size=4))
def test_a_nested_document_reads_back_from_a_shell_or_is_refused(value: dict[str, Any]) -> None:
    flat = {}
    for key, item in value.items():
        inner = {f"{key}_{name}": part for name, part in item.items()} if isinstance(item, dict) else {key: item}
        flat |= {name.upper(): part for name, part in inner.items()}
    try:
        written = rendered(value, "env")
    except Invalid:
        assert (
            "\0" in repr(value)
            or "\\x00" in repr(value)
            or len(flat) < sum(len(item) if isinstance(item, dict) else 1 for item in value.values())
        )
        return

    script = written + b"".join(b'printf "%%s\\0" "$%s"\n' % name.encode() for name in flat)
    said = subprocess.run(["/bin/sh"], input=script, capture_output=True, check=True, env={}).stdout.split(b"\0")[:-1]

    assert said == [
        (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, separators=(",", ":"))).encode()
        for item in flat.values()
    ]


def test_an_environment_file_joins_nested_names_and_quotes_only_what_needs_it() -> None:
    value = {"color": "red", "wifi": {"ssid": 'my "home" $1', "channels": [1, 6]}, "dim": 0.5, "on": True}

    assert rendered(value, "env") == (
        b'COLOR=red\nWIFI_SSID="my \\"home\\" \\$1"\nWIFI_CHANNELS="[1,6]"\nDIM=0.5\nON=true\n'
    )


def test_an_ini_file_reads_back_with_sections() -> None:
    value = {"color": "#ff0000", "wifi": {"ssid": "50 % off; really = yes", "deep": {"x": 1}}, "list": ["a", "ü"]}

    reader = configparser.ConfigParser(interpolation=None)
    reader.read_string(rendered(value, "ini").decode())

    assert {name: dict(reader[name]) for name in reader.sections()} == {
        "main": {"color": "#ff0000", "list": '["a","ü"]'},
        "wifi": {"ssid": "50 % off; really = yes"},
        "wifi.deep": {"x": "1"},
    }


@given(st.dictionaries(text, text | st.dictionaries(text, text | st.integers(), max_size=3), max_size=4))
def test_an_ini_file_reads_back_as_what_was_written_or_is_refused(value: dict[str, Any]) -> None:
    try:
        written = rendered(value, "ini").decode()
    except Invalid:
        return

    reader = configparser.ConfigParser(interpolation=None, default_section="\0", strict=True)
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    reader.read_string(written)

    expected = {
        key: {name: str(item) for name, item in table.items()}
        for key, table in value.items()
        if isinstance(table, dict)
    }
    top = {key: item for key, item in value.items() if not isinstance(item, dict)}
    assert {name: dict(reader[name]) for name in reader.sections()} == expected | ({"main": top} if top else {})


@pytest.mark.parametrize(
    ("value", "form", "pointer"),
    [
        ({"a": {"b": None}}, "toml", "/a/b"),
        ({"a": {"k" * 2000: 1}}, "yaml", f"/a/{'k' * 2000}"),
        ([1], "yaml", ""),
        ({"a": [None]}, "toml", "/a/0"),
        ({"a": None}, "env", "/a"),
        ({"a": "x\0y"}, "env", "/a"),
        ({"1a": "x"}, "env", "/1a"),
        ({"": "x"}, "env", "/"),
        ({"a-b": 1, "a_b": 2}, "env", "/a_b"),
        ({"a": {"b": 1}, "a_b": 2}, "env", "/a_b"),
        ({"a": "x\ny"}, "ini", "/a"),
        ({"a": " x"}, "ini", "/a"),
        ({"a=b": 1}, "ini", "/a=b"),
        ({"a": 1, "A": 2}, "ini", "/A"),
        ({"a": 1, "main": {"b": 1}}, "ini", "/main"),
        ({"DEFAULT": {"b": 1}}, "ini", "/DEFAULT"),
        ({"a]": {"b": 1}}, "ini", "/a]"),
        ({"a\u2028b": 1}, "ini", "/a\u2028b"),
        ({"a\x85b": 1}, "ini", "/a\x85b"),
        ({"a\u2028b": {"b": 1}}, "ini", "/a\u2028b"),
        ({"a": {"b": {"c": 1}}, "a.b": {"c": 2}}, "ini", "/a.b"),
        ({"a": None}, "ini", "/a"),
        ({"a/b~": {"c": None}}, "toml", "/a~1b~0/c"),
        ([1], "toml", ""),
        ("x", "env", ""),
        ({"a": "\ud800"}, "toml", ""),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_spot(value: object, form: str, pointer: str) -> None:
    with pytest.raises(Invalid) as refusal:
        render(b"", value, form)  # type: ignore[arg-type]

    assert refusal.value.code == "does_not_fit"
    assert [problem.pointer for problem in refusal.value.problems] == [pointer]


def test_nasty_texts_survive_in_every_format_that_takes_them() -> None:
    assert tomllib.loads(rendered(NASTY, "toml").decode()) == NASTY
    assert json.loads(rendered(NASTY, "json")) == NASTY
    assert b"WIFI_DEEP_ER_X_Y=1\n" in rendered(NASTY, "env")
