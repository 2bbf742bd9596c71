"""``hengectl rescue``: what a person sees before and after devices are taken."""

from __future__ import annotations

import json

import pytest

from hengectl.refusal import CONFLICT, PARTIAL
from tests.hengd.rescuekit import certified, hand_in, handing, open_window, rescued
from tests.hengectl.conftest import Face
from tests.service import LAMP, Admin, Service

RED = {"brightness": 7, "color": "red"}
NODE = {
    "type": "object",
    "properties": {"wifi": {"type": "object", "properties": {"psk": {"type": "string", "writeOnly": True}}}},
}


@pytest.fixture
def person(face: Face, daemon: Service) -> Face:
    """Somebody on the daemon's machine."""
    face.environ(HENGE_SOCKET=str(daemon.socket))
    return face


async def test_the_window_is_told_and_shown_in_the_status(person: Face, daemon: Service, admin: Admin) -> None:
    calm = await person.ok("status")
    opened = await person.ok("rescue", "open", "--for", "1h")
    status = await person.ok("status")
    closed = await person.ok("rescue", "close")

    assert "rescue" not in calm
    assert "may hand in what they run for another" in opened
    assert "the rescue window is open" in status
    assert "\nrescue " in status
    assert "No device may hand in" in closed


async def test_a_person_looks_says_yes_and_has_the_fleet_again(person: Face, daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP, facts={"schema": "lamp"})
    await rescued(daemon, "node-1", {"wifi": {"psk": "sesame-canary"}}, schema=NODE, facts={"schema": "node"})
    listed = await person.ok("rescue", "list")
    assert [line.split()[0] for line in listed.splitlines()] == ["NAME", "lamp-1", "node-1"]
    assert "127.0.0.1" in listed

    looked = await person.run("rescue", "take", "--all", "--dry-run")
    taken = await person.run("rescue", "take", "--all", "--yes")

    assert (looked.code, taken.code) == (0, 0)
    for text in (
        "device/lamp-1  of schema lamp", '+ color        "red"', "runs exactly this: nothing is delivered",
        "device/node-1  of schema node", "some are secret", "new schemas: lamp, node", "new secret: rescued/wifi/psk",
    ):  # fmt: skip
        assert text in looked.out
    assert "sesame-canary" not in looked.out + taken.out
    assert "revision 1, 2 devices taken: lamp-1, node-1" in taken.out
    assert "hengectl factor" in taken.err
    assert "Whether devices may: hengectl rescue status" in (await person.run("rescue", "list")).err  # here they may


async def test_who_says_no_has_changed_nothing(person: Face, daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP)

    ran = await person.run("rescue", "take", "--all", stdin="n\n", terminal=True)

    assert (ran.code, "Nothing was done" in ran.err) == (1, True)
    assert (await admin.ok("GET", "/v1/rescues"))["total"] == 1


async def test_what_cannot_be_taken_is_named_with_what_to_do(person: Face, daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP, facts={"schema": "lamp"})
    await rescued(daemon, "board-1", RED, facts={"schema": "board"})

    looked = await person.run("rescue", "take", "--all", "--dry-run")
    refused = await person.run("rescue", "take", "--all", "--yes")
    skipped = await person.run("rescue", "take", "--all", "--skip", "--yes")

    assert (looked.code, refused.code, skipped.code) == (PARTIAL, CONFLICT, PARTIAL)
    assert "not taken  board-1: board-1 is of schema board, which is not there" in looked.out
    assert "hengectl apply -f FILE" in looked.out
    assert "1 of 2 cannot be taken" in refused.err
    assert "1 device taken: lamp-1" in skipped.out
    assert "1 device still to be taken" in skipped.err


async def test_one_is_taken_by_its_id_under_another_name(person: Face, daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    lamp = await rescued(daemon, "lamp-1", RED, schema=LAMP)
    other = certified(daemon, "lamp-1", device_id=lamp.id, at=1_800_000_000)
    await hand_in(daemon, other, handing("lamp-1", RED, schema=LAMP))
    names = (await person.ok("rescue", "list", "-o", "name")).split()
    listed = json.loads(await person.ok("rescue", "list", "-o", "json"))

    ran = await person.run("rescue", "take", lamp.id, "--as", "porch", "--schema", "lamp", "--yes")

    assert (names, listed["total"]) == ([lamp.id, lamp.id], 2)
    assert "2 certificates of it were shown" in ran.err
    assert "taken: porch" in ran.out
    assert (await admin.ok("GET", "/v1/devices/porch"))["metadata"]["id"] == lamp.id


async def test_a_name_with_the_cursor_in_it_is_no_name(person: Face, daemon: Service, admin: Admin) -> None:
    await open_window(admin)
    await rescued(daemon, "lamp-1", RED, schema=LAMP, facts={"schema": "\x1b[2J\u202elamp"})

    assert "\x1b" not in await person.ok("rescue", "list", "-o", "wide")
