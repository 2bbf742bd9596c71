"""What is true of an object, in the form of Kubernetes' conditions: derived whenever somebody looks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hengd.records import ObjectRecord
from hengd.rules.devices import DeviceView
from hengd.rules.states import REBOOT_REQUIRED, protocol_gap
from henge_protocol.model import Configuration, Connection
from henge_protocol.wire import choose_version

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"


class Condition(NamedTuple):
    """One statement: whether it holds, why in a word and in a sentence, as of which revision and since when."""

    type: str
    status: str
    reason: str
    message: str
    observed_revision: int
    since: float
    """Unix seconds; 0 = not known."""


_LINKED: Final[dict[Connection, tuple[str, str]]] = {
    "online": (TRUE, "it is connected"),
    "asleep": (FALSE, "it sleeps, as it said it would"),
    "offline": (FALSE, "it is not connected and did not say that it would be away"),
    "never-seen": (UNKNOWN, "it has never been seen"),
}
_FITTING: Final[dict[Configuration, tuple[str, str]]] = {
    "in-sync": (TRUE, "it runs the document that it should"),
    "pending": (FALSE, "it has not said yet that it runs the newest document"),
    "applying": (FALSE, "it is applying the newest document"),
    "rejected": (FALSE, "it rejected the newest document for a passing reason; it is offered again"),
    "rolled-back": (FALSE, "it went back from the newest document for a passing reason; it is offered again"),
    "quarantined": (FALSE, "it refused the newest document, which is not offered again until it changes or on retry"),
    "drifted": (FALSE, "its files are not what it was told to run"),
    "ahead": (FALSE, "it knows a newer revision of another history line, as after restoring an old backup"),
    "unknown": (UNKNOWN, "it never said what it runs"),
}
_KNOWN: Final = {
    "active": (TRUE, "it has a certificate that is let in"),
    "revoked": (FALSE, "its identity was revoked"),
    "none": (FALSE, "it never joined"),
}


def conditions_of_device(view: DeviceView) -> list[Condition]:
    """Joined, Connected, InSync, then what should be False: ProtocolUnsupported, IdentityShared, RebootRequired."""
    reported = view.reported
    status, message = _FITTING[view.configuration]
    if view.configuration == "unknown" and view.desired is None:
        message = "it has no document"
    if status == FALSE and reported.reason and view.configuration != "pending":
        message = f"{message} ({reported.reason})"
    spoke = 0.0 if view.configuration in ("pending", "unknown") else reported.at
    return [
        Condition(
            "Joined", _KNOWN[view.identity][0], view.identity, _KNOWN[view.identity][1], view.record.revision, 0.0
        ),
        Condition("Connected", *_worded(view.connection, _LINKED[view.connection]), reported.revision, view.since),
        Condition("InSync", status, view.configuration, message, reported.revision, spoke),
        _foreign(view),
        _shared(view),
        _rebooting(view),
    ]


def conditions_of_layer(record: ObjectRecord) -> list[Condition]:
    """A schema or group was checked against all that it concerns when it was written, and so it is still."""
    message = "it was checked with every device that it concerns when it was written"
    return [Condition("Accepted", TRUE, "checked", message, record.revision, record.changed)]


def _worded(reason: str, said: Sequence[str]) -> tuple[str, str, str]:
    return said[0], reason, said[1]


def _foreign(view: DeviceView) -> Condition:
    reported, theirs = view.reported, (view.reported.speaks_from, view.reported.speaks_to)
    if not reported.seen:
        return Condition("ProtocolUnsupported", FALSE, "unsaid", "it never said what it speaks", 0, 0.0)
    version = choose_version(theirs, view.speaks)
    if version is None:
        message = "; ".join(protocol_gap(theirs, view.speaks))
        return Condition("ProtocolUnsupported", TRUE, "no-overlap", message, reported.revision, reported.seen)
    return Condition("ProtocolUnsupported", FALSE, "spoken", f"protocol {version} is spoken", reported.revision, 0.0)


def _shared(view: DeviceView) -> Condition:
    addresses, revision = view.reported.shared, view.reported.revision
    if not addresses:
        return Condition("IdentityShared", FALSE, "one", "one device shows this certificate", revision, 0.0)
    message = (
        f"two devices show this certificate, from {' and '.join(addresses)}: nothing is sent to that name. "
        f"Take one away, then: hengectl retry {view.record.name}, or give the other one its own identity"
    )
    return Condition("IdentityShared", TRUE, "two-boots", message, revision, view.reported.shared_since)


def _rebooting(view: DeviceView) -> Condition:
    reported = view.reported
    if reported.reboot:
        message = "some of what it runs counts only after the machine's next start"
        return Condition("RebootRequired", TRUE, REBOOT_REQUIRED, message, reported.revision, reported.at)
    return Condition("RebootRequired", FALSE, "none", "it did not say that it needs one", reported.revision, 0.0)
