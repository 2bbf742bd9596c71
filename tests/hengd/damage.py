"""Damages copies of a store one by one and opens each in a child of its own, so that a signal is seen and not suffered.

``python -m tests.hengd.damage FOLDER`` reads damages from standard input and prints what became of each, one JSON
object a line. A process of its own, because it forks: the tests' process has threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hengd.store import Store
from henge_protocol.errors import Internal

TOP = Path(__file__).parent.parent.parent
Damage = dict[str, Any]
OUTCOMES = {10: "same", 11: "refused", 12: "found when read", 13: "other data", 14: "other data after writing"}
REFUSALS = {"storage_corrupt", "storage_foreign"}


def outcomes(folder: Path, damages: Sequence[Damage]) -> list[str]:
    """What opening a copy of the store with each of the damages leads to; ``signal N`` or ``exit N`` for a crash."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hengd.damage", str(folder)], cwd=TOP, input=json.dumps(damages), text=True,
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": f"{TOP}:{TOP}/agent"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout))


def apply(damage: Damage, data: bytes) -> bytes:
    """The file's content after a damage: ``keep`` so many bytes, ``flip`` a bit, ``zero`` or ``shift`` a page."""
    bent = bytearray(data)
    if "flip" in damage:
        bent[damage["flip"] // 8] ^= 1 << damage["flip"] % 8
    if "zero" in damage:
        bent[damage["zero"] : damage["zero"] + damage["size"]] = bytes(damage["size"])
    return bytes(bent[: damage.get("keep")])


def content(store: Store) -> dict[bytes, bytes]:
    """Everything in the databases that the store under test uses."""
    with store.read() as tx:
        return {database.encode() + key: value for database in ("objects", "meta") for key, value in tx.scan(database)}


async def _open_and_use(folder: Path, wanted: dict[bytes, bytes]) -> int:
    before = (folder / "data.mdb").read_bytes()
    try:
        store = Store.open(folder, map_bytes=1024**2)
    except Internal as error:
        return 11 if error.code in REFUSALS and (folder / "data.mdb").read_bytes() == before else 15
    try:
        if content(store) != wanted:
            return 13
        for number in range(20):
            await store.write(lambda tx, number=number: tx.put("objects", b"more%d" % number, bytes(900)))
            wanted[b"objectsmore%d" % number] = bytes(900)
        return 10 if content(store) == wanted else 14
    except Internal as error:
        return 12 if error.code == "storage_corrupt" else 15
    finally:
        await store.close()


async def _content_of(folder: Path) -> dict[bytes, bytes]:
    store = Store.open(folder, map_bytes=1024**2)
    found = content(store)
    await store.close()
    return found


def _try(damage: Damage, data: bytes, wanted: dict[bytes, bytes], scratch: Path) -> str:
    folder = scratch / "store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    (folder / "data.mdb").write_bytes(apply(damage, data))
    child = os.fork()
    if not child:
        code = 99
        try:
            code = asyncio.run(_open_and_use(folder, dict(wanted)))
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return OUTCOMES.get(status, f"signal {-status}" if status < 0 else f"exit {status}")


def main() -> None:
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        data = (folder / "data.mdb").read_bytes()
        whole = Path(scratch) / "whole"
        shutil.copytree(folder, whole)
        wanted = asyncio.run(_content_of(whole))
        met = [_try(damage, data, wanted, Path(scratch)) for damage in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(met))


if __name__ == "__main__":
    main()
