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
SCHEMA: Final = Media("application/json", "the canonical bytes of the device's JSON Schema")
FRAME: Final = Media("application/vnd.henge.frame", "one frame of docs/protocol.md")
EVENTS: Final = Media("text/event-stream", "with Accept: text/event-stream, events as they happen")
BACKUP: Final = Media("application/vnd.henge.sealed", "a backup, sealed with the passphrase")
EVENT_SOCKET: Final = (
    "With Upgrade: websocket, a WebSocket of version 13: each message is an event as in the answer 200, or "
    '{"type": "gap", "next": NUMBER} where some were missed.'
)
"""An answer without a body is described by its text alone: OpenAPI has no words for a WebSocket's messages."""
DEVICE_SOCKET: Final = "A WebSocket of version 13 without extensions: the frames of docs/protocol.md, both ways."
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

    type: Literal[
        "Joined", "Connected", "InSync", "ProtocolUnsupported", "IdentityShared", "RebootRequired", "Accepted"
    ]
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
