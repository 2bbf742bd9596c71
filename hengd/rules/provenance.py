"""Who set each field of an object, and when: kept with the object, brought up to date at each write. Pure.

A field keeps its origin as long as its value stays the same, whatever else of the object changes.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from hengd.records import ObjectChange, ObjectRecord, Origin
from hengd.rules.merge import get, leaves, same
from henge_protocol.fieldpath import Path, pointer, tokens

NOWHERE = Origin(0, "", 0.0, [])


class Provenance:
    """The origins of one object's fields, ready to be asked."""

    def __init__(self, record: ObjectRecord) -> None:
        self._whole = Origin(record.revision, record.author, record.changed, [])
        self._known = {where: origin for origin in record.origins for where in origin.fields}

    def of(self, path: Path) -> Origin:
        """Who set what stands at ``path``: it or its nearest ancestor, else the newest field inside of it.

        An object from before fields had origins answers with its own last change.
        """
        for length in range(len(path), 0, -1):
            found = self._known.get(pointer(path[:length]))
            if found is not None:
                return found
        inside = pointer(path) + "/"
        below = [origin for where, origin in self._known.items() if where.startswith(inside)]
        return max(below, key=lambda origin: origin.revision, default=self._whole)


def origins(old: ObjectRecord | None, values: dict[str, Any], new: Origin) -> list[Origin]:
    """The origins of the fields of ``values``, which replace those of ``old``; ``new`` is this very change."""
    known = Provenance(old) if old is not None else None
    before = old.spec.get("values", {}) if old is not None else {}
    grouped: dict[tuple[int, str, float], list[str]] = {}
    for where, value in leaves(values):
        path = tokens(where)
        stays = known is not None and same(get(before, path), value)
        origin = known.of(path) if known is not None and stays else new
        grouped.setdefault((origin.revision, origin.author, origin.time), []).append(where)
    return [Origin(*key, fields) for key, fields in sorted(grouped.items())]


def without_origins(change: ObjectChange) -> ObjectChange:
    """A change as revisions keep it: they know who set what anyway."""
    sides = (change.before, change.after)
    before, after = (replace(side, origins=[]) if side is not None else None for side in sides)
    return replace(change, before=before, after=after)
