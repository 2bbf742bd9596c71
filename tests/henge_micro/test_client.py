"""A board and the real daemon, end to end."""

from __future__ import annotations

from tests.henge_micro.boards import Interpreter
from tests.henge_micro.conftest import MakeBoard
from tests.service import Admin, Service, device, schema


async def test_a_board_joins_applies_and_reports(
    micropython: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", brightness=5))
    board = await new_board(micropython)
    await board.start()
    first = await board.says("config", {"brightness": 5, "color": "green"})
    status = await admin.until("lamp-1", config="in-sync", connection="online")
    await admin.set("lamp-1", color="red")
    second = await board.says("config")
    await admin.until("lamp-1", config="in-sync")

    assert (first["color"], second["color"]) == ("green", "red")
    assert status["client"] == "henge-micro/0.1"
    assert status["identity"] == "active"
    assert status["facts"]["micropython"].startswith("1.")
