"""``promote`` and ``factor``: move values that devices set themselves to the groups that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import click

from henge_protocol.errors import HengeError, Invalid
from henge_protocol.fieldpath import parse_path, pointer
from henge_protocol.model import version_tag
from hengectl import delivery
from hengectl.changes import tell_needs, tell_result
from hengectl.differences import tell_differences
from hengectl.factoring import Fleet, Lift, promoted
from hengectl.fields import has
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, GROUP, SCHEMA, Ref, name_of
from hengectl.options import (
    DEVICE_NAME,
    RefType,
    all_at_once_option,
    dry_run_option,
    message_option,
    selector_option,
    take_over_option,
    yes_option,
)
from hengectl.refusal import field_of
from hengectl.render import Table, safe

MAX_TRIED: Final = 200
"""Values of a fleet that one run tries to lift; each asks the daemon once or more."""


@click.command("promote", cls=Command, writes=True, short_help="Move a device's value to a group of it.")
@click.argument("device", type=DEVICE_NAME)
@click.argument("field")
@click.option("--to", "group", metavar="group/NAME", type=RefType((GROUP,)), required=True, help="Where it goes.")
@dry_run_option
@all_at_once_option
@take_over_option
@message_option
@yes_option
@with_invocation
def promote_command(
    invocation: Invocation,
    device: str,
    field: str,
    group: Ref,
    dry_run: bool,
    all_at_once: bool,
    take_over: bool,
    message: str,
    yes: bool,
) -> None:
    """Move a value that a device sets itself to a group, so that all devices of the group have it.

    Shows which documents change, and asks unless none does.

    \b
    hengectl promote lamp-1 wifi.ssid --to group/kitchen
    """
    name, wanted = field_of(pointer(parse_path(field))), Ref(DEVICE, device)
    objects, seen = _promoted(invocation, wanted, field, group)
    body = {"objects": objects, "message": message or f"promote {name} from {wanted} to {group}"}
    words = {"all_at_once": all_at_once, "take_over": take_over}
    result = invocation.client.post("/v1/apply", body, if_match=seen, dry_run=True, **words).json()
    tell_differences(invocation, result["objects"], result["devices"])
    tell_needs(invocation, result)
    if dry_run:
        return
    if result["devices"]:
        invocation.confirm(f"Move {name} to {group}?", yes=yes)
    done = invocation.client.post("/v1/apply", body, if_match=seen, **words)
    tell_result(invocation, done.json(), told=True)


@click.command("factor", cls=Command, writes=True, short_help="Lift values that many devices share to their groups.")
@selector_option
@dry_run_option
@take_over_option
@message_option
@yes_option
@with_invocation
def factor_command(
    invocation: Invocation, selector: str, dry_run: bool, take_over: bool, message: str, yes: bool
) -> None:
    """Find values that all devices of a group set alike, and let the group set them once.

    No device gets another document: the daemon makes sure, or refuses. Groups are not made.
    """
    client = invocation.client
    listed = client.listing(DEVICE)
    fleet = Fleet.of(listed["items"], client.items(GROUP), client.items(SCHEMA))
    among = frozenset(map(name_of, client.items(DEVICE, selector) if selector else listed["items"]))
    if not among:
        invocation.note(f"No device has these labels: {selector}" if selector else "There are no devices.")
        return
    lifts = _that_change_nothing(invocation, fleet, among, take_over=take_over)
    if not lifts:
        invocation.note("There is nothing that all devices of a group set alike.")
        return
    rows = [
        [field_of(pointer(one.path)), safe(one.value), f"group/{one.group}", delivery.some(one.devices)]
        for one in lifts
    ]
    invocation.paper.table(Table(["FIELD", "VALUE", "TO", "FROM"], rows))
    if dry_run:
        return
    invocation.confirm("Lift these? No device gets another document.", yes=yes)
    body = {"objects": fleet.lifted(lifts), "message": message or "factor"}
    words: dict[str, object] = {"expect": "same-documents", "take_over": take_over}
    tell_result(invocation, client.post("/v1/apply", body, if_match=_version_of(listed), **words).json())


def _promoted(invocation: Invocation, device: Ref, field: str, group: Ref) -> tuple[Sequence[Mapping[str, Any]], str]:
    """Both objects as they will be, and the version of the fleet that they are made of, read first."""
    path = parse_path(field)
    client = invocation.client
    listed = client.listing(SCHEMA)
    object_, to = client.read(device), client.read(group)
    if not has(object_["spec"].get("values", {}), path):
        cure = f"see where its values come from: hengectl why {device.name}"
        raise Invalid("bad_path", f"{device} does not set {field_of(pointer(path))} itself", cure=cure)
    fleet = Fleet.of([object_], [to], listed["items"])
    if device.name not in fleet.hearing(group.name, path[0]):
        cure = f"see whom it selects: hengectl describe {group}"
        raise Invalid("bad_parameter", f"{group} does not speak to {device}, which would lose the value", cure=cure)
    return promoted(object_, to, path), _version_of(listed)


def _version_of(listed: Mapping[str, Any]) -> str:
    """Of the whole fleet, as ``If-Match`` takes it, when a list was read."""
    return version_tag(listed["metadata"]["epoch"], listed["metadata"]["revision"])


def _that_change_nothing(invocation: Invocation, fleet: Fleet, among: frozenset[str], *, take_over: bool) -> list[Lift]:
    """As many lifts as leave every document as it is, taken one by one: the daemon knows what else speaks, and what
    belongs to an apply-set."""
    taken: list[Lift] = []
    possible = partial(_changes_nothing, invocation, fleet, take_over=take_over)
    for tried, choices in enumerate(fleet.lifts(among)):
        invocation.progress.tell(f"value {tried + 1} is tried, {len(taken)} can be lifted")
        if tried == MAX_TRIED:
            invocation.note(f"Only the first {MAX_TRIED} values were looked at; run it again for the others.")
            break
        taken += next(([one] for one in choices if possible([*taken, one])), [])
    invocation.progress.clear()
    return taken


def _changes_nothing(invocation: Invocation, fleet: Fleet, lifts: Sequence[Lift], *, take_over: bool) -> bool:
    body = {"objects": fleet.lifted(lifts)}
    try:
        plan = invocation.client.post(
            "/v1/apply", body, dry_run=True, expect="same-documents", take_over=take_over
        ).json()
    except HengeError as error:
        if error.code in ("documents_differ", "conflicting_groups", "does_not_fit"):
            return False
        raise
    return not plan.get("managed")
