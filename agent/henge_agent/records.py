"""What the files of the state folder say, as values: who this device is, what it runs, what is still to be said."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from henge_protocol.joining import is_id
from henge_protocol.model import is_digest, is_name
from henge_protocol.wire import Report, decode, encode

Slot = Literal["a", "b"]
OTHER_SLOT: Final[dict[Slot, Slot]] = {"a": "b", "b": "a"}
LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999."""

_MAX_BOOT_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Membership:
    """Who this device is, where its daemon was last seen, and which identity file counts."""

    fleet_id: str
    device_id: str
    name: str
    server_ca_ders: tuple[bytes, ...]
    slot: Slot
    trial: Slot | None = None
    """A renewed identity that has not been used yet; ``slot`` counts until it has."""
    renew_at: int = 0
    """Unix seconds."""
    address: str = ""
    """As a person named it; empty when it was found by mDNS."""
    last_address: str = ""
    """Where the daemon last answered."""
    known_time: int = 0
    """A moment that has passed for certain, unix seconds: the daemon's clock and this device's were both beyond it."""
    schema: str = ""
    """What the daemon called the schema that this device fetched last."""
    refused: str = ""
    """Why the daemon lets this device in no more, by its code; empty since it was welcomed last."""


@dataclass(frozen=True, slots=True)
class Version:
    """One delivered document: its digest and the revision that brought it."""

    epoch: str
    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class Original:
    """What stood in an output's place before the agent first wrote there; no content: nothing did."""

    content: bytes | None
    mode: int | None = None
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What runs and what is still to be said about it; ``henge_agent.trial`` has the steps from one to the next."""

    current: Version | None = None
    """The last good document: confirmed by the daemon while it ran."""
    previous: Version | None = None
    """What was the last good one before ``current``."""
    staged: Version | None = None
    """What is being applied or undone; found at start it means that the agent was cut while it worked."""
    report: Report | None = None
    """The last final report, until its receipt has come."""
    trial: Version | None = None
    """What the outputs hold instead of ``current`` and the daemon has not confirmed."""
    boot: str = ""
    """The boot of the machine in which ``staged`` or ``trial`` began."""
    until_s: float = 0.0
    """When ``trial`` is undone if no receipt comes: seconds on that boot's clock that only grows."""

    @property
    def running(self) -> Version | None:
        """What the outputs hold."""
        return self.trial or self.current

    @property
    def digests(self) -> frozenset[str]:
        """The documents that have to be kept."""
        named = (self.current, self.previous, self.staged, self.trial)
        return frozenset(version.digest for version in named if version)


def membership_fields(membership: Membership) -> dict[str, Any]:
    """The membership as JSON's values."""
    ders = [base64.b64encode(der).decode() for der in membership.server_ca_ders]
    return asdict(membership) | {"server_ca_ders": ders}


def read_membership_fields(fields: Mapping[str, Any]) -> Membership:
    """The membership that the fields tell. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
    ders = tuple(base64.b64decode(_checked(text, "server_ca_ders"), validate=True) for text in fields["server_ca_ders"])
    return Membership(
        fleet_id=_checked(fields["fleet_id"], "fleet_id", is_id),
        device_id=_checked(fields["device_id"], "device_id", is_id),
        name=_checked(fields["name"], "name", is_name),
        server_ca_ders=ders,
        slot=_slot(fields["slot"]),
        trial=_slot(fields["trial"]) if fields["trial"] is not None else None,
        renew_at=_time(fields["renew_at"], "renew_at"),
        address=_checked(fields["address"], "address"),
        last_address=_checked(fields["last_address"], "last_address"),
        known_time=_time(fields.get("known_time", 0), "known_time"),
        schema=_checked(fields.get("schema", ""), "schema"),
        refused=_checked(fields.get("refused", ""), "refused"),
    )


def progress_fields(progress: Progress) -> dict[str, Any]:
    """The progress as JSON's values."""
    report = encode(progress.report).decode() if progress.report else None
    return asdict(progress) | {"report": report}


def read_progress_fields(fields: Mapping[str, Any]) -> Progress:
    """The progress that the fields tell. Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``WireError``."""
    report = decode(_checked(fields["report"], "report")) if fields["report"] is not None else None
    if report is not None and not isinstance(report, Report):
        raise ValueError("report")
    return Progress(
        current=_version(fields["current"]),
        previous=_version(fields["previous"]),
        staged=_version(fields["staged"]),
        report=report,
        trial=_version(fields.get("trial")),
        boot=_checked(fields.get("boot", ""), "boot", lambda text: len(text) <= _MAX_BOOT_CHARS),
        until_s=_moment(fields.get("until_s", 0.0)),
    )


def _version(value: Any) -> Version | None:
    if value is None:
        return None
    return Version(
        _checked(value["epoch"], "epoch"), int(value["revision"]), _checked(value["digest"], "digest", is_digest)
    )


def _time(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value <= LAST_SECOND:
        raise ValueError(name)
    return value


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("until_s")
    return float(value)


def _slot(value: Any) -> Slot:
    if value == "a":
        return "a"
    if value == "b":
        return "b"
    raise ValueError("slot")


def _checked(value: Any, name: str, form: Callable[[str], bool] = lambda text: True) -> str:
    if not isinstance(value, str) or not form(value):
        raise ValueError(name)
    return value
