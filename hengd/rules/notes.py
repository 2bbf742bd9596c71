"""What transactions note for the after-commit hook: facts, already durable. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hengd.records import Desired, Reported


@dataclass(frozen=True, slots=True)
class Committed:
    """A revision was committed.

    ``rung`` has, by device id, what devices whose delivery differs should run now; ``moved`` their names, without
    those that were deleted.
    """

    revision: int
    changed: tuple[tuple[str, str], ...]
    deleted: tuple[tuple[str, str], ...]
    rung: Mapping[str, Desired | None]
    moved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cut:
    """An identity was revoked or deleted: its live links must go."""

    role: str
    subject: str


@dataclass(frozen=True, slots=True)
class DevicesReported:
    """Reports became durable: the device's name and what it said, in the order of writing."""

    reports: tuple[tuple[str, Reported], ...]


@dataclass(frozen=True, slots=True)
class Rung:
    """Something about a device's delivery changed without a revision (a person said retry)."""

    device_id: str
