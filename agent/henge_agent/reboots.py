"""Whether the machine has to be started again for what was applied, remembered until it was."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from henge_protocol.errors import HengeError
from henge_protocol.keyfiles import DISK, Files, read_private, remove_file, write_private
from henge_protocol.wire import Report

FILE_NAME: Final = "reboot-required"
REASON: Final = "reboot-required"

log = logging.getLogger(__name__)


class Reboots:
    """Remembers in the state folder during which boot, and by which document, a reboot became required.

    ``boot`` names the present one.
    """

    def __init__(self, folder: Path, boot: str, *, files: Files = DISK) -> None:
        self._path = folder / FILE_NAME
        self._boot = boot
        self._files = files
        self._since, self._by = self._read()

    @property
    def required(self) -> bool:
        """Whether something waits for the next boot."""
        return self._since == self._boot

    @property
    def over(self) -> bool:
        """Whether the machine was started again since, and that has not been said yet."""
        return self._since is not None and not self.required

    def require(self, digest: str) -> None:
        """Something in this document counts after the next boot."""
        if self.required:
            return
        try:
            write_private(self._path, f"{self._boot}\n{digest}".encode(), files=self._files)
        except HengeError as error:
            log.warning("that a reboot is required is forgotten when the agent ends: %s", error)
        self._since, self._by = self._boot, digest

    def take_back(self, digest: str) -> None:
        """This document is not applied after all; what another one asked for stands."""
        if self.required and self._by == digest:
            self.forget()

    def noted(self, report: Report | None) -> Report | None:
        """The report, saying so if a reboot is required."""
        if report is None or not self.required or report.state != "applied":
            return report
        return replace(report, reason=REASON)

    def forget(self) -> None:
        """It was said that the reboot has been."""
        self._since, self._by = None, ""
        try:
            remove_file(self._path, files=self._files)
        except HengeError as error:
            log.warning("a file of no more use stays: %s", error)

    def _read(self) -> tuple[str | None, str]:
        try:
            boot, _, digest = read_private(self._path).decode("utf-8", "replace").partition("\n")
        except HengeError:
            return None, ""  # absent, or not ours to read
        return boot, digest
