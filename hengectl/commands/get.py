"""``get``: tables and data of everything that has a name, once or while it changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import click

from henge_protocol.errors import HengeError, Invalid, NotFound
from henge_protocol.model import check_name, is_name
from hengectl import refusal
from hengectl.columns import View, rooms, table_of
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import (
    JOIN,
    KINDS,
    REVISION,
    SECRET,
    Kind,
    Object,
    Ref,
    list_of,
    name_of,
    parse_kind,
    parse_ref,
)
from hengectl.options import WHAT, output_option, selector_option
from hengectl.render import as_json_line, safe

HISTORY_SHOWN = 50
_ELSEWHERE: Final = {
    **dict.fromkeys(("event", "events"), "hengectl events"),
    **dict.fromkeys(("audit", "audits"), "hengectl audit list"),
    **dict.fromkeys(("context", "contexts"), "hengectl context list"),
    **dict.fromkeys(("override", "overrides"), "hengectl describe KIND/NAME"),
}
"""What is no kind of thing, and the command that shows it."""
FEW = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asked to see: one kind, all of it or some names."""

    kind: Kind
    names: tuple[str, ...] = ()
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """How to show it."""

    form: str | None
    headers: bool
    labels: bool


@click.command(
    "get",
    cls=Command,
    short_help="List things: devices, groups, schemas, secrets, joins, tokens, operators, revisions.",
)
@click.argument("what", metavar="KIND [NAME]... | KIND/NAME...", nargs=-1, required=True, type=WHAT)
@output_option("json", "yaml", "wide", "name")
@selector_option
@click.option("-w", "--watch", is_flag=True, help="Go on and show what changes.")
@click.option("--no-headers", is_flag=True, help="Leave the table's first line out.")
@click.option("--show-labels", is_flag=True, help="Show labels in the table.")
@with_invocation
def get_command(
    invocation: Invocation,
    what: tuple[str, ...],
    form: str | None,
    selector: str,
    watch: bool,
    no_headers: bool,
    show_labels: bool,
) -> int:
    """List things, or show some of them by name.

    \b
    hengectl get devices -l room=kitchen
    hengectl get device lamp-1 -o yaml
    hengectl get group/kitchen device/lamp-1
    """
    try:
        wanted = read_wanted(what, selector)
    except Invalid as error:
        raise Invalid("bad_usage", error.message, cure=_cure(error, what)) from None
    shape = Shape(form, not no_headers, show_labels)
    if watch:
        if len(wanted) > 1 or not wanted[0].kind.applied or form == "yaml":
            raise Invalid("bad_usage", "-w watches schemas, groups or devices, as a table, -o json or -o name")
        return _watch(invocation, wanted[0], shape)
    found, missing = _fetch(invocation, wanted)
    single = (len(what) == 1 and "/" in what[0]) or (len(what) == 2 and "/" not in what[0])
    _show(invocation, found, shape, single=single, selector=selector)
    for refused in missing:
        invocation.note("\n".join(refusal.lines_of(refused, writes=False, outcome="nothing")))
    return refusal.OK if not missing else refusal.PARTIAL if any(items for _, items in found) else refusal.NOT_FOUND


def _cure(error: Invalid, what: Sequence[str]) -> str:
    """Who names a thing without its kind mostly means a device."""
    elsewhere = _ELSEWHERE.get(what[0].lower())
    if error.code == "unknown_kind" and elsewhere:
        return f"shown by: {elsewhere}"
    if error.code != "unknown_kind" or "did you mean" in error.cure or not is_name(what[0]):
        return error.cure
    return f"for a device of that name: hengectl get device {' '.join(what)}"


def read_wanted(what: Sequence[str], selector: str) -> list[Wanted]:
    """What the arguments ask for; ``Invalid`` ``bad_usage``, ``unknown_kind``, ``bad_name``."""
    if any("/" in word for word in what):
        refs = [parse_ref(word, of=KINDS) for word in what]
        kinds = dict.fromkeys(ref.kind for ref in refs)
        wanted = [Wanted(kind, tuple(ref.name for ref in refs if ref.kind == kind)) for kind in kinds]
    elif "," in what[0] and len(what) == 1:
        wanted = [Wanted(kind, (), selector) for kind in dict.fromkeys(map(parse_kind, what[0].split(",")))]
    else:
        kind = parse_kind(what[0])
        names = [check_name(name, f"{kind.singular} name") if kind.applied else name for name in what[1:]]
        wanted = [Wanted(kind, tuple(names), selector)]
    if selector and any(one.names for one in wanted):
        raise Invalid("bad_usage", "names and a selector cannot be given together")
    return wanted


def _fetch(
    invocation: Invocation, wanted: Iterable[Wanted]
) -> tuple[list[tuple[Kind, list[Object]]], list[HengeError]]:
    found: list[tuple[Kind, list[Object]]] = []
    missing: list[HengeError] = []
    for one in wanted:
        items: list[Object] = []
        for name in one.names:
            try:
                items += _named(invocation, one.kind, name)
            except NotFound as error:
                missing.append(error)
        found.append((one.kind, items if one.names else _all(invocation, one)))
    return found, missing


def _all(invocation: Invocation, wanted: Wanted) -> list[Object]:
    if wanted.kind == REVISION:
        return invocation.client.revisions(HISTORY_SHOWN)
    return invocation.client.items(wanted.kind, wanted.selector)


def _named(invocation: Invocation, kind: Kind, name: str) -> list[Object]:
    if kind.applied or kind == SECRET:
        return [invocation.client.read(Ref(kind, name))]
    if kind == REVISION:
        if not name.isdecimal():
            raise Invalid("bad_usage", f"{name[:40]!r} is not a revision's number")
        return [invocation.client.get(f"/v1/revisions/{name}").json()]
    matching = [item for item in invocation.client.items(kind) if name in (item.get("id"), item.get("name"))]
    if not matching:
        missing = f"{kind.singular}/{safe(name)} does not exist"
        raise NotFound("no_such_object", missing, cure=f"see: hengectl get {kind.plural}")
    return matching


def _show(
    invocation: Invocation, found: Sequence[tuple[Kind, list[Object]]], shape: Shape, *, single: bool, selector: str
) -> None:
    items = [item for _, listed in found for item in listed]
    if shape.form in ("json", "yaml"):
        if not single or items:
            invocation.paper.data(items[0] if single else list_of(items), shape.form)
        return
    for number, (kind, listed) in enumerate(found):
        if shape.form == "name":
            for item in listed:
                invocation.paper.say(_ref(kind, item))
        elif listed:
            if number:
                invocation.paper.say()
            _table(invocation, kind, listed, shape)
        elif not single and len(found) == 1:
            invocation.note(_nothing(kind, selector))


def _nothing(kind: Kind, selector: str) -> str:
    if kind == JOIN:
        return "No device is waiting to join."
    return f"There are no {kind.plural} with {safe(selector)}." if selector else f"There are no {kind.plural}."


def _ref(kind: Kind, item: Object) -> str:
    given = next((item[key] for key in ("id", "revision", "name") if item.get(key)), "")
    return f"{kind.singular}/{safe(name_of(item) or str(given))}"


def _table(invocation: Invocation, kind: Kind, items: list[Object], shape: Shape) -> None:
    view = View(invocation.now(), invocation.paper.style)
    table = table_of(kind, items, view, wide=shape.form == "wide", labels=shape.labels)
    invocation.paper.table(table, headers=shape.headers)


def _watch(invocation: Invocation, wanted: Wanted, shape: Shape) -> int:
    """Show what is there, then each object again when something happened to it. Ends with Ctrl-C."""
    from hengectl.waiting import LONGEST_POLL_S

    listing = invocation.client.listing(wanted.kind, wanted.selector)
    shown = [item for item in listing["items"] if not wanted.names or name_of(item) in wanted.names]
    view = View(invocation.now(), invocation.paper.style)
    wide = shape.form == "wide"
    needed = table_of(wanted.kind, shown, view, wide=wide, labels=shape.labels).widths()
    widths = [max(pair) for pair in zip(needed, rooms(wanted.kind, wide=wide, labels=shape.labels), strict=True)]
    _watched(invocation, wanted, shape, shown, widths, headers=shape.headers)
    known = {name_of(item) for item in shown}
    seq = int(listing["metadata"]["event_seq"])
    while True:
        answer = invocation.client.events(seq, wait_s=LONGEST_POLL_S)
        seq = int(answer["next"])
        happened = {str(event["name"]) for event in answer["events"] if event.get("kind") in (wanted.kind.title, None)}
        gap = bool(answer.get("gap"))
        if not gap and not happened:
            continue
        there = _fresh(invocation, wanted, () if gap else happened)
        touched = set(there) | known if gap else happened
        visible = {name for name in touched if not wanted.names or name in wanted.names}
        fresh = [there[name] for name in sorted(visible & set(there))]
        _watched(invocation, wanted, shape, fresh, widths, headers=False)
        for name in sorted((visible & known) - set(there)):
            _gone(invocation, wanted.kind, name, shape)
        known = (known - visible) | {name_of(item) for item in fresh}


def _fresh(invocation: Invocation, wanted: Wanted, names: Collection[str]) -> dict[str, Object]:
    """Some objects as they are now, or all: a few are read one by one, a list costs the daemon all of them."""
    if not names or len(names) > FEW or wanted.selector:
        return {name_of(item): item for item in invocation.client.items(wanted.kind, wanted.selector)}
    found: dict[str, Object] = {}
    for name in names:
        try:
            found[name] = invocation.client.read(Ref(wanted.kind, name))
        except NotFound:
            continue
    return found


def _watched(
    invocation: Invocation, wanted: Wanted, shape: Shape, items: list[Object], widths: Sequence[int], *, headers: bool
) -> None:
    if shape.form == "json":
        for item in items:
            invocation.paper.say(as_json_line(item))
    elif shape.form == "name":
        for item in items:
            invocation.paper.say(_ref(wanted.kind, item))
    else:
        view = View(invocation.now(), invocation.paper.style)
        table = table_of(wanted.kind, items, view, wide=shape.form == "wide", labels=shape.labels)
        wider = [max(pair) for pair in zip(widths, table.widths(), strict=True)] if items else list(widths)
        invocation.paper.table(table, headers=headers, widths=wider)


def _gone(invocation: Invocation, kind: Kind, name: str, shape: Shape) -> None:
    if shape.form == "json":
        invocation.paper.say(as_json_line({"kind": kind.title, "metadata": {"name": name}, "deleted": True}))
    else:
        invocation.paper.say(f"{kind.singular}/{safe(name)}" if shape.form == "name" else f"{safe(name)} is deleted")
