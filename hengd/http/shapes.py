"""The form of what requests carry and answers say, for ``/v1/openapi.json``; the tests hold every answer against it.

Bodies name every field that a route takes: the handlers read their known fields from here. Pure.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from henge_protocol.model import (
    API_VERSION,
    MAX_NAME_CHARS,
    MAX_SECRET_NAME_CHARS,
    NAME_PATTERN,
    SECRET_NAME_PATTERN,
    Configuration,
    Connection,
)  # fmt: skip

Name = Annotated[str, msgspec.Meta(pattern=f"^{NAME_PATTERN}$", max_length=MAX_NAME_CHARS)]
ObjectName = Annotated[str, msgspec.Meta(pattern=f"^{SECRET_NAME_PATTERN}$", max_length=MAX_SECRET_NAME_CHARS)]
"""Of any object; those of secrets are paths, and every other name is one, too."""
Moment = Annotated[str, msgspec.Meta(pattern="^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$")]
"""RFC 3339 in UTC, empty for never."""
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
NoDigest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
Count = Annotated[int, msgspec.Meta(ge=0)]
Kind = Literal["Schema", "Group", "Device", "Secret"]
Written = Literal["Schema", "Group", "Device"]
"""The kinds that a manifest can have; a secret has a route of its own."""
Labels = dict[str, str]
Facts = dict[str, str | int | float | bool]


class Media(msgspec.Struct, frozen=True):
    """An answer that is not JSON of ours."""

    type: str
    description: str


DOCUMENT: Final = Media("application/json", "the device's document, with references in the place of secrets")
FRAME: Final = Media("application/vnd.henge.frame", "one frame of docs/protocol.md")
EVENTS: Final = Media("text/event-stream", "with Accept: text/event-stream, events as they happen")
BACKUP: Final = Media("application/vnd.henge.sealed", "a backup, sealed with the passphrase")
EVENT_SOCKET: Final = (
    "With Upgrade: websocket, a WebSocket of version 13: each message is an event as in the answer 200, or "
    '{"type": "gap", "next": NUMBER} where some were missed.'
)
"""An answer without a body is described by its text alone: OpenAPI has no words for a WebSocket's messages."""
TEXT: Final = Media("text/plain", "ok")
METRICS: Final = Media("text/plain", "figures in Prometheus' text format 0.0.4")


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    """Something with exactly these fields."""


def fields_of(shape: type[Shape]) -> tuple[str, ...]:
    """The names that a body of this shape may have."""
    return tuple(field.encode_name for field in msgspec.structs.fields(shape))


# ---- refusals ------------------------------------------------------------------------------------------


class Fault(Shape):
    """One thing that is wrong, and where."""

    pointer: str
    message: str
    object: str


class Problem(msgspec.Struct, kw_only=True):
    """A refusal (RFC 9457); ``code`` is stable, some codes add fields of their own."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    cure: str | UnsetType = UNSET
    errors: list[Fault] | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


# ---- objects -------------------------------------------------------------------------------------------


class MetadataBody(Shape):
    """What a person says about an object; what the daemon sets is ignored."""

    name: Name | UnsetType = UNSET
    labels: Labels | UnsetType | None = UNSET
    annotations: Labels | UnsetType | None = UNSET
    id: Any = UNSET
    revision: Any = UNSET
    created: Any = UNSET
    changed: Any = UNSET
    author: Any = UNSET
    set: Any = UNSET
    taken_from: Any = UNSET


class ObjectBody(Shape):
    """An object as a person writes it; ``status`` is ignored."""

    apiVersion: Literal["henge/v1"] | UnsetType = UNSET  # noqa: N815 - the wire's spelling
    kind: Written | UnsetType = UNSET
    metadata: MetadataBody | UnsetType = UNSET
    spec: dict[str, Any] | UnsetType = UNSET
    status: Any = UNSET


class PatchBody(msgspec.Struct):
    """A merge patch (RFC 7396) of an object."""

    metadata: dict[str, Any] | UnsetType | None = UNSET
    spec: dict[str, Any] | UnsetType | None = UNSET


class Metadata(Shape, kw_only=True):
    """What an object is called and what the daemon knows of it."""

    name: ObjectName
    labels: Labels
    annotations: Labels | UnsetType = UNSET
    id: str | UnsetType = UNSET
    revision: Count
    created: Moment
    changed: Moment
    author: str | UnsetType = UNSET
    set: Name | UnsetType = UNSET
    """The apply-set that it belongs to."""
    taken_from: Name | UnsetType = UNSET
    """The apply-set that it was taken from by hand."""


class Desired(Shape):
    """What a device should run."""

    revision: Count
    digest: Digest
    size: Count


class FieldError(Shape):
    """What a device says about one field."""

    pointer: str
    message: str


class Reported(Shape):
    """What a device last said."""

    epoch: str
    revision: Count
    digest: NoDigest
    state: str
    reason: str
    at: Moment
    running: NoDigest
    errors: list[FieldError]


class Condition(Shape):
    """One statement about an object: whether it holds, why, as of which revision, since when (empty: not known)."""

    type: Literal["Joined", "Connected", "InSync", "IdentityShared", "Accepted"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    observed_revision: Count
    since: Moment


class Override(Shape):
    """A value of one field, stronger than every layer, that ends by itself."""

    field: str
    pointer: str
    value: Any
    until: Moment
    revision: Count
    author: str
    time: Moment
    message: str


class LayerStatus(Shape):
    """What is true of a schema or a group, and what it overrides; in a revision the overrides alone."""

    conditions: list[Condition] | UnsetType = UNSET
    overrides: list[Override] | UnsetType = UNSET


class DeviceStatus(Shape, kw_only=True):
    """A device on its two axes."""

    id: str
    identity: Literal["none", "active", "revoked"]
    connection: Connection
    since: Moment
    seen: Moment
    address: str
    config: Configuration
    desired: Desired | None
    reported: Reported | None
    client: str
    facts: Facts
    conditions: list[Condition]
    shared: list[str] | UnsetType = UNSET
    """Addresses of two devices that show one certificate."""
    due: Moment | UnsetType = UNSET
    overrides: list[Override] | UnsetType = UNSET


class Object(Shape):
    """A Schema or Group as it is, or a Device as it was in a revision."""

    apiVersion: Literal["henge/v1"]  # noqa: N815 - the wire's spelling
    kind: Kind
    metadata: Metadata
    spec: dict[str, Any]
    status: LayerStatus | UnsetType = UNSET


class Device(Shape):
    """A Device as it is."""

    apiVersion: Literal["henge/v1"]  # noqa: N815 - the wire's spelling
    kind: Literal["Device"]
    metadata: Metadata
    spec: dict[str, Any]
    status: DeviceStatus


class ListMetadata(Shape):
    """Of which moment a list is."""

    epoch: str
    revision: Count
    event_seq: Count
    next: Annotated[str, msgspec.Meta(description="there is more: ask again with ?continue=")] | UnsetType = (
        msgspec.field(default=UNSET, name="continue")
    )


class ObjectList(Shape):
    """Objects of one kind, by name."""

    kind: Literal["SchemaList", "GroupList"]
    metadata: ListMetadata
    items: list[Object]


class DeviceList(Shape):
    """Devices, by name."""

    kind: Literal["DeviceList"]
    metadata: ListMetadata
    items: list[Device]


# ---- changes -------------------------------------------------------------------------------------------


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
    action: Literal["created", "configured", "unchanged", "deleted"]
    changes: list[FieldChange]
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
    action: Literal["created", "configured", "deleted"]
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


class Said(Shape):
    """What one layer says about a field."""

    layer: Literal["schema", "group", "device", "override"]
    name: str
    value: Any
    removes: bool
    revision: Count
    author: str
    time: Moment
    wins: bool
    until: Moment | UnsetType = UNSET


class Explained(Shape, kw_only=True):
    """Where a field's value comes from, the strongest layer first."""

    field: str
    pointer: str
    present: bool
    value: Any = UNSET
    layers: list[Said]


class Why(Shape):
    """Every field of a device, or those asked for."""

    device: Name
    fields: list[Explained]


class Event(msgspec.Struct, kw_only=True):
    """One happening; its type adds fields of its own."""

    seq: Count
    time: Moment
    type: str
    kind: str
    name: str


class Events(Shape):
    """What happened after a number; ``gap``: some were missed."""

    events: list[Event]
    next: Count
    gap: bool


class BackupBody(Shape):
    """What seals a backup."""

    passphrase: Annotated[str, msgspec.Meta(min_length=8, max_length=1024)]


class NoBody(Shape):
    """An empty object, or nothing."""


assert API_VERSION == "henge/v1", "the shapes say it literally"
