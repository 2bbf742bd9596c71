"""The store against a dictionary: any program of writes, refusals, reads and reopenings gives the same answers."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hengd.store import Store, Transaction

DATABASES = ("objects", "tokens")
Key = tuple[str, bytes]
keys = st.tuples(st.sampled_from(DATABASES), st.sampled_from([b"a", b"a/1", b"a/2", b"b", b"\xff\xff", b"k" * 400]))
values = st.binary(max_size=40) | st.sampled_from([5000, 70_000]).map(bytes)
writes = st.lists(st.tuples(keys, values | st.none()), max_size=6)


class Refused(Exception):
    expected = True


def operation(write: list[tuple[Key, bytes | None]], *, refuse: bool) -> object:
    def run(tx: Transaction) -> dict[Key, bytes | None]:
        for (database, key), value in write:
            if value is None:
                tx.delete(database, key)
            else:
                tx.put(database, key, value)
        if refuse:
            raise Refused
        return {(database, key): tx.get(database, key) for (database, key), _ in write}

    return run


class StoreMachine(RuleBasedStateMachine):
    """Batches of writes are sent together, so that they share commits with refused ones."""

    @initialize()
    def found(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="henge-store-")
        self._runner = asyncio.Runner()
        self.model: dict[Key, bytes] = {}
        self._open()

    def _open(self) -> None:
        async def opened() -> Store:
            return Store.open(Path(self._folder.name), map_bytes=256 * 1024)

        self.store = self._runner.run(opened())

    @rule(batch=st.lists(st.tuples(writes, st.booleans()), max_size=5))
    def write_together(self, batch: list[tuple[list[tuple[Key, bytes | None]], bool]]) -> None:
        async def send() -> list[object]:
            sent = [self.store.write(operation(write, refuse=refuse)) for write, refuse in batch]  # type: ignore[arg-type]
            return list(await asyncio.gather(*sent, return_exceptions=True))

        answers = self._runner.run(send())
        for (write, refuse), answer in zip(batch, answers, strict=True):
            if refuse:
                assert isinstance(answer, Refused)
                continue
            for key, value in write:
                if value is None:
                    self.model.pop(key, None)
                else:
                    self.model[key] = value
            assert answer == {key: self.model.get(key) for key, _ in write}

    @rule()
    def reopen(self) -> None:
        self._runner.run(self.store.close())
        self._open()

    @rule(write=writes)
    def write_and_close_at_once(self, write: list[tuple[Key, bytes | None]]) -> None:
        async def send_and_close() -> None:
            sending = asyncio.create_task(self.store.write(operation(write, refuse=False)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await self.store.close()
            await sending

        self._runner.run(send_and_close())
        for key, value in write:
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value
        self._open()

    @rule(database=st.sampled_from(DATABASES), prefix=st.sampled_from([b"", b"a", b"a/", b"z"]))
    def scan(self, database: str, prefix: bytes) -> None:
        wanted = sorted((key, value) for (where, key), value in self.model.items() if where == database)
        with self.store.read() as tx:
            assert list(tx.scan(database, prefix)) == [pair for pair in wanted if pair[0].startswith(prefix)]
            assert list(tx.scan_back(database)) == wanted[::-1]
            assert list(tx.scan_back(database, b"a/2")) == [pair for pair in wanted if pair[0] < b"a/2"][::-1]

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.read() as tx:
            for name in DATABASES:
                assert tx.count(name) == sum(where == name for where, _ in self.model)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self._runner.run(self.store.close())
            self._runner.close()
            self._folder.cleanup()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
