"""Making a document the one that runs, step by step, and saying how it went.

The steps stand in ``Applier._apply``: check -> render -> stage -> write -> on-change -> health -> settle. Until the
first output is changed a refusal is ``rejected``; from then on a failure puts the last good document back into all
outputs (``rolled-back``) and runs the on-change command for it. What is said is durable before it is said and is
repeated until its receipt comes.

One document is applied at a time; of those that arrive meanwhile only the newest is kept. Links come and go
without disturbing an application: they offer documents, read ``report`` and are told by ``news`` when to look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from henge_agent.hooks import Outcome, run_command
from henge_agent.outputs import Written, content_of, put, render_all
from henge_agent.settings import Hooks, Output
from henge_agent.state import Progress, State, Version
from henge_protocol.errors import HengeError
from henge_protocol.keyfiles import DISK, Files
from henge_protocol.model import short_digest
from henge_protocol.strictjson import parse
from henge_protocol.wire import MAX_ERRORS, MAX_TEXT_CHARS, Config, Error, FieldError, Receipt, Report

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
"""The largest document this agent takes; the daemon's schemas usually allow much less."""

log = logging.getLogger(__name__)


class Setback(Exception):
    """Raised by a step that did not succeed: why, in the protocol's words, and where."""

    def __init__(self, state: str, reason: str, *errors: FieldError) -> None:
        super().__init__(f"{reason}: {errors[0].message}" if errors else reason)
        self.state = state
        self.reason = reason
        self.errors = errors[:MAX_ERRORS]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A document on its way, and what each output has to hold for it."""

    version: Version
    document: bytes
    wanted: tuple[Written, ...]


class Applier:
    """Applies documents one after the other. ``recover`` first, then ``run`` in a task of its own."""

    def __init__(
        self,
        state: State,
        outputs: tuple[Output, ...],
        hooks: Hooks,
        *,
        environ: Mapping[str, str],
        files: Files = DISK,
    ) -> None:
        self._state = state
        self._outputs = outputs
        self._hooks = hooks
        self._environ = environ
        self._files = files
        self._writing = asyncio.Lock()
        self._offered: Config | None = None
        self._at_work: Config | None = None
        self._applying: Report | None = None
        self._arrived = asyncio.Event()
        self._serial = 0
        self._news = asyncio.Event()

    # ---- what links ask

    @property
    def running(self) -> Version:
        """What runs now; an empty digest when nothing of ours does."""
        return self._state.progress.current or Version("", 0, "")

    @property
    def report(self) -> Report | None:
        """What the daemon should hear now, if anything: work in progress, or a verdict without receipt."""
        return self._applying or self._state.progress.report

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
        async with self._writing:
            report = self._state.progress.report
            if report and (report.digest, report.revision, report.state) == (
                receipt.digest,
                receipt.revision,
                receipt.state,
            ):
                await self._keep_anyway(replace(self._state.progress, report=None))

    async def news(self, seen: int) -> int:
        """Wait until ``report`` or ``busy`` changed after the number ``seen`` was returned; -1 returns at once."""
        if seen == self._serial:
            await self._news.wait()
        return self._serial

    # ---- the work

    async def recover(self) -> None:
        """Put the outputs into the state that the last good document asks for; needs no daemon.

        Files that hold it already are not touched. When the agent was cut while it applied, the on-change
        command runs again, because it may have seen the newer document.
        """
        progress = self._state.progress
        try:
            await asyncio.to_thread(self._restore)
        except HengeError as error:
            log.warning("outputs are not in place: %s", error)
            return
        if progress.staged is None:
            return
        log.warning("an application of %s was cut; the last good document is back", progress.staged.digest[:12])
        if progress.current is not None:
            await self._run_hook(self._hooks.on_change, progress.current, returning=True)
        await self._keep_anyway(replace(progress, staged=None))

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
                await self._handle(config)
            finally:
                self._at_work = self._applying = None
                self._ring()

    async def _handle(self, config: Config) -> None:
        version = Version(config.epoch, config.revision, config.digest)
        try:
            await self._apply(version, config)
        except Setback as setback:
            log.warning("document %s %s: %s", short_digest(version.digest), setback.state, setback)
            report = _report(version, setback.state, setback.reason, setback.errors)
            async with self._writing:
                await self._keep_anyway(replace(self._state.progress, staged=None, report=report))
        else:
            log.info("document %s of revision %d runs", short_digest(version.digest), version.revision)

    async def _apply(self, version: Version, config: Config) -> None:
        """The steps. Commit-confirmed by receipt belongs after "settle": ``previous`` is kept for it."""
        candidate = self._check(version, config)
        if version.digest != self.running.digest or not await asyncio.to_thread(_in_place, candidate):
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

    def _check(self, version: Version, config: Config) -> _Candidate:
        """Digest, size, JSON, and whether every output can hold it: all that can be known beforehand."""
        if not config.intact:
            raise Setback("rejected", "digest-mismatch")
        if len(config.document) > MAX_DOCUMENT_BYTES:
            said = f"the document has {len(config.document)} bytes, at most {MAX_DOCUMENT_BYTES} are taken"
            raise Setback("rejected", "too-large", FieldError("", said))
        try:
            value = parse(config.document)
        except HengeError as error:
            raise Setback("rejected", "not-json", FieldError("", error.message[:MAX_TEXT_CHARS])) from None
        try:
            return _Candidate(version, config.document, render_all(self._outputs, config.document, value))
        except HengeError as error:
            raise Setback("rejected", "invalid", *_field_errors(error)) from None

    async def _stage(self, candidate: _Candidate) -> None:
        """From here on a cut is known to have happened in the middle."""
        try:
            await asyncio.to_thread(self._remember_originals)
            await asyncio.to_thread(self._state.keep_document, candidate.document)
            async with self._writing:
                await self._keep(replace(self._state.progress, staged=candidate.version))
        except HengeError as error:
            raise _unwritten("rejected", error) from None

    def _write(self, candidate: _Candidate) -> None:
        changed = False
        for wanted in candidate.wanted:
            try:
                changed |= put(wanted, files=self._files)
            except HengeError as error:
                raise _unwritten("rolled-back" if changed else "rejected", error) from None

    async def _prove(self, candidate: _Candidate) -> None:
        """Run the commands of the person who knows what the document is for."""
        for command, failure in ((self._hooks.on_change, "hook-failed"), (self._hooks.health, "health-failed")):
            if command:
                self._say(_report(candidate.version, "applying"))
            outcome = await self._run_hook(command, candidate.version, returning=False)
            if outcome is not None and not outcome.succeeded:
                raise _failed(outcome, failure, self._hooks.timeout_s)

    async def _settle(self, candidate: _Candidate) -> None:
        """The document is the last good one now, and the report is owed."""
        async with self._writing:
            progress = self._state.progress
            changed = progress.current is not None and progress.current.digest != candidate.version.digest
            settled = Progress(
                current=candidate.version,
                previous=progress.current if changed else progress.previous,
                report=_report(candidate.version, "applied"),
            )
            try:
                await self._keep(settled)
            except HengeError as error:
                raise _unwritten("rolled-back", error) from None

    async def _undo(self, setback: Setback) -> None:
        """Back to the last good document; the on-change command is told if outputs had changed."""
        try:
            await asyncio.to_thread(self._restore)
        except HengeError as error:
            log.error("the last good document could not be put back: %s", error)  # noqa: TRY400 - no fault of ours
        current = self._state.progress.current
        if current is not None and setback.state == "rolled-back":
            outcome = await self._run_hook(self._hooks.on_change, current, returning=True)
            if outcome is not None and not outcome.succeeded:
                log.warning("the on-change command failed with the last good document too: %s", outcome.tail(200))

    # ---- the parts of a step

    def _remember_originals(self) -> None:
        for output in self._outputs:
            if self._state.progress.current is None or not self._state.knows_original(output.path):
                self._state.keep_original(output.path, content_of(output.path))

    def _restore(self) -> None:
        """Make the outputs what the last good document asks for, or what stood there before the first one.

        One that cannot be written does not keep the others from it; the first trouble is raised at the end.
        """
        current = self._state.progress.current
        document = self._state.document(current.digest) if current else None
        if document is not None:
            wanted = render_all(self._outputs, document, parse(document))
        elif self._state.progress.staged is not None:
            wanted = tuple(Written(output.path, self._state.original(output.path)) for output in self._outputs)
        else:
            wanted = ()
        troubles = []
        for each in wanted:
            try:
                if put(each, files=self._files):
                    log.info("wrote %s again from the last good document", each.path)
            except HengeError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    async def _run_hook(self, command: str, version: Version, *, returning: bool) -> Outcome | None:
        """Run a command about ``version``; ``returning`` when the last good document comes back."""
        if not command:
            return None
        environ = self._hook_environ(version, returning=returning)
        try:
            return await run_command(command, environ, timeout_s=self._hooks.timeout_s)
        except OSError as error:
            return Outcome(126, timed_out=False, output=f"cannot run it: {error.strerror}".encode())

    def _hook_environ(self, version: Version, *, returning: bool) -> dict[str, str]:
        progress = self._state.progress
        before = progress.staged if returning else progress.current
        if before is not None and before.digest == version.digest:
            before = progress.previous
        return {
            **self._environ,
            "HENGE_DOCUMENT": str(self._state.document_file(version.digest)),
            "HENGE_PREVIOUS": str(self._state.document_file(before.digest)) if before else "",
            "HENGE_DIGEST": version.digest,
            "HENGE_REVISION": str(version.revision),
            "HENGE_CHANGED": " ".join(self._changed(version, before)),
            "HENGE_ROLLBACK": "1" if returning else "",
        }

    def _changed(self, version: Version, before: Version | None) -> list[str]:
        new, old = self._fields(version), self._fields(before)
        return sorted(
            name for name in new.keys() | old.keys() if name not in new or new[name] != old.get(name, _MISSING)
        )

    def _fields(self, version: Version | None) -> dict[str, object]:
        document = self._state.document(version.digest) if version else None
        value = parse(document) if document else None
        return value if isinstance(value, dict) else {}

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


_MISSING: Final = object()


def hook_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The agent's own environment without what is the service manager's business with the agent alone."""
    private = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_", "HENGE_", "CREDENTIALS_DIRECTORY")
    return {name: value for name, value in environ.items() if not name.startswith(private)}


def _in_place(candidate: _Candidate) -> bool:
    try:
        return all(content_of(wanted.path) == wanted.content for wanted in candidate.wanted)
    except HengeError:
        return False


def _report(version: Version, state: str, reason: str = "", errors: tuple[FieldError, ...] = ()) -> Report:
    return Report(version.epoch, version.revision, version.digest, state, reason, errors)


def _unwritten(state: str, error: HengeError) -> Setback:
    return Setback(state, "write-failed", FieldError("", error.message[:MAX_TEXT_CHARS]))


def _failed(outcome: Outcome, reason: str, timeout_s: float) -> Setback:
    if outcome.timed_out:
        said = f"it ran longer than {timeout_s:g} s"
        reason = "hook-timeout"
    elif outcome.code < 0:
        said = f"signal {-outcome.code} ended it"
    else:
        said = f"exit code {outcome.code}"
    tail = outcome.tail(MAX_TEXT_CHARS - len(said) - 2)
    return Setback("rolled-back", reason, FieldError("", f"{said}: {tail}" if tail else said))


def _field_errors(error: HengeError) -> tuple[FieldError, ...]:
    problems = [
        FieldError(problem.pointer[:MAX_TEXT_CHARS], error.message[:MAX_TEXT_CHARS]) for problem in error.problems
    ]
    return tuple(problems) or (FieldError("", error.message[:MAX_TEXT_CHARS]),)
