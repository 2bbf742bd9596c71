"""What the agent says of itself while it works: short lines on standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final


def log_to_stderr(*, debug: bool) -> None:
    """Short lines on stderr; under systemd with the priority that the journal understands."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(in_journal="JOURNAL_STREAM" in os.environ and not sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("henge_agent", "henge_protocol"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
    for name in (
        "asyncio",
        "zeroconf",
    ):  # they tell a network without multicast by tracebacks; browse tells it in a line
        logging.getLogger(name).setLevel(logging.WARNING if debug else logging.CRITICAL)


class _Lines(logging.Formatter):
    """``level message``, the traceback below; no time where the journal adds its own."""

    _PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}

    def __init__(self, *, in_journal: bool) -> None:
        super().__init__("%(message)s" if in_journal else "%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
        self._in_journal = in_journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"<{self._PRIORITIES.get(record.levelno, 3)}>{text}" if self._in_journal else text
