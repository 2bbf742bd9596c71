"""``completion``: the shell asks this program what could come next."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import get_completion_class

from hengectl.invocation import Command, Invocation, with_invocation

VARIABLE: Final = "_HENGECTL_COMPLETE"
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
