"""``token``, ``join`` and ``approve``: how devices and operators become known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from henge_protocol.errors import Invalid, Malformed, NotFound
from henge_protocol.joining import format_code, parse_code
from henge_protocol.model import ROLES
from hengectl.columns import View, table_of
from hengectl.invocation import Command, Group, Invocation, with_invocation
from hengectl.kinds import JOIN, OPERATOR, SCHEMA, TOKEN, Object, name_of
from hengectl.listing import tell_list, tell_table
from hengectl.options import Duration, Name, Pattern, labels_option, output_option, yes_option
from hengectl.render import left, plural, safe, unix_s
from hengectl.tokens import TOKEN_TTL_S, tell_next_step

MAX_TOKEN_TTL_S: Final = 30 * 86400
WINDOW_S: Final = 600
MAX_WINDOW_S: Final = 86400
"""These two are the daemon's limits (``docs/limits.md``), so that what is too long is told in the words typed."""
CLOCKS_DIFFER_S: Final = 5
"""So much longer than asked for is no news: the daemon's clock may be another one."""


@click.group("token", cls=Group, short_help="Tokens that let devices join or people log in.")
def token_command() -> None:
    """Tokens that let devices join, or people log in from other machines."""


@token_command.command("create", cls=Command, writes=True, short_help="Make a token; it is shown this once.")
@click.option(
    "--name", "pattern", type=Pattern(), default="*", help="Only for a device or person so named; lamp-* allows many."
)
@click.option("--schema", type=Name(SCHEMA), default=None, help="Devices that join with it get this schema.")
@labels_option
@click.option(
    "--ttl",
    "ttl_s",
    type=Duration(MAX_TOKEN_TTL_S),
    default=TOKEN_TTL_S,
    help="How long it can be used, at most 30d; 1h if not given.",
)
@click.option("--uses", type=click.IntRange(1, 1000), default=1, help="How many devices may use it; 1 if not given.")
@click.option("-q", "--quiet", is_flag=True, help="Print the token and nothing else.")
@click.option(
    "--role", type=click.Choice(ROLES), default=None,
    help="For a person with hengectl on another machine: one who looks, changes configuration, or decides who belongs.",
)  # fmt: skip
@click.option("--admin", is_flag=True, help="The same as --role admin.")
@with_invocation
def token_create(
    invocation: Invocation,
    pattern: str,
    schema: str | None,
    labels: dict[str, str],
    ttl_s: int,
    uses: int,
    quiet: bool,
    role: str | None,
    admin: bool,
) -> None:
    """Make a token. It is shown this once; whoever has it can use it until its time is over."""
    if admin and role not in (None, "admin"):
        raise Invalid("bad_usage", f"--admin says role admin, --role says {role}")
    role = "admin" if admin else role
    if role and (schema or labels):
        raise Invalid("bad_usage", "--schema and -l are about devices, --role is about a person")
    body: dict[str, Any] = {"kind": "admin" if role else "join", "name": pattern, "ttl_s": ttl_s, "uses": uses}
    if role:
        body |= {"role": role}
    else:
        body |= {"labels": labels} | ({"schema": schema} if schema else {})
    made = invocation.client.post("/v1/tokens", body).json()
    invocation.paper.say(str(made["token"]))
    if not quiet:
        tell_next_step(invocation, made, ttl_s=ttl_s, uses=uses)


@token_command.command("list", cls=Command, short_help="Show what was given out.")
@output_option("json", "yaml", "wide", "name")
@with_invocation
def token_list(invocation: Invocation, form: str | None) -> None:
    """Show the tokens that were given out and how much is left of each; never the tokens themselves."""
    items = sorted(invocation.client.items(TOKEN), key=lambda one: (_is_spent(one), str(one.get("created", ""))))
    tell_list(
        invocation, items, form,
        name=lambda item: f"token/{item['id']}",
        rows=lambda: tell_table(invocation, TOKEN, items, form),
        nothing="There are no tokens.",
    )  # fmt: skip


def _is_spent(token: Object) -> bool:
    return int(token.get("used", 0)) >= int(token.get("uses", 1))


@token_command.command("revoke", cls=Command, writes=True, short_help="Make a token worthless.")
@click.argument("token_id", metavar="ID")
@with_invocation
def token_revoke(invocation: Invocation, token_id: str) -> None:
    """Make a token worthless. Devices that joined with it stay."""
    word = token_id.removeprefix("token/")
    if not word.isalnum() or not word.isascii():
        raise Invalid("bad_usage", f"{ascii(token_id)[:60]} is not a token's id", cure="hengectl token list")
    invocation.client.delete(f"/v1/tokens/{word}")
    invocation.paper.say(f"token/{word} revoked")


@click.group("operator", cls=Group, short_help="People who administer from other machines.")
def operator_command() -> None:
    """People who administer from other machines; see who with 'hengectl get operators'."""


@operator_command.command("revoke", cls=Command, writes=True, short_help="Let a person in no more.")
@click.argument("operator", metavar="NAME", type=Name())
@yes_option
@with_invocation
def operator_revoke(invocation: Invocation, operator: str, yes: bool) -> None:
    """Make all certificates of an operator worthless, on every machine; also your own."""
    if operator not in [one.get("name") for one in invocation.client.items(OPERATOR)]:
        missing = f"operator/{operator} does not exist or was revoked"
        raise NotFound("no_such_object", missing, cure="see: hengectl get operators")
    who = invocation.client.get("/v1/whoami").json()
    own = who.get("name") == operator and who.get("via") == "devices"
    question = "That is you: this machine is logged out as well. " if own else ""
    invocation.confirm(f"{question}Revoke operator {operator} on all machines?", yes=yes)
    invocation.client.delete(f"/v1/operators/{operator}")
    invocation.paper.say(f"operator/{operator} revoked")


@click.group("join", cls=Group, short_help="Whether devices may ask to join.")
def join_command() -> None:
    """The time in which devices without a token may ask to join."""


@join_command.command("open", cls=Command, writes=True, short_help="Let devices ask to join for a while.")
@click.option(
    "--for", "open_s", type=Duration(MAX_WINDOW_S), default=WINDOW_S, help="How long, at most 1d; 10m if not given."
)
@with_invocation
def join_open(invocation: Invocation, open_s: int) -> None:
    """Let devices ask to join for a while; each still needs your approval."""
    window = invocation.client.put("/v1/join-window", {"open_s": open_s}).json()
    _tell_window(invocation, window)
    closes = unix_s(window.get("closes"))
    if closes is not None and closes - invocation.now() > open_s + CLOCKS_DIFFER_S:
        invocation.note("It was open for longer already and stays so. To shorten it: hengectl join close, then open.")


@join_command.command("close", cls=Command, writes=True, short_help="Let no further device ask to join.")
@with_invocation
def join_close(invocation: Invocation) -> None:
    """Let no further device ask to join."""
    _tell_window(invocation, invocation.client.put("/v1/join-window", {"open_s": 0}).json())


@join_command.command("status", cls=Command, short_help="Show whether devices may ask, and who waits.")
@with_invocation
def join_status(invocation: Invocation) -> None:
    """Show whether devices may ask to join, and who waits for approval."""
    _tell_window(invocation, invocation.client.get("/v1/join-window").json())
    _tell_waiting(invocation)


@click.command("approve", cls=Command, writes=True, short_help="Let a device in that shows this code.")
@click.argument("code", nargs=-1, required=True)
@click.option("--as", "name", type=Name(), default=None, help="Call it so, instead of as it calls itself.")
@click.option("--schema", type=Name(SCHEMA), default=None, help="Give it this schema.")
@labels_option
@yes_option
@with_invocation
def approve_command(
    invocation: Invocation,
    code: tuple[str, ...],
    name: str | None,
    schema: str | None,
    labels: dict[str, str],
    yes: bool,
) -> None:
    """Let a device in. CODE is the eight digits that the device shows, with or without spaces and dashes.

    Type the code from the device itself, from its screen, console or log: that is what proves
    that nobody sits between the device and the daemon.
    """
    try:
        digits = parse_code("".join(code))
    except Malformed as error:
        raise Invalid("bad_usage", error.message, cure=error.cure) from None
    if not yes and invocation.interactive:
        if not invocation.client.items(JOIN):
            raise NotFound("no_such_join", "no device is waiting", cure="see: hengectl join status")
        _tell_waiting(invocation)
    invocation.confirm(f"Does the device itself show {format_code(digits)}?", yes=yes)
    body = {key: value for key, value in (("name", name), ("schema", schema), ("labels", labels)) if value}
    device = invocation.client.post(f"/v1/joins/{digits}/approve", body).json()
    invocation.paper.say(f"device/{safe(name_of(device))} approved")
    if not device.get("spec", {}).get("schema"):
        cure = f"hengectl device schema {safe(name_of(device))} SCHEMA"
        invocation.note(f"It has no schema yet, so it gets no configuration. Give it one with: {cure}")


def _tell_window(invocation: Invocation, window: Mapping[str, Any]) -> None:
    if window.get("open"):
        invocation.paper.say(f"Devices may ask to join for another {left(window.get('closes'), now=invocation.now())}.")
    else:
        invocation.paper.say(
            invocation.aimed("Devices may not ask to join now. Open for a while with: hengectl join open")
        )


def _tell_waiting(invocation: Invocation) -> None:
    waiting = invocation.client.items(JOIN)
    if waiting:
        invocation.paper.say(f"{plural(len(waiting), 'device')} waiting:")
        view = View(invocation.now(), invocation.paper.style)
        invocation.paper.table(table_of(JOIN, waiting, view, wide=False, labels=False))
    else:
        invocation.paper.say("No device is waiting.")
