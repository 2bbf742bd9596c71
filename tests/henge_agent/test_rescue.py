# ruff: noqa: ASYNC240 - a test looks at small files
"""A daemon that lost its store is told what runs here, by a device that goes on with it."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from henge_agent.applier import Applier
from henge_agent.exchange import Answer, refusal
from henge_agent.rescue import AGAIN_S, wanted_by
from henge_agent.state import State
from henge_protocol.errors import Denied
from henge_protocol.model import digest_of
from henge_protocol.strictjson import canonical
from tests.henge_agent.scripted import EPOCH, Scripted
from tests.henge_agent.test_runner import BLUE, RED, World, agent, at, membership_of

LINE = "the-line-that-began"


@pytest.fixture
async def lost(joined: State, scripted: Scripted, path: Path, world: World) -> State:
    """A device that runs a document whose daemon has lost its store."""
    scripted.schema = {"properties": {"color": {}}}
    async with agent(at(joined, scripted.address), path, world) as applier:
        await runs_red(applier, joined, scripted)
    scripted.refuse, scripted.rescue = (403, "unknown_certificate"), LINE
    world.sleeps.clear()
    return joined


async def runs_red(applier: Applier, state: State, scripted: Scripted) -> None:
    """Wait until the daemon has confirmed the document."""
    await scripted.want(RED)
    seen = -1
    while state.progress.current is None or state.progress.report is not None:
        seen = await applier.news(seen)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lamp.json"


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("websockets", [True, False])
async def test_a_daemon_that_lost_its_store_is_told_what_runs(
    lost: State, scripted: Scripted, path: Path, world: World, websockets: bool
) -> None:
    scripted.websockets = websockets
    async with agent(lost, path, world):
        await scripted.seen(lambda: scripted.handed_in)

    (body,) = scripted.handed_in
    assert base64.b64decode(body["document"]) == RED
    assert base64.b64decode(body["schema"]) == canonical(scripted.schema)
    assert (body["digest"], body["epoch"], body["revision"]) == (digest_of(RED), EPOCH, 1)
    assert (body["name"], body["facts"]) == ("lamp-1", {"arch": "x", "schema": "lamp"})
    assert body["client"].startswith("henge-agent/")
    assert path.read_bytes() == RED


@pytest.mark.parametrize("name", ["", "No Name", "x" * 64])
async def test_what_cannot_be_the_name_of_a_schema_is_not_kept(
    joined: State, scripted: Scripted, path: Path, world: World, name: str
) -> None:
    scripted.schema, scripted.schema_name = {"properties": {"color": {}}}, name
    async with agent(at(joined, scripted.address), path, world) as applier:
        await runs_red(applier, joined, scripted)

    assert membership_of(joined).schema == ""


async def test_it_is_told_once_an_hour_while_the_device_asks_again_and_again(
    lost: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(lost, path, world):
        await world.asleep(8)
        assert len(scripted.handed_in) == 1
        assert max(world.pauses) <= 60
        world.ahead_s = AGAIN_S
        await scripted.seen(lambda: len(scripted.handed_in) == 2)


async def test_a_daemon_that_was_founded_once_more_is_told_again(
    lost: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(lost, path, world):
        await scripted.seen(lambda: scripted.handed_in)
        scripted.rescue = "another-line"
        await scripted.seen(lambda: len(scripted.handed_in) == 2)


async def test_the_device_goes_on_as_if_nothing_had_been_once_it_is_known(
    lost: State, scripted: Scripted, path: Path, world: World
) -> None:
    async with agent(lost, path, world):
        await scripted.seen(lambda: scripted.handed_in)
        scripted.refuse = None
        await scripted.want(BLUE)
        await scripted.reported("applied", digest_of(BLUE))

    assert path.read_bytes() == BLUE
    assert membership_of(lost).refused == ""


@pytest.mark.parametrize("status", [403, 413, 429, 500])
async def test_a_refusal_of_what_is_handed_in_is_told_and_tried_again(
    lost: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    scripted.refuse_hand_in = (status, "rate_limited")
    async with agent(lost, path, world):
        await scripted.seen(lambda: len(scripted.handed_in) == 3)

    assert "does not take what runs here: because of rate_limited" in caplog.text


async def test_a_schema_that_is_too_large_stays_here(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.schema = {"properties": {"color": {}}, "examples": ["x" * 60_000, "y" * 10_000]}
    async with agent(at(joined, scripted.address), path, world) as applier:
        await runs_red(applier, joined, scripted)
        scripted.refuse, scripted.rescue = (403, "unknown_certificate"), LINE
        for socket in list(scripted.sockets):
            await socket.close(code=1001)
        await scripted.seen(lambda: scripted.handed_in)

    assert "schema" not in scripted.handed_in[0]


async def test_a_device_that_runs_nothing_has_nothing_to_hand_in(
    joined: State, scripted: Scripted, path: Path, world: World
) -> None:
    scripted.refuse, scripted.rescue = (403, "unknown_certificate"), LINE
    async with agent(at(joined, scripted.address), path, world):
        await world.asleep(3)

    assert scripted.handed_in == []


@pytest.mark.parametrize("code", ["certificate_revoked", "certificate_superseded", "wrong_role"])
async def test_no_other_refusal_is_taken_for_a_wish(
    lost: State, scripted: Scripted, path: Path, world: World, code: str
) -> None:
    world.held, world.chance, scripted.refuse = True, 0.0, (403, code)
    async with agent(lost, path, world):
        pauses = await world.asleep()

    assert (scripted.handed_in, pauses[0] > 60) == ([], True)


@pytest.mark.parametrize(("said", "wanted"), [("a-line", "a-line"), (1, ""), (None, ""), ("", ""), (["x"], "")])
def test_only_text_is_a_wish(said: Any, wanted: str) -> None:
    body = json.dumps({"code": "unknown_certificate", "detail": "x", "rescue": said}).encode()

    assert wanted_by(refusal(Answer(403, body))) == wanted
    assert wanted_by(Denied("certificate_revoked", "x", extra={"rescue": "a-line"})) == ""


async def test_what_was_handed_in_is_told_once_in_the_log_and_no_secret_with_it(
    lost: State, scripted: Scripted, path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with agent(lost, path, world):
        await world.asleep(6)

    assert caplog.text.count("waits for a person") == 1
    assert '"red"' not in caplog.text
