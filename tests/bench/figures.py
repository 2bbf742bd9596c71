"""What is measured of a fleet, the same way whoever serves it, and how it is printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.bench.process import Generator


class Server(Protocol):
    """Whoever serves the fleet."""

    def cpu_s(self) -> float:
        """CPU seconds used so far."""

    def resident_bytes(self) -> int:
        """Memory held now."""


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """What ``devices`` cost their server."""

    devices: int
    connected_s: float
    connect_cpu_s: float
    link_bytes: float
    """Memory per connected device."""
    idle_s: float
    idle_cpu_s: float
    walls_s: tuple[float, ...]
    cpus_s: tuple[float, ...]
    """Of each change of the whole fleet."""

    @property
    def connect_us(self) -> float:
        """CPU per connecting device."""
        return self.connect_cpu_s / self.devices * 1e6

    @property
    def change_us(self) -> float:
        """CPU per device of the median change."""
        return percentile(self.cpus_s, 0.5) / self.devices * 1e6


def measure(
    server: Server,
    load: Generator,
    devices: int,
    *,
    rounds: int,
    idle_s: float,
    change: Callable[[int], None],
) -> FleetFigures:
    """Let the devices connect, do nothing for a while, then change the whole fleet ``rounds`` times.

    ``change`` is given each round's number after the generator was told of the round.
    """
    load.expect("ready")
    cpu_before_s, bytes_before = server.cpu_s(), server.resident_bytes()
    load.tell()
    connected_s = load.expect("connected")
    connect_cpu_s = server.cpu_s() - cpu_before_s
    link_bytes = (server.resident_bytes() - bytes_before) / devices
    idle_before_s = server.cpu_s()
    time.sleep(idle_s)
    idle_cpu_s = server.cpu_s() - idle_before_s
    costs = [_round(server, load, number, change) for number in range(rounds)]
    walls_s, cpus_s = zip(*costs, strict=True)
    return FleetFigures(devices, connected_s, connect_cpu_s, link_bytes, idle_s, idle_cpu_s, walls_s, cpus_s)


def _round(server: Server, load: Generator, number: int, change: Callable[[int], None]) -> tuple[float, float]:
    cpu_before_s, started = server.cpu_s(), time.perf_counter()
    load.tell()
    change(number)
    load.expect("round")
    return time.perf_counter() - started, server.cpu_s() - cpu_before_s


def percentile(values: tuple[float, ...], share: float) -> float:
    """The value below which ``share`` of ``values`` lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def show_fleet(who: str, figures: FleetFigures) -> None:
    """The lines of one server."""
    best_us = min(figures.cpus_s) / figures.devices * 1e6
    show(f"{who}: {figures.devices} devices over mTLS", f"{len(figures.cpus_s)} changes of the whole fleet")
    show("  connect all (handshake, greeting, first document, report)", f"{figures.connected_s:.1f} s")
    show("  CPU per connecting device", f"{figures.connect_us:.0f} us")
    show("  memory per connected device", f"{figures.link_bytes / 1024:.1f} KiB")
    idle_percent = figures.idle_cpu_s / figures.idle_s * 100
    show(f"  CPU while nothing happens, over {figures.idle_s:.0f} s", f"{idle_percent:.2f} % of one core")
    show("  one change -> all reports back, wall p50", f"{percentile(figures.walls_s, 0.5):.2f} s")
    show("  CPU per device and change, p50 / best", f"{figures.change_us:.1f} / {best_us:.1f} us")


def show_ratios(peer_name: str, ours: FleetFigures, peer: FleetFigures) -> None:
    """The lines that budgets are about."""
    show(f"henge / {peer_name}: {ours.devices} devices", "")
    show("  CPU per connecting device", f"{ours.connect_us / peer.connect_us:.2f}")
    show("  memory per connected device", f"{ours.link_bytes / peer.link_bytes:.2f}")
    show("  CPU per device and change, p50", f"{ours.change_us / peer.change_us:.2f}")


def show(what: str, figure: str) -> None:
    """One line of the table."""
    print(f"{what:64} {figure}".rstrip(), flush=True)
