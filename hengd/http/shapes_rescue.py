"""The form of requests and answers of a rescue, as ``shapes`` has that of everything else. Pure."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from hengd.http.shapes import Count, Digest, Facts, Moment, Name, NoDigest, Shape


class HandInBody(Shape, kw_only=True):
    """What a device runs; document and schema in base64."""

    name: Name
    document: str
    digest: Digest
    schema: str | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    revision: Count | UnsetType = UNSET
    client: str | UnsetType = UNSET
    facts: Facts | UnsetType = UNSET


class RescueWindowBody(Shape):
    """For how long; 0 closes. ``forget`` drops what was handed in before."""

    open_s: Count
    forget: bool | UnsetType = UNSET


class RescueWindow(Shape):
    """Whether devices may hand in what they run, and how many wait for a person."""

    open: bool
    closes: Moment
    waiting: Count


class Rescue(Shape):
    """What one device handed in with one certificate; ``newest``: it showed no newer one."""

    name: Name
    id: str
    address: str
    client: str
    facts: Facts
    handed_in: Moment
    digest: Digest
    size: Count
    schema: NoDigest
    certificate_expires: Moment
    newest: bool


class RescueList(Shape):
    """Who waits, by name; ``total`` of them, of which so many are told."""

    kind: Literal["RescueList"]
    items: list[Rescue]
    total: Count


class WantedDevice(Shape):
    """A device by name or id; with a digest only if that is what it handed in."""

    device: str
    digest: NoDigest | UnsetType = UNSET


class TakeBody(Shape, kw_only=True):
    """Which devices; without ``devices`` all."""

    devices: list[WantedDevice] | UnsetType = UNSET
    name: str | UnsetType = UNSET
    """Another name, for the only one that is taken."""
    schema: str | UnsetType = UNSET
    skip: bool | UnsetType = UNSET


class Taken(Shape):
    """A device that is taken; it runs ``runs`` and is to run ``document``, which ``differs`` in some fields."""

    name: Name
    id: str
    schema: Name
    values: dict[str, Any]
    runs: Digest
    document: Digest
    differs: list[str]
    certificates: Count
    """How many were shown for it; the newest counts."""


class NotTaken(Shape):
    """A device that cannot be taken, and why."""

    name: Name
    id: str
    code: str
    reason: str
    cure: str


class Rescued(Shape):
    """What was taken; in a dry run, what would be."""

    revision: Count
    dry_run: bool
    devices: list[Taken]
    refused: list[NotTaken]
    schemas: list[Name]
    secrets: list[str]
    left: Count
