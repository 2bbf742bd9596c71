"""``device`` and ``retry``: what is done to one device; ``device add`` stands in ``flashing``."""

from __future__ import annotations

from typing import Any

import click

from hengectl import delivery, refusal
from hengectl.changes import delete_refs
from hengectl.columns import state_of
from hengectl.flashing import add_command
from hengectl.invocation import Command, Group, Invocation, with_invocation
from hengectl.kinds import DEVICE, SCHEMA, Ref, name_of
from hengectl.options import (
    DEVICE_NAME,
    DURATION,
    Name,
    all_at_once_option,
    message_option,
    take_over_option,
    wait_options,
    yes_option,
)  # fmt: skip
from hengectl.render import safe
from hengectl.tokens import TOKEN_TTL_S, tell_next_step
from hengectl.waiting import REFUSED, is_revoked


@click.group("device", cls=Group, short_help="Add, revoke, replace, rename or delete a device; give it a schema.")
def device_command() -> None:
    """What is done to one device."""


device_command.add_command(add_command)


@device_command.command("revoke", cls=Command, writes=True, short_help="Let a device in no more.")
@click.argument("device", metavar="NAME", type=DEVICE_NAME)
@yes_option
@with_invocation
def device_revoke(invocation: Invocation, device: str, yes: bool) -> None:
    """Make the device's identity worthless; its connection ends at once.

    Its values and its last configuration stay. To let it in again it has to join anew.
    """
    ref = Ref(DEVICE, device)
    if is_revoked(invocation.client.read(ref)):
        invocation.paper.say(f"{ref} was revoked already")
        return
    invocation.confirm_by_name(device, "revoke", yes=yes)
    invocation.client.post(f"{ref.path}/revoke")
    invocation.paper.say(f"{ref} revoked")


@device_command.command("replace", cls=Command, writes=True, short_help="Let new hardware take a device's place.")
@click.argument("device", metavar="NAME", type=DEVICE_NAME)
@click.option("--ttl", "ttl_s", type=DURATION, default=TOKEN_TTL_S, help="How long it may join; 1h if not given.")
@click.option("-q", "--quiet", is_flag=True, help="Print the token and nothing else.")
@yes_option
@with_invocation
def device_replace(invocation: Invocation, device: str, ttl_s: int, quiet: bool, yes: bool) -> None:
    """End the identity that the device has, and print a token with which other hardware becomes it.

    Name, labels, values and history stay; what the old hardware reported does not.
    """
    ref = Ref(DEVICE, device)
    invocation.client.read(ref)
    invocation.confirm_by_name(device, "replace", yes=yes)
    made = invocation.client.post(f"{ref.path}/replace", {"ttl_s": ttl_s}).json()
    invocation.paper.say(str(made["token"]))
    if not quiet:
        tell_next_step(invocation, made, ttl_s=ttl_s, uses=1)
        invocation.note("If it is the same hardware as before: stop its agent first, and add --replace to the join.")


@device_command.command("rename", cls=Command, writes=True, short_help="Give a device another name.")
@click.argument("device", metavar="NAME", type=DEVICE_NAME)
@click.argument("to", metavar="NEW-NAME", type=Name())
@take_over_option
@message_option
@with_invocation
def device_rename(invocation: Invocation, device: str, to: str, take_over: bool, message: str) -> None:
    """Give a device another name. Its identity, values and history stay."""
    ref = Ref(DEVICE, device)
    if device == to:
        invocation.client.read(ref)
        invocation.paper.say(f"{ref} has that name already")
        return
    renamed = invocation.client.post(f"{ref.path}/rename", {"to": to}, message=message, take_over=take_over).json()
    invocation.paper.say(f"{ref} is now device/{safe(name_of(renamed) or to)}")
    taken_from = renamed["metadata"].get("taken_from")
    if taken_from:
        files = f"the files of the apply-set {safe(taken_from)}"
        invocation.note(f"If {files} name {ref}, rename it there, too: applying them would make a second device.")


@device_command.command("schema", cls=Command, writes=True, short_help="Say of which type a device is.")
@click.argument("device", metavar="NAME", type=DEVICE_NAME)
@click.argument("schema", metavar="SCHEMA", type=Name(SCHEMA))
@all_at_once_option
@take_over_option
@wait_options(10)
@message_option
@with_invocation
def device_schema(
    invocation: Invocation,
    device: str,
    schema: str,
    all_at_once: bool,
    take_over: bool,
    wait: bool,
    timeout_s: int,
    message: str,
) -> int:
    """Give a device a schema, in place of the one that it has.

    From then on it gets a configuration: the schema's defaults, what groups say, and its own values, which must fit.
    """
    ref = Ref(DEVICE, device)
    before = invocation.client.get(ref.path)
    body = {"spec": {"schema": schema}}
    query: dict[str, Any] = {"all_at_once": all_at_once, "take_over": take_over, "message": message}
    after = invocation.client.patch(ref.path, body, **query)
    same = before.etag == after.etag
    invocation.paper.say(f"{ref} is of schema {schema}{' already' if same else f' (r{after.revision})'}")
    return delivery.await_delivery(invocation, [device], timeout_s) if wait else refusal.OK


@device_command.command("delete", cls=Command, writes=True, short_help="Forget a device.")
@click.argument("device", metavar="NAME", type=DEVICE_NAME)
@take_over_option
@message_option
@yes_option
@with_invocation
def device_delete(invocation: Invocation, device: str, take_over: bool, message: str, yes: bool) -> None:
    """Revoke the device's identity and forget its values. Shows what that does, and asks.

    The values can be brought back with rollback, the identity cannot: the device has to join anew.
    """
    delete_refs(invocation, [Ref(DEVICE, device)], message=message, dry_run=False, yes=yes, take_over=take_over)


@click.command("retry", cls=Command, writes=True, short_help="Offer a refused document again.")
@click.argument("device", type=DEVICE_NAME)
@with_invocation
def retry_command(invocation: Invocation, device: str) -> None:
    """Offer the document again that the device rejected or rolled back.

    It is not offered again by itself until it changes.
    """
    ref = Ref(DEVICE, device)
    before = invocation.client.read(ref)
    status = before.get("status", {})
    if status.get("config") not in REFUSED | {"ahead"} and not status.get("shared"):
        invocation.paper.say(f"{ref} is {safe(state_of(before))} and refused nothing: there is nothing to offer again")
        return
    invocation.client.post(f"{ref.path}/retry")
    if before.get("status", {}).get("connection") == "online":
        invocation.paper.say(f"{ref} is offered its document again")
    else:
        invocation.paper.say(f"{ref} is offered its document again when it is back")
    invocation.note(f"See what comes of it: hengectl wait --for=in-sync {ref}")
