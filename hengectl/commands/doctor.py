"""``doctor`` and ``support``: what may be wrong, and a file that shows it to others without secrets."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import platform
import re
import socket
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from henge_protocol import __version__
from henge_protocol.arguments import FILE
from henge_protocol.errors import Conflict, HengeError, Invalid
from henge_protocol.keyfiles import file_refusal
from hengectl import checkup
from hengectl.checkup import Finding
from hengectl.find import sightings
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.options import output_option
from hengectl.render import plural, safe

_MOODS: Final = {"ok": "good", "look": "busy", "bad": "bad"}
_ADDRESS: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:]+")
_KEPT_OF_SPEC: Final = ("schema", "selector", "priority")
"""What a report shows of an object's content; of values only the names of the fields."""


@click.command("doctor", cls=Command, short_help="Look for what may be wrong, and say what to do.")
@click.option("--no-mdns", is_flag=True, help="Do not listen on the network (two seconds).")
@output_option("json", "yaml")
@with_invocation
def doctor_command(invocation: Invocation, form: str | None, *, no_mdns: bool) -> None:
    """Look at the daemon, the way to it, clocks, disk, backups, devices and the network; exit 1 if something is bad."""
    if not no_mdns:
        invocation.note("Listening on the network for two seconds ...")
    found = _findings(invocation, listen=not no_mdns)
    if form is not None:
        invocation.paper.data([asdict(one) for one in found], form)
    else:
        _tell(invocation, found)
    if any(one.verdict == "bad" for one in found):
        raise click.exceptions.Exit(1)


@click.command("support", cls=Command, short_help="Write a file that shows others how things are.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    default="henge-support.tar.gz",
    help="A .tar.gz whatever it is called; henge-support.tar.gz if not given.",
)
@click.option("--no-mdns", is_flag=True, help="Do not listen on the network (two seconds).")
@with_invocation
def support_command(invocation: Invocation, output: str, *, no_mdns: bool) -> None:
    """Write what doctor finds, the daemon's status, objects without their values, and late events into one file.

    No value, no secret, no token and no whole address is in it. Read it before you give it away: it is plain JSON.
    """
    if output == "-":
        raise Invalid("bad_usage", "the report is a file, and - is none", cure="hengectl support -o FILE")
    path = Path(output)
    files = dict(_report(invocation, listen=not no_mdns))
    try:
        _write(path, files, now=invocation.now())
    except FileExistsError:
        raise Conflict("exists", f"{safe(output)} exists; nothing was done", cure="choose a name with -o") from None
    except OSError as error:
        raise file_refusal(error, path, "write") from None
    invocation.paper.say(f"{safe(output)}: {', '.join(files)}")
    invocation.note(f"Look into it before you give it away: tar -xzOf {path} | less")


def _findings(invocation: Invocation, *, listen: bool) -> list[Finding]:
    before = invocation.now()
    try:
        status = invocation.client.get("/v1/status").json()
    except HengeError:
        for one in _around(invocation, listen=listen):
            invocation.note(f"{one.verdict:<5} {one.what}: {one.text}")
        raise
    after = invocation.now()
    return [
        checkup.daemon(status, invocation.client.label),
        *_way(invocation.client.label),
        checkup.clock(status, before, after),
        *checkup.warnings(status),
        *checkup.store(status),
        checkup.backup(status, now=after),
        *checkup.devices(status),
        *(checkup.network(status, sightings()) if listen else ()),
    ]


def _around(invocation: Invocation, *, listen: bool) -> Iterator[Finding]:
    """What can be said of a daemon that does not answer."""
    if invocation.choice.server:
        yield from _way(invocation.choice.server)
    if listen:
        seen = sightings()
        names = ", ".join(f"{safe(one.name)} at {safe(one.addresses[0])}:{one.port}" for one in seen if one.addresses)
        yield Finding("look", "mdns", names or "no daemon is announced where this machine hears it")


def _way(label: str) -> Iterator[Finding]:
    """Whether a daemon's name leads somewhere; for one that is reached by a socket there is no way."""
    host = urlsplit(label).hostname if label.startswith("https:") else None
    if not host:
        return
    try:
        found = sorted({str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except OSError as error:
        yield Finding("bad", "name", f"{safe(host)} is not known here ({error.strerror})", "look at /etc/hosts and DNS")
    else:
        if found != [host]:
            yield Finding("ok", "name", f"{safe(host)} is {', '.join(found)}")


def _tell(invocation: Invocation, found: list[Finding]) -> None:
    style = invocation.paper.style
    for one in found:
        invocation.paper.say(f"{style.paint(_MOODS[one.verdict], f'{one.verdict:<4}')}  {one.what:<8} {one.text}")
        if one.cure and one.verdict != "ok":
            invocation.paper.say(f"      {'':<8} {style.paint('faint', invocation.aimed(one.cure))}")
    bad = sum(one.verdict == "bad" for one in found)
    look = sum(one.verdict == "look" for one in found)
    invocation.paper.say(f"{plural(bad, 'thing')} to mend, {look} to look at." if bad or look else "All is well.")


def _report(invocation: Invocation, *, listen: bool) -> Iterator[tuple[str, object]]:
    client = invocation.client
    found = _findings(invocation, listen=listen)
    yield "doctor.json", [asdict(one) for one in found]
    yield "status.json", client.get("/v1/status").json()
    yield "versions.json", {
        "hengectl": __version__, "python": sys.version, "system": platform.platform(), "machine": platform.machine(),
    }  # fmt: skip
    for plural_ in ("schemas", "groups", "devices"):
        items = client.get(f"/v1/{plural_}").json()["items"]
        yield f"{plural_}.json", [_without_values(item) for item in items]
    yield "events.json", client.get("/v1/events", since=0).json()["events"]


def _without_values(item: Mapping[str, Any]) -> dict[str, Any]:
    spec = item.get("spec") or {}
    kept = {name: spec[name] for name in _KEPT_OF_SPEC if name in spec and not isinstance(spec[name], dict)}
    if isinstance(spec.get("values"), Mapping):
        kept["fields"] = sorted(map(str, spec["values"]))
    status = dict(item.get("status") or {})
    if "overrides" in status:
        status["overrides"] = len(status["overrides"] or ())
    reported = status.get("reported")
    if isinstance(reported, Mapping):  # what a device says of a field may repeat its value
        errors = [error.get("pointer") for error in reported.get("errors") or ()]
        status["reported"] = {**reported, "errors": errors}
    return {"metadata": item.get("metadata"), "spec": kept, "status": status}


def _write(path: Path, files: Mapping[str, object], *, now: float) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, content in files.items():
                text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
                data = _masked(text).encode("utf-8", "replace")
                member = tarfile.TarInfo(f"henge-support/{name}")
                member.size, member.mode, member.mtime = len(data), 0o600, int(now)
                archive.addfile(member, io.BytesIO(data))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _masked(text: str) -> str:
    """Addresses without their end: enough to see whether two are of the same network."""
    return _ADDRESS.sub(lambda match: _mask(match[0]), text)


def _mask(word: str) -> str:
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        return word  # a time, a version, a number
    if address.is_loopback or address.is_unspecified:
        return word
    network = ipaddress.ip_network((address, 16 if address.version == 4 else 32), strict=False)
    return str(network)
