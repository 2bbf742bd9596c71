"""Reading the fleet inside a transaction: meta, objects, devices, and the renderer over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Final

from hengd.records import (
    META_KEY,
    Desired,
    Meta,
    ObjectRecord,
    Reported,
    StoredDocument,
    object_key,
    unpack,
    unpack_document,
)  # fmt: skip
from hengd.rules.objects import object_path
from hengd.rules.rendering import Renderer, SchemaEntry, group_entry
from hengd.rules.schemas import SchemaCache
from hengd.rules.states import Line
from hengd.rules.vault import OpenSecrets, Vault
from hengd.store import Reader
from henge_protocol.errors import Internal, NotFound
from henge_protocol.model import PLURALS

COMPARED: Final = 2000
"""Names that a refusal compares with one that does not exist: some 20 ms at most."""


def read_meta(tx: Reader) -> Meta:
    """The store's own facts."""
    payload = tx.get("meta", META_KEY)
    if payload is None:
        raise Internal("storage_foreign", "the store has no meta record", cure="restore a backup into an empty folder")
    return unpack(Meta, payload)


def read_line(tx: Reader) -> Line:
    """The history line as it is now."""
    meta = read_meta(tx)
    return Line(meta.epoch, meta.revision, meta.begins)


def find_object(tx: Reader, kind: str, name: str) -> ObjectRecord | None:
    """One object as it was last written."""
    payload = tx.get("objects", object_key(kind, name))
    return None if payload is None else unpack(ObjectRecord, payload)


def required_object(tx: Reader, kind: str, name: str) -> ObjectRecord:
    """One object, or ``NotFound``."""
    found = find_object(tx, kind, name)
    if found is None:
        raise missing(tx, kind, name)
    return found


def objects_of(tx: Reader, kind: str) -> Iterator[ObjectRecord]:
    """All objects of a kind in order of names."""
    for _, payload in tx.scan("objects", object_key(kind, "")):
        yield unpack(ObjectRecord, payload)


def members_of(tx: Reader, apply_set: str) -> Iterator[ObjectRecord]:
    """The objects of an apply-set."""
    mark = f'"apply_set":"{apply_set}"'.encode()  # decoding every record costs ten times as much
    for kind in PLURALS:
        for _, payload in tx.scan("objects", object_key(kind, "")):
            if mark in payload:
                record = unpack(ObjectRecord, payload)
                if record.apply_set == apply_set:
                    yield record


def device_by_id(tx: Reader, device_id: str) -> ObjectRecord | None:
    """The device of an identity, or None if it was deleted."""
    name = tx.get("ids", device_id.encode())
    return None if name is None else find_object(tx, "Device", name.decode())


def find_desired(tx: Reader, device_id: str) -> Desired | None:
    """What a device should run, or None if it has no document."""
    payload = tx.get("desired", device_id.encode())
    return None if payload is None else unpack(Desired, payload)


def desired_of_all(tx: Reader) -> dict[str, Desired]:
    """What each device should run, by id; a fleet that shares a document shares one ``Desired``."""
    known: dict[bytes, Desired] = {}
    desired: dict[str, Desired] = {}
    for key, payload in tx.scan("desired"):
        if payload not in known:
            known[payload] = unpack(Desired, payload)
        desired[key.decode()] = known[payload]
    return desired


def find_reported(tx: Reader, device_id: str) -> Reported:
    """What a device last said; an empty report if it never spoke."""
    payload = tx.get("reported", device_id.encode())
    return Reported() if payload is None else unpack(Reported, payload)


def find_document(tx: Reader, digest: str) -> StoredDocument | None:
    """The document under a digest, as the store keeps it; who needs its exact bytes asks the vault."""
    payload = tx.get("documents", bytes.fromhex(digest))
    return None if payload is None else unpack_document(payload)


def schema_entry(record: ObjectRecord, schemas: SchemaCache) -> SchemaEntry:
    """A schema's record, ready to use; compiled once per content."""
    spec = record.spec
    compiled = schemas.get(record.name, spec["schema"], digest=bytes.fromhex(record.digest))
    return SchemaEntry(record.name, compiled, spec["max_document"], spec["confirm_s"])


def renderer(tx: Reader, schemas: SchemaCache, vault: Vault) -> Renderer:
    """A renderer over the schemas, groups and secrets of this transaction."""
    return Renderer(
        {record.name: schema_entry(record, schemas) for record in objects_of(tx, "Schema")},
        [group_entry(record) for record in objects_of(tx, "Group")],
        OpenSecrets(vault, tx),
    )


def users_of_secrets(tx: Reader) -> dict[str, list[ObjectRecord]]:
    """Groups and devices by the secrets that they refer to."""
    users: dict[str, list[ObjectRecord]] = {}
    for kind in ("Group", "Device"):
        for _, payload in tx.scan("objects", object_key(kind, "")):
            for name in dict.fromkeys(_REFERENCE.findall(payload)):
                users.setdefault(name.decode(), []).append(unpack(ObjectRecord, payload))
    return users


_REFERENCE: Final = re.compile(rb'"\$secret":"([^"]+)"')
"""In the bytes of a record: in a text the quotes would be escaped. Decoding every record costs ten times as much."""


def missing(tx: Reader, kind: str, name: str) -> NotFound:
    """The refusal for an object that is not there; it suggests one whose name is nearly the same."""
    code = {"Device": "no_such_device", "Secret": "no_such_secret"}.get(kind, "no_such_object")
    prefix = object_key(kind, "")
    keys = (key for key, _ in islice(tx.scan("objects", prefix), COMPARED))
    close = nearest(name, [key.removeprefix(prefix).decode() for key in keys])
    cure = f"did you mean {object_path(kind, close)}? See: " if close else "see: "
    return NotFound(code, f"{object_path(kind, name)} does not exist", cure=f"{cure}hengectl get {kind.lower()}s")


def nearest(word: str, known: Iterable[str]) -> str:
    """That of the known words which was probably meant; empty if none is close."""
    return next(iter(get_close_matches(word, known, n=1, cutoff=0.7)), "")
