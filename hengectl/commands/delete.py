"""``delete``: take schemas, groups and devices away, many at once or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from henge_protocol.errors import HengeError, Invalid
from hengectl import delivery
from hengectl.changes import tell_needs, tell_result
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, Ref, parse_refs
from hengectl.options import WHAT, all_at_once_option, dry_run_option, message_option, take_over_option, yes_option
from hengectl.render import plural, safe


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
    refs = _refs(what)
    body = {"delete": [{"kind": ref.kind.title, "name": ref.name} for ref in refs], "message": message}
    words, seen = {"all_at_once": all_at_once, "take_over": take_over}, ""
    if not dry_run and not yes:
        plan = invocation.client.post("/v1/apply", body, if_match=seen, dry_run=True, **words)
        _confirm(invocation, refs, plan.json())
        seen = plan.etag
    done = invocation.client.post("/v1/apply", body, if_match=seen, dry_run=dry_run, **words)
    tell_result(invocation, done.json())


def _refs(what: Sequence[str]) -> list[Ref]:
    try:
        return parse_refs(what)
    except HengeError as error:
        raise Invalid("bad_usage", error.message, cure=error.cure) from None


def _confirm(invocation: Invocation, refs: Sequence[Ref], plan: Mapping[str, Any]) -> None:
    moved = [safe(device["name"]) for device in plan["devices"]]
    if moved:
        invocation.note(f"{plural(len(moved), 'device')} would get another document: {delivery.some(moved)}.")
    tell_needs(invocation, plan)
    if any(ref.kind == DEVICE for ref in refs):
        invocation.note("A device that is deleted is cut off at once and has to join anew.")
    if len(refs) == 1:
        invocation.confirm_by_name(refs[0].name, "delete", yes=False)
    else:
        invocation.confirm(f"Delete {delivery.some([str(ref) for ref in refs])}?", yes=False)
