"""What one layer may say, whatever others say about the same fields."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hengd.rules.conftest import Desk
from tests.service import LAMP, device, group, schema

DIM = {"type": "object", "properties": {"brightness": {"type": "integer", "maximum": 5000}}}


async def test_a_group_without_a_schema_is_checked_though_every_device_says_otherwise(desk: Desk) -> None:
    await desk.apply(schema(), device("one", labels={"room": "hall"}, brightness=1))
    error = await desk.refused(group("hall", "room=hall", brightness=2000))

    assert (error.code, error.problems[0].object, error.problems[0].pointer) == (
        "does_not_fit", "group/hall", "/spec/values/brightness",
    )  # fmt: skip
    assert "does not fit schema lamp" in error.message


async def test_a_group_is_checked_by_the_schemas_of_those_that_it_selects(desk: Desk) -> None:
    await desk.apply(schema("lamp", **LAMP), schema("floodlight", **DIM))
    await desk.apply(device("one", labels={"room": "hall"}), device("two", bound="floodlight", labels={"room": "yard"}))
    await desk.apply(group("yard", "room=yard", brightness=2000))
    error = await desk.refused(group("house", "room in (hall,yard)", brightness=2000))

    assert "schema lamp" in error.message


async def test_what_a_group_says_to_nobody_yet_must_fit_one_schema(desk: Desk) -> None:
    await desk.apply(schema("lamp", **LAMP), schema("floodlight", **DIM))
    await desk.apply(group("attic", "room=attic", brightness=2000))
    error = await desk.refused(group("attic", "room=attic", brightness="much"))

    assert error.code == "does_not_fit"


async def test_a_field_is_not_held_against_a_schema_that_does_not_declare_it(desk: Desk) -> None:
    await desk.apply(schema("lamp", **LAMP), schema("floodlight", **DIM))
    await desk.apply(device("two", bound="floodlight", labels={"room": "yard"}))
    await desk.apply(group("yard", "room=yard", color="red", brightness=4000))
    error = await desk.refused(group("yard", "room=yard", color="pink"))

    assert "schema lamp" in error.message


OPEN = {"type": "object", "properties": {"extra": {"type": "object"}}}


@pytest.mark.parametrize("value", [{"x\0": 1}, {"deep": [{"a\nb": 1}]}, {"\x85": {}}])
async def test_a_name_with_control_characters_is_refused_where_a_schema_leaves_names_open(
    desk: Desk, value: dict[str, Any]
) -> None:
    await desk.apply(schema("lamp", **OPEN), device("one", extra={"née ☃": 1}))
    for refused in (group("hall", "room=hall", extra=value), device("two", extra=value)):
        error = await desk.refused(refused)

        assert error.code == "does_not_fit"
        assert error.problems[0].pointer.startswith("/spec/values/extra/")
        assert "control characters" in error.problems[0].message


COMPOSED, APART = "\u00e9", "e\u0301"


async def test_text_is_kept_as_it_is_spelled_v10(desk: Desk) -> None:
    await desk.apply(schema("lamp", **OPEN), device("one", extra={COMPOSED: APART}), device("two", extra={APART: 1}))

    assert desk.document("one") == {"extra": {COMPOSED: APART}}
    assert desk.document("two") == {"extra": {APART: 1}}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({COMPOSED: 1, APART: 2}, "/spec/values/extra/" + APART),
        ({"deep": [{"K": 1, "\u212a": 2}]}, "/spec/values/extra/deep/0/\u212a"),
    ],
)
async def test_names_that_look_the_same_do_not_stand_side_by_side_v10(
    desk: Desk, value: dict[str, Any], where: str
) -> None:
    await desk.apply(schema("lamp", **OPEN))
    for refused in (group("hall", "room=hall", extra=value), device("two", extra=value)):
        error = await desk.refused(refused)

        assert (error.code, error.problems[0].pointer) == ("does_not_fit", where)
        assert "looks the same" in error.problems[0].message


async def test_nor_when_two_layers_spell_them_differently_v10(desk: Desk) -> None:
    await desk.apply(schema("lamp", **OPEN), group("hall", "room=hall", extra={COMPOSED: 1}))
    error = await desk.refused(device("one", labels={"room": "hall"}, extra={APART: 2}))

    assert (error.code, error.extra["devices"]) == ("does_not_fit", ["one"])
    assert error.problems[0].pointer == "/extra/" + APART


async def test_a_default_has_no_names_with_control_characters(desk: Desk) -> None:
    fields = {"e": {"type": "object", "default": {"\0": 1}}}
    error = await desk.refused(schema("lamp", type="object", properties=fields))

    assert error.code == "bad_default"
