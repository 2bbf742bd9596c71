"""What every command has: where to write, which daemon to speak to, and the options that all share."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec, TextIO, TypeVar

import click

from henge_protocol import __version__
from henge_protocol.arguments import FILE, refuse_doubtful
from henge_protocol.errors import HengeError, Invalid, Malformed
from henge_protocol.hints import repeated
from henge_protocol.peertext import printable
from hengectl.client import Client
from hengectl.find import Choice, Surroundings, choose, find, nothing_found, sightings
from hengectl.kinds import nearest
from hengectl.progress import Progress
from hengectl.render import Paper, Style, wants_colour

P = ParamSpec("P")
R = TypeVar("R")

HELP_OPTIONS: Final = {"help_option_names": ["-h", "--help"]}
_GIVEN: Final = "hengectl.given"
_INVOCATION: Final = "hengectl.invocation"
_COMMAND: Final = "hengectl.command"
_OF_ANOTHER_VERSION: Final = frozenset({"no_such_route", "method_not_allowed", "unknown_parameter"})
"""What a daemon says of requests that it does not know; one of this program's own version knows them all."""
_VERSION_PATIENCE_S: Final = 5.0
MAX_WIDTH_DIGITS: Final = 4
"""No terminal has ten thousand columns, and Python reads no number of thousands of digits."""
_VARIABLES: Final = ("HENGE_SOCKET", "HENGE_SERVER", "HENGE_CONTEXT", "HENGE_COLOR")
_ELSEWHERE: Final = ("login", "logout", "context", "paths", "completion")
"""Commands in hints that must not be aimed at the daemon of this run."""


@dataclass(slots=True)
class Invocation:
    """One run of the program."""

    paper: Paper
    environ: Mapping[str, str]
    choice: Choice
    interactive: bool
    """Whether a person sits there who can be asked."""
    progress: Progress
    now: Callable[[], float] = time.time
    verbose: bool = False
    given: Sequence[str] = ()
    """The options that chose the daemon, as they were given: ``--socket PATH``."""
    _client: Client | None = field(default=None, repr=False)

    def tell_versions(self, error: HengeError) -> None:
        """Let a refusal say both versions, if they differ."""
        try:
            self.client.answer_timeout_s = _VERSION_PATIENCE_S
            version = str(self.client.get("/v1/status").json().get("version", "?"))
        except HengeError:
            return  # what was refused is told all the same
        if version != __version__:
            error.cure = f"the daemon is henge {version}, this is hengectl {__version__}: update the older one"

    @property
    def around(self) -> Surroundings:
        """What finding a daemon depends on."""
        return Surroundings(self.environ, self.now, self.note if self.verbose else None)

    @property
    def client(self) -> Client:
        """The daemon that is meant; found at first use. Raises as ``find.find``."""
        if self._client is None:
            self._client = self._find()
        return self._client

    @property
    def outcome(self) -> str:
        """What was changed so far: nothing, unknown or changed."""
        return self._client.outcome if self._client is not None else "nothing"

    def close(self) -> None:
        """End the connection if there is one."""
        self.progress.clear()
        if self._client is not None:
            self._client.close()

    def note(self, text: str) -> None:
        """One line beside the answer, on standard error; commands in it are aimed at the daemon of this run."""
        self.progress.clear()
        click.echo(printable(self.aimed(text)), err=True)

    def aimed(self, text: str) -> str:
        """The text with the options that chose the daemon in every command that it suggests."""
        return aimed(text, self.given)

    def confirm(self, question: str, *, yes: bool, nothing_done: str = "nothing was done") -> None:
        """Ask; ``--yes`` answers. Without a person and without ``--yes``: ``Invalid`` ``bad_usage``."""
        if yes:
            return
        self._need_person(nothing_done)
        self.progress.clear()
        if not click.confirm(question, err=True):
            self.note("Nothing was done.")
            raise click.exceptions.Exit(1)

    def confirm_by_name(self, name: str, doing: str, *, yes: bool) -> None:
        """Let the person type the name of what will be gone; ``--yes`` answers."""
        if yes:
            return
        self._need_person("nothing was done")
        self.progress.clear()
        typed = click.prompt(f"Type {name} to {doing} it", default="", show_default=False, err=True)
        if typed.strip() != name:
            raise Invalid("bad_usage", f"that was not {name}; nothing was done")

    def hidden(self, question: str, *, again: bool = False, default: str | None = None) -> str:
        """Ask for what nobody may see, twice if ``again``; ``Malformed`` ``bad_encoding`` for what is not UTF-8."""
        self.progress.clear()
        try:
            typed = str(
                click.prompt(
                    question, hide_input=True, confirmation_prompt=again, default=default, show_default=False, err=True
                )
            )
            typed.encode()
        except UnicodeError:
            raise Malformed("bad_encoding", "what was typed is not UTF-8", cure="type it anew") from None
        return typed

    def _need_person(self, nothing_done: str) -> None:
        if not self.interactive:
            raise Invalid("bad_usage", f"this needs a yes and nobody can be asked; {nothing_done}", cure="add --yes")

    def _find(self) -> Client:
        try:
            return find(self.choice, self.around)
        except HengeError as error:
            if error.code == "no_daemon" and self.interactive:
                seen = sightings()  # only a person can use a suggestion; a script need not wait two seconds
                raise (nothing_found(seen) if seen else error) from None
            raise


class Command(click.Command):
    """A command that also takes the options that say which daemon, and refuses what is doubtful."""

    writes = False
    """Whether a refusal should say that nothing was changed."""
    compares = False
    """Whether 1 as exit code means that things differ, so that trouble needs another one."""

    def __init__(self, *args: Any, writes: bool = False, compares: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.writes = writes
        self.compares = compares
        self.context_settings = {**HELP_OPTIONS, **self.context_settings}
        self.params += everywhere(hidden=True)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            check_words(self, ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        ctx.meta[_COMMAND] = self
        try:
            return super().invoke(ctx)
        except HengeError as error:
            invocation = made_invocation(ctx.meta)
            if invocation is not None and error.code in _OF_ANOTHER_VERSION:
                invocation.tell_versions(error)
            raise


class Group(click.Group):
    """A command with commands below it, such as ``token``."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {**HELP_OPTIONS, **self.context_settings}


def everywhere(*, hidden: bool) -> list[click.Parameter]:
    """The options that may stand before or after the command's name."""
    return [
        _option("--socket", hidden, type=FILE, metavar="PATH", help="Use the daemon behind it. [HENGE_SOCKET]"),
        _option("--server", hidden, metavar="URL", help="Use the daemon at this address. [HENGE_SERVER]"),
        _option("--context", hidden, metavar="NAME", help="Use the daemon of this context. [HENGE_CONTEXT]"),
        _option(
            "--color",
            hidden,
            type=click.Choice(["auto", "always", "never"]),
            help="Colour words of state. [HENGE_COLOR]",
        ),
        _flag(["-v", "--verbose"], hidden, help="Show the requests."),
        _flag(["--debug"], hidden, help="Show where an unexpected error comes from."),
    ]


def check_words(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    """As ``refuse_doubtful``; of options that do not exist a like one is suggested."""
    try:
        refuse_doubtful(command, ctx, args)
    except click.UsageError as error:
        error.ctx = error.ctx or ctx  # so that the command's own help is named
        if isinstance(error, click.NoSuchOption) and error.possibilities:
            close = nearest(error.option_name, error.possibilities)  # click also takes what is hardly alike
            raise click.NoSuchOption(error.option_name, possibilities=[close] if close else [], ctx=error.ctx) from None
        raise


def with_invocation(function: Callable[Concatenate[Invocation, P], R]) -> Callable[P, R]:
    """Give a command its ``Invocation`` as first argument."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        invocation = invocation_of(click.get_current_context())
        _warn_of_misspelled(invocation)
        return function(invocation, *args, **kwargs)

    return wrapper


def invocation_of(ctx: click.Context) -> Invocation:
    """The invocation of this run, made when it is first asked for."""
    made: Invocation | None = ctx.meta.get(_INVOCATION)
    if made is None:
        made = ctx.meta[_INVOCATION] = _make(ctx.meta, os.environ)
        ctx.find_root().call_on_close(made.close)
    return made


def debugging(meta: Mapping[str, Any]) -> bool:
    """Whether ``--debug`` was given."""
    return bool(meta.get(_GIVEN, {}).get("debug"))


def command_of(meta: Mapping[str, Any]) -> Command | None:
    """The command that ran, if it got that far."""
    return meta.get(_COMMAND)


def given_of(meta: Mapping[str, Any]) -> list[str]:
    """The options that chose the daemon, as they were given."""
    given = meta.get(_GIVEN, {})
    return [word for name in ("socket", "server", "context") if name in given for word in (f"--{name}", given[name])]


def aimed(text: str, given: Sequence[str]) -> str:
    """The text with the given options in every command of this program that it suggests for the same daemon."""
    there = (
        () if "--socket" in given else ("token create --admin", "token create --role")
    )  # for somebody else, on the daemon's own machine
    return repeated(text, "hengectl", given, but=(*_ELSEWHERE, *there))


def made_invocation(meta: Mapping[str, Any]) -> Invocation | None:
    """The invocation of a run that has ended, if it got that far."""
    return meta.get(_INVOCATION)


def _make(meta: Mapping[str, Any], environ: Mapping[str, str]) -> Invocation:
    given: Mapping[str, Any] = meta.get(_GIVEN, {})
    options = Choice(given.get("socket", ""), given.get("server", ""), given.get("context", ""))
    colour = given.get("color") or _colour_variable(environ)
    terminal = sys.stdout.isatty()
    encoding = (sys.stdout.encoding or "ascii").lower()
    style = Style(
        colour=wants_colour(colour, environ, terminal=terminal),
        unicode=encoding.replace("-", "").startswith("utf"),
        width=_terminal_width(environ, sys.stdout) if terminal else 0,
    )
    progress = _progress(environ)
    return Invocation(
        Paper(sys.stdout, style, progress.clear),
        environ,
        choose(options, environ),
        interactive=sys.stdin.isatty() and sys.stderr.isatty(),
        progress=progress,
        verbose=bool(given.get("verbose")),
        given=given_of(meta),
    )


def _warn_of_misspelled(invocation: Invocation) -> None:
    """A variable that chooses the daemon and is misspelled chooses none: another one might be changed."""
    for name in sorted(invocation.environ):
        if name.startswith("HENGE_") and name not in _VARIABLES and (meant := nearest(name, _VARIABLES, cutoff=0.85)):
            invocation.note(f"Warning: hengectl knows no variable {name}; did you mean {meant}?")


def _colour_variable(environ: Mapping[str, str]) -> str:
    value = environ.get("HENGE_COLOR", "") or "auto"
    if value not in ("auto", "always", "never"):
        raise Invalid("bad_usage", f"HENGE_COLOR is {value[:40]!r}; auto, always or never is right")
    return value


def _progress(environ: Mapping[str, str]) -> Progress:
    live = sys.stderr.isatty() and environ.get("TERM", "") not in ("", "dumb")
    return Progress(sys.stderr, live=live, width=_terminal_width(environ, sys.stderr) if live else 0)


def _terminal_width(environ: Mapping[str, str], stream: TextIO) -> int:
    told = environ.get("COLUMNS", "")
    if told.isdecimal() and len(told) <= MAX_WIDTH_DIGITS:
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 0


def _option(name: str, hidden: bool, **attributes: Any) -> click.Option:  # noqa: FBT001
    return click.Option([name], hidden=hidden, expose_value=False, callback=_remember, **attributes)


def _flag(names: list[str], hidden: bool, **attributes: Any) -> click.Option:  # noqa: FBT001
    return click.Option(names, hidden=hidden, is_flag=True, expose_value=False, callback=_remember, **attributes)


def _remember(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is None or value is False:
        return
    given = ctx.meta.setdefault(_GIVEN, {})
    name = str(parameter.name)
    if given.setdefault(name, value) != value:
        raise click.BadOptionUsage(name, f"--{name} is given twice.", ctx)
