"""``status``, ``events``, ``version`` and ``whoami``: the daemon itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from henge_protocol import __version__
from henge_protocol.errors import HengeError, Unavailable, Unreachable
from henge_protocol.model import short_digest
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, Ref
from hengectl.options import DEVICE_NAME, output_option
from hengectl.render import age, as_json_line, left, mood_of, plural, safe, unix_s
from hengectl.waiting import LONGEST_POLL_S

VERSION_PATIENCE_S: Final = 2.0
AWAY_S: Final = 1.0
"""Between two tries to reach a daemon whose events are watched."""
_WIDEST_TYPE: Final = len("device.reported")
"""So that what events are about stands in one column, also while they come one by one."""
_LISTENERS: Final = {"devices": "listening", "admin": "socket", "local": "health"}


@click.command("status", cls=Command, short_help="Show how the daemon and the fleet are.")
@output_option("json", "yaml")
@with_invocation
def status_command(invocation: Invocation, form: str | None) -> None:
    """Show how the daemon and the fleet are."""
    status = invocation.client.get("/v1/status").json()
    if form is not None:
        invocation.paper.data(status, form)
        return
    invocation.paper.say(_headline(status, now=invocation.now()))
    invocation.paper.pairs(_facts(invocation, status))
    for warning in status.get("warnings") or []:
        invocation.paper.say(f"{invocation.paper.style.paint('busy', 'warning')}   {safe(warning)}")
    if not _total(status):
        invocation.note("Hint: add your first device with  hengectl token create")


@click.command("events", cls=Command, short_help="Show what happens.")
@click.option("-w", "--watch", is_flag=True, help="Go on as things happen.")
@click.option("--since", type=click.IntRange(0), default=None, metavar="SEQ", help="Only events after this number.")
@click.option("--device", type=DEVICE_NAME, default=None, help="Only what is about this device.")
@output_option("json")
@with_invocation
def events_command(
    invocation: Invocation, watch: bool, since: int | None, device: str | None, form: str | None
) -> None:
    """Show what happened lately; with -w from now on, also over a restart of the daemon.

    The daemon keeps the last 4096 events.
    """
    seq = since if watch and since is not None else _first(invocation, since, device, watch=watch)
    while True:
        answer = _next_events(invocation, seq) if watch else invocation.client.events(seq)
        if answer.get("gap") and (seq or since is not None):
            invocation.note("Some events are gone; see: hengectl get devices")
        for event in [one for one in answer["events"] if device is None or _is_about(one, device)]:
            invocation.paper.say(as_json_line(event) if form else _event_line(event))
        seq = int(answer["next"])
        if not watch:
            return


def _first(invocation: Invocation, since: int | None, device: str | None, *, watch: bool) -> int:
    """The number after which events are shown; a device that does not exist is refused."""
    if device is not None:
        invocation.client.read(Ref(DEVICE, device))
    newest = int(invocation.client.events()["next"])
    if since is not None and since > newest:
        invocation.note(f"There is no event {since} yet; the newest is {newest}.")
    return min(since, newest) if since is not None else newest if watch else 0


def _next_events(invocation: Invocation, seq: int) -> Mapping[str, Any]:
    """What happened after ``seq``; a daemon that is away is waited for, and that is said once."""
    is_away = False
    while True:
        try:
            return invocation.client.events(seq, wait_s=LONGEST_POLL_S)
        except (Unreachable, Unavailable) as error:
            if not is_away:
                invocation.note(f"{error.message}; waiting for it")
            is_away = True
            time.sleep(AWAY_S)


def _is_about(event: Mapping[str, Any], device: str) -> bool:
    return event.get("kind") == "Device" and event.get("name") == device


@click.command("version", cls=Command, short_help="Print the versions of hengectl and of the daemon.")
@with_invocation
def version_command(invocation: Invocation) -> None:
    """Print the version of this program and, if a daemon can be reached, of the daemon."""
    invocation.paper.say(f"hengectl {__version__}")
    invocation.interactive = False  # nobody asked for suggestions
    try:
        invocation.client.answer_timeout_s = VERSION_PATIENCE_S
        status = invocation.client.get("/v1/status").json()
    except HengeError as error:
        invocation.note(f"No daemon's version: {error.message}")
    else:
        invocation.paper.say(f"hengd {safe(status.get('version', '?'))}, {safe(invocation.client.label)}")


@click.command("whoami", cls=Command, short_help="Show as whom the daemon knows you.")
@output_option("json", "yaml")
@with_invocation
def whoami_command(invocation: Invocation, form: str | None) -> None:
    """Show as whom the daemon knows you, and by which way you came."""
    answer = invocation.client.get("/v1/whoami").json()
    if form is not None:
        invocation.paper.data(answer, form)
        return
    who = f"{safe(answer.get('name', '?'))}   {safe(answer.get('role', ''))}"
    invocation.paper.say(f"{who}   via {safe(invocation.client.label)}")


def _headline(status: Mapping[str, Any], *, now: float) -> str:
    words = [safe(status.get("name", "?")), f"henge {safe(status.get('version', '?'))}"]
    if unix_s(status.get("started")) is not None:
        words.append(f"up {age(status['started'], now=now)}")
    return "  ".join([*words, f"revision {status.get('revision', '?')}"])


def _facts(invocation: Invocation, status: Mapping[str, Any]) -> list[tuple[str, str]]:
    listeners = status.get("listeners")
    listed = listeners if isinstance(listeners, Mapping) else {}
    objects = [
        plural(int(status[f"{noun}s"]), noun) for noun in ("schema", "group") if isinstance(status.get(f"{noun}s"), int)
    ]
    return [
        ("devices", _devices(invocation, status)),
        ("documents", _counted(invocation, status, "config")),
        ("objects", ", ".join(objects)),
        ("joining", _window_text(invocation, status.get("join"))),
        *((("rescue", rescue),) if (rescue := _rescue_text(invocation, status)) else ()),
        *((_LISTENERS.get(str(use), safe(str(use))), safe(_joined(found))) for use, found in listed.items() if found),
        ("fleet", safe(status.get("fleet", ""))),
        ("CA", safe(status.get("ca_fingerprint", ""))),
        ("store", _store_text(invocation, status.get("store"))),
    ]


def _joined(found: object) -> str:
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def _total(status: Mapping[str, Any]) -> int:
    return sum(_counts(status, "connection").values()) + _revoked(status)


def _revoked(status: Mapping[str, Any]) -> int:
    return _counts(status, "identity").get("revoked", 0)


def _devices(invocation: Invocation, status: Mapping[str, Any]) -> str:
    gone = _revoked(status)
    revoked = f"{gone} {invocation.paper.style.paint('bad', 'revoked')}" if gone else ""
    return ", ".join(filter(None, [_counted(invocation, status, "connection"), revoked])) or "0"


def _counts(status: Mapping[str, Any], axis: str) -> dict[str, int]:
    counts = status.get("devices")
    found = counts.get(axis) if isinstance(counts, Mapping) else None
    return {str(word): int(count) for word, count in found.items() if count} if isinstance(found, Mapping) else {}


def _counted(invocation: Invocation, status: Mapping[str, Any], axis: str) -> str:
    style = invocation.paper.style
    counts = sorted(_counts(status, axis).items(), key=lambda one: -one[1])
    return ", ".join(f"{count} {style.paint(mood_of(word), safe(word))}" for word, count in counts)


def _rescue_text(invocation: Invocation, status: Mapping[str, Any]) -> str:
    """Nothing, unless the window is open or something that was handed in waits to be taken."""
    window = status.get("rescue")
    shown = isinstance(window, Mapping) and (window.get("open") or window.get("waiting"))
    return _window_text(invocation, window) if shown else ""


def _window_text(invocation: Invocation, window: object) -> str:
    if not isinstance(window, Mapping):
        return ""
    waiting = window.get("waiting")
    more = f", {plural(waiting, 'device')} waiting" if isinstance(waiting, int) and waiting else ""
    if not window.get("open"):
        return f"closed{more}"
    return f"open, {left(window.get('closes'), now=invocation.now())} left{more}"


def _store_text(invocation: Invocation, store: object) -> str:
    if not isinstance(store, Mapping):
        return ""
    used, size = store.get("used_bytes"), store.get("map_bytes")
    if isinstance(used, int) and isinstance(size, int):
        text = f"{used / 2**20:.1f} MiB of {size / 2**20:.0f} MiB"
        if "backed_up" not in store:
            return text
        made = store["backed_up"]
        return f"{text}, last backup {age(made, now=invocation.now()) + ' ago' if made else 'never'}"
    return ", ".join(f"{safe(key)} {safe(value)}" for key, value in store.items())


def _event_line(event: Mapping[str, Any]) -> str:
    shown = {"seq", "time", "type", "kind", "name"}
    said = {key: value for key, value in event.items() if key not in shown and value not in ("", None, [])}
    if "digest" in said:
        said["digest"] = short_digest(str(said["digest"]))
    more = [f"{safe(key)}={safe(value)}" for key, value in said.items()]
    thing = f"{str(event.get('kind', '')).lower()}/{event.get('name', '')}"
    kind = f"{safe(event.get('type', '')):<{_WIDEST_TYPE}}"
    return "  ".join([str(event.get("seq")), safe(event.get("time", "")), kind, safe(thing), *more])
