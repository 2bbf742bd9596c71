"""Command lines as all three programs read them: what is doubtful is refused, not guessed. Pure.

An option given twice would be ignored once, in silence. A word that is empty is mostly a variable that a script did
not set, and as a file or folder it would mean the current one. Text that is not UTF-8 can be neither kept nor sent;
only the names of files may be any bytes (``FILE``, ``PATH``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from henge_protocol.peertext import printable

FILE: Final = click.Path(readable=False)
"""The name of a file or folder. What is wrong with it is told by whoever uses it, with its own code and cure."""
PATH: Final = click.Path(path_type=Path, readable=False)
"""The same as a ``Path``."""


class CarefulCommand(click.Command):
    """A command that takes nothing doubtful; see ``refuse_doubtful``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            refuse_doubtful(self, ctx, args)
        return super().parse_args(ctx, args)


class CarefulGroup(click.Group):
    """A command whose commands take nothing doubtful."""

    command_class = CarefulCommand


def refuse_doubtful(command: click.Command, ctx: click.Context, args: Sequence[str]) -> None:
    """Raise ``click.UsageError`` for an option given twice, for a word that is empty, for text that is not UTF-8.

    Empty is right where it is an option's default, because then it has a meaning: none.
    """
    given, _, order = command.make_parser(ctx).parse_args(list(args))
    _refuse_twice(ctx, order)
    for parameter in dict.fromkeys(order):
        for word in _words(given, parameter):
            if not word and not _may_be_empty(parameter):
                raise click.BadParameter("it is empty; perhaps a variable is not set.", ctx, parameter)
            if parameter.type is click.STRING and not _is_utf8(word):
                raise click.BadParameter(f"{ascii(word)[:60]} is not UTF-8.", ctx, parameter)


def told_of(error: click.ClickException) -> str:
    """What click says of a wrong command line; nothing in it can move the cursor."""
    text = io.StringIO()
    error.show(text)
    return printable(text.getvalue().rstrip("\n"))


def _refuse_twice(ctx: click.Context, order: Sequence[click.Parameter]) -> None:
    once = [one for one in order if isinstance(one, click.Option) and not one.multiple and not one.is_flag]
    for option in once:
        if once.count(option) > 1:
            raise click.BadOptionUsage(option.opts[-1], f"{option.opts[-1]} is given twice.", ctx)


def _words(given: Mapping[str, Any], parameter: click.Parameter) -> Iterator[str]:
    value = given.get(str(parameter.name))
    for word in value if isinstance(value, list | tuple) else (value,):
        if isinstance(word, str):
            yield word


def _may_be_empty(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.default == ""


def _is_utf8(word: str) -> bool:
    """The system's bytes that are none stand in words as lone surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
