"""Changing the fleet as files say, and telling what any change did; shared by several commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from henge_protocol.errors import Invalid
from henge_protocol.model import version_tag
from hengectl import delivery
from hengectl.columns import done_text
from hengectl.invocation import Invocation
from hengectl.kinds import DEVICE, Ref
from hengectl.render import plural, safe

MANY: Final = 50
"""So many objects keep the daemon busy for a moment."""
UNCHANGED_SHOWN: Final = 5
"""More of them would hide what did change."""


@dataclass(frozen=True, slots=True)
class Files:
    """Which files are applied, and for which apply-set; ``Invalid`` ``bad_usage`` if that makes no sense."""

    names: Sequence[str]
    folder: str | None
    """For kustomize, instead of the names."""
    apply_set: str | None
    prune: bool

    def __post_init__(self) -> None:
        if bool(self.names) == bool(self.folder):
            cure = "write for example: hengectl apply -f fleet/"
            raise Invalid("bad_usage", "either -f FILE or -k DIR is needed, and not both", cure=cure)
        if self.prune and not self.apply_set:
            cure = "name the set whose objects are to go when no file has them: --set NAME"
            raise Invalid("bad_usage", "--prune needs --set NAME", cure=cure)


def apply_files(
    invocation: Invocation, files: Files, *, message: str = "", if_revision: int | None = None, **query: object
) -> dict[str, Any]:
    """Send all objects of all files as one change; what the daemon answers. Its refusals are placed in the files."""
    from hengectl import manifest  # YAML takes 15 ms to import

    progress = invocation.progress
    read = manifest.read(
        files.names, folder=files.folder or "", may_be_empty=files.prune,
        told=lambda number: progress.tell(f"reading file {number}"),
    )  # fmt: skip
    tag = "" if if_revision is None else _fleet_tag(invocation, if_revision)
    with read.placed():
        body = {"objects": read.objects, "message": message}
        for_set = {"set": files.apply_set, "prune": files.prune}
        client = invocation.client
        if len(read.objects) > MANY:
            progress.tell(f"{len(read.objects)} objects are checked", long=True)
        return dict(client.post("/v1/apply", body, if_match=tag, **for_set, **query).json())


_COMPARED: Final = {
    "compatible": "what was valid stays valid",
    "narrower": "not all that was valid stays valid",
    "unknown": "it cannot be told whether all that was valid stays valid",
}


def tell_comparison(invocation: Invocation, done: Mapping[str, Any]) -> None:
    """Of a schema that was changed: whether all that was valid stays valid, and why not."""
    compared = done.get("compared")
    if compared:
        verdict = str(compared["verdict"])
        invocation.paper.say(f"  {safe(_COMPARED.get(verdict, verdict))}")
        for one in compared["reasons"]:
            where = f"{safe(one['pointer'])}: " if one["pointer"] else ""
            invocation.paper.say(f"    {where}{safe(one['message'])}")


def tell_needs(invocation: Invocation, result: Mapping[str, object]) -> None:
    """After a dry run: whether the change would be refused without ``--all-at-once`` or ``--take-over``."""
    for option, why in (("--all-at-once", "too_wide"), ("--take-over", "managed")):
        if result.get(why):
            invocation.note(f"It needs {option}: {safe(result[why])}.")


def tell_spared(invocation: Invocation, result: Mapping[str, object]) -> None:
    """Of devices that were pruned: that they stay."""
    spared = result.get("spared")
    if isinstance(spared, list) and spared:
        names = [safe(name) for name in spared]
        stay = "stays: it has" if len(names) == 1 else "stay: they have"
        invocation.note(
            f"{delivery.some(names)} {stay} joined, and no file that is gone throws hardware out. "
            f"To delete: hengectl delete device/{names[0] if len(names) == 1 else 'NAME'}"
        )


def tell_result(
    invocation: Invocation, result: dict[str, object], *, names_only: bool = False, told: bool = False
) -> None:
    """What a change did, or would do; ``told``: what became of the objects stands above already."""
    paper, dry = invocation.paper, bool(result.get("dry_run"))
    objects, devices = result.get("objects"), result.get("devices")
    listed = [one for one in objects if isinstance(one, dict)] if isinstance(objects, list) else []
    same = [one for one in listed if one["action"] == "unchanged"]
    for one in [] if told else sorted(listed, key=is_kept):
        ref = f"{safe(str(one['kind']).lower())}/{safe(one['name'])}"
        if names_only:
            paper.say(ref)
        elif one["action"] != "unchanged" or len(same) <= UNCHANGED_SHOWN:
            paper.say(f"{done_text(one)}{' (dry run)' if dry else ''}")
            tell_comparison(invocation, one)
    if len(same) > UNCHANGED_SHOWN and not names_only:
        paper.say(f"{len(same)} objects unchanged")
    if names_only:
        return
    moved = [safe(device["name"]) for device in devices] if isinstance(devices, list) else []
    whom = f": {delivery.some(moved)}" if moved else ""
    if dry:
        paper.say(f"dry run: {_reach(moved, result)} would change{whom}")
        tell_needs(invocation, result)
    elif len(same) == len(listed):
        paper.say(f"nothing to change, revision stays {result['revision']}")
    else:
        verb = "change" if len(moved) > 1 else "changes"
        paper.say(f"revision {result['revision']}, {_reach(moved, result) if moved else 'no device'} {verb}{whom}")
    tell_spared(invocation, result)


def _reach(moved: Sequence[str], result: Mapping[str, object]) -> str:
    """``17 of 42 devices (2 offline, 1 has refused it)``."""
    total, offline, refusing = (result.get(name) for name in ("total", "offline", "refusing"))
    number = f"{len(moved)} of {plural(total, 'device')}" if isinstance(total, int) else plural(len(moved), "device")
    notes = [f"{offline} offline"] if offline else []
    if isinstance(refusing, int) and refusing:
        notes.append(f"{refusing} {'has' if refusing == 1 else 'have'} refused it before")
    return f"{number} ({', '.join(notes)})" if notes else number


def is_kept(done: Mapping[str, Any]) -> bool:
    """To sort what became of objects: what is lost comes first."""
    return bool(done["action"] != "deleted")


def delete_refs(
    invocation: Invocation, refs: Sequence[Ref], *, message: str, dry_run: bool, yes: bool, **words: bool
) -> None:
    """Delete objects as one change or none. Without ``yes`` a person sees first what that does, and says so.

    What changed after that is not touched. ``words`` says what else is meant, such as ``all_at_once``.
    """
    query: dict[str, Any] = dict(words)
    body = {"delete": [{"kind": ref.kind.title, "name": ref.name} for ref in refs], "message": message}
    seen = ""
    if not dry_run and not yes:
        plan = invocation.client.post("/v1/apply", body, dry_run=True, **query)
        _confirm_deletion(invocation, refs, plan.json())
        seen = plan.etag
    tell_result(invocation, invocation.client.post("/v1/apply", body, if_match=seen, dry_run=dry_run, **query).json())


def _confirm_deletion(invocation: Invocation, refs: Sequence[Ref], plan: Mapping[str, Any]) -> None:
    moved = [safe(device["name"]) for device in plan["devices"]]
    if moved:
        invocation.note(f"{plural(len(moved), 'device')} would get another document: {delivery.some(moved)}.")
    tell_needs(invocation, plan)
    if any(ref.kind == DEVICE for ref in refs):
        invocation.note("A device that is deleted is cut off at once and has to join anew.")
    if len(refs) == 1:
        invocation.confirm_by_name(refs[0].name, "delete", yes=False)
    else:
        invocation.confirm(f"Delete {delivery.some([str(ref) for ref in refs])}?", yes=False)


def _fleet_tag(invocation: Invocation, revision: int) -> str:
    """The version of the whole fleet at a revision, as ``If-Match`` takes it."""
    epoch = invocation.client.get("/v1/status").json().get("epoch", "")
    return version_tag(epoch, revision)
