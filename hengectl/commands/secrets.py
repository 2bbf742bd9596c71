"""``secret``: values that go in and never come out. They are typed, or read from a file, and stand in no argument."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from henge_protocol.arguments import FILE
from henge_protocol.errors import HengeError, Invalid, Malformed, TooLarge
from henge_protocol.keyfiles import read_once
from hengectl.changes import tell_needs, tell_result
from hengectl.invocation import Command, Group, Invocation, with_invocation
from hengectl.kinds import SECRET, Ref
from hengectl.listing import tell_list, tell_table
from hengectl.options import SECRET_NAME, all_at_once_option, dry_run_option, message_option, output_option, yes_option

MAX_FILE_BYTES: Final = 64 * 1024


@click.group("secret", cls=Group, short_help="Passwords and keys that devices need and nobody should see.")
def secret_command() -> None:
    """Passwords and keys that devices need and nobody should see.

    Values refer to them: {"$secret": "wifi/home"}, in fields that the schema marks writeOnly.
    """


@secret_command.command("set", cls=Command, writes=True, short_help="Give a secret a value.")
@click.argument("name", metavar="NAME", type=SECRET_NAME)
@click.argument("value", metavar="", nargs=-1, type=click.UNPROCESSED)
@click.option("--from-file", "source", type=FILE, metavar="FILE|-", help="Read the value there, not from a prompt.")
@click.option("--json", "as_json", is_flag=True, help="The value is JSON: a number, a list, an object.")
@dry_run_option
@all_at_once_option
@message_option
@with_invocation
def secret_set(
    invocation: Invocation,
    name: str,
    value: tuple[str, ...],
    source: str | None,
    as_json: bool,
    dry_run: bool,
    all_at_once: bool,
    message: str,
) -> None:
    """Give a secret a value; every device that uses it gets a new document.

    The value is asked for twice and not shown, or read from a file. One line break at its end does not count.

    \b
    hengectl secret set wifi/home
    hengectl secret set mqtt/ca --from-file ca.pem
    pass show wifi | hengectl secret set wifi/home --from-file -
    """
    if value:  # taken only to be refused without being repeated
        raise _no_argument(name)
    body = {"value": _value(_asked(invocation, name) if source is None else _read(source), as_json=as_json)}
    query: dict[str, Any] = {"message": message, "dry_run": dry_run, "all_at_once": all_at_once}
    reply = invocation.client.put(Ref(SECRET, name).path, body, **query)
    if dry_run:
        tell_result(invocation, reply.json())
        tell_needs(invocation, reply.json())
    else:
        invocation.paper.say(f"secret/{name} set (r{reply.revision})")


@secret_command.command("list", cls=Command, short_help="Show which secrets there are, and who uses them.")
@output_option("json", "yaml", "wide", "name")
@with_invocation
def secret_list(invocation: Invocation, form: str | None) -> None:
    """Show which secrets there are, how old they are and who uses them; never their values."""
    items = invocation.client.items(SECRET)
    tell_list(
        invocation, items, form,
        name=lambda item: f"secret/{item['metadata']['name']}",
        rows=lambda: tell_table(invocation, SECRET, items, form),
        nothing="There are no secrets. Make one with: hengectl secret set NAME",
    )  # fmt: skip


@secret_command.command("delete", cls=Command, writes=True, short_help="Forget a secret that nobody uses.")
@click.argument("name", metavar="NAME", type=SECRET_NAME)
@message_option
@yes_option
@with_invocation
def secret_delete(invocation: Invocation, name: str, message: str, yes: bool) -> None:
    """Forget a secret that nobody uses. Its value cannot be brought back."""
    ref = Ref(SECRET, name)
    invocation.client.get(ref.path)
    invocation.confirm(f"Delete {ref}? Its value cannot be brought back.", yes=yes)
    revision = invocation.client.delete(ref.path, message=message).revision
    invocation.paper.say(f"{ref} deleted (r{revision})")


def _no_argument(name: str, why: str = "") -> Invalid:
    message = f"{why}the value of a secret is no argument, where others can read it"
    return Invalid("bad_usage", message, cure=f"hengectl secret set {name} --from-file FILE, or - for standard input")


def _asked(invocation: Invocation, name: str) -> bytes:
    if not invocation.interactive:
        raise _no_argument(name, "nobody can be asked here, and ")
    return invocation.hidden(f"Value of {name}", again=True).encode()


def _read(source: str) -> bytes:
    if source != "-":
        return read_once(Path(source), limit_bytes=MAX_FILE_BYTES)[0]
    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge("too_large", "standard input is larger than a secret may be")
    return data


def _value(data: bytes, *, as_json: bool) -> Any:
    """What the bytes mean; no refusal repeats them."""
    try:
        text = data.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("bad_encoding", "the secret is not UTF-8", cure="encode it, for example with base64") from None
    if text.startswith("\ufeff"):
        raise Malformed("bad_encoding", "the secret begins with a byte order mark", cure="save it as UTF-8 without BOM")
    if "\0" in text:
        raise Malformed("bad_encoding", "the secret holds a NUL byte", cure="encode it, for example with base64")
    if not text:
        raise Malformed("body_required", "the secret is empty")
    return _parsed(text) if as_json else text


def _parsed(text: str) -> Any:
    from henge_protocol.strictjson import parse

    try:
        return parse(text.encode())
    except HengeError as error:
        raise type(error)(error.code, "the secret is not JSON", cure="leave --json out for text") from None
