"""What runs, how it fares and what the daemon should hear of it; kept durably, one change at a time.

``henge_agent.trial`` says which progress follows on which; this module keeps it, knows when a trial or the search for
its verdict is over, and rings when there is news.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from henge_agent import trial, verdicts
from henge_agent.records import Progress, Version
from henge_agent.state import State
from henge_agent.trial import CONNECTIVITY_LOST, SERVER_UNREACHABLE, VERDICT_S
from henge_agent.verdicts import drifted, report_of
from henge_protocol.errors import HengeError
from henge_protocol.model import short_digest
from henge_protocol.wire import Receipt, Report

Change = Callable[[Progress], Progress]
NOTHING: Final = Version("", 0, "")

log = logging.getLogger(__name__)


class Ledger:
    """The progress of one state folder. ``clock`` gives seconds that only grow, from one boot of the machine on."""

    def __init__(self, state: State, *, clock: Callable[[], float], boot: str, needs_proof: bool) -> None:
        """``needs_proof``: whether what runs with a document may cut the device off behind a link that lives on."""
        self._state = state
        self._clock = clock
        self._boot = boot
        self._needs_proof = needs_proof
        self._reached = False
        """Whether the daemon answered a new connection since the trial began."""
        self._tried_at: float | None = None
        """When the last trial began; None after a restart of the agent."""
        self._was_late = False
        """Whether a trial that is over got a little more time, because the agent had slept."""
        self._resumed = False
        self._verdict_until_s = clock() + VERDICT_S
        self._verdict_s = VERDICT_S
        self._keeping = asyncio.Lock()
        self._applying: Report | None = None
        self._trouble = ""
        """Why the outputs do not hold what runs."""
        self.changed = False
        """Whether it is because somebody changed them."""
        self._standing: Report | None = None
        """What became of the document that runs since it was applied, if anything did."""
        self._serial = 0
        self._news = asyncio.Event()

    # ---- what there is

    @property
    def progress(self) -> Progress:
        """What runs and what is still to be said about it."""
        return self._state.progress

    @property
    def running(self) -> Version:
        """What the outputs hold; an empty digest when there is nothing."""
        return self.progress.running or NOTHING

    @property
    def condition(self) -> str:
        """How ``running`` fares, in the protocol's words: ``none``, ``applied`` or ``drifted``."""
        if not self.running.digest:
            return "none"
        return "drifted" if self.adrift else "applied"

    @property
    def adrift(self) -> bool:
        """Whether an output does not hold what it has to: it could not be written, or somebody changed it."""
        return bool(self._trouble)

    @property
    def unproven(self) -> bool:
        """Whether a trial runs of which only a new connection can show that it leaves one possible."""
        return self.progress.trial is not None and self._needs_proof and not self._reached

    @property
    def report(self) -> Report | None:
        """What the daemon should hear now: work in progress, a verdict without receipt, how the document fares."""
        return self._applying or self._owed or self._standing or self._tried

    @property
    def _owed(self) -> Report | None:
        owed = self.progress.report
        if owed is None or trial.is_undecided(self.progress):
            return None
        return None if owed.state == "applied" and self.adrift else owed  # it was so when it was written

    @property
    def _tried(self) -> Report | None:
        running = self.progress.trial
        return None if running is None or self.unproven or self.adrift else trial.applied(running)

    @property
    def left_s(self) -> float | None:
        """Seconds until a trial is over or an outage is called one; None without either."""
        if self.progress.trial is not None:
            return max(0.0, self.progress.until_s - self._clock())
        if trial.is_undecided(self.progress):
            return max(0.0, self._verdict_until_s - self._clock())
        return None

    async def news(self, seen: int) -> int:
        """Wait until something changed after the number ``seen`` was returned; -1 returns at once."""
        if seen == self._serial:
            await self._news.wait()
        return self._serial

    # ---- what happens

    async def resume(self) -> None:
        """The agent starts: a trial goes on, or is to be undone because the machine was restarted."""
        if self._resumed:
            return
        self._resumed = True
        resumed = trial.resumed(self.progress, self._boot, self._clock())
        if resumed != self.progress:
            await self.keep_anyway(lambda _: resumed)
        if trial.is_undecided(self.progress):
            log.warning("the device restarted in the middle of a document; the last good one comes back")

    async def begin(self, version: Version) -> None:
        """``version`` is about to be written."""
        await self.keep(lambda progress: trial.begun(progress, version, self._boot))

    async def settle(self, version: Version, confirm_s: float) -> None:
        """The outputs hold ``version``, its commands succeeded; it has ``confirm_s`` to be confirmed."""
        until_s = self._clock() + confirm_s
        again = self.running.digest == version.digest
        await self.keep(lambda progress: trial.tried(progress, version, boot=self._boot, until_s=until_s))
        self._reached = self._reached and again
        self._tried_at, self._was_late = self._clock(), False
        self._verdict_s = trial.verdict_s(confirm_s)
        self._trouble, self.changed, self._standing = "", False, None

    async def undo(self) -> bool:
        """No receipt came in time. Who could be reached all the same has not said why, but the document is not it.

        False when there is nothing to undo, because a receipt was being kept when the time ended.
        """
        reason = SERVER_UNREACHABLE if self._reached else ""
        undone = False

        def change(progress: Progress) -> Progress:
            nonlocal undone
            undone = progress.trial is not None
            return trial.undone(progress, reason, "no receipt came in time") if undone else progress

        digest = self.running.digest
        self._verdict_until_s = self._clock() + self._verdict_s
        await self.keep_anyway(change)
        if undone:
            log.warning("document %s was not confirmed in time", short_digest(digest))
        return undone

    async def reached(self, up_s: int = 0) -> None:
        """The daemon, which has been up for so long (0: it does not say), answered on a new connection."""
        self._reached = True
        if trial.is_undecided(self.progress):
            began_s = self._clock() - up_s - 1  # whole seconds are told, the rest is cut off
            was_away = up_s and self._tried_at is not None and began_s > self._tried_at
            await self._decide(SERVER_UNREACHABLE if was_away else CONNECTIVITY_LOST)
        self._ring()

    async def look_for_verdict(self) -> None:
        """Nobody answered for long enough: it was an outage. A trial whose end was slept through goes on a little."""
        late = trial.slept_through(self.progress, self._clock())
        if late != self.progress and not self._was_late:
            self._was_late = True  # the receipt may have come meanwhile, and waits to be read
            await self.keep_anyway(lambda progress: trial.slept_through(progress, self._clock()))
        if trial.is_undecided(self.progress) and self._clock() >= self._verdict_until_s:
            await self._decide(SERVER_UNREACHABLE)

    async def receipted(self, receipt: Receipt) -> None:
        """The daemon has a report on its disk; if it is the one outstanding, it need not be said again."""
        if not self.adrift and self._standing is not None and trial.is_for(receipt, self._standing):
            self._standing = None
        after = trial.confirmed(self.progress, receipt)
        if after == self.progress:
            self._ring()
            return
        if after.trial is None and self.progress.trial is not None:
            log.info("document %s is confirmed", short_digest(receipt.digest))
        await self.keep_anyway(lambda progress: trial.confirmed(progress, receipt))

    def say(self, report: Report | None) -> None:
        """Work in progress, or none."""
        self._applying = report
        self._ring()

    def note_trouble(self, trouble: HengeError | None) -> None:
        """Outputs could not be written, or hold what runs again: say so, once."""
        running = self.running
        report = report_of(running, "applied") if trouble is None else drifted(running, trouble)
        self._note("" if trouble is None else str(trouble), report, changed=False)

    def note_changes(self, paths: Sequence[Path]) -> None:
        """Somebody changed outputs: say so, once."""
        said = f"{', '.join(map(str, paths))} changed by somebody else"
        self._note(said, verdicts.changed(self.running, paths), changed=True)

    def _note(self, trouble: str, report: Report, *, changed: bool) -> None:
        if trouble == self._trouble:
            return
        if trouble:
            log.warning("outputs are not in place: %s", trouble)
        else:
            log.info("outputs are in place again")
        self._trouble, self.changed = trouble, changed
        if self.progress.running is not None:
            self._standing = report
        self._ring()

    # ---- keeping

    async def keep(self, change: Change) -> None:
        """Make what ``change`` makes of the progress count, durably. Raises as ``State.keep_progress``."""
        async with self._keeping:
            await asyncio.to_thread(self._state.keep_progress, change(self.progress))
        self._ring()

    async def keep_anyway(self, change: Change) -> None:
        """Keep it in memory at least: a full disk must not stop the agent from saying so."""
        async with self._keeping:
            progress = change(self.progress)
            try:
                await asyncio.to_thread(self._state.keep_progress, progress)
            except HengeError as error:
                log.error("progress is not kept on disk: %s", error)  # noqa: TRY400 - no fault of ours
                self._state.progress = progress
        self._ring()

    async def _decide(self, reason: str) -> None:
        await self.keep_anyway(lambda progress: trial.decided(progress, reason))
        log.warning("the document that was undone: %s", reason)

    def _ring(self) -> None:
        self._serial += 1
        news, self._news = self._news, asyncio.Event()
        news.set()
