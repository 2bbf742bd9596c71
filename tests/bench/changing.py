"""What it costs to see, and then to make, one group's change of a whole large fleet, and whom that keeps waiting."""

from __future__ import annotations

import time
from contextlib import closing

from tests.bench.figures import percentile, show
from tests.bench.reading import Neighbour, connected
from tests.bench.service import Bench

ROUNDS = 5


def show_changing(bench: Bench, count: int, *, own_documents: bool) -> None:
    """The lines of one fleet: wall time and the daemon's CPU of each act, and the longest wait of somebody else."""
    kind = "each with a document of its own" if own_documents else "that share one document"
    show(f"one group change of {count} devices {kind}", f"{ROUNDS} times, somebody else asks for little all the while")
    for what, query in (("dry run, every device's differences told", "dry_run=1"), ("commit", "all_at_once=1")):
        neighbour = Neighbour(bench.socket)
        costs = [_cost(bench, query, number, count) for number in range(ROUNDS)]
        longest_s = neighbour.stop()
        walls_s, cpus_s = zip(*costs, strict=True)
        show(f"  {what}, p50 / CPU", f"{percentile(walls_s, 0.5) * 1000:.0f} / {percentile(cpus_s, 0.5) * 1000:.0f} ms")
        show("    the other's longest wait", f"{longest_s * 1000:.0f} ms")


def _cost(bench: Bench, query: str, number: int, count: int) -> tuple[float, float]:
    """Seconds until the whole answer is here, and the daemon's CPU seconds (the neighbour's share included)."""
    body = b'{"spec": {"values": {"brightness": %d}}}' % (1000 + number)
    with closing(connected(bench.socket)) as connection:
        cpu_before_s, started = bench.cpu_s(), time.perf_counter()
        connection.request("PATCH", f"/v1/groups/lamps?{query}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        took_s, used_s = time.perf_counter() - started, bench.cpu_s() - cpu_before_s
    assert answer.status == 200, text[:500]
    if "dry_run" in query:
        assert text.count(b'"pointer":"/brightness"') == count
    return took_s, used_s
