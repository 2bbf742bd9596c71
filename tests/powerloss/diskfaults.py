"""A disk that fails now and then, under the real daemon: ``make diskfaults``. Needs strace.

For every n the n-th call of a kind answers EIO or ENOSPC, once or from then on, while a daemon founds its folder, and
while one on a founded folder takes changes. It may refuse with a code that says so, or end with a line that says why;
it may never forget what it answered, and the next start on a well disk must find everything.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.service import device, schema, verify_store
from tests.system.programs import Daemon, Refused

CALLS: Final = ("pwrite64", "writev", "fdatasync", "fsync", "ftruncate", "rename")
CHANGES: Final = 8
ENDS: Final = frozenset({70, 74})
"""How a daemon may end when its disk fails."""
REFUSALS: Final = frozenset({"storage_full", "storage_failed"})


class FaultyDisk(Daemon):
    """A daemon under strace, which answers some of its calls in the kernel's place."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        super().__init__(folder)
        self._strace: list[str] = [shutil.which("strace") or "strace", "-D", "-f", "--seccomp-bpf", *options]

    def command(self) -> list[str]:
        _, *options = super().command()
        return [*self._strace, sys.executable, "-m", "hengd", *options]


def change(daemon: Daemon) -> tuple[int, Counter[str]]:
    """Ask for changes until the daemon is gone; the last one answered, and the refusals."""
    answered, refusals = 0, Counter[str]()
    try:
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-1")]})
    except Refused as refused:
        refusals[refused.code] += 1
    except (OSError, http.client.HTTPException):
        return 0, refusals
    for number in range(1, CHANGES + 1):
        try:
            daemon.admin.set("lamp-1", brightness=number)
            answered = number
        except Refused as refused:
            refusals[refused.code] += 1
        except (OSError, http.client.HTTPException):
            break
    return answered, refusals


def end(daemon: Daemon) -> int:
    """Its exit code, after asking it to stop if it still runs."""
    daemon.admin.close()
    assert daemon.program is not None
    code = daemon.program.process.poll()
    return daemon.stop() if code is None else code


def fault(folder: Path, call: str, when: str, error: str, *, founded: bool) -> tuple[str, str]:
    """What became of the daemon, and what is wrong with that; empty if it is as promised."""
    if founded:
        found(folder)
    inject = f"inject={call}:error={error}:when={when}"
    daemon = FaultyDisk(folder, ["-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject])
    answered, refusals = 0, Counter[str]()
    try:
        try:
            daemon.start()
        except AssertionError:
            code, became = end(daemon), "did not start"
        else:
            answered, refusals = change(daemon)
            code = end(daemon)
            became = "refused" if refusals else "noticed nothing"
    finally:
        daemon.clean()
    output = daemon.output
    if code:
        became = f"{became}, exit {code}"
    if "Traceback" in output and "store_" not in output:
        return became, f"a traceback: {output[-400:]}"
    if code and (code not in ENDS or "Error: " not in output):
        return became, f"exit {code}: {output[-400:]}"
    strange = {code: count for code, count in refusals.items() if code not in REFUSALS | {"no_such_device"}}
    if strange:
        return became, f"refused with {strange}"
    return became, after(folder, answered)


def found(folder: Path) -> None:
    """Make the data folder on a well disk."""
    daemon = Daemon(folder)
    try:
        daemon.start().stop()
    finally:
        daemon.clean()
    (folder / "hengd.log").unlink()


def after(folder: Path, answered: int) -> str:
    """Start on a well disk: is everything there?"""
    daemon = Daemon(folder)
    try:
        daemon.start()
        try:
            found = daemon.admin.call("GET", "/v1/devices/lamp-1")["spec"]["values"].get("brightness", 0)
        except Refused:
            found = 0
        daemon.admin.call("POST", "/v1/apply", {"objects": [schema(), device("lamp-2")]})
        code = daemon.stop()
    except AssertionError as error:
        return f"does not start again: {error}"
    finally:
        daemon.clean()
    if found < answered:
        return f"{answered} was answered, {found} is there"
    if code:
        return f"the start after it ended with {code}"
    verify_store(folder / "data")
    return ""


def counts(folder: Path, *, founded: bool) -> dict[str, int]:
    """How often one thread makes each call, at most, when nothing fails."""
    if founded:
        found(folder)
    log = folder / "strace"
    daemon = FaultyDisk(folder, ["-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}"])
    try:
        daemon.start()
        change(daemon)
        end(daemon)
    finally:
        daemon.clean()
    seen: Counter[tuple[str, str]] = Counter()
    for line in log.read_text("utf-8", "replace").splitlines():
        pid, _, rest = line.partition(" ")
        seen[pid, rest.strip().partition("(")[0]] += 1
    return {call: max((count for (_, name), count in seen.items() if name == call), default=0) for call in CALLS}


def cases(most: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """Every place, every error, once and for good."""
    for call, count in most.items():
        for number in range(1, count + 1):
            for error in ("EIO", "ENOSPC"):
                for when in (f"{number}", f"{number}+"):
                    yield call, when, error


def examine(*, founded: bool, every: int) -> int:
    """Print what became of all cases; how many were not as promised."""
    with tempfile.TemporaryDirectory() as scratch:
        most = counts(Path(scratch), founded=founded)
    became: Counter[str] = Counter()
    bad = 0
    for call, when, error in list(cases(most))[::every]:
        with tempfile.TemporaryDirectory() as scratch:
            what, wrong = fault(Path(scratch), call, when, error, founded=founded)
        became[what] += 1
        if wrong:
            bad += 1
            say(f"{call} {when} {error}: {wrong}")
    say(f"{'founded' if founded else 'first start'}: {became.total()} cases of {most}, {bad} not as promised")
    for what, count in became.most_common():
        say(f"  {count} {what}")
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(prog="make diskfaults", description="Makes the daemon's disk fail.")
    parser.add_argument("--every", type=int, default=1, help="take every so many of the cases only")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is missing: apt install strace")
    sys.exit(1 if sum(examine(founded=founded, every=options.every) for founded in (True, False)) else 0)


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
