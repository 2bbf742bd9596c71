"""Label selectors: what they select, what cannot be read, and which labels none could name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.errors import Invalid
from henge_protocol.selector import MAX_LABELS, MAX_SELECTOR_CHARS, MAX_TERMS, Selector, check_labels, parse_selector

LAMP = {"room": "kitchen", "kind": "lamp", "battery": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("  ", True),
        ("room=kitchen", True),
        ("room==kitchen", True),
        ("room=bedroom", False),
        ("Room=kitchen", False),
        ("room!=kitchen", False),
        ("room!=bedroom", True),
        ("floor!=2", True),
        ("floor=2", False),
        ("battery", True),
        ("mains", False),
        ("!battery", False),
        ("! mains", True),
        ("battery=", True),
        ("battery!=", False),
        ("room in (bedroom, kitchen)", True),
        ("room in (bedroom)", False),
        ("room notin (bedroom,hall)", True),
        ("room notin (kitchen)", False),
        ("floor notin (2)", True),
        ("floor in (2)", False),
        ("room=kitchen,kind=lamp,!mains", True),
        (" room = kitchen , kind != relay ", True),
        ("room=kitchen,kind=relay", False),
        ("room=kitchen,\tbattery\n", True),
    ],
)
def test_a_device_is_selected_when_all_terms_hold(text: str, selected: bool) -> None:
    assert parse_selector(text).matches(LAMP) is selected


def test_words_of_the_grammar_may_be_labels() -> None:
    assert parse_selector("in in (in),notin").matches({"in": "in", "notin": "x"})


def test_a_key_may_have_a_prefix() -> None:
    assert parse_selector("example.org/room=a.b_c-d").matches({"example.org/room": "a.b_c-d"})


@pytest.mark.parametrize(
    ("text", "character"),
    [
        (",", 1),
        ("a,", 3),
        ("a, ", 3),
        ("a,,b", 3),
        ("a b", 1),
        ("a=b=c", 1),
        ("a=b,=c", 5),
        ("=b", 1),
        ("a in ()", 7),
        ("a in (b,)", 7),
        ("a in (b,,c)", 7),
        ("a in b", 1),
        ("a in (b", 1),
        ("a in (-)", 7),
        ("-a", 1),
        ("a-", 1),
        ("a=-", 1),
        ("!", 1),
        ("!a=b", 1),
        ("a>1", 1),
        ("é=1", 1),
        ("a='b'", 1),
        ("a" * 64, 1),
        ("a=" + "b" * 64, 1),
    ],
)
def test_a_selector_that_cannot_be_read_names_the_place(text: str, character: int) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_selector(text)

    assert refusal.value.code == "bad_selector"
    assert refusal.value.message.endswith(f"cannot be read from character {character}")
    assert refusal.value.cure


def test_a_selector_has_at_most_1024_characters() -> None:
    longest = "zone in (" + "a," * 507 + ")"
    longest = longest.replace(",)", ")")
    longest += " " * (MAX_SELECTOR_CHARS - len(longest))
    assert len(parse_selector(longest).terms) == 1

    with pytest.raises(Invalid) as refusal:
        parse_selector(longest + "a")
    assert refusal.value.code == "bad_selector"


def test_a_selector_has_at_most_64_terms() -> None:
    most = ",".join(["a"] * MAX_TERMS)
    assert len(parse_selector(most).terms) == MAX_TERMS

    with pytest.raises(Invalid) as refusal:
        parse_selector(most + ",a")
    assert (refusal.value.code, "65 terms" in refusal.value.message) == ("bad_selector", True)


keys = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,8}[A-Za-z0-9])?", fullmatch=True)
values = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9])?", fullmatch=True)


@given(st.dictionaries(keys, values, max_size=6))
def test_labels_that_are_kept_can_be_selected(labels: dict[str, str]) -> None:
    check_labels(labels)
    text = ",".join(f"{key}={value}" for key, value in labels.items())

    assert parse_selector(text).matches(labels)
    assert parse_selector(",".join(labels)).matches(labels)
    assert parse_selector(",".join(f"!{key}" for key in labels)).matches(labels) is not bool(labels)


@given(st.text(max_size=30))
def test_any_text_gives_a_selector_or_our_own_error(text: str) -> None:
    try:
        found = parse_selector(text)
    except Invalid as error:
        assert error.code == "bad_selector"
    else:
        assert isinstance(found, Selector)


@pytest.mark.parametrize(
    "label", [("", "a"), ("a", "b c"), ("a b", "c"), ("ä", "b"), ("a", "-"), ("a" * 64, ""), ("a", "b" * 64)]
)
def test_labels_that_no_selector_could_name_are_refused(label: tuple[str, str]) -> None:
    with pytest.raises(Invalid) as refusal:
        check_labels(dict([label]))

    assert refusal.value.code == "bad_object"
    assert refusal.value.message.isascii()


def test_an_object_has_at_most_32_labels() -> None:
    check_labels({f"l{number}": "x" for number in range(MAX_LABELS)})

    with pytest.raises(Invalid) as refusal:
        check_labels({f"l{number}": "x" for number in range(MAX_LABELS + 1)})
    assert refusal.value.code == "bad_object"


def test_the_longest_label_is_kept() -> None:
    check_labels({"k" * 63: "v" * 63, "flag": ""})
