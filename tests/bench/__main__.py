"""``make bench``: how fast, how much CPU, how much memory. Prints a table; figures are of this machine and run.

The daemon runs on core 0, everything else on core 1. ``--quick`` makes it short, ``--only fleet`` picks a part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import mosquitto, programs
from tests.bench.changing import show_changing
from tests.bench.figures import FleetFigures, measure, percentile, show, show_fleet, show_ratios
from tests.bench.process import Generator, cpu_s, resident_bytes, switches
from tests.bench.reading import show_reading
from tests.bench.service import Bench, running

PING_S = 25
"""How often the daemon pings a silent link."""
SETTLING_S = 5.0

LAMP = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "color": {"type": "string", "enum": ["red", "green", "blue"], "default": "green"},
        "brightness": {"type": "integer", "minimum": 0, "maximum": 100000, "default": 80},
        "name": {"type": "string", "default": "a lamp that stands in a room of the house " * 4},
    },
}


def change_latency(changes: int) -> None:
    """PATCH on the socket -> the agent's file holds the value and its report is durable."""
    with running() as bench:
        prepare(bench, ["lamp-0"])
        with running_agent(bench) as (_, output):
            wait_reported(bench, 0, lambda event: event["state"] == "applied")
            times = [one_change(bench, output, number) for number in range(changes)]
    show("one change: PATCH -> file on the device and durable report", f"{changes} changes")
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        show(f"  {name}", f"{percentile(tuple(times), share) * 1000:.1f} ms")


def agent_at_rest(quiet_s: float) -> None:
    """What an agent costs that is connected, has two outputs to watch over and nothing to do."""
    with running() as bench:
        prepare(bench, ["lamp-0"])
        with running_agent(bench) as (pid, _):
            wait_reported(bench, 0, lambda event: event["state"] == "applied")
            time.sleep(SETTLING_S)
            before, cpu_before_s = switches(pid), cpu_s(pid)
            time.sleep(quiet_s)
            woken, used_s, held = switches(pid) - before, cpu_s(pid) - cpu_before_s, resident_bytes(pid)
    pings = quiet_s / PING_S
    show("an agent at rest", f"{quiet_s:.0f} s, {pings:.0f} pings")
    show("  memory (budget 45 MB)", f"{held / 1e6:.1f} MB")
    show("  times it was woken", f"{woken}, {woken / pings:.1f} a ping, {woken / quiet_s:.2f} a second")
    show("  CPU", f"{used_s / quiet_s * 1e6:.0f} us a second")


@contextmanager
def running_agent(bench: Bench) -> Iterator[tuple[int, Path]]:
    """The real agent as lamp-0: its process and its first output."""
    state, output = ["--state-dir", str(bench.folder / "agent")], bench.folder / "lamp.json"
    token = bench.call("POST", "/v1/tokens", {"name": "lamp-0"})["token"]
    program, url = str(Path(sys.executable).parent / "henge-agent"), "https://{}:{}".format(*bench.address)
    join = [program, "join", url, "--token-file", "-", "--name", "lamp-0", *state]
    subprocess.run(join, input=token.encode(), check=True, capture_output=True)
    outputs = ["--output", f"{output}:json", "--output", str(output.with_suffix(".toml"))]
    agent = subprocess.Popen(["taskset", "-c", "1", program, "run", *state, *outputs], stderr=subprocess.DEVNULL)
    try:
        yield agent.pid, output
    finally:
        agent.terminate()
        agent.wait()


def one_change(bench: Bench, output: Path, number: int) -> float:
    """Seconds of one change, and proof that the file holds it."""
    seq = bench.call("GET", "/v1/events")["next"]
    started = time.perf_counter()
    bench.call("PATCH", "/v1/devices/lamp-0", {"spec": {"values": {"brightness": number + 1}}})
    wait_reported(bench, seq, lambda event: event["state"] == "applied")
    took_s = time.perf_counter() - started
    assert json.loads(output.read_text())["brightness"] == number + 1
    return took_s


def wait_reported(bench: Bench, seq: int, wanted: Callable[[dict[str, str]], bool]) -> None:
    """Until an event says that a report is durable."""
    while True:
        answer = bench.call("GET", f"/v1/events?since={seq}&wait=20")
        if any(event["type"] == "device.reported" and wanted(event) for event in answer["events"]):
            return
        seq = answer["next"]


def fleet(count: int, *, rounds: int, idle_s: float) -> FleetFigures:
    """A whole fleet online over mTLS: memory per link, and CPU per device of one group change."""
    with running() as bench:
        names = [f"lamp-{number}" for number in range(count)]
        prepare(bench, names)
        work = bench.folder / "work.json"
        work.write_text(json.dumps(fleet_work(bench, names)))

        def change(number: int) -> None:
            bench.call("PATCH", "/v1/groups/lamps?all_at_once=1", {"spec": {"values": {"brightness": number + 1000}}})

        with Generator("tests.bench.load", work) as load:
            return measure(bench, load, count, rounds=rounds, idle_s=idle_s, change=change)


def fleet_work(bench: Bench, names: list[str]) -> dict[str, object]:
    """What the generator has to know; enrols the devices."""
    host, port = bench.address
    identities, authorities = bench.enrol(names), [pem_body(bench)]
    return {"host": host, "port": port, "fleet": bench.fleet, "server_ca": authorities, "identities": identities}


def compare_fleets(count: int, *, rounds: int, idle_s: float) -> None:
    """henge, then its peer where that is installed, then the ratios."""
    ours = fleet(count, rounds=rounds, idle_s=idle_s)
    show_fleet("henge", ours)
    broker = mosquitto.program()
    if broker is None:
        show("mosquitto: skipped, it is not installed", "apt-get install mosquitto")
        return
    peer = mosquitto.fleet(broker, count, rounds=rounds, idle_s=idle_s)
    show_fleet(mosquitto.version(broker), peer)
    show_ratios("mosquitto", ours, peer)


def prepare(bench: Bench, names: list[str], *, own_documents: bool = False) -> None:
    """A schema, a group that selects all lamps, the lamps."""
    schema = {"kind": "Schema", "metadata": {"name": "lamp"}, "spec": {"schema": LAMP}}
    group = {"kind": "Group", "metadata": {"name": "lamps"}, "spec": {"schema": "lamp", "values": {"color": "blue"}}}
    devices = [
        {
            "kind": "Device",
            "metadata": {"name": name},
            "spec": {"schema": "lamp", "values": {"name": name} if own_documents else {}},
        }
        for name in names
    ]
    bench.call("POST", "/v1/apply", {"objects": [schema, group]})
    for start in range(0, len(devices), 1000):
        bench.call("POST", "/v1/apply", {"objects": devices[start : start + 1000]})


def pem_body(bench: Bench) -> str:
    """The server authority's certificate, base64 DER, from the data folder."""
    text = (bench.folder / "data" / "data" / "ca" / "server-ca.crt").read_text()
    return "".join(line for line in text.splitlines() if not line.startswith("-"))


def reading(count: int) -> None:
    """Status and list of a large fleet."""
    with running() as bench:
        prepare(bench, [f"lamp-{number}" for number in range(count)])
        show_reading(bench, count)


def changing(count: int) -> None:
    """One group's change of a large fleet."""
    for own_documents in (False, True):
        with running() as bench:
            prepare(bench, [f"lamp-{number}" for number in range(count)], own_documents=own_documents)
            show_changing(bench, count, own_documents=own_documents)


PARTS = ("change", "agent", "programs", "reading", "changing", "fleet")


def main() -> None:
    """Run the parts that are wanted."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part alone")
    parser.add_argument("--quick", action="store_true", help="fewer changes, 1,000 devices only")
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
    parts = chosen.only or PARTS
    if "change" in parts:
        change_latency(50 if chosen.quick else 200)
    if "agent" in parts:
        agent_at_rest(50 if chosen.quick else 250)
    if "programs" in parts:
        programs.start_times(large=not chosen.quick, lamp=LAMP)
        programs.command_times(prepare)
        programs.validation_time()
    if "reading" in parts:
        for count in (1000,) if chosen.quick else (5000, 10000):
            reading(count)
    if "changing" in parts:
        changing(1000 if chosen.quick else 10_000)
    if "fleet" in parts:
        for count in (1000,) if chosen.quick else (1000, 5000):
            compare_fleets(count, rounds=3 if chosen.quick else 7, idle_s=5 if chosen.quick else 30)


if __name__ == "__main__":
    main()
