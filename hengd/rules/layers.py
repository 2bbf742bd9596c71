"""What one layer may say: checks of schemas, groups and devices as they are written, against all that is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from hengd.records import ObjectChange, ObjectRecord
from hengd.rules.fleet import find_object, objects_of, schema_entry, users_of_secrets
from hengd.rules.objects import inside, object_path
from hengd.rules.overrides import values_of
from hengd.rules.references import misplaced, references
from hengd.rules.refusals import MAX_PROBLEMS
from hengd.rules.rendering import SchemaEntry, alike
from hengd.rules.schemas import SchemaCache, check_schema
from hengd.rules.selection import Selection
from hengd.store import Reader
from henge_protocol.errors import Conflict, HengeError, Invalid, Problem
from henge_protocol.fieldpath import pointer, unclean_names
from henge_protocol.model import is_secret_name
from henge_protocol.selector import parse_selector

SHOWN: Final = 8
"""Names that a sentence lists; the problems have them all."""


def check_layers(tx: Reader, schemas: SchemaCache, changes: Sequence[ObjectChange]) -> None:
    """Check every changed layer against the store as it is now with the changes in it; raises the first refusal.

    A changed schema is also checked against the groups that speak its fields.
    """
    schema_changed = any(change.kind == "Schema" and change.before is not None for change in changes)
    unbound = [record for record in _groups(tx, changes, all_=schema_changed) if not record.spec["schema"]]
    check = _LayerCheck(tx, schemas, unbound)
    for change in changes:
        if change.after is not None:
            check.one(change.after)
        elif change.kind == "Schema":
            check.refuse_in_use(change.name)
        elif change.kind == "Secret":
            check.refuse_secret_in_use(change.name)
    if schema_changed:
        check.unbound_groups()


def _groups(tx: Reader, changes: Sequence[ObjectChange], *, all_: bool) -> Iterable[ObjectRecord]:
    if all_:
        return objects_of(tx, "Group")
    return [change.after for change in changes if change.kind == "Group" and change.after is not None]


class _LayerCheck:
    """Checks within one transaction."""

    def __init__(self, tx: Reader, schemas: SchemaCache, unbound: Sequence[ObjectRecord]) -> None:
        self._tx = tx
        self._schemas = schemas
        self._unbound = unbound
        self._heard: dict[str, set[str]] | None = None
        self._fields: frozenset[str] | None = None

    def one(self, record: ObjectRecord) -> None:
        checks = {"Schema": self._schema, "Group": self._group, "Device": self._device}
        if record.kind in checks:
            checks[record.kind](record)

    def unbound_groups(self) -> None:
        for group in self._unbound:
            self._group(group)

    def refuse_secret_in_use(self, name: str) -> None:
        users = [object_path(user.kind, user.name) for user in users_of_secrets(self._tx).get(name, ())]
        if users:
            raise _in_use(f"secret/{name}", users, f"refers to secret {name}", "take the references away first")

    def refuse_in_use(self, schema: str) -> None:
        users = [
            object_path(record.kind, record.name)
            for kind in ("Group", "Device")
            for record in objects_of(self._tx, kind)
            if record.spec["schema"] == schema
        ]
        if users:
            cure = "give these another schema, or delete them too"
            raise _in_use(f"schema/{schema}", users, f"is of schema {schema}", cure)

    def _schema(self, record: ObjectRecord) -> None:
        try:
            check_schema(record.spec["schema"])
        except HengeError as error:
            raise inside(error, object_path(record.kind, record.name), "/spec/schema") from None
        entry = schema_entry(record, self._schemas)
        for group in objects_of(self._tx, "Group"):
            if group.spec["schema"] == record.name:
                _refuse_misfits(entry, group)

    def _group(self, record: ObjectRecord) -> None:
        bound = record.spec["schema"]
        self._refuse_unknown_secrets(record)
        if bound:
            _refuse_misfits(schema_entry(self._named(bound, record), self._schemas), record)
            return
        for where, values in _sayings(record):
            self._refuse_undeclared(record, where, values)
            for schema, spoken in self._spoken(record, values):
                _refuse(_faults(schema, spoken), record, schema.name, where)

    def _spoken(self, group: ObjectRecord, values: dict[str, Any]) -> Iterator[tuple[SchemaEntry, dict[str, Any]]]:
        """What an unbound group says with these values, by the schemas of the devices that it selects.

        A field that none of them declares waits for devices to come: it is held against the schemas that declare it
        only if they all agree that it cannot fit.
        """
        if not values:
            return
        entries = [schema_entry(schema, self._schemas) for schema in objects_of(self._tx, "Schema")]
        selected = self._schemas_of(group.name)
        unheard = dict(values)
        for entry in entries:
            if entry.name in selected:
                spoken = {field: values[field] for field in values if field in entry.compiled.top_level_fields}
                unheard = {field: unheard[field] for field in unheard if field not in spoken}
                yield entry, spoken
        for field, value in unheard.items():
            declaring = [entry for entry in entries if field in entry.compiled.top_level_fields]
            if all(_faults(entry, {field: value}) for entry in declaring):
                yield declaring[0], {field: value}

    def _schemas_of(self, group: str) -> set[str]:
        """The schemas of the devices that an unbound group selects; all such groups read the fleet once."""
        if self._heard is None:
            heard: dict[str, set[str]] = {one.name: set() for one in self._unbound}
            selection = Selection((parse_selector(one.spec["selector"]), heard[one.name]) for one in self._unbound)
            for device in objects_of(self._tx, "Device"):
                for schemas in selection.matching(device.labels):
                    schemas.add(device.spec["schema"])
            self._heard = heard
        return self._heard[group]

    def _refuse_undeclared(self, record: ObjectRecord, where: str, values: dict[str, Any]) -> None:
        unknown = [field for field in values if field not in self._declared()]
        if unknown:
            path = object_path(record.kind, record.name)
            raise Invalid(
                "undeclared_field",
                f"no schema declares {', '.join(ascii(field)[:60] for field in unknown[:SHOWN])}, which {path} sets",
                cure="declare it in a schema first, or correct the name",
                problems=[
                    Problem(where + pointer((field,)), "no schema declares it", path)
                    for field in unknown[:MAX_PROBLEMS]
                ],
            )

    def _device(self, record: ObjectRecord) -> None:
        name = record.spec["schema"]
        self._refuse_unknown_secrets(record)
        if name:
            _refuse_misfits(schema_entry(self._named(name, record), self._schemas), record)
        elif record.spec["values"] or record.overrides:
            path = object_path(record.kind, record.name)
            raise Invalid(
                "no_such_schema",
                f"{path} has values and no schema to check them",
                cure=f"give it one: hengectl device schema {record.name} SCHEMA; see: hengectl get schemas",
                problems=[Problem("/spec/schema", "a schema is needed before values", path)],
            )

    def _refuse_unknown_secrets(self, record: ObjectRecord) -> None:
        path = object_path(record.kind, record.name)
        unknown = [
            (where + pointer(place), name)
            for where, values in _sayings(record)
            for place, name in references(values)
            if is_secret_name(name) and find_object(self._tx, "Secret", str(name)) is None
        ]
        if unknown:
            raise Invalid(
                "no_such_secret",
                f"{path} refers to secret {unknown[0][1]}, which does not exist",
                cure=f"make it: hengectl secret set {unknown[0][1]}",
                problems=[
                    Problem(where, f"secret {name} does not exist", path) for where, name in unknown[:MAX_PROBLEMS]
                ],
            )

    def _named(self, name: str, user: ObjectRecord) -> ObjectRecord:
        found = find_object(self._tx, "Schema", name)
        if found is None:
            path = object_path(user.kind, user.name)
            raise Invalid(
                "no_such_schema",
                f"{path} names schema {name}, which does not exist",
                cure="see: hengectl get schemas",
                problems=[Problem("/spec/schema", f"schema {name} does not exist", path)],
            )
        return found

    def _declared(self) -> frozenset[str]:
        if self._fields is None:
            entries = [schema_entry(schema, self._schemas) for schema in objects_of(self._tx, "Schema")]
            self._fields = frozenset().union(*(entry.compiled.top_level_fields for entry in entries))
        return self._fields


def _faults(entry: SchemaEntry, values: object) -> list[Problem]:
    """What is wrong with values of one layer: their form, their names, or secrets where none belong and vice versa."""
    unclean = [Problem(pointer(path), "a name has control characters") for path in unclean_names(values)]
    return entry.compiled.validate_layer(values) or misplaced(entry.compiled, values) or unclean or alike(values)


def _in_use(path: str, users: Sequence[str], what: str, cure: str) -> Conflict:
    more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
    return Conflict(
        "in_use",
        f"{path} is in use by {', '.join(users[:SHOWN])}{more}",
        cure=cure,
        problems=[Problem("", what, user) for user in users[:MAX_PROBLEMS]] if more else (),
    )


def _sayings(record: ObjectRecord) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where the values stand in a group's or device's manifest, and they; an override stands in none."""
    yield "/spec/values", record.spec["values"]
    for override in record.overrides:
        yield "", values_of(override)


def _refuse_misfits(schema: SchemaEntry, record: ObjectRecord) -> None:
    for where, values in _sayings(record):
        _refuse(_faults(schema, values), record, schema.name, where)


def _refuse(problems: Sequence[Problem], record: ObjectRecord, schema: str, where: str) -> None:
    if not problems:
        return
    path = object_path(record.kind, record.name)
    first = problems[0]
    raise Invalid(
        "does_not_fit",
        f"{path} does not fit schema {schema}: {first.pointer or 'values'}: {first.message}",
        cure=f"see what is allowed: hengectl explain {schema}",
        problems=[Problem(where + problem.pointer, problem.message, path) for problem in problems[:MAX_PROBLEMS]],
    )
