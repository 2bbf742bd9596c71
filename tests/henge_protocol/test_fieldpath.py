"""Fields as people write them and as the API does: both lead to the same keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.errors import Invalid
from henge_protocol.fieldpath import field_of, parse_path, pointer

paths = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("wifi", ("wifi",)),
        ("wifi.ssid", ("wifi", "ssid")),
        ("/wifi/ssid", ("wifi", "ssid")),
        ("/a.b/c~1d~0e", ("a.b", "c/d~e")),
        ("/~01", ("~1",)),
        ("/a[0]", ("a[0]",)),
        ("küche.licht", ("küche", "licht")),
        ("a." * 30 + "a", ("a",) * 31),
    ],
)
def test_path_is_read(text: str, path: tuple[str, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..b", ".a", "a.", "a[", "a[-1]", "a[99999]", "a[0].b", "[0]"),
        *("/", "/a//b", "/a~2", "/a~", "a\n", "a\x1b[2J", " a", "a. b", "k" * 129, "a." * 31 + "a", "\ud800"),
    ],
)
def test_v16_v17_path_that_addresses_no_field_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_path(text)

    assert caught.value.code == "bad_path"
    assert caught.value.message.isprintable()
    assert caught.value.cure


@given(paths)
def test_pointer_and_parse_path_are_inverse(path: list[str]) -> None:
    assert list(parse_path(pointer(path))) == path


@given(paths)
def test_a_field_told_to_people_leads_back_to_the_same_field(path: list[str]) -> None:
    assert list(parse_path(field_of(pointer(path)))) == path


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("/wifi/ssid", "wifi.ssid"),
        ("/a.b", "/a.b"),
        ("/a/b", "a.b"),
        ("/a~1b", "/a~1b"),
        ("/pins[0]", "/pins[0]"),
        ("/a//b", "/a//b"),
        ("/a~", "/a~"),
        ("no pointer", "no pointer"),
        ("", ""),
    ],
)
def test_a_pointer_is_told_with_dots_where_they_are_clear(text: str, field: str) -> None:
    assert field_of(text) == field
