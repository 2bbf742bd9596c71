"""A board and the real daemon, end to end."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from hengd.datadir import make_store
from henge_protocol import pki
from tests.hengd.rescuekit import open_window, take, waiting
from tests.henge_micro.boards import PATIENCE_S, RUN, Board, Interpreter, eventually
from tests.henge_micro.cases import each_case, run_case
from tests.henge_micro.conftest import MakeBoard
from tests.service import Admin, Service, device, schema


@each_case("client_cases")
def test_on_board(small: Interpreter, case: str) -> None:
    run_case(small, "client_cases", case)


POLL = """
from henge_micro import poll
poll.PAUSE_S = 0.3
client = Client(FOLDER, SETUP, on_config=show, stream=False)
asyncio.run(client.run())
"""


async def in_sync(board: Board, admin: Admin, program: str = RUN) -> None:
    """Start a board and wait until it runs what it should."""
    await board.start(program)
    await admin.until(board.setup["name"], config="in-sync")
    await confirmed(board)


async def confirmed(board: Board) -> None:
    """Wait until the board has the receipt for what it runs and owes nothing."""
    await eventually(
        lambda: (
            (board.folder / "progress").exists()
            and not any(board.record("progress")[name] for name in ("trial", "report"))
        )
    )


@pytest.mark.parametrize("program", [RUN, POLL], ids=["stream", "poll"])
async def test_a_board_joins_applies_and_reports(
    micropython: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin, program: str
) -> None:
    await admin.apply(schema(), device("lamp-1", brightness=5))
    board = await new_board(micropython)
    await board.start(program)
    first = await board.says("config", {"brightness": 5, "color": "green"})
    status = await admin.until("lamp-1", config="in-sync", connection="online")
    await admin.set("lamp-1", color="red")
    second = await board.says("config")
    await admin.until("lamp-1", config="in-sync")

    assert (first["color"], second["color"]) == ("green", "red")
    assert status["client"] == "henge-micro/0.1"
    assert status["identity"] == "active"
    assert status["facts"]["micropython"].startswith("1.")
    assert board.record("identity")["renew_at"] > time.time() + 230 * 86400, "a board's certificate lasts 397 days"


async def test_a_board_works_without_a_daemon_and_comes_back_to_it(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    await daemon.stop()
    await board.start(RUN)
    alone = await board.says("config")
    await board.prints("unreachable")
    daemon._flags["listen.devices"] = f"127.0.0.1:{board.setup['server'].rpartition(':')[2]}"
    await daemon.start()
    async with daemon.admin() as again:
        await again.set("lamp-1", color="blue")
        await board.says("config", {"brightness": 80, "color": "blue"})
        await again.until("lamp-1", config="in-sync")

    assert alone["color"] == "red"


@pytest.mark.parametrize("program", [RUN, POLL], ids=["stream", "poll"])
async def test_a_restart_of_the_daemon_in_the_middle_is_survived(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin, program: str
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin, program)
    daemon._flags["listen.devices"] = f"127.0.0.1:{daemon.port}"
    await daemon.restart()
    async with daemon.admin() as again:
        await again.set("lamp-1", color="blue")
        await board.says("config", {"brightness": 80, "color": "blue"})
        await again.until("lamp-1", config="in-sync")


async def test_a_token_of_another_daemon_is_not_sent(small: Interpreter, new_board: MakeBoard) -> None:
    other = pki.make_ca("server", pki.new_id(b"another fleet .."), now=1.7e9)
    board = await new_board(small)
    board.setup["token"] = foreign_token(other.certificate_der)
    await board.start()
    line = await board.prints("pin_mismatch")

    assert "not the daemon of this token" in line
    assert not (board.folder / "identity").exists()


def foreign_token(authority_der: bytes) -> str:
    """A well-formed token of a daemon with this authority."""
    from henge_protocol.joining import format_token, new_token

    return format_token(new_token("join", pki.fingerprint(authority_der), random=lambda size: bytes(range(size))))


async def test_a_wrong_token_is_refused_in_the_daemon_s_words(
    small: Interpreter, new_board: MakeBoard, daemon: Service
) -> None:
    board = await new_board(small)
    board.setup["token"] = foreign_token(daemon.app.authority.server_cas[0])
    await board.start()
    await board.prints("token_invalid")

    assert not (board.folder / "identity").exists()


async def test_a_mistyped_token_is_told(small: Interpreter, new_board: MakeBoard) -> None:
    board = await new_board(small)
    board.setup["token"] = board.setup["token"][:-1]
    await board.start()
    line = await board.prints("token_malformed")

    assert board.setup["token"].split(".")[2] not in line


async def test_a_daemon_with_another_name_or_authority_is_not_believed(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    honest = board.record("identity")
    for change in ({"ca": [other_authority()]}, {"fleet": "0" * 26}, {"ca": []}):
        board.change("identity", **{**honest, **change})
        await board.start()
        alone = await board.says("config")
        await board.prints("pin_mismatch" if change.get("ca") != [] else "unreachable")
        await board.off()

        assert alone["color"] == "red"


def other_authority() -> str:
    """Of a fleet that is not ours, as a record has it."""
    return base64.b64encode(pki.make_ca("server", pki.new_id(b"another fleet .."), now=1.7e9).certificate_der).decode()


async def test_an_announcement_does_not_decide_how_long_a_board_stays_away(
    small: Interpreter, new_board: MakeBoard, admin: Admin, daemon: Service
) -> None:
    await admin.apply(schema(), device("lamp-1"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    board.change("identity", ca=[other_authority()])
    board.change("seen", address="127.0.0.1:9")
    board.setup = {"announced": f"127.0.0.1:{daemon.port}"}
    await board.start(HEARSAY)
    await board.prints("pin_mismatch")

    assert await board.says("pause") < 60


HEARSAY = """
class Told(Client):
    async def _seldom(self, name, *arguments):
        return [self.setup["announced"]] if name == "announced" else await super()._seldom(name, *arguments)
    def _pause_s(self, ended):
        pause_s = super()._pause_s(ended)
        say(pause=pause_s)
        return pause_s
asyncio.run(Told(FOLDER, SETUP, on_config=show).run())
"""
"""A board that hears of somebody who is not its daemon while its own is away."""


async def test_of_two_authorities_either_vouches(small: Interpreter, new_board: MakeBoard, admin: Admin) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    ours, other = board.record("identity")["ca"], other_authority()
    for both in ([other, *ours], [*ours, other]):
        board.change("identity", ca=both)
        await board.start()
        await admin.until("lamp-1", connection="online")
        await board.off()
        await admin.until("lamp-1", connection="offline")


@pytest.mark.parametrize("late", [False, True], ids=["in-time", "expired"])
async def test_an_identity_is_renewed(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin, late: bool
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    before = board.record("identity")
    if late:
        daemon.clock.advance(400 * 86400)
    else:
        board.change("identity", renew_at=1)
    await board.start()
    await admin.until("lamp-1", connection="online", identity="active")
    await eventually(
        lambda: board.record("identity")["cert"] != before["cert"] and "trial" not in board.record("identity")
    )
    after = board.record("identity")
    await board.off()
    await board.start()
    await admin.until("lamp-1", connection="online")

    assert after["key"] != before["key"]
    assert after["id"] == before["id"]


@pytest.mark.parametrize("program", [RUN, POLL], ids=["stream", "poll"])
async def test_a_board_that_is_asked_renews_its_identity_once(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin, program: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    before = board.record("identity")
    ask_for_renewal(daemon, before, monkeypatch)
    await board.start(program)
    await eventually(lambda: board.record("identity")["cert"] != before["cert"])
    await eventually(lambda: "trial" not in board.record("identity"))
    await admin.set("lamp-1", color="blue")
    await board.says("config", {"brightness": 80, "color": "blue"})
    await admin.until("lamp-1", config="in-sync", identity="active")

    assert await renewals(admin) == 1
    assert board.record("identity")["key"] != before["key"]


async def test_a_board_follows_when_both_authorities_are_replaced(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    ours = board.record("identity")["ca"]
    daemon._flags["listen.devices"] = f"127.0.0.1:{daemon.port}"
    for which in ("server", "client"):
        await admin.ok("POST", f"/v1/authorities/{which}/begin", {"within_s": 1})
    async with asyncio.timeout(PATIENCE_S):
        while (await admin.ok("GET", "/v1/authorities"))["server"]["follow"]["devices"] == 0:
            since = (await admin.ok("GET", "/v1/events"))["next"]
            await admin.ok("GET", f"/v1/events?since={since}&wait=1")
    assert len(board.record("identity")["ca"]) == 2
    for step in ("server/switch", "server/finish", "client/finish"):
        assert (await admin.ok("POST", f"/v1/authorities/{step}"))["changed"]
    await daemon.restart()
    async with daemon.admin() as again:
        await again.until("lamp-1", connection="online")
        await again.set("lamp-1", color="blue")
        await again.until("lamp-1", config="in-sync")
        await eventually(lambda: len(board.record("identity")["ca"]) == 1)
        assert board.record("identity")["ca"] != ours


def ask_for_renewal(daemon: Service, identity: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the real daemon ask whoever still shows this identity."""
    old = pki.fingerprint(base64.b64decode(identity["cert"]))
    monkeypatch.setattr(daemon.app.authority, "renew_within_s", lambda caller: 50 * (caller.certificate == old))


async def renewals(admin: Admin) -> int:
    """How many identities were renewed, by the audit."""
    records = (await admin.ok("GET", "/v1/audit"))["items"]
    return sum(record["what"] == "certificate.renewed" for record in records)


async def test_a_revoked_board_keeps_its_configuration_and_asks_rarely(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    await board.prints("revoked")
    await board.off()
    await board.start("Client._pause_s = lambda self, ended: say(code=ended.code) or 3600\n" + RUN)
    alone = await board.says("config")
    code = await board.says("code")

    assert alone["color"] == "red"
    assert code in ("certificate_revoked", "revoked")


@pytest.mark.parametrize("accept", ["confirm", "accept_first"])
async def test_a_board_joins_by_a_code_that_a_person_compares(
    micropython: Interpreter, new_board: MakeBoard, admin: Admin, accept: str
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    await admin.ok("PUT", "/v1/join-window", {"open_s": 600})
    board = await new_board(micropython, "lamp-9", accept_first=accept == "accept_first")
    del board.setup["token"]
    await board.start(BY_CODE if accept == "confirm" else BY_CODE.replace("confirm=confirm", ""))
    code = await board.says("code")
    await admin.ok("POST", f"/v1/joins/{code.replace(' ', '')}/approve", {"name": "lamp-9", "schema": "lamp"})
    await admin.until("lamp-9", config="in-sync")

    assert len(code) == 9


BY_CODE = """
async def confirm(code):
    return len(code) == 8
client = Client(FOLDER, SETUP, on_config=show, show=lambda code: say(code=code), confirm=confirm)
asyncio.run(client.run())
"""


async def test_codes_that_differ_void_the_request(small: Interpreter, new_board: MakeBoard, admin: Admin) -> None:
    await admin.ok("PUT", "/v1/join-window", {"open_s": 600})
    board = await new_board(small, "lamp-9")
    del board.setup["token"]
    await board.start(BY_CODE.replace("len(code) == 8", "False"))
    code = await board.says("code")
    await admin.ok("POST", f"/v1/joins/{code.replace(' ', '')}/approve", {"name": "lamp-9"})
    await board.prints("join_rejected")

    assert not (board.folder / "identity").exists()


async def test_without_token_and_without_anybody_to_compare_a_board_does_not_join(
    small: Interpreter, new_board: MakeBoard
) -> None:
    board = await new_board(small, "lamp-9")
    del board.setup["token"]
    await board.start()

    await board.prints("accept_first")


async def test_a_document_that_cuts_the_board_off_is_undone_and_quarantined(
    micropython: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    lamp = schema()
    lamp["spec"]["confirm_s"] = 1
    await admin.apply(lamp, device("lamp-1", wifi={"ssid": "home"}))
    board = await new_board(micropython)
    await in_sync(board, admin, NETWORK)
    await admin.set("lamp-1", wifi={"ssid": "typo"})
    await board.says("ssid", "typo")
    await board.says("ssid", "home")
    status = await admin.until("lamp-1", config="quarantined", connection="online")

    assert (status["reported"]["state"], status["reported"]["reason"]) == ("rolled-back", "connectivity-lost")
    await confirmed(board)


NETWORK = """
async def network(config):
    if config.get("wifi", {}).get("ssid") == "typo":
        raise OSError("no such network")
def show(new, old):
    say(ssid=new.get("wifi", {}).get("ssid"))
client = Client(FOLDER, SETUP, on_config=show, network=network)
asyncio.run(client.run())
"""


async def test_a_document_that_breaks_the_client_itself_is_undone(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    odd = schema("odd", type="object", properties={"wifi": {}})
    odd["spec"]["confirm_s"] = 1
    await admin.apply(odd, device("lamp-1", "odd", wifi={}))
    board = await new_board(small)
    await in_sync(board, admin)
    await admin.set("lamp-1", wifi=["not", "a", "network"])
    status = await admin.until("lamp-1", config="quarantined", connection="online")

    assert status["reported"]["reason"] == "connectivity-lost"


@pytest.mark.parametrize("form", ["https://{}/", "{}"])
async def test_the_server_may_be_given_as_a_url(
    small: Interpreter, new_board: MakeBoard, admin: Admin, form: str
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    board.setup["server"] = form.format(board.setup["server"])
    await in_sync(board, admin)


async def test_a_server_that_is_none_is_told(small: Interpreter, new_board: MakeBoard) -> None:
    board = await new_board(small, server="kitchen:door")
    await board.start()

    await board.prints("bad_setting: kitchen:door")


async def test_an_outage_at_the_wrong_moment_is_no_fault_of_the_document(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin
) -> None:
    lamp = schema()
    lamp["spec"]["confirm_s"] = 1
    await admin.apply(lamp, device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin, OUTAGE)
    await admin.set("lamp-1", color="blue")
    daemon._flags["listen.devices"] = f"127.0.0.1:{daemon.port}"
    await board.says("color", "blue")
    await daemon.stop()
    await board.says("color", "red")
    await board.says("reason", "server-unreachable")
    await daemon.start()
    async with daemon.admin() as again:
        status = await again.until("lamp-1", connection="online", config="rolled-back")

        assert status["reported"]["reason"] == "server-unreachable"


OUTAGE = """
from henge_micro import applier
applier.VERDICT_S = 1
def show(new, old):
    say(color=new.get("color"))
owed = Client.owed
Client.owed = lambda self: None if self.config.get("color") == "blue" else owed(self)
decide = applier.Applier._decide
def told(self, reason):
    decide(self, reason)
    say(reason=reason)
applier.Applier._decide = told
client = Client(FOLDER, SETUP, on_config=show)
asyncio.run(client.run())
"""
"""A board whose report gets lost on its way."""


async def test_a_document_that_the_hook_refuses_is_reported_with_its_words(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin, CHECKED)
    await admin.set("lamp-1", color="blue")
    status = await admin.until("lamp-1", config="quarantined")
    await admin.set("lamp-1", color="green")
    await admin.until("lamp-1", config="in-sync")

    assert status["reported"]["reason"] == "invalid"
    assert status["reported"]["errors"][0]["message"] == "no blue LED"


CHECKED = """
def check(config):
    if config["color"] == "blue":
        raise ValueError("no blue LED")
client = Client(FOLDER, SETUP, on_config=show, check=check)
asyncio.run(client.run())
"""


async def test_a_sleeper_needs_one_request_and_says_when_it_comes_back(
    micropython: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(micropython)
    asleep = []
    for color in ("red", "blue", "blue"):
        await admin.set("lamp-1", color=color)
        await board.start(ONCE)
        await board.ends()
        asleep.append(await admin.until("lamp-1", connection="asleep", config="in-sync"))

    assert all(status["due"] for status in asleep)


ONCE = """
client = Client(FOLDER, SETUP, on_config=show)
say(reached=asyncio.run(client.once(900)), config=client.config)
"""


async def test_a_sleeper_asks_daily_whether_to_renew_and_does_so_before_it_sleeps(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await board.start(ONCE)
    await board.ends()
    before = board.record("identity")
    ask_for_renewal(daemon, before, monkeypatch)
    await board.start(ONCE)
    await board.ends()
    assert board.record("identity") == before, "it asked a moment ago"

    board.change("seen", t=board.record("seen")["t"] - 86400 - 60)
    await board.start(ONCE)
    said = json.loads((await board.ends()).splitlines()[-1])
    after = board.record("identity")

    assert said["reached"]
    assert after["cert"] != before["cert"]
    assert "trial" not in after, "the new identity was used before the board went to sleep"
    assert await renewals(admin) == 1


async def test_a_sleeper_undoes_what_is_not_confirmed_before_it_sleeps(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await board.start(ONCE)
    await board.ends()
    await admin.set("lamp-1", color="blue")
    await board.start(LOST_REPORT + ONCE)
    said = await board.ends()
    status = await admin.until("lamp-1", config="quarantined")

    assert status["reported"]["reason"] == "connectivity-lost"
    last = json.loads(said.splitlines()[-1])
    assert last["reached"]
    assert last["config"]["color"] == "red"


LOST_REPORT = """
owed = Client.owed
Client.owed = lambda self: None if self.config.get("color") == "blue" else owed(self)
"""


async def test_a_document_beyond_what_the_board_can_hold_is_refused_when_it_is_written(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    wide = {"type": "object", "additionalProperties": {"type": "string"}}
    await admin.apply(schema("wide", **wide), device("lamp-1", "wide", a="x"))
    board = await new_board(small)
    await in_sync(board, admin, RUN.replace("on_config=show", "max_document=3000"))
    answer = await admin.refused("PATCH", "/v1/devices/lamp-1", {"spec": {"values": {"a": "x" * 3000}}})

    assert answer.code == "document_too_large"


async def test_the_watchdog_is_fed_while_nobody_answers(small: Interpreter, new_board: MakeBoard) -> None:
    board = await new_board(small, server="127.0.0.1:9")
    await board.start(
        "client = Client(FOLDER, SETUP, defaults={'color': 'factory'}, on_config=show, feed=lambda: say(fed=1))\n"
        "asyncio.run(client.run())\n"
    )

    assert await board.says("config") == {"color": "factory"}
    await board.says("fed")
    await board.says("fed")


async def test_a_hundred_reconnects_leave_the_heap_as_it_was(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await board.start(RECONNECTS)
    free = await board.says("free")
    await board.off()

    assert len(free) == 11
    assert min(free[1:]) > free[1] - 2048


RECONNECTS = """
client = Client(FOLDER, SETUP)
client._pause_s = lambda ended: 0
heard, live, free, count = client.heard, client._live, [], 0
async def note(address, message, connection):
    global count
    await heard(address, message, connection)
    if message["type"] == "welcome":
        count += 1
        if count > 100:
            say(free=free)
        raise Trouble("again")
from henge_micro.wire import Trouble
async def measured(address):
    if count % 10 == 0 and len(free) == count // 10:
        gc.collect()
        free.append(gc.mem_free())
    await live(address)
client.heard, client._live = note, measured
asyncio.run(client.run())
"""


@pytest.mark.parametrize("fields", [1, 600], ids=["one-text", "many-fields"])
async def test_sixteen_kilobytes_are_applied_in_a_board_s_heap_or_refused(
    small: Interpreter, new_board: MakeBoard, admin: Admin, fields: int
) -> None:
    wide = {"type": "object", "additionalProperties": {"type": "string"}}
    await admin.apply(schema("wide", **wide), device("lamp-1", "wide", a="x"))
    board = await new_board(small)
    await in_sync(board, admin, RUN.replace("on_config=show", "max_document=16384"))
    size = 16370 // fields
    values = {f"k{number:04}": "x" * (size - 12) for number in range(fields)}
    await admin.set("lamp-1", **values)
    status = await settled(admin)

    assert (status["config"], status["reported"]["reason"]) in (("in-sync", ""), ("quarantined", "too-large"))


async def settled(admin: Admin) -> dict[str, Any]:
    """The board's status once it has said what became of the newest document."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seq = (await admin.ok("GET", "/v1/events"))["next"]
            status = dict((await admin.ok("GET", "/v1/devices/lamp-1"))["status"])
            if status["config"] not in ("pending", "applying"):
                return status
            await admin.ok("GET", f"/v1/events?since={seq}&wait=5")


async def test_f43_a_setup_for_another_fleet_does_not_change_who_a_board_is(
    small: Interpreter, new_board: MakeBoard, admin: Admin
) -> None:
    other = pki.make_ca("server", pki.new_id(b"another fleet .."), now=1.7e9)
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    before = board.record("identity")
    board.setup["token"] = foreign_token(other.certificate_der)
    await board.start()
    await admin.set("lamp-1", color="blue")
    await admin.until("lamp-1", config="in-sync")

    assert board.record("identity") == before


async def test_a_bundle_made_elsewhere_needs_no_joining(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    await admin.apply(schema(), device("lamp-1", color="red"))
    board = await new_board(small)
    await in_sync(board, admin)
    await board.off()
    other = Board(small, tmp_path / "other", {"server": board.setup["server"]})
    other.folder.mkdir()
    (other.folder / "identity").write_bytes((board.folder / "identity").read_bytes())
    try:
        await other.start()
        await admin.until("lamp-1", connection="online")
    finally:
        await other.off()


async def test_a_board_tells_a_daemon_that_lost_its_store_what_it_runs_and_comes_back(
    small: Interpreter, new_board: MakeBoard, daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {"note": {"type": "string"}, "color": {"type": "string", "default": "green"}}
    await admin.apply(schema("lamp", type="object", properties=long), device("lamp-1", note="x" * 1501))
    board = await new_board(small)
    await in_sync(board, admin)
    device_id = (await admin.ok("GET", "/v1/devices/lamp-1"))["metadata"]["id"]
    await board.off()
    await lose_store(daemon)
    async with daemon.admin() as there:
        await open_window(there)
        asked = counted(monkeypatch, daemon.app.authority, "_wanted")
        handed_in = counted(monkeypatch, daemon.app._rescue, "admit")
        board.setup |= {"schema": "lamp", "server": f"127.0.0.1:{daemon.port}"}
        await board.start(RUN)
        await board.says("config", {"color": "green", "note": "x" * 1501})
        await eventually_waits(there)
        (one,) = await waiting(there)
        before = len(asked)
        await eventually(lambda: len(asked) >= before + 3)
        assert len(handed_in) == 1, "it asks again and again, and says it once"
        assert (one["name"], one["id"], one["size"], one["schema"]) == ("lamp-1", device_id, 1528, "")
        assert (one["client"], one["facts"]["schema"]) == ("henge-micro/0.1", "lamp")
        await there.apply(schema("lamp", type="object", properties=long))

        taken = await take(there)

        assert (taken["devices"][0]["runs"], taken["devices"][0]["values"]) == (
            taken["devices"][0]["document"], {"note": "x" * 1501},
        )  # fmt: skip
        await there.until("lamp-1", config="in-sync", connection="online")
        await there.set("lamp-1", color="red", note="short")
        await board.says("config", {"color": "red", "note": "short"})
        await there.until("lamp-1", config="in-sync")


def counted(monkeypatch: pytest.MonkeyPatch, object_: Any, name: str) -> list[str]:
    """A mark for each call of a method from now on."""
    calls, method = [], getattr(object_, name)

    def called(*arguments: Any) -> Any:
        calls.append(name)
        return method(*arguments)

    monkeypatch.setattr(object_, name, called)
    return calls


async def lose_store(daemon: Service) -> None:
    """The daemon starts anew with nothing but its authorities."""
    await daemon.stop()
    fleet = daemon.app.authority.fleet
    shutil.rmtree(daemon.data_dir / "data" / "db")
    (daemon.data_dir / "data" / "db").mkdir(mode=0o700)
    make_store(daemon.data_dir / "data" / "db", fleet, time.time(), 2**24)
    await daemon.start()


async def eventually_waits(admin: Admin) -> None:
    """Wait until somebody has handed something in."""
    async with asyncio.timeout(PATIENCE_S):
        while not await waiting(admin):  # noqa: ASYNC110 - a request of a device rings no bell
            await asyncio.sleep(0.05)
