"""``diff``: what ``apply`` would change, field by field, in objects and in what devices run."""

from __future__ import annotations

from typing import Any, Final

import click

from henge_protocol.errors import Invalid
from hengectl import refusal
from hengectl.changes import Files, apply_files, tell_needs, tell_spared
from hengectl.differences import tell_differences
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import OBJECT_KINDS, SECRET, Ref
from hengectl.options import RefType, files_option, kustomize_option, output_option, set_options

DIFFERS: Final = 1


class Revisions(click.ParamType[tuple[int, int | None]]):
    """``A..B``, or ``A..`` (to the newest)."""

    name = "revisions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        older, _, newer = str(value).partition("..")
        if not all(text.isascii() and text.isdecimal() and len(text) <= 15 for text in (older, newer or "0")):
            self.fail(f"{value!r} is not of the form A..B with numbers of revisions", param, ctx)
        return int(older), int(newer) if newer else None


@click.command("diff", cls=Command, compares=True, short_help="Show what apply would change, field by field.")
@click.argument("target", metavar="[KIND/NAME]", required=False, type=RefType((*OBJECT_KINDS, SECRET)))
@files_option
@kustomize_option
@set_options
@click.option(
    "--rev", "revisions", type=Revisions(), metavar="A..B", help="Between two revisions, or from A until now."
)
@output_option("json", "yaml")
@with_invocation
def diff_command(
    invocation: Invocation,
    target: Ref | None,
    names: tuple[str, ...],
    folder: str | None,
    apply_set: str | None,
    prune: bool,
    revisions: tuple[int, int | None] | None,
    form: str | None,
) -> int:
    """Show what 'apply' with the same files would change, or what differs between two revisions.

    Both in the objects and in what each device runs. Of files the daemon makes the whole change, tells what differs,
    and undoes it. The exit code is 0 when nothing differs, 1 when something does, and 2 or more when there is trouble.

    \b
    hengectl diff -f fleet/
    hengectl diff --set git --prune -f fleet/
    hengectl diff device/lamp-1 --rev 12..17
    """
    of_files = bool(names or folder or apply_set or prune)
    if of_files == bool(revisions) or (target is not None and not revisions):
        cure = "write for example: hengectl diff -f fleet/, or hengectl diff device/lamp-1 --rev 12..17"
        raise Invalid("bad_usage", "either -f FILE or --rev A..B is needed, and KIND/NAME only with --rev", cure=cure)
    if revisions:
        return _between(invocation, target, *revisions, form=form)
    result = apply_files(invocation, Files(names, folder, apply_set, prune), dry_run=True)
    objects = [one for one in result["objects"] if one["action"] != "unchanged"]
    if form is not None:
        invocation.paper.data(result, form)
    elif objects:
        tell_differences(invocation, objects, result["devices"])
        tell_needs(invocation, result)
        tell_spared(invocation, result)
    else:
        invocation.note(f"Nothing differs from revision {result['revision']}.")
    return DIFFERS if objects else refusal.OK


def _between(invocation: Invocation, target: Ref | None, older: int, newer: int | None, *, form: str | None) -> int:
    query: dict[str, Any] = {"to": newer, "object": str(target) if target else ""}
    result = invocation.client.get(f"/v1/revisions/{older}/diff", **query).json()
    differ = result["objects"] or result["devices"]
    if form is not None:
        invocation.paper.data(result, form)
    elif differ:
        tell_differences(invocation, result["objects"], result["devices"], happened=True)
    else:
        what = f"{target} is" if target else "Everything is"
        invocation.note(f"{what} the same at revisions {result['from']} and {result['to']}.")
    return DIFFERS if differ else refusal.OK
