"""A store is opened by the daemon whose format and keys it has, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hengd.records import FORMAT, META_KEY, pack
from hengd.rules.fleet import read_meta
from hengd.store import Store
from hengd.transactions import Transaction
from henge_protocol.errors import Internal
from tests.service import Clock, Service


def rewrite(**fields: object) -> Callable[[Transaction], None]:
    return lambda tx: tx.put("meta", META_KEY, pack(msgspec.structs.replace(read_meta(tx), **fields)))


@pytest.mark.parametrize(
    ("change", "said", "cure"),
    [
        pytest.param(rewrite(format=FORMAT + 1), f"has format {FORMAT + 1}", "the hengd that wrote it", id="F17 newer"),
        pytest.param(rewrite(fleet="f" * 26), f"is of fleet {'f' * 26}", "from one backup", id="F17 another fleet"),
        pytest.param(lambda tx: tx.delete("meta", META_KEY), "no meta record", "restore a backup", id="F17 no meta"),
    ],
)
async def test_a_store_that_is_not_this_daemons_is_refused_and_left_alone(
    data_dir: Path, clock: Clock, change: Callable[[Transaction], None], said: str, cure: str
) -> None:
    service = Service(data_dir, clock)
    await service.start()
    await service.stop()
    folder = data_dir / "data" / "db"
    store = Store.open(folder)
    await store.write(change)
    await store.close()
    before = (folder / "data.mdb").read_bytes()
    with pytest.raises(Internal) as refused:
        await service.start()

    assert refused.value.code == "storage_foreign"
    assert said in refused.value.message
    assert cure in refused.value.cure
    assert (folder / "data.mdb").read_bytes() == before
    service.clean()
