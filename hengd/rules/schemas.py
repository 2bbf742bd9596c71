"""Schemas at work: what henge accepts as one, what it derives from it, and whether values fit.

A schema passes ``check_schema`` when it is written and is then compiled as often as needed.  Everything that
touches the validation engine is behind this module.  It never fetches anything, needs no thread and no timer:
the budget of ``schema_budget`` and the linear-time patterns bound what a document can cost.

``multipleOf`` has decimal meaning: 0.3 is a multiple of 0.1.  A whole number is written without a fraction:
``1.0`` is not an integer here, although JSON Schema takes it for one, because boards tell 1 from 1.0.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from hengd.rules.merge import MISSING, Values, drop_nulls, get, merge
from hengd.rules.schema_budget import Finding, check_keywords, check_references, check_size, refusal
from hengd.rules.schema_engine import (
    META,
    ValidationError,
    Validator,
    asks_for_whole_numbers,
    holds_whole_float,
    validator_for,
)
from hengd.rules.schema_explain import misfits, whole_float_problems
from hengd.rules.schema_fields import (
    Defaults,
    is_open,
    is_secret,
    layer_schema,
    risky_pointers,
    secret_pointers,
    top_level_fields,
)
from hengd.rules.schema_keywords import ROOT_ONLY, subschemas
from hengd.rules.schema_messages import MAX_PROBLEMS, UNFIT_SECRET, Misfit, problems, secret_around
from henge_protocol.errors import Problem
from henge_protocol.fieldpath import Path, pointer, tokens
from henge_protocol.schemawalk import Node, is_marked
from henge_protocol.strictjson import canonical

PLACES_REMEMBERED: Final = 4096
"""Of one schema, so that keys of somebody's choice cannot fill the memory."""


def check_schema(schema: object) -> None:
    """Raise ``Invalid`` unless ``schema`` is one that henge takes.

    Codes: ``bad_schema``, ``remote_ref``, ``cyclic_ref``, ``unsupported_keyword``, ``pattern_unsupported``,
    ``unsatisfiable``, ``bad_default``, ``too_complex``, ``too_deep``, and those of ``canonical``.  ``problems`` has
    every spot found by the step that failed: size, meta-schema, keywords, references, engine, defaults and examples.
    """
    root = check_size(schema)
    _check_meta(root)
    check_keywords(root)
    check_references(root)
    try:
        compiled = compile_schema("", root)
    except ValidationError as error:
        path = tuple(error.schema_path)
        raise refusal([Finding("bad_schema", path, "the validation engine refuses it")]) from None
    findings = [*_unfit_samples(root), *_unfit_defaults(compiled)]
    if findings:
        raise refusal(findings)


def compile_schema(name: str, schema: Mapping[str, Any]) -> CompiledSchema:
    """Make a schema ready for use; it must have passed ``check_schema``, now or when it was stored."""
    root = dict(schema)
    layered = layer_schema(root)
    defaults = Defaults(root)
    return CompiledSchema(
        name=name,
        digest=schema_digest(root),
        defaults=defaults.always,
        top_level_fields=top_level_fields(root),
        open=is_open(root),
        secret_pointers=secret_pointers(root),
        risky_pointers=risky_pointers(root),
        _root=root,
        _layer_root=layered,
        _full=validator_for({key: value for key, value in root.items() if key != "$id"}),
        _layer=validator_for(layered),
        _optional=tuple(defaults.optional),
        _whole_numbers=asks_for_whole_numbers(root),
    )


def schema_digest(schema: object) -> bytes:
    """Return the SHA-256 of the schema's canonical bytes."""
    return hashlib.sha256(canonical(schema)).digest()


@dataclass(frozen=True, slots=True, eq=False)
class CompiledSchema:
    """A schema ready for use; safe to share, never changes."""

    name: str
    digest: bytes
    """SHA-256 of the schema's canonical bytes."""

    defaults: Values
    """The lowest layer of every device of this schema; do not change it."""

    top_level_fields: frozenset[str]
    """Names that the outermost object declares, under whatever condition."""

    open: bool
    """Whether the outermost object takes names that it does not declare."""

    secret_pointers: frozenset[str]
    """Where ``writeOnly`` fields stand; ``*`` is any key or list entry. To decide about a value ask ``is_secret``."""

    risky_pointers: frozenset[str]
    """Where fields marked ``x-henge-risk`` stand; to decide about a change ask ``is_risky``."""

    _root: Node = field(repr=False)
    _layer_root: Node = field(repr=False)
    _full: Validator = field(repr=False)
    _layer: Validator = field(repr=False)
    _optional: tuple[tuple[Path, Values], ...] = field(repr=False)
    _whole_numbers: bool = field(repr=False)
    _secret_places: dict[tuple[str | int, ...], bool] = field(default_factory=dict, repr=False)
    """What was asked before: devices of a schema have the same places again and again."""

    def is_valid(self, value: object) -> bool:
        """Tell whether a document fits, as fast as possible."""
        return self._fits(self._full, self._root, value)

    def validate(self, value: object) -> list[Problem]:
        """Return what is wrong with a whole document, secrets already put in; empty if it fits."""
        return [] if self.is_valid(value) else self._problems(self._full, self._root, value, has_secrets=True)

    def validate_layer(self, values: object) -> list[Problem]:
        """Return what is wrong with one layer's values, whatever other layers say.

        Nothing is required, ``null`` fits everywhere (it removes), and ``{"$secret": NAME}`` fits where a secret does.
        """
        present = drop_nulls(values)
        judge = (self._layer, self._layer_root, present)
        return [] if self._fits(*judge) else self._problems(*judge)

    def defaults_for(self, values: Mapping[str, object]) -> Values:
        """Return ``defaults`` with those of optional objects that ``values``, all other layers merged, holds."""
        found: object = self.defaults
        for path, inner in self._optional:
            if isinstance(get(values, path, MISSING), dict):
                patch: object = inner
                for key in reversed(path):
                    patch = {key: patch}
                found = merge(found, patch)
        return found  # type: ignore[return-value]

    def is_secret(self, path: Sequence[str | int]) -> bool:
        """Tell whether the value at ``path`` is, or lies inside of, a ``writeOnly`` field."""
        if not self.secret_pointers:
            return False
        place = tuple(path)
        known = self._secret_places.get(place)
        if known is None:
            known = is_secret(self._root, place)
            if len(self._secret_places) < PLACES_REMEMBERED:
                self._secret_places[place] = known
        return known

    def is_risky(self, path: Sequence[str | int]) -> bool:
        """Tell whether a change of the value at ``path`` may cut the device off, be it inside of it or around it."""
        if not self.risky_pointers:
            return False
        inside = f"{pointer(path)}/"
        around = any(where.startswith(inside) for where in self.risky_pointers)
        return around or is_marked(self._root, path, "x-henge-risk")

    def _fits(self, validator: Validator, root: Node, value: object) -> bool:
        if not validator.is_valid(value):
            return False
        if not self._whole_numbers or not holds_whole_float(value):
            return True
        return next(whole_float_problems(root, validator, value), None) is None

    def _problems(self, validator: Validator, root: Node, value: object, *, has_secrets: bool = False) -> list[Problem]:
        found = problems(misfits(root, validator, value), self.is_secret, has_secrets=has_secrets)
        fractions = islice(whole_float_problems(root, validator, value), MAX_PROBLEMS - len(found))
        told = {self._discreet(one) if has_secrets else one for one in fractions}
        return found + sorted(told - set(found), key=lambda problem: problem.pointer)

    def _discreet(self, problem: Problem) -> Problem:
        secret = secret_around(tokens(problem.pointer), self.is_secret)
        return problem if secret is None else Problem(pointer(secret), UNFIT_SECRET)


class SchemaCache:
    """Compiled schemas by name and digest, so that each version is compiled once; the least used go first.

    May be asked from several threads: changes ask on the store's writer thread, explanations on the loop's.
    """

    def __init__(self, *, max_entries: int = 256) -> None:
        self._max_entries = max_entries
        self._compiled: OrderedDict[tuple[str, bytes], CompiledSchema] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, schema: Mapping[str, Any], *, digest: bytes | None = None) -> CompiledSchema:
        """Return the schema compiled; whoever knows its ``schema_digest`` saves computing it."""
        key = (name, digest or schema_digest(schema))
        with self._lock:
            compiled = self._compiled.get(key)
            if compiled is not None:
                self._compiled.move_to_end(key)
                return compiled
        compiled = compile_schema(name, schema)  # outside: the event loop must not wait for the writer's schema
        with self._lock:
            self._compiled[key] = compiled
            self._compiled.move_to_end(key)
            if len(self._compiled) > self._max_entries:
                self._compiled.popitem(last=False)
        return compiled

    def __len__(self) -> int:
        return len(self._compiled)


def _check_meta(root: Node) -> None:
    if META.is_valid(root):
        return
    found = problems((Misfit((), {}, error, root) for error in META.iter_errors(root)), lambda path: False)
    raise refusal([Finding("bad_schema", tokens(problem.pointer), problem.message) for problem in found])


def _unfit_samples(root: Node) -> Iterator[Finding]:
    """Judge every default and example by the subschema it stands in, all with one validator."""
    samples = list(_samples(root))
    if not samples:
        return
    judges = {
        str(number): {word: part for word, part in node.items() if word not in ROOT_ONLY}
        for number, (_, node, _) in enumerate(samples)
    }
    schema = {"properties": judges, "$defs": root.get("$defs", {})}
    values = {str(number): value for number, (_, _, value) in enumerate(samples)}
    for problem in problems(misfits(schema, validator_for(schema), values), lambda path: False):
        number, _, inner = problem.pointer[1:].partition("/")
        path = samples[int(number)][0] if number else ()
        where = f"/{inner} " if inner else ""
        yield Finding("bad_default", path, f"it does not fit its own schema: {where}{problem.message}")


def _samples(root: Node) -> Iterator[tuple[tuple[str | int, ...], Node, object]]:
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, dict):
            if "default" in node:
                yield (*path, "default"), node, node["default"]
            for index, example in enumerate(node.get("examples", ())):
                yield (*path, "examples", index), node, example
            waiting += [((*path, *step), part) for step, part in subschemas(node)]


def _unfit_defaults(compiled: CompiledSchema) -> Iterator[Finding]:
    for path, values in [((), compiled.defaults), *compiled._optional]:
        for secret in _secrets_within(compiled, values, path):
            yield Finding("bad_default", path, f"a secret has no default, and {pointer(secret)} is given one")
    for problem in compiled.validate_layer(compiled.defaults):
        yield Finding("bad_default", (), f"the defaults together do not fit: {problem.pointer} {problem.message}")


def _secrets_within(compiled: CompiledSchema, value: object, path: tuple[str | int, ...]) -> Iterator[Path]:
    if compiled.is_secret(path):
        yield tuple(map(str, path))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets_within(compiled, inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _secrets_within(compiled, inner, (*path, index))
