"""Overrides begin and end: set by people for a time, and taken away by the daemon as a revision of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from hengd.records import Origin, Override
from hengd.rules.change import Overrider
from hengd.rules.configs import Configs, Request
from hengd.rules.outcome import Author, Outcome
from hengd.rules.overrides import Overriding, ended_by, next_end, overridden, running
from hengd.rules.timekeeping import Timekeeper
from hengd.store import Store
from henge_protocol.errors import HengeError, Unavailable

log = logging.getLogger("hengd.overrides")

ITSELF: Final = Author("henge", "daemon", may_end_identities=False)
LOOK_S: Final = 30.0
"""At most so long between two looks at the clock: it may be set."""
LATE_S: Final = 0.02
"""A timer may fire a little early; a look that finds nothing due yet would be for nothing."""


class Overrides:
    """Overrides of groups and devices. Their end is judged as that of certificates: while the clock is in doubt, by
    the mark, and then none is set. A clock that leaps ahead ends them early: what is then in force is what everybody
    has configured."""

    def __init__(self, store: Store, configs: Configs, timekeeper: Timekeeper) -> None:
        self._store = store
        self._configs = configs
        self._timekeeper = timekeeper
        self._changed = asyncio.Event()
        self._looked_at = 0.0
        """The moment up to which overrides were ended, but for those that cannot end."""

    async def change(self, kind: str, name: str, wanted: Overriding, if_match: str | None, request: Request) -> Outcome:
        """Override fields of one object for a time, or end overrides early; ``Unavailable`` ``clock_suspect``.

        Its own values are patched in the same change.
        """
        overrider = self._overrider(wanted, request)
        return await self._configs.override([(kind, name)], overrider, if_match, request, own=wanted.own)

    async def change_selected(self, selector: str, wanted: Overriding, request: Request) -> Outcome:
        """The same for every device that is selected when the change is made, as one revision or not at all.

        ``NotFound`` ``no_such_device`` if there is none.
        """
        return await self._configs.override_selected(selector, self._overrider(wanted, request), request)

    async def end_due(self) -> int:
        """End what is over now; how many objects were concerned. One that cannot be ended is logged and stays."""
        with self._store.read() as tx:
            now = self._timekeeper.now(tx)
            due = ended_by(tx, now)
        self._looked_at = now
        if not due:
            return 0
        try:
            await self._end(due, now)
        except HengeError:  # one of them: the others must not wait for it
            for one in due:
                await self._end_or_tell(one, now)
        return len(due)

    async def keep_ending(self) -> None:
        """End overrides as their time comes, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.end_due()
            except Exception:  # task boundary: the next look comes
                log.exception("overrides could not be ended", extra={"event": "upkeep_failed"})
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def look(self) -> None:
        """Something was changed: the next end may be nearer."""
        self._changed.set()

    def _overrider(self, wanted: Overriding, request: Request) -> Overrider:
        until = self._until(wanted)

        def overrider(old: Sequence[Override], origin: Origin) -> list[Override]:
            return overridden(old, wanted, until=until, origin=origin, message=request.message)

        return overrider

    def _until(self, wanted: Overriding) -> float:
        with self._store.read() as tx:
            trouble = self._timekeeper.trouble(tx)
            if trouble is not None and wanted.values:
                message = "the daemon's clock is in doubt, so nothing can be promised about the end of an override"
                raise Unavailable("clock_suspect", message, cure=trouble.cure)
            return self._timekeeper.now(tx) + wanted.for_s

    async def _end(self, due: Sequence[tuple[str, str]], now: float) -> None:
        request = Request(ITSELF, "override ended", all_at_once=True)
        await self._configs.override(due, lambda old, _: running(old, now), None, request)

    async def _end_or_tell(self, one: tuple[str, str], now: float) -> None:
        try:
            await self._end([one], now)
        except HengeError as error:
            told = {"event": "override_stuck", "object": "/".join(one)}
            log.warning("an override of %s/%s cannot end: %s", one[0].lower(), one[1], error, extra=told)

    def _patience_s(self) -> float:
        """Until the next end that the last look could not see; what could not end then is tried at each usual look."""
        with self._store.read() as tx:
            end, now = next_end(tx, self._looked_at), self._timekeeper.now(tx)
        return LOOK_S if end is None else min(LOOK_S, max(0.0, end - now) + LATE_S)
