"""Random layers, groups, priorities, overrides, their ends and rollbacks, against a model that takes a page.

After each step every device's document is what the model says, ``why`` tells the same values and who is behind them,
and any two revisions differ in what the model says of them.
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from hengd.rules.configs import Request
from hengd.rules.expiry import Overrides
from hengd.rules.overrides import parse_overriding
from hengd.rules.timekeeping import Timekeeper
from henge_protocol.strictjson import canonical
from tests.hengd.rules.conftest import ADA, NOW, Desk, desk
from tests.service import device, group, schema

__all__ = ["desk"]

STEPS = 60
ROOT = {
    "type": "object",
    "properties": {"a": {"default": 1}, "b": {"properties": {"x": {"default": "d"}}}, "c": {}},
}
DEFAULTS: dict[str, Any] = {"a": 1, "b": {"x": "d"}}
DEVICES = ("one", "two", "three")
GROUPS = ("g0", "g1", "g2", "g3")
ROOMS = ("hall", "den")


@dataclass
class Said:
    """What a group or device says: its values and its overrides (value and end by path)."""

    values: dict[str, Any] = field(default_factory=dict)
    overrides: dict[tuple[str, ...], tuple[Any, float]] = field(default_factory=dict)
    room: str = ""
    priority: int = 0

    def override(self, path: tuple[str, ...], value: Any, until: float) -> None:
        """A new override replaces those of the same field and of fields inside."""
        self.overrides = {one: said for one, said in self.overrides.items() if one[: len(path)] != path}
        self.overrides[path] = value, until


@dataclass
class State:
    """A fleet of one revision."""

    groups: dict[str, Said] = field(default_factory=dict)
    devices: dict[str, Said] = field(default_factory=dict)

    def layers(self, name: str) -> list[tuple[str, Any]]:
        """Who speaks to a device and what it says, the weakest first."""
        mine = self.devices[name]
        heard = sorted(
            ((said.priority, one, said) for one, said in self.groups.items() if said.room in ("", mine.room)),
            key=lambda entry: entry[:2],
        )
        found: list[tuple[str, Any]] = [("schema/any", DEFAULTS)]
        found += [(f"group/{one}", said.values) for _, one, said in heard]
        found.append((f"device/{name}", mine.values))
        for path, said in [*((f"group/{one}", said) for _, one, said in heard), (f"device/{name}", mine)]:
            found += [(f"override/{path}", nested(where, said.overrides[where][0])) for where in sorted(said.overrides)]
        return found

    def document(self, name: str) -> Any:
        """What a device should run."""
        document: Any = {}
        for _, said in self.layers(name):
            document = merge_patch(document, said)
        return document

    def end(self, now: float) -> None:
        """Take away what is over."""
        for said in (*self.groups.values(), *self.devices.values()):
            said.overrides = {where: one for where, one in said.overrides.items() if one[1] > now}


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def nested(path: tuple[str, ...], value: Any) -> Any:
    """A value at a path."""
    for key in reversed(path):
        value = {key: value}
    return value


class World:
    """The real rules and the model, side by side."""

    def __init__(self, desk_: Desk, seed: int) -> None:
        self.desk = desk_
        self.rng = random.Random(seed)
        self.state = State()
        self.history: dict[int, State] = {}
        keeper = Timekeeper(
            desk_.store, ends=lambda: NOW + 1e9, clock=lambda: desk_.now, monotonic=lambda: desk_.now - NOW
        )
        self.overrides = Overrides(desk_.store, desk_.configs, keeper)

    async def begin(self) -> None:
        """Three devices, one revision."""
        await self.desk.apply(schema("any", **ROOT), *[device(name, "any", {"room": "hall"}) for name in DEVICES])
        self.state.devices = {name: Said(room="hall") for name in DEVICES}
        self.state.groups = {"all": Said()}
        self.note()

    def note(self) -> None:
        """Remember the state of the newest revision."""
        self.history.setdefault(self.desk.revisions, deepcopy(self.state))
        assert self.history[self.desk.revisions] == self.state

    async def step(self) -> None:
        """Anything."""
        moves = [
            self.write_group,
            self.write_device,
            self.override,
            self.override,
            self.end_early,
            self.wait,
            self.go_back,
        ]
        await self.rng.choice(moves)()
        self.note()

    async def write_group(self) -> None:
        name = self.rng.choice(GROUPS)
        if name in self.state.groups and self.rng.random() < 0.2:
            await self.desk.apply(delete=(("Group", name),))
            del self.state.groups[name]
            return
        said = self.state.groups.setdefault(name, Said())
        said.values, said.room = self.values(), self.rng.choice(("", *ROOMS))
        said.priority = 1 + 4 * self.rng.randrange(20) + GROUPS.index(name)
        selector = f"room={said.room}" if said.room else ""
        bound = self.rng.choice(("", "any"))
        await self.desk.apply(group(name, selector, said.priority, bound, **said.values))

    async def write_device(self) -> None:
        name = self.rng.choice(DEVICES)
        said = self.state.devices[name]
        said.values, said.room = self.values(), self.rng.choice(ROOMS)
        await self.desk.apply(device(name, "any", {"room": said.room}, **said.values))

    async def override(self) -> None:
        kind, name, said = self.somebody()
        path, value, for_s = self.path(), self.value(), self.rng.randrange(1, 1000)
        said.override(path, value, self.desk.now + for_s)
        await self.change(kind, name, {"set": {".".join(path): value}, "for_s": for_s})

    async def end_early(self) -> None:
        kind, name, said = self.somebody()
        path = self.rng.choice([*said.overrides, self.path()])
        said.overrides.pop(path, None)
        await self.change(kind, name, {"unset": [".".join(path)]})

    async def wait(self) -> None:
        self.desk.now += self.rng.randrange(500)
        self.state.end(self.desk.now)
        await self.overrides.end_due()

    async def go_back(self) -> None:
        to = self.rng.randint(1, self.desk.revisions)
        old = deepcopy(self.history[to])
        old.end(self.desk.now)
        target = self.rng.choice(
            [None, *(("Group", one) for one in self.state.groups), *(("Device", one) for one in DEVICES)]
        )
        if target is None:
            self.state = old
        elif target[0] == "Device":
            self.state.devices[target[1]] = old.devices[target[1]]
        elif target[1] in old.groups:
            self.state.groups[target[1]] = old.groups[target[1]]
        else:
            del self.state.groups[target[1]]
        await self.desk.configs.rollback(to, target, Request(ADA))

    async def change(self, kind: str, name: str, body: dict[str, Any]) -> None:
        await self.overrides.change(kind, name, parse_overriding(body), None, Request(ADA))

    def somebody(self) -> tuple[str, str, Said]:
        kind = self.rng.choice(("Group", "Device"))
        named = self.state.groups if kind == "Group" else self.state.devices
        name = self.rng.choice(sorted(named))
        return kind, name, named[name]

    def path(self) -> tuple[str, ...]:
        return self.rng.choice([("a",), ("b",), ("c",), ("b", "x"), ("b", "y"), ("c", "x"), ("c", "x", "y")])

    def value(self, depth: int = 0) -> Any:
        if self.rng.random() < 0.3 and depth < 2:
            return {key: self.value(depth + 1) for key in self.rng.sample(("x", "y"), self.rng.randrange(3))}
        return self.rng.choice([None, 1, 1.0, True, "t", [], [None, {"x": None}]])

    def values(self) -> dict[str, Any]:
        return {key: self.value() for key in self.rng.sample(("a", "b", "c"), self.rng.randrange(4))}


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every field of a document."""
    if isinstance(value, dict) and (value or not path):
        return {where: leaf for key, inner in value.items() for where, leaf in leaves(inner, (*path, key)).items()}
    return {path: value}


async def check_documents(world: World) -> None:
    for name in DEVICES:
        wanted = world.state.document(name)
        assert canonical(world.desk.document(name)) == canonical(wanted), name
        told = {tuple(one.pointer[1:].split("/")): one for one in await world.desk.configs.why(name) if one.present}
        assert {path: canonical(one.value) for path, one in told.items()} == {
            path: canonical(leaf) for path, leaf in leaves(wanted).items()
        }
        for path, one in told.items():
            assert winner(one) == strongest(world.state.layers(name), path), (name, path)


def winner(explained: Any) -> str:
    [said] = [said for said in explained.layers if said.wins]
    return f"{said.layer}/{said.name}"


def strongest(layers: list[tuple[str, Any]], path: tuple[str, ...]) -> str:
    """The last one that says anything at a field, or says of what is around it that it is no object."""
    for name, said in reversed(layers):
        value = said
        for key in path:
            if not isinstance(value, dict) or key not in value:
                break
            value = value[key]
        else:
            return name
        if not isinstance(value, dict):
            return name
    raise AssertionError(f"nobody says {path}")


async def check_differences(world: World) -> None:
    older, newer = (world.rng.randint(1, world.desk.revisions) for _ in "ab")
    found = await world.desk.configs.between(older, newer, None)
    states = world.history[older], world.history[newer]
    documents = [{name: canonical(state.document(name)) for name in DEVICES} for state in states]

    assert {one.name for one in found.devices} == {name for name in DEVICES if documents[0][name] != documents[1][name]}
    for one in found.devices:
        alone = await world.desk.configs.between(older, newer, ("Device", one.name))
        assert alone.devices == (one,)
    groups = {one.name for one in found.objects if one.kind == "Group"}
    names = states[0].groups.keys() | states[1].groups.keys()
    assert groups >= {name for name in names if states[0].groups.get(name) != states[1].groups.get(name)}


@pytest.mark.parametrize("seed", range(8))
async def test_documents_why_and_history_are_as_the_model_says(desk: Desk, seed: int) -> None:
    world = World(desk, seed)
    await world.begin()
    for _ in range(STEPS):
        await world.step()
        await check_documents(world)
        await check_differences(world)

    assert len(world.history) > STEPS // 3
