"""``check``: whether files are right, and whether devices could run what they would get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import click

from henge_protocol.errors import Invalid
from hengectl import refusal
from hengectl.changes import Files, apply_files, tell_needs
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.options import (
    files_option,
    kustomize_option,
    output_option,
    selector_option,
    set_option,
    take_over_option,
)
from hengectl.render import plural, safe

_SAID: Final = {
    "fits": "could run it",
    "refused": "refuses it",
    "unsupported": "cannot be asked",
    "busy": "is busy with another document",
    "silent": "did not answer",
    "offline": "is not connected",
}


@click.command("check", cls=Command, short_help="See whether files are right, and whether devices could run them.")
@files_option
@kustomize_option
@set_option
@take_over_option
@click.option("--on-device", is_flag=True, help="Ask the devices that would get another document.")
@selector_option
@output_option("json", "yaml")
@with_invocation
def check_command(
    invocation: Invocation,
    names: tuple[str, ...],
    folder: str | None,
    apply_set: str | None,
    selector: str,
    form: str | None,
    *,
    take_over: bool,
    on_device: bool,
) -> int:
    """Check files as 'apply' would; with --on-device ask each device concerned, too. Nothing is changed anywhere.

    A device looks whether its outputs can hold the document and runs its --check command. It is given ten seconds.
    The exit code is 0 when all could run it, 6 when one refuses, and 9 when some could not be asked; 5 when files
    write what belongs to another apply-set, or to people. How much of the fleet they change is only noted.

    \b
    hengectl check -f fleet/
    hengectl check -f fleet/ --on-device -l room=attic
    """
    if selector and not on_device:
        raise Invalid("bad_usage", "-l chooses among the devices that --on-device asks", cure="add --on-device")
    files = Files(names, folder, apply_set, prune=False)
    if not on_device:
        return _by_daemon(invocation, files, form=form, take_over=take_over)
    items = _ask(invocation, files, selector, take_over=take_over)
    if form is not None:
        invocation.paper.data(items, form)
    else:
        for one in items:
            _tell(invocation, one)
        if not items:
            invocation.note("No device would get another document.")
    verdicts = Counter(one["verdict"] for one in items)
    if verdicts["refused"]:
        return refusal.INVALID
    return refusal.OK if verdicts["fits"] == len(items) else refusal.PARTIAL


def _by_daemon(invocation: Invocation, files: Files, *, form: str | None, take_over: bool) -> int:
    result = apply_files(invocation, files, dry_run=True, take_over=take_over)
    if form is not None:
        invocation.paper.data(result, form)
    else:
        devices = plural(len(result["devices"]), "device")
        invocation.paper.say(f"{plural(len(result['objects']), 'object')} right; {devices} would change")
        tell_needs(invocation, result)
    return refusal.CONFLICT if result.get("managed") else refusal.OK


def _ask(invocation: Invocation, files: Files, selector: str, *, take_over: bool) -> list[dict[str, Any]]:
    from hengectl import manifest  # YAML takes 15 ms to import

    read = manifest.read(files.names, folder=files.folder or "")
    with read.placed():
        answer = invocation.client.post(
            "/v1/check", {"objects": read.objects}, selector=selector, set=files.apply_set, take_over=take_over
        )
    return list(answer.json()["items"])


def _tell(invocation: Invocation, one: Mapping[str, Any]) -> None:
    reason = f" ({safe(one['reason'])})" if one["reason"] else ""
    invocation.paper.say(f"device/{safe(one['name'])} {_SAID.get(one['verdict'], safe(one['verdict']))}{reason}")
    for error in one["errors"]:
        where = f"{safe(error['pointer'])}: " if error["pointer"] else ""
        invocation.paper.say(f"  {where}{safe(error['message'])}")
