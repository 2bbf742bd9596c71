"""Apply-sets: to which set of files an object belongs, and who may write it. Pure.

Whoever applies files for a set makes their objects belong to it. An object of a set is changed for that set, or by
somebody who takes it over: by hand it then belongs to none, and the set may have it again only by taking it over in
turn, or by saying the same as the hand did. Overrides are no part of this: they end by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from hengd.records import ObjectRecord
from hengd.rules.objects import content, object_path
from henge_protocol.errors import Conflict, Problem

SHOWN: Final = 8
MAX_NAMES: Final = 100


@dataclass(frozen=True, slots=True)
class Writer:
    """For which apply-set a change is made; by hand if it has no name."""

    apply_set: str = ""
    take_over: bool = False
    """Also what belongs to others."""


BY_HAND: Final = Writer()


class Ownership:
    """To whom the objects of one change belong after it. Without a writer, as when a device joins, to whom they did."""

    def __init__(self, writer: Writer | None) -> None:
        self._writer = writer
        self._foreign: dict[str, ObjectRecord] = {}
        """Objects of others that the change writes, as they were, by path."""

    def written(self, found: ObjectRecord | None, new: ObjectRecord, *, moves: bool = False) -> ObjectRecord:
        """``new``, which takes the place of ``found``, as an object of whom it belongs to now; ``moves``: renamed."""
        writer = self._writer
        if writer is None:
            return new
        differs = moves or (found is not None and _is_owned(found) and content(found) != content(new))
        if found is not None and self._is_foreign(found, writer, differs=differs):
            self._foreign.setdefault(object_path(found.kind, found.name), found)
        if writer.apply_set:
            return replace(new, apply_set=writer.apply_set, taken_from="")
        return replace(new, apply_set="", taken_from=new.apply_set) if differs and new.apply_set else new

    def deleted(self, found: ObjectRecord) -> None:
        """``found`` goes."""
        if self._writer is not None and self._is_foreign(found, self._writer, differs=True):
            self._foreign.setdefault(object_path(found.kind, found.name), found)

    def refusal(self) -> Conflict | None:
        """Why the change needs ``take_over``, ``managed``; None if it does not, or says it."""
        if not self._foreign or self._writer is None or self._writer.take_over:
            return None
        paths, first = list(self._foreign), next(iter(self._foreign.values()))
        said = f"{paths[0]} {_whose(first)}"
        if len(paths) > 1:
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            said = f"{len(paths)} objects are of apply-sets ({', '.join(paths[:SHOWN])}{more}; {said})"
        by = f"for the set {self._writer.apply_set}" if self._writer.apply_set else "by hand"
        problems = [Problem("", _whose(found), path) for path, found in self._foreign.items()]
        return Conflict(
            "managed",
            f"{said}, and this change is made {by}",
            cure=_cure(first),
            problems=problems[:MAX_NAMES],
            extra={"objects": paths[:MAX_NAMES], "object_count": len(paths)},
        )

    def _is_foreign(self, found: ObjectRecord, writer: Writer, *, differs: bool) -> bool:
        if not writer.apply_set:
            return differs and bool(found.apply_set)
        return found.apply_set not in ("", writer.apply_set) or (differs and bool(found.taken_from))


def _is_owned(record: ObjectRecord) -> bool:
    return bool(record.apply_set or record.taken_from)


def _whose(found: ObjectRecord) -> str:
    if found.apply_set:
        return f"belongs to the apply-set {found.apply_set}"
    return f"was taken from the apply-set {found.taken_from} by hand (last changed by {found.author or 'somebody'})"


def _cure(found: ObjectRecord) -> str:
    if found.apply_set:
        return (
            f"change it in its files and apply those with --set {found.apply_set}; to try something: hengectl set ... "
            "--for 1h; to have it from now on: --take-over (in the API ?take_over=1)"
        )
    return "say the same in the files, or leave it out of them; to have it back as the files say: --take-over"
