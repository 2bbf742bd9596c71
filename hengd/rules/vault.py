"""The key of the secrets: kept in the store, sealed under a key that is not.

The data key seals every secret and every document that holds one. It is made with the first secret and never changes;
who changes the key outside only has the data key sealed anew. Without the right key outside the vault is locked, and
whatever needs a secret answers ``secrets_locked`` until the key is back: it is looked for at each need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hengd.records import (
    DataKeyRecord,
    SecretRecord,
    StoredDocument,
    pack,
    pack_document,
    unpack,
    unpack_document,
)  # fmt: skip
from hengd.sealing import Seal, key_id, new_key
from hengd.store import Reader, Transaction
from henge_protocol.errors import HengeError, Internal, Unavailable
from henge_protocol.strictjson import canonical, parse

DATA_KEY: Final = b"secrets"
_CONTEXT: Final = "the data key"


class Vault:
    """Opens secrets for whoever has a transaction. May be asked from several threads."""

    def __init__(self, read_keys: Callable[[], Sequence[bytes]], where: str) -> None:
        self._read_keys = read_keys
        self._where = where
        self._opened: tuple[bytes, Seal] | None = None

    def seal(self, tx: Reader) -> Seal:
        """The seal of this store's secrets; ``Unavailable`` ``secrets_locked`` without the right key."""
        payload = tx.get("keys", DATA_KEY)
        if payload is None:
            message = "the data key of the secrets is missing"
            raise Internal("storage_corrupt", message, cure="restore the newest backup")
        opened = self._opened
        if opened is None or opened[0] != payload:
            opened = self._opened = payload, Seal(self._data_key(unpack(DataKeyRecord, payload))[0])
        return opened[1]

    def seal_anyway(self, tx: Transaction) -> Seal:
        """``seal``, making the data key if the store has none."""
        if tx.get("keys", DATA_KEY) is None:
            self._keep(tx, new_key(), self.keys()[0])
        return self.seal(tx)

    def put(self, tx: Transaction, name: str, revision: int, value: object) -> None:
        """Seal the value of a secret under a fresh nonce."""
        sealed = self.seal_anyway(tx).seal(canonical(value), _context(name, revision))
        tx.put("secrets", name.encode(), pack(SecretRecord(revision, sealed)))

    def get(self, tx: Reader, name: str) -> tuple[int, object]:
        """Revision and value of a secret that exists."""
        payload = tx.get("secrets", name.encode())
        if payload is None:
            cure = f"set it again: hengectl secret set {name}"
            raise Internal("storage_corrupt", f"secret {name} has no value", cure=cure)
        record = unpack(SecretRecord, payload)
        return record.revision, parse(self.seal(tx).open(record.sealed, _context(name, record.revision)))

    def document(self, tx: Reader, digest: str) -> bytes | None:
        """The exact bytes of a stored document; ``Unavailable`` ``secrets_locked`` if it holds secrets that are."""
        payload = tx.get("documents", bytes.fromhex(digest))
        if payload is None:
            return None
        stored = unpack_document(payload)
        return self.seal(tx).open(stored.sealed, f"document {digest}") if stored.sealed else stored.shown

    def keep_document(self, tx: Transaction, digest: str, data: bytes, shown: bytes) -> None:
        """Store a document; with ``shown``, what people may see of it, its exact bytes are sealed."""
        sealed = self.seal(tx).seal(data, f"document {digest}") if shown else b""
        tx.put("documents", bytes.fromhex(digest), pack_document(StoredDocument(shown or data, sealed)))

    def is_used(self, tx: Reader) -> bool:
        """Whether this store has, or had, secrets."""
        return tx.get("keys", DATA_KEY) is not None

    def trouble(self, tx: Reader) -> HengeError | None:
        """Why secrets cannot be opened, if there are any; None if they can."""
        if tx.get("keys", DATA_KEY) is None:
            return None
        try:
            self.seal(tx)
        except Unavailable as locked:
            return locked
        return None

    def is_due(self, tx: Reader) -> bool:
        """Whether the data key should be sealed anew: the key outside was replaced, and the old one is there, too."""
        payload = tx.get("keys", DATA_KEY)
        if payload is None:
            return False
        try:
            ids = [key_id(key) for key in self.keys()]
        except Unavailable:
            return False
        return unpack(DataKeyRecord, payload).key_id in ids[1:]

    def renew(self, tx: Transaction) -> None:
        """Seal the data key under the first of the keys outside; raises ``Unavailable`` ``secrets_locked``."""
        payload = tx.get("keys", DATA_KEY)
        if payload is not None:
            data_key, keys = self._data_key(unpack(DataKeyRecord, payload))
            self._keep(tx, data_key, keys[0])

    def _data_key(self, record: DataKeyRecord) -> tuple[bytes, Sequence[bytes]]:
        keys = self.keys()
        right = [key for key in keys if key_id(key) == record.key_id]
        if not right:
            raise self._locked(f"the key in {self._where} is not the one that opens this store's secrets")
        return Seal(right[0]).open(record.sealed, _CONTEXT), keys

    def _keep(self, tx: Transaction, data_key: bytes, key: bytes) -> None:
        tx.put("keys", DATA_KEY, pack(DataKeyRecord(key_id(key), Seal(key).seal(data_key, _CONTEXT))))

    def keys(self) -> Sequence[bytes]:
        """The keys outside, the one in use first; ``Unavailable`` ``secrets_locked``."""
        try:
            return self._read_keys()
        except HengeError as error:
            raise self._locked(error.message, error.cure) from error

    def _locked(self, reason: str, cure: str = "") -> Unavailable:
        back = f"put the key back into {self._where}; no restart is needed"
        return Unavailable("secrets_locked", f"the secrets are locked: {reason}", cure=cure or back)


class OpenSecrets:
    """The secrets as one transaction sees them, each opened once."""

    def __init__(self, vault: Vault, tx: Reader) -> None:
        self._vault = vault
        self._tx = tx
        self._found: dict[str, tuple[int, object]] = {}

    @property
    def are_known(self) -> bool:
        """They are; see ``rendering.Secrets``."""
        return True

    def find(self, name: str) -> tuple[int, object]:
        """Revision and value of a secret; ``KeyError`` if there is none, ``Unavailable`` ``secrets_locked``."""
        if name not in self._found:
            if self._tx.get("secrets", name.encode()) is None:
                raise KeyError(name)
            self._found[name] = self._vault.get(self._tx, name)
        return self._found[name]

    def blinded(self, document: bytes) -> bytes:
        """See ``Seal.blinded``."""
        return self._vault.seal(self._tx).blinded(document)


def _context(name: str, revision: int) -> str:
    return f"secret {name} revision {revision}"
