"""The process around the daemon: standard streams, signals, descriptors, memory, trouble of the loop, the watchdog."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from hengd.settings import Settings
from henge_protocol.errors import HengeError
from henge_protocol.notify import notify, watchdog_interval_s

log = logging.getLogger("hengd")

MAX_FILES: Final = 65_536
HARMLESS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Their default is to end the process, and people send them to daemons that they expect to reload."""
LIVE: Final = "daemon.log_level"
"""The one setting that a reload changes; the others are built into what runs."""


def fill_standard_streams() -> None:
    """Put ``/dev/null`` where standard input, output or error is closed.

    Else the next socket or file gets the number, is printed into, and uvloop aborts when it closes it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # lives to the end


def ignore_signals() -> None:
    """Let nothing happen where there is nothing to reload (SIGHUP: not yet)."""
    for number in HARMLESS:
        signal.signal(number, signal.SIG_IGN)


def raise_file_limit() -> int:
    """Take what the system allows: every connection is a descriptor, and 1,024 of them are a small fleet; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MAX_FILES) if hard != resource.RLIM_INFINITY else MAX_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def reload_settings(running: Settings, reread: Callable[[], Settings]) -> None:
    """Read the settings again: the log's level changes at once, of the others it is told that they wait for a restart.

    Bad settings change nothing, and are told; the daemon goes on.
    """
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", environ=os.environ)
    try:
        found = reread()
    except HengeError as error:
        log.warning("settings stay as they were: %s", error.message, extra={"event": "reload_refused"})
    else:
        logging.getLogger().setLevel(found[LIVE].upper())
        waiting = [one.setting.key for one in found.values() if one.value != running[one.setting.key]]
        wait = ", ".join(key for key in waiting if key != LIVE)
        log.info(
            "settings read again%s", f"; a restart is needed for {wait}" if wait else "", extra={"event": "reloaded"}
        )
    notify("READY=1", environ=os.environ)


def note_loop_trouble(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop's libraries tell: a peer that breaks off is everyday, anything else is worth a line."""
    error = context.get("exception")
    everyday = isinstance(error, OSError) or (isinstance(error, type) and issubclass(error, OSError))
    level = logging.DEBUG if everyday else logging.ERROR
    shown = error if isinstance(error, BaseException) else None
    log.log(
        level, "%s: %r", context.get("message", "event loop"), error, exc_info=shown, extra={"event": "loop_trouble"}
    )


def spare_the_collector() -> None:
    """What was made at start lives to the end, and links hold no cycles: look for garbage rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def say(*lines: str, err: bool = False) -> None:
    """Print for people; a reader that has gone away, or a full disk under the file, is no reason to end."""
    stream = sys.stderr if err else sys.stdout
    try:
        print(*lines, sep="\n", file=stream, flush=True)
    except OSError:  # what is still in the buffer must not fail again at exit
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


async def feed_watchdog(beats: Callable[[], bool]) -> None:
    """Tell systemd that the daemon lives, for as long as ``beats`` says so."""
    interval_s = watchdog_interval_s(os.environ, os.getpid())
    while interval_s is not None:
        if beats():
            notify("WATCHDOG=1", environ=os.environ)
        await asyncio.sleep(interval_s)
