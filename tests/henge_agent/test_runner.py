# ruff: noqa: ASYNC240 - a test looks at small files
from __future__ import annotations

import asyncio
import json
import math
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from henge_agent.applier import Applier
from henge_agent.link import Greeting
from henge_agent.records import Membership
from henge_agent.runner import Runner, Surroundings
from henge_agent.settings import Address, Hooks, Output
from henge_agent.state import State, read_membership
from henge_protocol import pki
from henge_protocol.model import digest_of
from henge_protocol.tls import device_server_context
from henge_protocol.trust import server_name
from henge_protocol.wire import Bye, Error, Hello, Message, Report, Welcome, encode
from tests.henge_agent import scripted as scripts
from tests.henge_agent.cutting import FullDisk
from tests.henge_agent.scripted import EPOCH, Scripted, serving
from tests.henge_protocol.authorities import FLEET, NOW, YEAR_S, Fleet, leaf
from tests.henge_protocol.impostors import IMPOSTORS

_RENEWAL_SLEEPS_S = (3600.0, 1.5 * 86400)
"""Between looks at whether the identity is due, and after a failed renewal (by a chance of 0.5)."""
RED, BLUE, GREEN = b'{"color":"red"}', b'{"color":"blue"}', b'{"color":"green"}'


@dataclass
class World:
    """A clock that tests turn: sleeping is noted, and ends when the test says so."""

    sleeps: list[float] = field(default_factory=list)
    chance: float = 0.5
    uptime_s: float = 1e6
    hints: Sequence[Address] = ()
    looked_for: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    ahead_s: float = 0.0
    wrong_s: float = 0.0
    """How wrong the clock on the wall is."""
    held: bool = False
    """Whether sleeping lasts for ever; else it is over at once."""
    _slept: asyncio.Event = field(default_factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        seconds = next((long for long in _RENEWAL_SLEEPS_S if math.isclose(seconds, long, abs_tol=60)), seconds)
        self.sleeps.append(seconds)
        self._slept.set()
        await (asyncio.Event().wait() if self.held or seconds in _RENEWAL_SLEEPS_S else asyncio.sleep(0))

    async def asleep(self, count: int = 1) -> list[float]:
        """Wait until there were so many sleeps for connections; those."""
        async with asyncio.timeout(20):
            while len(self.pauses) < count:
                self._slept.clear()
                await self._slept.wait()
        return self.pauses[:count]

    @property
    def pauses(self) -> list[float]:
        return [seconds for seconds in self.sleeps if seconds not in _RENEWAL_SLEEPS_S]

    async def find(self, fleet_id: str) -> Sequence[Address]:
        self.looked_for.append(fleet_id)
        return self.hints

    def surroundings(self) -> Surroundings:
        return Surroundings(
            now=lambda: max(60.0, time.time() + self.wrong_s),
            clock=lambda: time.monotonic() + self.ahead_s,
            sleep=self.sleep,
            random=lambda: self.chance,
            uptime_s=self.uptime_s,
            find=self.find,
            tell=self.told.append,
        )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lamp.json"


def at(state: State, address: Address, **fields: Any) -> State:
    assert state.membership is not None
    state.keep_membership(replace(state.membership, address=str(address), **fields))
    return state


@asynccontextmanager
async def agent(state: State, path: Path, world: World, **hooks: Any) -> AsyncIterator[Applier]:
    around = world.surroundings()
    environ = {"PATH": os.environ["PATH"]}
    applier = Applier(
        state, (Output(path, "json"),), Hooks(**hooks), environ=environ, clock=around.clock, boot="boot-1"
    )
    runner = Runner(state, applier, Greeting("boot-1", {"arch": "x"}), around)
    task = asyncio.create_task(runner.run())
    try:
        yield applier
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled(), task


async def test_a_change_reaches_the_file_and_its_report_the_daemon(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        report = await scripted.reported("applied", digest_of(RED))
        assert path.read_bytes() == RED
        await scripted.want(BLUE)
        await scripted.reported("applied", digest_of(BLUE))
        assert path.read_bytes() == BLUE

    assert (report.epoch, report.revision) == (EPOCH, 1)
    assert scripted.connections == 1
    first = scripted.hellos[0]
    assert (first.state, first.digest, first.boot, first.facts) == ("none", "", "boot-1", {"arch": "x"})
    assert first.client.startswith("henge-agent/")
    assert any("connected to" in text for text in world.told)


@pytest.mark.parametrize("websockets", [True, False])
async def test_the_schema_is_fetched_once_and_documents_are_held_against_it(
    joined: State, scripted: Scripted, path: Path, world: World, websockets: bool
) -> None:
    scripted.schema = {"properties": {"color": {"enum": ["red"]}}}
    scripted.websockets = websockets
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(b'{"color":"red"}')
        await scripted.reported("applied")
        await scripted.want(b'{"color":"blue"}')
        report = await scripted.reported("rejected")
        await scripted.want(b'{"color":"red","dim":1}')
        await scripted.reported("applied", digest_of(b'{"color":"red","dim":1}'))

    assert (report.reason, report.errors[0].pointer) == ("invalid", "/color")
    assert scripted.schemas_asked == 1


async def test_after_a_cut_link_the_hello_says_what_runs(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: len(scripted.hellos) == 2)

    assert (scripted.hellos[1].state, scripted.hellos[1].digest, scripted.hellos[1].revision) == (
        "applied",
        digest_of(RED),
        1,
    )
    assert world.pauses == [0.5]


async def test_a_report_without_receipt_is_said_again_on_the_next_link(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.receipts = False
    async with agent(at(joined, scripted.address), path, world) as applier:
        await scripted.want(RED)
        await scripted.reported("applied")
        scripted.receipts = True
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: len(scripted.reports) == 2)
        seen = -1
        while applier.report is not None:
            seen = await applier.news(seen)

    assert scripted.reports[0] == scripted.reports[1]


async def test_a_link_that_is_cut_does_not_disturb_the_hook(
    joined: State, scripted: Scripted, path: Path, world: World, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with agent(at(joined, scripted.address), path, world, on_change=f"cat {fifo}; echo x >> {tmp_path}/ran"):
        await scripted.want(RED)
        await scripted.reported("applying")
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: len(scripted.hellos) == 2)
        await asyncio.to_thread(fifo.write_text, "go on")
        await scripted.reported("applied")

    assert (tmp_path / "ran").read_text() == "x\n"


async def test_byes_wish_is_honoured_and_never_undercut(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.on_frame = lambda frame: Bye("stopping", 40) if isinstance(frame, Report) else None
    world.held = True
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        assert await world.asleep() == [60.0]


async def test_delays_grow_while_nobody_answers_and_start_again_after_a_good_answer(
    joined: State, fleet: Fleet, path: Path, world: World
) -> None:
    async with serving(Scripted(fleet)) as scripted:
        address = scripted.address
    async with agent(at(joined, address), path, world):
        assert (await world.asleep(8)) == [0.5, 1, 2, 4, 8, 16, 30, 30]
        async with serving(Scripted(fleet, address=address)) as scripted:
            await scripted.seen(lambda: scripted.hellos)
            count = len(world.pauses)
        assert (await world.asleep(count + 2))[count:] == [0.5, 1]

    assert world.looked_for


@pytest.mark.parametrize(("given", "known"), [("hall-lamp", "hall-lamp"), ("Not a Name", "lamp-1"), ("", "lamp-1")])
async def test_the_name_that_the_device_was_given_meanwhile_is_remembered(
    joined: State, scripted: Scripted, path: Path, world: World, given: str, known: str
) -> None:
    """``henge-agent status`` reads it from there."""
    scripted.name = given
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")

    membership = read_membership(joined.folder)
    assert membership is not None
    assert membership.name == known


async def test_known_addresses_come_first_then_hints_and_the_good_one_is_remembered(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    world.hints = [Address("127.0.0.1", 9), scripted.address]
    async with agent(at(joined, Address("127.0.0.1", 10)), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")

    assert joined.membership is not None
    assert world.looked_for == [joined.membership.fleet_id]
    assert (joined.membership.address, joined.membership.last_address) == ("127.0.0.1:10", str(scripted.address))


async def test_where_the_daemon_was_last_is_tried_first(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    met = []

    def turn_away(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append("somebody")
        writer.close()

    async with await asyncio.start_server(turn_away, "127.0.0.1", 0) as old_place:
        old = Address(*old_place.sockets[0].getsockname())
        async with agent(at(joined, old, last_address=str(scripted.address)), path, world):
            await scripted.want(RED)
            await scripted.reported("applied")

    assert met == []


async def test_a_stranger_where_the_daemon_once_was_does_not_keep_the_device_away(
    joined: State, path: Path, world: World
) -> None:
    world.held = True
    async with (
        serving(Scripted(Fleet())) as stranger,
        agent(at(joined, stranger.address, last_address="127.0.0.1:9"), path, world),
    ):
        assert await world.asleep() == [0.5]


async def test_of_many_hints_only_a_few_are_tried(joined: State, scripted: Scripted, path: Path, world: World) -> None:
    world.hints = [Address("127.0.0.1", port) for port in range(2, 9)] + [scripted.address]
    async with agent(at(joined, Address("127.0.0.1", 10)), path, world):
        await world.asleep(2)

    assert scripted.connections == 0


async def test_a_server_that_is_not_ours_sees_no_frame_and_is_left_alone_for_minutes(
    joined: State, path: Path, world: World
) -> None:
    world.held = True
    async with serving(Scripted(Fleet())) as impostor, agent(at(joined, impostor.address), path, world):
        assert await world.asleep() == [300.0]

    assert (impostor.connections, impostor.frames) == (0, [])


@pytest.mark.parametrize("identity", IMPOSTORS.values(), ids=IMPOSTORS.keys())
async def test_whoever_took_the_daemons_address_sees_no_frame_and_the_document_stays_t33(
    joined: State, fleet: Fleet, path: Path, world: World, identity: Callable[[Fleet], bytes]
) -> None:
    world.held = True
    path.write_bytes(RED)
    impostor = Scripted(fleet, desired=BLUE, revision=1)
    async with serving(impostor, identity(fleet)):
        state = at(joined, impostor.address, known_time=int(time.time()))
        async with agent(state, path, world):
            assert await world.asleep() == [300.0]

    assert (impostor.connections, impostor.frames, impostor.polls) == (0, [], 0)
    assert path.read_bytes() == RED


async def test_somebody_in_between_who_asks_for_no_certificate_is_told_of_and_rarely_asked_t38(
    joined: State,
    scripted: Scripted,
    path: Path,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(scripts, "device_server_context", asking_for_nothing)
    world.held, world.chance = True, 0.0
    stripped = Scripted(scripted.fleet)
    async with serving(stripped), agent(at(joined, stripped.address), path, world):
        assert await world.asleep() == [2880.0]

    assert "because of certificate_required" in caplog.text
    assert stripped.frames == []


def asking_for_nothing(*arguments: Any) -> ssl.SSLContext:
    """TLS that hides from the daemon who comes."""
    context = device_server_context(*arguments)
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("code", ["certificate_revoked", "certificate_superseded", "unknown_certificate"])
async def test_a_refused_identity_asks_hourly(
    joined: State, scripted: Scripted, path: Path, world: World, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.held, world.chance, scripted.refuse = True, 0.0, (403, code)
    async with agent(at(joined, scripted.address), path, world):
        assert await world.asleep() == [2880.0]

    assert f"because of {code}" in caplog.text


async def test_the_same_trouble_is_told_once(
    joined: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.refuse = (503, "stopping")
    async with agent(at(joined, scripted.address), path, world):
        await world.asleep(4)

    assert caplog.text.count("because of stopping") == 1


async def test_the_same_trouble_is_told_once_at_each_of_two_addresses(
    joined: State, path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent(at(joined, Address("127.0.0.1", 9), last_address="127.0.0.1:10"), path, world):
        await world.asleep(4)

    assert [caplog.text.count(f"answers at 127.0.0.1:{port}:") for port in (9, 10)] == [1, 1]


async def test_close_codes_decide_how_long_to_stay_away(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    pauses, world.chance = [], 0.25
    async with agent(at(joined, scripted.address), path, world):
        for count, code in enumerate((4001, 4002, 4005, 1001), 1):
            await scripted.seen(lambda: scripted.sockets)
            await asyncio.gather(*(socket.close(code=code) for socket in list(scripted.sockets)))
            pauses = await world.asleep(count)

    assert pauses == [54.0, 3240.0, 3240.0, 0.25]


@pytest.mark.parametrize("code", [1008, 1009, 1011])
async def test_a_link_that_fails_soon_after_its_welcome_is_tried_less_and_less_often(
    joined: State, scripted: Scripted, path: Path, world: World, code: int
) -> None:
    scripted.receipts = False  # so that each link brings the report again, after the welcome
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        for count in range(1, 6):
            await scripted.seen(lambda count=count: len(scripted.reports) == count)
            await asyncio.gather(*(socket.close(code=code) for socket in list(scripted.sockets)))
            await world.asleep(count)
        world.ahead_s += 60
        await scripted.seen(lambda: len(scripted.reports) == 6)
        world.ahead_s += 60
        await asyncio.gather(*(socket.close(code=code) for socket in list(scripted.sockets)))
        pauses = await world.asleep(6)

    assert pauses == [0.5, 1, 2, 4, 8, 0.5]


async def test_a_connection_that_comes_to_nothing_is_told_once(
    joined: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on_frame = lambda frame: Report(EPOCH, 1, "0" * 64, "applied") if isinstance(frame, Hello) else None
    async with agent(at(joined, scripted.address), path, world):
        await world.asleep(4)

    assert caplog.text.count("before the daemon welcomed this device") == 1


async def test_a_device_that_is_revoked_while_connected_says_so_and_what_to_do(
    joined: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.held, world.chance = True, 0.25
    async with agent(at(joined, scripted.address), path, world):
        await scripted.seen(lambda: scripted.sockets)
        await asyncio.gather(*(socket.close(code=4005) for socket in list(scripted.sockets)))
        await world.asleep()

    told = next(record for record in caplog.records if "(revoked)" in record.message)
    assert told.levelname == "WARNING"
    assert "henge-agent join --replace" in told.message
    assert membership_of(joined).refused == "revoked"


async def test_a_device_that_is_welcomed_again_is_refused_no_more(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    joined.update_membership(lambda membership: replace(membership, refused="certificate_revoked"))
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.seen(lambda: scripted.reports)

    assert membership_of(joined).refused == ""


def membership_of(state: State) -> Membership:
    """As it stands on the disk."""
    found = read_membership(state.folder)
    assert found is not None
    return found


@pytest.mark.parametrize("websockets", [True, False])
async def test_versions_that_do_not_overlap_ask_hourly_and_are_told(
    joined: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture, websockets: bool
) -> None:
    world.held, world.chance = True, 0.0
    if websockets:
        foreign = Error("unsupported_protocol", "this daemon is from the future")
        scripted.on_frame = lambda frame: foreign if isinstance(frame, Hello) else None
    else:
        scripted.websockets, scripted.refuse = False, (422, "unsupported_protocol")
    async with agent(at(joined, scripted.address), path, world):
        assert await world.asleep() == [2880.0]

    assert membership_of(joined).refused == "unsupported_protocol"
    assert ("from the future" if websockets else "because of unsupported_protocol") in caplog.text
    assert "running the last good document" in world.told[-1]


async def test_without_websockets_it_long_polls_and_tries_again_after_a_while(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.websockets = False
    async with agent(at(joined, scripted.address), path, world) as applier:
        await scripted.want(RED)
        await scripted.reported("applied", digest_of(RED))
        await scripted.seen(lambda: scripted.polls)
        assert applier.report is None
        assert path.read_bytes() == RED
        scripted.websockets, world.ahead_s = True, 601.0
        await scripted.want(BLUE)
        await scripted.reported("applied", digest_of(BLUE))
        await scripted.seen(lambda: scripted.sockets)

    assert scripted.connections == 2


async def test_long_polling_reports_what_went_wrong(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.websockets = False
    async with agent(at(joined, scripted.address), path, world, on_change="exit 3"):
        await scripted.want(RED)
        report = await scripted.reported("rolled-back", digest_of(RED))

    assert (report.reason, report.errors[0].message) == ("hook-failed", "exit code 3")


async def test_a_verdict_that_comes_while_another_report_travels_is_said(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.websockets = False
    async with agent(at(joined, scripted.address), path, world, on_change="true") as applier:

        async def until_applied(frame: Message) -> None:
            seen = -1
            while isinstance(frame, Report) and frame.state == "applying" and applier.busy:
                seen = await applier.news(seen)

        scripted.hold = until_applied
        await scripted.want(RED)
        await scripted.reported("applied", digest_of(RED))

    assert [report.state for report in scripted.reports] == ["applying", "applied"]


async def test_after_a_power_cut_the_first_attempt_is_spread(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    world.uptime_s = 30
    async with agent(at(joined, scripted.address), path, world):
        await scripted.seen(lambda: scripted.hellos)

    assert world.pauses[0] == 5.0


async def test_an_identity_due_is_renewed_and_the_link_comes_back_with_it(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    at(joined, scripted.address, last_address=str(scripted.address), renew_at=1)
    async with agent(joined, path, world):
        await scripted.seen(lambda: len(scripted.certificates) == 2 and scripted.sockets)
        await scripted.want(RED)
        await scripted.reported("applied")

    assert joined.membership is not None
    assert (joined.membership.slot, joined.membership.trial) == ("b", None)


@pytest.mark.parametrize("websockets", [True, False])
async def test_a_daemon_that_asks_for_a_renewal_gets_one(
    joined: State, scripted: Scripted, path: Path, world: World, websockets: bool
) -> None:
    world.chance, scripted.renew_within_s, scripted.websockets = 0.0, 3600, websockets
    async with agent(at(joined, scripted.address), path, world):
        await scripted.seen(lambda: len(scripted.certificates) == 2)
        await scripted.want(RED)
        await scripted.reported("applied")

    assert joined.membership is not None
    assert (joined.membership.slot, joined.membership.trial) == ("b", None)
    assert scripted.renewals_wanted == 1


async def test_a_daemon_that_asks_again_need_not_wait_for_the_next_try_after_a_failure(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    at(joined, scripted.address, last_address=str(scripted.address), renew_at=1)
    scripted.refuse_renewal = (503, "clock_suspect")
    async with agent(joined, path, world):
        await scripted.seen(lambda: scripted.renewals_wanted and scripted.sockets)
        scripted.refuse_renewal, scripted.renew_within_s, world.chance = None, 3600, 0.0
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: len(scripted.certificates) == 2)

    assert scripted.renewals_wanted == 2


async def test_who_has_a_new_identity_on_trial_is_not_asked_for_another(
    joined: State, scripted: Scripted, world: World
) -> None:
    at(joined, scripted.address, trial="b")
    world.chance = 0.0
    applier = Applier(joined, (), Hooks(), environ={})
    runner = Runner(joined, applier, Greeting("boot-1", {}), world.surroundings())
    await runner._welcomed(scripted.address, Welcome(renew_within_s=1))
    assert runner._renewal.left_s(2**37) > 60

    at(joined, scripted.address, trial=None)
    await runner._welcomed(scripted.address, Welcome(renew_within_s=1))
    assert runner._renewal.left_s(2**37) <= 0


async def test_an_expired_identity_is_renewed_at_once(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.refuse = (401, "certificate_expired")
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")

    assert joined.membership is not None
    assert joined.membership.slot == "b"
    assert world.pauses == [0.0]


async def test_who_waited_for_another_renewal_does_not_ask_again(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    runner = Runner(
        at(joined, scripted.address),
        Applier(joined, (), Hooks(), environ={}),
        Greeting("boot-1", {}),
        world.surroundings(),
    )

    assert await asyncio.gather(runner._renewed(), runner._renewed()) == ["", ""]

    assert scripted.renewals == 1


async def test_an_address_that_cannot_be_kept_is_told_once_and_ends_no_link(
    joined: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    disk = at(joined, scripted.address)._files
    joined._files = FullDisk(only="membership.json")
    async with agent(joined, path, world):
        for document in (RED, BLUE, GREEN):
            await scripted.want(document)
            await scripted.reported("applied", digest_of(document))
            if document == BLUE:
                joined._files = disk
            for socket in list(scripted.sockets):
                await socket.close(code=1001)

    assert caplog.text.count("is not kept") == 1
    assert joined.membership is not None
    assert joined.membership.last_address == str(scripted.address)


async def test_an_identity_that_expired_too_long_ago_asks_hourly_and_says_to_join_again(
    joined: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.held, world.chance = True, 0.0
    scripted.refuse, scripted.refuse_renewal = (401, "certificate_expired"), (403, "approval_required")
    async with agent(at(joined, scripted.address), path, world):
        assert await world.asleep() == [2880.0]

    assert "not renewed: because of approval_required (join again with a token)" in caplog.text


async def test_a_failed_renewal_is_tried_again_much_later(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    at(joined, Address("127.0.0.1", 9), renew_at=1)
    async with agent(joined, path, world):
        await world.asleep(3)

    assert 1.5 * 86400 in world.sleeps


async def test_a_document_that_is_rejected_is_not_asked_for_again_by_the_agent(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(b"not json")
        report = await scripted.reported("rejected")

    assert report.reason == "not-json"
    assert len(scripted.reports) == 1


async def test_what_a_daemon_of_the_future_says_beyond_version_1_changes_nothing(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.desired, scripted.revision = RED, 1
    config, _, document = encode(scripted.config()).partition(b"\n")
    scripted.desired = None
    async with agent(at(joined, scripted.address), path, world):
        await scripted.seen(lambda: scripted.hellos)
        [socket] = scripted.sockets
        await socket.send_str('{"type":"weather","degrees":21}')
        await socket.send_str(json.dumps({**json.loads(config), "weather": {"degrees": 21}}) + "\n" + document.decode())
        await scripted.reported("applied", digest_of(RED))

    assert [frame.code for frame in scripted.frames if isinstance(frame, Error)] == ["unknown_type"]
    assert scripted.connections == 1
    assert path.read_bytes() == RED


async def test_useless_frames_are_answered_and_the_link_stays(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    def answer(frame: Message) -> Message | None:
        return Report(state="applied") if isinstance(frame, Report) else None

    scripted.on_frame = answer
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.seen(lambda: any(isinstance(frame, Error) for frame in scripted.frames))
        scripted.on_frame = None
        await scripted.want(BLUE)
        await scripted.reported("applied", digest_of(BLUE))

    assert scripted.connections == 1


async def test_a_hello_says_drifted_while_the_output_cannot_be_written_and_the_link_hears_of_its_return(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")
    path.unlink()
    path.mkdir()
    scripted.frames.clear()

    async with agent(joined, path, world):
        drifted = await scripted.reported("drifted", digest_of(RED))
        path.rmdir()
        await scripted.reported("applied", digest_of(RED))
        assert path.read_bytes() == RED

    assert [(hello.state, hello.digest) for hello in scripted.hellos] == [("drifted", digest_of(RED))]
    assert (drifted.reason, "not a regular file" in drifted.errors[0].message) == ("write-failed", True)


async def test_attempts_to_write_an_output_get_rarer(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")
    path.unlink()
    path.mkdir()
    world.sleeps.clear()

    async with agent(joined, path, world):
        assert await world.asleep(8) == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_what_somebody_changed_is_put_back_before_the_next_hello(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")
        path.write_bytes(b"by hand")
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: len(scripted.hellos) == 2)
        assert path.read_bytes() == RED

    assert (scripted.hellos[1].state, scripted.hellos[1].digest) == ("applied", digest_of(RED))


async def test_long_polling_says_drifted_too(joined: State, scripted: Scripted, path: Path, world: World) -> None:
    scripted.websockets = False
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")
    path.unlink()
    path.mkdir()
    scripted.frames.clear()

    async with agent(joined, path, world):
        await scripted.reported("drifted", digest_of(RED))

    assert scripted.hellos[0].state == "drifted"


def daemon_certificate(fleet: Fleet, *, ends: float) -> bytes:
    certificate, key = leaf(
        fleet.server_ca,
        uris=(),
        dns=[server_name(FLEET)],
        purposes=[ExtendedKeyUsageOID.SERVER_AUTH],
        valid=(ends - YEAR_S, ends),
    )
    return pki.certificate_pem(certificate) + key


@pytest.mark.parametrize("years", [-56, -1, 1, 30])
async def test_a_clock_that_is_wrong_keeps_no_device_from_its_daemon_k1(
    joined: State, scripted: Scripted, path: Path, world: World, years: int
) -> None:
    world.wrong_s = years * YEAR_S
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")

    assert path.read_bytes() == RED
    assert joined.membership is not None
    assert joined.membership.known_time <= time.time()


async def test_a_clock_that_jumps_while_connected_ends_nothing_k1(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world):
        for years, document in ((30, RED), (-56, BLUE), (0, GREEN)):
            world.wrong_s = years * YEAR_S
            await scripted.want(document)
            await scripted.reported("applied", digest_of(document))

    assert scripted.connections == 1


@pytest.mark.parametrize("years", [-1, 1])
async def test_a_certificate_of_the_daemon_that_ended_is_refused_only_when_that_is_certain(
    joined: State, fleet: Fleet, path: Path, world: World, years: int
) -> None:
    ended = int(NOW + years * YEAR_S)  # the machine's own clock does not matter
    world.held = True
    at(joined, Address("127.0.0.1", 1), known_time=ended + 1)
    async with serving(Scripted(fleet), daemon_certificate(fleet, ends=ended)) as thief:
        async with agent(at(joined, thief.address), path, world):
            assert await world.asleep() == [300.0]
        assert (thief.connections, thief.frames) == (0, [])
        async with agent(at(joined, thief.address, known_time=ended - 1), path, World()):
            await thief.want(RED)
            await thief.reported("applied")


@pytest.mark.parametrize(("daemon_years", "own_years"), [(0, 0), (30, 0), (0, 30), (-56, 0), (0, -56)])
async def test_what_both_clocks_say_has_passed_is_remembered(
    joined: State, scripted: Scripted, path: Path, world: World, daemon_years: int, own_years: int
) -> None:
    said = max(60, int(NOW + daemon_years * YEAR_S))
    scripted.on_frame = lambda frame: Welcome(epoch=EPOCH, time=said) if isinstance(frame, Hello) else None
    world.wrong_s = own_years * YEAR_S
    async with agent(at(joined, scripted.address), path, world):
        await scripted.want(RED)
        await scripted.reported("applied")

    assert joined.membership is not None
    earlier = min(said, max(60.0, time.time() + world.wrong_s))
    assert joined.membership.known_time == pytest.approx(earlier if earlier > 86400 else 0, abs=120)


async def test_a_moment_that_is_known_is_written_once_a_day_and_never_goes_back(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    known = int(time.time()) - 3600
    at(joined, scripted.address, last_address=str(scripted.address), known_time=known)
    async with agent(joined, path, world):
        await scripted.seen(lambda: scripted.hellos)
        world.wrong_s = -YEAR_S
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: len(scripted.hellos) == 2)
        await scripted.want(RED)
        await scripted.reported("applied")

    assert joined.membership is not None
    assert joined.membership.known_time == known


async def noted(applier: Applier, condition: Callable[[], object]) -> None:
    """Wait until the agent has made the condition true."""
    seen = -1
    async with asyncio.timeout(20):
        while not condition():
            seen = await applier.news(seen)


@pytest.mark.parametrize("websockets", [True, False])
async def test_a_document_that_is_not_confirmed_is_taken_back_and_blamed_by_the_next_contact(
    joined: State, scripted: Scripted, path: Path, world: World, *, websockets: bool
) -> None:
    scripted.websockets = websockets
    async with agent(at(joined, scripted.address), path, world) as applier:
        await scripted.want(RED)
        await noted(applier, lambda: joined.progress.current)
        scripted.receipts, scripted.confirm_s = False, 0
        await scripted.want(BLUE)
        verdict = await scripted.reported("rolled-back", digest_of(BLUE))
        assert path.read_bytes() == RED

    assert verdict.reason == "connectivity-lost"
    assert (scripted.hellos[-1].digest, scripted.hellos[-1].state) == (digest_of(RED), "applied")


async def test_an_outage_while_a_document_is_on_trial_is_nobodys_fault(
    joined: State, scripted: Scripted, path: Path, world: World, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with agent(
        at(joined, scripted.address), path, world, on_change=f"[ $HENGE_ROLLBACK ] || cat {fifo}"
    ) as applier:
        scripted.confirm_s = 0
        await scripted.want(BLUE)
        await scripted.reported("applying")
        scripted.refuse = (503, "stopping")
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await asyncio.to_thread(fifo.write_text, "go on")
        await noted(applier, lambda: joined.progress.report and joined.progress.report.reason)
        assert not path.exists()
        scripted.refuse, scripted.desired = None, None
        verdict = await scripted.reported("rolled-back", digest_of(BLUE))

    assert verdict.reason == "server-unreachable"


async def test_a_hooks_document_is_confirmed_only_by_a_connection_made_with_it(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    """The hook of this document is one that lets no new connection through while the old one lives on."""
    async with agent(at(joined, scripted.address), path, world, on_change="true"):
        await scripted.want(RED)
        await scripted.reported("applied", digest_of(RED))
        scripted.refuse = (503, "stopping")
        await scripted.want(BLUE)
        await world.asleep(3)
        assert not [report for report in scripted.reports if (report.state, report.revision) == ("applied", 2)]
        scripted.refuse = None
        await scripted.reported("applied", digest_of(BLUE))

    assert len(scripted.hellos) == 2


async def test_a_change_by_hand_is_told_and_put_back_while_connected(
    joined: State, scripted: Scripted, path: Path, world: World, tmp_path: Path
) -> None:
    async with agent(at(joined, scripted.address), path, world, on_change=f"echo $HENGE_ROLLBACK >> {tmp_path}/ran"):
        await scripted.want(RED)
        await scripted.reported("applied")
        await scripted.seen(lambda: len(scripted.reports) == 2)
        path.write_bytes(b"by hand")
        drifted = await scripted.reported("drifted", digest_of(RED))
        await scripted.seen(lambda: scripted.reports[-1].state == "applied")
        assert path.read_bytes() == RED

    assert (drifted.reason, drifted.errors[0].message) == ("changed", f"{path} is not as it was written")
    assert (tmp_path / "ran").read_text() == "\n1\n"
    assert len(scripted.hellos) == 1


async def test_a_change_by_hand_is_noticed_in_a_folder_that_the_first_document_made(
    joined: State, scripted: Scripted, tmp_path: Path, world: World
) -> None:
    path = tmp_path / "later" / "lamp.json"
    hook = f"echo ran >> {tmp_path}/ran"
    async with agent(at(joined, scripted.address), path, world, check=f"mkdir {path.parent}", on_change=hook):
        await scripted.want(RED)
        await scripted.reported("applied")
        await scripted.seen(lambda: len(scripted.reports) == 2)
        path.write_bytes(b"by hand")
        drifted = await scripted.reported("drifted", digest_of(RED))
        await scripted.seen(lambda: scripted.reports[-1].state == "applied")

    assert (drifted.reason, path.read_bytes()) == ("changed", RED)


async def test_whoever_changes_a_file_again_and_again_is_answered_later_each_time(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world) as applier:
        await scripted.want(RED)
        await scripted.reported("applied")
        for number in range(4):
            path.write_bytes(b"by hand %d" % number)
            await noted(applier, lambda: applier.adrift)
            await noted(applier, lambda: not applier.adrift)

    assert [seconds for seconds in world.pauses if seconds > 1] == [1.5, 2.0, 3.0, 5.0]


async def test_a_change_by_hand_can_be_left_and_is_told_until_it_is_undone_or_overwritten(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world, on_drift="leave") as applier:
        await scripted.want(RED)
        await scripted.reported("applied")
        path.write_bytes(b"by hand")
        await scripted.reported("drifted")
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: len(scripted.hellos) == 2)
        assert (scripted.hellos[1].state, path.read_bytes()) == ("drifted", b"by hand")
        path.write_bytes(RED)
        await noted(applier, lambda: not applier.adrift)

        path.write_bytes(b"by hand again")
        await noted(applier, lambda: applier.adrift)
        await scripted.want(BLUE)
        await scripted.reported("applied", digest_of(BLUE))
        assert (path.read_bytes(), applier.condition) == (BLUE, "applied")


async def test_what_was_left_stays_left_after_a_restart_but_a_new_output_is_written(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(at(joined, scripted.address), path, world, on_drift="leave"):
        await scripted.want(RED)
        await scripted.reported("applied")
        path.write_bytes(b"by hand")
        await scripted.reported("drifted")
    async with agent(joined, path, world, on_drift="leave"):
        await scripted.seen(lambda: len(scripted.hellos) == 2)
        assert (scripted.hellos[1].state, path.read_bytes()) == ("drifted", b"by hand")
    new = path.with_name("new.json")
    async with agent(joined, new, world, on_drift="leave"):
        await scripted.seen(lambda: len(scripted.hellos) == 3)
        assert (scripted.hellos[2].state, new.read_bytes()) == ("applied", RED)
        new.write_bytes(b"by hand, too")
        await scripted.seen(lambda: scripted.reports[-1].state == "drifted")
    assert new.read_bytes() == b"by hand, too"
