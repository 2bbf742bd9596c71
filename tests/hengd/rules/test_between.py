"""What differs between two revisions; tests/properties/test_layers_model.py compares it with a model."""

from __future__ import annotations

import pytest

from hengd.rules.between import Between
from hengd.rules.configs import Request
from henge_protocol.errors import NotFound
from tests.hengd.rules.conftest import ADA, Desk
from tests.service import LAMP, device, group, schema

HALL = {"room": "hall"}


def told(found: Between) -> tuple[list[tuple[str, str]], list[tuple[str, list[str]]]]:
    """Objects with what became of them, and devices with the fields of their documents that differ."""
    objects = [(f"{one.kind}/{one.name}", one.action) for one in found.objects]
    return objects, [(one.name, [change.pointer for change in one.changes]) for one in found.devices]


@pytest.fixture
async def line(desk: Desk) -> Desk:
    """Four revisions: a fleet, a group, another name, and everything but the group gone."""
    await desk.apply(schema(), device("lamp-1", labels=HALL, color="red"), device("lamp-2", labels=HALL))
    await desk.apply(group("hall", "room=hall", color="blue"))
    await desk.configs.rename("lamp-2", "lamp-9", None, Request(ADA))
    await desk.apply(delete=(("Device", "lamp-1"),))
    return desk


async def test_objects_and_documents_are_compared_across_revisions(line: Desk) -> None:
    assert told(await line.configs.between(1, 2, None)) == (
        [("Group/hall", "created")],
        [("lamp-2", ["/color"])],
    )
    assert told(await line.configs.between(2, 3, None)) == (
        [("Device/lamp-9", "renamed")],
        [],
    )
    objects, devices = told(await line.configs.between(1, None, None))
    assert ("Device/lamp-1", "deleted") in objects
    assert devices == [("lamp-1", ["/brightness", "/color"]), ("lamp-9", ["/color"])]


async def test_backwards_is_what_going_back_would_do(line: Desk) -> None:
    back = await line.configs.between(4, 1, None)

    assert (back.older, back.newer) == (4, 1)
    assert ("Group/hall", "deleted") in told(back)[0]
    assert [one.name for one in back.devices if one.after] == ["lamp-1", "lamp-2"]


async def test_nothing_differs_from_itself(line: Desk) -> None:
    assert told(await line.configs.between(2, 2, None)) == ([], [])


async def test_a_device_that_was_made_anew_is_another_one_although_all_its_fields_are_the_same(line: Desk) -> None:
    await line.apply(device("lamp-1", labels=HALL, color="red"))

    assert ("Device/lamp-1", "configured") in told(await line.configs.between(3, 5, None))[0]


async def test_one_object_is_compared_alone(line: Desk) -> None:
    assert told(await line.configs.between(1, 2, ("Device", "lamp-2"))) == ([], [("lamp-2", ["/color"])])
    assert told(await line.configs.between(1, 3, ("Device", "lamp-9"))) == (
        [("Device/lamp-9", "renamed")],
        [("lamp-9", ["/color"])],
    )
    assert told(await line.configs.between(1, 3, ("Device", "lamp-2")))[0] == [("Device/lamp-9", "renamed")]
    assert told(await line.configs.between(1, 2, ("Group", "hall"))) == ([("Group/hall", "created")], [])


async def test_a_schema_is_compared_as_a_schema(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1"))
    await desk.apply(schema(**{**LAMP, "additionalProperties": True}))
    found = await desk.configs.between(2, 1, ("Schema", "lamp"))

    assert [done.compared.verdict for done in found.objects if done.compared] == ["narrower"]


@pytest.mark.parametrize(
    ("older", "newer", "target", "code"),
    [
        (9, None, None, "no_such_revision"),
        (1, 9, None, "no_such_revision"),
        (1, 2, ("Device", "nosuch"), "no_such_object"),
        (1, 1, ("Group", "hall"), "no_such_object"),
    ],
)
async def test_what_never_was_cannot_be_compared(
    line: Desk, older: int, newer: int | None, target: tuple[str, str] | None, code: str
) -> None:
    before = line.everything()
    with pytest.raises(NotFound) as refused:
        await line.configs.between(older, newer, target)

    assert refused.value.code == code
    assert line.everything() == before


NODE = {"type": "object", "properties": {"psk": {"type": "string", "minLength": 8, "writeOnly": True}}}


async def test_secrets_are_told_by_name_and_revision_without_their_key(desk: Desk) -> None:
    await desk.configs.put_secret("wifi/home", "correct horse", None, Request(ADA))
    await desk.apply(schema("node", **NODE), device("one", "node", psk={"$secret": "wifi/home"}))
    await desk.configs.put_secret("wifi/home", "another phrase", None, Request(ADA))
    desk.keys.clear()
    desk.vault._opened = None
    found = await desk.configs.between(2, 3, None)

    assert told(found) == ([("Secret/wifi/home", "configured")], [("one", ["/psk"])])
    [[change]] = [one.changes for one in found.devices]
    assert (change.before, change.after) == (
        {"$secret": "wifi/home", "revision": 1},
        {"$secret": "wifi/home", "revision": 3},
    )
    alone = await desk.configs.between(2, 3, ("Secret", "wifi/home"))
    assert told(alone) == ([("Secret/wifi/home", "configured")], [])
    assert not any(text in repr(found) for text in ("correct horse", "another phrase"))
