"""``explain``: what a schema says about its fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from henge_protocol.errors import NotFound
from henge_protocol.fieldpath import Path, parse_path
from hengectl.fields import Schema, at
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import SCHEMA, Ref, nearest
from hengectl.options import Name
from hengectl.render import Paper, Table, safe

_RANGES: Final = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "more than {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "less than {}"),
    ("multipleOf", "a multiple of {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("pattern", "matching {}"),
    ("format", "{}"),
)


class SchemaField(click.ParamType[tuple[str, Path]]):
    """``SCHEMA`` or ``SCHEMA.FIELD``."""

    name = "schema.field"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        schema, dot, field = str(value).removeprefix("schema/").partition(".")
        name = Name(SCHEMA).convert(schema, param, ctx)
        return name, parse_path(field) if dot else ()

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return Name(SCHEMA).shell_complete(ctx, param, incomplete)


@click.command("explain", cls=Command, short_help="Show what a schema says about its fields.")
@click.argument("what", metavar="SCHEMA[.FIELD]", type=SchemaField())
@with_invocation
def explain_command(invocation: Invocation, what: tuple[str, Path]) -> None:
    """Show type, range, default and meaning of a schema's fields.

    \b
    hengectl explain lamp
    hengectl explain lamp.wifi
    """
    name, path = what
    root: Schema = invocation.client.read(Ref(SCHEMA, name)).get("spec", {}).get("schema", {})
    parts = at(root, path)
    field = ".".join(path)
    if not parts:
        raise _no_such_field(name, field, root)
    needed = bool(path) and path[-1] in _required(at(root, path[:-1]))
    _explain(invocation.paper, f"{name}.{field}" if field else name, parts, root, required=needed)


def _explain(paper: Paper, title: str, parts: Sequence[Schema], root: Schema, *, required: bool) -> None:
    paper.say(paper.style.paint("strong", title))
    description = " ".join(str(part["description"]) for part in parts if part.get("description"))
    if description:
        paper.say(f"  {safe(description)}")
    facts = [("type", type_text(parts)), ("allowed", allowed_text(parts)), ("default", default_text(parts))]
    facts += [("required", "yes")] if required else []
    if title.partition(".")[1]:
        paper.pairs(facts, indent="  ")
    rows = list(_rows(parts, root))
    if rows:
        paper.say()
        paper.table(Table(["FIELD", "TYPE", "ALLOWED", "DEFAULT", "MEANING"], rows))


def _no_such_field(name: str, field: str, root: Schema) -> NotFound:
    close = nearest(field, [row[0] for row in _rows(at(root, ()), root)])
    cure = f"did you mean {name}.{close}? See its fields" if close else "see its fields"
    return NotFound("bad_path", f"schema/{name} declares no field {field}", cure=f"{cure}: hengectl explain {name}")


def _rows(parts: Sequence[Schema], root: Schema, prefix: str = "", depth: int = 0) -> Iterator[list[str]]:
    required = _required(parts)
    names = dict.fromkeys(name for part in parts for name in part.get("properties", ()))
    for name in names:
        below = _below(parts, name, root)
        description = next((str(one["description"]) for one in below if one.get("description")), "")
        needed = ", ".join(filter(None, [default_text(below), "required" if name in required else ""]))
        yield [f"{prefix}{safe(name)}", type_text(below), allowed_text(below), needed, safe(description)]
        if depth < 4:
            yield from _rows(below, root, f"{prefix}{safe(name)}.", depth + 1)


def _required(parts: Sequence[Schema]) -> frozenset[str]:
    return frozenset(name for part in parts for name in part.get("required", ()) if isinstance(name, str))


def _below(parts: Sequence[Schema], name: str, root: Schema) -> list[Schema]:
    """What all the parts say about one of their fields, each statement once."""
    found = [one for part in parts for one in at({**part, "$defs": root.get("$defs", {})}, (name,))]
    return list({id(one): one for one in found}.values())


def type_text(parts: Sequence[Schema]) -> str:
    """``integer``, or ``string or null``."""
    told: list[str] = []
    for part in parts:
        kind = part.get("type")
        told += [kind] if isinstance(kind, str) else [str(one) for one in kind] if isinstance(kind, list) else []
    shown = " or ".join(dict.fromkeys(told))
    secret = any(part.get("writeOnly") is True for part in parts)
    return f"{shown}, secret" if secret else shown


def allowed_text(parts: Sequence[Schema]) -> str:
    """``1 to 100``, ``red, green or blue``, ``at least 2 characters``."""
    return ", ".join(filter(None, (_allowed(part) for part in parts)))


def default_text(parts: Sequence[Schema]) -> str:
    """The default in JSON, empty if there is none."""
    return next((safe(part["default"] if part["default"] != "" else '""') for part in parts if "default" in part), "")


def _allowed(part: Mapping[str, Any]) -> str:
    values = part.get("enum")
    if isinstance(values, list):
        return " or ".join(filter(None, [", ".join(map(safe, values[:-1])), *map(safe, values[-1:])]))
    if "const" in part:
        return f"only {safe(part['const'])}"
    if "minimum" in part and "maximum" in part:
        limits = [f"{safe(part['minimum'])} to {safe(part['maximum'])}"]
        rest = [one for one in _RANGES if one[0] not in ("minimum", "maximum")]
    else:
        limits, rest = [], list(_RANGES)
    return ", ".join([*limits, *(_range(text, part[word]) for word, text in rest if word in part)])


def _range(text: str, limit: object) -> str:
    """``at least 1 character``, ``at most 5 items``."""
    said = text.format(safe(limit))
    return said.removesuffix("s") if limit == 1 and text.endswith(("characters", "items")) else said
