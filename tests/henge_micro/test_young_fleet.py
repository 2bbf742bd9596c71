"""Boards without a clock, and certificates that begin later than boards take for certain: the hint is needed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from henge_protocol import pki
from tests.henge_micro.boards import RUN, Interpreter
from tests.henge_micro.conftest import MakeBoard
from tests.henge_micro.test_client import in_sync
from tests.henge_micro.test_clock import at
from tests.service import Admin, device, schema

LIE = """
from henge_micro.http import Connection
head = Connection.head
async def lie(self):
    status = await head(self)
    self.date = "Mon, 01 Jan 2035 00:00:00 GMT"
    return status
Connection.head = lie
"""


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet whose authorities begin today."""
    monkeypatch.setattr(pki, "EARLIEST_CREATION", int(time.time()) - 3600)
    return tmp_path / "state"


async def test_who_lies_about_the_time_is_not_believed_for_long(
    small: Interpreter, new_board: MakeBoard, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    (board.folder / "seen").unlink()
    await board.start(at(board, tmp_path / "clock", "2021-01-01 00:00:00") + LIE + RUN)
    floor, lied, back = [await board.says("clock") for _ in range(3)]
    await board.prints("pin_mismatch")

    assert lied == 2051222400
    assert floor <= back < floor + 60
