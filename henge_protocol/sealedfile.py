"""A file sealed with a passphrase: for what leaves the machine and holds keys, such as a backup. Bytes in, bytes out.

::

    henge sealed 1\\n    what it is; then the length of the header, 4 bytes, big-endian
    {...}               the header, JSON: what is inside (anybody may read it), and how the key is made
    chunk chunk ...     64 KiB each, the last one often shorter, sealed by AES-256-GCM with 16 bytes of tag

The key comes from the passphrase by Argon2id (RFC 9106, its second recommended option) with a salt of the file's own.
A chunk's nonce is its number and whether it is the last (the STREAM construction of Hoang, Reyhanitabar, Rogaway and
Vizar, 2015): a file that is cut, lengthened or put together anew does not open. The header is authenticated with every
chunk.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from henge_protocol.errors import Denied, HengeError, Invalid
from henge_protocol.strictjson import parse

CHUNK_BYTES: Final = 65_536
MIN_PASSPHRASE_CHARS: Final = 8
MAX_PASSPHRASE_BYTES: Final = 1024
SALT_BYTES: Final = 16

_MAGIC: Final = b"henge sealed 1\n"
_ANY_MAGIC: Final = b"henge sealed "
_TAG_BYTES: Final = 16
_MAX_HEADER_BYTES: Final = 4096
_MEMORY_KIB: Final = 65_536
_ITERATIONS: Final = 3
_LANES: Final = 4
_MAX_CHUNKS: Final = 2**32
_DERIVING: Final = threading.Lock()
"""One key after the other: of two at once each may hold threads of OpenSSL's that the other waits for, for ever."""


@dataclass(frozen=True, slots=True)
class Header:
    """The readable part of a sealed file; ``about`` is whatever its maker said of it."""

    about: dict[str, Any]
    salt: bytes
    check: bytes
    """Tells a wrong passphrase from a damaged file."""
    raw: bytes
    """All bytes of the file before its first chunk."""


def check_passphrase(passphrase: str) -> bytes:
    """The passphrase as bytes; ``Invalid bad_passphrase`` if it is too short or too long."""
    data = passphrase.encode("utf-8", "replace")
    if len(passphrase) < MIN_PASSPHRASE_CHARS or len(data) > MAX_PASSPHRASE_BYTES:
        message = f"the passphrase has {len(passphrase)} characters, at least {MIN_PASSPHRASE_CHARS} are needed"
        if len(data) > MAX_PASSPHRASE_BYTES:
            message = f"the passphrase has {len(data)} bytes, {MAX_PASSPHRASE_BYTES} are allowed"
        raise Invalid("bad_passphrase", message, cure="use a sentence that you will find again in some years")
    return data


def seal(chunks: Iterable[bytes], passphrase: bytes, about: dict[str, Any], *, salt: bytes) -> Iterator[bytes]:
    """The sealed file of all ``chunks``, piece by piece; takes half a second and 64 MiB before the first piece.

    ``salt`` is ``SALT_BYTES`` of chance, never used before: key and nonces follow from it.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    cipher, check = _derive(passphrase, salt)
    fields = about | {"kdf": "argon2id", "salt": _text(salt), "check": _text(check)}
    header = json.dumps(fields, ensure_ascii=True, sort_keys=True).encode()
    if len(header) > _MAX_HEADER_BYTES:
        raise ValueError(f"the header has {len(header)} bytes, {_MAX_HEADER_BYTES} are allowed")
    raw = _MAGIC + len(header).to_bytes(4, "big") + header
    yield raw
    bound = hashlib.sha256(raw).digest()
    number, waiting = 0, bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) > CHUNK_BYTES:  # what is left at the end is the last chunk, so one is always kept
            yield cipher.encrypt(_nonce(number, last=False), bytes(waiting[:CHUNK_BYTES]), bound)
            del waiting[:CHUNK_BYTES]
            number += 1
    yield cipher.encrypt(_nonce(number, last=True), bytes(waiting), bound)


def read_header(read: Callable[[int], bytes]) -> Header:
    """The header of a sealed file, of which nothing is proven yet; ``Invalid bad_backup`` if it is none."""
    magic = _exactly(read, len(_MAGIC))
    if magic != _MAGIC:
        if magic.startswith(_ANY_MAGIC):
            raise damaged("it was made by a newer henge", cure="use the henge that made it, or a newer one")
        raise damaged("it does not begin as one")
    length = _exactly(read, 4)
    size = int.from_bytes(length, "big")
    if size > _MAX_HEADER_BYTES:
        raise damaged("its header is too long")
    data = _exactly(read, size)
    try:
        fields = parse(data)
        if not isinstance(fields, dict) or fields.get("kdf") != "argon2id":
            raise ValueError("no header")
        salt, check = (base64.b64decode(fields.pop(name), validate=True) for name in ("salt", "check"))
    except (HengeError, ValueError, KeyError, TypeError, binascii.Error):
        raise damaged("its header cannot be read") from None
    if len(salt) != SALT_BYTES:
        raise damaged("its header cannot be read")
    del fields["kdf"]
    return Header(fields, salt, check, magic + length + data)


def unseal(header: Header, read: Callable[[int], bytes], passphrase: bytes) -> Iterator[bytes]:
    """What was sealed behind ``header``, chunk by chunk; each is authentic, the whole only once the last has come.

    Raises ``Denied wrong_passphrase``, ``Invalid bad_backup`` for everything else that is not as it was made.
    """
    cipher, check = _derive(passphrase, header.salt)
    if not hmac.compare_digest(check, header.check):
        raise Denied("wrong_passphrase", "the passphrase does not open the file", cure="try the one it was made with")
    bound = hashlib.sha256(header.raw).digest()
    chunk = _up_to(read, CHUNK_BYTES + _TAG_BYTES)
    for number in range(_MAX_CHUNKS):
        following = _up_to(read, CHUNK_BYTES + _TAG_BYTES)
        try:
            yield cipher.decrypt(_nonce(number, last=not following), chunk, bound)
        except (InvalidTag, ValueError):
            raise damaged("it is cut off or damaged") from None
        if not following:
            return
        chunk = following


def damaged(reason: str, *, cure: str = "take another copy of it") -> Invalid:
    """The error for a file that is no sealed file, or none any more."""
    return Invalid("bad_backup", f"the file is no backup that can be used: {reason}", cure=cure)


def _derive(passphrase: bytes, salt: bytes) -> tuple[AESGCM, bytes]:
    kdf = Argon2id(salt=salt, length=48, iterations=_ITERATIONS, lanes=_LANES, memory_cost=_MEMORY_KIB)
    with _DERIVING:
        derived = kdf.derive(passphrase)
    return AESGCM(derived[:32]), derived[32:]


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = _up_to(read, size)
    if len(data) < size:
        raise damaged("it ends within its header" if data else "it is empty")
    return data


def _up_to(read: Callable[[int], bytes], size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        piece = read(size - len(pieces))
        if not piece:
            break
        pieces += piece
    return bytes(pieces)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
