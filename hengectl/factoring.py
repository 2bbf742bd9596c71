"""Values that many devices set alike, and the groups that could say them once. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from henge_protocol.fieldpath import Path, tokens
from henge_protocol.model import API_VERSION
from henge_protocol.selector import parse_selector
from hengectl.fields import Schema, at, get, has, leaves, merged, without
from hengectl.kinds import Object, name_of


@dataclass(frozen=True, slots=True)
class Lift:
    """A value that all devices which hear a group set themselves, and which the group could set for them."""

    path: Path
    value: Any
    group: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is there: devices and groups by name, and what fields the schemas declare."""

    devices: Mapping[str, Object]
    groups: Mapping[str, Object]
    schemas: Mapping[str, Schema]

    @staticmethod
    def of(devices: Sequence[Object], groups: Sequence[Object], schemas: Sequence[Object]) -> Fleet:
        """From objects as the API lists them."""
        roots = {name_of(one): one.get("spec", {}).get("schema", {}) for one in schemas}
        return Fleet({name_of(one): one for one in devices}, {name_of(one): one for one in groups}, roots)

    def hearing(self, group: str, field: str) -> list[str]:
        """The devices to which a group speaks about a top-level field."""
        spec = self.groups[group]["spec"]
        selector, bound = parse_selector(str(spec.get("selector", ""))), spec.get("schema", "")
        return [
            name
            for name, device in self.devices.items()
            if selector.matches(device["metadata"].get("labels", {}))
            and (schema := device["spec"].get("schema", ""))
            and (schema == bound if bound else bool(at(self.schemas.get(schema, {}), (field,))))
        ]

    def lifts(self, among: frozenset[str]) -> Iterator[list[Lift]]:
        """For each value that could be lifted the groups that could take it: the one that speaks to most first.

        Of groups that speak to the same devices that which selects fewest, so that who joins later is not spoken to.

        Only devices in ``among`` lose values; a field that is overridden anywhere is left alone, because what it
        will be then does not show in documents now.
        """
        overridden = {path for one in (*self.devices.values(), *self.groups.values()) for path in _overridden(one)}
        for path, text in self._said(among):
            if any(path[: len(other)] == other or other[: len(path)] == path for other in overridden):
                continue
            found = [lift for group in self.groups if (lift := self._lift(group, path, text, among)) is not None]
            if found:
                yield sorted(found, key=lambda lift: (-len(lift.devices), *self._breadth(lift.group)))

    def lifted(self, lifts: Sequence[Lift]) -> list[Object]:
        """The groups and devices as they are after these lifts."""
        gone: dict[str, list[Path]] = {}
        values = {lift.group: self.groups[lift.group]["spec"].get("values", {}) for lift in lifts}
        for lift in lifts:
            values[lift.group] = merged(values[lift.group], lift.path, lift.value)
            for name in lift.devices:
                gone.setdefault(name, []).append(lift.path)
        groups = [with_values(self.groups[name], said) for name, said in values.items()]
        devices = [(self.devices[name], paths) for name, paths in gone.items()]
        return [*groups, *(with_values(one, without(_own(one), paths)) for one, paths in devices)]

    def _said(self, among: frozenset[str]) -> list[tuple[Path, str]]:
        """What at least two devices set, as path and JSON."""
        counts: dict[tuple[Path, str], int] = {}
        for name in among & self.devices.keys():
            for path in leaves(_own(self.devices[name])):
                if path:
                    key = path, _text(get(_own(self.devices[name]), path))
                    counts[key] = counts.get(key, 0) + 1
        return sorted(key for key, count in counts.items() if count > 1)

    def _breadth(self, group: str) -> tuple[int, bool, bool, str]:
        """To sort groups, the narrowest first."""
        spec = self.groups[group]["spec"]
        selector = parse_selector(str(spec.get("selector", "")))
        selected = sum(selector.matches(one["metadata"].get("labels", {})) for one in self.devices.values())
        return selected, not spec.get("selector"), not spec.get("schema"), group

    def _lift(self, group: str, path: Path, text: str, among: frozenset[str]) -> Lift | None:
        devices = self.hearing(group, path[0])
        if len(devices) < 2 or not among.issuperset(devices):
            return None
        alike = all(has(own := _own(self.devices[name]), path) and _text(get(own, path)) == text for name in devices)
        return Lift(path, json.loads(text), group, tuple(devices)) if alike else None


def promoted(device: Object, group: Object, path: Path) -> list[Object]:
    """Group and device after a value of the device was moved to the group; other fields of both stay.

    ``KeyError`` if the device does not set it.
    """
    own, values = _own(device), dict(_own(group))
    for where in leaves(get(own, path), path):
        values = merged(values, where, get(own, where))
    return [with_values(group, values), with_values(device, without(own, [path]))]


def with_values(object_: Object, values: Mapping[str, Any]) -> Object:
    """What a person says of an object, with other values; without its status: there may be thousands."""
    said = {
        name: object_["metadata"][name] for name in ("name", "labels", "annotations") if name in object_["metadata"]
    }
    spec = {**object_["spec"], "values": dict(values)}
    return {"apiVersion": API_VERSION, "kind": object_["kind"], "metadata": said, "spec": spec}


def _own(object_: Object) -> Mapping[str, Any]:
    values = object_["spec"].get("values", {})
    return values if isinstance(values, Mapping) else {}


def _overridden(object_: Object) -> list[Path]:
    overrides = object_.get("status", {}).get("overrides", [])
    return [tokens(str(one["pointer"])) for one in overrides]


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
