"""``history`` and ``rollback``: what was changed by whom, and back to how it was."""

from __future__ import annotations

import click

from henge_protocol.errors import Invalid
from hengectl.columns import View, changes_text, table_of
from hengectl.commands.apply import tell_result
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import OBJECT_KINDS, REVISION, SECRET, Ref, list_of
from hengectl.options import RefType, dry_run_option, message_option, output_option, yes_option
from hengectl.render import plural, safe


@click.command("history", cls=Command, short_help="Show what was changed, when and by whom.")
@click.argument("target", metavar="[KIND/NAME]", required=False, type=RefType((*OBJECT_KINDS, SECRET)))
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="How many; 20 if not given.")
@click.option("--before", type=click.IntRange(1), default=None, metavar="REVISION", help="Only older ones.")
@output_option("json", "yaml", "wide", "name")
@with_invocation
def history_command(
    invocation: Invocation, target: Ref | None, limit: int, before: int | None, form: str | None
) -> None:
    """Show the newest changes first, all or those of one object."""
    object_ = str(target) if target else ""
    items = invocation.client.get("/v1/revisions", object=object_, limit=limit, before=before).json()["items"]
    if form in ("json", "yaml"):
        invocation.paper.data(list_of(items), form)
    elif form == "name":
        for item in items:
            invocation.paper.say(f"revision/{item['revision']}")
    elif items:
        view = View(invocation.now(), invocation.paper.style)
        invocation.paper.table(table_of(REVISION, items, view, wide=form == "wide", labels=False))
    elif before is not None:
        invocation.note(f"There is nothing before revision {before}.")
    elif target is not None:
        invocation.client.read(target)  # refused if it does not exist; what was deleted has a history
        invocation.note(f"{target} was never changed.")
    else:
        invocation.note("Nothing was changed yet.")


@click.command("rollback", cls=Command, writes=True, short_help="Make an object, or everything, as it was.")
@click.argument("target", metavar="[KIND/NAME]", required=False, type=RefType())
@click.option("--all", "everything", is_flag=True, help="All schemas, groups and devices.")
@click.option("--to", type=click.IntRange(0), required=True, metavar="REVISION", help="As it was after this revision.")
@dry_run_option
@message_option
@yes_option
@with_invocation
def rollback_command(
    invocation: Invocation, target: Ref | None, everything: bool, to: int, dry_run: bool, message: str, yes: bool
) -> None:
    """Make an object as it was after a revision: a new revision with the old content, nothing is lost.

    Rolling back everything asks first, and shows what would change.
    """
    if everything == (target is not None):
        raise Invalid("bad_usage", "either KIND/NAME or --all is needed, and not both")
    body = {"to": to, "message": message} | ({"object": str(target)} if target else {})
    seen = ""
    if everything and not dry_run and not yes:
        reply = invocation.client.post("/v1/rollback", body, dry_run=True)
        plan, seen = reply.json(), reply.etag
        touched = [one for one in plan["objects"] if one["action"] != "unchanged"]
        if touched:
            moved = plural(len(plan["devices"]), "device") if plan["devices"] else "no device"
            invocation.note(f"Then: {changes_text(touched, most=10)}; {moved} would get another document.")
        invocation.confirm(f"Roll everything back to revision {to}?", yes=yes)
    result = invocation.client.post("/v1/rollback", body, dry_run=dry_run, if_match=seen).json()
    tell_result(invocation, result)
    if not dry_run and not any(one["action"] != "unchanged" for one in result["objects"]):
        invocation.note(f"{safe(str(target)) if target else 'Everything'} is already as it was at revision {to}.")
