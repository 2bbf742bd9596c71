"""``set`` and ``unset``: single values of a device or a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import click

from henge_protocol.errors import Conflict, Invalid, NotFound, Stale
from henge_protocol.fieldpath import Path, pointer
from henge_protocol.model import is_secret_name
from hengectl import delivery, refusal
from hengectl.client import Reply
from hengectl.fields import (
    Assignment,
    Schema,
    has,
    leaves,
    merged,
    nested,
    parse_assignments,
    parse_fields,
    shallowest_gone,
    types_of,
    value_of,
)  # fmt: skip
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, GROUP, SCHEMA, SECRET, Object, Ref, name_of, nearest
from hengectl.options import (
    DURATION,
    RefType,
    all_at_once_option,
    message_option,
    selector_option,
    take_over_option,
    wait_options,
)  # fmt: skip
from hengectl.refusal import field_of
from hengectl.render import left, plural, safe

ATTEMPTS: Final = 5


class _Target(RefType):
    """A device or group; with ``-l`` the devices are chosen already, and what stands here is a field."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if ctx is None or not ctx.params.get("selector"):
            return super().convert(value, param, ctx)
        if str(value).partition("/")[0] in (DEVICE.singular, GROUP.singular):
            self.fail(f"{value!r} and -l both say what is meant", param, ctx)
        return value


TARGET: Final = _Target((GROUP, DEVICE))


@click.command("set", cls=Command, writes=True, short_help="Set values of one device or group.")
@click.argument("target", metavar="device/NAME|group/NAME", type=TARGET)
@click.argument("assignments", metavar="FIELD=VALUE...", nargs=-1)
@selector_option
@click.option("--json", "as_json", is_flag=True, help="Values are JSON: text stands in quotes.")
@click.option(
    "--for", "for_s", type=DURATION, default=0, help="Only so long, above all layers; then it ends by itself."
)
@all_at_once_option
@take_over_option
@wait_options(10)
@message_option
@with_invocation
def set_command(
    invocation: Invocation,
    target: Any,
    assignments: tuple[str, ...],
    selector: str,
    as_json: bool,
    for_s: int,
    all_at_once: bool,
    take_over: bool,
    wait: bool,
    timeout_s: int,
    message: str,
) -> int:
    """Set values where they are declared: on a device, or on a group for all its devices.

    With -l and --for instead of a name: on every device with these labels, all of them or none.

    The schema says what a value is: 10 is a number or text as the field wants it.
    FIELD=null hides a value that would be inherited; unset removes what was set here.
    With --for it is an override: stronger than all layers, gone by itself, and no file that is applied touches it.

    \b
    hengectl set device/lamp-1 color=red brightness=80 --wait
    hengectl set group/kitchen wifi.ssid=den
    hengectl set device/lamp-1 log.level=debug --for 2h
    hengectl set -l room=attic,kind=lamp color=red --for 15m
    """
    words = _words(target, assignments, selector, "FIELD=VALUE...")
    parsed = parse_assignments(words)
    if selector:
        if not for_s:
            raise click.UsageError("With -l it is for a time: --for. For good, set values of a group.")
        chosen = _meant_by_selected(invocation, selector, parsed, as_json=as_json)
        over = {"selector": selector, "set": chosen, "for_s": for_s}
        sent = _Sent(over, all_at_once=all_at_once, message=message)
        return _override_selected(invocation, sent, wait=wait, timeout_s=timeout_s)
    query: dict[str, Any] = {"all_at_once": all_at_once, "message": message}
    own = {**query, "take_over": take_over}
    before = invocation.client.get(target.path)
    schemas = _schemas_for(invocation, before.json(), parsed)
    values = [(one.path, _meant(one, schemas, before.json(), as_json=as_json)) for one in parsed]
    _refuse_plain_secrets(invocation, parsed, [value for _, value in values], as_json=as_json)
    if for_s:
        body = {"set": {pointer(path): value for path, value in values}, "for_s": for_s}
        after = invocation.client.patch(f"{target.path}/overrides", body, **query)
    elif any(value is None or isinstance(value, dict) for _, value in values):
        before, after = _replace(invocation, target, before, values, own)
    else:
        after = invocation.client.patch(target.path, _patch(values), **own)
    _tell_overridden(invocation, target, after, [] if for_s else [path for path, _ in values])
    ends = overrides_of(after.json()).get(pointer(values[0][0]), {}).get("until", "") if for_s else ""
    return _tell(invocation, target, before, after, until=str(ends), wait=wait, timeout_s=timeout_s)


@click.command("unset", cls=Command, writes=True, short_help="Remove values that were set on a device or group.")
@click.argument("target", metavar="device/NAME|group/NAME", type=TARGET)
@click.argument("fields", metavar="FIELD...", nargs=-1)
@selector_option
@all_at_once_option
@take_over_option
@wait_options(10)
@message_option
@with_invocation
def unset_command(
    invocation: Invocation,
    target: Any,
    fields: tuple[str, ...],
    selector: str,
    all_at_once: bool,
    take_over: bool,
    wait: bool,
    timeout_s: int,
    message: str,
) -> int:
    """Remove values that were set here; what the device inherits is in force again.

    Of a field that is overridden the override ends, and the value that was set here stays.
    With -l instead of a name: overrides of these fields end on every device with these labels.
    """
    paths = parse_fields(_words(target, fields, selector, "FIELD..."))
    if selector:
        body = {"selector": selector, "unset": [pointer(path) for path in paths]}
        sent = _Sent(body, all_at_once=all_at_once, message=message)
        return _override_selected(invocation, sent, wait=wait, timeout_s=timeout_s)
    query: dict[str, Any] = {"all_at_once": all_at_once, "message": message}
    before = after = invocation.client.get(target.path)
    own, overridden = before.json().get("spec", {}).get("values", {}), overrides_of(before.json())
    ended = [path for path in paths if pointer(path) in overridden]
    present = [path for path in paths if has(own, path) and path not in ended]
    patch = _patch([(shallowest_gone(own, path, present), None) for path in present])
    if ended:
        body = {"unset": [pointer(path) for path in ended], **patch["spec"]}
        after = invocation.client.patch(f"{target.path}/overrides", body, take_over=take_over, **query)
    elif present:
        after = invocation.client.patch(target.path, patch, take_over=take_over, **query)
    code = _tell(invocation, target, before, after, wait=wait, timeout_s=timeout_s)
    for path in paths:
        if path in ended and has(own, path):
            field = field_of(pointer(path))
            invocation.note(
                f"The override of {field} has ended; {target} itself still sets it: unset it again for that."
            )
        elif path not in present and path not in ended:
            _tell_never_set(invocation, target, own, path)
    return code


def _tell_never_set(invocation: Invocation, target: Ref, own: Mapping[str, Any], path: Path) -> None:
    field = field_of(pointer(path))
    close = nearest(field, [field_of(pointer(one)) for one in leaves(own)])
    meant = f" Did you mean {close}?" if close else ""
    where = f" See where values come from: hengectl why {target.name}" if target.kind == DEVICE else ""
    invocation.note(f"{target} did not set {field}.{meant or where}")


class _Sent(NamedTuple):
    """An override of many devices, as the daemon takes it."""

    body: Mapping[str, Any]
    all_at_once: bool
    message: str


def _words(target: object, more: tuple[str, ...], selector: str, missing: str) -> tuple[str, ...]:
    """The fields or assignments: with a selector what stands in the place of the target is the first of them."""
    words = (str(target), *more) if selector else more
    if not words:
        raise click.UsageError(f"Missing argument '{missing}'.")
    return words


def _meant_by_selected(
    invocation: Invocation, selector: str, parsed: Sequence[Assignment], *, as_json: bool
) -> dict[str, Any]:
    """What assignments mean under the schemas of the selected devices, by pointers."""
    named = {str(device.get("spec", {}).get("schema") or "") for device in invocation.client.items(DEVICE, selector)}
    schemas = [_json_schema(invocation.client.read(Ref(SCHEMA, name))) for name in sorted(named - {""})]
    values = {pointer(one.path): value_of(one, schemas, as_json=as_json) for one in parsed}
    _refuse_plain_secrets(invocation, parsed, list(values.values()), as_json=as_json)
    return values


def _override_selected(invocation: Invocation, sent: _Sent, *, wait: bool, timeout_s: int) -> int:
    query: dict[str, Any] = {"all_at_once": sent.all_at_once, "message": sent.message}
    result = invocation.client.post("/v1/overrides", sent.body, **query).json()
    names = [str(one["name"]) for one in result["objects"] if one["action"] != "unchanged"]
    if names:
        whom = delivery.some(names)
        invocation.paper.say(f"{plural(len(names), 'device')} configured (r{result['revision']}): {whom}")
    else:
        invocation.paper.say(f"nothing to change, revision stays {result['revision']}")
    moved = [str(device["name"]) for device in result["devices"]]
    return delivery.await_delivery(invocation, moved, timeout_s) if wait else refusal.OK


def _meant(one: Assignment, schemas: Sequence[Schema], target: Object, *, as_json: bool) -> Any:
    """What an assignment means; a refusal names where the allowed values stand."""
    try:
        return value_of(one, schemas, as_json=as_json)
    except Invalid as error:
        schema = target.get("spec", {}).get("schema")
        if error.cure or not schema:
            raise
        cure = f"see what is allowed: hengectl explain {schema}.{'.'.join(one.path)}"
        raise Invalid(error.code, error.message, cure=cure) from None


def _refuse_plain_secrets(
    invocation: Invocation, parsed: Sequence[Assignment], values: Sequence[object], *, as_json: bool
) -> None:
    """``secret/NAME`` of a secret that exists is hardly meant as text; in a field that is none it would be one."""
    for one, value in zip(parsed, values, strict=True):
        name = one.text.removeprefix("secret/")
        if as_json or value != one.text or name == one.text or not is_secret_name(name):
            continue
        with suppress(NotFound):
            invocation.client.read(Ref(SECRET, name))
            raise Invalid(
                "does_not_fit",
                f"{one.field} is no secret in the schema: it would be the text {one.text}, not what the secret holds",
                cure='mark the field "writeOnly": true in the schema, or if the text is meant: '
                f"--json {one.field}='\"{one.text}\"'",
            )


def _patch(values: Sequence[tuple[Path, object]]) -> dict[str, Any]:
    """The merge patch (RFC 7396) for all values at once."""
    patch: dict[str, Any] = {}
    for path, value in values:
        patch = merged(patch, path, value)
    return nested(("spec", "values"), patch)


def _replace(
    invocation: Invocation, target: Ref, before: Reply, values: Sequence[tuple[Path, object]], query: Mapping[str, Any]
) -> tuple[Reply, Reply]:
    """Write the whole object: a patch cannot say "null", nor put an object in place of another one."""
    for attempt in range(ATTEMPTS):
        object_ = dict(before.json())
        own = dict(object_.get("spec", {}).get("values", {}))
        for path, value in values:
            own = merged(own, path, value)
        object_["spec"] = {**object_.get("spec", {}), "values": own}
        try:
            return before, invocation.client.put(target.path, object_, if_match=before.etag, **query)
        except Stale:
            if attempt == ATTEMPTS - 1:
                raise
            before = invocation.client.get(target.path)  # somebody else's change stays; ours goes on top
    raise Conflict("stale", f"{target} is being changed all the time", cure="try again")


def _tell(
    invocation: Invocation, target: Ref, before: Reply, after: Reply, *, until: str = "", wait: bool, timeout_s: int
) -> int:
    if after.etag == before.etag:
        invocation.paper.say(f"{target} unchanged")
    else:
        ends = f" until {safe(until)}" if until else ""
        invocation.paper.say(f"{target} configured (r{after.revision}){ends}")
    if not wait:
        return refusal.OK
    if target.kind == DEVICE:
        return delivery.await_delivery(invocation, [target.name], timeout_s)
    touched = _touched(invocation, after) if after.etag != before.etag else []
    if not touched:
        invocation.paper.say("no device gets another document")
    return delivery.await_delivery(invocation, touched, timeout_s)


def overrides_of(object_: Object) -> dict[str, Mapping[str, Any]]:
    """The overrides of a group or device by their pointers."""
    return {str(one["pointer"]): one for one in object_.get("status", {}).get("overrides", [])}


def _tell_overridden(invocation: Invocation, target: Ref, after: Reply, paths: Sequence[Path]) -> None:
    """Say of values that were set which of them are not in force for now."""
    for where, one in overrides_of(after.json()).items():
        if any(f"{pointer(path)}/".startswith(f"{where}/") for path in paths):
            ends = left(one["until"], now=invocation.now())
            invocation.note(f"{target} overrides {field_of(where)} for another {ends}; what was set is in force then.")


def _touched(invocation: Invocation, group: Reply) -> list[str]:
    """The devices of a group whose document this change, or one after it, has made."""
    selector = str(group.json().get("spec", {}).get("selector", ""))
    return [
        name_of(device)
        for device in invocation.client.items(DEVICE, selector)
        if (device.get("status", {}).get("desired") or {}).get("revision", 0) >= group.revision
    ]


def _schemas_for(invocation: Invocation, target: Object, parsed: Sequence[Assignment]) -> list[Schema]:
    """The schemas that say what the fields are: the object's own, or for an unbound group all that declare one."""
    bound = target.get("spec", {}).get("schema")
    if bound:
        return [_json_schema(invocation.client.read(Ref(SCHEMA, str(bound))))]
    if target.get("kind") == DEVICE.title:
        return []
    every = [_json_schema(item) for item in invocation.client.items(SCHEMA)]
    return [schema for schema in every if any(types_of(one.path, [schema]) for one in parsed)]


def _json_schema(schema: Object) -> Mapping[str, Any]:
    found = schema.get("spec", {}).get("schema", {})
    return found if isinstance(found, Mapping) else {}
