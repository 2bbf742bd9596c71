"""The agent at work: state, applier and runner put together, signals and the service manager heard.

The only module that knows all others; tests assemble the agent here too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import random
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from henge_agent.activation import hook_environ
from henge_agent.applier import Applier
from henge_agent.discover import find_fleet
from henge_agent.link import Greeting
from henge_agent.runner import Runner, Surroundings
from henge_agent.settings import Hooks, Output
from henge_agent.state import State
from henge_protocol.errors import Conflict
from henge_protocol.notify import notify, watchdog_interval_s

log = logging.getLogger(__name__)


async def serve(folder: Path, outputs: tuple[Output, ...], hooks: Hooks, environ: Mapping[str, str]) -> None:
    """Run the agent on a state folder until SIGTERM or SIGINT.

    Raises ``Conflict not_joined`` before joining, and what opening the state raises.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    with closing(await asyncio.to_thread(State, folder)) as state:
        runner = assemble(state, outputs, hooks, surroundings(environ), environ)
        tasks = [asyncio.create_task(runner.run()), asyncio.create_task(_watchdog(environ))]
        stopping = asyncio.create_task(stopped.wait())
        notify("READY=1", environ=environ)
        await asyncio.wait([tasks[0], stopping], return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1", environ=environ)
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.wait([*tasks, stopping])
        if not tasks[0].cancelled():
            tasks[0].result()
    log.info("stopped; outputs stay as they are")


def assemble(
    state: State, outputs: tuple[Output, ...], hooks: Hooks, around: Surroundings, environ: Mapping[str, str]
) -> Runner:
    """The runner of a joined device. Raises ``Conflict not_joined`` for one that is not."""
    if state.membership is None:
        raise not_joined(state.folder)
    if not outputs and not any((hooks.on_change, hooks.check, hooks.sections)):
        log.warning("documents will be confirmed and nothing written: no output is named (--output FILE)")
    boot = boot_nonce()
    applier = Applier(state, outputs, hooks, environ=hook_environ(environ), clock=around.clock, boot=boot)
    return Runner(state, applier, Greeting(boot, facts()), around)


def surroundings(environ: Mapping[str, str]) -> Surroundings:
    """The real ones."""
    return Surroundings(
        now=time.time,
        clock=time.monotonic,
        sleep=asyncio.sleep,
        random=random.SystemRandom().random,
        uptime_s=_uptime_s(),
        find=find_fleet,
        tell=lambda text: void(notify(f"STATUS={text}", environ=environ)),
    )


def not_joined(folder: Path) -> Conflict:
    """The refusal to work before joining."""
    return Conflict(
        "not_joined",
        f"this device has not joined a fleet yet (nothing in {folder})",
        cure="henge-agent join https://HOST:4364 --token-file FILE",
    )


def facts() -> dict[str, str | int | float | bool]:
    """What a person wants to know about this machine."""
    system = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    known = {
        "host": platform.node(),
        "os": system.get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "model": _model(),
        "python": platform.python_version(),
    }
    return {key: text[:120] for key, text in known.items() if text}


def boot_nonce() -> str:
    """The kernel's name for this boot: the same identity alive under two of them is a clone."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:64]
    except OSError:
        return os.urandom(16).hex()


def void(_: object) -> None:
    """Drop a value that a callback has no use for."""


def _model() -> str:
    """Which board this is, where the firmware says so (a Pi does)."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _uptime_s() -> float:
    try:
        return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return float("inf")


async def _watchdog(environ: Mapping[str, str]) -> None:
    interval_s = watchdog_interval_s(environ, os.getpid())
    while interval_s is not None:
        notify("WATCHDOG=1", environ=environ)
        await asyncio.sleep(interval_s)
