"""``rescue``: devices hand in what they run when the store is gone, and a person takes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from henge_protocol.errors import Invalid
from henge_protocol.fieldpath import pointer
from henge_protocol.model import SECRET_KEY, short_digest
from hengectl import delivery
from hengectl.differences import say_fields
from hengectl.invocation import Command, Group, Invocation, with_invocation
from hengectl.kinds import SCHEMA
from hengectl.listing import tell_list
from hengectl.options import Duration, Name, dry_run_option, message_option, output_option, yes_option
from hengectl.refusal import OK, PARTIAL
from hengectl.render import Table, age, left, plural, safe

WINDOW_S: Final = 2 * 3600
"""A device that was refused before asks again within an hour or so."""
MAX_WINDOW_S: Final = 30 * 86400
"""The daemon's limit (``docs/limits.md``)."""


@click.group("rescue", cls=Group, short_help="Rebuild a lost store from what devices run.")
def rescue_command() -> None:
    """Rebuild a lost store from what devices run, when its authorities are all that is left.

    \b
    hengd restore FILE            found an empty store from the authorities
    hengectl rescue open          let devices hand in what they run
    hengectl rescue list          see who did, from where
    hengectl rescue take --all    make devices of that, after a look
    """


@rescue_command.command("open", cls=Command, writes=True, short_help="Let unknown devices hand in what they run.")
@click.option(
    "--for", "open_s", type=Duration(MAX_WINDOW_S), default=WINDOW_S, help="How long, at most 30d; 2h if not given."
)
@with_invocation
def rescue_open(invocation: Invocation, open_s: int) -> None:
    """Let devices that this daemon does not know hand in what they run. They get nothing for it until you take it."""
    _tell_window(invocation, invocation.client.put("/v1/rescue-window", {"open_s": open_s}).json())
    invocation.note("A device that was refused before asks again within 72 minutes, or when its agent is restarted.")
    invocation.note("See who came: hengectl rescue list")


@rescue_command.command("close", cls=Command, writes=True, short_help="Let no device hand in anything.")
@click.option("--forget", is_flag=True, help="Also drop what was handed in and not taken.")
@with_invocation
def rescue_close(invocation: Invocation, *, forget: bool) -> None:
    """Let no device hand in anything. What was handed in before can still be taken."""
    body = {"open_s": 0, "forget": forget}
    _tell_window(invocation, invocation.client.put("/v1/rescue-window", body).json())


@rescue_command.command("status", cls=Command, short_help="Show whether the window is open, and how many wait.")
@with_invocation
def rescue_status(invocation: Invocation) -> None:
    """Show whether devices may hand in what they run, and how many wait to be taken."""
    _tell_window(invocation, invocation.client.get("/v1/rescue-window").json())


@rescue_command.command("list", cls=Command, short_help="Show what was handed in and not taken.")
@output_option("json", "yaml", "wide", "name")
@with_invocation
def rescue_list(invocation: Invocation, form: str | None) -> None:
    """Show which devices handed in what they run, from where and when. Take only those that you expect there."""
    answer = invocation.client.get("/v1/rescues").json()
    items = list(answer["items"])
    tell_list(
        invocation, items, form,
        name=lambda item: item["id"],
        rows=lambda: invocation.paper.table(_table(items, now=invocation.now(), wide=form == "wide")),
        nothing="Nothing was handed in that waits to be taken. Whether devices may: hengectl rescue status",
        data=answer,
    )  # fmt: skip
    if form in (None, "wide") and answer["total"] > len(items):
        invocation.note(f"{answer['total'] - len(items)} more are not shown.")


@rescue_command.command("take", cls=Command, writes=True, short_help="Make devices of what was handed in.")
@click.argument("devices", metavar="[NAME...]", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that were handed in.")
@click.option("--as", "name", type=Name(), default=None, help="Call the one that is taken so.")
@click.option("--schema", type=Name(SCHEMA), default=None, help="The schema of all that are taken.")
@click.option("--skip", is_flag=True, help="Leave out those that cannot be taken.")
@dry_run_option
@message_option
@yes_option
@with_invocation
def rescue_take(
    invocation: Invocation, devices: tuple[str, ...], name: str | None, schema: str | None, message: str,
    *, every: bool, skip: bool, dry_run: bool, yes: bool,
) -> int:  # fmt: skip
    """Make devices of what was handed in, by name or id: each under its old id, with what it runs as its values.

    Values that the schema's defaults or groups give anyway are left out, those of writeOnly fields become secrets.
    All in one revision, after a look; a device whose document comes out the same gets nothing and is in sync.
    """
    if every == bool(devices):
        cure = "see: hengectl rescue list"
        raise Invalid("bad_usage", "either --all or the names of devices are needed", cure=cure)
    options = {key: value for key, value in (("name", name), ("schema", schema), ("skip", skip)) if value}
    body: dict[str, Any] = {**options, **({} if every else {"devices": [{"device": one} for one in devices]})}
    plan = invocation.client.post("/v1/rescues/take", body, dry_run=True).json()
    _tell_plan(invocation, plan)
    outcome = PARTIAL if plan["refused"] else OK
    if dry_run:
        return outcome
    if not plan["refused"] or skip:
        invocation.confirm(f"Take {delivery.some(_names(plan))}?", yes=yes)
        seen = [{"device": one["id"], "digest": one["runs"]} for one in plan["devices"]]
        body = {**options, "devices": seen}
    done = invocation.client.post("/v1/rescues/take", body, message=message).json()
    _tell_done(invocation, done)
    return outcome


def _tell_plan(invocation: Invocation, plan: Mapping[str, Any]) -> None:
    paper = invocation.paper
    for one in plan["devices"]:
        paper.say(paper.style.paint("strong", f"device/{safe(one['name'])}  of schema {safe(one['schema'])}"))
        say_fields(invocation, [{"pointer": where, "after": value} for where, value in _leaves(one["values"], ())])
        paper.say(f"  {_delivered(one)}")
        if one["certificates"] > 1:
            shown = f"{one['certificates']} certificates of it were shown"
            invocation.note(f"device/{safe(one['name'])}: {shown}; the newest counts. See: hengectl rescue list")
    for noun in ("schema", "secret"):
        made = [safe(one) for one in plan[f"{noun}s"]]
        if made:
            paper.say(f"new {noun if len(made) == 1 else f'{noun}s'}: {', '.join(made)}")
    for one in plan["refused"]:
        paper.say(f"{paper.style.paint('bad', 'not taken')}  {safe(one['name'])}: {safe(one['reason'])}")
        if one["cure"]:
            paper.say(invocation.aimed(f"           {safe(one['cure'])}"))


def _tell_done(invocation: Invocation, done: Mapping[str, Any]) -> None:
    count = plural(len(done["devices"]), "device")
    invocation.paper.say(f"revision {done['revision']}, {count} taken: {delivery.some(_names(done))}")
    if done["left"]:
        invocation.note(f"{plural(done['left'], 'device')} still to be taken. See: hengectl rescue list")
    invocation.note("They come by themselves within a minute or two. See: hengectl get devices")
    if len(done["devices"]) > 1:
        invocation.note("Values that all devices of a group set alike are lifted to it by: hengectl factor")


def _names(plan: Mapping[str, Any]) -> list[str]:
    return [safe(one["name"]) for one in plan["devices"]]


def _delivered(one: Mapping[str, Any]) -> str:
    if one["runs"] == one["document"]:
        return "runs exactly this: nothing is delivered"
    if not one["differs"]:
        return "runs these values; it gets them once more in another form, because some are secret"
    return f"gets another document; these fields differ: {', '.join(safe(field) for field in one['differs'])}"


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value and SECRET_KEY not in value:
        for key in sorted(value):
            yield from _leaves(value[key], (*path, key))
    elif path:
        yield pointer(path), value


def _table(items: Sequence[Mapping[str, Any]], *, now: float, wide: bool) -> Table:
    headers = ["NAME", "ID", "FROM", "AGE", "BYTES", "SCHEMA", "CLIENT", "CERTIFICATE"]
    more = ["DIGEST", "ENDS"] if wide else []
    rows = [
        [
            safe(one["name"]), safe(one["id"]), safe(one["address"]), age(one["handed_in"], now=now), str(one["size"]),
            safe(one["facts"].get("schema") or ("handed in" if one["schema"] else "-")), safe(one["client"]) or "-",
            "newest" if one["newest"] else "older",
            *([short_digest(one["digest"]), safe(one["certificate_expires"])] if wide else []),
        ]
        for one in items
    ]  # fmt: skip
    return Table([*headers, *more], rows, keep=frozenset({"NAME", "ID"}))


def _tell_window(invocation: Invocation, window: Mapping[str, Any]) -> None:
    if window.get("open"):
        remaining = left(window.get("closes"), now=invocation.now())
        invocation.paper.say(f"Unknown devices may hand in what they run for another {remaining}.")
    else:
        text = "No device may hand in what it runs. Open for a while with: hengectl rescue open"
        invocation.paper.say(invocation.aimed(text))
    waiting = int(window.get("waiting", 0))
    invocation.paper.say(f"{plural(waiting, 'device')} handed in and not taken.")
