"""What ``doctor`` finds, from what was asked before. Pure: each function judges one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from henge_protocol import __version__
from henge_protocol.beacon import Sighting
from hengectl.render import largest_unit, plural, safe, unix_s

Verdict = Literal["ok", "look", "bad"]

CLOCK_SLACK_S: Final = 5.0
CLOCK_BAD_S: Final = 300.0
BACKUP_OLD_S: Final = 7 * 86_400.0
MAP_FULL: Final = 0.8
DISK_LOW_BYTES: Final = 256 * 1024 * 1024
STUCK: Final = {
    "quarantined": "hengectl describe device/NAME says why; when that is mended: hengectl retry NAME",
    "rejected": "hengectl describe device/NAME says why",
    "rolled-back": "hengectl describe device/NAME says why",
    "ahead": "they ran something newer than this store knows; hengectl retry NAME gives them what it says",
    "drifted": "somebody changed files on them; hengectl describe device/NAME",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: ``bad`` wants action, ``look`` may be as it should be."""

    verdict: Verdict
    what: str
    text: str
    cure: str = ""


def daemon(status: Mapping[str, Any], label: str) -> Finding:
    """Who answered, and whether both sides are of one version."""
    version = str(status.get("version", "?"))
    text = f"{safe(status.get('name', '?'))}, henge {safe(version)}, answers at {safe(label)}"
    if version != __version__:
        return Finding("look", "daemon", f"{text}; this is hengectl {__version__}", "both understand each other")
    return Finding("ok", "daemon", text)


def clock(status: Mapping[str, Any], before: float, after: float) -> Finding:
    """The daemon's clock against this machine's; the answer came between two moments."""
    told = unix_s(status.get("now"))
    if told is None:
        return Finding("look", "clock", "the daemon does not say what time it is")
    away = max(before - told - 1, told - after, 0.0)  # the daemon tells whole seconds
    if away <= CLOCK_SLACK_S:
        return Finding("ok", "clock", "both machines agree")
    text = f"the daemon's clock and this one are {largest_unit(away)} apart"
    return Finding("bad" if away > CLOCK_BAD_S else "look", "clock", text, "timedatectl on both machines")


def warnings(status: Mapping[str, Any]) -> Iterator[Finding]:
    """What the daemon itself warns of."""
    for warning in status.get("warnings") or []:
        yield Finding("bad", "daemon", safe(warning))


def store(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Room on the disk and in the map."""
    figures = status.get("store")
    if not isinstance(figures, Mapping):
        return
    free, used, size = (figures.get(name) for name in ("free_disk_bytes", "used_bytes", "map_bytes"))
    if isinstance(free, int):
        text = f"{free / 2**30:.1f} GiB are free on the disk of {safe(status.get('data_dir', 'the store'))}"
        yield Finding("look" if free < DISK_LOW_BYTES else "ok", "disk", text)
    if isinstance(used, int) and isinstance(size, int) and size:
        text = f"{used / 2**20:.1f} MiB of {size / 2**20:.0f} MiB are in use; the map grows by itself"
        yield Finding("look" if used > MAP_FULL * size else "ok", "store", text)


def backup(status: Mapping[str, Any], *, now: float) -> Finding:
    """How old the newest backup is."""
    figures = status.get("store")
    made = unix_s(figures.get("backed_up")) if isinstance(figures, Mapping) else None
    cure = "hengectl backup -o FILE, or once a day: [backup] in hengd.toml"
    if made is None:
        return Finding("look", "backup", "none was ever made", cure)
    text = f"the newest is {largest_unit(now - made)} old"
    return Finding("look", "backup", text, cure) if now - made > BACKUP_OLD_S else Finding("ok", "backup", text)


def devices(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Who is stuck and who is away."""
    counts = status.get("devices")
    if not isinstance(counts, Mapping):
        return
    total, config, connection = counts.get("total", 0), counts.get("config", {}), counts.get("connection", {})
    stuck = {word: config[word] for word in STUCK if config.get(word)}
    for word, number in stuck.items():
        yield Finding("bad", "devices", f"{number} {word}", STUCK[word])
    away = connection.get("offline", 0)
    if away:
        yield Finding("look", "devices", f"{away} of {total} offline", "hengectl get devices")
    elif not stuck:
        unseen = connection.get("never-seen", 0)
        text = f"{plural(total, 'device')}, none is stuck and none is away"
        yield Finding("ok", "devices", f"{text}; {unseen} never seen yet" if unseen else text)


def network(status: Mapping[str, Any], seen: Sequence[Sighting]) -> Iterator[Finding]:
    """What devices would find here by mDNS."""
    fleet = str(status.get("fleet", ""))
    ours = [one for one in seen if one.fleet == fleet]
    hint = str(status.get("ca_fingerprint", "")).removeprefix("SHA256").replace(" ", "").lower()
    for one in ours:
        if one.fp_hint and not hint.startswith(one.fp_hint.lower()):
            yield Finding("bad", "mdns", f"{safe(one.name)} announces this fleet with another authority: {_where(one)}")
    if len(ours) > 1:
        found = "; ".join(_where(one) for one in ours)
        cure = "stop the one that was replaced, for example by a restored backup"
        yield Finding("bad", "mdns", f"{len(ours)} daemons announce this fleet: {found}", cure)
    elif ours:
        yield Finding("ok", "mdns", f"seen from here at {_where(ours[0])}")
    else:
        cure = (
            "as it should be in another network, in Kubernetes, and with join.mdns = false; else see docs/operations.md"
        )
        yield Finding("look", "mdns", "the daemon is not announced where this machine hears it", cure)


def _where(one: Sighting) -> str:
    return f"{safe(one.addresses[0]) if one.addresses else safe(one.name)}:{one.port}"
