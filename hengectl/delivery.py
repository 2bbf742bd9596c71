"""``--wait``: telling a person, device by device, who runs the change and who does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from henge_protocol.quantity import format_duration
from hengectl import refusal
from hengectl.columns import trouble_of
from hengectl.invocation import Invocation
from hengectl.kinds import Object
from hengectl.render import plural
from hengectl.waiting import Verdict, in_sync, wait_for

SHOWN_NAMES = 8


def await_delivery(invocation: Invocation, names: Collection[str], timeout_s: float) -> int:
    """Wait until the connected ones of these devices run what they should; name the others.

    The exit code: 0, 8 when the time was over, 9 when some and 1 when all devices refused. A device that is away
    gets the change when it is back and does not count; one that went away while it applied the change does.
    """
    if not names:
        return refusal.OK
    waited = wait_for(
        invocation.client, names, in_sync, timeout_s,
        told=lambda *said: _tell(invocation, *said), watched=watcher(invocation, "in-sync"),
    )  # fmt: skip
    invocation.progress.clear()
    away, late, refused = waited.having("away"), waited.having("open"), waited.having("refused")
    if away:
        whom = f"{away[0]} is" if len(away) == 1 else f"{len(away)} devices are"
        names_ = f": {some(away)}" if len(away) > 1 else ""
        invocation.paper.say(f"{whom} not connected and will get it when back{names_}")
    if late:
        whom = some([_how_it_is(name, waited.devices[name]) for name in late])
        invocation.note(f"Error: {plural(len(late), 'device')} not in-sync within {format_duration(timeout_s)}: {whom}")
        invocation.note(f"See: hengectl describe device/{late[0]}")
        return refusal.TIMED_OUT
    if refused:
        return refusal.PARTIAL if waited.having("reached") else refusal.NO
    return refusal.OK


def watcher(invocation: Invocation, wanted: str) -> Callable[[Mapping[str, Verdict]], None]:
    """Shows how many devices are as wanted, and for which others somebody waits."""

    def watched(verdicts: Mapping[str, Verdict]) -> None:
        open_ = [name for name, verdict in verdicts.items() if verdict == "open"]
        reached = sum(verdict == "reached" for verdict in verdicts.values())
        text = f"{reached} of {plural(len(verdicts), 'device')} {wanted}, waiting for {some(open_)}"
        invocation.progress.tell(text, long=True)

    return watched


def some(names: Collection[str]) -> str:
    """The first few names, and how many more."""
    listed = sorted(names)
    more = [f"and {len(listed) - SHOWN_NAMES} more"] if len(listed) > SHOWN_NAMES else []
    return ", ".join([*listed[:SHOWN_NAMES], *more])


def _how_it_is(name: str, device: Object) -> str:
    status = device.get("status", {})
    why = trouble_of(device)
    state = f"{status.get('config')}{f': {why}' if why else ''}"
    return f"{name} ({state}{'' if status.get('connection') == 'online' else ', not connected any more'})"


def _tell(invocation: Invocation, name: str, verdict: Verdict, device: Object | None) -> None:
    style = invocation.paper.style
    if verdict == "reached":
        invocation.paper.say(f"{name} {style.paint('good', 'in-sync')}")
    elif verdict == "refused" and device is None:
        invocation.paper.say(f"{name} is gone")
    elif verdict == "refused" and device is not None:
        state = str(device.get("status", {}).get("config"))
        why = trouble_of(device)
        invocation.paper.say(f"{name} {style.paint('bad', state)}{f': {why}' if why else ''}")
        invocation.note(f"See: hengectl describe device/{name}")
