from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengectl import render
from hengectl.fitting import width_of
from hengectl.render import Paper, Style, Table, safe

PLAIN = Style()


def test_columns_are_as_wide_as_they_need_and_empty_ones_are_left_out() -> None:
    table = Table(["NAME", "NOTE", "STATE"], [["lamp-1", "", "in-sync"], ["x", "", ""]], keep=frozenset({"NAME"}))

    assert table.lines(PLAIN) == ["NAME     STATE", "lamp-1   in-sync", "x"]
    assert table.lines(PLAIN, headers=False)[0] == "lamp-1   in-sync"


def test_wide_characters_take_two_columns() -> None:
    assert width_of("灯") == 2
    assert width_of("e\u0301") == 1
    assert Table(["N", "S"], [["灯", "a"], ["ab", "b"]]).lines(PLAIN)[1:] == ["灯   a", "ab   b"]


def test_later_rows_stay_in_the_columns_of_earlier_ones() -> None:
    first = Table(["NAME", "STATE"], [["greenhouse-1", "in-sync"]])
    later = Table(["NAME", "STATE"], [["x", "pending"]])

    assert later.lines(PLAIN, headers=False, widths=first.widths()) == ["x              pending"]


@pytest.mark.parametrize("width", [20, 30, 79, 103])
def test_a_terminal_is_not_overrun_and_nothing_is_lost(width: int) -> None:
    lines = Table(["A", "B"], [["a" * 50, "b" * 50]]).lines(Style(width=width))

    assert all(len(line) <= width for line in lines)
    assert ["".join(lines[1:]).count(one) for one in "ab"] == [50, 50]
    assert width < 103 or len(lines) == 2


def test_words_stay_whole_as_long_as_sentences_give_way() -> None:
    rows = [["eink-display", "purpose=growing,site=home", "due in 5m: the pin is for input only"]]
    lines = Table(["SCHEMA", "LABELS", "NOTE"], rows).lines(Style(width=42))

    assert lines[1:] == [
        "eink-display  purpose=growing,  due in 5m:",
        "              site=home         the pin is",
        "                                for input",
        "                                only",
    ]


def test_where_columns_have_no_room_at_all_lines_are_cut() -> None:
    lines = Table(["FIRST", "SECOND", "THIRD"], [["a" * 9, "b" * 9, "c" * 9]]).lines(Style(width=20))

    assert lines == ["FIRST      SECOND  …", "aaaaaaaaa  bbbbbbbb…"]


def test_a_long_note_goes_on_in_its_own_column() -> None:
    lines = Table(["NAME", "NOTE"], [["lamp-1", "the pin is for input only"], ["x", ""]]).lines(Style(width=24))

    assert lines == ["NAME    NOTE", "lamp-1  the pin is for", "        input only", "x"]


def test_a_terminal_of_one_column_gets_everything() -> None:
    assert Table(["A"], [["abc"]]).lines(Style(width=1)) == ["A", "abc"]


def test_states_are_coloured_and_names_are_not() -> None:
    lines = Table(["NAME", "STATE"], [["offline", "offline, rejected"], ["online-1", "in-sync"]]).lines(
        Style(colour=True)
    )

    assert "\x1b[31mrejected\x1b[0m" in lines[1]
    assert "\x1b[32min-sync\x1b[0m" in lines[2]
    assert "\x1b" not in lines[2].split()[0]


@pytest.mark.parametrize(
    ("choice", "environ", "terminal", "colour"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_colour_is_for_those_who_want_it(choice: str, environ: dict[str, str], terminal: bool, colour: bool) -> None:
    assert render.wants_colour(choice, environ, terminal=terminal) is colour


@given(st.text())
def test_nothing_that_moves_the_cursor_gets_through(text: str) -> None:
    shown = safe(text)

    assert shown == "" or shown.isprintable()
    assert len(shown) <= 10 * render.MAX_CELL_CHARS


def test_control_characters_stay_visible() -> None:
    assert safe("a\x1b[31mb\r\n\u202e\U000e0001") == "a\\x1b[31mb\\x0d\\x0a\\u202e\\U000e0001"
    assert safe("Küche 灯") == "Küche 灯"
    assert safe("x" * 10_000) == "x" * 197 + "..."
    assert safe({"a": [1, True, None]}) == '{"a": [1, true, null]}'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (4, "4s"),
        (59, "59s"),
        (60, "1m"),
        (119, "1m"),
        (3599, "59m"),
        (3600, "60m"),
        (7200, "2h"),
        (200_000, "2d"),
    ],
)
def test_an_age_has_one_unit(seconds: int, text: str) -> None:
    assert render.age("2026-11-20T12:00:00Z", now=1795176000 + seconds) == text


def test_what_never_happened_has_no_age() -> None:
    assert render.age("", now=5) == "-"
    assert render.age(None, now=5) == "-"
    assert render.age("soon", now=5) == "-"
    assert render.left("2026-11-20T12:00:00Z", now=1795176060) == "over"
    assert render.left("2026-11-20T12:00:00Z", now=1795175940) == "1m"
    assert render.left("2026-11-20T12:00:00Z", now=1795176000 - 7 * 86400 + 0.6) == "7d"  # just set
    assert render.left("2026-11-20T12:00:00Z", now=1795176000 - 61) == "2m"
    assert render.left("2026-11-20T12:00:00Z", now=1795176000 - 59) == "59s"


def test_names_and_values_stand_in_columns() -> None:
    out = io.StringIO()
    Paper(out, PLAIN).pairs([("a", "1"), ("longer", "2"), ("empty", "")], indent="  ")

    assert out.getvalue() == "  a        1\n  longer   2\n"


def test_a_long_value_goes_on_below_itself() -> None:
    out = io.StringIO()
    Paper(out, Style(width=30)).pairs([("CA", "SHA256 E9C4 F2BC 773E 63E4 C617")])

    assert out.getvalue() == "CA   SHA256 E9C4 F2BC 773E\n     63E4 C617\n"


def test_data_is_json_or_yaml() -> None:
    out = io.StringIO()
    paper = Paper(out, PLAIN)
    paper.data({"name": "Küche", "on": "yes"}, "json")
    paper.data({"name": "Küche", "on": "yes"}, "yaml")

    head, _, tail = out.getvalue().partition("}\n")
    assert json.loads(head + "}") == {"name": "Küche", "on": "yes"}
    assert tail == "name: Küche\n'on': 'yes'\n"


HARMFUL = "\x1b[2J\x7f\x9b31m\u202e\u2066\u200f\u2028\ufeff\U000e0001"


@given(st.recursive(st.text() | st.just(HARMFUL) | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_data_holds_nothing_that_moves_the_cursor_and_keeps_its_value(value: object) -> None:
    for text in (render.as_json(value), render.as_json_line(value)):
        assert text.replace("\n", "").isprintable()
        assert json.loads(text) == value


def test_what_would_turn_text_round_is_escaped_in_json_and_letters_are_not() -> None:
    assert render.as_json_line({"Küche": HARMFUL}) == (
        '{"Küche":"\\u001b[2J\\u007f\\u009b31m\\u202e\\u2066\\u200f\\u2028\\ufeff\\udb40\\udc01"}'
    )
