"""The fleet as it was at any revision, and the history that tells it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from hengd import records
from hengd.records import ObjectRecord, RevisionRecord
from hengd.rules import history
from hengd.rules.configs import Request
from hengd.rules.fleet import find_object, objects_of
from hengd.rules.history import FleetAt, changes_since
from henge_protocol.errors import HengeError, NotFound
from tests.hengd.rules.conftest import ADA, Desk
from tests.service import device, group, schema

KINDS = ("Schema", "Group", "Device")
Fleet = dict[str, list[ObjectRecord]]


def plain(records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """Without the origins of fields, which only the present has: revisions know who set what anyway."""
    return [replace(record, origins=[]) for record in records]


def now(desk: Desk) -> Fleet:
    with desk.store.read() as tx:
        return {kind: plain(objects_of(tx, kind)) for kind in KINDS}


def then(desk: Desk, revision: int) -> Fleet:
    with desk.store.read() as tx:
        fleet = FleetAt(tx, revision)
        return {kind: plain(fleet.of(kind)) for kind in KINDS}


async def anything(desk: Desk, rng: random.Random) -> None:
    """One change, of whatever kind; it may be refused."""
    names = [record.name for record in now(desk)["Device"]]
    what = rng.randrange(6)
    if what == 0 or not names:
        await desk.apply(device(f"lamp-{rng.randrange(8)}", labels={"room": rng.choice(["hall", "attic"])}))
    elif what == 1:
        await desk.apply(group("hall", "room=hall", brightness=rng.randrange(100)))
    elif what == 2:
        await desk.apply(delete=(("Device", rng.choice(names)),))
    elif what == 3:
        await desk.configs.rename(rng.choice(names), f"lamp-{rng.randrange(8)}", None, Request(ADA))
    elif what == 4:
        await desk.configs.rollback(rng.randrange(1, desk.revisions + 1), None, Request(ADA))
    else:
        await desk.patch(f"Device/{rng.choice(names)}", {"spec": {"values": {"brightness": rng.randrange(100)}}})


@pytest.mark.parametrize("seed", range(5))
async def test_every_revision_reads_as_it_was_when_it_was_the_newest(desk: Desk, seed: int) -> None:
    rng = random.Random(seed)
    await desk.apply(schema())
    seen = {1: now(desk)}
    for _ in range(40):
        try:
            await anything(desk, rng)
        except HengeError:
            continue  # a name that is taken, a device that is not there
        seen[desk.revisions] = now(desk)

    assert len(seen) > 15
    assert {revision: then(desk, revision) for revision in seen} == seen


async def test_single_objects_are_found_as_they_were(desk: Desk) -> None:
    await desk.apply(schema(), device("one", color="red"), device("untouched"))
    await desk.apply(device("one", color="blue"), device("two"))
    await desk.apply(delete=(("Device", "one"),))
    with desk.store.read() as tx:
        fleets = [FleetAt(tx, revision) for revision in range(4)]
        found = [fleet.find("Device", "one") for fleet in fleets]
        assert [fleet.find("Device", "two") is not None for fleet in fleets] == [False, False, True, True]
        assert fleets[1].find("Device", "untouched") == find_object(tx, "Device", "untouched")

    assert [one and one.spec["values"]["color"] for one in found] == [None, "red", "blue", None]
    assert [sorted(name for _, name in fleet.changed) for fleet in fleets] == [
        ["lamp", "one", "two", "untouched"], ["one", "two"], ["one"], [],
    ]  # fmt: skip


@pytest.mark.parametrize("revision", [-1, 3, 2**63, 2**70])
async def test_a_revision_that_never_was_cannot_be_read(desk: Desk, revision: int) -> None:
    await desk.apply(schema())
    await desk.apply(device("one"))
    with pytest.raises(NotFound) as refused, desk.store.read() as tx:
        FleetAt(tx, revision)

    assert refused.value.code == "no_such_revision"


async def test_the_fleet_is_readable_back_to_the_oldest_revision_that_is_kept(desk: Desk) -> None:
    await desk.apply(schema())
    for number in range(6):
        await desk.apply(device("one", brightness=number))
    desk.now += 1000
    assert await desk.configs.prune(3, 10, now=desk.now) == 4

    values: list[Any] = [then(desk, revision)["Device"][0].spec["values"]["brightness"] for revision in (4, 5, 6, 7)]
    assert values == [2, 3, 4, 5]
    with pytest.raises(NotFound):
        then(desk, 3)


async def test_changes_since_are_told_in_their_order(desk: Desk) -> None:
    await desk.apply(schema(), device("one"))
    await desk.apply(device("one", color="red"))
    await desk.configs.rename("one", "two", None, Request(ADA))
    with desk.store.read() as tx:
        told = [(change.name, change.before is None, change.after is None) for change in changes_since(tx, 1)]

    assert told == [("one", False, False), ("one", False, True), ("two", True, False)]


async def test_of_the_history_of_one_object_nothing_else_is_decoded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.apply(schema(), device("lamp-1"), device("lamp-12"))
    for brightness in range(5):
        await desk.apply(device("lamp-12", brightness=brightness))
    await desk.apply(device("lamp-1", brightness=1))
    decoded: list[int] = []

    def unpack(kind: type[RevisionRecord], payload: bytes) -> RevisionRecord:
        record = records.unpack(kind, payload)
        decoded.append(record.revision)
        return record

    monkeypatch.setattr(history, "unpack", unpack)
    found = desk.history(object_=("Device", "lamp-1"))

    assert [record.revision for record in found] == decoded == [7, 1]
