"""Commit-confirmed, as steps from one progress to the next. Pure: clock and boot are arguments.

    steady    -> staging    ``begun``      a document is about to be written
    staging   -> trial      ``tried``      outputs hold it, commands succeeded; it waits for its receipt
    staging   -> steady     ``dropped``    it did not come to that; what ran before runs again
    trial     -> steady     ``confirmed``  the receipt came: it is the last good document now
    trial     -> undoing    ``undone``     it did not come in time, or the machine restarted meanwhile
    undoing   -> steady     ``dropped``    the last good document runs again

What was undone is told as ``rolled-back``. Its reason, where the step does not know it, is found by the next contact:
a daemon that the last good document reaches proves the undone one guilty (``connectivity-lost``); when none answers
for ``verdict_s`` it was an outage (``server-unreachable``), and nobody is to blame. Until then the report has no reason
and is not said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from henge_agent.records import Progress, Version
from henge_protocol.wire import FieldError, Receipt, Report

VERDICT_S: Final = 60.0
"""How long the last good document may try to reach the daemon before it is called an outage."""
LATE_S: Final = 2.0
"""Who looks at a trial's end so much later was stopped, or the machine slept."""
GRACE_S: Final = 10.0
"""For what came meanwhile to be read."""
CONNECTIVITY_LOST: Final = "connectivity-lost"
SERVER_UNREACHABLE: Final = "server-unreachable"


def verdict_s(confirm_s: float) -> float:
    """How long to look for the daemon with the last good document; not longer than the new one was given."""
    return min(VERDICT_S, max(1.0, confirm_s))


def begun(progress: Progress, version: Version, boot: str) -> Progress:
    """``version`` is being written."""
    if progress.trial is not None:  # its boot is kept: only a restart tells them apart, and that ends both
        return replace(progress, staged=version)
    return replace(progress, staged=version, boot=boot)


def dropped(progress: Progress) -> Progress:
    """What was staged is neither written nor undone any more."""
    return replace(progress, staged=None)


def tried(progress: Progress, version: Version, *, boot: str, until_s: float) -> Progress:
    """The outputs hold ``version``, until ``until_s`` without a receipt. What ran last and well can run at once."""
    if progress.current is not None and progress.current.digest == version.digest:
        return Progress(current=version, previous=progress.previous, report=applied(version))
    return Progress(progress.current, progress.previous, trial=version, boot=boot, until_s=until_s)


def confirmed(progress: Progress, receipt: Receipt) -> Progress:
    """The progress after a receipt: the report that it is about is said, the document that it is about confirmed."""
    trial = progress.trial
    if progress.report is not None and is_for(receipt, progress.report):
        progress = replace(progress, report=None)
    if trial is None or not is_for(receipt, applied(trial)):
        return progress
    return replace(progress, current=trial, previous=progress.current or progress.previous, trial=None)


def undone(progress: Progress, reason: str, text: str) -> Progress:
    """``trial`` is to be taken back, and why; without a reason the next contact decides on one."""
    trial = progress.trial
    if trial is None:
        raise LookupError("there is no trial to undo")
    return replace(progress, trial=None, staged=trial, report=_rolled_back(trial, reason, text))


def slept_through(progress: Progress, now: float) -> Progress:
    """The progress when the end of a trial was noticed long after it was over."""
    late = progress.trial is not None and now - progress.until_s > LATE_S
    return replace(progress, until_s=now + GRACE_S) if late else progress


def decided(progress: Progress, reason: str) -> Progress:
    """The reason of what was undone is known."""
    if progress.report is None or not is_undecided(progress):
        return progress
    return replace(progress, report=replace(progress.report, reason=reason))


def resumed(progress: Progress, boot: str, now: float) -> Progress:
    """The progress when the agent starts, ``now`` in this boot of the machine.

    The agent alone may have been restarted: a trial goes on, and if its time ended while nobody could confirm it, it
    gets some more. After the machine was, the document under way is guilty until the next contact, for it may be what
    ended the machine.
    """
    if progress.boot == boot:
        over = progress.trial is not None and progress.until_s <= now
        return replace(progress, until_s=now + VERDICT_S) if over else progress
    if progress.trial is not None:
        return replace(undone(progress, "", "the device restarted before it was confirmed"), boot=boot)
    if progress.staged is not None and not _tells_of(progress.report, progress.staged):
        report = _rolled_back(progress.staged, "", "the device restarted while it was applied")
        return replace(progress, report=report, boot=boot)
    return progress


def is_undecided(progress: Progress) -> bool:
    """Whether something was undone of which nobody knows yet why."""
    report = progress.report
    return report is not None and report.state == "rolled-back" and not report.reason


def refuses(progress: Progress, digest: str) -> bool:
    """Whether this document was undone and the daemon does not know it yet."""
    report = progress.report
    return report is not None and report.state == "rolled-back" and report.digest == digest


def applied(version: Version) -> Report:
    """The report that this document runs."""
    return Report(version.epoch, version.revision, version.digest, "applied")


def is_for(receipt: Receipt, report: Report) -> bool:
    """Whether the receipt is that of this report."""
    return (report.digest, report.revision, report.state) == (receipt.digest, receipt.revision, receipt.state)


def _rolled_back(version: Version, reason: str, text: str) -> Report:
    return Report(version.epoch, version.revision, version.digest, "rolled-back", reason, (FieldError("", text),))


def _tells_of(report: Report | None, version: Version) -> bool:
    return report is not None and report.digest == version.digest
