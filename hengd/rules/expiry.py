"""Overrides begin and end: set by people for a time, and taken away by the daemon as a revision of its own."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Final

from hengd.records import Origin, Override
from hengd.rules.change import Overrider
from hengd.rules.configs import Configs, Request
from hengd.rules.fleet import find_object
from hengd.rules.objects import object_path
from hengd.rules.outcome import Author, Outcome
from hengd.rules.overrides import Overriding, ended_by, next_end, overridden, running
from hengd.rules.timekeeping import CLOCK_SLACK_S, Timekeeper
from hengd.store import Reader, Store
from henge_protocol.errors import HengeError, StorageFull, Unavailable

log = logging.getLogger("hengd.overrides")

ITSELF: Final = Author("henge", "daemon", may_end_identities=False)
LOOK_S: Final = 30.0
"""At most so long between two looks at the clock: it may be set."""
FULL_S: Final = 2.0
"""The same while the disk is full: what is over ends soon after there is space."""
LATE_S: Final = 0.02
"""A timer may fire a little early; a look that finds nothing due yet would be for nothing."""


class Overrides:
    """Overrides of groups and devices. Their end is judged as that of certificates: while the clock is in doubt, by
    the mark, and then none is set. A clock that leaps ahead ends them early: what is then in force is what everybody
    has configured. For the same reason those that were set by a clock that was ahead end as soon as it is right again:
    it promised their end for a moment that is far away."""

    def __init__(self, store: Store, configs: Configs, timekeeper: Timekeeper) -> None:
        self._store = store
        self._configs = configs
        self._timekeeper = timekeeper
        self._changed = asyncio.Event()
        self._looked_at = 0.0
        """The moment up to which overrides were ended, but for those that cannot end."""
        self._dated = math.inf
        """No override is of a clock that said more; unknown before the first look, in doubt, and if one did not end."""
        self._again_s = LOOK_S
        self._stuck: list[HengeError] = []

    @property
    def stuck(self) -> Sequence[HengeError]:
        """Why overrides whose time is over are still there, one for each object: for people to see."""
        return self._stuck

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
            now, is_sure = self._timekeeper.now(tx), self._timekeeper.trouble(tx) is None
            due = ended_by(tx, now)
            if is_sure and now < self._dated:
                due += [one for one in _misdated(tx, now) if one not in due]
        self._looked_at, self._dated = now, now if is_sure else math.inf
        again_s = LOOK_S
        try:
            self._stuck = await self._end_or_tell(due, now) if due else []
        except StorageFull as error:
            again_s, told = FULL_S, f"overrides wait for their end: {error.message}"
            self._stuck = [StorageFull(error.code, told, cure=error.cure)]
            if self._again_s != FULL_S:
                log.warning("%s", told, extra={"event": "upkeep_waits"})
        self._again_s = again_s
        if self._stuck:  # they are looked for again, even if it is not yet their time
            self._dated = math.inf
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
            now = self._timekeeper.now(tx)
        self._dated = max(self._dated, now)
        return now + wanted.for_s

    async def _end(self, due: Sequence[tuple[str, str]], now: float) -> None:
        request = Request(ITSELF, "override ended", all_at_once=True)
        newest = self._dated + CLOCK_SLACK_S
        await self._configs.override(due, lambda old, _: running(old, now, newest=newest), None, request)

    async def _end_or_tell(self, due: Sequence[tuple[str, str]], now: float) -> list[HengeError]:
        """End what is due; what cannot be ended holds up nothing else, and is told in the answer.

        ``StorageFull`` if nothing can be written at all.
        """
        try:
            await self._end(due, now)
        except StorageFull:  # of all of them
            raise
        except HengeError as error:
            if len(due) == 1:
                return [_told(*due[0], error)]
            return [stuck for one in due for stuck in await self._end_or_tell([one], now)]
        return []

    def _patience_s(self) -> float:
        """Until the next end that the last look could not see; what could not end then is tried at each usual look."""
        with self._store.read() as tx:
            end, now = next_end(tx, self._looked_at), self._timekeeper.now(tx)
        return self._again_s if end is None else min(self._again_s, max(0.0, end - now) + LATE_S)


def _misdated(tx: Reader, now: float) -> list[tuple[str, str]]:
    """Kind and name of every object with an override that was set in the future."""
    objects = [find_object(tx, kind, name) for kind, name in ended_by(tx, math.inf)]
    return [
        (one.kind, one.name)
        for one in objects
        if one is not None and any(override.time > now + CLOCK_SLACK_S for override in one.overrides)
    ]


def _told(kind: str, name: str, error: HengeError) -> HengeError:
    path = object_path(kind, name)
    log.warning("an override of %s cannot end: %s", path, error, extra={"event": "override_stuck", "object": path})
    return type(error)(error.code, f"an override of {path} cannot end: {error.message}", cure=error.cure)
