"""``apply``: make the fleet as the files say."""

from __future__ import annotations

import click

from hengectl import delivery, refusal
from hengectl.changes import apply_files, tell_result
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.options import (
    all_at_once_option,
    dry_run_option,
    files_option,
    if_revision_option,
    message_option,
    output_option,
    wait_options,
)


@click.command("apply", cls=Command, writes=True, short_help="Make the fleet as files say.")
@files_option(required=True)
@dry_run_option
@all_at_once_option
@if_revision_option
@wait_options(60)
@message_option
@output_option("json", "yaml", "name")
@with_invocation
def apply_command(
    invocation: Invocation,
    names: tuple[str, ...],
    dry_run: bool,
    all_at_once: bool,
    if_revision: int | None,
    wait: bool,
    timeout_s: int,
    message: str,
    form: str | None,
) -> int:
    """Create and change schemas, groups and devices as files say.

    All objects of all files are one change: either every device's new document is valid and all is stored as one
    revision, or nothing is. Folders are read with everything below them (*.yaml, *.yml, *.json).

    \b
    hengectl apply -f fleet/
    hengectl apply -f - < lamp.yaml
    """
    result = apply_files(
        invocation, names, message=message, dry_run=dry_run, all_at_once=all_at_once, if_revision=if_revision
    )
    if form in ("json", "yaml"):
        invocation.paper.data(result, form)
    else:
        tell_result(invocation, result, names_only=form == "name")
    moved = [device["name"] for device in result["devices"] if device.get("after")]
    return delivery.await_delivery(invocation, moved, timeout_s) if wait and not dry_run else refusal.OK
