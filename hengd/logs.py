"""Log lines as events with fields: text for people, logfmt for the journal, JSON for machines.

Lines are written by a thread of their own, so that a slow journal never blocks the event loop; a full queue
drops lines, counts them, and says so when there is room again. ``docs/operations.md`` lists the events.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import queue
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

FIELDS: Final = ("event", "device", "object", "revision", "remote", "request_id", "reason")
MAX_QUEUED: Final = 10_000
_PRIORITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class _Queue(logging.handlers.QueueHandler):
    """Drops instead of blocking when the writer cannot keep up."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Fix the message now, while its arguments are what they were; the traceback stays apart from it."""
        record.message = record.msg = record.getMessage()
        record.args = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self.dropped:
                self.queue.put_nowait(_gap(self.dropped))
                self.dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class Logs:
    """The logging set-up of one process; ``stop`` writes what is queued."""

    def __init__(self, level: str, form: str, stream: TextIO, environ: Mapping[str, str]) -> None:
        writer = logging.StreamHandler(stream)
        writer.setFormatter(_formatter(form, stream, environ))
        entries: queue.Queue[logging.LogRecord] = queue.Queue(MAX_QUEUED)
        self._listener = logging.handlers.QueueListener(entries, writer)
        root = logging.getLogger()
        root.handlers = [_Queue(entries)]
        root.setLevel(level.upper())
        logging.getLogger("zeroconf").setLevel("CRITICAL")  # at every try again; the announcer tells it once
        logging.getLogger("asyncio").setLevel("WARNING")
        logging.getLogger("aiohttp").setLevel("ERROR")
        self._listener.start()

    def stop(self) -> None:
        """Write what is queued and stop the writer."""
        self._listener.stop()


def start_logs(level: str, form: str, *, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Logs:
    """Send every log line of this process to ``stream`` (standard error) in the wanted form."""
    return Logs(level, form, stream or sys.stderr, environ)


def _gap(lines: int) -> logging.LogRecord:
    message = f"{lines} log lines were dropped here: nobody read them fast enough"
    return logging.makeLogRecord({"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": message})


def _formatter(form: str, stream: TextIO, environ: Mapping[str, str]) -> logging.Formatter:
    if form == "auto":
        form = "text" if stream.isatty() else "logfmt" if environ.get("JOURNAL_STREAM") else "json"
    colour = form == "text" and stream.isatty() and not environ.get("NO_COLOR")
    return {"text": _Text(colour=colour), "logfmt": _Logfmt(), "json": _Json()}[form]


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Text(logging.Formatter):
    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        if self._colour and record.levelno >= logging.WARNING:
            level = f"\x1b[3{'1' if record.levelno >= logging.ERROR else '3'}m{level}\x1b[0m"
        tail = "".join(f" {name}={value}" for name, value in _fields(record).items() if name != "event")
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return f"{_time(record)[11:19]} {level:7} {_one_line(record.getMessage())}{tail}{trace}"


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "logger": record.name,
            **_fields(record),
        }
        if record.exc_info:
            fields["err"] = self.formatException(record.exc_info)
        text = " ".join(f"{name}={json.dumps(str(value), ensure_ascii=True)}" for name, value in fields.items())
        return f"<{_PRIORITY.get(record.levelname, 6)}>{text}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "logger": record.name,
        }
        line |= {name: str(value) for name, value in _fields(record).items()}
        if record.exc_info:
            line["err"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
