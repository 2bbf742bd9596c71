"""Which values could be lifted to which groups; what a lift or a promotion leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from hengectl.factoring import Fleet, promoted
from tests.service import LAMP, device, group, schema

HALL = {"room": "hall"}


def fleet(groups: list[dict[str, Any]], devices: list[dict[str, Any]]) -> Fleet:
    """A fleet of lamps."""
    return Fleet.of(devices, groups, [schema(), schema("fan", type="object", properties={"speed": {}})])


def told(found: Fleet, *among: str) -> list[tuple[str, Any, list[str]]]:
    """Each value with the groups that could take it."""
    names = frozenset(among or found.devices)
    return [
        (".".join(choices[0].path), choices[0].value, [one.group for one in choices]) for choices in found.lifts(names)
    ]


def test_a_group_takes_what_all_who_hear_it_set_alike_and_the_widest_comes_first() -> None:
    devices = [
        device("a", labels=HALL, color="red", wifi={"ssid": "x", "channel": 1}),
        device("b", labels=HALL, color="red", wifi={"ssid": "x", "channel": 2}),
        device("c", wifi={"ssid": "x"}),
        device("fan", bound="fan", labels=HALL),
    ]
    found = fleet([group("all"), group("hall", "room=hall"), group("fans", bound="fan")], devices)

    assert told(found) == [("color", "red", ["hall"]), ("wifi.ssid", "x", ["all", "hall"])]
    assert told(found, "a", "b") == [("color", "red", ["hall"]), ("wifi.ssid", "x", ["hall"])]
    assert told(found, "a") == []


def test_of_groups_with_the_same_devices_the_narrowest_takes_the_value() -> None:
    devices = [device(name, labels=HALL, color="red") for name in "ab"]
    devices.append(device("fan", bound="fan", labels={"room": "attic"}))
    groups = [group("all"), group("any", "room"), group("hall", "room=hall"), group("lamps", bound="lamp")]

    assert told(fleet(groups, devices)) == [("color", "red", ["hall", "any", "lamps", "all"])]


def test_numbers_of_another_type_are_not_alike_and_null_is_a_value() -> None:
    devices = [device("a", color=None, brightness=1), device("b", color=None, brightness=True)]

    assert told(fleet([group("all")], devices)) == [("color", None, ["all"])]


def test_a_field_that_is_overridden_inside_or_around_is_left_alone() -> None:
    devices = [device(name, wifi={"ssid": "x"}, color="red") for name in "ab"]
    for pointer in ("/wifi", "/wifi/ssid", "/wifi/ssid/x"):
        groups = [{**group("all"), "status": {"overrides": [{"pointer": pointer}]}}]
        assert told(fleet(groups, devices)) == [("color", "red", ["all"])]


def test_lifted_objects_say_everything_else_as_before_and_have_no_status() -> None:
    devices = [{**device(name, wifi={"ssid": "x"}, brightness=n), "status": {}} for n, name in enumerate("ab")]
    found = fleet([group("all", wifi={"channel": 6})], devices)
    lifts = [choices[0] for choices in found.lifts(frozenset("ab"))]
    all_, a, b = found.lifted(lifts)

    assert all_["spec"]["values"] == {"wifi": {"channel": 6, "ssid": "x"}}
    assert [one["spec"]["values"] for one in (a, b)] == [{"brightness": 0}, {"brightness": 1}]
    assert a["metadata"] == {"name": "a", "labels": {}}
    assert "status" not in a


def test_a_promoted_object_is_merged_into_the_groups() -> None:
    one = device("a", wifi={"ssid": "x", "channel": None}, color="red")
    to, rest = promoted(one, group("all", wifi={"channel": 6, "band": 5}), ("wifi",))

    assert to["spec"]["values"] == {"wifi": {"ssid": "x", "channel": None, "band": 5}}
    assert rest["spec"]["values"] == {"color": "red"}
    with pytest.raises(KeyError):
        promoted(one, group("all"), ("wifi", "nosuch"))


def test_a_field_that_only_another_schema_declares_is_not_heard() -> None:
    found = fleet(
        [group("all"), group("lamps", bound="lamp")], [device("a"), device("fan", bound="fan"), device("x", "")]
    )

    assert list(LAMP["properties"]) == ["color", "brightness", "wifi"]
    assert [found.hearing("all", field) for field in ("color", "speed", "nosuch")] == [["a"], ["fan"], []]
    assert found.hearing("lamps", "speed") == ["a"]


def test_a_reference_to_a_secret_is_lifted_and_promoted_whole() -> None:
    home = {"$secret": "wifi/home"}
    devices = [device(name, labels=HALL, wifi={"ssid": home}) for name in "ab"]
    group_, after = promoted(devices[0], group("hall", "room=hall", wifi={"ssid": "x"}), ("wifi", "ssid"))

    assert told(fleet([group("hall", "room=hall")], devices)) == [("wifi.ssid", home, ["hall"])]
    assert group_["spec"]["values"] == {"wifi": {"ssid": home}}
    assert after["spec"]["values"].get("wifi", {}) == {}
