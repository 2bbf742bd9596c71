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
from collections.abc import Callable
from pathlib import Path

from tests.bench.service import Bench, running

LAMP = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "color": {"type": "string", "enum": ["red", "green", "blue"], "default": "green"},
        "brightness": {"type": "integer", "minimum": 0, "maximum": 100000, "default": 80},
        "name": {"type": "string", "default": "a lamp that stands in a room of the house " * 4},
    },
}


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def change_latency(changes: int) -> None:
    """PATCH on the socket -> the agent's file holds the value and its report is durable."""
    with running() as bench:
        prepare(bench, ["lamp-0"])
        folder = bench.folder / "agent"
        token = bench.call("POST", "/v1/tokens", {"name": "lamp-0"})["token"]
        programs, url = Path(sys.executable).parent, "https://{}:{}".format(*bench.address)
        join = [str(programs / "henge-agent"), "join", url, "--token-file", "-", "--name", "lamp-0", "--state-dir", str(folder)]
        subprocess.run(join, input=token.encode(), check=True, capture_output=True)
        output = bench.folder / "lamp.json"
        run = ["taskset", "-c", "1", str(programs / "henge-agent"), "run", "--state-dir", str(folder), "--output", f"{output}:json"]
        agent = subprocess.Popen(run, stderr=subprocess.DEVNULL)
        try:
            wait_reported(bench, 0, lambda event: event["state"] == "applied")
            times = [one_change(bench, output, number) for number in range(changes)]
        finally:
            agent.terminate()
            agent.wait()
    show("one change: PATCH -> file on the device and durable report", f"{changes} changes")
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        show(f"  {name}", f"{percentile(times, share) * 1000:.1f} ms")


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


def fleet(count: int, rounds: int) -> None:
    """A whole fleet online over mTLS: memory per link, and CPU per device of one group change."""
    with running() as bench:
        names = [f"lamp-{number}" for number in range(count)]
        prepare(bench, names)
        work = bench.folder / "work.json"
        host, port = bench.address
        identities = bench.enrol(names)
        trust = [pem_body(bench)]
        work.write_text(json.dumps({"host": host, "port": port, "fleet": bench.fleet, "server_ca": trust, "identities": identities}))
        command = ["taskset", "-c", "1", sys.executable, "-m", "tests.bench.load", str(work)]
        load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            measure_fleet(bench, load, count, rounds)
        finally:
            load.kill()
            load.wait()


def measure_fleet(bench: Bench, load: subprocess.Popen[str], count: int, rounds: int) -> None:
    """Drive the generator and print."""
    assert load.stdin is not None and load.stdout is not None
    expect(load, "ready")
    cpu_s, memory = bench.cpu_s(), bench.resident_bytes()
    tell(load)
    connected_s = expect(load, "connected")
    connect_cpu_s = bench.cpu_s() - cpu_s
    per_link = (bench.resident_bytes() - memory) / count
    idle_s = bench.cpu_s()
    time.sleep(5)
    idle_s = bench.cpu_s() - idle_s
    walls, cpus = [], []
    for number in range(rounds):
        cpu_s = bench.cpu_s()
        tell(load)
        time.sleep(0.05)
        started = time.perf_counter()
        change = {"spec": {"values": {"brightness": number + 1000}}}
        bench.call("PATCH", "/v1/groups/lamps", change)
        expect(load, "round")
        walls.append(time.perf_counter() - started)
        cpus.append(bench.cpu_s() - cpu_s)
    show(f"{count} devices over mTLS WebSockets", f"{rounds} group changes")
    show("  connect all (handshake, hello, first document, report)", f"{connected_s:.1f} s")
    show("  daemon CPU per connecting device", f"{connect_cpu_s / count * 1e6:.0f} us")
    show("  memory per connected device", f"{per_link / 1024:.1f} KiB")
    show("  daemon CPU while nothing happens", f"{idle_s / 5 * 100:.1f} % of one core")
    show("  one change -> all reports durable, wall p50", f"{percentile(walls, 0.5):.2f} s")
    show("  daemon CPU per device and change, p50 / best", f"{percentile(cpus, 0.5) / count * 1e6:.1f} / {min(cpus) / count * 1e6:.1f} us")


def prepare(bench: Bench, names: list[str]) -> None:
    """A schema, a group that selects all lamps, the lamps."""
    schema = {"kind": "Schema", "metadata": {"name": "lamp"}, "spec": {"schema": LAMP}}
    group = {"kind": "Group", "metadata": {"name": "lamps"}, "spec": {"schema": "lamp", "values": {"color": "blue"}}}
    devices = [{"kind": "Device", "metadata": {"name": name}, "spec": {"schema": "lamp"}} for name in names]
    bench.call("POST", "/v1/apply", {"objects": [schema, group]})
    for start in range(0, len(devices), 1000):
        bench.call("POST", "/v1/apply", {"objects": devices[start : start + 1000]})


def pem_body(bench: Bench) -> str:
    """The server authority's certificate, base64 DER, from the data folder."""
    text = (bench.folder / "data" / "data" / "ca" / "server-ca.crt").read_text()
    return "".join(line for line in text.splitlines() if not line.startswith("-"))


def tell(load: subprocess.Popen[str]) -> None:
    """Next step, generator."""
    assert load.stdin is not None
    load.stdin.write("\n")
    load.stdin.flush()


def expect(load: subprocess.Popen[str], word: str) -> float:
    """The number that the generator says with ``word``."""
    assert load.stdout is not None
    said = load.stdout.readline().split()
    if not said or said[0] != word:
        raise RuntimeError(f"the generator said {said}, {word} was expected")
    return float(said[1]) if len(said) > 1 else 0.0


def show(what: str, figure: str) -> None:
    """One line of the table."""
    print(f"{what:64} {figure}", flush=True)


PARTS = ("change", "fleet")


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
    if "fleet" in parts:
        for count in (1000,) if chosen.quick else (1000, 5000):
            fleet(count, 3 if chosen.quick else 7)


if __name__ == "__main__":
    main()
