"""Taking over what devices handed in: schemas, secrets, devices and their certificates, in one revision or not at all.

Each device is planned and rendered before anything is written, so that one that cannot be taken is named and keeps
nobody else out, if that is what the operator says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hengd.records import CertificateRecord, ObjectRecord, Reported, pack
from hengd.rules import audit
from hengd.rules.authority import Authority
from hengd.rules.certificates import add_certificate, owner_of_key
from hengd.rules.change import Change
from hengd.rules.changes import Changes
from hengd.rules.configs import Request, begin
from hengd.rules.fleet import find_desired, find_object, objects_of, schema_entry
from hengd.rules.merge import diff
from hengd.rules.objects import Manifest, object_path, parse_manifest
from hengd.rules.outcome import NotCommitted
from hengd.rules.planned import PlannedSecrets
from hengd.rules.references import references
from hengd.rules.rendering import Renderer, SchemaEntry, group_entry
from hengd.rules.rescue import Waiting, document_in, forget, requests_in, schema_in
from hengd.rules.rescued import concealed, layer_of
from hengd.rules.schemas import SchemaCache, check_schema, schema_digest
from hengd.rules.vault import OpenSecrets, Vault
from hengd.store import Reader, Store, Transaction
from henge_protocol.errors import Conflict, HengeError, Invalid, NotFound, Problem
from henge_protocol.fieldpath import field_of
from henge_protocol.model import check_name, is_name
from henge_protocol.strictjson import parse

MAX_TAKEN: Final = 1000
"""At once: every document is made anew while the writer waits."""
SHOWN: Final = 5
_NAME_FROM_DIGEST: Final = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request that is to be taken, by the device's name or id; ``digest``: only if it still is that document."""

    word: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants to take: the ones named, or everything."""

    wanted: Sequence[Wanted] = ()
    rename: str = ""
    """Another name, for the only one that is taken."""
    schema: str = ""
    """For all of them, whatever they say."""
    skip: bool = False
    """Leave out what cannot be taken."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One device that is taken: its layer, and whether it runs what it is to run."""

    name: str
    id: str
    schema: str
    values: dict[str, Any]
    """Of the device itself; references in the place of secrets."""
    runs: str
    """Digest of what it runs."""
    document: str
    """Digest of what it is to run; if that is another one, it gets it once it connects."""
    differs: tuple[str, ...]
    """The fields in which these differ."""
    certificates: int
    """How many were shown for it; the newest counts."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One device that cannot be taken, and why."""

    name: str
    id: str
    code: str
    reason: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Rescued:
    """What was taken, or in a dry run would be."""

    revision: int
    dry_run: bool
    devices: tuple[Taken, ...]
    refused: tuple[Refused, ...]
    schemas: tuple[str, ...]
    """Those that were made."""
    secrets: tuple[str, ...]
    """Those that were made."""
    left: int
    """How many requests still wait after that."""


class Taking:
    """Makes devices of requests."""

    def __init__(self, store: Store, authority: Authority, changes: Changes) -> None:
        self._store = store
        self._authority = authority
        self._changes = changes

    async def take(self, wish: Wish, request: Request) -> Rescued:
        """Make devices of what was handed in, or in a dry run tell what would come of it.
        Raises ``NotFound`` ``no_such_rescue``, ``Conflict`` ``rescue_incomplete`` for devices that cannot be taken
        (with ``skip`` only if none can), and as a change does.
        """
        now = self._changes.clock()

        def operation(tx: Transaction) -> Rescued:
            chosen = _chosen(tx, wish)
            plan = _Plan(tx, self._changes.schemas, self._changes.vault, wish, chosen)
            if not plan.steps or (plan.refused and not wish.skip and not request.dry_run):
                raise _incomplete(plan.refused, len(chosen))
            change = begin(tx, self._changes, request, now=now)
            plan.write(change)
            outcome = change.finish()
            shown = Counter(one.record.id for one in requests_in(tx))
            for step in plan.steps:
                self._let_in(tx, step, request, now=now)
            forget(tx, {step.waiting.record.id for step in plan.steps})
            taken = tuple(self._taken(tx, step, shown[step.waiting.record.id]) for step in plan.steps)
            rescued = Rescued(
                outcome.revision, request.dry_run, taken, tuple(plan.refused), tuple(sorted(plan.made)),
                tuple(sorted(plan.secrets)), len({one.record.id for one in requests_in(tx)}),
            )  # fmt: skip
            if request.dry_run:
                raise NotCommitted(rescued)
            return rescued

        try:
            rescued = await self._store.write(operation)
        except NotCommitted as undone:
            found: Rescued = undone.outcome
            return found
        for device in rescued.devices:
            self._authority.ends.restored("device", device.id)
        return rescued

    def _let_in(self, tx: Transaction, step: _Step, request: Request, *, now: float) -> None:
        """The certificate that was shown opens from now on what one that we issued opens."""
        record = step.waiting.record
        certificate = CertificateRecord(
            role="device", subject=record.id, spki=record.spki, not_after=record.not_after, state="issued",
            via="rescue", by=request.author.name, at=now, told=record.told, signed_by=record.signed_by,
        )  # fmt: skip
        add_certificate(tx, step.waiting.certificate, certificate)
        tx.put("reported", record.id.encode(), pack(Reported(known=(record.epoch, record.revision))))
        audit.note(tx, "device.rescued", object_path("device", step.name), request.author, now=now)

    def _taken(self, tx: Transaction, step: _Step, certificates: int) -> Taken:
        record, desired = step.waiting.record, find_desired(tx, step.waiting.record.id)
        document = desired.digest if desired is not None else ""
        differs: tuple[str, ...] = ()
        if document != record.digest:
            made = parse(self._changes.vault.document(tx, document) or b"{}")
            differs = tuple(field_of(one.pointer) for one in diff(step.document, made))
        return Taken(step.name, record.id, step.schema, step.values, record.digest, document, differs, certificates)


@dataclass(frozen=True, slots=True)
class _Step:
    """What becomes of one request."""

    waiting: Waiting
    name: str
    schema: str
    document: dict[str, Any]
    values: dict[str, Any]


class _Plan:
    """What is to be made of the requests, looked at one by one; nothing is written before ``write``."""

    def __init__(
        self, tx: Transaction, schemas: SchemaCache, vault: Vault, wish: Wish, chosen: Sequence[Waiting]
    ) -> None:
        self._tx = tx
        self._vault = vault
        self._wish = wish
        self._schemas = schemas
        self._known = {record.name: record for record in objects_of(tx, "Schema")}
        self._names = Counter(self._name(one) for one in chosen)
        self._secrets = PlannedSecrets(OpenSecrets(vault, tx))
        self.made: dict[str, ObjectRecord] = {}
        """Schemas that are to be made."""
        self.steps: list[_Step] = []
        self.refused: list[Refused] = []
        schema_of = self._schemas_of(chosen)
        entries, unfit = self._entries(schemas, chosen, schema_of)
        groups = [group_entry(record) for record in objects_of(tx, "Group")]
        renderer = Renderer(entries, groups, self._secrets)
        for one in chosen:
            try:
                self.steps.append(self._step(one, schema_of[one.certificate], entries, unfit, renderer))
            except HengeError as error:
                record = one.record
                self.refused.append(Refused(record.name, record.id, error.code, error.message, error.cure))
        used = {step.schema for step in self.steps}
        self.made = {name: record for name, record in self.made.items() if name in used}
        named = {name for step in self.steps for _, name in references(step.values)}
        self.secrets = {name: value for name, value in self._secrets.made.items() if name in named}
        """Those that are to be made."""

    def write(self, change: Change) -> None:
        """Put everything into one change."""
        for record in self.made.values():
            change.put(Manifest("Schema", record.name, record.spec, {}, {}))
        for name, value in self.secrets.items():
            change.put_secret(name, value)
        for step in self.steps:
            spec = {"schema": step.schema, "values": step.values}
            change.put(Manifest("Device", step.name, spec, {}, {}), device_id=step.waiting.record.id)

    # ---- schemas

    def _schemas_of(self, chosen: Sequence[Waiting]) -> dict[bytes, str]:
        """The schema's name for each request: as the operator says, as the fleet knows it, as a device calls it."""
        by_digest = {record.digest: name for name, record in self._known.items()}
        for one in chosen:
            wish = one.record.facts.get("schema")
            if one.record.schema and is_name(wish):
                by_digest.setdefault(one.record.schema, str(wish))
        return {one.certificate: self._wish.schema or self._schema_name(one, by_digest) for one in chosen}

    def _schema_name(self, waiting: Waiting, by_digest: Mapping[str, str]) -> str:
        digest, wish = waiting.record.schema, waiting.record.facts.get("schema")
        if digest in by_digest:
            return by_digest[digest]
        if is_name(wish):
            return str(wish)
        return f"rescued-{digest[:_NAME_FROM_DIGEST]}" if digest else ""

    def _entries(
        self, schemas: SchemaCache, chosen: Sequence[Waiting], names: Mapping[bytes, str]
    ) -> tuple[dict[str, SchemaEntry], dict[str, HengeError]]:
        """Every schema that is there or to be made, ready to use; and why some of the latter cannot be made.

        Of several under one name the one of the newest document counts: what fitted an earlier one fits it, too.
        """
        entries = {name: schema_entry(record, schemas) for name, record in self._known.items()}
        unfit: dict[str, HengeError] = {}
        for one in sorted(chosen, key=lambda one: (-one.record.revision, one.record.schema)):
            name, schema = names[one.certificate], schema_in(self._tx, one.record.schema)
            if schema is None or name in entries or name in unfit:
                continue
            try:
                check_schema(schema)
                spec = parse_manifest({"spec": {"schema": schema}}, kind="Schema", name=name).spec
                record = ObjectRecord(kind="Schema", name=name, spec=spec, digest=schema_digest(schema).hex())
                entries[name] = schema_entry(record, schemas)
            except HengeError as error:
                unfit[name] = error
            else:
                self.made[name] = record
        return entries, unfit

    # ---- devices

    def _name(self, waiting: Waiting) -> str:
        return self._wish.rename or waiting.record.name

    def _step(
        self, waiting: Waiting, schema: str, entries: Mapping[str, SchemaEntry], unfit: Mapping[str, HengeError],
        renderer: Renderer,
    ) -> _Step:  # fmt: skip
        name = self._name(waiting)
        self._check_free(waiting, name)
        if schema not in entries:
            raise unfit.get(schema) or _no_schema(name, schema)
        self._check_secrets(waiting, entries[schema])
        document = parse(document_in(self._tx, self._vault, waiting))
        assert isinstance(document, dict)  # looked at when it was handed in
        device = ObjectRecord(kind="Device", name=name, spec={"schema": schema, "values": {}}, id=waiting.record.id)
        groups = [layer.values for layer in renderer.layers(device) if layer.kind == "group"]
        compiled = entries[schema].compiled
        layer = layer_of(compiled, groups, document, self._secrets.find)
        values: dict[str, Any] = concealed(compiled, layer, self._secrets.keep)
        self._check_fit(ObjectRecord(kind="Device", name=name, spec={"schema": schema, "values": values}), renderer)
        return _Step(waiting, name, schema, document, values)

    def _check_secrets(self, waiting: Waiting, counts: SchemaEntry) -> None:
        """What its own schema hides must not be shown by one that another device handed in under the same name."""
        own = schema_in(self._tx, waiting.record.schema)
        if own is None or counts.name not in self.made or waiting.record.schema == counts.compiled.digest.hex():
            return
        try:
            check_schema(own)
            shown = self._schemas.get(counts.name, own).secret_pointers - counts.compiled.secret_pointers
        except HengeError:
            return  # it hides nothing that anybody could tell
        if shown:
            said = f"its own schema hides {field_of(min(shown))}, and the schema {counts.name} of another one shows it"
            cure = "apply the right schema first: hengectl apply -f FILE; or take it without the other"
            raise Conflict("rescue_incomplete", said, cure=cure)

    def _check_free(self, waiting: Waiting, name: str) -> None:
        record = waiting.record
        if self._names[name] > 1:
            cure = f"take one of them by its id: hengectl rescue take {record.id}"
            raise Conflict("name_taken", f"{self._names[name]} devices say that they are {name}", cure=cure)
        if find_object(self._tx, "Device", name) is not None:
            cure = f"take it under another: hengectl rescue take {record.id} --as NAME"
            raise Conflict("name_taken", f"there is another device/{name}", cure=cure)
        if self._tx.get("ids", record.id.encode()) is not None:
            raise Conflict("exists", f"device {record.id} is there already", cure="see: hengectl get devices")
        if owner_of_key(self._tx, bytes.fromhex(record.spki)) not in (None, ("device", record.id)):
            raise Conflict("key_in_use", "its public key belongs to another identity", cure="let it join anew")

    def _check_fit(self, device: ObjectRecord, renderer: Renderer) -> None:
        document = renderer.render(device)
        if document is not None and document.code:
            first = document.problems[0]
            schema = device.spec["schema"]
            message = f"its document does not fit schema {schema}: {first.pointer or 'values'}: {first.message}"
            cure = f"see what is allowed: hengectl explain {schema}; or give it another: --schema NAME"
            raise Invalid(document.code, message, cure=cure)


def _chosen(tx: Reader, wish: Wish) -> list[Waiting]:
    """The requests that are wanted, of each device that with its newest certificate; at most ``MAX_TAKEN``."""
    waiting = [one for one in requests_in(tx) if one.is_newest]
    if wish.wanted:
        found = [one for wanted in wish.wanted for one in _named(waiting, wanted)]
        waiting = list({one.certificate: one for one in found}.values())
    elif not waiting:
        raise NotFound("no_such_rescue", "no device has handed anything in", cure="see: hengectl rescue status")
    if wish.rename:
        check_name(wish.rename, "device name")
        if len(waiting) != 1:
            raise Invalid("bad_parameter", f"one name for {len(waiting)} devices", cure="take one of them by its id")
    if wish.schema:
        check_name(wish.schema, "schema")
    return waiting[:MAX_TAKEN]


def _named(waiting: Sequence[Waiting], wanted: Wanted) -> list[Waiting]:
    found = [one for one in waiting if wanted.word in (one.record.name, one.record.id)]
    if not found:
        word = ascii(wanted.word)[:80]
        raise NotFound("no_such_rescue", f"no device {word} has handed anything in", cure="see: hengectl rescue list")
    if wanted.digest and any(one.record.digest != wanted.digest for one in found):
        cure = "look at it again: hengectl rescue take --dry-run"
        raise Conflict("rescue_incomplete", f"{found[0].record.name} has handed in something else meanwhile", cure=cure)
    return found


def _no_schema(name: str, schema: str) -> Invalid:
    if not schema:
        cure = "say which it is, of those that are there: --schema NAME"
        return Invalid("no_such_schema", f"nobody knows the schema of {name}: it handed none in", cure=cure)
    cure = "apply it first: hengectl apply -f FILE; or say which it is: --schema NAME"
    message = f"{name} is of schema {schema}, which is not there and was not handed in"
    return Invalid("no_such_schema", message, cure=cure)


def _incomplete(refused: Sequence[Refused], among: int) -> Conflict:
    said = "; ".join(f"{one.name}: {one.reason}" for one in refused[:SHOWN])
    more = f"; and {len(refused) - SHOWN} more" if refused[SHOWN:] else ""
    cure = "mend that, or leave them out: --skip" if len(refused) < among else refused[0].cure
    return Conflict(
        "rescue_incomplete", f"{len(refused)} of {among} cannot be taken: {said}{more}", cure=cure,
        problems=[Problem("", one.reason, object_path("device", one.name)) for one in refused[:100]],
    )  # fmt: skip
