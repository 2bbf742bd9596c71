"""Backups by themselves: one every so often into a folder, the newest few kept."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from hengd.backup import Backups
from hengd.room import disk_refusal
from hengd.rules.outcome import Author
from hengd.settings import Settings
from henge_protocol.errors import HengeError, Invalid
from henge_protocol.keyfiles import read_passphrase, sync_folder
from henge_protocol.sealedfile import check_passphrase, read_header, unseal

log = logging.getLogger("hengd.backup")

_NAME: Final = re.compile(r"henge-([0-9]{8}T[0-9]{6}Z)\.backup", re.ASCII)
_FORM: Final = "%Y%m%dT%H%M%SZ"
_AUTHOR: Final = Author("henge", "schedule", may_end_identities=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to, how often, how many are kept, and what seals them."""

    folder: Path
    every_s: float
    keep: int
    passphrase_file: str


def plan_of(settings: Settings) -> Plan | None:
    """The plan that the settings make; ``Invalid bad_setting`` for half of one."""
    folder, passphrase_file = settings["backup.folder"], settings["backup.passphrase_file"]
    if not folder:
        return None
    if not passphrase_file:
        message = "backup.folder is set and backup.passphrase_file is not"
        raise Invalid("bad_setting", message, cure="write a passphrase into a file of mode 0600 and name it there")
    return Plan(Path(folder), settings.seconds("backup.every"), settings["backup.keep"], passphrase_file)


class Schedule:
    """Makes a backup when one is due; trouble is logged, and the next turn tries again."""

    def __init__(self, backups: Backups, plan: Plan | None, *, clock: Callable[[], float]) -> None:
        self._backups = backups
        self._plan = plan
        self._clock = clock

    async def turn(self) -> None:
        """Make the backup that is due, if one is, and drop what is more than is kept."""
        plan, now = self._plan, self._clock()
        if plan is None or not _is_due(_made(plan.folder), now, plan.every_s):
            return
        try:
            path, has_key = await self._make(plan, now)
        except HengeError as error:
            log.warning("no backup was made: %s", error, extra={"event": "backup_failed"})
            return
        log.info("backup made: %s, %d bytes", path, path.stat().st_size, extra={"event": "backup_made"})
        if not has_key:
            message = "the key of the secrets is not in the backup %s: the secrets are locked"
            log.warning(message, path, extra={"event": "backup_without_key"})
        try:
            await asyncio.to_thread(_drop, plan, now)
        except OSError as error:
            message = "older backups in %s cannot be removed: %s"
            log.warning(message, plan.folder, error.strerror, extra={"event": "backup_kept_too_many"})

    async def _make(self, plan: Plan, now: float) -> tuple[Path, bool]:
        """The new backup, and whether it holds the key of the secrets."""
        passphrase = check_passphrase(await asyncio.to_thread(read_passphrase, plan.passphrase_file))
        path = plan.folder / f"henge-{datetime.fromtimestamp(now, UTC).strftime(_FORM)}.backup"
        temporary = path.with_name(f".{path.name}.new")
        try:
            file = await asyncio.to_thread(_new_file, temporary)  # before the work: a disk may be unplugged
            try:
                with file:
                    async with self._backups.made(passphrase, _AUTHOR) as backup:
                        await asyncio.to_thread(_write, file, backup.pieces, passphrase)
                        await asyncio.to_thread(_give_name, temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise disk_refusal(error, f"{path} cannot be written") from error
        return path, bool(backup.about["secrets"])


def _made(folder: Path) -> dict[datetime, Path]:
    """The backups in the folder, by when they were made."""
    found = {}
    with suppress(OSError):
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                with suppress(ValueError):
                    found[datetime.strptime(match[1], _FORM).replace(tzinfo=UTC)] = path
    return found


def _is_due(made: Iterable[datetime], now: float, every_s: float) -> bool:
    """One that is dated in the future was made by a wrong clock, or this one is wrong: it does not count."""
    return not any(0 <= now - moment.timestamp() < every_s for moment in made)


def _new_file(temporary: Path) -> BinaryIO:
    temporary.unlink(missing_ok=True)
    return open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b")


def _write(file: BinaryIO, pieces: Iterable[bytes], passphrase: bytes) -> None:
    """All of it, on the disk, and read back."""
    for piece in pieces:
        file.write(piece)
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    for _ in unseal(read_header(file.read), file.read, passphrase):
        pass


def _give_name(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    sync_folder(path.parent)


def _drop(plan: Plan, now: float) -> None:
    """Remove all but the newest; what a clock that was ahead has dated later than now is neither."""
    past = [path for moment, path in sorted(_made(plan.folder).items()) if moment.timestamp() <= now]
    for path in past[: -plan.keep]:
        path.unlink(missing_ok=True)
