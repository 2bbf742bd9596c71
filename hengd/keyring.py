"""Where the key of the secrets comes from: a file that is named, systemd's credential, or a file that hengd makes.

Never the store: who gets hold of a copy of the store alone reads no secret.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from hengd.sealing import new_key, read_keys, written_key
from henge_protocol.errors import HengeError, Invalid
from henge_protocol.keyfiles import followed, make_private_dir, read_private, write_private

CREDENTIAL: Final = "henge-secret-key"
"""Name of the credential: ``LoadCredentialEncrypted=henge-secret-key``."""

ReadKeys = Callable[[], Sequence[bytes]]
"""The keys as they are now, the one in use first; raises ``HengeError`` if there are none."""


def find_keys(key_file: str, credentials: Path | None, data_dir: Path) -> tuple[Path, ReadKeys]:
    """Which file has the keys, and how to read it (again, whenever it may have changed)."""
    if key_file:
        named = Path(key_file)
        return named, partial(_read_given, named)
    if credentials is not None and (credentials / CREDENTIAL).exists():
        return credentials / CREDENTIAL, partial(_read_given, credentials / CREDENTIAL)
    own = own_key(data_dir)
    return own, partial(_read, own)


def own_key(data_dir: Path) -> Path:
    """Where the key lies that hengd makes: beside the data, not in it."""
    return data_dir / "keys" / "secrets.key"


def make_key(path: Path) -> None:
    """Make a key file with a new key; raises what ``keyfiles`` raises."""
    make_private_dir(path.parent)
    write_private(path, written_key(new_key()))


def _read(path: Path) -> list[bytes]:
    return _told(path, read_private(path))


def _read_given(path: Path) -> list[bytes]:
    """A file that somebody else put there: Kubernetes mounts a Secret as links, readable by the group of the pod; newer
    systemd lets the service read a credential by an access list, whose mask shows as the rights of a group."""
    return _told(path, read_private(followed(path), by_group=True))


def _told(path: Path, data: bytes) -> list[bytes]:
    try:
        return read_keys(data)
    except HengeError as error:
        raise Invalid(error.code, f"{path}: {error.message}", cure=error.cure) from None
