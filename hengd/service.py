"""``hengd service``: hengd as a service of systemd, where pip, pipx or uv installed it; packages bring the files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from henge_protocol.errors import Conflict, Denied, Internal, NotFound, Unavailable
from henge_protocol.keyfiles import remove_file, write_public

UNITS: Final = Path(__file__).parent / "units"
"""The unit files as they are in the package; in a checkout a link to ``systemd/``."""
PACKAGED: Final = "/opt/henge/bin/hengd"
"""The program that the units name."""
MADE_BY: Final = "# Made by `hengd service install`; your own changes: systemctl edit hengd\n"
HOMES: Final = ("/home/", "/root/", "/run/user/")
"""Where ``ProtectHome=`` hides programs from a service of the system."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service's files go and who is told: the system's systemd, or a user's own."""

    unit: Path
    source: str
    sysusers: Path | None
    systemctl: tuple[str, ...]

    def tell(self, *arguments: str) -> None:
        """Run ``systemctl``; its own words when it refuses."""
        _run([*self.systemctl, *arguments])


def of_system(top: Path = Path("/")) -> Place:
    """The system's service; ``top`` is another root folder, for trying it out."""
    return Place(
        top / "etc/systemd/system/hengd.service", "hengd.service", top / "etc/sysusers.d/henge.conf", ("systemctl",)
    )


def of_user(config_home: Path) -> Place:
    """A user's own service."""
    return Place(config_home / "systemd/user/hengd.service", "hengd-user.service", None, ("systemctl", "--user"))


def install(place: Place, program: str) -> None:
    """Write the unit, make the user that it names, start it and have it started at every boot.

    Raises ``Conflict exists`` for a file that somebody else made, ``Denied``/``Invalid`` for files that cannot be
    written, ``Internal``/``Unavailable service_failed`` with systemd's words. Once more: brings the files up to date
    and restarts.
    """
    _refuse_foreign(place.unit)
    if place.sysusers is not None:
        _refuse_foreign(place.sysusers)
    text = (UNITS / place.source).read_text("utf-8").replace(PACKAGED, program)
    if place.sysusers is not None:
        _write(place.sysusers, MADE_BY + (UNITS / "henge.sysusers").read_text("utf-8"))
        _run(["systemd-sysusers", str(place.sysusers)])
    _write(place.unit, MADE_BY + text)
    place.tell("daemon-reload")
    place.tell("enable", place.unit.name)
    place.tell("restart", place.unit.name)


def uninstall(place: Place) -> None:
    """Stop the service and remove what ``install`` wrote; data, settings and the user stay.

    Raises ``NotFound bad_file`` if it is not installed, else as ``install``.
    """
    if not place.unit.exists():
        raise NotFound("bad_file", f"{place.unit} does not exist; the service is not installed")
    _refuse_foreign(place.unit)
    place.tell("disable", "--now", place.unit.name)
    remove_file(place.unit)
    if place.sysusers is not None and not _is_foreign(place.sysusers):
        remove_file(place.sysusers)
    place.tell("daemon-reload")


def program_of(executable: str) -> str:
    """What starts hengd, as ``ExecStart=`` takes it: the command beside this Python, or the module."""
    command = Path(executable).parent / "hengd"
    return _escaped(str(command)) if command.exists() else f"{_escaped(executable)} -m hengd"


def _escaped(path: str) -> str:
    """One word of a command line in a unit; a path with quotes or backslashes systemd refuses, however written."""
    word = path.replace("%", "%%")
    return f'"{word}"' if " " in word else word


@click.group("service")
def service() -> None:
    """Run hengd as a service of systemd."""


@service.command("install", short_help="Write the unit, start it now and at every boot.")
@click.option("--user", "is_user", is_flag=True, help="Your own systemd instead of the system's; needs no root.")
def install_command(*, is_user: bool) -> None:
    """Write the unit file, start the service now and at every boot. Again: brings the unit up to date."""
    place, program = _place(is_user=is_user), program_of(sys.executable)
    if not is_user and program.removeprefix('"').startswith(HOMES):
        raise Denied(
            "bad_file",
            f"{program} lies in somebody's home, where a service of the system may not look",
            cure="install hengd elsewhere (python3 -m venv /opt/henge), or: hengd service install --user",
        )
    install(place, program)
    click.echo(f"Wrote {place.unit}; hengd runs now and at every boot.")
    if is_user:
        click.echo("It ends when you log out, unless: loginctl enable-linger")
    else:
        click.echo("Who is in group henge needs no sudo: usermod -a -G henge NAME")
    click.echo("Look at it: hengectl status")


@service.command("uninstall", short_help="Stop it and remove the unit; data stays.")
@click.option("--user", "is_user", is_flag=True, help="Your own systemd instead of the system's.")
def uninstall_command(*, is_user: bool) -> None:
    """Stop the service and remove its unit file. Data, settings and the user henge stay."""
    place = _place(is_user=is_user)
    uninstall(place)
    click.echo(f"Removed {place.unit}. The data stays; hengd paths says where.")


def _place(*, is_user: bool) -> Place:
    if is_user:
        told = os.environ.get("XDG_CONFIG_HOME", "")
        return of_user(Path(told) if told.startswith("/") else Path.home() / ".config")
    if os.getuid() != 0:
        raise Denied("bad_file", "a service of the system is root's to make", cure="with sudo, or: --user")
    if not Path("/run/systemd/system").is_dir():
        raise Unavailable("service_failed", "this system is not run by systemd", cure="start it yourself: hengd")
    return of_system()


def _is_foreign(path: Path) -> bool:
    return path.exists() and not path.read_text("utf-8", errors="replace").startswith(MADE_BY)


def _refuse_foreign(path: Path) -> None:
    if _is_foreign(path):
        raise Conflict("exists", f"{path} was made by somebody else", cure=f"look at it, then: rm {path}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_public(path, text.encode())


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable("service_failed", f"cannot run {command[0]} ({error.strerror})") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:300]
        raise Internal("service_failed", f"{' '.join(command)} failed: {said}", cure="journalctl -n 50 has more")
