"""What the command line says, read into types: addresses, outputs, durations, names."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from henge_protocol.errors import Invalid
from henge_protocol.model import MAX_NAME_CHARS
from henge_protocol.places import DEVICES_PORT

HOOK_TIMEOUT_S: Final = 60.0
MAX_HOOK_TIMEOUT_S: Final = 3600.0

Format = Literal["json", "toml", "yaml", "env", "ini"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_SUFFIXES: Final[dict[str, Format]] = {
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".env": "env",
    ".ini": "ini",
    ".cfg": "ini",
    ".conf": "ini",
}

OnDrift = Literal["put-back", "leave"]
ON_DRIFT: Final[tuple[OnDrift, ...]] = get_args(OnDrift)

_SYSTEM_ROOTS: Final = ("/proc", "/sys", "/dev")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?", re.ASCII)
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,16})?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)?", re.ASCII)
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a daemon may be: a host name or IP address, and a port."""

    host: str
    port: int = DEVICES_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, path: str) -> str:
        """The https URL of ``path`` (which begins with a slash) there."""
        return f"https://{self}{path}"


Field = tuple[str, ...]
"""The way to a field: the names of the objects around it, then its own."""


@dataclass(frozen=True, slots=True)
class Output:
    """One file that the agent writes from the document, and in which format."""

    path: Path
    format: Format
    part: Field = ()
    """The part of the document that stands in it; empty = all."""
    template: Path | None = None
    """A text with ``$name`` and ``${some.name}`` in it, in place of a format."""
    unmanaged: tuple[Field, ...] = ()
    """Fields of the file that belong to the device: they stay as they are."""
    mode: int | None = None
    """None: as the file has it, 0640 for a new one."""
    owner: tuple[int, int] | None = None
    """Numbers of user and group; None: as the file has it, for a new one those of the agent."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The commands that a change runs, in this order; empty means none."""

    on_change: str = ""
    health: str = ""
    timeout_s: float = HOOK_TIMEOUT_S
    check: str = ""
    """Says of a candidate whether it may be applied, before anything changes."""
    on_drift: OnDrift = "put-back"
    """What becomes of an output that somebody changed."""
    sections: Mapping[str, str] = field(default_factory=dict)
    """Commands for single top-level fields, where the schema says that no more than that is needed."""
    reboot: str = ""
    """Run when a confirmed change counts after the next boot; nothing restarts the machine unasked."""


def read_address(text: str) -> Address:
    """Read ``HOST``, ``HOST:PORT``, ``[IPV6]:PORT`` or the same behind ``https://``.

    Raises ``Invalid bad_usage`` for anything else: plain http, a path, a user name, a port out of range.
    """
    scheme, mark, rest = text.rpartition("://")
    if mark and scheme.lower() != "https":
        raise _bad_address(text, f"{scheme or 'no'} is not https")
    rest = rest.removesuffix("/")
    host, port = _split_port(text, rest)
    if not (_IPV6.fullmatch(host) if ":" in host else _HOST.fullmatch(host)):
        raise _bad_address(text, "it is not a host name or an IP address")
    return Address(host, _port(text, port))


def read_output(text: str) -> Output:
    """Read ``FILE[:FORMAT]``; without a format the suffix decides, json when it says nothing.

    Raises ``Invalid bad_usage``: empty, a line feed in the name, or below /proc, /sys or /dev.
    """
    name, format_name = _split_format(text)
    if not name or any(char in name for char in "\0\n\r"):
        raise Invalid("bad_usage", f"output {ascii(text)[:80]} names no file", cure="write --output FILE[:FORMAT]")
    path = read_path(name)
    if ".." in path.parts:
        raise Invalid("bad_usage", f"output {path} has .. in its path", cure="name the file without detours")
    _check_place(path, path)
    return Output(path, format_name or _SUFFIXES.get(path.suffix.lower(), _by_name(path)))


def read_path(text: str) -> Path:
    """A path from the root or from a home; a relative one from here. Raises ``Invalid bad_usage`` for nobody's home."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise Invalid(
            "bad_usage",
            f"{ascii(text)[:80]} is below the home of a user that there is not",
            cure="write the whole path",
        ) from None


def check_outputs(outputs: tuple[Output, ...], state_dir: Path) -> tuple[Output, ...]:
    """Return the outputs if none is named twice or lies in the agent's own folder, else ``Invalid bad_usage``.

    Links in the folders are followed; nor may one be where another is prepared (``.NAME.new``).
    """
    own = Path(os.path.realpath(state_dir))
    places = [Path(os.path.realpath(output.path.parent)) / output.path.name for output in outputs]
    prepared = {place.with_name(f".{place.name}.new") for place in places}
    for at, (output, place) in enumerate(zip(outputs, places, strict=True)):
        if place in places[:at]:
            raise Invalid("bad_usage", f"output {output.path} is named twice", cure="name each file once")
        if place in prepared:
            said = f"output {output.path} has the name under which another output is prepared"
            raise Invalid("bad_usage", said, cure="name another file")
        if place.is_relative_to(own):
            said = f"output {output.path} lies in the agent's own folder"
            raise Invalid("bad_usage", said, cure="name a file elsewhere")
        _check_place(output.path, place)
    return outputs


def _check_place(path: Path, place: Path) -> None:
    if str(place).startswith(tuple(f"{root}/" for root in _SYSTEM_ROOTS)):
        raise Invalid("bad_usage", f"output {path} is not in a place for files", cure="name a file elsewhere")


def read_duration_s(text: str) -> float:
    """Read ``90``, ``90s``, ``1.5m``, ``500ms`` or ``1h`` into seconds, more than 0 and at most an hour.

    Raises ``Invalid bad_usage``.
    """
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS_S[found[2] or "s"] if found else math.nan
    if not 0 < seconds <= MAX_HOOK_TIMEOUT_S:
        raise Invalid(
            "bad_usage", f"{ascii(text)[:40]} is not a time of more than 0 s and at most 1h", cure="write 60s"
        )
    return seconds


def name_from_host(host_name: str) -> str:
    """A device name made of the host's: lower case, hyphens for what a name cannot hold; may be empty."""
    label = host_name.partition(".")[0].lower()
    plain = "".join(char if char.isascii() and char.isalnum() else "-" for char in label)
    return plain.strip("-")[:MAX_NAME_CHARS].rstrip("-")


def _split_port(text: str, rest: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise _bad_address(text, "its brackets are not closed")
        return host, tail.removeprefix(":") if tail != ":" else "empty"
    host, colon, port = rest.partition(":")
    if ":" in port:
        raise _bad_address(text, "an IPv6 address stands in brackets")
    return host, port if port or not colon else "empty"


def _port(text: str, port: str) -> int:
    if not port:
        return DEVICES_PORT
    if not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise _bad_address(text, "its port is not a number from 1 to 65535")
    return int(port)


def _bad_address(text: str, why: str) -> Invalid:
    return Invalid(
        "bad_usage", f"{ascii(text)[:80]} is not a daemon's address: {why}", cure="write https://HOST:4364, or HOST"
    )


def _split_format(text: str) -> tuple[str, Format | None]:
    name, colon, last = text.rpartition(":")
    if colon and last in FORMATS:
        return name, last
    if colon and last.isalpha() and "/" not in last:
        raise Invalid(
            "bad_usage", f"output format {ascii(last)[:20]} is unknown", cure=f"use one of {', '.join(FORMATS)}"
        )
    return text, None


def _by_name(path: Path) -> Format:
    return "env" if path.name == ".env" else "json"
