"""TLS as no library would say it: ClientHellos byte for byte, and what a server made of them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

HANDSHAKE, ALERT = 0x16, 0x15
CLIENT_HELLO, SERVER_HELLO, CERTIFICATE = 1, 2, 11

SSL_2 = bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16)
"""A hello of 1995."""


def hello(version: str, *suites: str, name: bytes | None = None, versions: Sequence[str] = ()) -> bytes:
    """A ClientHello in one record: P-256, x25519, every signature that was ever good enough.

    ``version``, ``suites`` and ``versions`` (those of the extension of TLS 1.3) are hex; ``name`` is the SNI.
    """
    extensions = {
        0x0A: sized(bytes.fromhex("0017001d"), 2),
        0x0B: sized(b"\0", 1),
        0x0D: sized(bytes.fromhex("0403050306030201040105010203"), 2),
    }
    if versions:
        extensions[0x2B] = sized(bytes.fromhex("".join(versions)), 1)
        extensions[0x33] = sized(bytes.fromhex("001d") + sized(secrets.token_bytes(32), 2), 2)
    if name is not None:
        extensions[0x00] = sized(b"\0" + sized(name, 2), 2)
    said = b"".join(kind.to_bytes(2, "big") + sized(content, 2) for kind, content in extensions.items())
    offered = sized(bytes.fromhex("".join(suites)), 2)
    opening = bytes.fromhex(version) + secrets.token_bytes(32) + sized(b"", 1)
    return record(bytes([CLIENT_HELLO]) + sized(opening + offered + sized(b"\0", 1) + sized(said, 2), 3))


def suite_chosen(answer: bytes) -> str:
    """The suite of the ServerHello that an answer begins with, in hex; empty if it is something else."""
    if len(answer) < 44 or answer[0] != HANDSHAKE or answer[5] != SERVER_HELLO:
        return ""
    at = 44 + answer[43]
    return answer[at : at + 2].hex()


def record(content: bytes, kind: int = HANDSHAKE) -> bytes:
    """One TLS record, not encrypted."""
    return bytes([kind, 3, 3]) + sized(content, 2)


def records(flight: bytes) -> list[tuple[int, bytes]]:
    """Kind and content of the records of a flight."""
    found = []
    while flight:
        end = 5 + int.from_bytes(flight[3:5], "big")
        found.append((flight[0], flight[5:end]))
        flight = flight[end:]
    return found


def sized(content: bytes, size: int) -> bytes:
    """The content behind its length."""
    return len(content).to_bytes(size, "big") + content
