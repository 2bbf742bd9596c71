"""Browsing: packets, and a board that finds the real daemon by the real announcement."""

from __future__ import annotations

from hengd.announce import Announcer
from henge_protocol import pki
from tests.henge_micro.boards import RUN, Interpreter
from tests.henge_micro.cases import each_case, run_case
from tests.henge_micro.conftest import MakeBoard
from tests.henge_protocol.test_browse import own_loopback
from tests.service import Admin, Service, device, schema


@each_case("mdns_cases")
def test_on_board(small: Interpreter, case: str) -> None:
    run_case(small, "mdns_cases", case)


async def test_a_board_finds_its_daemon_by_its_announcement(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    [ours], [theirs] = own_loopback(), own_loopback()
    announcer = Announcer(
        name="test", port=daemon.port, fleet_id=daemon.app.authority.fleet,
        server_ca_fingerprint=pki.fingerprint(daemon.app.authority.server_cas[0]),
        addresses=lambda: ["127.0.0.1"], interfaces=[theirs],
    )  # fmt: skip
    await announcer.start()
    try:
        board = await new_board(small, server="", mdns=[10, ["224.0.0.251", 5353], ours])
        await board.start("from henge_micro import mdns\nmdns.is_home = lambda address: address == '127.0.0.1'\n" + RUN)
        await admin.until("lamp-1", config="in-sync")
    finally:
        await announcer.stop()

    assert board.record("seen")["address"] == f"127.0.0.1:{daemon.port}"


async def test_nobody_announced_is_told(small: Interpreter, new_board: MakeBoard) -> None:
    board = await new_board(small, server="", mdns=[0.1, ["127.0.0.1", 9]])
    await board.start()

    await board.prints("no_daemon")
