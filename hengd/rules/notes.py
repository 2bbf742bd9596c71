"""What transactions note for the after-commit hook: facts, already durable. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hengd.records import Desired


@dataclass(frozen=True, slots=True)
class Committed:
    """A revision was committed; ``rung`` has, by device id, what devices whose document differs should run now."""

    revision: int
    changed: tuple[tuple[str, str], ...]
    deleted: tuple[tuple[str, str], ...]
    rung: Mapping[str, Desired | None]


@dataclass(frozen=True, slots=True)
class Cut:
    """An identity was revoked or deleted: its live links must go."""

    role: str
    subject: str


@dataclass(frozen=True, slots=True)
class DeviceReported:
    """A device's report became durable."""

    name: str
    revision: int
    digest: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rung:
    """Something about a device's delivery changed without a revision (a person said retry)."""

    device_id: str
