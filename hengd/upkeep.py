"""What the daemon does now and then while it runs; nothing that is correct depends on it.

Space is set aside, the time and who was there are noted, old revisions, audit records, tokens and documents go, the
server's certificate is renewed, the key of the secrets is looked after, and a backup is made if one is due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hengd.room import make_ballast
from hengd.rules.audit import Audit
from hengd.rules.configs import Configs
from hengd.rules.custody import tend_vault
from hengd.rules.sweep import Sweep
from hengd.rules.timekeeping import Timekeeper
from hengd.rules.tokens import Tokens
from hengd.rules.vault import Vault
from hengd.store import Store
from henge_protocol.errors import StorageFull

log = logging.getLogger("hengd")

UPKEEP_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """How much is kept of history and audit: so many revisions and records at least, and all that are younger."""

    revisions: int
    for_s: float


class Upkeep:
    """One turn after the other, until ``run`` is cancelled."""

    def __init__(
        self,
        store: Store,
        database: Path,
        configs: Configs,
        audit: Audit,
        tokens: Tokens,
        vault: Vault,
        timekeeper: Timekeeper,
        *,
        kept: Kept,
        renew_certificate: Callable[[], None],
        back_up: Callable[[], Awaitable[None]],
        note_contacts: Callable[[], Awaitable[None]],
        every_s: float = UPKEEP_S,
    ) -> None:
        self._store = store
        self._database = database
        self._configs = configs
        self._audit = audit
        self._tokens = tokens
        self._vault = vault
        self._timekeeper = timekeeper
        self._kept = kept
        self._renew_certificate = renew_certificate
        self._back_up = back_up
        self._note_contacts = note_contacts
        self._every_s = every_s
        self._sweep = Sweep(store)

    async def run(self) -> None:
        """Take turns for ever; one that fails is told and leaves the next to try again."""
        while True:
            await asyncio.sleep(self._every_s)  # first: a clock that was wrong at boot may be right by then
            try:
                await self._turn()
            except StorageFull as error:
                log.warning("upkeep waits: %s", error, extra={"event": "upkeep_waits"})
            except Exception:  # task boundary: upkeep goes on at its next turn
                log.exception("upkeep failed", extra={"event": "upkeep_failed"})

    def tell_doubt(self) -> None:
        """Say in the log that the clock is in doubt, if it is."""
        with self._store.read() as tx:
            trouble = self._timekeeper.trouble(tx)
        if trouble is not None:
            log.warning("%s (%s)", trouble.message, trouble.cure, extra={"event": "clock_suspect"})

    async def _turn(self) -> None:
        make_ballast(self._database)
        await self._timekeeper.note()
        await self._note_contacts()
        self.tell_doubt()
        with self._store.read() as tx:
            passed = self._timekeeper.passed(tx)
        while await self._configs.prune(self._kept.revisions, self._kept.for_s, now=passed):
            pass
        while await self._audit.prune(self._kept.revisions, self._kept.for_s, now=passed):
            pass
        await self._tokens.prune()
        while await self._sweep.step():
            pass
        await tend_vault(self._vault, self._store)
        self._renew_certificate()
        await self._back_up()
