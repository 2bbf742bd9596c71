"""The rules on a real store, without HTTP: what a change does, told in the words of objects and documents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from hengd.datadir import open_data_dir
from hengd.records import RevisionRecord
from hengd.rules.changes import Changes
from hengd.rules.configs import Configs, Request
from hengd.rules.history import find_revision, revisions_back
from hengd.rules.notes import Committed
from hengd.rules.outcome import Author, Outcome
from hengd.rules.presence import Presence
from hengd.rules.schemas import SchemaCache
from hengd.rules.vault import Vault
from hengd.store import Store
from henge_protocol.errors import HengeError, NotFound

NOW = 1_800_000_000.0
ADA = Author("ada", "test", may_end_identities=True)


@dataclass(slots=True)
class Desk:
    """An operator's desk: changes in, documents out."""

    store: Store
    configs: Configs
    notes: list[object]
    now: float = NOW
    keys: list[bytes] = field(default_factory=lambda: [bytes(range(32))])
    """What stands in the key file; empty: there is none."""
    vault: Vault = field(init=False)

    def __post_init__(self) -> None:
        self.vault = Vault(self._read_keys, "the key file")

    def _read_keys(self) -> list[bytes]:
        if not self.keys:
            raise NotFound("bad_file", "cannot read the key file: No such file or directory")
        return list(self.keys)

    async def apply(
        self, *objects: dict[str, Any], delete: tuple[tuple[str, str], ...] = (), dry: bool = False
    ) -> Outcome:
        """One change."""
        return await self.configs.apply(objects, delete, Request(ADA, dry_run=dry))

    async def patch(self, path: str, patch: dict[str, Any]) -> Outcome:
        """One merge patch of ``Kind/name``."""
        kind, _, name = path.partition("/")
        return await self.configs.patch(kind, name, patch, None, Request(ADA))

    async def refused(self, *objects: dict[str, Any], **more: Any) -> HengeError:
        """A change that must be refused, and leaves nothing."""
        before = self.everything()
        with pytest.raises(HengeError) as refusal:
            await self.apply(*objects, **more)
        assert self.everything() == before
        return refusal.value

    def document(self, name: str) -> Any:
        """What a device gets."""
        return json.loads(self.configs.document(name).data)

    def everything(self) -> list[tuple[str, bytes, bytes]]:
        """Every record of the store."""
        databases = ("meta", "objects", "ids", "revisions", "documents", "desired")
        with self.store.read() as tx:
            return [(database, *entry) for database in databases for entry in tx.scan(database)]

    @property
    def revisions(self) -> int:
        """How many revisions there are."""
        return len(self.history())

    def history(self, *, object_: tuple[str, str] | None = None, limit: int = 1000) -> list[RevisionRecord]:
        """The newest revisions first, all or those that touched one object."""
        with self.store.read() as tx:
            return list(islice(revisions_back(tx, None, object_), limit))

    def revision(self, number: int) -> RevisionRecord:
        """One revision with each object before and after."""
        with self.store.read() as tx:
            return find_revision(tx, number)

    @property
    def committed(self) -> list[Committed]:
        """What the after-commit hook heard."""
        return [note for note in self.notes if isinstance(note, Committed)]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A new store with nothing but the group all."""
    folder = open_data_dir(tmp_path / "state", allow_network_fs=True, now=NOW, map_bytes=64 * 1024 * 1024)
    store = Store.open(folder.database, map_bytes=64 * 1024 * 1024)
    numbers = iter(range(10_000))
    notes: list[object] = []
    store.on_commit(notes.extend)
    made = Desk(store, None, notes)  # type: ignore[arg-type]
    changes = Changes(SchemaCache(), made.vault, lambda: made.now, lambda: f"{next(numbers):026}")
    made.configs = Configs(store, changes, Presence())
    try:
        yield made
    finally:
        await store.close()
        folder.close()
