"""What the body of an override says, and which overrides remain after it."""

from __future__ import annotations

from typing import Any

import pytest

from hengd.records import Origin, Override
from hengd.rules.overrides import MAX_FOR_S, MAX_OVERRIDES, overridden, parse_overriding, running, values_of
from henge_protocol.errors import HengeError

ORIGIN = Origin(7, "ada", 10.0, [])


def made(old: list[Override], until: float = 100.0, **body: Any) -> list[Override]:
    """The overrides after a request."""
    wanted = parse_overriding({"for_s": 60 if body.get("set") else 0, **body})
    return overridden(old, wanted, until=until, origin=ORIGIN, message="try")


def test_fields_may_be_dotted_or_pointers() -> None:
    overrides = made([], set={"wifi.ssid": "a", "/a.b/c": 1})

    assert [(one.pointer, one.value) for one in overrides] == [("/a.b/c", 1), ("/wifi/ssid", "a")]
    assert (overrides[0].revision, overrides[0].author, overrides[0].message) == (7, "ada", "try")
    assert values_of(overrides[0]) == {"a.b": {"c": 1}}


def test_a_wider_override_replaces_those_inside_and_a_narrower_one_stands_above() -> None:
    inner = made([], set={"wifi.ssid": "a", "wifix": 1})
    wider = made(inner, set={"wifi": {"ssid": "b"}})
    both = made(wider, set={"wifi.ssid": "c"})

    assert [one.pointer for one in wider] == ["/wifi", "/wifix"]
    assert [one.pointer for one in both] == ["/wifi", "/wifi/ssid", "/wifix"]


def test_an_override_is_ended_by_its_own_name_only() -> None:
    overrides = made([], set={"wifi.ssid": "a"})

    assert made(overrides, unset=["wifi"]) == overrides
    assert made(overrides, unset=["/wifi/ssid", "other"]) == []


def test_an_override_runs_until_its_end() -> None:
    overrides = made([], until=100.0, set={"a": 1})

    assert running(overrides, 99.9) == overrides
    assert running(overrides, 100.0) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"set": {"a": 1}}, "bad_object"),
        ({"set": {"a": 1}, "for_s": 0}, "bad_object"),
        ({"set": {"a": 1}, "for_s": -1}, "bad_object"),
        ({"set": {"a": 1}, "for_s": True}, "bad_object"),
        ({"set": {"a": 1}, "for_s": 1.5}, "bad_object"),
        ({"set": {"a": 1}, "for_s": MAX_FOR_S + 1}, "bad_object"),
        ({"unset": ["a"], "for_s": 60}, "bad_object"),
        ({"set": ["a"], "for_s": 60}, "bad_object"),
        ({"unset": {"a": 1}}, "bad_object"),
        ({"unset": [1]}, "bad_object"),
        ({"set": {"a.b": 1, "/a/b": 2}, "for_s": 60}, "bad_object"),
        ({"set": {"a": 1}, "unset": ["/a"], "for_s": 60}, "bad_object"),
        ({"unset": ["a", "a"]}, "bad_object"),
        ({"set": {"": 1}, "for_s": 60}, "bad_path"),
        ({"set": {"a..b": 1}, "for_s": 60}, "bad_path"),
        ({"unset": ["/a~2"]}, "bad_path"),
        ({"set": {"a.$secret": "wifi/home"}, "for_s": 60}, "bad_path"),
    ],
)
def test_what_is_no_override_is_refused(body: dict[str, Any], code: str) -> None:
    with pytest.raises(HengeError) as refusal:
        parse_overriding(body)

    assert refusal.value.code == code


@pytest.mark.parametrize(("path", "value", "fine"), [(1, 29, True), (1, 30, False), (30, 0, True), (31, 0, False)])
def test_a_document_gets_no_deeper_than_by_writing_it_whole(path: int, value: int, fine: bool) -> None:
    inner: Any = 1
    for number in range(value):
        inner = {"x": inner} if number % 2 else [inner]
    if fine:
        assert len(made([], set={".".join("a" * path): inner})) == 1
        return
    with pytest.raises(HengeError) as refusal:
        made([], set={".".join("a" * path): inner})

    assert refusal.value.code == "too_deep"


@pytest.mark.parametrize("for_s", [1, MAX_FOR_S - 1, MAX_FOR_S])
def test_an_override_runs_for_a_second_to_a_year(for_s: int) -> None:
    assert parse_overriding({"set": {"a": 1}, "for_s": for_s}).for_s == for_s


def test_overrides_of_one_object_are_limited() -> None:
    full = made([], set={f"f{number}": 1 for number in range(MAX_OVERRIDES)})
    with pytest.raises(HengeError) as refusal:
        made(full, set={"one-more": 1})

    assert refusal.value.code == "too_complex"
    assert len(made(full, set={"f0": 2})) == MAX_OVERRIDES
