"""``document`` and ``why``: what a device should run, and where each value comes from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, Ref
from hengectl.options import DEVICE_NAME, output_option
from hengectl.render import GAP, Style, Table, age, safe, width_of


@click.command("document", cls=Command, short_help="Print the exact document that a device gets.")
@click.argument("device", type=DEVICE_NAME)
@output_option("json", "yaml")
@with_invocation
def document_command(invocation: Invocation, device: str, form: str | None) -> None:
    """Print the bytes that the device gets, exactly; with -o a form that is easier to read."""
    reply = invocation.client.get(f"{Ref(DEVICE, device).path}/document")
    if form is not None:
        invocation.paper.data(reply.json(), form)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(reply.body)
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")  # a prompt in the same line would look like a part of it
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
    if not answer["fields"]:
        invocation.note(f"device/{safe(device)} has no values.")
    elif field:
        for one in answer["fields"]:
            invocation.paper.say("\n".join(explained(one, invocation.paper.style, now=invocation.now())))
    else:
        headers = ["FIELD", "VALUE", "FROM", "REVISION", "AUTHOR", "AGE", "OVERRIDES"]
        invocation.paper.table(Table(headers, [_overview(one, now=invocation.now()) for one in answer["fields"]]))


def explained(field: Mapping[str, Any], style: Style, *, now: float) -> list[str]:
    """A field with its value, and below it one line for each layer."""
    value = safe(field["value"]) if "value" in field else "(not set)"
    rows = [_row(layer, now=now) for layer in field["layers"]]
    widths = [max((width_of(row[column]) for row in rows), default=0) for column in range(6)]
    lines = [style.paint("strong", f"{safe(field['field'])} = {value}")]
    for row, layer in zip(rows, field["layers"], strict=True):
        cells = GAP.join(
            cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True) if width
        )
        verdict = style.paint("good", "in force") if layer.get("wins") else style.paint("faint", "overridden")
        lines.append(f"  {cells}{GAP}{verdict}")
    return lines


def _overview(field: Mapping[str, Any], *, now: float) -> list[str]:
    """One line for a field: its value, who won, and over whom."""
    winner: Mapping[str, Any] = next((layer for layer in field["layers"] if layer.get("wins")), {})
    others = ", ".join(_source(layer) for layer in field["layers"] if not layer.get("wins"))
    changed = ["", "", ""]
    if winner.get("revision") and winner.get("layer") != "schema":
        changed = [f"r{winner['revision']}", safe(winner.get("author") or ""), age(winner.get("time"), now=now)]
    return [safe(field["field"]), safe(field.get("value")), _source(winner), *changed, others]


def _source(layer: Mapping[str, Any]) -> str:
    return (
        "schema" if layer.get("layer") == "schema" else f"{safe(layer.get('layer', '?'))}/{safe(layer.get('name', ''))}"
    )


def _row(layer: Mapping[str, Any], *, now: float) -> Sequence[str]:
    value = "(removed)" if layer.get("removes") else safe(layer.get("value"))
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
