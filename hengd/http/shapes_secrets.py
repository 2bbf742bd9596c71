"""The form of what is said of secrets; see ``shapes``. Pure."""

from __future__ import annotations

from typing import Any, Literal

from hengd.http.shapes import Count, Labels, Moment, ObjectName, Shape


class SecretBody(Shape):
    """A secret's value: any JSON but null and what is empty."""

    value: Any


class SecretMetadata(Shape, kw_only=True):
    """What a secret is called, and who set it when."""

    name: ObjectName
    labels: Labels
    revision: Count
    created: Moment
    changed: Moment
    author: str


class SecretSpec(Shape):
    """Which value it has, told by when it got it."""

    revision: Count


class SecretStatus(Shape):
    """Groups and devices that refer to it."""

    used_by: list[str]


class Secret(Shape, kw_only=True):
    """All of a secret but its value."""

    apiVersion: Literal["henge/v1"]  # noqa: N815 - the wire's spelling
    kind: Literal["Secret"]
    metadata: SecretMetadata
    spec: SecretSpec
    status: SecretStatus


class SecretList(Shape):
    """Every secret, by name."""

    kind: Literal["SecretList"]
    items: list[Secret]
