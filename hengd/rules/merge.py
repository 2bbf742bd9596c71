"""Layers of values: how they combine and what differs.

Layers merge as RFC 7396 says: objects merge member by member, everything else (lists too) replaces,
and ``null`` removes what a lower layer set.  Nothing here changes its arguments; results share the
parts that stayed the same with them, so treat values as frozen.

A list is one value, and so is a reference to a secret, ``{"$secret": "wifi/home"}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from henge_protocol.fieldpath import Path, pointer
from henge_protocol.model import SECRET_KEY

Values = dict[str, object]


class Missing(Enum):
    """The type of ``MISSING``, which stands for no value at all; ``None`` is the value ``null``."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs; ``before`` or ``after`` is ``MISSING`` where the field is not there."""

    pointer: str
    before: object
    after: object


def merge(base: object, patch: object) -> object:
    """Return ``base`` with ``patch`` applied (RFC 7396 section 2); no ``null`` member of ``patch`` survives.

    A reference to a secret neither merges nor is merged into: it replaces and is replaced whole.
    """
    if not isinstance(patch, dict) or SECRET_KEY in patch:
        return patch
    merged: Values = dict(base) if isinstance(base, dict) and SECRET_KEY not in base else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def overlay(layers: Iterable[Mapping[str, object]]) -> Values:
    """Merge layers, the lowest first; the result has no ``null`` members.

    What ``merge`` would make of them one by one, but nothing is copied for each layer anew.
    """
    merged: Values = {}
    for layer in layers:
        _lay(merged, layer)
    return merged


def drop_nulls(value: object) -> object:
    """Return ``value`` without members that are ``null``, at every depth of objects; lists stay whole."""
    return merge({}, value)


def is_reference(value: object) -> bool:
    """Whether a value stands for a secret, well-formed or not."""
    return isinstance(value, dict) and SECRET_KEY in value


def leaves(value: object) -> Iterator[tuple[str, object]]:
    """Yield ``(pointer, value)`` of every field, in order of keys.

    Lists, nulls, empty objects and references are leaves. An empty outermost object has no fields and yields nothing.
    """
    return ((pointer(path), leaf) for path, leaf in _leaves(value, ()) if path or leaf != {})


def get(values: object, path: Sequence[str], default: object = MISSING) -> object:
    """Return the value at ``path``, or ``default`` where there is none."""
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return default
        values = values[key]
    return values


def speaks(layer: object, path: Sequence[str]) -> bool:
    """Tell whether a layer sets or takes away what stands at ``path``: what is no object speaks for all below it."""
    for key in path:
        if not isinstance(layer, dict) or is_reference(layer):
            return True
        if key not in layer:
            return False
        layer = layer[key]
    return True


def diff(before: object, after: object) -> list[FieldChange]:
    """Return the fields that differ, in order of pointers; numbers of another type (``1``, ``1.0``) differ."""
    return [FieldChange(pointer(path), old, new) for path, old, new in _differences((), before, after)]


def same(left: object, right: object) -> bool:
    """Tell whether two values render to the same bytes: ``1``, ``1.0`` and ``true`` are three values."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    # -0.0 == 0.0, yet they render differently
    return repr(left) == repr(right) if isinstance(left, float) else left == right


def _lay(below: Values, layer: Mapping[str, object]) -> None:
    """Merge a layer into what is below, all of whose objects, references apart, were made here."""
    for key, value in layer.items():
        if value is None:
            below.pop(key, None)
        elif isinstance(value, dict) and SECRET_KEY not in value:
            inner = below.get(key)
            if not isinstance(inner, dict) or SECRET_KEY in inner:
                inner = below[key] = {}
            _lay(inner, value)
        else:
            below[key] = value


def _leaves(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    if isinstance(value, dict) and value and SECRET_KEY not in value:
        for key in sorted(value):
            yield from _leaves(value[key], (*path, key))
    else:
        yield path, value


def _differences(path: Path, before: object, after: object) -> Iterator[tuple[Path, object, object]]:
    if isinstance(before, dict) and isinstance(after, dict) and SECRET_KEY not in before and SECRET_KEY not in after:
        for key in sorted(before.keys() | after.keys()):
            yield from _differences((*path, key), before.get(key, MISSING), after.get(key, MISSING))
    elif before is MISSING:
        yield from ((where, MISSING, leaf) for where, leaf in _leaves(after, path))
    elif after is MISSING:
        yield from ((where, leaf, MISSING) for where, leaf in _leaves(before, path))
    elif not same(before, after):
        yield path, before, after
