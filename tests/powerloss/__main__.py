"""Power cuts, replayed: ``make powerloss``. Needs strace.

The workload runs once under strace. Before each call that touches the disk, images are built of what a cut at that
moment may leave, and a daemon's start is tried on each: it must start, whole, with everything that was answered.
Then the same with faults planted, each of which must be noticed: a harness that cannot fail proves nothing.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hengd.datadir import open_data_dir
from hengd.journal import read_ends
from hengd.transactions import Reader, open_databases, open_environment
from henge_protocol.errors import HengeError
from tests.powerloss.disk import Disk
from tests.powerloss.trace import Call, record
from tests.powerloss.workload import MAP_BYTES, NOW, SHARED, own_key, own_value

SHARES: Final = (0.0, 1.0, 0.1, 0.5, 0.9)
"""Of what was not yet durable, how much is on the disk."""
PLANTS: Final = ("sync", "metasync", "early", "folder", "journal", "torn")
SHM: Final = Path("/dev/shm")
_TOLD: Final = re.compile(rb"(FOUNDED|ASK|ACK|REVOKED) (\d+)\n")


@dataclass(slots=True)
class Told:
    """What the workload has said so far."""

    is_founded: bool = False
    asked: int = 0
    answered: int = 0
    revoked: frozenset[int] = frozenset()

    def hear(self, call: Call) -> None:
        """Take over a line of its standard output."""
        match = _TOLD.fullmatch(call.texts[0]) if call.name == "write" and call.texts else None
        if match is None:
            return
        what, number = match[1], int(match[2])
        if what == b"FOUNDED":
            self.is_founded = True
        elif what == b"REVOKED":
            self.revoked |= {number}
        elif what == b"ASK":
            self.asked = max(self.asked, number)
        else:
            self.answered = max(self.answered, number)


def images(calls: Sequence[Call], top: Path, scratch: Path, *, sector: int, wanted: int) -> Iterator[tuple[Path, Told]]:
    """About so many images, evenly over all moments, with what had been said by then."""
    moments = sum(1 for _ in _moments(calls, top, sector))
    each = max(1, round(wanted / moments))
    rng = random.Random(sector)
    for number, (disk, told) in enumerate(_moments(calls, top, sector)):
        for nth in range(each):
            folder = scratch / "image"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            disk.image(folder, rng, SHARES[(number + nth) % len(SHARES)])
            yield folder, told


def _moments(calls: Sequence[Call], top: Path, sector: int) -> Iterator[tuple[Disk, Told]]:
    disk, told = Disk(top, sector=sector), Told()
    for call in calls:
        if disk.do(call):
            yield disk, told
        told.hear(call)
    yield disk, told


def fault(folder: Path, told: Told) -> str:
    """What is wrong with an image; empty if it is as promised."""
    try:
        found = open_data_dir(folder, allow_network_fs=True, now=NOW, map_bytes=MAP_BYTES)
    except HengeError as error:
        return f"does not start: {error}"
    try:
        if found.founded and told.is_founded:
            return "was founded, is gone"
        ends = read_ends(found.journal)
        if any(("device", f"device-{number}") not in ends for number in told.revoked):
            return "a revocation is gone from the journal"
        return _fault_of_store(found.database, told)
    except HengeError as error:
        return f"{error.code}: {error}"
    finally:
        found.close()


def _fault_of_store(folder: Path, told: Told) -> str:
    env = open_environment(folder, MAP_BYTES)
    try:
        databases = open_databases(env)
        with env.begin() as txn:
            reader = Reader(txn, databases)
            numbers = {int(reader.get("objects", key) or b"0") for key in SHARED}
            if len(numbers) != 1:
                return f"a change is torn: {numbers}"
            number = numbers.pop()
            if not told.answered <= number <= told.asked:
                return f"{told.answered} were answered, {told.asked} asked, {number} is there"
            if any(reader.get("objects", own_key(one)) != own_value(one) for one in range(1, number + 1)):
                return f"a record of the {number} changes is gone or another"
            for database in databases:
                list(reader.scan(database))
        with env.begin(write=True) as txn:
            txn.put(b"still", b"writable", db=databases["objects"])
        return ""
    finally:
        env.close()


def examine(changes: int, wanted: int, *plants: str, sector: int) -> Counter[str]:
    """Faults by kind, and ``good``; with a plant it ends with the first fault."""
    outcome: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as traced, tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as shm:
        top = Path(traced) / "data"
        top.mkdir(mode=0o700)
        calls = record(top, changes, *plants, log=Path(traced) / "trace")
        for folder, told in images(calls, top, Path(shm), sector=sector, wanted=wanted):
            found = fault(folder, told)
            outcome[re.sub(r"\d+", "N", found.replace(str(folder), "")) or "good"] += 1
            if plants and found:
                break
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(prog="make powerloss", description="Replays power cuts on the store.")
    parser.add_argument("--images", type=int, default=4000, help="about so many for each size of sector")
    parser.add_argument("--changes", type=int, default=120)
    options = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is missing: apt install strace")
    logging.getLogger("hengd").setLevel("ERROR")  # each image lies in memory, which each start would warn of
    bad = 0
    for sector in (512, 4096):
        began = time.monotonic()
        outcome = examine(options.changes, options.images, sector=sector)
        bad += sum(count for kind, count in outcome.items() if kind != "good")
        say(f"sectors of {sector}: {outcome.total()} images, {outcome['good']} good, {time.monotonic() - began:.0f} s")
        for kind, count in outcome.items():
            if kind != "good":
                say(f"  {count} times: {kind}")
    for name in PLANTS:
        outcome = examine(options.changes, options.images, name, sector=512)
        noticed = [kind for kind in outcome if kind != "good"]
        bad += not noticed
        said = f"noticed after {outcome.total()} images ({noticed[0]})" if noticed else "NOT noticed"
        say(f"planted {name}: {said}")
    sys.exit(1 if bad else 0)


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
