"""``apply``: make the fleet as the files say."""

from __future__ import annotations

import click

from hengectl import delivery, refusal
from hengectl.changes import Files, apply_files, tell_result
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.options import (
    all_at_once_option,
    dry_run_option,
    files_option,
    if_revision_option,
    kustomize_option,
    message_option,
    output_option,
    set_options,
    take_over_option,
    wait_options,
)


@click.command("apply", cls=Command, writes=True, short_help="Make the fleet as files say.")
@files_option
@kustomize_option
@set_options
@dry_run_option
@all_at_once_option
@take_over_option
@if_revision_option
@wait_options(60)
@message_option
@output_option("json", "yaml", "name")
@with_invocation
def apply_command(
    invocation: Invocation,
    names: tuple[str, ...],
    folder: str | None,
    apply_set: str | None,
    prune: bool,
    dry_run: bool,
    all_at_once: bool,
    take_over: bool,
    if_revision: int | None,
    wait: bool,
    timeout_s: int,
    message: str,
    form: str | None,
) -> int:
    """Create and change schemas, groups and devices as files say.

    All objects of all files are one change: either every device's new document is valid and all is stored as one
    revision, or nothing is. Folders are read with everything below them (*.yaml, *.yml, *.json).

    With --set the objects belong to that apply-set: who changes them by hand has to say --take-over. With --prune, too,
    objects of the set that no file has any more are deleted in the same change; devices that have joined stay.

    \b
    hengectl apply -f fleet/
    hengectl apply -f - < lamp.yaml
    hengectl apply --set git --prune -f fleet/
    """
    files = Files(names, folder, apply_set, prune)
    words = {"dry_run": dry_run, "all_at_once": all_at_once, "take_over": take_over}
    result = apply_files(invocation, files, message=message, if_revision=if_revision, **words)
    if form in ("json", "yaml"):
        invocation.paper.data(result, form)
    else:
        tell_result(invocation, result, names_only=form == "name")
    if prune and not result["objects"]:
        invocation.note(f"No object belongs to the apply-set {apply_set}, and the files hold none.")
    moved = [device["name"] for device in result["devices"] if device.get("after")]
    return delivery.await_delivery(invocation, moved, timeout_s) if wait and not dry_run else refusal.OK
