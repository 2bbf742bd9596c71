"""Tokens and the eight digits, as ``henge_protocol.joining``; ``tests/vectors/joining.json`` holds for both."""

import hashlib
from binascii import crc32

from henge_micro.wire import BASE32, Trouble

_LENGTHS = (8, 26, 52, 4)


def parse_token(text):
    """(id, secret, fingerprint) of a join token; raises ``Trouble token_malformed`` and never repeats the secret."""
    head, *parts = _plain(text).split(".")
    if head != "henge-join-1" or tuple([len(part) for part in parts]) != _LENGTHS:
        raise Trouble("token_malformed", "not a whole join token")
    parts = [_canonical(part) for part in parts]
    body = ".".join([head] + parts[:3])
    checksum = crc32(body.encode()) & 0xFFFFF
    if "".join([BASE32[checksum >> shift & 31] for shift in (15, 10, 5, 0)]) != parts[3]:
        raise Trouble("token_malformed", "a character is wrong")
    number = 0
    for letter in parts[2]:
        number = number << 5 | BASE32.find(letter)
    if number & 15:
        raise Trouble("token_malformed", "the fingerprint ends in bits that should be zero")
    return parts[0], parts[1], (number >> 4).to_bytes(32, "big")


def commitment(nonce, spki_der):
    """What the device commits to before it learns the daemon's nonce."""
    return hashlib.sha256(b"henge-commit-v1" + _nonce(nonce) + spki_der).digest()


def code(sid, nonce_device, nonce_server, spki_der, fingerprint):
    """The eight digits that both sides show if, and only if, they talk to each other."""
    hashed = hashlib.sha256(b"henge-sas-v1")
    for part in (sid.encode(), _nonce(nonce_device), _nonce(nonce_server), spki_der, fingerprint):
        hashed.update(len(part).to_bytes(4, "big") + part)
    digits = str(int.from_bytes(hashed.digest()[:8], "big") % 100000000)
    return "0" * (8 - len(digits)) + digits


def _plain(text):
    text = text.strip()
    if not 0 < len(text) <= 256 or not all("!" <= char <= "~" for char in text):
        raise Trouble("token_malformed", "not one line of letters, digits, dots and hyphens")
    return text.lower()


def _canonical(part):
    letters = part.replace("o", "0").replace("i", "1").replace("l", "1")
    if not all(letter in BASE32 for letter in letters):
        raise Trouble("token_malformed", "a character is wrong")
    return letters


def _nonce(nonce):
    if len(nonce) != 32:
        raise Trouble("join_mismatch", "a nonce has 32 bytes")
    return nonce
