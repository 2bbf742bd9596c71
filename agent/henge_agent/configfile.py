"""The agent's settings file: TOML with the options of ``henge-agent run`` and what flags are too short for.

on_change = "systemctl restart lamp"     # any option of the command, its hyphens written as underscores

[section.wifi]                           # a command for one top-level field
on_change = "systemctl restart wpa_supplicant"

[[output]]
path = "/etc/lamp.toml"                  # format, field, template, unmanaged, mode, owner where wanted
"""

from __future__ import annotations

import difflib
import grp
import pwd
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from henge_agent.settings import FORMATS, Field, Output, read_output, read_path
from henge_protocol.errors import HengeError, Invalid, TooLarge
from henge_protocol.keyfiles import read_once

MAX_CONFIG_BYTES: Final = 256 * 1024

_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_OUTPUT_KEYS: Final = frozenset({"path", "format", "field", "template", "unmanaged", "mode", "owner"})


@dataclass(frozen=True, slots=True)
class Configured:
    """What a settings file says."""

    options: Mapping[str, str] = field(default_factory=dict)
    """Values of the command's options, by their names in Python."""
    outputs: tuple[Output, ...] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    """Commands of single top-level fields."""


def read_configured(path: Path, known: Iterable[str]) -> Configured:
    """Read a settings file; ``known`` are the options that may stand in it.

    Raises ``Invalid bad_setting`` naming file and key, and ``bad_file`` when it cannot be read.
    """
    try:
        data, mode = read_once(path, limit_bytes=MAX_CONFIG_BYTES)
        if not data and not mode:
            raise Invalid("bad_setting", f"{path} is a pipe that nobody wrote to")
        table = tomllib.loads(data.decode("utf-8-sig"))
    except TooLarge as error:
        raise Invalid("bad_setting", f"{error.message}; that is not a settings file") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid("bad_setting", f"{path} is not TOML: {error}") from None
    try:
        return _configured(table, frozenset(known))
    except HengeError as error:
        raise Invalid("bad_setting", f"{path}: {error.message}", cure=error.cure) from None


def _configured(table: dict[str, Any], known: frozenset[str]) -> Configured:
    outputs = table.pop("output", [])
    sections = table.pop("section", {})
    _check_keys(table, known | {"output", "section"}, "")
    if not isinstance(sections, dict):
        raise _wrong("section", "a table for each field", sections, "write [section.wifi]")
    if not isinstance(outputs, list):
        raise _wrong("output", "a table for each file", outputs, "write [[output]] above each")
    return Configured(
        options={key: _option(item, key) for key, item in table.items()},
        outputs=tuple(_output(entry, f"output {number}") for number, entry in enumerate(outputs, 1)),
        sections={name: _section(entry, f"section {name}") for name, entry in sections.items()},
    )


def _section(entry: Any, where: str) -> str:
    if not isinstance(entry, dict):
        raise _wrong(where, "a table", entry, "write [section.wifi]")
    _check_keys(entry, frozenset({"on_change"}), f"{where}: ")
    return _option(entry.get("on_change"), f"{where} on_change")


def _option(value: Any, key: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(key, "a text", value, "put it in quotes")
    return value


def _output(entry: Any, where: str) -> Output:
    if not isinstance(entry, dict):
        raise _wrong(where, "a table", entry, "write [[output]] above each")
    _check_keys(entry, _OUTPUT_KEYS, f"{where}: ")
    if "path" not in entry:
        raise Invalid("bad_setting", f"{where} has no path", cure='write path = "/etc/lamp.toml"')
    where = f"{where} ({entry['path']})"
    if "template" in entry and ("format" in entry or "unmanaged" in entry):
        raise Invalid("bad_setting", f"{where}: a template goes with neither format nor unmanaged")
    output = read_output(f"{_text(entry['path'], where)}{_format(entry, where)}")
    return replace(
        output,
        part=_field(entry["field"], f"{where} field") if "field" in entry else (),
        template=_absolute(entry["template"], f"{where} template") if "template" in entry else None,
        unmanaged=_fields(entry.get("unmanaged", []), f"{where} unmanaged"),
        mode=_mode(entry["mode"], f"{where} mode") if "mode" in entry else None,
        owner=_owner(entry["owner"], f"{where} owner") if "owner" in entry else None,
    )


def _check_keys(table: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            cure = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise Invalid("bad_setting", f"{where}{ascii(key)[:60]} is unknown", cure=cure)


def _format(entry: Mapping[str, Any], where: str) -> str:
    if "format" not in entry:
        return ":json" if "template" in entry else ""
    if entry["format"] not in FORMATS:
        raise _wrong(f"{where} format", "a format", entry["format"], f"use one of {', '.join(FORMATS)}")
    return f":{entry['format']}"


def _fields(value: Any, where: str) -> tuple[Field, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "a list of fields", value, 'write ["wifi.country"]')
    return tuple(_field(item, where) for item in value)


def _field(value: Any, where: str) -> Field:
    path = tuple(_text(value, where).split("."))
    if "" in path:
        raise _wrong(where, "a field", value, "write wifi.ssid")
    return path


def _absolute(value: Any, where: str) -> Path:
    text = _text(value, where)
    if not text.startswith(("/", "~")):
        raise _wrong(where, "an absolute path", value, "write the whole path")
    return read_path(text)


def _mode(value: Any, where: str) -> int:
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise _wrong(where, "a mode", value, 'write "0640"')
    return int(value, 8)


def _owner(value: Any, where: str) -> tuple[int, int]:
    """``USER`` or ``USER:GROUP``; without a group that of the user."""
    user, colon, group = _text(value, where).partition(":")
    try:
        account = pwd.getpwnam(user)
        return account.pw_uid, grp.getgrnam(group).gr_gid if colon else account.pw_gid
    except KeyError as error:
        raise Invalid("bad_setting", f"{where}: {str(error)[1:-1]}", cure="write USER or USER:GROUP") from None


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or any(char in value for char in "\0\n\r"):
        raise _wrong(where, "a text of one line", value, "")
    return value


def _wrong(where: str, wanted: str, value: Any, cure: str) -> Invalid:
    return Invalid("bad_setting", f"{where}: {wanted} is expected, not {ascii(value)[:60]}", cure=cure)
