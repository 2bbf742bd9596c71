"""Telling a list in every form that ``-o`` knows, for commands that list one kind of thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hengectl.columns import View, table_of
from hengectl.invocation import Invocation
from hengectl.kinds import Kind, Object, list_of
from hengectl.render import safe


def tell_list(
    invocation: Invocation,
    items: list[Object],
    form: str | None,
    *,
    name: Callable[[Object], object],
    rows: Callable[[], None],
    nothing: str,
    data: object = None,
) -> None:
    """``items`` as JSON or YAML (``data`` instead, where that is more), as names, as ``rows`` tells them, or a hint.

    ``name`` is what ``-o name`` prints of each: what another command takes.
    """
    if form in ("json", "yaml"):
        invocation.paper.data(list_of(items) if data is None else data, form)
    elif form == "name":
        for item in items:
            invocation.paper.say(safe(str(name(item))))
    elif items:
        rows()
    else:
        invocation.note(nothing)


def tell_table(invocation: Invocation, kind: Kind, items: Sequence[Object], form: str | None) -> None:
    """The table of a kind; with ``-o wide`` all its columns."""
    view = View(invocation.now(), invocation.paper.style)
    invocation.paper.table(table_of(kind, items, view, wide=form == "wide", labels=False))
