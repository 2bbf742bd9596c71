"""What TAB offers: kinds, and the names that the daemon knows now. Silent, and quick or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from henge_protocol.errors import HengeError
from henge_protocol.model import is_name, is_secret_name
from hengectl.invocation import invocation_of
from hengectl.kinds import KINDS, SECRET, Kind, find_kind, name_of

PATIENCE_S: Final = 0.3


def names(ctx: click.Context, kinds: Sequence[Kind], incomplete: str, *, prefixed: bool) -> list[CompletionItem]:
    """The names that could be meant, ``device/lamp-1`` or ``lamp-1``; none if the daemon does not say so at once."""
    if not prefixed:
        return [CompletionItem(name) for kind in kinds for name in _names(ctx, kind) if name.startswith(incomplete)]
    word, slash, _ = incomplete.partition("/")
    if not slash:
        return [CompletionItem(f"{kind.singular}/") for kind in kinds if kind.singular.startswith(word)]
    kind = find_kind(word)
    listed = _names(ctx, kind) if kind is not None and kind in kinds else []
    return [CompletionItem(f"{word}/{name}") for name in listed if f"{word}/{name}".startswith(incomplete)]


def kinds_and_names(ctx: click.Context, before: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """For ``get``: a kind first, names of it then."""
    if "/" in incomplete:
        return names(ctx, KINDS, incomplete, prefixed=True)
    kind = find_kind(before[0]) if before else None
    if kind is not None:
        return names(ctx, (kind,), incomplete, prefixed=False)
    return [CompletionItem(kind.plural) for kind in KINDS if kind.plural.startswith(incomplete)]


def _names(ctx: click.Context, kind: Kind) -> list[str]:
    try:
        client = invocation_of(ctx).client
        client.answer_timeout_s = PATIENCE_S
        found: list[Any] = client.items(kind)
    except HengeError:
        return []
    good = is_secret_name if kind == SECRET else is_name
    return [name for name in (name_of(item) or str(item.get("id", "")) for item in found) if good(name)]
