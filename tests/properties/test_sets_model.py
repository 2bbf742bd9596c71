"""Random applies for sets and by hand, prunes, take-overs, deletions and joins, against a model in plain Python.

After each step every object is there or not, says what it should and belongs to whom it should; what the model refuses
is refused with the same code and changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest

from hengd.records import CertificateRecord, ObjectRecord
from hengd.rules.certificates import add_certificate
from hengd.rules.configs import Request
from hengd.rules.fleet import objects_of, required_object
from hengd.rules.ownership import Writer
from hengd.store import Transaction
from henge_protocol.errors import HengeError
from tests.hengd.rules.conftest import ADA, NOW, Desk, desk
from tests.service import device, group, schema

__all__ = ["desk"]

STEPS = 120
SETS = ("", "git", "lab")
"""By hand, and two sets."""
DEVICES = ("lamp-1", "lamp-2", "lamp-3")
GROUPS = ("hall", "den")
COLORS = ("red", "green", "blue")


@dataclass
class Thing:
    """A group or device: what it says and whose it is."""

    color: str
    owner: str = ""
    taken_from: str = ""
    joined: bool = False


class Refused(Exception):
    """The model says no."""


class Model:
    """The rules of apply-sets in a page."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}

    def apply(self, files: Mapping[str, str], by: str, *, prune: bool, take_over: bool, all_at_once: bool) -> set[str]:
        """Make things so; the devices that are spared."""
        after, foreign = deepcopy(self.things), False
        had = {name for name, thing in self.things.items() if thing.owner == by}
        for name, color in files.items():
            thing = after.get(name)
            if thing is None:
                after[name] = Thing(color, by)
                continue
            differs = thing.color != color
            foreign |= self._is_foreign(thing, by, differs=differs)
            if by:
                thing.owner, thing.taken_from = by, ""
            elif differs and thing.owner:
                thing.owner, thing.taken_from = "", thing.owner
            thing.color = color
        gone = had - set(files) if prune else set()
        spared = {name for name in gone if after[name].joined}
        for name in gone - spared:
            del after[name]
        for name in spared:
            after[name].owner = ""
        if foreign and not take_over:
            raise Refused("managed")
        if gone and gone == had and not all_at_once and not (len(had) == 1 and files):
            raise Refused("too_wide")
        self.things = after
        return spared

    def delete(self, name: str, by: str, *, take_over: bool) -> None:
        """Delete one thing."""
        if name not in self.things:
            raise Refused("no_such_device" if name in DEVICES else "no_such_object")
        if self._is_foreign(self.things[name], by, differs=True) and not take_over:
            raise Refused("managed")
        del self.things[name]

    def _is_foreign(self, thing: Thing, by: str, *, differs: bool) -> bool:
        if by == "":
            return differs and thing.owner != ""
        return thing.owner not in ("", by) or (differs and thing.taken_from != "")


class World:
    """The real rules and the model, side by side."""

    def __init__(self, desk_: Desk, seed: int) -> None:
        self.desk = desk_
        self.rng = random.Random(seed)
        self.model = Model()
        self.keys = iter(range(1, 10_000))
        self.refusals: set[str] = set()
        self.spared = 0

    async def step(self) -> None:
        """One random act, on both sides."""
        act = self.rng.choice([self._apply, self._apply, self._apply, self._delete, self._join])
        await act()
        self._compare()

    async def _apply(self) -> None:
        names = self.rng.sample((*DEVICES, *GROUPS), self.rng.randint(0, 5))
        files = {name: self.rng.choice(COLORS) for name in names}
        by, words = self.rng.choice(SETS), {name: self.rng.random() < 0.3 for name in ("take_over", "all_at_once")}
        prune = by != "" and self.rng.random() < 0.5
        expected = self._expected(lambda model: model.apply(files, by, prune=prune, **words))
        request = Request(
            ADA, writer=Writer(by, take_over=words["take_over"]), prune=prune, all_at_once=words["all_at_once"]
        )
        objects = [_object(name, color) for name, color in files.items()]
        try:
            outcome = await self.desk.configs.apply(objects, [], request)
        except HengeError as error:
            assert error.code == expected
        else:
            assert set(outcome.spared) == expected
            self.spared += len(outcome.spared)

    async def _delete(self) -> None:
        name, by, take_over = self.rng.choice((*DEVICES, *GROUPS)), self.rng.choice(SETS), self.rng.random() < 0.3
        expected = self._expected(lambda model: model.delete(name, by, take_over=take_over))
        request = Request(ADA, writer=Writer(by, take_over=take_over), all_at_once=True)
        try:
            await self.desk.configs.delete("Device" if name in DEVICES else "Group", name, None, request)
        except HengeError as error:
            assert error.code == expected
        else:
            assert expected is None

    async def _join(self) -> None:
        name = self.rng.choice(DEVICES)
        thing = self.model.things.get(name)
        if thing is None or thing.joined:
            return
        thing.joined, key = True, next(self.keys).to_bytes(32, "big")

        def operation(tx: Transaction) -> None:
            subject = required_object(tx, "Device", name).id
            add_certificate(
                tx,
                key,
                CertificateRecord(
                    role="device", subject=subject, spki=key.hex(), not_after=NOW + 1, state="active", via="token"
                ),
            )

        await self.desk.store.write(operation)

    def _expected(self, act: Any) -> Any:
        """What the model answers, or the code of its refusal."""
        try:
            return act(self.model)
        except Refused as refusal:
            self.refusals.add(str(refusal))
            return str(refusal)

    def _compare(self) -> None:
        with self.desk.store.read() as tx:
            records = [*objects_of(tx, "Device"), *objects_of(tx, "Group")]
        found = {record.name: _thing(record) for record in records if record.name != "all"}
        assert found == {name: (one.color, one.owner, one.taken_from) for name, one in self.model.things.items()}


def _object(name: str, color: str) -> dict[str, Any]:
    return device(name, color=color) if name in DEVICES else group(name, f"room={name}", color=color)


def _thing(record: ObjectRecord) -> tuple[str, str, str]:
    return record.spec["values"]["color"], record.apply_set, record.taken_from


@pytest.mark.parametrize("seed", range(12))
async def test_sets_are_as_the_model_says(desk: Desk, seed: int) -> None:
    world = World(desk, seed)
    await desk.apply(schema())
    for _ in range(STEPS):
        await world.step()

    assert {"managed", "too_wide"} <= world.refusals
    assert world.spared
