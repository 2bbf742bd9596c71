"""What requests for changes carry, what came of them, and how the history tells of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from hengd.http.shapes import Count, Kind, Moment, Name, NoDigest, Object, ObjectBody, ObjectName, Shape, Written


class Deletion(Shape):
    """An object that is to go."""

    kind: Written
    name: Name


class ApplyBody(Shape):
    """Many objects, one transaction."""

    objects: list[ObjectBody] | UnsetType = UNSET
    delete: list[Deletion] | UnsetType = UNSET
    message: str | UnsetType = UNSET


class OverridesBody(Shape):
    """Fields (``wifi.ssid`` or ``/wifi/ssid``) to override for so many seconds, and fields whose overrides end.

    ``values`` is a merge patch of the object's own values, made in the same change.
    """

    set: dict[str, Any] | UnsetType = UNSET
    unset: list[str] | UnsetType = UNSET
    for_s: Count | UnsetType = UNSET
    values: dict[str, Any] | UnsetType = UNSET


class SelectedOverridesBody(Shape):
    """The same, for every device whose labels the selector selects; an empty one selects all."""

    selector: str
    set: dict[str, Any] | UnsetType = UNSET
    unset: list[str] | UnsetType = UNSET
    for_s: Count | UnsetType = UNSET


class RollbackBody(Shape):
    """To which revision, and which object (without: everything)."""

    to: Count
    object: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class RenameBody(Shape):
    """The new name."""

    to: Name


class FieldChange(Shape):
    """A field that differs, without the side that is not there."""

    pointer: str
    before: Any = UNSET
    after: Any = UNSET


class Reason(Shape):
    """One difference between two versions of a schema, and what it means."""

    verdict: Literal["compatible", "narrower", "unknown"]
    pointer: str
    message: str


class Comparison(Shape):
    """Whether all that was valid under a schema's version before stays valid."""

    verdict: Literal["compatible", "narrower", "unknown"]
    reasons: list[Reason]


class Done(Shape):
    """What became of one object."""

    kind: Kind
    name: ObjectName
    action: Literal["created", "configured", "renamed", "unchanged", "deleted"]
    changes: list[FieldChange]
    was: Name | UnsetType = UNSET
    """The name that a renamed device had before."""
    compared: Comparison | UnsetType = UNSET


class Moved(Shape):
    """A device whose document differs."""

    name: Name
    before: NoDigest
    after: NoDigest
    changes: list[FieldChange] | UnsetType = UNSET


class Outcome(Shape):
    """The result of a change, or of a dry run."""

    revision: Count
    epoch: str
    dry_run: bool
    objects: list[Done]
    devices: list[Moved]
    total: Count
    """How many devices there are."""
    offline: Count
    """How many of ``devices`` are not connected."""
    refusing: Count | UnsetType = UNSET
    """Of a dry run: how many of ``devices`` have refused just that document before."""
    too_wide: str | UnsetType = UNSET
    """Of a dry run: why the change would need ``all_at_once``; empty if it would not."""
    managed: str | UnsetType = UNSET
    """Of a dry run: why the change would need ``take_over``; empty if it would not."""
    spared: list[Name] | UnsetType = UNSET
    """Devices that are pruned from a set and stay, because they have joined."""


class Between(Shape):
    """What differs between two revisions."""

    older: Count = msgspec.field(name="from")
    newer: Count = msgspec.field(name="to")
    objects: list[Done]
    devices: list[Moved]


class Touched(Shape):
    """An object that a revision touched; ``before`` and ``after`` when one revision is asked for.

    ``changes`` with ``?diff=1``.
    """

    kind: Kind
    name: ObjectName
    action: Literal["created", "configured", "renamed", "deleted"]
    was: Name | UnsetType = UNSET
    """The name that a renamed device had before."""
    id: str | UnsetType = UNSET
    """Of a device: it survives renaming."""
    changes: list[FieldChange] | UnsetType = UNSET
    before: Object | UnsetType | None = UNSET
    after: Object | UnsetType | None = UNSET


class Revision(Shape):
    """One committed change."""

    revision: Count
    time: Moment
    author: str
    origin: str
    message: str
    changes: list[Touched]
    set: Name | UnsetType = UNSET
    """The apply-set for which it was made."""


class RevisionList(Shape):
    """The newest first."""

    kind: Literal["RevisionList"]
    items: list[Revision]
    before: (
        Annotated[Count, msgspec.Meta(description="there is more than fits: ask again with ?before=")] | UnsetType
    ) = UNSET
