"""What a program did to the disk, read from strace's output: a list of operations in their order."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parent.parent.parent
CALLS: Final = (
    "openat,pwrite64,pwritev,writev,write,lseek,fdatasync,fsync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,"
    "rmdir,mkdir,mkdirat,close,dup,dup2,dup3,sync_file_range,msync"
)
REFUSED: Final = {
    "pwritev",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
    "dup",
    "dup2",
    "dup3",
    "sync_file_range",
    "msync",
}
"""Calls that nothing here makes; one that appears must be taught to the replay first."""

_LINE = re.compile(
    r"(?P<pid>\d+) +(?:(?P<call>\w+)\((?P<rest>.*)|<\.\.\. (?P<again>\w+) resumed>(?P<tail>.*))", re.DOTALL
)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RESULT = re.compile(r"\) += (-?\d+)")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded: its name, its texts, its numbers, what it returned."""

    name: str
    texts: tuple[bytes, ...]
    words: str
    """The arguments without their texts."""
    result: int

    def number(self, at: int) -> int:
        """The argument at a place, which is a number."""
        return int(self.words.split(",")[at])


def record(folder: Path, changes: int, *plants: str, log: Path) -> list[Call]:
    """Run the workload on ``folder`` under strace; what it did."""
    command = [
        "strace", "-f", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={CALLS}",
        sys.executable, "-m", "tests.powerloss.workload", str(folder), str(changes), *plants,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the workload failed under strace:\n{done.stderr[-3000:]}")
    return list(read(log.read_text("ascii")))


def read(text: str) -> Iterator[Call]:
    """Calls in the order of their returns; a ``write`` counts from its beginning, for it may say what was answered."""
    begun: dict[str, tuple[str, str, bool]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        if match["again"]:
            name, rest, told = begun.pop(match["pid"])
            rest += match["tail"]
        else:
            name, rest, told = match["call"], match["rest"], False
            if rest.endswith("<unfinished ...>"):
                rest = rest.removesuffix(" <unfinished ...>").removesuffix("<unfinished ...>")
                told = name == "write"
                begun[match["pid"]] = (name, rest, told)
                if told:
                    yield _call(name, rest, result=0)
                continue
        result = _RESULT.search(rest)
        if result is not None and int(result[1]) >= 0 and not told:
            yield _call(name, rest[: result.start()], result=int(result[1]))


def _call(name: str, arguments: str, *, result: int) -> Call:
    if name in REFUSED:
        raise SystemExit(f"the replay does not know the call {name}; teach it first")
    texts = tuple(bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments))
    return Call(name, texts, _TEXT.sub('""', arguments), result)
