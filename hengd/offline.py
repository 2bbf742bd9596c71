"""What is done to a data folder while no daemon works on it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from hengd.datadir import open_data_dir
from hengd.rules.timekeeping import doubt, mark_of, set_mark
from hengd.settings import Settings
from hengd.store import Store, Transaction
from henge_protocol import pki
from henge_protocol.errors import NotFound, Unavailable


async def accept_clock(data_dir: Path, settings: Settings, *, now: float) -> float:
    """Take ``now`` for right, whatever the store has seen; the latest moment that it had seen.

    Raises ``Conflict already_running`` while a daemon works on the folder, ``NotFound bad_file`` where there is none,
    ``Unavailable clock_suspect`` for a time that cannot be, and what opening the folder raises.
    """
    if not data_dir.joinpath("data").exists():
        cure = "name it with --data-dir; see: hengd paths"
        raise NotFound("bad_file", f"there is no store in {data_dir}", cure=cure)
    map_bytes = settings.bytes("store.map_size")
    folder = open_data_dir(data_dir, allow_network_fs=settings["store.allow_network_fs"], now=now, map_bytes=map_bytes)
    with closing(folder):
        trouble = doubt(now, pki.EARLIEST_CREATION, pki.validity(folder.keys.client.certificate_der)[1])
        if trouble is not None:
            raise Unavailable(
                trouble.code, trouble.message.partition(";")[0], cure="set the clock (timedatectl), then try again"
            )
        store = Store.open(folder.database, map_bytes=map_bytes, databases_of=folder.opening().databases)
        try:
            return await store.write(lambda tx: _moved(tx, now))
        finally:
            await store.close()


def _moved(tx: Transaction, now: float) -> float:
    before = mark_of(tx)
    set_mark(tx, now)
    return before
