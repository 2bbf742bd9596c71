"""``hengd``: flags to settings, a process around the application, exit codes. The only place that exits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import uvloop

from hengd.app import App, Environment
from hengd.care import asked_passphrase, ca, told_problems
from hengd.elsewhere import announce
from hengd.keyring import find_keys
from hengd.logs import start_logs
from hengd.offline import accept_clock
from hengd.process import (
    feed_watchdog,
    fill_standard_streams,
    ignore_signals,
    note_loop_trouble,
    raise_file_limit,
    reload_settings,
    say,
    spare_the_collector,
)  # fmt: skip
from hengd.restore import Restored
from hengd.restore import restore as restore_backup
from hengd.room import disk_refusal
from hengd.rules.timekeeping import shown
from hengd.service import service
from hengd.settings import Settings, default_file, load_settings, settings_files, toml
from hengd.welcome import welcome
from henge_protocol import __version__
from henge_protocol.arguments import FILE, PATH, CarefulGroup, told_of
from henge_protocol.errors import Denied, HengeError
from henge_protocol.keyfiles import UNWRITTEN, file_refusal, open_once
from henge_protocol.notify import notify
from henge_protocol.peertext import printable
from henge_protocol.places import admin_socket, config_dir, state_dir
from henge_protocol.sealedfile import check_passphrase

EXIT_INTERNAL: Final = 70
EXIT_STORAGE: Final = 74
EXIT_DENIED: Final = 77
EXIT_CODES: Final = {
    "storage_foreign": 65,
    "storage_corrupt": 65,
    "bad_authority": 65,
    "bad_backup": 65,
    "bad_encoding": 65,
    "too_large": 65,
    "bad_passphrase": 2,
    "bad_usage": 2,
    "exists": 73,
    "wrong_passphrase": 77,
    "already_running": 73,
    "address_in_use": 75,
    "clock_suspect": 75,
    "not_private": 77,
    "peer_denied": 77,
    "bad_setting": 78,
    "storage_unsuitable": 74,
    "storage_failed": 74,
    "storage_full": 74,
    "bad_file": 74,
    "service_failed": 69,
    "no_daemon": 69,
    "unreachable": 69,
    "left_behind": 75,
    "rotation_step": 73,
    "key_elsewhere": 73,
    "wrong_authority": 65,
}


class _Program(CarefulGroup):
    """``hengd --listen ...`` without a command means ``hengd run --listen ...``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--config", type=PATH, envvar="HENGE_CONFIG", help="Settings file."),
        click.option("--data-dir", type=PATH, envvar="HENGE_DATA_DIR", help="Where the store lies."),
    ):
        command = option(command)
    return command


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hengd")
def cli() -> None:
    """The henge daemon: keeps the configuration of a fleet and pushes it to its devices."""


cli.add_command(service)
cli.add_command(announce)
cli.add_command(ca)


@cli.command()
@_common
@click.option("--listen", "devices", metavar="HOST:PORT", help="TLS port for devices and operators.")
@click.option("--local", "local", metavar="HOST:PORT", help="Plain port for health, this machine only.")
@click.option("--socket", "socket_path", type=PATH, help="Admin socket.")
@click.option("--name", help="Name of this daemon.")
@click.option("--no-mdns", is_flag=True, help="Do not announce on the network.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to say.")
@click.option("--log-format", type=click.Choice(["auto", "text", "logfmt", "json"]), help="Form of log lines.")
def run(
    config: Path | None,
    data_dir: Path | None,
    devices: str | None,
    local: str | None,
    socket_path: Path | None,
    name: str | None,
    no_mdns: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Serve until SIGTERM (this is what `hengd` alone does)."""
    flags = {
        "listen.devices": devices,
        "listen.local": local,
        "listen.socket": str(socket_path.absolute()) if socket_path else None,
        "daemon.name": name,
        "join.mdns": False if no_mdns else None,
        "daemon.log_level": log_level,
        "daemon.log_format": log_format,
    }
    settings = _settings(config, flags)
    socket = Path(settings["listen.socket"] or _default_socket())
    environment = Environment(_data_dir(data_dir), socket, credentials=_credentials())
    logs = start_logs(settings["daemon.log_level"], settings["daemon.log_format"])
    try:
        code = uvloop.run(_serve(settings, environment, lambda: _settings(config, flags)))
    finally:
        logs.stop()
    sys.exit(code)


@cli.command(short_help="Check the settings without starting anything.")
@_common
def check(config: Path | None, data_dir: Path | None) -> None:
    """Check the settings without starting anything: exit 0 if they are good, 78 if not."""
    settings = _settings(config, {})
    changed = sum(1 for one in settings.values() if one.changed)
    click.echo(f"All settings are good. Not at their defaults: {changed}")
    click.echo(f"data folder: {_data_dir(data_dir)}")


@cli.command(short_help="Make a data folder from a backup.")
@click.argument("file", type=PATH)
@click.option("--passphrase-file", "source", type=FILE, metavar="FILE|-", help="Not from a prompt but from there.")
@click.option("--revocations", type=PATH, metavar="FILE", help="The journal of the data folder that is given up.")
@click.option(
    "--authorities-only", "only_authorities", is_flag=True, help="Take them alone; the store is founded empty."
)
@click.option("--dry-run", is_flag=True, help="Do everything in a folder beside it and leave nothing.")
@_common
def restore(
    file: Path,
    source: str | None,
    revocations: Path | None,
    config: Path | None,
    data_dir: Path | None,
    *,
    only_authorities: bool,
    dry_run: bool,
) -> None:
    """Make the data folder from a file of 'hengectl backup': here, or on the machine that takes over.

    The folder must have no data yet. Devices find the daemon by themselves and go on; those that ran something newer
    than the backup are held until you say what counts: hengectl get devices, hengectl retry DEVICE.

    From a file that holds the authorities alone, or with --authorities-only, an empty store is founded. Devices trust
    it, and hand in what they run once you ask for that: hengectl rescue open.
    """
    settings, folder = _settings(config, {}), _data_dir(data_dir)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a try is cleaned up
    try:
        with open_once(file) as stream:
            passphrase = check_passphrase(asked_passphrase(source))  # nobody types one for a file that is not there
            done = restore_backup(
                stream, folder, passphrase, now=time.time(), journal=revocations, only_try=dry_run,
                only_authorities=only_authorities, allow_network_fs=settings["store.allow_network_fs"],
            )  # fmt: skip
    except OSError as error:
        raise disk_refusal(error, f"{file} cannot be read") from error
    say(*_restored(done, folder, dry_run=dry_run))


@cli.command("accept-clock", short_help="Take this machine's time for right.")
@_common
def accept(config: Path | None, data_dir: Path | None) -> None:
    """Take this machine's time for right, whatever the store has seen (`clock_suspect`); needs hengd stopped."""
    settings = _settings(config, {})
    now = time.time()
    before = uvloop.run(accept_clock(_data_dir(data_dir), settings, now=now))
    click.echo(f"The store had seen {shown(before)}. It is {shown(now)} now; certificates are issued from here on.")


@cli.group("config", cls=CarefulGroup)
def config_group() -> None:
    """Show settings."""


@config_group.command("default", short_help="Print the whole settings file at its defaults.")
def config_default() -> None:
    """Print the whole settings file, every key commented at its default."""
    click.echo(default_file(), nl=False)


@config_group.command("show", short_help="Print every setting with its value.")
@_common
@click.option("--origin", is_flag=True, help="Also print where each value comes from.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the output.")
def config_show(config: Path | None, data_dir: Path | None, origin: bool, output: str) -> None:
    """Print every setting with its value; changed ones are marked with *."""
    values = _settings(config, {}).values()
    if output == "json":
        found = {one.setting.key: {"value": one.value, "origin": one.origin} for one in values}
        click.echo(json.dumps(found, indent=2, default=list))
        return
    for one in values:
        mark = "*" if one.changed else " "
        click.echo(f"{mark} {one.setting.key} = {toml(one.value)}" + (f"   # {one.origin}" if origin else ""))


@cli.command()
@_common
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the output.")
def paths(config: Path | None, data_dir: Path | None, output: str) -> None:
    """Print where everything lies."""
    settings = _settings(config, {})
    folder = config_dir(os.environ, os.getuid())
    found = {
        "config": str(config or folder / "hengd.toml"),
        "config drop-ins": str(folder / "conf.d"),
        "data": str(_data_dir(data_dir)),
        "key of secrets": str(find_keys(settings["secrets.key_file"], _credentials(), _data_dir(data_dir))[0]),
        "socket": settings["listen.socket"] or str(_default_socket()),
    }
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    for what, path in found.items():
        click.echo(f"{what:16} {path}")


async def _serve(settings: Settings, environment: Environment, reread: Callable[[], Settings]) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(note_loop_trouble)
    ignore_signals()
    app = App(settings, replace(environment, max_files=raise_file_limit()))
    await app.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop)
    loop.add_signal_handler(signal.SIGHUP, reload_settings, settings, reread)
    say(*welcome(app, settings, environment))
    spare_the_collector()
    notify("READY=1", f"STATUS=serving {settings.name}", environ=os.environ)
    watchdog = asyncio.create_task(feed_watchdog(app.beat), name="watchdog")
    stopped = asyncio.create_task(stop.wait(), name="signal")
    ends: set[asyncio.Future[Any]] = {stopped, app.failed}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    watchdog.cancel()
    stopped.cancel()
    await asyncio.gather(watchdog, stopped, return_exceptions=True)
    if app.failed.done():
        say(f"Error: the store failed ({app.failed.result()}); stopping so that a restart can recover", err=True)
        os._exit(EXIT_INTERNAL)
    notify("STOPPING=1", environ=os.environ)
    await app.stop()
    return 0


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)
    stop.set()


def _restored(done: Restored, folder: Path, *, dry_run: bool) -> list[str]:
    about = done.about
    held = "" if done.founded else f": revision {about['revision']}, {about['devices']} devices"
    lines = [
        f"Fleet {about.get('fleet', '')} as of {about.get('made', '')}{held}.",
        *([f"Later revocations of the old folder that count, too: {done.revocations}"] if done.revocations else []),
    ]
    if dry_run:
        there = (folder / "data").exists()
        refused = [f"{folder} has data already: restoring into it would be refused."] if there else []
        return [*lines, "The backup is good; nothing was kept of the try.", *refused]
    if done.founded:
        return [
            *lines,
            f"Founded anew in {folder}: only the authorities were taken. No device, value or token is known.",
            "Never start the old daemon again: devices would follow both.",
            "Next:",
            f"  hengd --data-dir {folder}   start it; devices find it, and are refused",
            "  hengectl rescue open     let devices hand in what they run",
            "  hengectl rescue list     see what was handed in; then take it: hengectl rescue take --all",
        ]
    if done.migrated is not None:
        lines.append(f"It was made by an older henge: format {done.migrated.before} became {done.migrated.after}.")
    if not about["secrets"]:
        lines.append("The key of the secrets was not in the backup: put it back, or set the secrets anew.")
    return [
        *lines,
        f"Restored into {folder}. Tokens made before the backup are void.",
        "Never start the old daemon again: devices would follow both.",
        "Next:",
        f"  hengd --data-dir {folder}   start it; devices come by themselves",
        "  hengectl get devices     which are 'ahead' ran something newer than the backup and are held",
        "  hengectl retry DEVICE    give such a device what the backup says",
    ]


def _settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    folder = config_dir(os.environ, os.getuid())
    return load_settings(files=settings_files(config, folder), environ=os.environ, flags=flags)


def _data_dir(data_dir: Path | None) -> Path:
    return (data_dir or state_dir(os.environ, os.getuid())).absolute()


def _credentials() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _default_socket() -> Path:
    return admin_socket(os.environ, os.getuid())


def main() -> NoReturn:
    """Run the command line; every refusal is one line on standard error and a documented exit code."""
    fill_standard_streams()
    try:
        cli(prog_name="hengd", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        say(told_of(error), err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except HengeError as error:
        _end(error)
    except OSError as error:
        if isinstance(error.filename, str | bytes):
            _end(file_refusal(error, Path(os.fsdecode(error.filename)), "use"))
        if error.errno not in UNWRITTEN:
            raise
        say(f"Error: cannot write the output ({error.strerror})", err=True)
        sys.exit(EXIT_STORAGE)
    sys.exit(0)


def _end(error: HengeError) -> NoReturn:
    cure = [f"Cure: {error.cure}"] if error.cure else []
    say(*map(printable, (f"Error: {error.message}", *told_problems(error), *cure)), err=True)
    sys.exit(_exit_code(error))


def _exit_code(error: HengeError) -> int:
    if error.code == "bad_file" and (isinstance(error, Denied) or isinstance(error.__cause__, PermissionError)):
        return EXIT_DENIED
    return EXIT_CODES.get(error.code, EXIT_INTERNAL)
