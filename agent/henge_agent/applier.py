"""Making a document the one that runs, step by step, and saying how it went.

The steps stand in ``Applier._apply``: check -> render -> stage -> write -> on-change -> health -> settle. Until the
first output is changed a refusal is ``rejected``; from then on a failure puts what ran before back into all outputs
(``rolled-back``) and runs the on-change command for it. What is said is durable before it is said and is repeated
until its receipt comes.

A settled document is on trial: the receipt of its report, gotten while it runs, makes it the last good one. Without
it in time, or after a restart of the machine in between, the last good one comes back (``henge_agent.trial``).

What runs, runs only where the outputs hold it: ``put_back`` sees to that at the start, before each hello and, with
pauses, for as long as an output cannot be written. Until it can, the device says ``drifted``.

One document is applied at a time; of those that arrive meanwhile only the newest is kept. Links come and go
without disturbing an application: they offer documents, read ``report`` and are told by ``news`` when to look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from henge_agent import trial
from henge_agent.activation import Activation
from henge_agent.candidate import Candidate, checked
from henge_agent.ledger import Ledger
from henge_agent.outputs import put_all
from henge_agent.reboots import Reboots
from henge_agent.records import Version
from henge_agent.schemas import Schemas
from henge_agent.settings import Hooks, Output
from henge_agent.standing import Standing
from henge_agent.state import State
from henge_agent.verdicts import Setback, failed, once_more, report_of, surprises, unwritten
from henge_protocol.errors import HengeError
from henge_protocol.fieldpath import pointer
from henge_protocol.keyfiles import DISK, Files
from henge_protocol.model import short_digest
from henge_protocol.wire import Config, Error, Receipt, Report

TRAVEL_S: Final = 1.0
"""Of the time that the daemon waits for an answer: the answer's way."""

log = logging.getLogger(__name__)


class Applier:
    """Applies documents one after the other. ``put_back`` first, then ``run`` in a task of its own."""

    def __init__(
        self,
        state: State,
        outputs: tuple[Output, ...],
        hooks: Hooks,
        *,
        environ: Mapping[str, str],
        files: Files = DISK,
        clock: Callable[[], float] = time.monotonic,
        boot: str = "",
    ) -> None:
        """``clock`` gives seconds that only grow within ``boot``, which is the kernel's name for this one."""
        self._state = state
        self._outputs = outputs
        self._hooks = hooks
        self.schemas = Schemas(state.folder, files=files)
        self._reboots = Reboots(state.folder, boot, files=files)
        self._activation = Activation(state, environ=environ, timeout_s=hooks.timeout_s)
        self._files = files
        self._working = asyncio.Lock()
        """Held while outputs are changed."""
        self._offered: Config | None = None
        self._at_work: Config | None = None
        self._standing = Standing(state, outputs, files=files)
        self._arrived = asyncio.Event()
        self._undone = asyncio.Event()
        self._ledger = Ledger(state, clock=clock, boot=boot, needs_proof=bool(hooks.on_change or hooks.sections))

    # ---- what links ask

    @property
    def running(self) -> Version:
        """What the outputs hold, confirmed or not; an empty digest if nothing. ``condition`` says how well."""
        return self._ledger.running

    @property
    def condition(self) -> str:
        """How ``running`` fares, in the protocol's words: ``none``, ``applied`` or ``drifted``."""
        return self._ledger.condition

    @property
    def adrift(self) -> bool:
        """Whether an output does not hold what it has to: it could not be written, or somebody changed it."""
        return self._ledger.adrift

    @property
    def unwritten(self) -> bool:
        """Whether an output could not be written, which is to be tried again."""
        return self.adrift and not self._ledger.changed

    @property
    def paths(self) -> tuple[Path, ...]:
        """The outputs."""
        return tuple(output.path for output in self._outputs)

    @property
    def unproven(self) -> bool:
        """Whether a trial runs that is reported only after the daemon answered a new connection (``reached``)."""
        return self._ledger.unproven

    @property
    def report(self) -> Report | None:
        """What the daemon should hear now: work in progress, a verdict without receipt, how the document fares."""
        again = report_of(self.running, "applied") if self._reboots.over and self.condition == "applied" else None
        return self._reboots.noted(self._ledger.report or again)

    @property
    def busy(self) -> bool:
        """Whether a document is being applied, waits for it, or will soon be reported."""
        return self._at_work is not None or self._offered is not None or self.unproven

    def offer(self, config: Config) -> Error | None:
        """Take a document; the verdict comes as ``report``. The answer, if any, says why it is not even tried."""
        if config.intent != "apply":
            return Error("not_implemented_here", "a document is checked over a WebSocket only")
        if trial.refuses(self._state.progress, config.digest):
            self._offered = None  # the daemon does not know yet that it was undone; ``report`` tells
        elif self._at_work is None or self._at_work.digest != config.digest:
            self._offered = config
            self._arrived.set()
        else:
            self._offered = None  # what is being applied is the newest again
        return None

    async def check(self, config: Config) -> Report:
        """Whether a document could be applied, without doing it: a report ``checked``, with a reason if not."""
        version = Version(config.epoch, config.revision, config.digest)
        if self._working.locked():
            return report_of(version, "checked", "busy")
        async with self._working:
            try:
                with surprises("checked"):
                    candidate = await checked(config, version, self._outputs, self.schemas)
                    if self._hooks.check:
                        await self._ask(candidate, max(TRAVEL_S, config.confirm_s - TRAVEL_S))
            except Setback as setback:
                return report_of(version, "checked", setback.reason, setback.errors)
        return report_of(version, "checked")

    async def receipted(self, receipt: Receipt) -> None:
        """The daemon has a report on its disk: it need not be said again, and a trial may be confirmed by it."""
        if self._reboots.over and (receipt.digest, receipt.state) == (self.running.digest, "applied"):
            await asyncio.to_thread(self._reboots.forget)
        await self._ledger.receipted(receipt)

    async def reached(self, up_s: int = 0) -> None:
        """The daemon answered on a new connection: that acquits a trial, or convicts what was undone."""
        await self._ledger.reached(up_s)

    async def news(self, seen: int) -> int:
        """Wait until ``report`` or ``busy`` changed after the number ``seen`` was returned; -1 returns at once."""
        return await self._ledger.news(seen)

    async def undone(self) -> None:
        """Wait until a trial is undone: every connection is one of a document that does not run any more."""
        await self._undone.wait()
        self._undone.clear()

    # ---- the work

    async def put_back(self) -> bool:
        """Write the outputs that do not hold what runs; False when one does not in the end. Needs no daemon.

        Files that hold it already are not touched. When one was written, or the agent was cut while it applied,
        the on-change command runs: programs may have seen something else. An application under way is left alone, and
        so is what somebody changed, if that is the policy.
        """
        if self._at_work is not None:
            return not self.adrift
        async with self._working:
            await self._ledger.resume()
            left = await self._changed() if self._leaves_changes else []
            if not await self._restored(left):
                return False
            await self._tell_of_return()
            if left:
                self._ledger.note_changes(left)
            else:
                self._ledger.note_trouble(None)
            return not left

    async def notice_changes(self) -> bool:
        """Look whether somebody changed outputs, and say so; True when they are to be put back.

        While a document is applied this waits: its own command may be who changes them.
        """
        async with self._working:
            changed = await self._changed()
            if changed:
                self._ledger.note_changes(changed)
            elif self._ledger.changed:
                self._ledger.note_trouble(None)
        return bool(changed) and self._hooks.on_drift == "put-back"

    async def run(self) -> None:
        """Apply what is offered, and undo what is not confirmed in time, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ledger.left_s):
                    await self._arrived.wait()
            self._arrived.clear()
            await self._look()
            config, self._offered = self._offered, None
            if config is None:
                continue
            self._at_work = config
            try:
                async with self._working:
                    await self._handle(config)
            finally:
                self._at_work = None
                self._ledger.say(None)

    async def _look(self) -> None:
        """Undo a trial whose time is over; call an outage what nobody answered."""
        await self._ledger.look_for_verdict()
        if self._state.progress.trial is None or self._ledger.left_s:
            return
        async with self._working:
            if not await self._ledger.undo():
                return
            if await self._restored():
                self._ledger.note_trouble(None)
                await self._tell_of_return()
        self._undone.set()

    async def reboot_when_asked(self) -> None:
        """Run the reboot command, if there is one, once a change that needs it is confirmed; until cancelled."""
        seen, asked = -1, False
        while self._hooks.reboot:
            asked &= self._reboots.required
            if self._reboots.required and not asked and not self.busy and self.report is None and await self._is_kept():
                asked = True
                log.warning("running the reboot command for %s", short_digest(self.running.digest))
                outcome = await self._activation.run(self._hooks.reboot, self.running, returning=False)
                if outcome is not None and not outcome.succeeded:
                    log.error("the reboot command failed: %s", outcome.tail(200) or "it printed nothing")
            seen = await self.news(seen)

    async def _is_kept(self) -> bool:
        """Whether the disk knows what is confirmed: after a reboot, what it does not know of is taken back."""
        try:
            await self._ledger.keep(lambda progress: progress)
        except HengeError as error:
            log.warning("the reboot waits: %s", error)
            return False
        return True

    async def _handle(self, config: Config) -> None:
        version = Version(config.epoch, config.revision, config.digest)
        try:
            with surprises("rejected"):
                await self._apply(version, config)
        except Setback as setback:
            said = f"{setback.state}: {setback}{once_more(setback.reason)}"
            log.warning("document %s %s", short_digest(version.digest), said)
            report = report_of(version, setback.state, setback.reason, setback.errors)
            keep_staged = self.adrift  # until it is written again
            await self._ledger.keep_anyway(
                lambda progress: replace(progress if keep_staged else trial.dropped(progress), report=report)
            )
        else:
            log.info("document %s of revision %d runs", short_digest(version.digest), version.revision)

    async def _apply(self, version: Version, config: Config) -> None:
        """The steps; raises ``Setback``."""
        candidate = await checked(config, version, self._outputs, self.schemas)
        if version.digest != self.running.digest or not await asyncio.to_thread(candidate.is_in_place):
            if self._hooks.check:
                self._ledger.say(report_of(version, "applying"))
                await self._ask(candidate, self._hooks.timeout_s)
            await self._stage(candidate)
            try:
                with surprises("rolled-back"):
                    await asyncio.to_thread(self._write, candidate)
                    await self._prove(candidate)
                    await self._settle(candidate, config.confirm_s)
            except Setback as setback:
                await asyncio.to_thread(self._reboots.take_back, version.digest)
                await self._undo(setback)
                raise
        else:
            await self._settle(candidate, config.confirm_s)

    async def _ask(self, candidate: Candidate, most_s: float) -> None:
        """Ask the check command; nothing is changed by that."""
        digest = candidate.version.digest
        try:
            await asyncio.to_thread(self._state.keep_document, candidate.document)
        except HengeError as error:
            raise unwritten("rejected", error) from None
        try:
            outcome = await self._activation.run(self._hooks.check, candidate.version, returning=False, most_s=most_s)
        finally:
            await asyncio.to_thread(self._state.drop_document, digest)
        if outcome is not None and not outcome.succeeded:
            raise failed(outcome, "invalid", min(most_s, self._hooks.timeout_s), state="rejected")

    async def _stage(self, candidate: Candidate) -> None:
        """From here on a cut is known to have happened in the middle."""
        try:
            await asyncio.to_thread(self._standing.remember_originals)
            await asyncio.to_thread(self._state.keep_document, candidate.document)
            await self._ledger.begin(candidate.version)
        except HengeError as error:
            raise unwritten("rejected", error) from None

    def _write(self, candidate: Candidate) -> None:
        changed = False
        try:
            for _ in put_all(candidate.wanted, files=self._files):
                changed = True
        except HengeError as error:
            raise unwritten("rolled-back" if changed else "rejected", error) from None

    async def _prove(self, candidate: Candidate) -> None:
        """Run the commands of the person who knows what the document is for."""
        hooks, version = self._hooks, candidate.version
        if hooks.on_change or hooks.sections or hooks.health:
            self._ledger.say(report_of(version, "applying"))
        scope = await asyncio.to_thread(self._activation.scope, version, candidate.schema)
        ran = await self._activation.change(hooks, version, scope)
        if ran is not None and not ran[1].succeeded:
            section, outcome = ran
            raise failed(outcome, "hook-failed", hooks.timeout_s, pointer=pointer((section,)) if section else "")
        healthy = await self._activation.run(hooks.health, version, returning=False)
        if healthy is not None and not healthy.succeeded:
            raise failed(healthy, "health-failed", hooks.timeout_s)
        if scope.reboot:
            await asyncio.to_thread(self._reboots.require, version.digest)

    async def _settle(self, candidate: Candidate, confirm_s: float) -> None:
        """The document runs on trial now, and the report is owed."""
        try:
            await self._ledger.settle(candidate.version, confirm_s)
        except HengeError as error:
            raise unwritten("rolled-back", error) from None
        self._standing.untold = False

    async def _undo(self, setback: Setback) -> None:
        """Back to what ran before; the on-change command is told if outputs had changed."""
        if await self._restored():
            self._ledger.note_trouble(None)
        if setback.state == "rolled-back":
            self._standing.untold = True
            await self._tell_of_return()

    # ---- the last good document

    async def _restored(self, left: Sequence[Path] = ()) -> bool:
        """Try to make the outputs hold the last good document but those ``left`` alone, and note why they do not."""
        try:
            await asyncio.to_thread(self._standing.restore, left)
        except HengeError as error:
            self._ledger.note_trouble(error)
            return False
        return True

    async def _changed(self) -> list[Path]:
        """The outputs that somebody changed; none, and trouble, when what they have to hold cannot be told."""
        try:
            return await asyncio.to_thread(self._standing.changed)
        except HengeError as error:
            self._ledger.note_trouble(error)
            return []

    async def _tell_of_return(self) -> None:
        """Run the on-change command for what runs if programs may have seen another content."""
        progress = self._state.progress
        cut = progress.staged if self._at_work is None else None
        if cut is not None:
            log.warning("%s is not applied; what ran before is back", short_digest(cut.digest))
            await asyncio.to_thread(self._reboots.take_back, cut.digest)
        if progress.running is not None and (cut is not None or self._standing.untold):
            await self._activation.give_back(self._hooks, progress.running)
        self._standing.untold = False
        if cut is not None:
            await self._ledger.keep_anyway(trial.dropped)

    @property
    def _leaves_changes(self) -> bool:
        """Whether what differs is somebody's wish, and neither a cut nor a failure of ours."""
        is_ours = self._state.progress.staged is not None or self._standing.untold or self.unwritten
        return self._hooks.on_drift == "leave" and not is_ours
