"""Where things live: settings, state, sockets. One rule for daemon, agent and command line. Pure.

A service is told its folders by systemd (``STATE_DIRECTORY`` and its kin), root without systemd uses the
system's folders, anybody else the XDG base directories. Nothing here looks at the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from henge_protocol.errors import Invalid

SYSTEM_CONFIG_DIR: Final = Path("/etc/henge")
SYSTEM_STATE_DIR: Final = Path("/var/lib/henge")
SYSTEM_RUNTIME_DIR: Final = Path("/run/henge")
SYSTEM_AGENT_STATE_DIR: Final = Path("/var/lib/henge-agent")

DEVICES_PORT: Final = 4364
"""Where devices and operators find a daemon, unless its settings say otherwise."""
SOCKET_NAME: Final = "admin.sock"
AGENT_CONFIG_NAME: Final = "agent.toml"
CONTEXTS_NAME: Final = "config.toml"


def config_dir(environ: Mapping[str, str], uid: int) -> Path:
    """The daemon's settings; ``Invalid`` ``bad_setting`` when a user has no home."""
    told = _told(environ, "CONFIGURATION_DIRECTORY")
    return told or (SYSTEM_CONFIG_DIR if uid == 0 else _user_config(environ) / "henge")


def state_dir(environ: Mapping[str, str], uid: int) -> Path:
    """The daemon's store and keys; ``Invalid`` ``bad_setting`` when a user has no home."""
    told = _told(environ, "STATE_DIRECTORY")
    return told or (SYSTEM_STATE_DIR if uid == 0 else _user_state(environ) / "henge")


def runtime_dir(environ: Mapping[str, str], uid: int) -> Path:
    """Where the daemon makes its socket. Never in /tmp: without a private runtime folder, the state folder."""
    told = _told(environ, "RUNTIME_DIRECTORY")
    return told or (SYSTEM_RUNTIME_DIR if uid == 0 else _user_runtime(environ))


def admin_socket(environ: Mapping[str, str], uid: int) -> Path:
    """The socket that a daemon started in this environment makes."""
    return runtime_dir(environ, uid) / SOCKET_NAME


def admin_sockets(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The sockets that a command line looks for, in this order: the system's daemon, then the user's own."""
    try:
        own = _user_runtime(environ)
    except Invalid:
        return (SYSTEM_RUNTIME_DIR / SOCKET_NAME,)
    return (SYSTEM_RUNTIME_DIR / SOCKET_NAME, own / SOCKET_NAME)


def contexts_dir(environ: Mapping[str, str]) -> Path:
    """A person's contexts and credentials, root's too; ``Invalid`` ``bad_setting`` without a home."""
    return _user_config(environ) / "henge"


def agent_state_dir(environ: Mapping[str, str], uid: int) -> Path:
    """The agent's identity and last good document; ``Invalid`` ``bad_setting`` when a user has no home."""
    told = _told(environ, "STATE_DIRECTORY")
    return told or (SYSTEM_AGENT_STATE_DIR if uid == 0 else _user_state(environ) / "henge-agent")


def agent_config_file(environ: Mapping[str, str], uid: int) -> Path | None:
    """The agent's settings, beside the daemon's; None when a user has no home."""
    try:
        return config_dir(environ, uid) / AGENT_CONFIG_NAME
    except Invalid:
        return None


def _told(environ: Mapping[str, str], name: str) -> Path | None:
    """What systemd says: one or more absolute paths with colons between; the first is ours."""
    first = environ.get(name, "").partition(":")[0]
    return Path(first) if first.startswith("/") else None


def _user_runtime(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_RUNTIME_DIR", "")
    return (Path(base) if base.startswith("/") else _user_state(environ)) / "henge"


def _user_config(environ: Mapping[str, str]) -> Path:
    return _base(environ, "XDG_CONFIG_HOME", ".config")


def _user_state(environ: Mapping[str, str]) -> Path:
    return _base(environ, "XDG_STATE_HOME", ".local/state")


def _base(environ: Mapping[str, str], name: str, below_home: str) -> Path:
    """A base directory; relative values are ignored, as the XDG specification says."""
    if environ.get(name, "").startswith("/"):
        return Path(environ[name])
    if environ.get("HOME", "").startswith("/"):
        return Path(environ["HOME"]) / below_home
    raise Invalid("bad_setting", f"neither HOME nor {name} is an absolute path", cure=f"set HOME or {name}")
