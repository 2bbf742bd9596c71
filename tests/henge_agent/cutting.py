"""Files of which the n-th operation, and everything after it, never happens: the power is off."""

from __future__ import annotations

import errno
import os
from typing import Any


class Cut(BaseException):
    """Stands for the power going off."""


class CuttingFiles:
    """The real operations until ``n`` of them are done; then nothing reaches the disk any more."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __getattr__(self, name: str) -> Any:
        def operation(*arguments: Any) -> Any:
            if self.left <= 0:
                if name == "close":
                    return os.close(*arguments)  # the kernel closes what a dead process had open
                raise Cut
            self.left -= 1
            return getattr(os, name)(*arguments)

        return operation


class Unremovable:
    """Files on a disk that lets no file go."""

    def __getattr__(self, name: str) -> Any:
        def operation(*arguments: Any) -> Any:
            if name == "unlink":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return getattr(os, name)(*arguments)

        return operation


class FullDisk:
    """Files on a disk that takes no more bytes while ``full``; or no file whose name contains ``only``."""

    def __init__(self, *, only: str = "") -> None:
        self.full = True
        self._only = only

    def __getattr__(self, name: str) -> Any:
        def operation(*arguments: Any) -> Any:
            if self.full and (name == "open" and self._only in arguments[0] if self._only else name == "write"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return getattr(os, name)(*arguments)

        return operation


class Unplaceable:
    """Files on a disk that lets no file whose name contains ``only`` take another's place."""

    def __init__(self, only: str) -> None:
        self.only = only

    def __getattr__(self, name: str) -> Any:
        def operation(*arguments: Any) -> Any:
            if name == "replace" and self.only in arguments[1]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return getattr(os, name)(*arguments)

        return operation
