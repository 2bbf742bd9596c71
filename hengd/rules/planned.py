"""Secrets as they will be: those of the store, and those that a change is to make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from hengd.rules.vault import OpenSecrets
from henge_protocol.strictjson import canonical


@dataclass(slots=True)
class PlannedSecrets:
    """What a renderer asks for secrets, and what is to be made of values that are secret."""

    stored: OpenSecrets
    made: dict[str, object] = field(default_factory=dict)
    """Those that are to be made, by name."""
    names: dict[str, dict[bytes, str]] = field(default_factory=dict)
    """For each name that was asked for, who has it, with a number or without, by the value."""
    are_known: bool = True

    def find(self, name: str) -> tuple[int, object]:
        """As ``OpenSecrets.find``; one that is to be made has revision 0."""
        return (0, self.made[name]) if name in self.made else self.stored.find(name)

    def blinded(self, document: bytes) -> bytes:
        """As ``OpenSecrets.blinded``."""
        return self.stored.blinded(document)

    def keep(self, name: str, value: object) -> str:
        """The name of a secret of this value: one that has it already, or the first that is free."""
        if name not in self.names:
            self.names[name] = dict(self._stored_as(name))
        known, content = self.names[name], canonical(value)
        if content not in known:
            known[content] = next(one for one in _numbered(name, len(known) + 1) if not self._is_taken(one))
            self.made[known[content]] = value
        return known[content]

    def _stored_as(self, name: str) -> Iterator[tuple[bytes, str]]:
        for one in _numbered(name, 1):
            try:
                yield canonical(self.stored.find(one)[1]), one
            except KeyError:
                return

    def _is_taken(self, name: str) -> bool:
        try:
            self.find(name)
        except KeyError:
            return False
        return True


def _numbered(name: str, first: int) -> Iterator[str]:
    return (name if number == 1 else f"{name}-{number}" for number in count(first))
