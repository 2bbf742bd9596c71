"""``document`` and ``why``: what a device should run, and where each value comes from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import click

from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, Ref
from hengectl.options import DEVICE_NAME, output_option
from hengectl.render import Style, Table, age, harmless_json, left, safe

INDENT: Final = "  "


@click.command("document", cls=Command, short_help="Print the document that a device gets.")
@click.argument("device", type=DEVICE_NAME)
@output_option("json", "yaml")
@with_invocation
def document_command(invocation: Invocation, device: str, form: str | None) -> None:
    """Print the bytes that the device gets, with names in the place of secrets; with -o a form easier to read."""
    reply = invocation.client.get(f"{Ref(DEVICE, device).path}/document")
    if form is not None:
        invocation.paper.data(reply.json(), form)
        return
    if sys.stdout.isatty():  # a prompt in the same line would look like a part of it
        invocation.paper.say(harmless_json(reply.body.decode()))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(reply.body)
    sys.stdout.buffer.flush()


@click.command("why", cls=Command, short_help="Show where a device's values come from.")
@click.argument("device", type=DEVICE_NAME)
@click.argument("field", required=False, default="")
@output_option("json", "yaml")
@with_invocation
def why_command(invocation: Invocation, device: str, field: str, form: str | None) -> None:
    """Show where a device's values come from; for one FIELD every layer that speaks about it, strongest first."""
    answer = invocation.client.get(f"{Ref(DEVICE, device).path}/why", field=field).json()
    if form is not None:
        invocation.paper.data(answer, form)
        return
    fields = answer["fields"]
    if not fields:
        invocation.note(f"device/{safe(device)} has no values.")
    elif len(fields) == 1 and field:
        invocation.paper.say("\n".join(explained(fields[0], invocation.paper.style, now=invocation.now())))
    else:  # of an object the whole comes first, then what it is made of
        invocation.paper.table(overview(fields[1:] if field else fields, now=invocation.now()))


def overview(fields: Sequence[Mapping[str, Any]], *, now: float) -> Table:
    """One line for a field: its value, who set it when, and what that overrides."""
    headers = ["FIELD", "VALUE", "FROM", "REV", "AUTHOR", "AGE", "OVERRIDES"]
    return Table(headers, [_overview(one, now=now) for one in fields], keep=frozenset({"VALUE"}))


def explained(field: Mapping[str, Any], style: Style, *, now: float) -> list[str]:
    """A field with its value, and below it one line for each layer."""
    value = safe(field["value"]) if "value" in field else "(not set)"
    rows = [[*_row(layer, now=now), _standing(layer, now=now)] for layer in field["layers"]]
    inner = replace(style, width=max(0, style.width - len(INDENT)))
    lines = Table([""] * 7, rows).lines(inner, headers=False)
    return [style.paint("strong", f"{safe(field['field'])} = {value}"), *(f"{INDENT}{line}" for line in lines)]


def _standing(layer: Mapping[str, Any], *, now: float) -> str:
    standing = "in force" if layer.get("wins") else "overridden"
    return f"{standing}, ends in {left(layer['until'], now=now)}" if "until" in layer else standing


def _overview(field: Mapping[str, Any], *, now: float) -> list[str]:
    winner: Mapping[str, Any] = next((layer for layer in field["layers"] if layer.get("wins")), {})
    others = ", ".join(f"{_value(layer)} ({_source(layer)})" for layer in field["layers"] if not layer.get("wins"))
    changed = ["", "", ""]
    if winner.get("revision") and winner.get("layer") != "schema":
        changed = [f"r{winner['revision']}", safe(winner.get("author") or ""), age(winner.get("time"), now=now)]
    return [safe(field["field"]), safe(field.get("value")), _source(winner), *changed, others]


def _source(layer: Mapping[str, Any]) -> str:
    if layer.get("layer") == "override":
        return f"override of {safe(layer.get('name', ''))}"
    if layer.get("layer") == "schema":
        return "schema"
    return f"{safe(layer.get('layer', '?'))}/{safe(layer.get('name', ''))}"


def _value(layer: Mapping[str, Any]) -> str:
    return "(removed)" if layer.get("removes") else safe(layer.get("value"))


def _row(layer: Mapping[str, Any], *, now: float) -> Sequence[str]:
    value = _value(layer)
    if layer["layer"] == "schema":
        return value, "schema", safe(layer["name"]), "default", "", ""
    when = f"{age(layer.get('time'), now=now)} ago" if layer.get("time") else ""
    return (
        value,
        safe(layer["layer"]),
        safe(layer["name"]),
        f"r{layer.get('revision', '?')}",
        safe(layer.get("author") or ""),
        when,
    )
