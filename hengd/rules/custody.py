"""The key of the secrets over a daemon's life: found or made at the start, watched and renewed from then on."""

from __future__ import annotations

import logging
from pathlib import Path

from hengd.keyring import find_keys, make_key, own_key
from hengd.rules.vault import DATA_KEY, Vault
from hengd.store import Store
from henge_protocol.errors import HengeError

log = logging.getLogger("hengd.secrets")


def find_vault(store: Store, key_file: str, credentials: Path | None, data_dir: Path) -> Vault:
    """The vault of a store. A store that never had a secret gets a key, unless somebody named a place for one.

    Trouble with the key is logged and no more: what holds no secret is served all the same.
    """
    path, read_keys = find_keys(key_file, credentials, data_dir)
    with store.read() as tx:
        is_needed = tx.get("keys", DATA_KEY) is not None
    if not is_needed and path == own_key(data_dir) and not path.exists():
        try:
            make_key(path)
        except HengeError as error:
            log.warning("no key for secrets was made: %s", error, extra={"event": "secrets_locked"})
    return Vault(read_keys, str(path))


async def tend_vault(vault: Vault, store: Store) -> None:
    """Say so if the secrets are locked; seal their key anew if the key outside was replaced."""
    with store.read() as tx:
        trouble, is_due = vault.trouble(tx), vault.is_due(tx)
    if trouble is not None:
        log.warning("%s (%s)", trouble.message, trouble.cure, extra={"event": "secrets_locked"})
    if not is_due:
        return
    try:
        await store.write(vault.renew)
    except HengeError as error:
        log.warning("the secrets' key waits to be renewed: %s", error, extra={"event": "upkeep_waits"})
    else:
        log.info("the secrets are kept under the new key", extra={"event": "secret_key_renewed"})
