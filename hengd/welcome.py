"""What a daemon that has started tells the person who started it."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from hengd.app import App, Environment
from hengd.migrations import Migrated
from hengd.settings import Settings
from henge_protocol import __version__, pki
from henge_protocol.places import admin_sockets


def welcome(app: App, settings: Settings, environment: Environment) -> list[str]:
    """What was made, where it listens, what to do next, in lines."""
    urls = app.listeners.urls()
    lines = [f"henge {__version__}  (Python {sys.version.split()[0]})"]
    if app.founded:
        lines += _first_run(app, settings, environment)
    if app.migrated is not None:
        lines += _migrated(app.migrated)
    lines.append("Listening:")
    lines += [f"  {url:28} devices, operators (TLS)" for url in urls["devices"]]
    lines += [f"  {url:28} health (this machine only)" for url in urls.get("local", [])]
    lines.append(f"  {environment.socket}  administration (this machine only)")
    if app.founded:
        lines += _next_steps(app, environment)
    else:
        status = app.summary()
        lines.append(f"{status['devices']} devices, revision {status['revision']}.")
    return lines


def _first_run(app: App, settings: Settings, environment: Environment) -> list[str]:
    end = datetime.fromtimestamp(pki.validity(app.authority.server_cas[0])[1], UTC).strftime("%Y-%m-%d")
    return [
        f"First run. Nothing was found in {environment.data_dir}, so I made:",
        f"  data       {environment.data_dir}",
        f"  own CA     valid to {end}",
        f"             {pki.format_fingerprint(app.authority.pin)}",
        f"  name       {settings.name}",
    ]


def _migrated(done: Migrated) -> list[str]:
    return [
        f"The store was of format {done.before} and is of format {done.after} now. As it was it lies in",
        f"  {done.kept}",
        "for going back to the hengd from before; remove it when you are content (docs/operations.md#upgrading).",
    ]


def _next_steps(app: App, environment: Environment) -> list[str]:
    lines = ["Next:"]
    if environment.socket not in admin_sockets(os.environ):
        lines.append(f"  find this socket      export HENGE_SOCKET={environment.socket}")
    lines += [
        "  look around           hengectl status",
        "  a sample fleet        hengectl apply -f examples/homelab",
        "  first Linux device    hengectl token create --name my-pi --schema lamp",
        "  another computer      hengectl token create --admin",
        "The last two print what to run there.",
    ]
    if app.joins.closes:
        closes = datetime.fromtimestamp(app.joins.closes, UTC).astimezone().strftime("%H:%M")
        lines.append(f"Devices may ask to join until {closes}. Reopen later with: hengectl join open")
    return lines
