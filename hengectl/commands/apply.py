"""``apply``: make the fleet as the files say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from henge_protocol.errors import HengeError
from henge_protocol.model import version_tag
from hengectl import delivery, refusal
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.options import (
    dry_run_option,
    files_option,
    if_revision_option,
    message_option,
    output_option,
    wait_options,
)
from hengectl.render import plural, safe

UNCHANGED_SHOWN: Final = 5
"""More of them would hide what did change."""


@click.command("apply", cls=Command, writes=True, short_help="Make the fleet as files say.")
@files_option
@dry_run_option
@if_revision_option
@wait_options(60)
@message_option
@output_option("json", "yaml", "name")
@with_invocation
def apply_command(
    invocation: Invocation,
    names: tuple[str, ...],
    dry_run: bool,
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
    result = apply_files(invocation, names, message=message, dry_run=dry_run, if_revision=if_revision)
    if form in ("json", "yaml"):
        invocation.paper.data(result, form)
    else:
        tell_result(invocation, result, names_only=form == "name")
    moved = [device["name"] for device in result["devices"] if device.get("after")]
    return delivery.await_delivery(invocation, moved, timeout_s) if wait and not dry_run else refusal.OK


def apply_files(
    invocation: Invocation, names: Sequence[str], *, message: str = "", dry_run: bool, if_revision: int | None = None
) -> dict[str, Any]:
    """Send all objects of all files as one change; what the daemon answers. Its refusals are placed in the files."""
    from hengectl import manifest  # YAML takes 15 ms to import

    read = manifest.read(names)
    tag = "" if if_revision is None else fleet_tag(invocation, if_revision)
    try:
        body = {"objects": read.objects, "message": message}
        return dict(invocation.client.post("/v1/apply", body, dry_run=dry_run, if_match=tag).json())
    except HengeError as error:
        error.extra["places"] = [read.place(problem) for problem in error.problems]
        raise


def fleet_tag(invocation: Invocation, revision: int) -> str:
    """The version of the whole fleet at a revision, as ``If-Match`` takes it."""
    epoch = invocation.client.get("/v1/status").json().get("epoch", "")
    return version_tag(epoch, revision)


def tell_result(invocation: Invocation, result: dict[str, object], *, names_only: bool = False) -> None:
    """What a change did, or would do."""
    paper, dry = invocation.paper, bool(result.get("dry_run"))
    objects, devices = result.get("objects"), result.get("devices")
    listed = [one for one in objects if isinstance(one, dict)] if isinstance(objects, list) else []
    same = [one for one in listed if one["action"] == "unchanged"]
    for one in listed:
        ref = f"{safe(str(one['kind']).lower())}/{safe(one['name'])}"
        if names_only:
            paper.say(ref)
        elif one["action"] != "unchanged" or len(same) <= UNCHANGED_SHOWN:
            paper.say(f"{ref} {safe(one['action'])}{' (dry run)' if dry else ''}")
    if len(same) > UNCHANGED_SHOWN and not names_only:
        paper.say(f"{len(same)} objects unchanged")
    if names_only:
        return
    moved = [safe(device["name"]) for device in devices] if isinstance(devices, list) else []
    whom = f": {delivery.some(moved)}" if moved else ""
    if dry:
        paper.say(f"dry run: {plural(len(moved), 'device')} would change{whom}")
    elif len(same) == len(listed):
        paper.say(f"nothing to change, revision stays {result['revision']}")
    else:
        verb = "change" if len(moved) > 1 else "changes"
        paper.say(
            f"revision {result['revision']}, {plural(len(moved), 'device') if moved else 'no device'} {verb}{whom}"
        )
