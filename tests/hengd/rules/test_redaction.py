"""What devices say about secrets is kept without them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.rules.redaction import HIDDEN, secret_texts, without
from tests.effort import no_blow_up

PEM = "-----BEGIN-----\nabcdefgh\n-----END-----\n"


@pytest.mark.parametrize(
    ("secret", "said", "kept"),
    [
        pytest.param("hunter22", "psk=hunter22, and hunter22", "psk=[secret], and [secret]", id="twice"),
        pytest.param("hunter22", "psk=hunte", "psk=[secret]", id="cut"),
        pytest.param("hunter22", "ter22 was it", "[secret] was it", id="cut-in-front"),
        pytest.param("hunter22", "the hunt is on", "the hunt is on", id="a-word-like-its-beginning"),
        pytest.param("two  blanks\tthere", "exit code 1: two blanks there", "exit code 1: [secret]", id="in-one-line"),
        pytest.param('a"b\\c', 'bad: a\\"b\\\\c', "bad: [secret]", id="as-json"),
        pytest.param("grün-und-blau", "gr\\u00fcn-und-blau", "[secret]", id="escaped"),
        pytest.param(PEM, "line 2: abcdefgh", "line 2:[secret]", id="a-line-of-it"),
        pytest.param(47110815, "pin 47110815", "pin [secret]", id="number"),
        pytest.param(
            {"user": "ada-l", "words": ["opensesame"]}, "ada-l: opensesame", "[secret]: [secret]", id="inside"
        ),
        pytest.param("on", "on and on", "on and on", id="short"),
        pytest.param("on", " on ", "[secret]", id="short-and-all"),
        pytest.param(True, "true", "true", id="truth"),
    ],
)
def test_a_secret_is_taken_out_of_what_is_said(secret: Any, said: str, kept: str) -> None:
    texts = secret_texts(
        {"a": [{"b": secret}], "c": "hello there"}, {"a": [{"b": {"$secret": "x"}}], "c": "hello there"}
    )

    assert without(said, texts) == kept


def test_what_is_no_secret_stays() -> None:
    texts = secret_texts({"a": "hello there", "b": "hidden one"}, {"a": "hello there", "b": {"$secret": "x"}})

    assert without("hello there, hidden one", texts) == f"hello there, {HIDDEN}"


@given(st.text(min_size=4, max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_secret_of_four_characters_or_more_is_left(secret: str, before: str, after: str) -> None:
    texts = secret_texts({"a": secret}, {"a": {"$secret": "x"}})
    kept = without(before + secret + after, texts)

    assert HIDDEN in kept
    assert secret not in kept or any(secret in one for one in (HIDDEN + after, before + HIDDEN))


def test_what_is_said_takes_as_long_as_it_is_however_long_the_secret() -> None:
    certificate = "\n".join(f"{line:064x}" for line in range(120))
    texts = secret_texts({"a": certificate}, {"a": {"$secret": "x"}})
    said = "the hook says: no such thing, really. " * 5

    with no_blow_up():
        for _ in range(10_000):
            assert without(said, texts) == said
