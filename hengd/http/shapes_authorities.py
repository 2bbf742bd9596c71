"""The form of what is said of the authorities; ``shapes`` has that of everything else. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from hengd.http.shapes import Count, Digest, Moment, Name, Shape
from henge_protocol.model import Connection


class Held(Shape):
    """One authority: what it does, and where its key is."""

    does: Literal["signs", "next", "old"]
    fingerprint: Digest
    ends: Moment
    key: Literal["here", "elsewhere", "gone"]


class Behind(Shape):
    """Who has not followed yet; ``connection`` and ``since`` are empty for operators."""

    kind: Literal["device", "operator"]
    name: Name
    connection: Connection | Literal[""]
    since: Moment


class Tally(Shape):
    """How many have followed, of how many; the first hundred of those who have not, by name."""

    devices: Count
    devices_total: Count
    operators: Count
    operators_total: Count
    behind: list[Behind]


class RotationState(Shape):
    """Where the rotation of one authority stands."""

    step: Literal["resting", "introduced", "switched"]
    switched: Moment
    authorities: list[Held]
    follow: Tally


class ServerCertificate(Shape):
    """The server's own certificate."""

    names: list[str]
    ends: Moment
    due: Moment
    trouble: str


class Authorities(Shape):
    """Both authorities, the server's certificate, and what to do next."""

    kind: Literal["Authorities"]
    fleet: str
    within_s: Count
    server: RotationState
    client: RotationState
    certificate: ServerCertificate
    next: list[str]


class WithinBody(Shape):
    """Within which time devices renew; a day, or what was said before, if it is not given."""

    within_s: Count | UnsetType = UNSET


class LeaveBehindBody(Shape):
    """Whether those who have not followed are left behind."""

    leave_behind: bool | UnsetType = UNSET


class Stepped(Shape):
    """Whether a step was made or had been made before; join tokens that it made worthless."""

    changed: bool
    void_tokens: Count


class RemoveKeyBody(Shape):
    """SHA-256 of the server authority whose key the caller has read back."""

    fingerprint: Digest


class KeyBody(Shape):
    """The server authority's key in PEM."""

    key: str


class ReissueBody(Shape):
    """The server authority's key in PEM, if it is not in the data folder; it is not kept."""

    key: str | UnsetType = UNSET
