"""Being told by the kernel when a file is changed, replaced or removed: inotify(7), free while all is quiet.

What is watched are the files' folders, because most programs replace a file instead of writing into it.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _ONLYDIR = 0x400, 0x800, 0x1000000
_OVERFLOWED, _IGNORED = 0x4000, 0x8000
_EVENTS: Final = (
    _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
)
_ALWAYS: Final = _OVERFLOWED | _IGNORED | _DELETE_SELF | _MOVE_SELF
"""Events that tell of no name: anything may have happened."""
_HEAD: Final = struct.Struct("iIII")
_READ_BYTES: Final = 64 * 1024


class Watch:
    """Watches over some files from within a running event loop; ``close`` ends it."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """A system that offers no watching is told once, and then nothing is ever noticed."""
        self._names: dict[Path, set[bytes]] = {}
        for path in paths:
            self._names.setdefault(path.parent, set()).add(os.fsencode(path.name))
        self._folders: dict[int, Path] = {}
        self._changed = asyncio.Event()
        self._fd = -1
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = _checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        except (OSError, AttributeError) as error:
            log.warning("changes of outputs are noticed only when the agent connects: %s", error)
            return
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        self.renew()
        self._changed.clear()

    def renew(self) -> None:
        """Watch the folders that are there now; files of one that was not there before may be others meanwhile."""
        if self._fd < 0:
            return
        for folder in self._names:
            try:
                number = _checked(self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _EVENTS))
            except OSError as error:
                log.debug("cannot watch %s: %s", folder, error)
            else:
                if number not in self._folders:
                    self._changed.set()
                self._folders[number] = folder

    async def changed(self) -> None:
        """Wait until one of the files may be another than at the last return."""
        await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, mask, _, size = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + size].rstrip(b"\0")
            at += _HEAD.size + size
            folder = self._folders.get(number)
            if mask & _IGNORED:
                self._folders.pop(number, None)
            if mask & _ALWAYS or (folder is not None and name in self._names[folder]):
                self._changed.set()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
