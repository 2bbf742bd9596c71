"""``completion``: the shell asks this program what could come next, names of devices included."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from henge_protocol.errors import HengeError
from henge_protocol.model import is_name
from hengectl.invocation import Command, Invocation, invocation_of, with_invocation
from hengectl.kinds import KINDS, Kind, find_kind, name_of

VARIABLE: Final = "_HENGECTL_COMPLETE"
PATIENCE_S: Final = 0.3
SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion", cls=Command, short_help="Print a script that makes TAB work.")
@click.argument("shell", type=click.Choice(SHELLS))
@with_invocation
def completion_command(invocation: Invocation, shell: str) -> None:
    """Print a script for your shell.

    \b
    bash:  echo 'eval "$(hengectl completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(hengectl completion zsh)"' >> ~/.zshrc
    fish:  hengectl completion fish > ~/.config/fish/completions/hengectl.fish
    """
    generator = get_completion_class(shell)
    assert generator is not None  # click knows the three of them
    writer = generator(click.Command("hengectl"), {}, "hengectl", VARIABLE)
    invocation.paper.say(writer.source_template % writer.source_vars())


def answer_shell(program: click.Command) -> int:
    """Answer what the shell asks; whatever goes wrong, a TAB says nothing."""
    shell = os.environ.get(VARIABLE, "").partition("_")[0]
    generator = get_completion_class(shell)
    if shell not in SHELLS or generator is None:
        return 1
    try:
        click.echo(generator(program, {}, "hengectl", VARIABLE).complete())
    except Exception:  # noqa: BLE001  # a message in the middle of a typed line would be worse than none
        pass
    return 0


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
    return [name for name in (name_of(item) or str(item.get("id", "")) for item in found) if is_name(name)]
