"""``history`` and ``rollback``: what was changed by whom, and back to how it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from henge_protocol.errors import Invalid
from henge_protocol.model import MAX_LISTED
from hengectl.changes import tell_needs, tell_result
from hengectl.columns import changes_text, done_text
from hengectl.differences import say_fields, tell_differences, tell_overrides
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, OBJECT_KINDS, REVISION, SECRET, Ref
from hengectl.listing import tell_list, tell_table
from hengectl.options import (
    RefType,
    all_at_once_option,
    dry_run_option,
    message_option,
    output_option,
    take_over_option,
    yes_option,
)
from hengectl.render import GAP, age, plural, safe


@click.command("history", cls=Command, short_help="Show what was changed, when and by whom.")
@click.argument("target", metavar="[KIND/NAME]", required=False, type=RefType((*OBJECT_KINDS, SECRET)))
@click.option("--limit", type=click.IntRange(1, MAX_LISTED), default=20, help="How many; 20 if not given.")
@click.option("--before", type=click.IntRange(1), default=None, metavar="REVISION", help="Only older ones.")
@click.option("--diff", is_flag=True, help="With the values that each of them changed.")
@output_option("json", "yaml", "wide", "name")
@with_invocation
def history_command(
    invocation: Invocation, target: Ref | None, limit: int, before: int | None, diff: bool, form: str | None
) -> None:
    """Show the newest changes first, all or those of one object."""
    object_ = str(target) if target else ""
    fields = diff or form in (None, "wide")
    items = invocation.client.revisions(limit, object_, before=before, diff=fields)
    if target is not None and not items and before is None and form in (None, "wide"):
        invocation.client.read(target)  # refused if it does not exist; what was deleted has a history

    def rows() -> None:
        if not diff:
            tell_table(invocation, REVISION, items, form)
            return
        for item in items:
            _tell_revision(invocation, item, target, _identity(items, target))

    nothing = f"{target} was never changed." if target is not None else "Nothing was changed yet."
    tell_list(
        invocation, items, form,
        name=lambda item: f"revision/{item['revision']}",
        rows=rows,
        nothing=nothing if before is None else f"There is nothing before revision {before}.",
    )  # fmt: skip


def _tell_revision(invocation: Invocation, item: Mapping[str, Any], target: Ref | None, identity: str) -> None:
    """A revision with what it changed in the object, or in all objects."""
    said = [f"r{item['revision']}", f"{age(item['time'], now=invocation.now())} ago", item["author"], item["message"]]
    invocation.paper.say(invocation.paper.style.paint("strong", GAP.join(safe(one) for one in said if one)))
    for change in item["changes"]:
        if target is None or _is_about(change, target, identity):
            invocation.paper.say(done_text(change))
            say_fields(invocation, change["changes"])


def _is_about(change: Mapping[str, Any], target: Ref, identity: str) -> bool:
    """Whether a change is of the object, or of the device that has its name, whatever it was called then."""
    is_named = (change["kind"], change["name"]) == (target.kind.title, target.name)
    return is_named or bool(identity and change.get("id") == identity)


def _identity(items: Sequence[Mapping[str, Any]], target: Ref | None) -> str:
    """The id of the device that has the target's name, or had it last."""
    if target is None or target.kind != DEVICE:
        return ""
    changes = [change for item in items for change in item["changes"]]
    return next((str(one.get("id", "")) for one in changes if _is_about(one, target, "")), "")


@click.command("rollback", cls=Command, writes=True, short_help="Make an object, or everything, as it was.")
@click.argument("target", metavar="[KIND/NAME]", required=False, type=RefType())
@click.option("--all", "everything", is_flag=True, help="All schemas, groups and devices.")
@click.option("--to", type=click.IntRange(0), required=True, metavar="REVISION", help="As it was after this revision.")
@dry_run_option
@all_at_once_option
@take_over_option
@message_option
@yes_option
@with_invocation
def rollback_command(
    invocation: Invocation,
    target: Ref | None,
    everything: bool,
    to: int,
    dry_run: bool,
    all_at_once: bool,
    take_over: bool,
    message: str,
    yes: bool,
) -> None:
    """Make an object as it was after a revision: a new revision with the old content.

    Overrides go back, too: those that were set since end, those that ran then and have not ended by now are in force
    again.

    Rolling back everything asks first, and shows what would change. So does rolling a device back to before it was
    there, because that deletes it: it is cut off at once and has to join anew.
    """
    if everything == (target is not None):
        cure = f"hengectl rollback --all --to {to} --dry-run"
        raise Invalid("bad_usage", "either KIND/NAME or --all is needed, and not both", cure=cure)
    body = {"to": to, "message": message} | ({"object": str(target)} if target else {})
    words = {"all_at_once": all_at_once, "take_over": take_over}
    seen = "" if dry_run or yes else _confirmed(invocation, target, to, body, words)
    result = invocation.client.post("/v1/rollback", body, if_match=seen, dry_run=dry_run, **words).json()
    touched = [one for one in result["objects"] if one["action"] != "unchanged"]
    if dry_run and touched:
        tell_differences(invocation, touched, result["devices"])
        invocation.paper.say("dry run: nothing was changed")
        tell_needs(invocation, result)
    else:
        tell_result(invocation, result)
        tell_overrides(invocation, touched)
    if not touched:
        invocation.note(f"{safe(str(target)) if target else 'Everything'} is already as it was at revision {to}.")


def _confirmed(
    invocation: Invocation, target: Ref | None, to: int, body: Mapping[str, Any], words: Mapping[str, bool]
) -> str:
    """Ask if it cannot be undone; returns the version of the fleet that was seen then, or nothing."""
    if target is not None and target.kind != DEVICE:
        return ""
    reply = invocation.client.post("/v1/rollback", body, if_match="", dry_run=True, **words)
    plan = reply.json()
    if target is None:
        _tell_plan(invocation, plan)
        tell_needs(invocation, plan)
        invocation.confirm(f"Roll everything back to revision {to}?", yes=False)
    elif gone := next((str(one["name"]) for one in plan["objects"] if one["action"] == "deleted"), ""):
        back = next((one for one in plan["objects"] if one.get("was")), None)
        if back is None:
            invocation.note(f"{target} was not there at revision {to}, so it would be deleted.")
        else:
            had = f"device/{safe(back['was'])} had this name"
            invocation.note(f"{had}, so device/{safe(gone)} of now would be deleted.")
        invocation.note("A device that is deleted is cut off at once and has to join anew.")
        invocation.confirm_by_name(gone, "delete", yes=False)
    else:
        return ""
    return reply.etag


def _tell_plan(invocation: Invocation, plan: Mapping[str, Any]) -> None:
    touched = [one for one in plan["objects"] if one["action"] != "unchanged"]
    if touched:
        moved = plural(len(plan["devices"]), "device") if plan["devices"] else "no device"
        invocation.note(f"Then: {changes_text(touched, most=10)}; {moved} would get another document.")
        tell_overrides(invocation, touched)
