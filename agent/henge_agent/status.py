"""What ``henge-agent status`` says: who this device is, what it runs, what the daemon knows of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from henge_agent.records import Membership
from henge_agent.state import FOREIGN, REJOIN, is_running, read_progress
from henge_agent.trial import is_undecided
from henge_protocol.model import short_digest


def status_lines(folder: Path, membership: Membership) -> list[tuple[str, str]]:
    """Label and text of each line, read from the state folder; the agent at work is not asked. Raises as ``State``."""
    progress = read_progress(folder)
    running, owed = progress.running, progress.report
    document = f"{short_digest(running.digest)} of revision {running.revision}" if running else "none yet"
    if is_undecided(progress):
        report = "rolled-back, the next contact tells why"
    elif owed or progress.trial:
        said = f"{owed.state} {owed.reason}".strip() if owed else "applied"
        report = f"{said}, the daemon has not confirmed it yet"
    else:
        report = "confirmed"
    return [
        ("device", f"{membership.name} (id {membership.device_id})"),
        ("fleet", membership.fleet_id),
        ("daemon", membership.last_address or membership.address or "not met yet"),
        ("identity", f"{folder}/identity-{membership.slot}.pem, renewed from {day(membership.renew_at)}"),
        ("agent", "running" if is_running(folder) else "not running"),
        ("document", document),
        ("report", report if running or owed else "none yet"),
        *([("refused", _refused(membership.refused))] if membership.refused else []),
    ]


def _refused(code: str) -> str:
    if code == FOREIGN:
        return f"{code}: the daemon speaks other versions of the protocol; update henge-agent or hengd"
    if code == "unknown_certificate":
        lost = "did it lose its store, it can have this device back as it is (there: hengectl rescue open)"
        return f"{code}: the daemon does not know this device; {lost}; else {REJOIN}"
    return f"{code}: the daemon lets this device in no more; {REJOIN}"


def day(unix_s: int) -> str:
    """A moment as its day in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")
