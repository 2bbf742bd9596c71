"""How long the programs take by themselves: the daemon until READY, ``hengectl`` as a process, one validation."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from hengd.app import App, Environment
from hengd.rules.change import Author
from hengd.rules.configs import Request
from hengd.rules.schemas import compile_schema
from hengd.settings import load_settings
from tests.bench.figures import percentile, show
from tests.bench.service import Bench, running

PROGRAMS = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples" / "homelab"
DEVICES, REVISIONS = 10_000, 100_000
AT_ONCE = 500
BARE_CLIENT = "import click, http.client, json"


def start_times(*, large: bool, lamp: dict[str, object]) -> None:
    """From the call of ``hengd`` until it says READY=1 to its service manager."""
    with tempfile.TemporaryDirectory(prefix="henge-bench-") as name:
        folder = Path(name)
        first = _until_ready(folder)
        again = sorted(_until_ready(folder) for _ in range(5))[2]
        show("start to READY: founding / empty store", f"{first:.2f} / {again:.2f} s")
        if large:
            asyncio.run(_fill(folder, lamp))
            filled = sorted(_until_ready(folder) for _ in range(5))[2]
            show(f"  with {DEVICES} devices and {REVISIONS} revisions", f"{filled:.2f} s")


def _until_ready(folder: Path) -> float:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = folder / "notify"
        path.unlink(missing_ok=True)
        manager.bind(str(path))
        manager.settimeout(60)
        command = [
            str(PROGRAMS / "hengd"), "run", "--data-dir", str(folder / "data"), "--socket", str(folder / "admin.sock"),
            "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--no-mdns",
        ]  # fmt: skip
        started = time.perf_counter()
        daemon = subprocess.Popen(
            command,
            env={**os.environ, "NOTIFY_SOCKET": str(path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while b"READY=1" not in manager.recv(4096):
                continue
            return time.perf_counter() - started
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


async def _fill(folder: Path, lamp: dict[str, object]) -> None:
    """Put a large fleet with a long history into a data folder, by the daemon's own rules."""
    flags = {"listen.devices": "127.0.0.1:0", "listen.local": "127.0.0.1:0", "join.mdns": False}
    app = App(load_settings(flags=flags), Environment(folder / "data", folder / "admin.sock"))
    await app.start()
    by = Request(Author("bench", "bench", may_end_identities=True))
    schema = {"kind": "Schema", "metadata": {"name": "lamp"}, "spec": {"schema": lamp}}
    names = [f"lamp-{number}" for number in range(DEVICES)]
    await app.configs.apply([schema], [], by)
    for start in range(0, DEVICES, AT_ONCE):
        some = names[start : start + AT_ONCE]
        await app.configs.apply(
            [{"kind": "Device", "metadata": {"name": n}, "spec": {"schema": "lamp"}} for n in some], [], by
        )
    for start in range(app.summary()["revision"], REVISIONS, AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            for number in range(start, min(start + AT_ONCE, REVISIONS)):
                patch = {"spec": {"values": {"brightness": number}}}
                tasks.create_task(app.configs.patch("Device", names[number % DEVICES], patch, None, by))
    await app.stop()


def command_times(prepare: Callable[[Bench, list[str]], None], *, runs: int = 21) -> None:
    """``hengectl get devices`` of fifty devices as a process, beside an interpreter that only imports its libraries."""
    with running() as bench:
        prepare(bench, [f"lamp-{number}" for number in range(50)])
        ours = _times([str(PROGRAMS / "hengectl"), "--socket", str(bench.socket), "get", "devices"], runs)
    bare = _times([sys.executable, "-c", BARE_CLIENT], runs)
    for what, taken in (
        ("hengectl get devices, 50 devices, as a process", ours),
        (f"  python -c {BARE_CLIENT!r}", bare),
    ):
        show(f"{what}: p50 / best", f"{_ms([wall_s for wall_s, _ in taken])} ms")
        show("  of these on a processor: p50 / best", f"{_ms([cpu_s for _, cpu_s in taken])} ms")
    show(
        "  ratio of the best, on a processor",
        f"{min(cpu_s for _, cpu_s in ours) / min(cpu_s for _, cpu_s in bare):.2f}",
    )


def _times(command: list[str], runs: int) -> list[tuple[float, float]]:
    """By the clock, and on a processor, which other work on the machine lengthens less; in seconds."""
    taken = []
    for _ in range(runs):
        started, before = time.perf_counter(), _children_cpu_s()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append((time.perf_counter() - started, _children_cpu_s() - before))
    return taken


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ms(times: Sequence[float]) -> str:
    return f"{percentile(tuple(times), 0.5) * 1000:.0f} / {min(times) * 1000:.0f}"


def validation_time(*, documents: int = 20_000) -> None:
    """One document of the sample fleet against its schema, in bulk, and by the library that is the oracle in tests."""
    import jsonschema

    schema = yaml.safe_load((EXAMPLES / "schemas" / "thermostat.yaml").read_text())["spec"]["schema"]
    compiled = compile_schema("thermostat", schema)
    document = json.loads(json.dumps(compiled.defaults_for({})))
    ours = _per_call(lambda: compiled.validate(document), documents)
    oracle = jsonschema.Draft202012Validator(schema)
    theirs = _per_call(lambda: list(oracle.iter_errors(document)), documents // 100)
    show("validating one document, thermostat of the sample fleet", f"{ours * 1e6:.1f} us")
    show("  jsonschema", f"{theirs * 1e6:.0f} us")


def _per_call(call: Callable[[], object], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - started) / times
