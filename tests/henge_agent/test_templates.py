from __future__ import annotations

from pathlib import Path

import pytest

from henge_agent.templates import fill, template_text
from henge_protocol.errors import HengeError, Invalid

VALUE = {"color": "red", "dim": 0.5, "on": True, "list": ["a", 1], "wifi": {"ssid": "a $b", "x-y": 2}, "gone": None}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", ""),
        ("$color", "red"),
        ("${color}s", "reds"),
        ("$dim $on $list", '0.5 true ["a",1]'),
        ("ssid=${wifi.ssid}", "ssid=a $b"),
        ("${wifi.x-y}", "2"),
        ("$wifi", '{"ssid":"a $b","x-y":2}'),
        ("5 $$, $$color", "5 $, $color"),
        ("$color.x", "red.x"),
        ("ü$color", "üred"),
    ],
)
def test_a_template_is_filled(tmp_path: Path, text: str, filled: str) -> None:
    (tmp_path / "t").write_text(text, "utf-8")

    assert fill(template_text(tmp_path / "t"), VALUE, "t") == filled.encode()


@pytest.mark.parametrize(
    ("text", "pointer", "said"),
    [
        ("\n$colour", "/colour", "t line 2: the document has no field colour"),
        ("${wifi.psk}", "/wifi/psk", "t line 1: the document has no field wifi.psk"),
        ("${color.x}", "/color/x", "no field color.x"),
        ("${list.0}", "/list/0", "no field list.0"),
        ("$gone", "/gone", "field gone is null"),
    ],
)
def test_a_field_that_is_missing_is_refused_with_line_and_pointer(text: str, pointer: str, said: str) -> None:
    with pytest.raises(Invalid) as refusal:
        fill(text, VALUE, "t")

    assert refusal.value.code == "does_not_fit"
    assert said in refusal.value.message
    assert [problem.pointer for problem in refusal.value.problems] == [pointer]


@pytest.mark.parametrize("text", [b"a\n5 $", b"\n${}", b"\n$1", b"\n${a b}", b"\n${a", b"\xff"])
def test_what_is_no_template_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "t").write_bytes(text)

    with pytest.raises(Invalid) as refusal:
        template_text(tmp_path / "t")

    assert refusal.value.code == "does_not_fit"
    assert text == b"\xff" or "t line 2" in refusal.value.message


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HengeError) as refusal:
        template_text(tmp_path / "none.tmpl")

    assert "none.tmpl" in refusal.value.message
