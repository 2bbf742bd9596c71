"""What the store keeps, as types and bytes. Pure.

Payloads are JSON of these structs, defaults left out; keys are validated ASCII, digests or big-endian numbers.
A new field gets a default, so that old records stay readable; anything else is a migration.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

import msgspec

FORMAT: Final = 1
"""Number of the store's layout; a newer one is refused, an older one is migrated."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The store's own facts, one record."""

    format: int
    fleet: str
    epoch: str
    begins: int = 0
    """The revision at which this epoch began: what devices say of a later one of another epoch is news to us."""
    revision: int = 0
    created: float = 0.0
    backed_up: float = 0.0
    """When a backup was made last, 0.0 = never."""
    clock_high_water: float = 0.0
    """The mark: a moment that has passed for certain; see ``rules.timekeeping``."""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """A change, and the fields (JSON pointers into the values) that still are as it set them."""

    revision: int
    author: str
    time: float
    fields: list[str]


class Override(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of one field, stronger than all layers, until a moment (unix seconds)."""

    pointer: str
    value: Any
    until: float
    revision: int
    author: str
    time: float
    message: str = ""


class ObjectRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One Schema, Group, Device or Secret as it was last written; of a secret everything but its value."""

    kind: str
    name: str
    spec: dict[str, Any]
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    id: str = ""
    """Devices only: assigned once, survives renaming."""
    digest: str = ""
    """Schemas only: digest of the JSON Schema, so that it is compiled once and not hashed at every change."""
    revision: int = 0
    created: float = 0.0
    changed: float = 0.0
    author: str = ""
    origins: list[Origin] = []
    """Groups and devices: who set each field. Not kept in revisions, which know it anyway."""
    overrides: list[Override] = []
    """Groups and devices: beside the spec, so that whoever writes that neither removes nor sees them."""
    apply_set: str = ""
    """To whose files it belongs; empty: to nobody's. See ``rules.ownership``."""
    taken_from: str = ""
    """The set that it was taken from by hand."""


class ObjectChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One object in one revision; ``None`` before = created, ``None`` after = deleted."""

    kind: str
    name: str
    before: ObjectRecord | None = None
    after: ObjectRecord | None = None


class RevisionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One committed change."""

    revision: int
    time: float
    author: str
    origin: str
    message: str = ""
    changes: list[ObjectChange] = []
    apply_set: str = ""
    """For which set it was made; empty: by hand."""


class Desired(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one device should run; the bytes stand under the digest."""

    revision: int
    digest: str
    size: int
    confirm_s: int = 120
    schema: str = ""
    """Digest of the schema that it fits."""
    later_bytes: int = 0
    """Of the largest document that ends of overrides make of it; 0 = none is larger."""


class ReportedError(msgspec.Struct, frozen=True):
    """What a device said about one field."""

    pointer: str
    message: str


class Reported(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one device last said, and what it refused."""

    epoch: str = ""
    revision: int = 0
    digest: str = ""
    state: str = "none"
    reason: str = ""
    errors: list[ReportedError] = []
    at: float = 0.0
    running: str = ""
    """Digest the device runs: differs from ``digest`` after it refused that one."""
    adrift: bool = False
    """Its files do not hold ``running`` now, as it said itself."""
    reboot: bool = False
    """Some of ``running`` counts only after the machine's next start, as it said itself."""
    refused: str = ""
    """Quarantined digest: not offered again until the document changes or a person says retry."""
    transient: bool = False
    client: str = ""
    speaks_from: int = 1
    speaks_to: int = 1
    """Lowest and highest protocol version, as its last hello said."""
    facts: dict[str, str | int | float | bool] = {}
    address: str = ""
    seen: float = 0.0
    next_contact_s: int = 0
    max_document: int = 0
    boot: str = ""
    boots_before: list[tuple[str, str]] = []
    """Nonces of boots that were replaced by another, and their addresses; the last few."""
    shared: list[str] = []
    """Addresses of two devices that showed one certificate: a nonce came back after another. Empty: none did."""
    shared_since: float = 0.0
    known: tuple[str, int] = ("", 0)
    """Epoch and revision of another history line that it ran when a person took it over: they are no news."""


class CertificateRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One issued certificate; the key is its SHA-256. Not on this list means not let in."""

    role: str
    subject: str
    """Device id or operator name."""
    spki: str
    not_after: float
    state: str
    """issued, active, superseded or revoked."""
    via: str
    by: str = ""
    at: float = 0.0
    rights: str = "admin"
    """Operators only: viewer, editor or admin."""
    told: list[str] = []
    """Which server authorities its owner was told to trust, as ``authorities.short``; none: nobody kept account yet."""
    signed_by: str = ""
    """Which client authority signed it; empty: nobody kept account yet."""


class RotationRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of the rotation of authorities; what is in force stands in their files."""

    within_s: int = 86_400
    """Within which time devices are asked to renew."""
    in_force: list[str] = []
    """The authorities at the last step that the audit has: ``server:...``, ``client:...``, those that sign first."""
    switched: float = 0.0
    """When the server authority that signs took over from the one that is still told; 0 = there is none."""


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One token; the secret is kept as SHA-256 only."""

    id: str
    kind: str
    secret_sha256: str
    expires: float
    created: float
    by: str = ""
    pattern: str = "*"
    schema: str = ""
    labels: dict[str, str] = {}
    uses: int = 1
    used: int = 0
    rights: str = "admin"
    """Of the operator who logs in with it."""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what; numbered without gaps, each with the digest of the one before."""

    number: int
    time: str
    """RFC 3339 in UTC."""
    who: str
    origin: str
    what: str
    object: str
    """``device/lamp-1``, or how many objects."""
    revision: int
    previous: str


class AuditEnd(msgspec.Struct, frozen=True):
    """The newest record of the chain, or the last one that was dropped."""

    number: int
    digest: str


class SecretRecord(msgspec.Struct, frozen=True):
    """The value of one secret, sealed; everything else about it is its object's."""

    revision: int
    """In which it was given this value."""
    sealed: bytes


class DataKeyRecord(msgspec.Struct, frozen=True):
    """The key that seals secrets, itself sealed under a key that is kept outside of the store."""

    key_id: str
    """Which key outside opens it."""
    sealed: bytes


class RescueRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device handed in that the store does not know; the key is SHA-256 of the certificate that it showed."""

    id: str
    """By that certificate, as all that follows but what the device says of itself."""
    spki: str
    not_before: float
    not_after: float
    name: str
    digest: str
    """Of the document, which is kept sealed: nobody knows yet which of it is secret."""
    size: int
    schema: str = ""
    """Digest of the schema that it handed in as well, which stands under it."""
    epoch: str = ""
    revision: int = 0
    client: str = ""
    facts: dict[str, str | int | float | bool] = {}
    address: str = ""
    at: float = 0.0
    told: list[str] = []
    """The server authority by which it verified us, as ``CertificateRecord`` says it."""
    signed_by: str = ""
    """Which client authority signed the certificate, likewise."""


class RescueWindow(msgspec.Struct, frozen=True):
    """Until when devices may hand in what they run, unix seconds."""

    opened: float
    until: float


R = TypeVar("R", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        Meta,
        ObjectRecord,
        RevisionRecord,
        Desired,
        Reported,
        CertificateRecord,
        RotationRecord,
        TokenRecord,
        SecretRecord,
        DataKeyRecord,
        AuditRecord,
        AuditEnd,
        RescueRecord,
        RescueWindow,
    )
}


def pack(record: msgspec.Struct) -> bytes:
    """The payload of a record."""
    return _encoder.encode(record)


def unpack(kind: type[R], payload: bytes) -> R:
    """The record of a payload."""
    record: R = _decoders[kind].decode(payload)
    return record


class StoredDocument(NamedTuple):
    """A document as the store keeps it; ``sealed`` are its exact bytes if it holds secrets, else empty."""

    shown: bytes
    """What people may see: the exact bytes, or references in the place of secrets."""
    sealed: bytes = b""


def pack_document(document: StoredDocument) -> bytes:
    """The payload of a document: JSON as it is, or a mark, the length of what is shown, that, and what is sealed."""
    if not document.sealed:
        return document.shown
    return _SEALED + len(document.shown).to_bytes(4, "big") + document.shown + document.sealed


def unpack_document(payload: bytes) -> StoredDocument:
    """The document of a payload."""
    if not payload.startswith(_SEALED):
        return StoredDocument(payload)
    end = 5 + int.from_bytes(payload[1:5], "big")
    return StoredDocument(payload[5:end], payload[end:])


_SEALED: Final = b"\1"
"""No JSON begins with it."""

META_KEY: Final = b"meta"
"""Where the database ``meta`` has its one record."""


ROTATION_KEY: Final = b"rotation"
"""And what it remembers of the rotation of authorities."""


def object_key(kind: str, name: str) -> bytes:
    """Key of an object: kind, slash, name, so that one kind is one range."""
    return f"{kind}/{name}".encode()


def number_key(number: int) -> bytes:
    """Key of a numbered record; big-endian so that order of keys is order of numbers."""
    return number.to_bytes(8, "big")
