"""What is done to a data folder while no daemon works on it."""

# ruff: noqa: ASYNC240 - a test looks at small files
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hengd.offline import accept_clock
from hengd.settings import load_settings
from henge_protocol.errors import Conflict, HengeError, NotFound, Unavailable
from tests.service import Clock, Service, schema

YEAR_S = 365 * 86400.0


async def accepted(data_dir: Path, now: float) -> float:
    return await accept_clock(data_dir, load_settings(flags={}), now=now)


async def test_a_person_who_knows_the_time_ends_the_doubt_k1(data_dir: Path, clock: Clock) -> None:
    clock.jump(YEAR_S)
    service = Service(data_dir, clock)
    await service.start()
    clock.jump(-YEAR_S)
    async with service.admin() as admin:
        await admin.apply(schema())
        with pytest.raises(AssertionError, match="clock_suspect"):
            await service.join(admin, "lamp-1")
    await service.stop()

    before = await accepted(data_dir, clock.wall())
    assert before == pytest.approx(clock.wall() + YEAR_S, abs=60)

    await service.start()
    async with service.admin() as admin:
        assert (await admin.ok("GET", "/v1/status"))["warnings"] == []
        await service.join(admin, "lamp-1")
    await service.stop()
    service.clean()


async def test_a_running_daemons_folder_is_left_alone(daemon: Service) -> None:
    with pytest.raises(Conflict) as refusal:
        await accepted(daemon.data_dir, daemon.clock.wall())

    assert refusal.value.code == "already_running"


async def test_where_there_is_no_store_none_is_made(data_dir: Path, clock: Clock) -> None:
    with pytest.raises(NotFound):
        await accepted(data_dir, clock.wall())

    assert not data_dir.exists()


@pytest.mark.parametrize("offset_s", [-50 * YEAR_S, 30 * YEAR_S])
async def test_a_time_that_cannot_be_is_not_accepted(data_dir: Path, clock: Clock, offset_s: float) -> None:
    service = Service(data_dir, clock)
    await service.start()
    await service.stop()
    service.clean()

    with pytest.raises(Unavailable) as refusal:
        await accepted(data_dir, clock.wall() + offset_s)
    assert_has_cure(refusal.value)


def assert_has_cure(error: HengeError) -> None:
    said: Any = (error.code, "timedatectl" in error.cure)
    assert said == ("clock_suspect", True)
