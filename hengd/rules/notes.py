"""What transactions note for the after-commit hook: facts, already durable. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Committed:
    """A revision was committed; ``rung`` are the ids of devices whose document differs now."""

    revision: int
    changed: tuple[tuple[str, str], ...]
    deleted: tuple[tuple[str, str], ...]
    rung: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """An identity was revoked or deleted: its live links must go."""

    role: str
    subject: str


@dataclass(frozen=True, slots=True)
class DeviceReported:
    """A device's report became durable."""

    device_id: str
    revision: int
    digest: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rung:
    """Something about a device's delivery changed without a revision (a person said retry)."""

    device_id: str
