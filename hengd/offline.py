"""What is done to a data folder while no daemon works on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from hengd.datadir import DataDir, open_data_dir, refuse_foreign_folder
from hengd.rules import audit
from hengd.rules.outcome import Author
from hengd.rules.timekeeping import doubt, mark_of, set_mark
from hengd.settings import Settings
from hengd.store import Store, Transaction
from henge_protocol import pki
from henge_protocol.errors import NotFound, Unavailable

_ITSELF: Final = Author("hengd", "offline", may_end_identities=False)


async def accept_clock(data_dir: Path, settings: Settings, *, now: float) -> float:
    """Take ``now`` for right, whatever the store has seen; the latest moment that it had seen.

    Raises ``Conflict already_running`` while a daemon works on the folder, ``NotFound bad_file`` where there is none,
    ``Unavailable clock_suspect`` for a time that cannot be, and what opening the folder raises.
    """
    async with _opened(data_dir, settings, now=now) as (folder, store):
        trouble = doubt(now, pki.EARLIEST_CREATION, pki.validity(folder.authorities.client.certificate_der)[1])
        if trouble is not None:
            raise Unavailable(
                trouble.code, trouble.message.partition(";")[0], cure="set the clock (timedatectl), then try again"
            )
        return await store.write(lambda tx: _moved(tx, now))


async def put_key_back(data_dir: Path, settings: Settings, key_pem: bytes, *, now: float) -> bool:
    """Put the server authority's key into the folder; False if it was there.

    Raises ``Conflict`` ``wrong_authority`` or ``already_running``, ``NotFound bad_file`` where there is no folder,
    ``Denied bad_file`` where it is another user's, and what opening it raises.
    """
    refuse_foreign_folder(data_dir, "ca import")
    async with _opened(data_dir, settings, now=now) as (folder, store):
        folder.authorities.check_server_key(key_pem)
        if folder.authorities.server.key_pem:
            return False
        folder.authorities.put_server_key(key_pem)
        await store.write(lambda tx: audit.note(tx, "authority.key-imported", "authority/server", _ITSELF, now=now))
        return True


@asynccontextmanager
async def _opened(data_dir: Path, settings: Settings, *, now: float) -> AsyncIterator[tuple[DataDir, Store]]:
    if not data_dir.joinpath("data").exists():
        cure = "name it with --data-dir; see: hengd paths"
        raise NotFound("bad_file", f"there is no store in {data_dir}", cure=cure)
    map_bytes = settings.bytes("store.map_size")
    folder = open_data_dir(data_dir, allow_network_fs=settings["store.allow_network_fs"], now=now, map_bytes=map_bytes)
    with closing(folder):
        store = Store.open(folder.database, map_bytes=map_bytes, databases_of=folder.opening().databases)
        try:
            yield folder, store
        finally:
            await store.close()


def _moved(tx: Transaction, now: float) -> float:
    before = mark_of(tx)
    set_mark(tx, now)
    return before
