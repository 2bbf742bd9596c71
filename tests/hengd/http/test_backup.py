"""Backups over the API: one at a time, for admins, and never held by whoever reads it slowly."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from hengd.http import backup as route
from henge_protocol import sealedfile
from tests.service import PATIENCE_S, Admin, Clock, Service

BODY = {"passphrase": "correct horse battery staple"}


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealedfile, "_MEMORY_KIB", 32)
    monkeypatch.setattr(sealedfile, "_ITERATIONS", 1)


async def test_two_at_once_are_one_and_a_refusal(admin: Admin) -> None:
    first, second = await asyncio.gather(*(admin.call("POST", "/v1/backup", BODY) for _ in range(2)))

    assert sorted([first.status, second.status]) == [200, 409]
    assert (first if first.status == 409 else second).code == "backup_running"
    assert (await admin.call("POST", "/v1/backup", BODY)).status == 200


async def test_without_room_for_a_copy_nothing_is_begun(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hengd.backup.free_bytes", lambda folder: 1000)
    refused = await admin.refused("POST", "/v1/backup", BODY)

    assert (refused.status, refused.code) == (507, "storage_full")
    assert not list(daemon.data_dir.glob("backup.*"))


@pytest.mark.parametrize("body", [{}, {"passphrase": "short"}, {"passphrase": 7}, {**BODY, "more": 1}, []])
async def test_wrong_bodies_are_refused(admin: Admin, body: Any) -> None:
    assert (await admin.refused("POST", "/v1/backup", body)).status == 422


async def test_a_reader_that_takes_too_little_is_cut_and_the_next_is_served(
    daemon: Service, admin: Admin, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = route._next_piece

    def slow(given: Any) -> bytes:
        clock.advance(100)
        return pieces(given)

    with monkeypatch.context() as patch:
        patch.setattr(route, "_next_piece", slow)
        patch.setattr(route, "_PIECE_BYTES", 1024)
        with pytest.raises(aiohttp.ClientError):
            await admin.call("POST", "/v1/backup", BODY)

    async with asyncio.timeout(PATIENCE_S):
        while (again := await admin.call("POST", "/v1/backup", BODY)).status == 409:
            pass  # the daemon is still clearing up
    assert again.status == 200
    assert not list(daemon.data_dir.glob("backup.*"))
