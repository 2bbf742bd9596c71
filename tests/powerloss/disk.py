"""A disk that may lose everything that was not asked to be durable: POSIX at its worst, not ext4 at its kindest.

Writes wait, cut into sectors, until ``fsync`` or ``fdatasync`` of their file; on a descriptor with ``O_DSYNC`` they do
not. Names wait until their folder is synced; of those that wait, the first so many may be there.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.powerloss.trace import Call


@dataclass(slots=True)
class File:
    """Content that is on the disk, and writes that may be."""

    durable: bytearray = field(default_factory=bytearray)
    waiting: list[tuple[int, bytes]] = field(default_factory=list)

    def sync(self) -> None:
        for offset, data in self.waiting:
            _put(self.durable, offset, data)
        self.waiting.clear()

    def image(self, rng: random.Random, share: float) -> bytes:
        """What is found after the power cut: each waiting sector is there with the probability ``share``."""
        found = bytearray(self.durable)
        for offset, data in self.waiting:
            if rng.random() < share:
                _put(found, offset, data)
        return bytes(found)


@dataclass(slots=True)
class Folder:
    """Names that are on the disk, and changes of names that may be; None = removed."""

    durable: dict[str, File | Folder] = field(default_factory=dict)
    waiting: list[tuple[str, File | Folder | None]] = field(default_factory=list)

    def now(self) -> dict[str, File | Folder]:
        """What the running program sees."""
        return self._after(len(self.waiting))

    def sync(self) -> None:
        self.durable = self.now()
        self.waiting.clear()

    def image(self, rng: random.Random, share: float) -> dict[str, File | Folder]:
        """Names after the power cut: a rename is one step, so its two halves wait together."""
        steps = [at for at in range(len(self.waiting) + 1) if at == 0 or self.waiting[at - 1][1] is not None]
        return self._after(0 if share == 0 else steps[-1] if share == 1 else rng.choice(steps))

    def _after(self, steps: int) -> dict[str, File | Folder]:
        names = dict(self.durable)
        for name, node in self.waiting[:steps]:
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
        return names


class Disk:
    """Everything below one folder, as a sequence of calls leaves it."""

    def __init__(self, top: Path, *, sector: int) -> None:
        self.root = Folder()
        self._top = str(top)
        self._sector = sector
        self._open: dict[int, tuple[File | Folder, bool, bool]] = {}
        """Node, whether writes are durable at return, whether they go to the end."""
        self._at: dict[int, int] = {}
        self.written = 0
        """Calls that changed something or made something durable."""

    def do(self, call: Call) -> bool:
        """Take over one call; whether it concerned this disk."""
        handled = bool(getattr(self, f"_{call.name}")(call))
        self.written += handled
        return handled

    # ---- names ---------------------------------------------------------------------------------------

    def _place(self, path: bytes) -> tuple[Folder, str] | None:
        text = path.decode()
        if text == self._top:
            return None
        if not text.startswith(self._top + "/"):
            return None
        *folders, name = text[len(self._top) + 1 :].split("/")
        node: File | Folder = self.root
        for one in folders:
            assert isinstance(node, Folder)
            node = node.now()[one]
        assert isinstance(node, Folder)
        return node, name

    def _openat(self, call: Call) -> bool:
        flags = call.words.split(",")[2]
        path = call.texts[0]
        if path.decode() == self._top:
            self._open[call.result] = (self.root, False, False)
            return False
        place = self._place(path)
        if place is None:
            self._open.pop(call.result, None)
            return False
        folder, name = place
        node = folder.now().get(name)
        is_new = node is None
        if node is None:
            assert "O_CREAT" in flags, call
            node = File()
            folder.waiting.append((name, node))
        if "O_TRUNC" in flags and isinstance(node, File):
            node.durable.clear()  # worse than any disk, and nothing here relies on better
            node.waiting.clear()
        self._open[call.result] = (node, "O_DSYNC" in flags or "O_SYNC" in flags, "O_APPEND" in flags)
        self._at[call.result] = 0
        return is_new

    def _mkdir(self, call: Call) -> bool:
        place = self._place(call.texts[0])
        if place is not None:
            place[0].waiting.append((place[1], Folder()))
        return place is not None

    def _rename(self, call: Call) -> bool:
        source, target = self._place(call.texts[0]), self._place(call.texts[1])
        if source is None or target is None:
            return False
        assert source[0] is target[0], "renames across folders are not known"
        node = source[0].now()[source[1]]
        source[0].waiting += [(source[1], None), (target[1], node)]
        return True

    def _unlink(self, call: Call) -> bool:
        place = self._place(call.texts[0])
        if place is not None:
            place[0].waiting.append((place[1], None))
        return place is not None

    _rmdir = _unlink

    # ---- content -------------------------------------------------------------------------------------

    def _lseek(self, call: Call) -> bool:
        self._at[call.number(0)] = call.result
        return False

    def _pwrite64(self, call: Call) -> bool:
        return self._write_at(call.number(0), call.number(3), call.texts[0])

    def _write(self, call: Call) -> bool:
        return self._write_on(call.number(0), call.texts[0])

    def _writev(self, call: Call) -> bool:
        return self._write_on(call.number(0), b"".join(call.texts))

    def _ftruncate(self, call: Call) -> bool:
        node = self._open.get(call.number(0), (None,))[0]
        if isinstance(node, File):
            del node.durable[call.number(1) :]
        return isinstance(node, File)

    def _write_on(self, descriptor: int, data: bytes) -> bool:
        if descriptor not in self._open:
            return False
        node, _, is_append = self._open[descriptor]
        assert isinstance(node, File)
        at = len(node.image(random.Random(0), 2.0)) if is_append else self._at[descriptor]
        self._at[descriptor] = at + len(data)
        return self._write_at(descriptor, at, data)

    def _write_at(self, descriptor: int, at: int, data: bytes) -> bool:
        if descriptor not in self._open:
            return False
        node, is_durable, _ = self._open[descriptor]
        assert isinstance(node, File)
        if is_durable:
            _put(node.durable, at, data)
        else:
            node.waiting += _sectors(at, data, self._sector)
        return True

    def _fsync(self, call: Call) -> bool:
        node = self._open.get(call.number(0), (None,))[0]
        if node is not None:
            node.sync()
        return node is not None

    _fdatasync = _fsync

    def _close(self, call: Call) -> bool:
        self._open.pop(call.number(0), None)
        return False

    # ---- the cut -------------------------------------------------------------------------------------

    def image(self, folder: Path, rng: random.Random, share: float) -> None:
        """Put into ``folder``, which is empty, what may be found after a power cut now."""
        _write_out(self.root, folder, rng, share)


def _write_out(node: Folder, folder: Path, rng: random.Random, share: float) -> None:
    for name, child in node.image(rng, share).items():
        if isinstance(child, Folder):
            (folder / name).mkdir(mode=0o700)
            _write_out(child, folder / name, rng, share)
        elif name != "lock.mdb":  # LMDB's table of readers: made anew by whoever is alone
            path = folder / name
            path.touch(mode=0o600)
            path.write_bytes(child.image(rng, share))


def _sectors(at: int, data: bytes, sector: int) -> Iterable[tuple[int, bytes]]:
    begin = 0
    while begin < len(data):
        end = min(len(data), begin + sector - (at + begin) % sector)
        yield at + begin, data[begin:end]
        begin = end


def _put(content: bytearray, at: int, data: bytes) -> None:
    if len(content) < at:
        content += bytes(at - len(content))
    content[at : at + len(data)] = data
