"""What a backup holds, and how it lies in the sealed file: a tar archive with a fixed set of members.

::

    db/data.mdb                                   a compact copy of the store
    ca/{server,client}-ca.{crt,key}               both authorities
    ca/server-ca.offline                          in the place of the server authority's key, where that is elsewhere
    ca/...-next..., ca/...-old.crt                what a rotation under way has made
    ca/server.pem                                 the server's own certificate
    revocations                                   the journal, if there is one
    secrets.key                                   the key of the secrets, if it was not locked

A file that holds only the authorities is one without the store.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from henge_protocol.sealedfile import damaged

STORE: Final = "db/data.mdb"
SERVER_CA: Final = "ca/server-ca.crt"
SERVER_KEY: Final = "ca/server-ca.key"
AUTHORITIES: Final = (SERVER_CA, SERVER_KEY, "ca/client-ca.crt", "ca/client-ca.key")
LEAF: Final = "ca/server.pem"
OFFLINE_KEY: Final = "ca/server-ca.offline"
UNDER_WAY: Final = (
    "ca/server-ca-next.crt", "ca/server-ca-next.key", "ca/server-ca-old.crt", "ca/client-ca-old.crt", OFFLINE_KEY,
    LEAF,
)  # fmt: skip
"""Beside the authorities, as far as it is there."""
JOURNAL: Final = "revocations"
SECRETS_KEY: Final = "secrets.key"

_SMALL: Final = frozenset({*AUTHORITIES, *UNDER_WAY, JOURNAL, SECRETS_KEY})
_PIECE_BYTES: Final = 1024 * 1024
_MAX_SMALL_BYTES: Final = 64 * 1024 * 1024


def pack(small: Mapping[str, bytes], store: Path | None) -> Iterator[bytes]:
    """The archive of the store's copy, if there is one, and of the small members, piece by piece: the keys last, if it
    is cut off."""
    if store is not None:
        size = store.stat().st_size
        yield _head(STORE, size)
        with store.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
        yield _padding(size)
    for name, data in small.items():
        yield _head(name, len(data))
        yield data + _padding(len(data))
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(pieces: Iterable[bytes], store: Path | None) -> dict[str, bytes]:
    """Write the store's copy to ``store`` and return the small members; reads ``pieces`` to their end.

    Without ``store`` its copy is left where it is, and need not be there.

    Raises ``Invalid bad_backup`` for what is no archive of ``pack``, and OSError.
    """
    stream = _Stream(pieces)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(mode="r|", fileobj=cast("tarfile._Fileobj", stream)) as archive:
            for member in archive:
                _check_member(member, found)
                found[member.name] = b"" if member.name == STORE else _content(archive, member)
                if member.name == STORE and store is not None:
                    _write(archive, member, store)
    except (tarfile.TarError, EOFError) as error:
        raise damaged(f"its archive cannot be read ({type(error).__name__})") from None
    while stream.read(_PIECE_BYTES):
        pass
    needed = AUTHORITIES if store is None else (*AUTHORITIES, STORE)
    elsewhere = {SERVER_KEY} if OFFLINE_KEY in found else set()
    missing = sorted(set(needed) - elsewhere - found.keys())
    if missing:
        raise damaged(f"{missing[0]} is not in it")
    found.pop(STORE, None)
    return found


def _head(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _check_member(member: tarfile.TarInfo, found: Mapping[str, bytes]) -> None:
    if member.type != tarfile.REGTYPE or member.name not in _SMALL | {STORE} or member.name in found:
        raise damaged(f"{member.name[:80]!r} does not belong in it")
    if member.name in _SMALL and member.size > _MAX_SMALL_BYTES:
        raise damaged(f"{member.name} has {member.size} bytes")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise damaged(f"{member.name} is cut off")
    return data


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, store: Path) -> None:
    source = archive.extractfile(member)
    with store.open("xb") as file:
        while source and (piece := source.read(_PIECE_BYTES)):
            file.write(piece)
    if store.stat().st_size != member.size:
        raise damaged(f"{member.name} is cut off")


class _Stream:
    """Reads an iterator of bytes as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, fewer only at the end."""
        taken = [self._rest]
        length = len(self._rest)
        while length < size and (piece := next(self._pieces, None)) is not None:
            taken.append(piece)
            length += len(piece)
        data = b"".join(taken)
        self._rest = data[size:]
        return data[:size]
