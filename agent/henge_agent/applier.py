"""Making a document the one that runs, step by step, and saying how it went.

The steps stand in ``Applier._apply``: check -> render -> stage -> write -> on-change -> health -> settle. Until the
first output is changed a refusal is ``rejected``; from then on a failure puts the last good document back into all
outputs (``rolled-back``) and runs the on-change command for it. What is said is durable before it is said and is
repeated until its receipt comes.

The last good document runs only where the outputs hold it: ``put_back`` sees to that at the start, before each hello
and, with pauses, for as long as an output cannot be written. Until it can, the device says ``drifted``.

One document is applied at a time; of those that arrive meanwhile only the newest is kept. Links come and go
without disturbing an application: they offer documents, read ``report`` and are told by ``news`` when to look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from henge_agent.activation import Activation
from henge_agent.candidate import Candidate, checked
from henge_agent.outputs import Written, content_of, put, put_all, render_all
from henge_agent.parts import pointer_of
from henge_agent.reboots import Reboots
from henge_agent.schemas import Schemas
from henge_agent.settings import Hooks, Output
from henge_agent.state import Progress, State, Version
from henge_agent.verdicts import Setback, drifted, failed, report_of, unwritten
from henge_protocol.errors import HengeError, Invalid
from henge_protocol.keyfiles import DISK, Files
from henge_protocol.model import short_digest
from henge_protocol.strictjson import parse
from henge_protocol.wire import Config, Error, Receipt, Report

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
        boot: str = "",
    ) -> None:
        """``boot`` is the kernel's name for this boot."""
        self._state = state
        self._outputs = outputs
        self._hooks = hooks
        self.schemas = Schemas(state.folder, files=files)
        self._reboots = Reboots(state.folder, boot, files=files)
        self._activation = Activation(state, environ=environ, timeout_s=hooks.timeout_s)
        self._files = files
        self._working = asyncio.Lock()
        """Held while outputs are changed."""
        self._writing = asyncio.Lock()
        self._offered: Config | None = None
        self._at_work: Config | None = None
        self._applying: Report | None = None
        self._trouble: HengeError | None = None
        """Why the outputs do not hold the last good document."""
        self._standing: Report | None = None
        """What became of the last good document since it was applied, if anything did."""
        self._untold = False
        """Whether an output was put back of which the on-change command does not know yet."""
        self._arrived = asyncio.Event()
        self._serial = 0
        self._news = asyncio.Event()

    # ---- what links ask

    @property
    def running(self) -> Version:
        """The last good document; an empty digest when there is none. ``condition`` says whether it really runs."""
        return self._state.progress.current or Version("", 0, "")

    @property
    def condition(self) -> str:
        """How ``running`` fares, in the protocol's words: ``none``, ``applied`` or ``drifted``."""
        if not self.running.digest:
            return "none"
        return "drifted" if self.adrift else "applied"

    @property
    def adrift(self) -> bool:
        """Whether an output does not hold what it has to, and could not be written."""
        return self._trouble is not None

    @property
    def report(self) -> Report | None:
        """What the daemon should hear now: work in progress, a verdict without receipt, how the old document fares."""
        owed = self._state.progress.report
        if owed is not None and owed.state == "applied" and self.adrift:
            owed = None  # it was so when it was written
        again = report_of(self.running, "applied") if self._reboots.over and self.condition == "applied" else None
        return self._reboots.noted(self._applying or owed or self._standing or again)

    @property
    def busy(self) -> bool:
        """Whether a document is being applied or waits for it."""
        return self._at_work is not None or self._offered is not None

    def offer(self, config: Config) -> Error | None:
        """Take a document; the verdict comes as ``report``. The answer, if any, says why it is not even tried."""
        if config.intent != "apply":
            return Error("not_implemented_here", "this agent cannot check a document without applying it")
        if self._at_work is None or self._at_work.digest != config.digest:
            self._offered = config
            self._arrived.set()
        else:
            self._offered = None  # what is being applied is the newest again
        return None

    async def receipted(self, receipt: Receipt) -> None:
        """The daemon has a report on its disk; if it is the one outstanding, it need not be said again."""
        if self._reboots.over and (receipt.digest, receipt.state) == (self.running.digest, "applied"):
            await asyncio.to_thread(self._reboots.forget)
        async with self._writing:
            if not self.adrift and _is_for(receipt, self._standing):
                self._standing = None
            if _is_for(receipt, self._state.progress.report):
                await self._keep_anyway(replace(self._state.progress, report=None))
            else:
                self._ring()

    async def news(self, seen: int) -> int:
        """Wait until ``report`` or ``busy`` changed after the number ``seen`` was returned; -1 returns at once."""
        if seen == self._serial:
            await self._news.wait()
        return self._serial

    # ---- the work

    async def put_back(self) -> bool:
        """Write the outputs that do not hold the last good document; False when one cannot be. Needs no daemon.

        Files that hold it already are not touched. When one was written, or the agent was cut while it applied,
        the on-change command runs: programs may have seen something else. An application under way is left alone.
        """
        if self._working.locked():
            return not self.adrift
        async with self._working:
            if not await self._restored():
                return False
            await self._tell_of_return()
            self._note_trouble(None)
            return True

    async def run(self) -> None:
        """Apply what is offered until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            config, self._offered = self._offered, None
            if config is None:
                continue
            self._at_work = config
            try:
                async with self._working:
                    await self._handle(config)
            finally:
                self._at_work = self._applying = None
                self._ring()

    async def reboot_when_asked(self) -> None:
        """Run the reboot command, if there is one, once a change that needs it is confirmed; until cancelled."""
        seen, asked = -1, False
        while self._hooks.reboot:
            asked &= self._reboots.required
            if self._reboots.required and not asked and not self.busy and self.report is None:
                asked = True
                log.warning("running the reboot command for %s", short_digest(self.running.digest))
                outcome = await self._activation.run(self._hooks.reboot, self.running, returning=False)
                if outcome is not None and not outcome.succeeded:
                    log.error("the reboot command failed: %s", outcome.tail(200) or "it printed nothing")
            seen = await self.news(seen)

    async def _handle(self, config: Config) -> None:
        version = Version(config.epoch, config.revision, config.digest)
        try:
            await self._apply(version, config)
        except Setback as setback:
            log.warning("document %s %s: %s", short_digest(version.digest), setback.state, setback)
            report = report_of(version, setback.state, setback.reason, setback.errors)
            async with self._writing:
                staged = self._state.progress.staged if self.adrift else None
                await self._keep_anyway(replace(self._state.progress, staged=staged, report=report))
        else:
            log.info("document %s of revision %d runs", short_digest(version.digest), version.revision)

    async def _apply(self, version: Version, config: Config) -> None:
        """The steps. Commit-confirmed by receipt belongs after "settle": ``previous`` is kept for it."""
        candidate = await checked(config, version, self._outputs, self.schemas)
        if version.digest != self.running.digest or not await asyncio.to_thread(candidate.is_in_place):
            await self._stage(candidate)
            try:
                await asyncio.to_thread(self._write, candidate)
                await self._prove(candidate)
                await self._settle(candidate)
            except Setback as setback:
                await self._undo(setback)
                raise
        else:
            await self._settle(candidate)

    async def _stage(self, candidate: Candidate) -> None:
        """From here on a cut is known to have happened in the middle."""
        try:
            await asyncio.to_thread(self._remember_originals)
            await asyncio.to_thread(self._state.keep_document, candidate.document)
            async with self._writing:
                await self._keep(replace(self._state.progress, staged=candidate.version))
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
            self._say(report_of(version, "applying"))
        scope = await asyncio.to_thread(self._activation.scope, version, candidate.schema)
        ran = await self._activation.change(hooks, version, scope)
        if ran is not None and not ran[1].succeeded:
            section, outcome = ran
            raise failed(outcome, "hook-failed", hooks.timeout_s, pointer=pointer_of((section,)) if section else "")
        healthy = await self._activation.run(hooks.health, version, returning=False)
        if healthy is not None and not healthy.succeeded:
            raise failed(healthy, "health-failed", hooks.timeout_s)
        if scope.reboot:
            await asyncio.to_thread(self._reboots.require)

    async def _settle(self, candidate: Candidate) -> None:
        """The document is the last good one now, and the report is owed."""
        async with self._writing:
            progress = self._state.progress
            changed = progress.current is not None and progress.current.digest != candidate.version.digest
            settled = Progress(
                current=candidate.version,
                previous=progress.current if changed else progress.previous,
                report=report_of(candidate.version, "applied"),
            )
            try:
                await self._keep(settled)
            except HengeError as error:
                raise unwritten("rolled-back", error) from None
            self._trouble = self._standing = None
            self._untold = False

    async def _undo(self, setback: Setback) -> None:
        """Back to the last good document; the on-change command is told if outputs had changed."""
        if await self._restored():
            self._note_trouble(None)
        if setback.state == "rolled-back":
            self._untold = True
            await self._tell_of_return()

    # ---- the last good document

    async def _restored(self) -> bool:
        """Try to make the outputs hold the last good document, and note why they do not."""
        try:
            await asyncio.to_thread(self._restore)
        except HengeError as error:
            self._note_trouble(error)
            return False
        return True

    async def _tell_of_return(self) -> None:
        """Run the on-change command for the last good document if programs may have seen another content."""
        progress = self._state.progress
        cut = progress.staged if self._at_work is None else None
        if cut is not None:
            log.warning("an application of %s was cut; the last good document is back", short_digest(cut.digest))
        if progress.current is not None and (cut is not None or self._untold):
            ran = await self._activation.give_back(self._hooks, progress.current)
            if ran is not None and not ran[1].succeeded:
                said = ran[1].tail(200) or "it printed nothing"
                log.warning("the on-change command failed with the last good document too: %s", said)
        self._untold = False
        if cut is not None:
            async with self._writing:
                await self._keep_anyway(replace(self._state.progress, staged=None))

    def _note_trouble(self, trouble: HengeError | None) -> None:
        """Outputs do not hold the last good document, or do again: say so, once."""
        if str(trouble) == str(self._trouble):
            return
        if trouble is not None:
            log.warning("outputs are not in place: %s", trouble)
        else:
            log.info("outputs are in place again")
        self._trouble, current = trouble, self._state.progress.current
        if current is not None:
            self._standing = report_of(current, "applied") if trouble is None else drifted(current, trouble)
        self._ring()

    # ---- the parts of a step

    def _remember_originals(self) -> None:
        for output in self._outputs:
            if self._state.progress.current is None or not self._state.knows_original(output.path):
                self._state.keep_original(output.path, content_of(output.path))

    def _restore(self) -> None:
        """Make the outputs what the last good document asks for, or what stood there before the first one.

        One that cannot be written does not keep the others from it; the first trouble is raised at the end.
        """
        troubles = []
        for each in self._standing_content():
            try:
                if put(each, files=self._files):
                    log.info("wrote %s again from the last good document", each.path)
                    self._untold = True
            except HengeError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def _standing_content(self) -> tuple[Written, ...]:
        """What the outputs have to hold while nothing is being applied."""
        current = self._state.progress.current
        if current is not None:
            document = self._state.document(current.digest)
            if document is None:
                raise Invalid("state_damaged", f"document {short_digest(current.digest)} is missing or damaged")
            return render_all(self._outputs, document, parse(document))
        if self._state.progress.staged is not None:
            return tuple(Written(output.path, self._state.original(output.path)) for output in self._outputs)
        return ()

    async def _keep(self, progress: Progress) -> None:
        """Keep the progress from a thread; the caller holds ``_writing`` or is alone."""
        await asyncio.to_thread(self._state.keep_progress, progress)
        self._ring()

    async def _keep_anyway(self, progress: Progress) -> None:
        """Keep it in memory at least: a full disk must not stop the agent from saying so."""
        try:
            await self._keep(progress)
        except HengeError as error:
            log.error("progress is not kept on disk: %s", error)  # noqa: TRY400 - no fault of ours
            self._state.progress = progress
            self._ring()

    def _say(self, report: Report) -> None:
        self._applying = report
        self._ring()

    def _ring(self) -> None:
        self._serial += 1
        news, self._news = self._news, asyncio.Event()
        news.set()


def _is_for(receipt: Receipt, report: Report | None) -> bool:
    said = report and (report.digest, report.revision, report.state)
    return said == (receipt.digest, receipt.revision, receipt.state)
