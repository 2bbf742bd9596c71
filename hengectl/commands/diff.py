"""``diff``: what ``apply`` would change, field by field, in objects and in what devices run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from hengectl import delivery, refusal
from hengectl.commands.apply import apply_files
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.options import files_option, output_option
from hengectl.refusal import field_of
from hengectl.render import GAP, Style, data_text, plural, safe

DIFFERS: Final = 1
_MARKS: Final = {"-": "bad", "~": "busy", "+": "good"}
"""Removed, changed and new fields, in the order in which they are shown: what is lost comes first."""


@click.command("diff", cls=Command, compares=True, short_help="Show what apply would change, field by field.")
@files_option
@output_option("json", "yaml")
@with_invocation
def diff_command(invocation: Invocation, names: tuple[str, ...], form: str | None) -> int:
    """Show what 'apply' with the same files would change: in the objects, and in what each device runs.

    The daemon makes the whole change, tells what differs, and undoes it. The exit code is 0 when nothing
    differs, 1 when something does, and 2 or more when there is trouble.

    \b
    hengectl diff -f fleet/
    """
    result = apply_files(invocation, names, dry_run=True)
    objects = [one for one in result["objects"] if one["action"] != "unchanged"]
    if form is not None:
        invocation.paper.data(result, form)
    elif objects:
        _tell(invocation, objects, result["devices"])
    else:
        invocation.note(f"Nothing differs from revision {result['revision']}.")
    return DIFFERS if objects else refusal.OK


def _tell(invocation: Invocation, objects: Sequence[Mapping[str, Any]], devices: Sequence[Mapping[str, Any]]) -> None:
    paper, style = invocation.paper, invocation.paper.style
    for one in objects:
        paper.say(style.paint("strong", f"{safe(one['kind'].lower())}/{safe(one['name'])} {safe(one['action'])}"))
        _say_fields(invocation, one["changes"])
    for names, changes in _alike(devices):
        paper.say(style.paint("strong", f"\n{names}"))
        _say_fields(invocation, changes)
    differ = "differs" if len(objects) == 1 else "differ"
    documents = plural(len(devices), "device") if devices else "no device"
    paper.say(f"\n{plural(len(objects), 'object')} {differ}; {documents} would get another document")


def _alike(devices: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Devices whose documents change in the same way, told together; those that lose theirs first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for device in sorted(devices, key=lambda device: (bool(device["after"]), device["name"])):
        key = json.dumps([bool(device["before"]), bool(device["after"]), device["changes"]])
        groups.setdefault(key, []).append(device)
    for alike in groups.values():
        first, names = alike[0], delivery.some([safe(one["name"]) for one in alike])
        if not first["before"] or not first["after"]:
            names = f"{names}: {'no document any more' if first['before'] else 'a first document'}"
        yield names, first["changes"]


def _say_fields(invocation: Invocation, changes: Sequence[Mapping[str, Any]]) -> None:
    style, order = invocation.paper.style, list(_MARKS)
    lines = sorted((_line(one, style) for one in changes), key=lambda line: order.index(line[0]))
    width = max((len(field) for _, field, _ in lines), default=0)
    for mark, field, values in lines:
        invocation.paper.say(style.paint(_MARKS[mark], f"  {mark} {field:<{width}}{GAP}{values}"))


def _line(change: Mapping[str, Any], style: Style) -> tuple[str, str, str]:
    field = safe(field_of(change["pointer"]))
    if "after" not in change:
        return "-", field, _shown(change["before"])
    if "before" not in change:
        return "+", field, _shown(change["after"])
    return "~", field, f"{_shown(change['before'])} {style.arrow} {_shown(change['after'])}"


def _shown(value: object) -> str:
    """As JSON: the number 1 and the text "1" must not look the same."""
    return safe(data_text(value))
