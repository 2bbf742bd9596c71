"""Sealing what nobody may read in the store: AES-256-GCM, and the forms in which keys are kept. Pure but for chance.

A sealed thing is ``nonce (12) + ciphertext + tag (16)``; its context (what it is, of what name and version) is
authenticated with it, so that nothing sealed can stand in for anything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from henge_protocol.errors import Internal, Invalid

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_HEX = re.compile(rb"[0-9a-fA-F]{64}", re.ASCII)
_BLANKS: Final = (b" ", b"\t")
STEP_BYTES: Final = 64
"""Sizes of documents with secrets are multiples of it: everybody sees them, and what else is in the document."""


class Seal:
    """Seals and opens under one key of 32 bytes."""

    __slots__ = ("_blinding", "_cipher")

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(_derived(key, b"henge seal"))
        self._blinding = _derived(key, b"henge blind")

    def __repr__(self) -> str:
        return "Seal(...)"

    def seal(self, plain: bytes, context: str) -> bytes:
        """``plain`` sealed under a fresh nonce."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """What was sealed; ``Internal`` ``storage_corrupt`` if it is damaged or of another key or context."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise Internal(
                "storage_corrupt", f"{context} is sealed and cannot be opened", cure="restore the newest backup"
            ) from None

    def blinded(self, document: bytes) -> bytes:
        """``document`` (JSON) with blanks behind it: some to fill a step of its size, 128 that only this key can tell.

        Blanks mean nothing in JSON; but neither size nor digest of these bytes proves a guess about a value in them.
        The same document always gets the same blanks.
        """
        code = hmac.digest(self._blinding, document, "sha256")[:16]
        bits = int.from_bytes(code, "big")
        filled = document + b" " * (-len(document) % STEP_BYTES)
        return filled + b"".join(_BLANKS[bits >> place & 1] for place in range(128))


def key_id(key: bytes) -> str:
    """By which a key is recognised; tells nothing about it."""
    return hashlib.sha256(b"henge secret key id\0" + key).hexdigest()[:16]


def new_key() -> bytes:
    """A key from the system's chance."""
    return os.urandom(KEY_BYTES)


def written_key(key: bytes) -> bytes:
    """A key as a line of a key file."""
    return base64.b64encode(key) + b"\n"


def read_keys(data: bytes) -> list[bytes]:
    """The keys of a key file, the one in use first: 32 bytes as they are, or lines of base64 or hex.

    Empty lines and those that begin with ``#`` are skipped. Raises ``Invalid`` ``bad_key``; nothing of the content is
    repeated.
    """
    if len(data) == KEY_BYTES:
        return [data]
    lines = [line.strip() for line in data.splitlines()]
    keys = [_read_key(line, number) for number, line in enumerate(lines, 1) if line and not line.startswith(b"#")]
    if not keys:
        raise Invalid("bad_key", "it holds no key", cure=CURE)
    return keys


CURE: Final = "a key is 32 random bytes in base64: head -c 32 /dev/urandom | base64"


def _read_key(line: bytes, number: int) -> bytes:
    try:
        key = bytes.fromhex(line.decode()) if _HEX.fullmatch(line) else base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("bad_key", f"line {number} is neither base64 nor hex", cure=CURE) from None
    if len(key) != KEY_BYTES:
        raise Invalid("bad_key", f"line {number} holds {len(key)} bytes, a key has {KEY_BYTES}", cure=CURE)
    return key


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose, "sha256")
