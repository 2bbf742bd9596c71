from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.errors import HengeError, Malformed
from hengectl import yamltext
from tests.effort import no_blow_up


def value_of(text: str) -> object:
    (document,) = yamltext.read_documents(text, "f.yaml")
    return document.value


def refusal_of(text: str) -> Malformed:
    with pytest.raises(Malformed) as refusal:
        yamltext.read_documents(text, "f.yaml")
    return refusal.value


@pytest.mark.parametrize(
    ("scalar", "meaning"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("12:34:56", "12:34:56"),
        ("2026-11-20", "2026-11-20"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("5", 5),
        ("-5", -5),
        ("5.0", 5.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("! 5", "5"),
        ("=", "="),
        ("v1.2", "v1.2"),
        ("0b11", "0b11"),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(scalar: str, meaning: object) -> None:
    value = value_of(f"a: {scalar}\n")

    assert value == {"a": meaning}
    assert isinstance(value, dict)
    assert type(value["a"]) is type(meaning)


def test_an_unquoted_word_may_be_a_key() -> None:
    assert value_of("on: 1\nyes: 2\n12:30: 3\n") == {"on": 1, "yes": 2, "12:30": 3}


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate_key", "f.yaml:3:1: the key 'a' stands twice"),
        ("{a: 1, a: 2}", "duplicate_key", "f.yaml:1:8"),
        ("a:\n  5: x\n", "bad_yaml", "f.yaml:2:3: the key '5' is not text"),
        ("true: x\n", "bad_yaml", "f.yaml:1:1"),
        ("? [1]\n: x\n", "bad_yaml", "f.yaml:1:3"),
        ("a: !!python/object:os.system x\n", "bad_yaml", "f.yaml:1:4: the tag"),
        ("a: !!str 5\n", "bad_yaml", "f.yaml:1:4"),
        ("a: !mine {}\n", "bad_yaml", "f.yaml:1:4"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "bad_yaml", "f.yaml:3:3: merge keys"),
        ("a: *x\n", "bad_yaml", "f.yaml:1:4: the alias *x is not defined before"),
        ("a: &x [*x]\n", "bad_yaml", "f.yaml:1:8: the alias *x contains itself"),
        ("a: .inf\n", "number_out_of_range", "f.yaml:1:4"),
        ("a: -.INF\n", "number_out_of_range", "f.yaml:1:4"),
        ("a: .nan\n", "number_out_of_range", "f.yaml:1:4"),
        ("a: 1e400\n", "number_out_of_range", "f.yaml:1:4"),
        ("a: 9007199254740992\n", "number_out_of_range", "f.yaml:1:4"),
        ("a: " + "9" * 5000, "number_out_of_range", "f.yaml:1:4"),
        ("a: b: c\n", "bad_yaml", "f.yaml:1:5: a second ': '"),
        ("a: [1, 2\n", "bad_yaml", "f.yaml:2:1"),
        ("a:\n\t- b\n", "bad_yaml", "f.yaml:2:1: a tab"),
        ("a: x\n b: y\n", "bad_yaml", "f.yaml:2:3"),
        ("ok: 1\nbad: \x07\n", "bad_yaml", "f.yaml:2:6: character U+0007"),
        ("[" * 100_000, "too_deep", "f.yaml:1:41"),
        ("- " * 100_000 + "1", "too_deep", "f.yaml:1:81"),
    ],
)
def test_bad_text_is_refused_with_its_place(text: str, code: str, place: str) -> None:
    refusal = refusal_of(text)

    assert refusal.code == code
    assert refusal.message.startswith(place)


def test_an_alias_bomb_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    with no_blow_up():
        assert refusal_of("\n".join(lines)).code == "too_complex"


def test_a_shared_part_may_be_written_once() -> None:
    assert value_of("a: &w {ssid: x}\nb: *w\nc: [*w]\n") == {
        "a": {"ssid": "x"},
        "b": {"ssid": "x"},
        "c": [{"ssid": "x"}],
    }


def test_many_documents_and_empty_ones() -> None:
    documents = yamltext.read_documents("---\na: 1\n---\n# nothing\n---\nb: 2\n...\n", "f.yaml")

    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}]
    assert documents[1].line == 6


def test_carriage_returns_are_line_ends() -> None:
    assert value_of("a: 1\r\nb: |\r\n  x\r\n  y\r\n") == {"a": 1, "b": "x\ny\n"}


def test_every_value_knows_its_place() -> None:
    (document,) = yamltext.read_documents("a:\n  b:\n  - 1\n  - c: 2\n", "f.yaml")

    found = document.at(["a", "b", "1", "c"])
    assert (found.value, found.line, found.column) == (2, 4, 8)
    assert document.at(["a", "b", "9"]).line == 3


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_reads_back_the_same(value: object) -> None:
    written = yamltext.write({"value": value})

    assert value_of(written) == {"value": value}
    assert written.replace("\n", "").isprintable()


def test_what_would_turn_text_round_is_escaped_and_lines_are_not() -> None:
    harmful = "\x9b31m\u202e\u2028\ufeff\U000e0001"
    written = yamltext.write({harmful: harmful, "text": "one\ntwo", "ß": "灯"})

    assert written.isascii() is False
    assert "\\x9B31m\\u202E" in written
    assert written.replace("\n", "").isprintable()
    assert value_of(written) == yaml.safe_load(written) == {harmful: harmful, "text": "one\ntwo", "ß": "灯"}


@pytest.mark.parametrize(
    "text", ["no", "on", "12:30", "1e3", "0o17", "0x1f", "010", "~", "2026-11-20", ".inf", "1_000", "="]
)
def test_written_text_is_text_to_readers_of_both_versions(text: str) -> None:
    written = yamltext.write({"a": text})

    assert value_of(written) == {"a": text}
    assert yaml.safe_load(written) == {"a": text}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        documents = yamltext.read_documents(text, "f")
    except HengeError as error:
        assert error.message.startswith("f:")
    else:
        assert all(document.value is not None and document.value != math.inf for document in documents)
