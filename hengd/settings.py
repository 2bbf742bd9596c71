"""Every setting of the daemon: name, default, meaning, check. The only place that reads environment and files.

Precedence, the strongest first: flag, environment (``HENGE_LISTEN__DEVICES``), ``--config`` file or the default
file, ``conf.d/*.toml`` in lexical order before it, built-in. The daemon never writes its configuration file.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from henge_protocol.errors import HengeError, Invalid, NotFound, TooLarge
from henge_protocol.keyfiles import file_refusal, read_once
from henge_protocol.model import is_name
from henge_protocol.places import DEVICES_PORT
from henge_protocol.quantity import parse_duration_s, parse_size_bytes

ENV_PREFIX: Final = "HENGE_"
MAX_FILE_BYTES: Final = 1024 * 1024
CLIENT_VARIABLES: Final = frozenset(
    {"HENGE_SOCKET", "HENGE_SERVER", "HENGE_CONTEXT", "HENGE_COLOR", "HENGE_OUTPUT", "HENGE_CONFIG", "HENGE_DATA_DIR"}
)
"""Variables of the same prefix that are not settings of the daemon's file."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of ``hengd.toml``; ``read`` turns text or TOML into the value or raises ``Invalid``."""

    key: str
    default: Any
    meaning: str
    read: Callable[[Any], Any]

    @property
    def variable(self) -> str:
        """The environment variable of the same meaning."""
        return ENV_PREFIX + self.key.upper().replace(".", "__")


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and where it came from."""

    setting: Setting
    value: Any
    origin: str

    @property
    def changed(self) -> bool:
        """Whether it differs from the built-in default."""
        return bool(self.value != self.setting.default)


def host_name() -> str:
    """This machine's name as a henge name; ``henge`` when it has none that fits."""
    name = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:63]
    return name if is_name(name) else "henge"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _wrong("a text", value)


def _path(value: Any) -> str:
    """Empty, or a whole path: relative to which folder a daemon looks depends on who started it."""
    text = _text(value)
    path = os.path.expanduser(text)  # leaves a home that nobody has as it is
    if path and (not path.startswith("/") or any(ord(char) < 32 for char in path)):
        raise _wrong("an absolute path", value)
    return path


def _daemon_name(value: Any) -> str:
    if value == "" or is_name(value):
        return str(value)
    raise _wrong("a name such as kallisto", value)


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value in allowed:
            return str(value)
        raise _wrong("one of " + ", ".join(allowed), value)

    return read


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise _wrong("true or false", value)


def _number(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value, re.ASCII) else value
        if type(number) is int and least <= number <= most:
            return number
        raise _wrong(f"a whole number from {least} to {most}", value)

    return read


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise _wrong("a list of texts", value)


def _duration(value: Any) -> str:
    parse_duration_s(_text(value))
    return str(value)


def _size(value: Any) -> str:
    parse_size_bytes(_text(value))
    return str(value)


def split_address(text: str) -> tuple[str, int]:
    """``0.0.0.0:4364`` or ``[::]:4364`` as host and port; ``Invalid`` otherwise."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%a-z]{2,60})\]|([^\[\]:\s/@]{1,253})):([0-9]{1,5})", text, re.ASCII)
    if match is None or int(match[3]) > 65535:
        raise Invalid("bad_setting", f"{ascii(text)[:80]} is not of the form HOST:PORT, such as 0.0.0.0:4364")
    return match[1] or match[2], int(match[3])


def _address(value: Any) -> str:
    split_address(_text(value))
    return str(value)


def _optional_address(value: Any) -> str:
    return "" if value == "" else _address(value)


def _wrong(wanted: str, value: Any) -> Invalid:
    return Invalid("bad_setting", f"{wanted} is expected, not {ascii(value)[:60]}")


SETTINGS: Final = (
    Setting("daemon.name", "", "Name shown to people and announced by mDNS; empty = the host's name.", _daemon_name),
    Setting("daemon.log_level", "info", "debug, info, warning or error.", _one_of("debug", "info", "warning", "error")),
    Setting(
        "daemon.log_format", "auto", "auto, text, logfmt or json; auto = text on a terminal, logfmt under systemd, else json.",
        _one_of("auto", "text", "logfmt", "json"),
    ),
    Setting("listen.devices", f"0.0.0.0:{DEVICES_PORT}", "TLS port for devices, enrolment and operators' API.", _address),
    Setting("listen.local", "127.0.0.1:4365", "Plain port for health; loopback, because it has no TLS. Empty = off.", _optional_address),
    Setting("listen.socket", "", "Admin socket; empty = admin.sock in the runtime folder.", _path),
    Setting("tls.names", (), "More DNS names and IP addresses for the server certificate; devices do not need them.", _texts),
    Setting("store.map_size", "1GiB", "Address space for the store at start; it grows by itself, the file stays small.", _size),
    Setting("store.allow_network_fs", False, "Keep the store on NFS, SMB, 9p or FUSE all the same; it may be damaged there.", _boolean),
    Setting("store.keep_revisions", 1000, "Revisions kept at least; older ones go only when also past keep_for.", _number(10, 10**9)),
    Setting("store.keep_for", "365d", "How long every revision is kept at least.", _duration),
    Setting("secrets.key_file", "", "File with the key of the secrets; empty = systemd's credential, else one that hengd makes.", _path),
    Setting("backup.folder", "", "Folder for backups made by themselves, best on another disk; empty = none are made.", _path),
    Setting("backup.passphrase_file", "", "File of mode 0600 with the passphrase that seals them.", _path),
    Setting("backup.every", "24h", "How often one is made.", _duration),
    Setting("backup.keep", 7, "How many are kept.", _number(1, 10_000)),
    Setting("join.window_after_init", "60m", "How long a new daemon accepts join requests without being asked.", _duration),
    Setting("join.max_pending", 16, "Join requests that may wait at a time.", _number(1, 32)),
    Setting("join.mdns", True, "Announce the daemon on the local network.", _boolean),
    Setting("limits.max_connections", 8192, "Open connections in all.", _number(16, 65536)),
    Setting("limits.per_address", 64, "Open connections from one address; raise it for fleets behind NAT.", _number(1, 65536)),
    Setting("limits.handshakes", 128, "TLS handshakes at a time.", _number(1, 4096)),
    Setting("limits.handshakes_per_address", 8, "TLS handshakes at a time from one address.", _number(1, 4096)),
    Setting("limits.retry_after", "2s", "What a stopping daemon tells devices to wait, plus their jitter.", _duration),
)  # fmt: skip

BY_KEY: Final = {setting.key: setting for setting in SETTINGS}
_MISSPELLED: Final = {setting.variable.replace("__", "_"): setting.variable for setting in SETTINGS}
"""One underscore where two belong is easily written, and would be ignored in silence."""
TABLES: Final = tuple(dict.fromkeys(setting.key.partition(".")[0] for setting in SETTINGS))


class Settings:
    """All values, each with its origin; read by key."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key].value

    def values(self) -> list[Value]:
        """Every setting in order of the table."""
        return [self._values[setting.key] for setting in SETTINGS]

    def seconds(self, key: str) -> int:
        """A duration in seconds."""
        return parse_duration_s(self[key])

    def bytes(self, key: str) -> int:
        """A size in bytes."""
        return parse_size_bytes(self[key])

    @property
    def name(self) -> str:
        """The daemon's name."""
        return str(self["daemon.name"]) or host_name()


def load_settings(
    *, files: Sequence[Path] = (), environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """Read all sources; ``Invalid`` ``bad_setting`` names file and key, and what would have been right."""
    values = {setting.key: Value(setting, setting.default, "built-in") for setting in SETTINGS}
    for path in files:
        for key, raw in _file_entries(path):
            values[key] = _value(key, raw, str(path))
    for name, text in sorted((environ or {}).items()):
        if name.startswith(ENV_PREFIX) and name not in CLIENT_VARIABLES and text:
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            if "." in key:
                values[key] = _value(key, text, name)
            elif name in _MISSPELLED:
                raise Invalid(
                    "bad_setting", f"{name}: no setting is spelled so; did you mean {_MISSPELLED[name]}?",
                    cure="write two underscores for the dot",
                )  # fmt: skip
    for key, raw in (flags or {}).items():
        if raw is not None:
            values[key] = _value(key, raw, "flag")
    return Settings(values)


def settings_files(config: Path | None, config_dir: Path) -> list[Path]:
    """The files that are read, the weakest first; a file named by the user must exist.

    Raises ``Invalid bad_setting`` where the system does not let it look: what stands there must not be left out.
    """
    default = config_dir / "hengd.toml"
    try:
        drop_ins = _drop_ins(config_dir / "conf.d")
        own = [default] if config is None and default.exists() else []
    except OSError as error:
        raise _unread(file_refusal(error, Path(error.filename), "read")) from error
    return [*drop_ins, *own] if config is None else [*drop_ins, config]


def _drop_ins(folder: Path) -> list[Path]:
    """What is in a folder that need not be there; one that may not be read is not passed over in silence."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(".toml"))
    except (FileNotFoundError, NotADirectoryError):
        return []


def default_file() -> str:
    """The whole configuration file with every key commented out at its default."""
    lines = ["# hengd.toml: every setting of the daemon. A key left commented has the value shown.", ""]
    for table in TABLES:
        lines.append(f"[{table}]")
        for setting in SETTINGS:
            head, _, name = setting.key.partition(".")
            if head == table:
                lines += [f"# {setting.meaning}", f"# {name} = {toml(setting.default)}"]
        lines.append("")
    return "\n".join(lines)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(part) for part in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _value(key: str, raw: Any, origin: str) -> Value:
    setting = BY_KEY.get(key)
    if setting is None:
        near = difflib.get_close_matches(key, BY_KEY, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Invalid(
            "bad_setting", f"{origin}: unknown setting {ascii(key)[:60]}{hint}", cure="see: hengd config default"
        )
    try:
        return Value(setting, setting.read(raw), origin)
    except HengeError as error:
        cure = f"write it as the default is written, {toml(setting.default)}; it means: {setting.meaning}"
        raise Invalid("bad_setting", f"{origin}: {key}: {error.message}", cure=cure) from None


def _unread(error: HengeError) -> Invalid:
    cure = "make one: hengd config default" if isinstance(error, NotFound) else error.cure
    return Invalid("bad_setting", error.message, cure=cure)


def _file_entries(path: Path) -> list[tuple[str, Any]]:
    try:
        data, mode = read_once(path, limit_bytes=MAX_FILE_BYTES)
        if not data and not mode:
            raise Invalid("bad_setting", f"{path} is a pipe that nobody wrote to")
        tree = tomllib.loads(data.decode("utf-8-sig"))
    except TooLarge:
        raise Invalid("bad_setting", f"{path} is larger than 1 MiB; that is not a configuration file") from None
    except HengeError as error:
        raise _unread(error) from None
    except UnicodeDecodeError as error:
        raise Invalid("bad_setting", f"{path} is not UTF-8: {error}", cure="save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise Invalid("bad_setting", f"{path} is not TOML: {error}") from None
    entries: list[tuple[str, Any]] = []
    for table, content in tree.items():
        if not isinstance(content, dict):
            raise Invalid("bad_setting", f"{path}: {ascii(table)[:60]} stands outside of any [table]")
        entries += [(f"{table}.{name}", raw) for name, raw in content.items()]
    return entries
