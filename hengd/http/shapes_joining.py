"""The form of requests and answers of joining, as ``shapes`` has that of everything else. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from hengd.http.shapes import Count, Facts, Labels, Moment, Name, Shape

Role = Literal["viewer", "editor", "admin"]


class TokenBody(Shape):
    """What a token is for."""

    kind: Literal["join", "admin"] | UnsetType = UNSET
    name: str | UnsetType = UNSET
    schema: str | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    ttl_s: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET
    uses: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    """Of a person (kind admin) only."""


class ReplaceBody(Shape):
    """How long the new hardware has."""

    ttl_s: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET


class Token(Shape, kw_only=True):
    """What was given out; ``token`` is shown once, to who made it."""

    id: str
    kind: Literal["join", "admin"]
    name: str
    schema: str
    labels: Labels
    uses: Count
    used: Count
    created: Moment
    expires: Moment
    by: str
    role: Role | UnsetType = UNSET
    token: str | UnsetType = UNSET


class TokenList(Shape):
    """Tokens without their secrets."""

    kind: Literal["TokenList"]
    items: list[Token]


class Ended(Shape, kw_only=True):
    """Something was made worthless."""

    id: str | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    state: Literal["revoked"]


class Join(Shape):
    """A device that waits for approval."""

    id: str
    name: Name
    address: str
    client: str
    facts: Facts
    asked: Moment
    expires: Moment


class JoinList(Shape):
    """Who waits."""

    kind: Literal["JoinList"]
    items: list[Join]


class ApproveBody(Shape):
    """What the device becomes."""

    name: str | UnsetType = UNSET
    schema: str | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET


class WindowBody(Shape):
    """For how long; 0 closes."""

    open_s: Count | UnsetType = UNSET


class Window(Shape):
    """Whether devices may ask to join."""

    open: bool
    closes: Moment


class Operator(Shape):
    """Who is logged in from elsewhere."""

    name: Name
    role: Role
    certificates: Count
    since: Moment
    expires: Moment
    via: str


class OperatorList(Shape):
    """By name."""

    kind: Literal["OperatorList"]
    items: list[Operator]


class Trust(Shape):
    """The certificate to compare with the pin, DER in base64."""

    fleet: str
    server_ca: list[str]


class EnrolBody(Shape):
    """A token and a key."""

    token_id: str
    secret: str
    csr: str
    name: Name
    facts: Facts | UnsetType = UNSET
    client: str | UnsetType = UNSET


class LoginBody(Shape):
    """An operator's token and key."""

    token_id: str
    secret: str
    csr: str
    name: Name


class BeginBody(Shape):
    """The device commits to its key."""

    commit: str
    name: Name
    client: str | UnsetType = UNSET
    facts: Facts | UnsetType = UNSET


class Begun(Shape):
    """The daemon's half of the code."""

    sid: str
    nonce: str
    fleet: str
    expires_in_s: Count


class RevealBody(Shape):
    """What the device committed to."""

    sid: str
    nonce: str
    csr: str


class AnswerBody(Shape):
    """Whether the codes are the same."""

    accept: bool


class State(Shape):
    """Where a request stands."""

    state: str


class RenewBody(Shape):
    """A new key, or none to keep the one shown."""

    csr: str | UnsetType = UNSET
    client: str | UnsetType = UNSET


class Identity(Shape, kw_only=True):
    """What its owner stores."""

    fleet: str
    device_id: str | UnsetType = UNSET
    admin: str | UnsetType = UNSET
    name: Name
    certificate: str
    server_ca: list[str]
    now: int
    renew_after: int
