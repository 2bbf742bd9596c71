"""``device add``: all that a MicroPython board needs to join, in a folder or straight over USB."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from henge_protocol.arguments import FILE
from henge_protocol.errors import Conflict, HengeError, Invalid, Malformed, NotFound
from henge_protocol.keyfiles import file_refusal, read_once, replace_file
from henge_protocol.places import DEVICES_PORT
from henge_protocol.quantity import format_duration
from hengectl.address import parse_address
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.kinds import DEVICE, SCHEMA, Ref
from hengectl.options import DURATION, Name, labels_option
from hengectl.render import safe
from hengectl.tokens import TOKEN_TTL_S

SETUP_FILE: Final = "henge.json"
STARTER: Final = '''"""Prints the configuration whenever it changes; put your own work here."""

import asyncio

from henge_micro.client import Client


def show(new, old):
    """Called at start and for each new configuration; an exception takes the new one back."""
    print("configuration:", new)


client = Client(on_config=show)
asyncio.run(client.run())
'''


@click.command("add", cls=Command, writes=True, short_help="Prepare a MicroPython board to join.")
@click.argument("device", metavar="NAME", type=Name())
@click.option("--usb", is_flag=True, help="Copy it to the board on USB (needs mpremote).")
@click.option(
    "--port",
    type=FILE,
    default="auto",
    metavar="PORT",
    help="With --usb: the board's serial port, if there are several.",
)
@click.option("--print", "folder", type=FILE, metavar="DIR", help="Write the files into DIR instead.")
@click.option("--schema", type=Name(SCHEMA), default=None, help="Give it this schema when it joins.")
@labels_option
@click.option("--wifi", "ssid", metavar="SSID", help="The network that the board joins; asks for the password.")
@click.option("--reach", metavar="HOST:PORT", help="Where the board reaches the daemon, if not as status shows.")
@click.option(
    "--ttl", "ttl_s", type=DURATION, default=TOKEN_TTL_S, help="How long it may take to join; 1h if not given."
)
@with_invocation
def add_command(
    invocation: Invocation,
    device: str,
    usb: bool,
    port: str,
    folder: str | None,
    schema: str | None,
    labels: dict[str, str],
    ssid: str | None,
    reach: str | None,
    ttl_s: int,
) -> None:
    """Prepare a board that runs MicroPython 1.25 or newer: client, one-time token, Wi-Fi.

    The board makes its own key and joins as NAME when it starts. The folder holds a secret until then.
    """
    if usb == (folder is not None):
        cure = "add --usb for a connected board, or --print DIR for a folder"
        raise Invalid("bad_usage", "either --usb or --print DIR is needed, and not both", cure=cure)
    if usb and not _found_mpremote():
        cure = "install it with: pipx install mpremote; or use --print DIR"
        raise Invalid("bad_usage", "mpremote is not installed here", cure=cure)
    server = _place(reach) if reach is not None else ""
    _refuse_joined(invocation, device)
    if folder is not None:
        _tell_prepared_before(invocation, Path(folder), device)
        _write_client(Path(folder))  # what cannot be written is told before there is a token
    wifi = {"ssid": ssid, "password": _password(invocation, ssid)} if ssid else None
    setup = {"name": device, "server": server or _reachable(invocation), "schema": schema, "wifi": wifi}
    body = {"kind": "join", "name": device, "ttl_s": ttl_s, "uses": 1, "labels": labels}
    made = invocation.client.post("/v1/tokens", body | ({"schema": schema} if schema else {})).json()
    setup["token"] = str(made["token"])
    content = {key: value for key, value in setup.items() if value}
    if folder is not None:
        _write_setup(Path(folder), content)
        invocation.paper.say(f"device/{device} is prepared in {folder}")
        invocation.note(
            f"Within {format_duration(ttl_s)}: copy what is in it to the board's root and restart the board."
        )
        invocation.note(f"  cd {folder} && mpremote cp -r lib main.py {SETUP_FILE} : + rtc --set + reset")
        return
    with tempfile.TemporaryDirectory() as place:
        _write_client(Path(place))
        _write_setup(Path(place), content)
        _copy(Path(place), port)
    invocation.paper.say(f"device/{device} is prepared; the board restarts and joins")


def _place(reach: str) -> str:
    """Where the board finds the daemon; ``click.BadParameter`` for what is no host with a port."""
    try:
        address = parse_address(reach)
    except Invalid as error:
        raise click.BadParameter(f"{error.message}; {error.cure}", param_hint="--reach") from None
    return address.url.removeprefix("https://")


def _refuse_joined(invocation: Invocation, device: str) -> None:
    """A token for a device that is let in would be refused when the board joins."""
    with suppress(NotFound):
        if invocation.client.read(Ref(DEVICE, device)).get("status", {}).get("identity") == "active":
            raise Conflict(
                "name_taken", f"device/{device} has joined already, and no other board can be it",
                cure=f"let new hardware be it: hengectl device replace {device}; then prepare the board again",
            )  # fmt: skip


def _tell_prepared_before(invocation: Invocation, folder: Path, device: str) -> None:
    """What stands in the folder for the same device is replaced, and that is said; another device's is left alone."""
    path = folder / SETUP_FILE
    try:
        before = json.loads(read_once(path)[0])["name"]
    except HengeError:  # nothing is there, or writing will say what is wrong
        return
    except (ValueError, LookupError, TypeError, RecursionError):
        before = ""
    if before != device:
        cure = f"choose another folder, or remove {path}"
        whom = f"device/{safe(before)}" if before else "something else"
        raise Conflict("name_taken", f"{folder} holds what was prepared for {whom}", cure=cure)
    invocation.note(f"What was prepared in {folder} before is replaced.")


def _write_client(folder: Path) -> None:
    """The board's root without its setup: ``lib/henge_micro``, and a ``main.py`` unless there is one."""
    library = folder / "lib" / "henge_micro"
    try:
        library.mkdir(parents=True, exist_ok=True)
        for source in _client_files():
            (library / source.name).write_bytes(source.read_bytes())
        if not (folder / "main.py").exists():
            (folder / "main.py").write_text(STARTER, "utf-8")
    except OSError as error:
        raise file_refusal(error, Path(error.filename or folder), "write") from error


def _write_setup(folder: Path, setup: dict[str, Any]) -> None:
    replace_file(folder / SETUP_FILE, json.dumps(setup, ensure_ascii=False, indent=1).encode() + b"\n")


def _client_files() -> Iterator[Path]:
    """The boards' client as it was installed with this program; it is copied, never imported."""
    found = importlib.util.find_spec("henge_micro")
    for place in found.submodule_search_locations or () if found is not None else ():
        yield from sorted(Path(place).glob("*.py"))


def _copy(folder: Path, port: str) -> None:
    """Everything to the board in one go. An own ``main.py`` on the board is left alone."""
    remote = [*_found_mpremote(), "connect", port]
    listed = _mpremote([*remote, "fs", "ls", ":"])
    names = ["lib", SETUP_FILE] + ([] if "main.py" in listed.split() else ["main.py"])
    steps = [step for name in names for step in ("+", "fs", "cp", "-r", str(folder / name), ":")]
    _mpremote([*remote, *steps[1:], "+", "rtc", "--set", "+", "reset"])


def _found_mpremote() -> list[str]:
    """How to start it: the one beside this program, else one of the user's own (pipx, apt); empty if there is none."""
    if importlib.util.find_spec("mpremote") is not None:
        return [sys.executable, "-m", "mpremote"]
    program = shutil.which("mpremote")
    return [program] if program else []


def _mpremote(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Invalid(
            "bad_usage",
            f"mpremote failed: {ascii(said[-1])[1:-1][:200] if said else f'exit code {done.returncode}'}",
            cure="check the cable and that no other program uses the port; see: mpremote devs",
        )
    return done.stdout


def _reachable(invocation: Invocation) -> str:
    """An address of the daemon that a board can use: IPv4 or a name; none if there is only loopback, mDNS then."""
    listeners = invocation.client.get("/v1/status").json().get("listeners", {})
    for url in listeners.get("devices", []):
        place = urlsplit(str(url))
        host = place.hostname or ""
        if host and ":" not in host and host != "localhost" and not host.startswith("127."):
            return f"{host}:{place.port or DEVICES_PORT}"
    invocation.note("The daemon names no address that a board could reach; it will look for it with mDNS.")
    return ""


def _password(invocation: Invocation, ssid: str) -> str:
    if not sys.stdin.isatty():
        return _decoded(sys.stdin.buffer.readline().rstrip(b"\r\n"))
    return invocation.hidden(f"Password of {ssid}", default="")


def _decoded(password: bytes) -> str:
    try:
        return password.decode()
    except UnicodeDecodeError:
        raise Malformed("bad_encoding", "the password is not UTF-8", cure="type it anew") from None
