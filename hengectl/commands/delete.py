"""``delete``: take schemas, groups and devices away, many at once or none."""

from __future__ import annotations

from collections.abc import Sequence

import click

from henge_protocol.errors import HengeError, Invalid
from hengectl.changes import delete_refs
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import Ref, parse_refs
from hengectl.options import WHAT, all_at_once_option, dry_run_option, message_option, take_over_option, yes_option


@click.command("delete", cls=Command, writes=True, short_help="Delete schemas, groups and devices.")
@click.argument("what", metavar="KIND/NAME... | KIND NAME...", nargs=-1, required=True, type=WHAT)
@dry_run_option
@all_at_once_option
@take_over_option
@message_option
@yes_option
@with_invocation
def delete_command(
    invocation: Invocation,
    what: tuple[str, ...],
    dry_run: bool,
    all_at_once: bool,
    take_over: bool,
    message: str,
    yes: bool,
) -> None:
    """Delete schemas, groups and devices, all of them as one change or none. Shows what that does, and asks.

    A schema that others use stays, unless they go with it. Values can be brought back with rollback; the identity
    of a device cannot: it has to join anew.

    \b
    hengectl delete group/kitchen
    hengectl delete device lamp-1 lamp-2
    """
    words = {"all_at_once": all_at_once, "take_over": take_over}
    delete_refs(invocation, _refs(what), message=message, dry_run=dry_run, yes=yes, **words)


def _refs(what: Sequence[str]) -> list[Ref]:
    try:
        return parse_refs(what)
    except HengeError as error:
        raise Invalid("bad_usage", error.message, cure=error.cure) from None
