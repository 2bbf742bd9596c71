"""How wide a change is: whoever changes a large part of a fleet at once, or what may cut devices off, says so.

Devices count that hold something to lose: they had a document before, and were seen. So making a new fleet and
joining devices is never too wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hengd.rules.fleet import find_document, required_object, schema_entry
from hengd.rules.outcome import Differences, Moved, Pruned
from hengd.rules.schemas import SchemaCache
from hengd.store import Reader
from henge_protocol.errors import Conflict
from henge_protocol.fieldpath import field_of, tokens

SMALL_FLEET: Final = 8
"""Of fewer devices a person has an overview."""
MOST_PART: Final = 0.25
SHOWN: Final = 8
MAX_NAMES: Final = 100

CURE: Final = (
    "try it on one device first, for a time: hengectl set device/NAME FIELD=VALUE --for 10m; "
    "if all of them are meant, say so: --all-at-once (in the API ?all_at_once=1)"
)


@dataclass(frozen=True, slots=True)
class TooWide:
    """Why a change needs ``all_at_once``."""

    message: str
    cure: str
    extra: dict[str, object]

    def refusal(self) -> Conflict:
        """The refusal, ``too_wide``."""
        return Conflict("too_wide", self.message, cure=self.cure, extra=self.extra)


def prunes_all(pruned: Pruned) -> TooWide | None:
    """What is too wide about pruning: nothing of a set is left, as when the files are those of something else.

    Of a set of one object another one may take the place.
    """
    if not pruned.gone or pruned.gone < pruned.had or (pruned.had == 1 and pruned.applied):
        return None
    message = f"no object of the set {pruned.apply_set} is in the files: it prunes all {pruned.had}"
    cure = "look whether these are the right files and the right set; if all are meant to go, say so: --all-at-once"
    return TooWide(message, f"{cure} (in the API ?all_at_once=1)", {"objects": pruned.gone})


def too_wide(tx: Reader, schemas: SchemaCache, moved: Sequence[Moved]) -> TooWide | None:
    """What is too wide about a change that is stored and not committed yet; None if nothing is."""
    if len(moved) < 2:
        return None
    seen = set(tx.keys("reported"))
    losing = [one for one in moved if one.before and one.id.encode() in seen]
    if len(losing) < 2:
        return None
    names = tuple(one.name for one in losing)
    fleet = len(seen & ({one.id.encode() for one in losing} | set(tx.keys("desired"))))
    risky = _Risks(tx, schemas).of(losing)
    if risky is not None:
        return _of_devices(*risky, fleet=fleet)
    if fleet >= SMALL_FLEET and len(losing) > MOST_PART * fleet:
        return _of_devices(names, (), fleet=fleet)
    return None


def _of_devices(devices: Sequence[str], fields: Sequence[str], *, fleet: int) -> TooWide:
    """So many devices of the fleet, or (by their pointers) fields that may cut them off."""
    count = len(devices)
    names = ", ".join(devices[:SHOWN]) + (f" and {count - SHOWN} more" if count > SHOWN else "")
    message = f"it changes {count} of {fleet} devices at once, more than {MOST_PART:.0%} of them ({names})"
    if fields:
        shown = ", ".join(field_of(where) for where in fields[:SHOWN])
        message = f"it changes {shown}, which may cut devices off, on {count} devices at once ({names})"
    extra = {"devices": list(devices[:MAX_NAMES]), "device_count": count, "fleet": fleet}
    return TooWide(message, CURE, extra)


class _Risks:
    """Which devices get another value of a field that may cut them off; each pair of documents is compared once."""

    def __init__(self, tx: Reader, schemas: SchemaCache) -> None:
        self._tx = tx
        self._schemas = schemas
        self._differences = Differences()
        self._found: dict[tuple[str, str, str], tuple[str, ...]] = {}

    def of(self, moved: Sequence[Moved]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Names of the devices and pointers of the fields, if there are several devices."""
        risks = {one.name: self._fields(one) for one in moved if one.schema}
        names = tuple(name for name, fields in risks.items() if fields)
        if len(names) < 2:
            return None
        return names, tuple(sorted({field for name in names for field in risks[name]}))

    def _fields(self, one: Moved) -> tuple[str, ...]:
        key = one.schema, one.before, one.after
        if key not in self._found:
            self._found[key] = self._compared(one)
        return self._found[key]

    def _compared(self, one: Moved) -> tuple[str, ...]:
        schema = schema_entry(required_object(self._tx, "Schema", one.schema), self._schemas).compiled
        if not schema.risky_pointers:
            return ()
        changes = self._differences.of_documents(self._shown(one.before), self._shown(one.after))
        return tuple(change.pointer for change in changes if schema.is_risky(tokens(change.pointer)))

    def _shown(self, digest: str) -> bytes:
        document = find_document(self._tx, digest) if digest else None
        return document.shown if document is not None else b""
