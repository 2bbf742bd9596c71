"""What is done now and then, on a real store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hengd.datadir import DataDir, open_data_dir
from hengd.rules.audit import Audit, note
from hengd.rules.authority import Authority
from hengd.rules.changes import Changes
from hengd.rules.configs import Configs
from hengd.rules.custody import find_vault
from hengd.rules.enrolment import Enrolment
from hengd.rules.outcome import Author
from hengd.rules.presence import Presence
from hengd.rules.schemas import SchemaCache
from hengd.rules.timekeeping import LEAP_S, Timekeeper, mark_of
from hengd.rules.tokens import Tokens
from hengd.store import Store, Transaction
from hengd.upkeep import Kept, Upkeep
from henge_protocol import pki
from henge_protocol.errors import StorageFull
from tests.service import PATIENCE_S

NOW = 1_800_000_000.0
LATER = NOW + 1800


async def _nothing() -> None:
    """No backup is due, and no device was there."""


class House:
    """A store half an hour after it was founded, and what keeps it in order."""

    def __init__(self, folder: DataDir, store: Store) -> None:
        self.folder, self.store = folder, store
        self.now = LATER
        self.ballast = folder.database / "ballast"

    def upkeep(self, renew_certificate: Callable[[], None]) -> Upkeep:
        """Upkeep that does not rest."""
        clock = lambda: self.now  # noqa: E731
        keeper = Timekeeper(self.store, ends=lambda: NOW + 3650 * pki.DAY_S, clock=clock, monotonic=lambda: 0.0)
        vault = find_vault(self.store, "", None, self.folder.path)
        configs = Configs(self.store, Changes(SchemaCache(), vault, clock, lambda: "0" * 26), Presence())
        return Upkeep(
            self.store, self.folder.database, configs, Audit(self.store), self.tokens, vault, keeper,
            kept=Kept(10, 60.0), every_s=0.001, renew_certificate=renew_certificate, back_up=_nothing,
            note_contacts=_nothing,
        )  # fmt: skip

    @property
    def tokens(self) -> Tokens:
        """Tokens that can be made and listed."""
        authority = Authority(
            self.store, self.folder.authorities, self.folder.journal,
            is_rescue=lambda: False, clock=lambda: self.now, monotonic=lambda: 0.0,
        )  # fmt: skip
        vault = find_vault(self.store, "", None, self.folder.path)
        changes = Changes(SchemaCache(), vault, lambda: self.now, lambda: "0" * 26)
        enrolment = Enrolment(authority.issuer, changes)
        return Tokens(self.store, authority, enrolment, clock=lambda: self.now, monotonic=lambda: 0.0)

    async def turns(self, number: int, *, refusing: Exception | None = None) -> None:
        """So many turns, to their last step, which may refuse each."""
        left = asyncio.Semaphore(0)

        def renew_certificate() -> None:
            left.release()
            if refusing is not None:
                raise refusing

        running = asyncio.create_task(self.upkeep(renew_certificate).run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(number):
                    await left.acquire()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @property
    def mark(self) -> float:
        """What the store knows to have passed."""
        with self.store.read() as tx:
            return mark_of(tx)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    folder = open_data_dir(tmp_path / "state", allow_network_fs=True, now=NOW, map_bytes=2**24)
    store = Store.open(folder.database, map_bytes=2**24)
    try:
        yield House(folder, store)
    finally:
        await store.close()
        folder.close()


async def test_a_turn_notes_the_time_and_sets_space_aside_again(house: House) -> None:
    house.ballast.unlink()
    await house.turns(1)

    assert house.mark == LATER
    assert house.ballast.exists()


async def test_a_turn_drops_audit_records_beyond_those_kept(house: House) -> None:
    def act(tx: Transaction) -> None:
        for number in range(13):
            note(tx, "token.created", f"token/{number}", Author("ada", "socket", may_end_identities=True), now=NOW)

    await house.store.write(act)
    await house.turns(1)
    anchor, head, records = Audit(house.store).read(0, 100)

    assert (anchor.number, head.number, len(records)) == (3, 13, 10)


async def test_a_turn_drops_tokens_that_ended_a_day_ago_and_no_others(house: House) -> None:
    await house.tokens.create({"ttl_s": 60, "name": "ended"}, Author("ada", "socket", may_end_identities=True))
    await house.tokens.create({"ttl_s": 7200, "name": "lately"}, Author("ada", "socket", may_end_identities=True))
    for _ in range(25):
        house.now += 3600
        await house.turns(1)

    assert [token.pattern for token in house.tokens.list()] == ["lately"]


@pytest.mark.parametrize(
    ("trouble", "event"), [(StorageFull("storage_full", "full"), "upkeep_waits"), (ValueError("bug"), "upkeep_failed")]
)
async def test_a_turn_that_fails_is_told_and_followed_by_the_next(
    house: House, caplog: pytest.LogCaptureFixture, trouble: Exception, event: str
) -> None:
    with caplog.at_level(logging.WARNING, "hengd"):
        await house.turns(2, refusing=trouble)

    assert event in {getattr(record, "event", "") for record in caplog.records}


async def test_a_clock_in_doubt_is_told(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.now = NOW - LEAP_S
    with caplog.at_level(logging.WARNING, "hengd"):
        await house.turns(1)

    assert [getattr(record, "event", "") for record in caplog.records] == ["clock_suspect"]
