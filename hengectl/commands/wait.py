"""``wait``: for scripts that go on when a device is ready."""

from __future__ import annotations

import click

from henge_protocol.errors import NotFound
from henge_protocol.quantity import format_duration
from hengectl import delivery, refusal
from hengectl.columns import state_of, trouble_of
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, Object, Ref
from hengectl.options import DURATION, RefType
from hengectl.waiting import Verdict, deleted, in_sync_strictly, is_revoked, online, wait_for

CONDITIONS = {"in-sync": in_sync_strictly, "online": online, "deleted": deleted}


@click.command("wait", cls=Command, short_help="Wait until devices are in-sync, online or deleted.")
@click.argument("targets", metavar="device/NAME...", nargs=-1, required=True, type=RefType((DEVICE,)))
@click.option("--for", "condition", type=click.Choice(tuple(CONDITIONS)), required=True, help="What to wait for.")
@click.option("--timeout", "timeout_s", type=DURATION, default=30, help="How long to wait; 30s if not given.")
@with_invocation
def wait_command(invocation: Invocation, targets: tuple[Ref, ...], condition: str, timeout_s: int) -> int:
    """Wait until all these devices are as wanted. A device that refuses its document ends the wait with 1."""
    if condition != "deleted":
        for target in targets:
            invocation.client.read(target)  # a name that does not exist would otherwise be waited for

    def tell(name: str, verdict: Verdict, device: Object | None) -> None:
        if verdict == "reached":
            invocation.paper.say(f"device/{name} {condition}")
        elif is_revoked(device):
            invocation.note(f"Error: device/{name} was revoked and is let in no more: hengectl device replace {name}")
        elif device is not None:
            invocation.note(
                f"Error: device/{name} is {state_of(device)}: {trouble_of(device) or 'it refuses its document'}"
            )

    names = list(dict.fromkeys(target.name for target in targets))
    watched = delivery.watcher(invocation, condition)
    waited = wait_for(invocation.client, names, CONDITIONS[condition], timeout_s, told=tell, watched=watched)
    invocation.progress.clear()
    if any(name not in waited.devices for name in waited.having("refused")):
        raise NotFound("no_such_device", "a device that was waited for is gone")
    for name in waited.having("open"):
        device = waited.devices.get(name)
        state = f", it is {state_of(device)}" if device else ""
        invocation.note(f"Error: device/{name} not {condition} within {format_duration(timeout_s)}{state}")
    if waited.having("open"):
        return refusal.TIMED_OUT
    return refusal.NO if waited.having("refused") else refusal.OK
