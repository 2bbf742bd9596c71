"""The agent's face: commands, messages, exit codes.

Exit codes: 0 done, 1 refused by the daemon, 2 usage, 65 bad data, 66 no such input, 69 no daemon, 70 internal,
73 exists already, 74 input or output failed, 75 another agent is at work, 76 not our daemon, 77 permission,
78 not joined or not set up, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import random
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from henge_agent.configfile import Configured, read_configured
from henge_agent.logs import log_to_stderr
from henge_agent.settings import (
    HOOK_TIMEOUT_S,
    ON_DRIFT,
    Address,
    Hooks,
    OnDrift,
    check_outputs,
    name_from_host,
    read_address,
    read_duration_s,
    read_output,
    read_path,
)
from henge_agent.state import State, read_membership, set_aside
from henge_agent.status import day, status_lines
from henge_protocol import __version__
from henge_protocol.arguments import FILE, CarefulCommand, told_of
from henge_protocol.errors import Conflict, HengeError, Invalid, Malformed, NotFound, TooLarge
from henge_protocol.hints import repeated
from henge_protocol.joining import JoinToken, format_code, parse_token
from henge_protocol.keyfiles import UNWRITTEN, file_refusal, read_once
from henge_protocol.model import check_name
from henge_protocol.peertext import printable
from henge_protocol.places import agent_config_file, agent_state_dir

if TYPE_CHECKING:  # cryptography and aiohttp wait until they are needed
    from henge_agent.enrol import Chance, Joined

F = TypeVar("F", bound=Callable[..., Any])
MAX_TOKEN_FILE_BYTES: Final = 4096

_EXIT_CODES: Final = {
    "bad_usage": 2,
    "bad_name": 2,
    "token_malformed": 65,
    "state_damaged": 65,
    "does_not_fit": 65,
    "unreachable": 69,
    "no_daemon": 69,
    "internal": 70,
    "already_joined": 73,
    "storage_full": 74,
    "already_running": 75,
    "pin_mismatch": 76,
    "bad_trust_answer": 76,
    "bad_certificate": 76,
    "bad_frame": 76,
    "bad_json": 76,
    "too_large": 76,
    "join_mismatch": 76,
    "not_private": 77,
    "not_joined": 78,
    "bad_setting": 78,
}

state_dir_option = click.option(
    "--state-dir",
    type=FILE,
    metavar="DIR",
    help="Where identity and last good document are kept; default /var/lib/henge-agent for root.",
)


def _hook_option(name: str, meaning: str) -> Callable[[F], F]:
    """A command, which may name files of any bytes; empty is none, also where the settings file says one."""
    return click.option(name, type=click.UNPROCESSED, default="", metavar="CMD", help=meaning)


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run_command_line(sys.argv[1:]))


def run_command_line(arguments: list[str]) -> int:
    """Run one command; the exit code. Errors are told on stderr, in one line and one cure."""
    try:
        return int(cli.main(arguments, prog_name="henge-agent", standalone_mode=False) or 0)
    except click.ClickException as error:
        click.echo(told_of(error), err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except HengeError as error:
        return _refused(error, arguments)
    except Exception as error:  # the outermost boundary of the program
        if "--debug" in arguments:
            raise
        if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
            return _refused(file_refusal(error, Path(os.fsdecode(error.filename)), "use"), arguments)
        if isinstance(error, OSError) and error.errno in UNWRITTEN:
            click.echo(f"Error: cannot write the output ({error.strerror})", err=True)
            return 74
        click.echo(f"Error: henge-agent failed: {type(error).__name__}: {error}", err=True)
        click.echo("  run it again with --debug and report what it says", err=True)
        return 70


def _refused(error: HengeError, arguments: Sequence[str]) -> int:
    cure = f"\n  {_here(error.cure, _given_folder(arguments))}" if error.cure else ""
    click.echo(printable(f"Error: {error.message}{cure}"), err=True)
    return exit_code(error)


def _given_folder(arguments: Sequence[str]) -> list[str]:
    """The option that names the state folder, if it was given: the next step needs it, too."""
    for number, word in enumerate(arguments):
        option, equals, folder = word.partition("=")
        if option == "--state-dir":
            return [option, *([folder] if equals else arguments[number + 1 : number + 2])]
    return []


def _here(text: str, given: Sequence[str]) -> str:
    return repeated(text, "henge-agent", given, after_command=True)


def exit_code(error: HengeError) -> int:
    """The exit code for an error of ours; 1 when the daemon said no."""
    if error.code == "bad_file":
        number = getattr(error.__cause__, "errno", None)
        if number in (errno.EACCES, errno.EPERM):
            return 77
        return 66 if isinstance(error, NotFound) else 74 if number in (errno.EIO, errno.EROFS) else 73
    return _EXIT_CODES.get(error.code, 1)


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="henge-agent", message="%(prog)s %(version)s")
def cli() -> None:
    """Receives this device's configuration from hengd, applies it, and says so."""


@cli.command(cls=CarefulCommand, short_help="Make this device known to a daemon.")
@click.argument("url", required=False)
@click.option(
    "--token-file", type=FILE, metavar="FILE|-", envvar="HENGE_TOKEN_FILE", help="Read the join token from here."
)
@click.option("--token", metavar="TOKEN", help="The join token itself; others can see it in the process list.")
@click.option("--name", metavar="NAME", help="What the device is to be called; default: the host's name.")
@click.option("--schema", metavar="NAME", help="The schema wished for; the token or whoever approves may name another.")
@state_dir_option
@click.option("--yes", is_flag=True, help="Do not ask whether the codes are the same.")
@click.option("--accept-first", is_flag=True, help="Without a terminal: trust the first daemon that approves.")
@click.option("--replace", is_flag=True, help="Give up the identity that this device has.")
@click.option("--debug", is_flag=True, help="Say more.")
def join(url: str | None, token_file: str | None, token: str | None, **options: Any) -> None:
    """Make this device known to the daemon at URL, or to one found on this network.

    With a token (hengectl token create) it happens at once. Without one, a code is shown here and typed there:
    hengectl approve CODE.
    """
    log_to_stderr(debug=options["debug"])
    address = read_address(url) if url else None
    read = _token(token_file, token)
    name = check_name(options["name"] or name_from_host(platform.node()), "device name")
    if read is None and not options["accept_first"] and not sys.stdin.isatty():
        raise Invalid(
            "bad_usage",
            "without a token somebody has to compare a code, and there is no terminal",
            cure="give --token-file FILE, or --accept-first to trust the first daemon that approves",
        )
    folder = _folder(options["state_dir"])
    with closing(_state_to_join(folder, replace=options["replace"])) as state:
        joined = asyncio.run(_join(state, address, read, name, options))
    _tell_joined(joined, folder, given=bool(options["state_dir"]))


def _read_config(context: click.Context, _: click.Parameter, named: str | None) -> Configured:
    """The settings file; what it says of options counts where the command line says nothing."""
    path = read_path(named) if named else agent_config_file(os.environ, os.geteuid())
    known = {str(one.name) for one in context.command.params} - {"config", "state_dir", "outputs", "debug"}
    configured = Configured()
    with nullcontext() if named else suppress(NotFound):
        configured = read_configured(path, known) if path else configured
    context.default_map = dict(configured.options)
    return configured


@cli.command(cls=CarefulCommand)
@click.option(
    "--config",
    type=FILE,
    metavar="FILE",
    envvar="HENGE_AGENT_CONFIG",
    is_eager=True,
    callback=_read_config,
    help="The settings file; default /etc/henge/agent.toml for root, if it is there.",
)
@state_dir_option
@click.option(
    "--output",
    "outputs",
    multiple=True,
    type=click.UNPROCESSED,  # names of files may be any bytes, here and in commands
    metavar="FILE[:FORMAT]",
    help="Write the document here; json, toml, yaml, env or ini. May be repeated.",
)
@_hook_option("--on-change", "Run after the outputs changed; failing undoes the change.")
@_hook_option("--health", "Run after --on-change; failing undoes the change.")
@_hook_option("--check", "Run before anything changes; failing refuses the document.")
@_hook_option("--reboot", "Run when a confirmed change needs a reboot.")
@click.option(
    "--hook-timeout", default=f"{HOOK_TIMEOUT_S:g}s", show_default=True, metavar="TIME", help="How long each may take."
)
@click.option(
    "--on-drift",
    type=click.Choice(ON_DRIFT),
    default="put-back",
    show_default=True,
    help="What to do with an output that somebody changed, besides telling the daemon.",
)
@click.option("--debug", is_flag=True, help="Say more.")
def run(
    config: Configured,
    state_dir: str | None,
    outputs: tuple[str, ...],
    on_change: str,
    health: str,
    check: str,
    reboot: str,
    hook_timeout: str,
    on_drift: OnDrift,
    debug: bool,
) -> None:
    """Stay connected and apply what the daemon sends, until SIGTERM.

    What is given here stands in place of what the settings file says.
    """
    from henge_agent.serve import serve
    from henge_agent.templates import template_text

    log_to_stderr(debug=debug)
    folder = _folder(state_dir)
    wanted = check_outputs(tuple(read_output(text) for text in outputs) or config.outputs, folder)
    for output in wanted:
        if output.template is not None:
            template_text(output.template)  # a mistake in it is told now, not when a document comes
    hooks = Hooks(
        on_change,
        health,
        read_duration_s(hook_timeout),
        check=check,
        on_drift=on_drift,
        sections=config.sections,
        reboot=reboot,
    )
    asyncio.run(serve(folder, wanted, hooks, os.environ))


@cli.command(cls=CarefulCommand)
@state_dir_option
def status(state_dir: str | None) -> None:
    """Say who this device is and what it runs; asks nobody."""
    folder = _folder(state_dir)
    membership = read_membership(folder)
    if membership is None:
        from henge_agent.serve import not_joined

        raise not_joined(folder)
    for label, text in status_lines(folder, membership):
        click.echo(f"{label:<10} {text}")


def _folder(state_dir: str | None) -> Path:
    return read_path(state_dir) if state_dir else agent_state_dir(os.environ, os.geteuid())


def _token(token_file: str | None, token: str | None) -> JoinToken | None:
    if token is not None and token_file is not None:
        raise Invalid("bad_usage", "--token and --token-file contradict each other", cure="give one of them")
    if token is not None:
        click.echo("Warning: others can see the token in the process list; --token-file keeps it private.", err=True)
        return parse_token(token)
    return None if token_file is None else parse_token(_token_text(token_file))


def _token_text(token_file: str) -> str:
    if token_file == "-":
        data = sys.stdin.buffer.read(MAX_TOKEN_FILE_BYTES + 1)
    else:
        try:
            data, mode = read_once(Path(token_file), limit_bytes=MAX_TOKEN_FILE_BYTES)
        except TooLarge as error:
            raise Malformed("token_malformed", error.message, cure="name the file with the token") from None
        if mode & 0o004:
            click.echo(f"Warning: everybody can read {token_file}; remove it when the device has joined.", err=True)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Malformed("token_malformed", f"{token_file} holds no text", cure="name the file with the token") from None


def _state_to_join(folder: Path, *, replace: bool) -> State:
    try:
        state = State(folder)
    except Invalid as error:
        if error.code != "state_damaged" or not replace:
            raise
        set_aside(folder)
        state = State(folder)
    if state.membership is not None and not replace:
        state.close()
        raise Conflict(
            "already_joined",
            f"this device is {state.membership.name} of fleet {state.membership.fleet_id} already",
            cure="give --replace to join anew; the old identity stays on the daemon until it is revoked there",
        )
    return state


async def _join(
    state: State, address: Address | None, token: JoinToken | None, name: str, options: dict[str, Any]
) -> Joined:
    from henge_agent.discover import find_to_join
    from henge_agent.enrol import Applicant, Chance, join_by_code, join_by_token
    from henge_agent.serve import facts

    wish = {"schema": check_name(options["schema"], "schema name")} if options["schema"] else {}
    applicant = Applicant(name, facts() | wish)
    chance: Chance = Chance(time.time, random.SystemRandom().random, secrets.token_bytes)
    candidates: Sequence[Address]
    if address is None:
        click.echo("Looking for a daemon on this network ...", err=True)
        candidates = await find_to_join(token.fingerprint if token else None)
    else:
        candidates = [address]
    named = str(address) if address else ""
    if token is not None:
        return await join_by_token(state, token, candidates, applicant, named, chance)

    async def confirm(code: str) -> bool:
        if options["accept_first"] or options["yes"]:
            return True
        return await _ask(f"Does hengectl show device {name} with {format_code(code)}? [y/N] ")

    return await join_by_code(state, candidates, applicant, named, chance, show=_show_code, confirm=confirm)


def _show_code(code: str) -> None:
    wide = " ".join(format_code(code))
    line = "─" * (len(wide) + 8)
    click.echo(f"\n    ┌{line}┐\n    │    {wide}    │\n    └{line}┘\n")
    click.echo(f"Where hengectl works, type:  hengectl approve {format_code(code)}")
    click.echo("Waiting for it ...")


async def _ask(question: str) -> bool:
    """Ask on the terminal without keeping Ctrl-C waiting."""
    click.echo(question, nl=False)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell_joined(joined: Joined, folder: Path, *, given: bool) -> None:
    membership = joined.membership
    click.echo(f"Joined fleet {membership.fleet_id} as {membership.name}.")
    click.echo(f"  daemon     {membership.last_address}")
    click.echo(f"  identity   {folder}/identity-{membership.slot}.pem, renewed from {day(membership.renew_at)}")
    if joined.warning:
        click.echo(f"  warning    the identity could not be tried yet: {joined.warning}", err=True)
    if given:  # the service of the package works with its own folder
        click.echo(_here("Next: henge-agent run --output FILE", ["--state-dir", str(folder)]))
    else:
        click.echo("Next: henge-agent run --output FILE   (or systemctl enable --now henge-agent)")
