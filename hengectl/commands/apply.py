"""``apply``: make the fleet as the files say."""

from __future__ import annotations

from typing import Final

import click

from henge_protocol.errors import HengeError
from hengectl import delivery, refusal
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.options import dry_run_option, message_option, output_option, wait_options
from hengectl.render import plural, safe

UNCHANGED_SHOWN: Final = 5
"""More of them would hide what did change."""


@click.command("apply", cls=Command, writes=True, short_help="Make the fleet as files say.")
@click.option(
    "-f",
    "--filename",
    "names",
    metavar="FILE|DIR|-",
    multiple=True,
    required=True,
    help="YAML or JSON; may be repeated.",
)
@dry_run_option
@wait_options(60)
@message_option
@output_option("json", "yaml", "name")
@with_invocation
def apply_command(
    invocation: Invocation,
    names: tuple[str, ...],
    dry_run: bool,
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
    from hengectl import manifest  # YAML takes 15 ms to import

    read = manifest.read(names)
    try:
        body = {"objects": read.objects, "message": message}
        result = invocation.client.post("/v1/apply", body, dry_run=dry_run).json()
    except HengeError as error:
        error.extra["places"] = [read.place(problem) for problem in error.problems]
        raise
    if form in ("json", "yaml"):
        invocation.paper.data(result, form)
    else:
        tell_result(invocation, result, names_only=form == "name")
    moved = [device["name"] for device in result["devices"] if device.get("after")]
    return delivery.await_delivery(invocation, moved, timeout_s) if wait and not dry_run else refusal.OK


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
        verb = "changes" if len(moved) == 1 else "change"
        paper.say(
            f"revision {result['revision']}, {plural(len(moved), 'device') if moved else 'no device'} {verb}{whom}"
        )
