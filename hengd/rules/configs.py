"""The rules for configuration: change it, undo it, explain it, remember it.

Every way of writing is one ``Change`` in one transaction; a dry run is the same transaction, not committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from hengd.records import ObjectChange, ObjectRecord
from hengd.rules.audit import Guesses
from hengd.rules.between import Between, between
from hengd.rules.breadth import MAX_NAMES, SHOWN, TooWide, prunes_all, too_wide
from hengd.rules.change import Change, Overrider
from hengd.rules.changes import Changes
from hengd.rules.fleet import (
    find_desired,
    find_document,
    find_object,
    find_reported,
    nearest,
    objects_of,
    read_meta,
    renderer,
    required_object,
)  # fmt: skip
from hengd.rules.history import changes_since, drop_revisions, is_of
from hengd.rules.objects import KINDS, Manifest, object_path, parse_manifest
from hengd.rules.outcome import Author, Moved, NotCommitted, Outcome, Pruned
from hengd.rules.ownership import BY_HAND, Writer
from hengd.rules.presence import Presence
from hengd.rules.schemas import SchemaCache
from hengd.rules.why import Explained, explain
from hengd.store import Reader, Store, Transaction
from henge_protocol.errors import Conflict, HengeError, Invalid, NotFound, Problem
from henge_protocol.fieldpath import Path, parse_path
from henge_protocol.selector import parse_selector

T = TypeVar("T")

MAX_OBJECTS: Final = 5000
PRUNED_AT_ONCE: Final = 500
"""Records that one transaction of upkeep drops, so that it never holds up a change for long."""
MAX_MESSAGE_CHARS: Final = 1000
PIECE: Final = 200
"""Manifests that are read before everybody else has a turn: some 4 ms."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants a change, why, and whether only to see it."""

    author: Author
    message: str = ""
    dry_run: bool = False
    fleet: str | None = None
    """The version of the whole fleet that the change was made for; None = any."""
    all_at_once: bool = False
    """However many devices it changes."""
    same_documents: bool = False
    """Only if no device gets another document."""
    writer: Writer = BY_HAND
    """For which apply-set."""
    prune: bool = False
    """Of an apply: what belongs to its set and is not applied goes."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The bytes a device gets, or what people may see of them if they hold secrets."""

    data: bytes
    digest: str
    """Of the bytes that the device gets."""
    revision: int
    redacted: bool = False


class Configs:
    """Desired configuration: the only door through which it changes."""

    def __init__(
        self,
        store: Store,
        changes: Changes,
        presence: Presence,
    ) -> None:
        self._store = store
        self._presence = presence
        self._changes = changes
        self._guesses = Guesses(store, changes.vault, clock=changes.clock)

    async def apply(self, objects: Sequence[object], delete: Sequence[tuple[str, str]], request: Request) -> Outcome:
        """Many objects as one transaction and one revision; ``Invalid`` lists the faults of all of them.

        Deleting nothing but devices is possible on a full disk, too.
        """
        manifests = await read_manifests(objects)
        named = {(manifest.kind, manifest.name) for manifest in manifests}
        _refuse_both(named, delete)
        if request.prune and not request.writer.apply_set:
            cure = "name the set whose objects are to go: --set NAME (in the API ?set=NAME)"
            raise Invalid("bad_parameter", "pruning needs a set: only objects of one set are ever pruned", cure=cure)

        def act(change: Change) -> Pruned | None:
            for manifest in manifests:
                change.put(manifest)
            for kind, name in delete:
                change.delete(kind, name)
            return change.prune(request.writer.apply_set, named) if request.prune else None

        gone = not (manifests or request.prune) and all(kind == "Device" for kind, _ in delete)
        return await self._change(act, request, essential=gone)

    async def put(self, manifest: Manifest, if_match: str | None, request: Request) -> Outcome:
        """Create or replace one object."""
        return await self._change(lambda change: change.put(manifest, if_match=if_match), request)

    async def patch(self, kind: str, name: str, patch: object, if_match: str | None, request: Request) -> Outcome:
        """Merge-patch one object."""
        return await self._change(lambda change: change.patch(kind, name, patch, if_match=if_match), request)

    async def override(
        self,
        targets: Sequence[tuple[str, str]],
        overrider: Overrider,
        if_match: str | None,
        request: Request,
        *,
        own: Mapping[str, object] | None = None,
    ) -> Outcome:
        """Give groups and devices other overrides, and patch their ``own`` values; see ``rules/expiry.py``."""

        def act(change: Change) -> None:
            for kind, name in targets:
                change.override(kind, name, overrider, if_match=if_match)
                if own:
                    change.patch(kind, name, {"spec": {"values": own}})

        return await self._change(act, request)

    async def override_selected(self, selector: str, overrider: Overrider, request: Request) -> Outcome:
        """Give all devices that a selector selects other overrides; ``NotFound`` ``no_such_device`` if none is."""
        wanted = parse_selector(selector)

        def act(change: Change) -> None:
            names = [device.name for device in objects_of(change.tx, "Device") if wanted.matches(device.labels)]
            if not names:
                message = f"no device has labels that {ascii(selector)[:120]} selects"
                raise NotFound("no_such_device", message, cure="see: hengectl get devices --show-labels")
            for name in names:
                change.override("Device", name, overrider)

        return await self._change(act, request)

    async def delete(self, kind: str, name: str, if_match: str | None, request: Request) -> Outcome:
        """Delete one object. Deleting a device revokes it, which must be possible on a full disk, too."""
        return await self._change(
            lambda change: change.delete(kind, name, if_match=if_match), request, essential=kind == "Device"
        )

    async def put_secret(self, name: str, value: object, if_match: str | None, request: Request) -> Outcome:
        """Give a secret a value; every device whose document holds it gets a new one in the same transaction."""
        return await self._change(lambda change: change.put_secret(name, value, if_match=if_match), request)

    async def rename(self, name: str, to: str, if_match: str | None, request: Request) -> Outcome:
        """Give a device another name."""
        return await self._change(lambda change: change.rename(name, to, if_match=if_match), request)

    async def rollback(self, to: int, target: tuple[str, str] | None, request: Request) -> Outcome:
        """A new revision with ``target`` as it was at ``to``, or with everything but devices that joined since."""
        return await self._change(
            lambda change: change.restore(_undo(change, to, target), spare_joined=target is None), request
        )

    def document(self, name: str) -> Rendered:
        """What a device gets, with references in place of secrets; ``NotFound`` ``no_document`` if it has none."""
        with self._store.read() as tx:
            device = required_object(tx, "Device", name)
            desired = find_desired(tx, device.id)
            document = find_document(tx, desired.digest) if desired else None
        if desired is None or document is None:
            raise NotFound(
                "no_document",
                f"device/{name} has no document: it has no schema",
                cure=f"give it one of those that 'hengectl get schemas' shows: hengectl device schema {name} SCHEMA",
            )
        return Rendered(document.shown, desired.digest, desired.revision, redacted=bool(document.sealed))

    async def why(self, name: str, field: str = "") -> list[Explained]:
        """For each field of a device (or those at ``field``): its value, and what every layer says about it."""
        path = parse_path(field) if field else ()
        return await self._store.examine(lambda tx: self._explained(tx, name, field, path))

    async def examine(self, operation: Callable[[Reader], T]) -> T:
        """Read what may take long; raises what the operation raises, and as ``Store.examine``."""
        return await self._store.examine(operation)

    async def between(self, older: int, newer: int | None, target: tuple[str, str] | None) -> Between:
        """What differs between two revisions (None: the newest); raises as ``between`` and ``Store.examine``."""
        return await self._store.examine(
            lambda tx: between(
                tx, self._changes.schemas, older, read_meta(tx).revision if newer is None else newer, target
            )
        )

    def _explained(self, tx: Reader, name: str, field: str, path: Path) -> list[Explained]:
        device = required_object(tx, "Device", name)
        layers = renderer(tx, self._changes.schemas, self._changes.vault).layers(device)
        spoken = [(layer.kind, layer.name) for layer in layers if layer.kind in KINDS]
        sources = {(kind, source): find_object(tx, KINDS[kind], source) for kind, source in spoken}
        explained = explain(layers, sources, path)
        if field and not explained:
            raise _no_such_field(name, field, [one.field for one in explain(layers, sources)])
        return explained

    async def prune(self, keep: int, keep_s: float, *, now: float) -> int:
        """Drop some revisions beyond the newest ``keep`` that are older than ``keep_s`` too; how many, 0 = no more."""
        horizon = now - keep_s
        return await self._store.write(lambda tx: drop_revisions(tx, keep, horizon, most=PRUNED_AT_ONCE))

    async def _change(
        self, act: Callable[[Change], Pruned | None], request: Request, *, essential: bool = False
    ) -> Outcome:
        now = self._changes.clock()
        tried: list[ObjectChange] = []

        def operation(tx: Transaction) -> Outcome:
            change = begin(tx, self._changes, request, now=now)
            before = change.meta.revision
            pruned = act(change)
            try:
                outcome = change.finish(fields=request.dry_run)
            finally:
                tried[:] = change.written
            if pruned is not None:
                outcome = replace(outcome, spared=pruned.spared)
            if request.same_documents and outcome.devices:
                raise _differ(outcome.devices)
            managed = change.refusal()
            wide = None if request.all_at_once else _too_wide(change, self._changes.schemas, outcome, pruned)
            if request.dry_run:
                refusing = sum(find_reported(tx, one.id).refused == one.after != "" for one in outcome.devices)
                too_wide = wide.message if wide else ""
                told = replace(outcome, managed=str(managed or ""), too_wide=too_wide, refusing=refusing)
                raise NotCommitted(replace(told, dry_run=True, revision=before))
            if managed is not None:
                raise managed
            if wide is not None:
                raise wide.refusal()
            return outcome

        try:
            return self._reached(await self._store.write(operation, essential=essential))
        except (HengeError, NotCommitted) as undone:
            await self._guesses.note(tried, request.author)
            if isinstance(undone, NotCommitted):
                return self._reached(undone.outcome)
            raise

    def _reached(self, outcome: Outcome) -> Outcome:
        """With how many of its devices are not there to get it at once."""
        return replace(outcome, offline=sum(self._presence.find(one.id) is None for one in outcome.devices))


def begin(tx: Transaction, changes: Changes, request: Request, *, now: float) -> Change:
    """The change that is asked for; ``Invalid`` for too long a message, ``Stale`` if it was made for another fleet."""
    if len(request.message) > MAX_MESSAGE_CHARS:
        raise Invalid(
            "bad_parameter",
            f"the message has {len(request.message)} characters, at most {MAX_MESSAGE_CHARS} are kept",
        )
    change = changes.begin(tx, request.author, request.message, now=now, writer=request.writer)
    change.expect_fleet(request.fleet)
    return change


def _too_wide(change: Change, schemas: SchemaCache, outcome: Outcome, pruned: Pruned | None) -> TooWide | None:
    wide = prunes_all(pruned) if pruned is not None else None
    return wide or too_wide(change.tx, schemas, outcome, change.written)


async def read_manifests(objects: Sequence[object]) -> list[Manifest]:
    """The objects of one change; ``Invalid`` lists the faults of all of them."""
    if len(objects) > MAX_OBJECTS:
        raise Invalid("too_complex", f"{len(objects)} objects in one apply, at most {MAX_OBJECTS} are taken")
    manifests: list[Manifest] = []
    errors: list[HengeError] = []
    seen: dict[str, int] = {}
    for index, value in enumerate(objects):
        if index % PIECE == PIECE - 1:
            await asyncio.sleep(0)
        try:
            manifest = parse_manifest(value)
        except HengeError as error:
            errors.append(_numbered(error, index))
            continue
        if manifest.path in seen:
            problem = Problem("", f"object {index + 1} repeats object {seen[manifest.path] + 1}", manifest.path)
            errors.append(Invalid("bad_object", f"{manifest.path} is given twice", problems=[problem]))
        seen[manifest.path] = index
        manifests.append(manifest)
    if errors:
        problems = [problem for error in errors for problem in error.problems]
        raise Invalid(errors[0].code, errors[0].message, cure=errors[0].cure, problems=problems)
    return manifests


def _refuse_both(written: Container[tuple[str, str]], deleted: Sequence[tuple[str, str]]) -> None:
    for index, key in enumerate(deleted):
        if key in written or key in deleted[:index]:
            raise Invalid("bad_object", f"{object_path(*key)} is to be deleted and is named a second time")


def _numbered(error: HengeError, index: int) -> HengeError:
    """A fault of an object that may have no usable name is placed by its number."""
    problems = error.problems or (Problem("", error.message),)
    placed = [Problem(problem.pointer, problem.message, problem.object or f"#{index + 1}") for problem in problems]
    message = error.message if error.problems and error.problems[0].object else f"object {index + 1}: {error.message}"
    return Invalid(error.code, message, cure=error.cure, problems=placed)


def _differ(moved: Sequence[Moved]) -> Conflict:
    names = ", ".join(one.name for one in moved[:SHOWN]) + (f" and {len(moved) - SHOWN} more" if moved[SHOWN:] else "")
    devices = "device" if len(moved) == 1 else "devices"
    return Conflict(
        "documents_differ",
        f"{len(moved)} {devices} would get another document ({names}), and none was to",
        cure="see what would differ: ask with ?dry_run=1 and without expect",
        extra={"devices": [one.name for one in moved[:MAX_NAMES]], "device_count": len(moved)},
    )


def _no_such_field(device: str, field: str, known: Sequence[str]) -> NotFound:
    close = nearest(field, known)
    cure = f"did you mean {close}? See its fields" if close else "see its fields"
    return NotFound(
        "bad_path",
        f"device/{device} has no field {ascii(field)[:80]}",
        cure=f"{cure}: hengectl why {device}",
    )


def _undo(change: Change, to: int, target: tuple[str, str] | None) -> dict[tuple[str, str], ObjectRecord | None]:
    """Each object touched after ``to``, as it was at ``to``: the oldest later revision knows."""
    if target is not None and target[0] == "Secret":
        raise Conflict("read_only", "old values of a secret are not kept", cure=f"hengectl secret set {target[1]}")
    wanted: dict[tuple[str, str], ObjectRecord | None] = {}
    found = change.current(*target) if target else None
    device_id = found.id if found else ""
    for touched in changes_since(change.tx, to):
        key = (touched.kind, touched.name)
        if touched.kind == "Secret":  # their values are no part of the history
            continue
        if target in (None, key) or is_of(touched, device_id):
            wanted.setdefault(key, touched.before)
    if target is not None and target not in wanted:
        change.required(*target)
    return wanted
