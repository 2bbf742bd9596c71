"""Where a device's values come from: what each layer says about a field, who wins, and who said it when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hengd.records import ObjectRecord, Origin
from hengd.rules.merge import MISSING, leaves, overlay
from hengd.rules.provenance import NOWHERE, Provenance
from hengd.rules.rendering import Layer
from henge_protocol.fieldpath import Path, field_of, pointer, tokens

Sources = Mapping[tuple[str, str], ObjectRecord | None]
"""The object behind each layer, by the layer's kind and name."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one layer says about a field, and who set that there; ``removes`` when it takes the inherited value away."""

    layer: str
    name: str
    value: object
    removes: bool
    revision: int
    author: str
    time: float
    wins: bool
    until: float = 0.0
    """When an override ends; 0 = it is none."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A field of a device: its value and everybody who speaks about it, the strongest first."""

    field: str
    pointer: str
    present: bool
    value: object
    layers: tuple[Said, ...]


def explain(layers: Sequence[Layer], sources: Sources, path: Path = ()) -> list[Explained]:
    """What stands at ``path``, then, if that is an object, each field inside of it; of the whole document its fields.

    A field that a layer took away is explained, too; empty if there is no such field. An item of a list belongs to
    whoever set the list. In an object every layer wins that wins a field inside of it.
    """
    document = overlay(layer.values for layer in layers)
    value = _at(document, path)
    below = [(*path, *tokens(where)) for where, _ in leaves(value)] if isinstance(value, dict) else []
    voices = [
        _Voice(layer, Provenance(source) if source is not None else None)
        for layer, source in ((layer, sources.get((layer.kind, layer.name))) for layer in reversed(layers))
    ]
    fields = [_explain(one, _at(document, one), voices) for one in below if one != path]
    if not path:
        return fields
    whole = _explain(path, value, voices)
    return [_shared(whole, fields) if fields else whole, *fields] if whole.layers else []


@dataclass(frozen=True, slots=True)
class _Voice:
    """A layer, and who set its fields; a default is as old as the last change of its schema."""

    layer: Layer
    provenance: Provenance | None

    def says(self, path: Path, *, wins: bool) -> Said | None:
        """What the layer says about a field: an ancestor that is no object speaks for all below it."""
        value: object = self.layer.values
        for number, key in enumerate(path):
            if not isinstance(value, dict):
                item = _at(value, path[number:])
                value = value if item is MISSING else item
                break
            if key not in value:
                return None
            value = value[key]
            if value is None:
                return self._said(path, None, removes=True, wins=wins)
        return self._said(path, value, removes=False, wins=wins)

    def _said(self, path: Path, value: object, *, removes: bool, wins: bool) -> Said:
        override = self.layer.override
        origin = self._origin(path)
        return Said(
            self.layer.kind,
            self.layer.name,
            value,
            removes,
            origin.revision,
            origin.author,
            origin.time,
            wins,
            override.until if override is not None else 0.0,
        )

    def _origin(self, path: Path) -> Origin:
        if self.layer.override is not None:
            return Origin(self.layer.override.revision, self.layer.override.author, self.layer.override.time, [])
        return self.provenance.of(path) if self.provenance is not None else NOWHERE


def _explain(path: Path, value: object, voices: Sequence[_Voice]) -> Explained:
    said: list[Said] = []
    for voice in voices:
        one = voice.says(path, wins=not said)
        if one is not None:
            said.append(one)
    present = value is not MISSING
    if not present and not (said and said[0].removes):
        said = []  # nobody took it away: there is no such field
    return Explained(field_of(pointer(path)), pointer(path), present, value if present else None, tuple(said))


def _shared(whole: Explained, fields: Sequence[Explained]) -> Explained:
    """An object that several layers have made together."""
    winners = {(said.layer, said.name) for one in fields for said in one.layers if said.wins}
    said = tuple(replace(one, wins=(one.layer, one.name) in winners) for one in whole.layers)
    return replace(whole, layers=said)


def _at(value: object, path: Sequence[str]) -> object:
    """The value at a path, through objects and lists; ``MISSING`` where there is none."""
    for key in path:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdecimal() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            return MISSING
    return value
