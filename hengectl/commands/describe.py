"""``describe``: everything a person wants to know about one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from henge_protocol.errors import HengeError, Invalid
from hengectl.columns import View, error_text, revisions_of, table_of, trouble_of
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, GROUP, REVISION, SCHEMA, Object, Ref, name_of, parse_refs
from hengectl.options import WHAT
from hengectl.render import Table, age, as_yaml, labels_text, left, mood_of, safe, unix_s

REVISIONS_SHOWN: Final = 5
_CURES: Final = {
    "quarantined": "It is not offered again until it changes, or",
    "ahead": "It runs a newer revision of another daemon's history and is left alone. Give it this daemon's",
}
_GOOD: Final = dict.fromkeys(("ProtocolUnsupported", "IdentityShared", "RebootRequired"), "False")
"""Conditions that should not hold; all others should."""


@click.command("describe", cls=Command, short_help="Show everything about one device, group or schema.")
@click.argument("what", metavar="KIND/NAME | KIND NAME", nargs=-1, required=True, type=WHAT)
@with_invocation
def describe_command(invocation: Invocation, what: tuple[str, ...]) -> None:
    """Show one thing for people: how it is, what it holds, what was changed lately."""
    target = _target(what)
    object_ = invocation.client.read(target)
    paper = invocation.paper
    paper.say(paper.style.paint("strong", str(target)))
    paper.pairs(_facts(invocation, target, object_), indent="  ")
    _block(invocation, "values", object_.get("spec", {}).get("values"))
    _overrides(invocation, object_)
    if target.kind == SCHEMA:
        paper.say(invocation.aimed(f"  fields: hengectl explain {target.name}"))
    _errors(invocation, object_)
    _history(invocation, target)


def _target(what: Sequence[str]) -> Ref:
    try:
        refs = parse_refs(what)
    except HengeError as error:
        raise Invalid("bad_usage", error.message, cure=error.cure) from None
    if len(refs) > 1:
        raise Invalid("bad_usage", "one thing is described at a time", cure=f"hengectl describe {refs[0]}")
    return refs[0]


def _facts(invocation: Invocation, target: Ref, object_: Object) -> list[tuple[str, str]]:
    metadata, spec = object_.get("metadata", {}), object_.get("spec", {})
    now = invocation.now()
    facts = [("labels", labels_text(metadata.get("labels")))]
    if target.kind == DEVICE:
        facts += _device_facts(invocation, object_)
    elif target.kind == GROUP:
        facts += [
            ("selector", safe(spec.get("selector") or "") or "(every device)"),
            ("priority", str(spec.get("priority", ""))),
            ("schema", safe(spec.get("schema") or "")),
            ("devices", _members(invocation, spec)),
        ]
    else:
        facts += [("limit", f"{spec.get('max_document')} bytes"), ("confirm within", f"{spec.get('confirm_s')} s")]
    changed = metadata.get("changed") or metadata.get("created")
    author = f" by {safe(metadata['author'])}" if metadata.get("author") else ""
    facts.append(("set", _owner(metadata)))
    return [*facts, ("changed", f"r{metadata.get('revision', '?')}, {age(changed, now=now)} ago{author}")]


def _owner(metadata: Mapping[str, Any]) -> str:
    """The apply-set that an object belongs to, or did until somebody took it."""
    if metadata.get("set"):
        return f"{safe(metadata['set'])}   changes by hand need --take-over"
    return f"none, taken from {safe(metadata['taken_from'])}" if metadata.get("taken_from") else ""


def _members(invocation: Invocation, spec: Mapping[str, Any]) -> str:
    devices = invocation.client.items(DEVICE, str(spec.get("selector") or ""))
    bound = spec.get("schema")
    names = [safe(name_of(one)) for one in devices if not bound or one.get("spec", {}).get("schema") == bound]
    shown = ", ".join(names[:10])
    return f"{len(names)}: {shown}{', ...' if len(names) > 10 else ''}" if names else "0"


def _device_facts(invocation: Invocation, device: Object) -> list[tuple[str, str]]:
    status, style, now = device.get("status", {}), invocation.paper.style, invocation.now()
    connection, config = str(status.get("connection", "")), str(status.get("config", ""))
    since = f" for {age(status.get('since'), now=now)}" if unix_s(status.get("since")) is not None else ""
    desired = status.get("desired") or {}
    running = (
        f"{safe(desired.get('digest', ''))[:12]}, {desired['size']} bytes" if desired else "none: it has no schema"
    )
    return [
        ("schema", safe(device.get("spec", {}).get("schema") or "")),
        ("connection", f"{style.paint(mood_of(connection), safe(connection))}{since}"),
        ("configuration", f"{style.paint(mood_of(config), safe(config))}   {revisions_of(device, style)}"),
        ("trouble", trouble_of(device)),
        ("document", running),
        ("address", safe(status.get("address") or "")),
        ("client", safe(status.get("client") or "")),
        ("facts", labels_text(status.get("facts"))),
        ("identity", f"{safe(status.get('identity') or '')}   {safe(status.get('id') or '')}".rstrip()),
    ]


def _block(invocation: Invocation, title: str, values: object) -> None:
    if values:
        lines = [safe(line) for line in as_yaml(values).rstrip("\n").split("\n")]
        invocation.paper.say("\n".join([f"  {title}", *(f"    {line}" for line in lines)]))


def _overrides(invocation: Invocation, object_: Object) -> None:
    overrides = object_.get("status", {}).get("overrides")
    if overrides:
        rows = [_override_row(one, now=invocation.now()) for one in overrides]
        lines = Table(["FIELD", "VALUE", "ENDS IN", "AUTHOR", "MESSAGE"], rows).lines(
            invocation.paper.style, headers=False
        )
        invocation.paper.say("\n".join(["  overrides", *(f"    {line}" for line in lines)]))


def _override_row(one: Mapping[str, Any], *, now: float) -> list[str]:
    value = "(removed)" if one["value"] is None else safe(one["value"])
    ends = f"ends in {left(one['until'], now=now)}"
    return [safe(one["field"]), value, ends, safe(one["author"]), safe(one["message"])]


def _errors(invocation: Invocation, object_: Object) -> None:
    reported = object_.get("status", {}).get("reported") or {}
    for error in reported.get("errors") or []:
        if (said := safe(error_text(error))) not in trouble_of(object_):  # which stands above
            invocation.paper.say(f"  {said}")
    for one in object_.get("status", {}).get("conditions") or []:
        if one.get("status") != _GOOD.get(str(one.get("type")), "True"):
            said = ": ".join(safe(one.get(key, "")) for key in ("reason", "message"))
            invocation.paper.say(f"  {safe(one.get('type', ''))} {safe(one.get('status', ''))}: {said}")
    cure = _CURES.get(str(object_.get("status", {}).get("config")))
    if cure is not None:
        invocation.note(f"{cure}: hengectl retry {name_of(object_)}")


def _history(invocation: Invocation, target: Ref) -> None:
    items = invocation.client.revisions(REVISIONS_SHOWN, str(target))
    if items:
        invocation.paper.say()
        view = View(invocation.now(), invocation.paper.style)
        invocation.paper.table(table_of(REVISION, items, view, wide=False, labels=False))
