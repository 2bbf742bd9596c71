"""The form of what the daemon says about itself and of who did what; ``shapes`` has that of everything else. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from hengd.http.shapes import Count, Digest, FieldError, Moment, ObjectBody, Shape


class Ready(Shape):
    """Whether the daemon serves, and what it looked at."""

    ready: bool
    checks: dict[str, bool]


class WhoAmI(Shape):
    """Who the daemon takes the caller for."""

    name: str
    role: Literal["viewer", "editor", "admin"]
    via: str


class Counts(Shape):
    """Devices by state, on each axis; ``connection`` and ``config`` without those that were revoked."""

    total: Count
    identity: dict[str, int]
    connection: dict[str, int]
    config: dict[str, int]


class WindowState(Shape):
    """The window for joins or for a rescue, and how many wait in it."""

    open: bool
    closes: Moment
    waiting: Count


class StoreFigures(Shape):
    """Fill of the store, and when a backup was made last."""

    used_bytes: Count
    map_bytes: Count
    free_disk_bytes: Count
    commits: Count
    backed_up: Moment


class Status(Shape):
    """All that a person wants to know first."""

    name: str
    version: str
    fleet: str
    epoch: str
    revision: Count
    started: Moment
    now: Moment
    data_dir: str
    listeners: dict[str, list[str]]
    ca_fingerprint: str
    schemas: Count
    groups: Count
    devices: Counts
    join: WindowState
    rescue: WindowState
    store: StoreFigures
    warnings: list[str]


class ChainEnd(Shape):
    """A record by number and digest."""

    number: Count
    digest: Digest


class AuditRecord(Shape):
    """Who did what; ``previous`` is the SHA-256 of the record before, in its canonical JSON."""

    number: Count
    time: Moment
    who: str
    origin: str
    what: str
    object: str
    revision: Count
    previous: Digest


class AuditList(Shape):
    """A part of the chain; before the first record kept stands the anchor, the newest is the head."""

    kind: Literal["AuditList"]
    anchor: ChainEnd
    head: ChainEnd
    items: list[AuditRecord]


class CheckBody(Shape):
    """What ``apply`` would be given."""

    objects: list[ObjectBody] | UnsetType = UNSET


class Checked(Shape):
    """What a device says of the document that it would get."""

    name: str
    verdict: Literal["fits", "refused", "unsupported", "busy", "silent", "offline"]
    reason: str
    errors: list[FieldError]


class CheckList(Shape):
    """The devices that would get another document."""

    kind: Literal["CheckList"]
    items: list[Checked]
