from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengectl.fitting import fitted, longest_word, width_of, wrapped

WIDTHS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=8)


@given(WIDTHS, st.integers(0, 300))
def test_columns_fit_and_none_is_narrower_than_its_floor(columns: list[tuple[int, int]], room: int) -> None:
    widths = [max(pair) for pair in columns]
    floors = [min(pair) for pair in columns]
    used = fitted(widths, floors, room)

    assert bool(used) is (sum(floors) <= room)
    if used:
        assert sum(used) == min(room, sum(widths))
        assert all(floor <= now <= was for floor, now, was in zip(floors, used, widths, strict=True))


def test_the_widest_gives_way_first_and_the_first_column_last() -> None:
    assert fitted([20, 10, 40], [8, 8, 8], 50) == [20, 10, 20]
    assert fitted([20, 10, 40], [8, 8, 8], 30) == [14, 8, 8]
    assert fitted([20, 10, 40], [8, 8, 8], 23) == []


@given(st.text(), st.integers(2, 30))
def test_no_line_is_too_wide_and_nothing_but_spaces_is_lost(text: str, width: int) -> None:
    lines = wrapped(text, width)

    assert all(width_of(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one two", "three"]),
        ("one two  three", ["one two", "three"]),
        ("onetwothree", ["onetwoth", "ree"]),
        ("a=1,b=2,c=3", ["a=1,b=2,", "c=3"]),
        ("in (one,two)", ["in (one,", "two)"]),
        ("灯灯灯灯灯", ["灯灯灯灯", "灯"]),
    ],
)
def test_lines_are_broken_at_spaces(text: str, lines: list[str]) -> None:
    assert wrapped(text, 8) == lines


@given(st.text(alphabet="ab,  灯"))
def test_no_word_is_broken_where_the_longest_has_room(text: str) -> None:
    width = max(longest_word(text), 1)

    assert all(line in text and width_of(line) <= width for line in wrapped(text, width))
    assert [word for line in wrapped(text, width) for word in line.replace(",", ", ").split()] == text.replace(
        ",", ", "
    ).split()
