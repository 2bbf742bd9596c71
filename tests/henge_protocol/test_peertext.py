from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.peertext import clean_text, printable


def test_what_a_peer_says_becomes_one_line() -> None:
    assert clean_text("a\r\n\x07b\u202ec\u2028d", 80) == "abc d"
    assert clean_text("a" * 100, 5) == "aaaaa"
    assert clean_text("abcd efgh", 5) == "abcd"


@given(st.text(max_size=500))
def test_cleaned_text_is_printable_and_short(text: str) -> None:
    cleaned = clean_text(text, 64)

    assert cleaned.isprintable()
    assert len(cleaned) <= 64
    cleaned.encode("utf-8")


def test_lines_of_a_message_are_printable_and_stay_lines() -> None:
    assert printable("k\u00fcche \x1b[31m\n\ttwo\u202e") == "k\u00fcche \\x1b[31m\n\\ttwo\\u202e"
