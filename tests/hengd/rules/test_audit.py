"""Records of refusals are bounded, whatever strangers do."""

from __future__ import annotations

import logging

import pytest

from hengd.rules.audit import REFUSED_AT_ONCE, REFUSED_EVERY_S, Audit, Refusals
from hengd.rules.outcome import Author
from henge_protocol.errors import Unavailable
from tests.hengd.rules.conftest import Desk

STRANGER = Author("nobody", "enrol 192.0.2.7", may_end_identities=False)


def _objects(desk: Desk) -> list[str]:
    return [record.object for record in Audit(desk.store).read(0, 1000)[2]]


async def test_a_stranger_who_tries_without_end_leaves_few_records_that_tell_of_all(desk: Desk) -> None:
    now = 0.0
    refusals = Refusals(desk.store, clock=lambda: desk.now, monotonic=lambda: now)
    for _ in range(1000):
        await refusals.note("token.refused", "token", STRANGER)
    now += REFUSED_EVERY_S
    for _ in range(3):
        await refusals.note("token.refused", "token", STRANGER)

    assert _objects(desk) == ["token"] * REFUSED_AT_ONCE + [f"token (and {1000 - REFUSED_AT_ONCE} more before)"]


async def test_a_refusal_stands_though_it_cannot_be_recorded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(operation: object, **options: object) -> None:
        raise Unavailable("storage_full", "the disk is full")

    monkeypatch.setattr(desk.store, "write", full)
    refusals = Refusals(desk.store, clock=lambda: desk.now, monotonic=lambda: 0.0)
    with caplog.at_level(logging.WARNING):
        await refusals.note("token.refused", "token", STRANGER)

    assert "a refusal could not be recorded" in caplog.text
