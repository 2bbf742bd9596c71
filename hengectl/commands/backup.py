"""``backup``: everything that another machine needs to be this daemon, in one sealed file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from henge_protocol.arguments import FILE
from henge_protocol.errors import Conflict, Invalid
from henge_protocol.keyfiles import file_refusal, open_once, read_passphrase, replacing
from hengectl.invocation import Command, Invocation, with_invocation
from hengectl.render import plural, safe

PATIENCE_S: Final = 600.0
"""For each piece: before the first the daemon copies its store and reads all of it."""


@click.command("backup", cls=Command, short_help="Keep everything of the daemon in one sealed file.")
@click.option("-o", "--output", type=FILE, metavar="FILE|-", help="Make a backup, there.")
@click.option("--verify", "existing", type=FILE, metavar="FILE", help="Read such a file to its end instead.")
@click.option("--passphrase-file", "source", type=FILE, metavar="FILE|-", help="Not from a prompt but from there.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@with_invocation
def backup_command(
    invocation: Invocation, output: str | None, existing: str | None, source: str | None, *, force: bool
) -> None:
    """Keep the store, the authorities, the revocations and the key of the secrets in one file, sealed by a passphrase.

    The daemon goes on meanwhile. Without the passphrase nobody can open the file, you included; 'hengd restore' makes
    a data folder of it again, here or on another machine.
    """
    if force and existing is not None:
        raise Invalid("bad_usage", "--force is for -o: --verify writes nothing", cure="leave --force out")
    if (output is None) == (existing is None):
        raise Invalid("bad_usage", "either -o FILE or --verify FILE is needed", cure="hengectl backup -o henge.backup")
    if existing is not None:
        about = _verified(Path(existing), lambda: _passphrase(invocation, source, again=False))
        invocation.paper.say(f"{safe(existing)} is whole: {_told(about)}")
    elif output == "-":
        _to_standard_output(invocation, source)
    else:
        _to_file(invocation, Path(output or ""), source, force=force)


def _to_file(invocation: Invocation, path: Path, source: str | None, *, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise Conflict("exists", f"{path} exists; nothing was done", cure="choose another name, or add --force")
    if path.exists() and not path.is_file():
        raise Invalid("bad_file", f"{path} is no file that a backup could replace", cure="choose another name")
    try:
        with replacing(path) as (file, temporary):
            passphrase = _passphrase(invocation, source, again=True)
            invocation.note("The daemon copies its store and reads it through ...")
            invocation.client.save("/v1/backup", {"passphrase": passphrase}, _writer(file, path), patience_s=PATIENCE_S)
            file.flush()
            os.fsync(file.fileno())
            about = _verified(temporary, lambda: passphrase)
    except OSError as error:
        raise file_refusal(error, path, "write") from None
    invocation.paper.say(f"{safe(str(path))}, {path.stat().st_size:,} bytes, read back and whole: {_told(about)}")
    if not about.get("secrets"):
        invocation.note("The key of the secrets is not in it, because the secrets are locked. See: hengectl status")
    invocation.note(f"Keep the passphrase elsewhere. To get it all back: hengd restore {path}")


def _to_standard_output(invocation: Invocation, source: str | None) -> None:
    if sys.stdout.isatty():
        raise Invalid("bad_usage", "a terminal is no place for a backup", cure="hengectl backup -o henge.backup")
    passphrase = _passphrase(invocation, source, again=True)
    write = _writer(sys.stdout.buffer, Path("standard output"))
    invocation.client.save("/v1/backup", {"passphrase": passphrase}, write, patience_s=PATIENCE_S)
    sys.stdout.buffer.flush()


def _passphrase(invocation: Invocation, source: str | None, *, again: bool) -> str:
    from henge_protocol.sealedfile import check_passphrase

    passphrase = read_passphrase(source) if source is not None else _asked(invocation, again=again)
    check_passphrase(passphrase)
    return passphrase


def _asked(invocation: Invocation, *, again: bool) -> str:
    if not invocation.interactive:
        raise Invalid(
            "bad_usage", "a passphrase is needed and nobody can be asked",
            cure="add --passphrase-file FILE, or - for standard input",
        )  # fmt: skip
    return invocation.hidden("Passphrase", again=again)


def _writer(file: BinaryIO, path: Path) -> Any:
    def write(piece: bytes) -> None:
        try:
            file.write(piece)
        except OSError as error:
            raise file_refusal(error, path, "write") from None

    return write


def _verified(path: Path, passphrase: Callable[[], str]) -> dict[str, Any]:
    """The header of a backup that was opened to its last byte; the passphrase is asked for once it is a backup."""
    from henge_protocol.sealedfile import read_header, unseal

    with open_once(path) as file:
        try:
            header = read_header(file.read)
            for _ in unseal(header, file.read, passphrase().encode()):
                pass
        except OSError as error:
            raise file_refusal(error, path, "read") from None
    return header.about


def _told(about: dict[str, Any]) -> str:
    devices, revision = about.get("devices", 0), about.get("revision", 0)
    fleet, made = safe(str(about.get("fleet", "")))[:26], safe(str(about.get("made", "")))
    return f"fleet {fleet} as of {made}, revision {revision}, {plural(devices, 'device')}"
