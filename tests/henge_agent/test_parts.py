from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_agent.formats import render
from henge_agent.parts import MISSING, part_of, with_own_values
from henge_agent.settings import Output
from henge_protocol.errors import Invalid
from henge_protocol.strictjson import canonical

names = st.sampled_from(["a", "b", "wifi"])
texts = st.text("ab \"'$`\\#;ü\n", max_size=6)
tables = st.dictionaries(names, texts | st.dictionaries(names, texts, max_size=3), max_size=3)


def output(form: Any, *unmanaged: str) -> Output:
    return Output(Path("/etc/lamp"), form, unmanaged=tuple(tuple(field.split(".")) for field in unmanaged))


def test_a_part_is_found_or_missing() -> None:
    value = {"a": {"b": [1]}, "n": None}

    assert part_of(value, ()) is value
    assert part_of(value, ("a", "b")) == [1]
    assert part_of(value, ("n",)) is None
    assert part_of(value, ("a", "b", "0")) is MISSING


@pytest.mark.parametrize(
    ("form", "standing", "wanted"),
    [
        ("json", b'{"own":{"x":1},"old":2}', b'{"color":"red","own":{"x":1}}'),
        ("toml", b"# mine\nold = 2\n[own]\nx = 1\n", b'color = "red"\n\n[own]\nx = 1\n'),
        ("yaml", b"old: 2\nown: {x: 1}\n", b'color: "red"\nown:\n  x: 1\n'),
        ("env", b"# mine\nexport OLD=2\n\nOWN_X='1 2' # said\nOWNER=x\n", b'COLOR=red\nOWN_X="1 2"\n'),
        ("ini", b"[own]\nx = 1\n[own.z]\ny:2\n", b"[main]\ncolor = red\n\n[own]\nx = 1\n\n[own.z]\ny = 2\n"),
    ],
)  # fmt: skip
def test_what_is_the_devices_own_stays_and_all_else_is_the_documents(form: str, standing: bytes, wanted: bytes) -> None:
    assert with_own_values({"color": "red", "own": {"x": 9, "z": 9}}, output(form, "own"), standing) == wanted


@pytest.mark.parametrize("form", ["json", "toml", "yaml", "env", "ini"])
@given(document=tables, local=tables)
def test_own_fields_stay_whatever_the_document_and_the_file_say(form: Any, document: Any, local: Any) -> None:
    where = output(form, "wifi")
    try:
        standing = render(canonical(local), local, form)
        wanted = with_own_values(document, where, standing)
        expected = {key: item for key, item in document.items() if key != "wifi"}
        expected |= {"wifi": local["wifi"]} if "wifi" in local else {}
        same = render(canonical(expected), expected, form)
    except Invalid:
        return

    assert wanted is not None
    assert with_own_values(document, where, wanted) == wanted
    if form in ("json", "toml", "yaml"):
        assert with_own_values(expected, where, wanted) == wanted
        assert with_own_values(expected, where, same) == same
    own = [line for line in same.splitlines() if line.startswith(b"WIFI")]
    assert form != "env" or [line for line in wanted.splitlines() if line.startswith(b"WIFI")] == own


@pytest.mark.parametrize(
    ("form", "standing"),
    [
        ("json", b"{"),
        ("json", b"[]"),
        ("json", b"\xff"),
        ("toml", b"a = = 1"),
        ("toml", b"own = 2026-01-02"),
        ("yaml", b"a: &a [1]\nown: *a\n"),
        ("yaml", b"a: [1"),
        ("yaml", b"own: 2026-01-02"),
        ("yaml", b"own: .nan"),
        ("yaml", b"- 1"),
        ("env", b"A=1\nif true; then\n"),
        ("env", b'A="1\n'),
        ("ini", b"x = 1\n"),
        ("ini", b"[a]\n[a]\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_files_fault_and_not_the_documents(form: str, standing: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        with_own_values({"color": "red"}, output(form, "own"), standing)

    assert refusal.value.code == "bad_file"


def test_without_a_file_own_fields_are_not_made() -> None:
    made = with_own_values({"color": "red", "wifi": {"ssid": "x"}}, output("json", "wifi.ssid"), None)

    assert json.loads(made or b"") == {"color": "red", "wifi": {}}
    assert with_own_values(MISSING, output("json", "own"), None) is None
    assert with_own_values(MISSING, output("json", "own"), b'{"own":1}') == b'{"own":1}'


def test_an_own_field_inside_of_what_is_no_object_is_refused() -> None:
    with pytest.raises(Invalid):
        with_own_values({"wifi": "off"}, output("json", "wifi.country"), b'{"wifi":{"country":"DE"}}')
