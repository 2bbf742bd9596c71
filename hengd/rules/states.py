"""What a device's record means: derived from digests and times, never stored as a flag that can drift. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from hengd.records import Desired, Reported, ReportedError
from henge_protocol.model import Configuration, Connection
from henge_protocol.wire import Hello, Report, versions_text

TRANSIENT_REASONS: Final = frozenset({"schema-unavailable", "write-failed", "hook-timeout", "server-unreachable"})
"""Refusals that may go away by themselves: the document is offered again with backoff."""

FAILED: Final = frozenset({"rejected", "rolled-back"})
"""States with which a device says that it does not run a document."""

_AT_WORK: Final[dict[str, Configuration]] = {
    "rejected": "rejected",
    "rolled-back": "rolled-back",
    "applying": "applying",
}

TRANSIENT_RETRY_S: Final = 60.0
"""How long a device without a live link is not offered again what it refused for a passing reason."""

REBOOT_REQUIRED: Final = "reboot-required"
"""The reason of an applied document some of which counts only after the machine's next start."""

BOOTS_KEPT: Final = 4
"""Enough to notice two or three machines with one certificate that take turns."""

SLEEP_GRACE: Final = 1.5
"""A sleepy device is late only after half of its interval more."""


@dataclass(frozen=True, slots=True)
class Line:
    """The history line of this daemon: a revision means something only with its epoch."""

    epoch: str
    revision: int
    begins: int = 0
    """The revision at which it began, more than 0 after a restore."""


def after_hello(old: Reported, hello: Hello, *, now: float, address: str) -> Reported:
    """What is known after a device said hello: who it is now and what it runs."""
    known = hello.state in ("applied", "drifted", "applying")
    forgiven = hello.state == "applied" and hello.digest == old.refused
    old = _after_boot(old, hello.boot, now=now, address=address)
    return msgspec.structs.replace(
        old,
        refused="" if forgiven else old.refused,
        transient=old.transient and not forgiven,
        epoch=hello.epoch if known else old.epoch,
        revision=hello.revision if known else old.revision,
        digest=hello.digest if known else old.digest,
        state=hello.state if known or not old.refused else old.state,
        running=hello.digest,
        adrift=hello.state == "drifted",
        client=hello.client,
        speaks_from=hello.protocol[0],
        speaks_to=hello.protocol[1],
        facts=dict(hello.facts),
        address=address,
        seen=now,
        next_contact_s=hello.next_contact_s,
        max_document=hello.max_document,
        boot=hello.boot,
    )


def after_foreign_hello(old: Reported, hello: Hello, *, now: float, address: str) -> Reported:
    """What is known after the hello of a device that shares no protocol version with us: only who it is."""
    low, high = hello.protocol
    return msgspec.structs.replace(
        old, speaks_from=low, speaks_to=high, client=hello.client or old.client, address=address, seen=now
    )


def protocol_gap(theirs: tuple[int, int], ours: tuple[int, int]) -> tuple[str, str]:
    """What to say and what to do about a device that shares no protocol version with this daemon."""
    said = f"it speaks protocol {versions_text(theirs)}, this daemon {versions_text(ours)}"
    return said, "update hengd" if theirs[0] > ours[1] else "update the program on the device"


def _after_boot(old: Reported, boot: str, *, now: float, address: str) -> Reported:
    """Notice a clone: a nonce that comes back after another is of a machine that was never away.

    A reboot makes a new nonce and never goes back to an old one, so neither time nor half-dead links matter.
    """
    if not boot or not old.boot or boot == old.boot:
        return old
    before = [one for one in old.boots_before if one[0] != boot]
    if len(before) < len(old.boots_before) and not old.shared:
        old = msgspec.structs.replace(old, shared=[old.address, address], shared_since=now)
    return msgspec.structs.replace(old, boots_before=[*before, (old.boot, old.address)][-BOOTS_KEPT:])


def forgiven(reported: Reported) -> Reported:
    """What is known after a person said retry: nothing is refused, no clone was seen, no other history line counts."""
    if reported.state in FAILED:
        reported = msgspec.structs.replace(reported, state="none", digest="", reason="", errors=[])
    return msgspec.structs.replace(
        reported, refused="", transient=False, epoch="", revision=0, boots_before=[], shared=[], shared_since=0.0
    )


def after_report(old: Reported, report: Report, line: Line, *, now: float) -> Reported | None:
    """What is known after a report; None for a revision that this daemon never issued, and for a look at a candidate.

    How the document that runs fares is no news about another one that was refused, and that stays what is told.
    """
    if report.state == "checked" or (report.epoch == line.epoch and report.revision > line.revision):
        return None
    reboot = report.reason == REBOOT_REQUIRED if report.state == "applied" else old.reboot
    if old.refused and report.state in ("applied", "drifted") and report.digest == old.running != old.refused:
        return msgspec.structs.replace(old, adrift=report.state == "drifted", reboot=reboot, seen=now)
    failed = report.state in FAILED
    if failed and report.reason in TRANSIENT_REASONS and report.digest == old.running:
        return msgspec.structs.replace(old, seen=now)  # a second try at what runs already failed, and it runs on
    return msgspec.structs.replace(
        old,
        epoch=report.epoch,
        revision=report.revision,
        digest=report.digest,
        state=report.state,
        reason=report.reason,
        errors=[ReportedError(error.pointer, error.message) for error in report.errors],
        at=now,
        running=old.running if failed or report.state == "applying" else report.digest,
        reboot=reboot,
        adrift=old.adrift if failed or report.state == "applying" else report.state == "drifted",
        refused=report.digest if failed else "" if report.state == "applied" else old.refused,
        transient=report.reason in TRANSIENT_REASONS if failed else old.transient and report.state != "applied",
        seen=now,
    )


def configuration_of(desired: Desired | None, reported: Reported, line: Line) -> Configuration:
    """The configuration axis of a device's state."""
    if is_ahead(reported, line):
        return "ahead"
    if desired is None:
        return "unknown"
    if desired.digest == reported.refused and not reported.transient:
        return "quarantined"
    if desired.digest == reported.digest and reported.state in _AT_WORK:
        return _AT_WORK[reported.state]
    if desired.digest != reported.running:
        return "unknown" if not reported.seen else "pending"
    return "drifted" if reported.adrift else "in-sync"


def connection_of(*, online: bool, reported: Reported, now: float) -> Connection:
    """The connection axis of a device's state."""
    if online:
        return "online"
    if not reported.seen:
        return "never-seen"
    due = reported.seen + reported.next_contact_s * SLEEP_GRACE
    return "asleep" if reported.next_contact_s and now < due else "offline"


def is_ahead(reported: Reported, line: Line) -> bool:
    """Whether the device knows a newer revision of another history line, as after restoring an old backup."""
    if not reported.epoch or reported.epoch == line.epoch or reported.revision <= line.begins:
        return False
    epoch, revision = reported.known
    return reported.epoch != epoch or reported.revision > revision


def due_in_s(desired: Desired | None, reported: Reported, line: Line, *, retry_after_s: float) -> float | None:
    """In how many seconds the desired document should be sent: 0.0 = now, None = it should not.

    A device is offered what it neither runs nor refused; what it refused for a passing reason after
    ``retry_after_s``; nothing if it knows a newer revision of another history line, or if two devices show its
    certificate.
    """
    if desired is None or reported.shared or desired.digest == reported.running or is_ahead(reported, line):
        return None
    if desired.digest != reported.refused:
        return 0.0
    return max(0.0, retry_after_s) if reported.transient else None


def retry_in_s(reported: Reported, *, now: float) -> float:
    """Seconds until a passing refusal is over for a device without a live link; a clock set back does not delay it."""
    since_s = now - reported.at
    return TRANSIENT_RETRY_S - since_s if 0 <= since_s < TRANSIENT_RETRY_S else 0.0
