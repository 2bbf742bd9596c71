"""Secrets as people handle them: named, set, listed and deleted; their values only go in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hengd.records import ObjectRecord
from hengd.rules.configs import Configs, Request
from hengd.rules.fleet import objects_of, read_meta, required_object, users_of_secrets
from hengd.rules.merge import drop_nulls, is_reference
from hengd.rules.objects import object_path
from hengd.rules.outcome import Outcome
from hengd.rules.references import references
from hengd.store import Reader, Store
from henge_protocol.errors import Invalid, TooLarge
from henge_protocol.strictjson import canonical

MAX_SECRET_BYTES: Final = 8192
"""Room for a certificate with its key; half of what a document may have."""


@dataclass(frozen=True, slots=True)
class SecretView:
    """All that can be seen of a secret."""

    record: ObjectRecord
    users: tuple[str, ...]
    """Groups and devices that refer to it, such as ``group/kitchen``."""
    epoch: str


class Secrets:
    """Reads and writes secrets; of their values nothing comes back."""

    def __init__(self, store: Store, configs: Configs) -> None:
        self._store = store
        self._configs = configs

    def list(self) -> list[SecretView]:
        """All secrets in order of names."""
        with self._store.read() as tx:
            return _views(tx, list(objects_of(tx, "Secret")))

    def view(self, name: str) -> SecretView:
        """One secret, or ``NotFound`` ``no_such_secret``."""
        with self._store.read() as tx:
            return _views(tx, [required_object(tx, "Secret", name)])[0]

    async def put(self, name: str, value: object, if_match: str | None, request: Request) -> Outcome:
        """Give a secret a value.

        Raises ``Invalid`` ``bad_object``, ``TooLarge`` ``too_large``, ``Unavailable`` ``secrets_locked``, and what a
        change raises if a device's document does not fit with it.
        """
        _check_value(value)
        return await self._configs.put_secret(name, value, if_match, request)

    async def delete(self, name: str, if_match: str | None, request: Request) -> Outcome:
        """Forget a secret; ``Conflict`` ``in_use`` names those who refer to it."""
        return await self._configs.delete("Secret", name, if_match, request)


def _check_value(value: object) -> None:
    if value is None or value in ("", {}, []):
        raise Invalid("bad_object", "a secret is not empty", cure="to get rid of it: hengectl secret delete NAME")
    if isinstance(value, dict) and drop_nulls(value) != value:
        raise Invalid("bad_object", "a secret holds no null: no field of a device is null", cure="leave the field out")
    if is_reference(value) or next(references(value), None) is not None:
        raise Invalid("bad_object", "a secret does not refer to another one", cure="refer to that one in the values")
    size = len(canonical(value))
    if size > MAX_SECRET_BYTES:
        raise TooLarge("too_large", f"the secret has {size} bytes, at most {MAX_SECRET_BYTES} are kept")


def _views(tx: Reader, records: list[ObjectRecord]) -> list[SecretView]:
    users, epoch = users_of_secrets(tx), read_meta(tx).epoch
    return [
        SecretView(record, tuple(object_path(user.kind, user.name) for user in users.get(record.name, ())), epoch)
        for record in records
    ]
