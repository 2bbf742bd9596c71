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


async def test_a_default_has_no_names_with_control_characters(desk: Desk) -> None:
    fields = {"e": {"type": "object", "default": {"\0": 1}}}
    error = await desk.refused(schema("lamp", type="object", properties=fields))

    assert error.code == "bad_default"
