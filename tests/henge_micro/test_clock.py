"""Boards without a clock: what ESP32 (2000) and RP2 (2021) believe at power-on, and what certificates say to that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.henge_micro.boards import RUN, Board, Interpreter
from tests.henge_micro.conftest import MakeBoard
from tests.henge_micro.test_client import in_sync
from tests.service import Admin, device, schema

SETTABLE = """
import time
def set_time(unix_s):
    year, month, day, hour, minute, second = time.gmtime(unix_s)[:6]
    with open(CLOCK, "w") as file:
        file.write("@%d-%02d-%02d %02d:%02d:%02d" % (year, month, day, hour, minute, second))
    say(clock=unix_s)
    return True
board.set_time = set_time
"""


def at(board: Board, clock: Path, when: str) -> str:
    """Give the board a clock that stands at ``when`` at power-on; what a program begins with."""
    clock.write_text(f"@{when}")
    board.environment = {
        "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1", "TZ": "UTC",
    }  # fmt: skip
    return f"CLOCK = {str(clock)!r}\n" + SETTABLE


@pytest.mark.parametrize("when", ["2000-01-01 00:00:00", "2021-01-01 00:00:00"])
async def test_a_board_that_wakes_up_in_the_past_joins_and_learns_the_time(
    small: Interpreter, new_board: MakeBoard, admin: Admin, tmp_path: Path, when: str
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin, at(board, tmp_path / "clock", when) + RUN)
    await board.off()
    await board.start(at(board, tmp_path / "clock", when) + RUN)
    floor = await board.says("clock")
    await admin.until("lamp-1", connection="online")

    assert floor == board.record("seen")["t"], "the floor in flash came before the network"


async def test_a_joined_board_whose_clock_is_years_ahead_connects_and_sets_it_back(
    small: Interpreter, new_board: MakeBoard, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    last = board.record("seen")["t"]
    await board.off()
    await board.start(at(board, tmp_path / "clock", "2035-01-01 00:00:00") + RUN)
    back = await board.says("clock")
    await admin.until("lamp-1", connection="online")

    assert back == last, "not further than to the moment of the last contact"


async def test_a_clock_that_cannot_be_set_back_refuses_and_the_old_document_stays(
    small: Interpreter, new_board: MakeBoard, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    at(board, tmp_path / "clock", "2035-01-01 00:00:00")
    await board.start()
    alone = await board.says("config")
    line = await board.prints("pin_mismatch")

    assert alone["color"] == "red"
    assert "expired" in line


async def test_who_joins_gives_no_secret_to_a_daemon_whose_certificate_ended(
    small: Interpreter, new_board: MakeBoard, tmp_path: Path
) -> None:
    board = await new_board(small)
    await board.start(at(board, tmp_path / "clock", "2035-01-01 00:00:00") + RUN)

    assert "expired" in await board.prints("pin_mismatch")
    assert not (board.folder / "identity").exists()
