"""What a process costs, and a load generator as a process that is steered by lines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

CPU_CLOCK = 2
"""Which clock of a process: its scheduled time, user and system, of all its threads (clock_getcpuclockid(3))."""


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, user and system, all threads, to the nanosecond.

    ``/proc/PID/stat`` would tell only hundredths, as much as a hundred devices cost.
    """
    return time.clock_gettime(~pid << 3 | CPU_CLOCK)


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def switches(pid: int) -> int:
    """How often a thread of the process has left the processor: each time it went to sleep, or another was let in."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if "ctxt_switches" in line)


class Generator:
    """A module of this package that makes load on core 1: takes a step per line, says a word when it is done."""

    def __init__(self, module: str, work: Path) -> None:
        command = ["taskset", "-c", "1", sys.executable, "-m", module, str(work)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def tell(self) -> None:
        """Next step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def expect(self, word: str) -> float:
        """The number that it says with ``word``, 0 if it says none; RuntimeError if it says something else."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline().split()
        if not said or said[0] != word:
            raise RuntimeError(f"the generator said {said}, {word} was expected")
        return float(said[1]) if len(said) > 1 else 0.0
