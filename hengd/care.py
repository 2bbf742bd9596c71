"""``hengd ca``: the care of the authorities. The running daemon does it, asked over its admin socket."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from hengd.archive import SERVER_CA, SERVER_KEY, unpack
from hengd.asking import Asker
from hengd.offline import put_key_back
from hengd.room import disk_refusal
from hengd.rules.rotation import MAX_WITHIN_S
from hengd.settings import Settings, load_settings, settings_files
from henge_protocol import pki
from henge_protocol.arguments import FILE, PATH, CarefulGroup
from henge_protocol.errors import Conflict, HengeError, Invalid, Malformed, Unreachable
from henge_protocol.keyfiles import open_once, read_passphrase, replacing
from henge_protocol.places import admin_socket, admin_sockets, config_dir, state_dir
from henge_protocol.quantity import format_duration, parse_duration_s
from henge_protocol.sealedfile import check_passphrase, damaged, read_header, unseal

SHOWN: Final = 20
"""Names of those who lag behind, in a text; ``-o json`` has a hundred."""
DEVICE_JOINS: Final = "hengectl device replace NAME prints a token with which it joins again, under its name"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the daemon is, and its settings if it does not run."""

    socket: Path | None
    config: Path | None

    @property
    def settings(self) -> Settings:
        """As ``hengd run`` would read them."""
        files = settings_files(self.config, config_dir(os.environ, os.getuid()))
        return load_settings(files=files, environ=os.environ, flags={})

    def asker(self) -> Asker:
        """Who asks the daemon: behind the socket that is named, that of the settings, or a usual one."""
        if self.socket is not None:
            return Asker([self.socket])
        told = self.settings["listen.socket"]
        own = Path(told) if told else admin_socket(os.environ, os.getuid())
        return Asker(list(dict.fromkeys([own, *admin_sockets(os.environ)])))


class _Within(click.ParamType[int]):
    """A time within which devices renew, in seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            seconds = parse_duration_s(str(value), "time")
        except Invalid as error:
            self.fail(error.message, param, ctx)
        if not 1 <= seconds <= MAX_WITHIN_S:
            self.fail(f"{value} is not between 1s and {format_duration(MAX_WITHIN_S)}", param, ctx)
        return seconds


def _with_whereabouts(command: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*, socket: Path | None, config: Path | None, **options: Any) -> None:
        command(Whereabouts(socket, config), **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    for option in (
        click.option("--config", type=PATH, envvar="HENGE_CONFIG", help="Settings file, for its socket."),
        click.option("--socket", type=PATH, envvar="HENGE_SOCKET", help="Admin socket of the daemon."),
    ):
        wrapped = option(wrapped)
    return wrapped


def _passphrase_option(command: Callable[..., Any]) -> Callable[..., Any]:
    option = click.option(
        "--passphrase-file", "source", type=FILE, metavar="FILE|-", help="Not from a prompt but from there."
    )
    return option(command)


@click.group("ca", cls=CarefulGroup, short_help="Care for the authorities: status, rotation, offline key.")
def ca() -> None:
    """Care for the authorities that devices and the daemon know each other by."""


@ca.command("status", short_help="Where the authorities stand, and what to do next.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the output.")
@_with_whereabouts
def status(where: Whereabouts, *, output: str) -> None:
    """Show both authorities, the server's certificate, who has followed a rotation, and what to do next."""
    found = where.asker().call("GET", "/v1/authorities")
    click.echo(json.dumps(found, indent=2) if output == "json" else "\n".join(_told(found)))


# ---- rotation


@ca.group("rotate", cls=CarefulGroup, short_help="Replace an authority without cutting devices off.")
def rotate() -> None:
    """Replace an authority without cutting devices: begin, wait, switch, finish."""


_client = click.option("--client", "is_client", is_flag=True, help="The client authority, not the server authority.")
_leave_behind = click.option("--leave-behind", is_flag=True, help="Those who have not followed must join again.")


@rotate.command("begin", short_help="Make the next authority and tell it to everybody who renews.")
@_client
@click.option("--within", "within_s", type=_Within(), help="Within which time devices renew (1h, 2d); else a day.")
@_with_whereabouts
def begin(where: Whereabouts, *, is_client: bool, within_s: int | None) -> None:
    """Make the next authority. Devices are asked to renew within a time, and get to know it by that.

    The next server authority signs nothing before 'switch'; a new client authority signs at once, and what the old
    one signed is let in until 'finish --client'.
    """
    body = {} if within_s is None else {"within_s": within_s}
    which = "client" if is_client else "server"
    done = where.asker().call("POST", f"/v1/authorities/{which}/begin", body)
    made = "A new client authority signs from now on" if is_client else "The next server authority is made"
    before = "It had begun before; no other was made"
    click.echo(f"{made if done['changed'] else before}. Devices and operators take it over when they renew.")
    click.echo("Next: hengd ca status")


@rotate.command("switch", short_help="Let the next server authority sign.")
@_leave_behind
@_with_whereabouts
def switch(where: Whereabouts, *, leave_behind: bool) -> None:
    """Let the next server authority sign, once every device and operator knows it. There is no way back.

    Refused, with their names, while some do not. With --leave-behind those take the daemon for a stranger from now
    on, and join again: hengectl device replace NAME.
    """
    asker = where.asker()
    done = asker.call("POST", "/v1/authorities/server/switch", {"leave_behind": leave_behind})
    if not done["changed"]:
        click.echo("It had been switched before.")
    else:
        click.echo("The next server authority signs now; the key of the one before is gone.")
        _tell_left(asker, "server")
    if done["void_tokens"]:
        click.echo(f"{done['void_tokens']} tokens that are not used yet name the old authority and let nobody join.")
        click.echo("Make new ones: hengectl token list, hengectl token revoke ID, hengectl token create")
    click.echo("Next: hengectl backup -o FILE   # one from before 'begin' knows nobody's certificate of today")
    click.echo("When no backup from before the switch is needed any more: hengd ca rotate finish")


@rotate.command("finish", short_help="Give the authority up that signed before.")
@_client
@_leave_behind
@_with_whereabouts
def finish(where: Whereabouts, *, is_client: bool, leave_behind: bool) -> None:
    """Give the authority up that signed before.

    Of the server: devices forget it when they renew; until then a backup can be restored that was made after everybody
    had followed and before the switch, so wait a month. Of the clients: refused, with their names, while some have no
    other certificate.
    """
    if leave_behind and not is_client:
        message = "--leave-behind is for the switch, and for finish --client: this step leaves nobody behind"
        raise Invalid("bad_usage", message, cure="leave it out")
    which = "client" if is_client else "server"
    asker = where.asker()
    done = asker.call("POST", f"/v1/authorities/{which}/finish", {"leave_behind": leave_behind} if is_client else {})
    click.echo(f"The old {which} authority is given up." if done["changed"] else "There was nothing to finish.")
    if done["changed"] and is_client:
        _tell_left(asker, which)


@rotate.command("cancel", short_help="Give the next server authority up, before the switch.")
@_with_whereabouts
def cancel(where: Whereabouts) -> None:
    """Give the next server authority up, before the switch; devices forget it when they renew."""
    done = where.asker().call("POST", "/v1/authorities/server/cancel", {})
    click.echo("The next server authority is given up." if done["changed"] else "There was nothing to cancel.")


# ---- the server authority's key


@ca.command("export", short_help="Keep both authorities with their keys in one sealed file.")
@click.option("-o", "--output", "path", type=PATH, required=True, metavar="FILE", help="Where to; a new file.")
@_passphrase_option
@click.option("--remove-key", is_flag=True, help="Then take the server authority's key out of the data folder.")
@_with_whereabouts
def export(where: Whereabouts, *, path: Path, source: str | None, remove_key: bool) -> None:
    """Keep both authorities with their keys in one file, sealed by a passphrase, and read it back.

    With --remove-key the daemon goes on without the server authority's key, with a certificate of its own for five
    years; then bring the file for a moment: hengd ca reissue --from FILE. The key's file is removed, its blocks on the
    disk are not overwritten: on flash nothing does that for certain, but a disk that is encrypted.
    """
    if path.exists():
        raise Conflict("exists", f"{path} exists; nothing was done", cure="choose another name")
    passphrase = asked_passphrase(source, again=True)
    asker = where.asker()
    sealed = asker.fetch("POST", "/v1/authorities/export", {"passphrase": passphrase})
    fingerprint = _keep(path, sealed, passphrase)
    click.echo(f"{path} has both authorities with their keys, and was read back. Keep the passphrase elsewhere.")
    if not remove_key:
        return
    done = asker.call("POST", "/v1/authorities/server/remove-key", {"fingerprint": fingerprint})
    click.echo("The server authority's key is in that file only now." if done["changed"] else "It was gone before.")
    click.echo("Make a copy of the file on another medium, and take both away from this machine.")


@ca.command("import", short_help="Put the server authority's key back.")
@click.argument("path", type=PATH, metavar="FILE")
@_passphrase_option
@click.option("--data-dir", type=PATH, envvar="HENGE_DATA_DIR", help="Data folder, while no daemon works on it.")
@_with_whereabouts
def import_(where: Whereabouts, *, path: Path, source: str | None, data_dir: Path | None) -> None:
    """Put the server authority's key back, from a file of 'hengd ca export' or from a backup.

    Also while no daemon runs, as when it does not start without the key.
    """
    key = _key_of(path, source)
    try:
        changed = where.asker().call("POST", "/v1/authorities/server/import-key", {"key": key.decode()})["changed"]
    except Unreachable as error:
        if error.code != "no_daemon":
            raise
        folder = (data_dir or state_dir(os.environ, os.getuid())).absolute()
        changed = uvloop.run(put_key_back(folder, where.settings, key, now=time.time()))
    click.echo("The server authority's key is back in the data folder." if changed else "It was there already.")


@ca.command("reissue", short_help="Make the server's certificate anew.")
@click.option("--from", "path", type=PATH, metavar="FILE", help="File with the key, if it is kept elsewhere.")
@_passphrase_option
@_with_whereabouts
def reissue(where: Whereabouts, *, path: Path | None, source: str | None) -> None:
    """Make the server's own certificate anew, with the key of a file that is used for this and not kept.

    The daemon does it by itself while it has the key.
    """
    if source is not None and path is None:
        raise Invalid("bad_usage", "--passphrase-file is for --from FILE", cure="leave it out, or add --from FILE")
    body = {} if path is None else {"key": _key_of(path, source).decode()}
    asker = where.asker()
    asker.call("POST", "/v1/authorities/server/reissue", body)
    made = asker.call("GET", "/v1/authorities")["certificate"]
    click.echo(f"The server's certificate is new: until {made['ends'][:10]}, for {', '.join(made['names'])}.")


def asked_passphrase(source: str | None, *, again: bool = False) -> str:
    """The passphrase from a file, standard input (``-``) or a prompt; raises ``Invalid`` as ``check_passphrase``."""
    if source is not None:
        passphrase = read_passphrase(source)
    elif sys.stdin.isatty():
        try:
            passphrase = str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=again, err=True))
        except UnicodeDecodeError:
            raise Malformed("bad_encoding", "the passphrase is not UTF-8", cure="type it anew") from None
    else:
        message = "a passphrase is needed and nobody can be asked"
        raise Invalid("bad_usage", message, cure="add --passphrase-file FILE, or - for standard input")
    check_passphrase(passphrase)
    return passphrase


# ---- files


def _keep(path: Path, sealed: bytes, passphrase: str) -> str:
    """Write the file beside its place, read it back, put it there; the fingerprint of the authority in it."""
    try:
        with replacing(path) as (file, temporary):
            file.write(sealed)
            file.flush()
            os.fsync(file.fileno())
            members = _read(temporary, lambda: passphrase)
            certificate = pki.certificate_der(members[SERVER_CA])
            if not pki.key_matches(certificate, members.get(SERVER_KEY, b"")):
                raise damaged("its key is not of its authority")
    except OSError as error:
        raise disk_refusal(error, f"{path} cannot be written; nothing was removed") from error
    return pki.fingerprint(certificate).hex()


def _key_of(path: Path, source: str | None) -> bytes:
    try:
        members = _read(path, lambda: asked_passphrase(source))
    except OSError as error:
        raise disk_refusal(error, f"{path} cannot be read") from error
    key = members.get(SERVER_KEY)
    if key is None:
        raise damaged("the server authority's key is not in it", cure="name a file of: hengd ca export")
    return key


def _read(path: Path, passphrase: Callable[[], str]) -> dict[str, bytes]:
    """The small members of a sealed file, read to its end; the passphrase is asked for once it is such a file."""
    with open_once(path) as file:
        header = read_header(file.read)
        return unpack(unseal(header, file.read, passphrase().encode()), None)


# ---- telling


def _tell_left(asker: Asker, which: str) -> None:
    behind = asker.call("GET", "/v1/authorities")[which]["follow"]["behind"]
    if behind:
        click.echo(f"Left behind: {_listed(behind)}. Of devices: {DEVICE_JOINS};")
        click.echo("operators log in again: hengectl token create --admin --name NAME, there: hengectl login URL")


def _told(found: dict[str, Any]) -> list[str]:
    certificate = found["certificate"]
    lines = [f"fleet        {found['fleet']}"]
    for which in ("server", "client"):
        lines += _of_authority(which, found[which], format_duration(found["within_s"]))
    lines.append(f"certificate  of the server until {certificate['ends'][:10]}, for {', '.join(certificate['names'])}")
    is_offline = found["server"]["authorities"][0]["key"] == "elsewhere"
    how = "wants the key from" if is_offline else "is made anew from"
    due = "" if certificate["trouble"] else f"             {how} {certificate['due'][:10]} on"
    due += ": hengd ca reissue --from FILE" if due and is_offline else ""
    lines += [due or f"             {certificate['trouble']}"]
    following = [f"  {one}" for one in found["next"]]
    return [*lines, *(["Next:", *following] if following else ["Nothing needs to be done."])]


def _of_authority(which: str, state: dict[str, Any], within: str) -> list[str]:
    lines: list[str] = []
    for one in state["authorities"]:
        first = f"{which:12}" if not lines else " " * 12
        shown = f"{one['does']:6} {one['fingerprint'][:16]}  until {one['ends'][:10]}, key {one['key']}"
        lines.append(f"{first} {shown}")
    follow = state["follow"]
    if state["step"] != "resting" or follow["behind"]:
        known = f"{follow['devices']} of {follow['devices_total']} devices"
        known += f", {follow['operators']} of {follow['operators_total']} operators"
        what = "have a certificate of the new one" if which == "client" else "know the one that is to sign"
        if which == "server" and state["step"] != "introduced":
            what = "know the one that signs"
        lines.append(f"             {known} {what}")
    if follow["behind"]:
        lines.append(f"             not yet: {_listed(follow['behind'])}")
        lines.append(f"             devices renew within {within}, each at a moment of its own")
    return lines


def _listed(behind: Sequence[dict[str, Any]]) -> str:
    shown = [_named(one) for one in behind[:SHOWN]]
    return ", ".join([*shown, *([f"and {len(behind) - SHOWN} more"] if len(behind) > SHOWN else [])])


def _named(one: dict[str, Any]) -> str:
    since = f" since {one['since'][:16].replace('T', ' ')}" if one["since"] else ""
    return f"{one['kind']}/{one['name']}" + (f" ({one['connection']}{since})" if one["connection"] else "")


def told_problems(error: HengeError) -> list[str]:
    """Who would be left behind, in lines."""
    return [f"  {one.object}" for one in error.problems[:SHOWN] if one.object]
