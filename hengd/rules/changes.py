"""How a change begins: with what every change needs, so that whoever makes one need not carry it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hengd.rules.change import Change
from hengd.rules.outcome import Author
from hengd.rules.ownership import Writer
from hengd.rules.schemas import SchemaCache
from hengd.rules.vault import Vault
from hengd.store import Transaction


@dataclass(frozen=True, slots=True)
class Changes:
    """Schemas compiled once, the secrets, the time and new ids, for all changes of a daemon."""

    schemas: SchemaCache
    vault: Vault
    clock: Callable[[], float]
    new_id: Callable[[], str]

    def begin(
        self, tx: Transaction, author: Author, message: str, *, now: float | None = None, writer: Writer | None = None
    ) -> Change:
        """A change in this transaction, of the moment ``now`` or of this one."""
        return Change(
            tx, self.schemas, self.vault, author=author, message=message, now=self.clock() if now is None else now,
            new_id=self.new_id, writer=writer,
        )  # fmt: skip
