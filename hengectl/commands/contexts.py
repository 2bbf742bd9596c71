"""``login``, ``logout``, ``context`` and ``paths``: which daemons this person knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from henge_protocol import places
from henge_protocol.arguments import FILE
from henge_protocol.errors import HengeError, Invalid, Malformed, NotFound
from henge_protocol.joining import MAX_TOKEN_CHARACTERS, JoinToken, parse_token
from henge_protocol.keyfiles import read_once
from henge_protocol.model import check_name, is_name
from hengectl import profile
from hengectl.address import Address, parse_address
from hengectl.invocation import Command, Group, Invocation, with_invocation
from hengectl.options import Name, output_option, yes_option
from hengectl.profile import Contexts, Profile
from hengectl.render import Table, safe

STDIN: Final = "-"


@click.command("login", cls=Command, writes=True, short_help="Log in to a daemon on another machine.")
@click.argument("url")
@click.option("--token-file", type=FILE, metavar="FILE|-", help="Read the token from here; - is standard input.")
@click.option("--token", default=None, help="The token itself; others can see it while the command runs.")
@click.option("--name", type=Name(), default=None, help="Your name as an operator; your user name if not given.")
@with_invocation
def login_command(
    invocation: Invocation, url: str, token_file: str | None, token: str | None, name: str | None
) -> None:
    """Log in to a daemon, with a token that 'hengectl token create --admin' printed on its machine.

    The token also says which daemon is meant, so nobody can pose as it. What is remembered is called
    a context; --context NAME chooses its name.
    """
    address = _address(url)
    if token is not None and token_file is not None:
        raise Invalid("bad_usage", "only one of --token and --token-file can be given")
    read = _read_token(invocation, token, token_file, address)
    contexts = invocation.around.contexts()
    if invocation.choice.context:
        check_name(invocation.choice.context, "context name")
    from hengectl import operator  # cryptography takes 60 ms to import

    _, made, identity = operator.log_in(
        address,
        read,
        name or _user_name(invocation),
        contexts,
        context_name=lambda daemon: _context_name(invocation, address, contexts, daemon),
        trace=invocation.around.trace,
    )
    invocation.paper.say(
        f"Logged in to {address.url} as {safe(identity.name)}. Context {made.name!r} saved and current."
    )
    invocation.paper.say(f"The daemon's authority is {operator.fingerprint_of(identity.server_cas[0])}")
    invocation.note("Next: hengectl status")


@click.command("logout", cls=Command, writes=True, short_help="Forget a context and its credential.")
@yes_option
@with_invocation
def logout_command(invocation: Invocation, yes: bool) -> None:
    """Forget the current context (or the one of --context) and remove its key from this machine."""
    contexts = invocation.around.contexts()
    name = invocation.choice.context or contexts.current
    if not name:
        raise NotFound("no_such_context", "no context is current", cure="see those there are: hengectl context list")
    contexts.profile(name)
    invocation.confirm(f"Forget context {name!r} and its key?", yes=yes)
    profile.forget(contexts, name)
    invocation.paper.say(f"Context {name!r} forgotten.")


@click.group("context", cls=Group, short_help="The daemons that you are logged in to.")
def context_command() -> None:
    """The daemons that you are logged in to; one of them is current."""


@context_command.command("list", cls=Command, short_help="List contexts.")
@output_option("json", "yaml", "name")
@with_invocation
def context_list(invocation: Invocation, form: str | None) -> None:
    """List contexts; the current one carries a star."""
    contexts = invocation.around.contexts()
    listed = [contexts.profiles[name] for name in sorted(contexts.profiles)]
    if form == "name":
        for one in listed:
            invocation.paper.say(one.name)
    elif form is not None:
        invocation.paper.data([_data(one, contexts) for one in listed], form)
    elif listed:
        rows = [
            ["*" if one.name == contexts.current else "", one.name, one.server.url, profile.authority_of(one)[:16]]
            for one in listed
        ]
        invocation.paper.table(Table(["CURRENT", "NAME", "SERVER", "AUTHORITY"], rows, keep=frozenset({"CURRENT"})))
    else:
        invocation.note("There are no contexts. Log in with: hengectl login https://HOST:4364")


@context_command.command("use", cls=Command, writes=True, short_help="Make a context the current one.")
@click.argument("name", type=Name())
@with_invocation
def context_use(invocation: Invocation, name: str) -> None:
    """Make a context the current one."""
    profile.save(profile.use(invocation.around.contexts(), name))
    invocation.paper.say(f"Context {name!r} is current.")


@context_command.command("rename", cls=Command, writes=True, short_help="Give a context another name.")
@click.argument("name", type=Name())
@click.argument("to", metavar="NEW-NAME", type=Name())
@with_invocation
def context_rename(invocation: Invocation, name: str, to: str) -> None:
    """Give a context another name."""
    profile.save(profile.rename(invocation.around.contexts(), name, to))
    invocation.paper.say(f"Context {name!r} is now {to!r}.")


@context_command.command("delete", cls=Command, writes=True, short_help="Forget a context and its credential.")
@click.argument("name", type=Name())
@yes_option
@with_invocation
def context_delete(invocation: Invocation, name: str, yes: bool) -> None:
    """Forget a context and remove its key from this machine."""
    contexts = invocation.around.contexts()
    contexts.profile(name)
    invocation.confirm(f"Forget context {name!r} and its key?", yes=yes)
    profile.forget(contexts, name)
    invocation.paper.say(f"Context {name!r} forgotten.")


@click.command("paths", cls=Command, short_help="Print the files and sockets in use.")
@output_option("json", "yaml")
@with_invocation
def paths_command(invocation: Invocation, form: str | None) -> None:
    """Print where this program keeps and looks for things."""
    folder = places.contexts_dir(invocation.environ)
    chosen = invocation.choice.socket
    sockets = [chosen] if chosen else [str(path) for path in places.admin_sockets(invocation.environ)]
    if form is not None:
        found = {
            "contexts": str(folder / places.CONTEXTS_NAME),
            "credentials": str(folder / "credentials"),
            "sockets": sockets,
        }
        invocation.paper.data(found, form)
        return
    pairs = [("contexts", str(folder / places.CONTEXTS_NAME)), ("credentials", str(folder / "credentials"))]
    invocation.paper.pairs([*pairs, *[("socket", path) for path in sockets]])


def _data(one: Profile, contexts: Contexts) -> dict[str, object]:
    return {
        "name": one.name,
        "current": one.name == contexts.current,
        "server": one.server.url,
        "fleet": one.fleet,
        "ca_fingerprint": profile.authority_of(one),
    }


def _address(url: str) -> Address:
    try:
        return parse_address(url)
    except HengeError as error:
        raise click.BadParameter(f"{error.message}; {error.cure}", param_hint="URL") from None


def _read_token(invocation: Invocation, token: str | None, token_file: str | None, address: Address) -> JoinToken:
    if token is not None:
        invocation.note(
            "Warning: a token on the command line is visible to others; --token-file - reads it from a pipe."
        )
        return parse_token(token)
    if token_file is not None:
        return parse_token(_token_text(invocation, token_file))
    if not invocation.interactive:
        raise Invalid(
            "bad_usage", "a token is needed and nobody can be asked", cure="add --token-file FILE, or - for a pipe"
        )
    invocation.note(f"A token lets you in. On {address.host} run: hengectl token create --admin")
    return parse_token(invocation.hidden("Token"))


def _token_text(invocation: Invocation, token_file: str) -> str:
    if token_file == STDIN:
        data = sys.stdin.buffer.read(4 * MAX_TOKEN_CHARACTERS)
    else:
        data = _token_bytes(invocation, Path(token_file))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Malformed("token_malformed", "the token is not text") from None


def _token_bytes(invocation: Invocation, path: Path) -> bytes:
    data, mode = read_once(path, limit_bytes=4 * MAX_TOKEN_CHARACTERS)
    if mode & 0o077:
        invocation.note(f"Warning: others can read {path}; a token is used once, so remove the file afterwards.")
    return data


def _context_name(invocation: Invocation, address: Address, contexts: Contexts, daemon: str) -> str:
    """What --context says; else the name of the same server's old context; else the daemon's or the host's."""
    if invocation.choice.context:
        return invocation.choice.context
    for known in contexts.profiles.values():
        if known.server == address:
            return known.name
    label = address.host.partition(".")[0].lower()
    first = next(name for name in (daemon.lower(), label, "home") if is_name(name) and not name.isdecimal())
    taken = set(contexts.profiles)
    return next(name for name in (first, *(f"{first}-{n}" for n in range(2, 1000))) if name not in taken)


def _user_name(invocation: Invocation) -> str:
    """The user's name, made fit: the daemon's history shows it beside every change."""
    user = (invocation.environ.get("USER") or invocation.environ.get("LOGNAME") or "operator").lower()
    fit = "".join(one if one.isascii() and one.isalnum() else "-" for one in user).strip("-")[:63]
    return fit if is_name(fit) else "operator"
