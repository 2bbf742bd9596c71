"""Objects and documents field by field, as ``diff``, ``history --diff`` and a rollback's preview tell them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hengectl import delivery
from hengectl.changes import is_kept, tell_comparison
from hengectl.columns import done_text
from hengectl.invocation import Invocation
from hengectl.refusal import field_of
from hengectl.render import GAP, Style, data_text, plural, safe

_MARKS: Final = {"-": "bad", "~": "busy", "+": "good"}
"""Removed, changed and new fields, in the order in which they are shown: what is lost comes first."""
_ENDS: Final = re.compile("/status/overrides/(?P<field>[^/]+)/until")


def tell_differences(
    invocation: Invocation,
    objects: Sequence[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
    *,
    happened: bool = False,
) -> None:
    """Objects, and what devices run, field by field; what a dry run answers."""
    paper, style = invocation.paper, invocation.paper.style
    for one in sorted(objects, key=is_kept):
        paper.say(style.paint("strong", done_text(one)))
        say_fields(invocation, one["changes"])
        tell_comparison(invocation, one)
    for names, changes in _alike(devices):
        paper.say(style.paint("strong", f"\n{names}"))
        say_fields(invocation, changes)
    differ = "differs" if len(objects) == 1 else "differ"
    documents = plural(len(devices), "device") if devices else "no device"
    get = ("has" if len(devices) <= 1 else "have") if happened else "would get"
    paper.say(f"\n{plural(len(objects), 'object')} {differ}; {documents} {get} another document")


def tell_overrides(invocation: Invocation, objects: Sequence[Mapping[str, Any]]) -> None:
    """Of objects that were changed: which overrides end with that, and which are in force again."""
    for one in objects:
        for change in one["changes"]:
            found = _ENDS.fullmatch(change["pointer"])
            if found is not None:
                about = f"the override of {safe(found['field'])} in {safe(one['kind'].lower())}/{safe(one['name'])}"
                how = f"runs until {safe(change['after'])}" if "after" in change else "ends"
                invocation.note(f"With that {about} {how}.")


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


def say_fields(invocation: Invocation, changes: Sequence[Mapping[str, Any]]) -> None:
    """Fields that differ, one a line; what is lost comes first."""
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
