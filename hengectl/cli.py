"""The program ``hengectl``: finds the command, and turns whatever happens into a message and an exit code.

Commands are imported when they are called, because a shell starts this program at every TAB.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from henge_protocol import __version__
from henge_protocol.errors import HengeError
from henge_protocol.keyfiles import file_refusal
from henge_protocol.peertext import printable
from hengectl import refusal
from hengectl.invocation import (
    HELP_OPTIONS,
    aimed,
    check_words,
    command_of,
    debugging,
    everywhere,
    given_of,
    made_invocation,
)

COMMANDS: Final = {
    "apply": "apply",
    "diff": "diff",
    "check": "check",
    "get": "get",
    "describe": "describe",
    "set": "values",
    "unset": "values",
    "edit": "edit",
    "promote": "layering",
    "factor": "layering",
    "delete": "delete",
    "why": "documents",
    "document": "documents",
    "explain": "explain",
    "secret": "secrets",
    "history": "history",
    "rollback": "history",
    "wait": "wait",
    "events": "daemon",
    "status": "daemon",
    "version": "daemon",
    "whoami": "daemon",
    "token": "joining",
    "join": "joining",
    "approve": "joining",
    "operator": "joining",
    "audit": "audit",
    "backup": "backup",
    "rescue": "rescue",
    "doctor": "doctor",
    "support": "doctor",
    "device": "devices",
    "retry": "devices",
    "login": "contexts",
    "logout": "contexts",
    "context": "contexts",
    "paths": "contexts",
    "completion": "completion",
}
"""Each command, in the order of the help, and the module below ``commands`` that has it."""


OF_THE_DAEMON: Final = frozenset({"accept-clock", "announce", "ca", "restore", "service"})
"""Commands of ``hengd``; who looks for them here is told so: ``restore`` is near to ``retry``, which is not it."""


class Commands(click.Group):
    """All commands, imported one by one when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"hengectl.commands.{COMMANDS[cmd_name]}")
        found: click.Command = getattr(module, f"{cmd_name}_command")
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args == ["help"]:
            args = ["--help"]
        elif args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        if not ctx.resilient_parsing:
            check_words(self, ctx, args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            close = f"hengd {args[0]}" if args[0] in OF_THE_DAEMON else _nearest(args[0])
            hint = f" Did you mean {close!r}?" if close else " See: hengectl --help"
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


hengectl = Commands(
    "hengectl",
    help="See and change what your devices should run.\n\n"
    "The options below may also stand after the command's name.\n"
    "Without any of them: the current context, then the daemon of this machine.",
    params=[
        *everywhere(hidden=False),
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            help="Print the version.",
            callback=lambda ctx, _parameter, value: _print_version(ctx) if value else None,
        ),
    ],
    context_settings=dict(HELP_OPTIONS),
    subcommand_metavar="COMMAND",
)


def main() -> None:
    """The entry point."""
    if "_HENGECTL_COMPLETE" in os.environ:
        from hengectl.commands.completion import answer_shell

        sys.exit(answer_shell(hengectl))
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing is raised."""
    _prepare_streams()
    meta: dict[str, Any] = {}
    try:
        code = _call(arguments, meta)
        sys.stdout.flush()
    except BrokenPipeError:
        return _quiet_end()
    except OSError as error:
        return _say([f"Error: cannot write the output ({error.strerror})"], _trouble(refusal.NO, meta))
    return code


def _call(arguments: Sequence[str], meta: dict[str, Any]) -> int:
    try:
        with _context(arguments, meta) as ctx:
            result = hengectl.invoke(ctx)
            return result if isinstance(result, int) else refusal.OK
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        return _say([error.ctx.get_help()], refusal.USAGE)
    except click.UsageError as error:
        return _say(_usage_lines(error), refusal.USAGE)
    except HengeError as error:
        return _say(_refusal_lines(error, meta), _trouble(refusal.exit_code(error), meta))
    except (click.Abort, KeyboardInterrupt):
        return _say(_interrupted_lines(meta), refusal.INTERRUPTED)
    except OSError as error:
        if not isinstance(error.filename, str | bytes):
            raise  # the output's trouble, see above
        told = file_refusal(error, Path(os.fsdecode(error.filename)), "use")
        return _say(_refusal_lines(told, meta), _trouble(refusal.exit_code(told), meta))
    except Exception as error:  # the program's edge: a fault of ours, told in one line
        if debugging(meta):
            raise
        return _say([_fault_line(error)], _trouble(refusal.NO, meta))


@contextmanager
def _context(arguments: Sequence[str], meta: dict[str, Any]) -> Iterator[click.Context]:
    """The command line, read; ``meta`` has at the end what became known of the run, whatever happened."""
    with hengectl.make_context("hengectl", list(arguments)) as ctx:
        try:
            yield ctx
        finally:
            meta.update(ctx.meta)


def _trouble(code: int, meta: dict[str, Any]) -> int:
    """The exit code of a failure: of a command that compares, 1 is an answer and no failure."""
    command = command_of(meta)
    return max(code, refusal.USAGE) if command is not None and command.compares else code


def _refusal_lines(error: HengeError, meta: dict[str, Any]) -> list[str]:
    command = command_of(meta)
    lines = refusal.lines_of(error, writes=command is not None and command.writes, outcome=_outcome(meta))
    return [aimed(line, given_of(meta)) for line in lines]


def _usage_lines(error: click.UsageError) -> list[str]:
    message = " ".join(error.format_message().split())  # click breaks its lists of choices into lines
    lines = [f"Error: {printable(message)}"]
    if error.ctx is not None:
        lines += [error.ctx.get_usage(), f"Help: {error.ctx.command_path} --help"]
    return lines


def _interrupted_lines(meta: dict[str, Any]) -> list[str]:
    told = {"unknown": refusal.UNKNOWN_OUTCOME, "changed": "The change is made; only the waiting ended."}
    last = told.get(_outcome(meta))
    return ["Interrupted.", last] if last else ["Interrupted."]


def _fault_line(error: Exception) -> str:
    return f"Error: a fault in hengectl {__version__} ({type(error).__name__}: {error}). With --debug it shows where."


def _outcome(meta: dict[str, Any]) -> str:
    invocation = made_invocation(meta)
    return invocation.outcome if invocation is not None else "nothing"


def _say(lines: list[str], code: int) -> int:
    sys.stdout.flush()  # what was answered before comes before
    click.echo("\n".join(lines), err=True)
    return code


def _prepare_streams() -> None:
    """Names from elsewhere must not end the program because a terminal cannot show them; closed streams are empty."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open as long as the program
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            ascii_only = (stream.encoding or "").lower() in ("ascii", "ansi_x3.4-1968", "us-ascii")
            reconfigure(encoding="utf-8" if ascii_only else stream.encoding, errors="backslashreplace")


def _quiet_end() -> int:
    """The reader left (``| head``); the interpreter must not complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return refusal.OK


def _print_version(ctx: click.Context) -> None:
    click.echo(f"hengectl {__version__}")
    ctx.exit()


def _nearest(word: str) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, COMMANDS, n=1)), "")
