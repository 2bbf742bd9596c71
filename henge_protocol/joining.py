"""How a device asks to become known: join tokens, and the eight digits that a person compares.

Two ways lead in.  A *token* names the daemon's authority by fingerprint and carries a secret; the device
sends the secret only to a daemon that this authority vouches for.  *Discover and approve* needs no secret:
both sides fix a random value before they learn the other's, and derive the same eight digits only if
nobody sits between them.

Standard library only: boards repeat this file and share ``tests/vectors/joining.json``.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from henge_protocol.errors import Invalid, Malformed

TokenKind = Literal["join", "admin"]

ID_BYTES = 16
ID_CHARACTERS = 26
TOKEN_ID_CHARACTERS = 8
SECRET_CHARACTERS = 26
FINGERPRINT_BYTES = 32
NONCE_BYTES = 32
CODE_DIGITS = 8
MAX_TOKEN_CHARACTERS = 256
"""Longer text is refused before it is looked at; a token has 107 or 108 characters."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)} | {"o": 0, "i": 1, "l": 1}
_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
_TOKEN_CURE = "copy the whole line that 'hengectl token create' printed"
_PART_LENGTHS = {"id": TOKEN_ID_CHARACTERS, "secret": SECRET_CHARACTERS, "fingerprint": 52, "checksum": 4}


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a token says.  ``repr`` leaves the secret out, so that a log line cannot betray it."""

    kind: TokenKind
    id: str
    secret: str = field(repr=False)
    fingerprint: bytes
    """SHA-256 of the server authority's certificate in DER, 32 bytes."""


def new_token(kind: TokenKind, fingerprint: bytes, *, random: Callable[[int], bytes]) -> JoinToken:
    """Return a fresh token; ``random(n)`` must give n unpredictable bytes (``secrets.token_bytes``)."""
    letters = "".join(_ALPHABET[byte & 31] for byte in random(TOKEN_ID_CHARACTERS + SECRET_CHARACTERS))
    return JoinToken(kind, letters[:TOKEN_ID_CHARACTERS], letters[TOKEN_ID_CHARACTERS:], fingerprint)


def format_token(token: JoinToken) -> str:
    """Return the one line that a person copies: ``henge-join-1.<id>.<secret>.<fingerprint>.<checksum>``."""
    body = f"henge-{token.kind}-1.{token.id}.{token.secret}.{encode_base32(token.fingerprint)}"
    return f"{body}.{_checksum(body)}"


def parse_token(text: str) -> JoinToken:
    """Read a token; surrounding white space, case and the letters o, i, l for 0, 1, 1 are forgiven.

    Raises ``Malformed token_malformed`` saying what is wrong; the message never repeats the secret.
    """
    kind, parts = _token_parts(_plain_text(text))
    body = ".".join([f"henge-{kind}-1", *parts[:3]])
    if not hmac.compare_digest(_checksum(body), parts[3]):
        raise _bad_token("its checksum does not match, so a character is wrong")
    return JoinToken(kind, parts[0], parts[1], _decode(parts[2], FINGERPRINT_BYTES, "the token's fingerprint"))


def secret_hash(secret: str | bytes) -> bytes:
    """Return the SHA-256 under which a token's secret is stored; compare hashes in constant time.

    Raises ``Malformed token_malformed`` when the secret is not of a secret's form.
    """
    text = secret.decode("ascii", "replace") if isinstance(secret, bytes) else secret
    if not text.isascii() or len(text) != SECRET_CHARACTERS:
        raise _bad_token(f"its secret is not {SECRET_CHARACTERS} letters and digits")
    return hashlib.sha256(_canonical(text.lower(), "secret").encode("ascii")).digest()


def commitment(nonce: bytes, spki_der: bytes) -> bytes:
    """Return what a device commits to before it learns the daemon's nonce.

    ``spki_der`` is the SubjectPublicKeyInfo with the uncompressed point (91 bytes), as in the certificate.
    Raises ``Malformed join_mismatch`` when the nonce has not 32 bytes.
    """
    return hashlib.sha256(b"henge-commit-v1" + _nonce(nonce) + spki_der).digest()


def code(sid: str, nonce_device: bytes, nonce_server: bytes, spki_der: bytes, server_ca_fingerprint: bytes) -> str:
    """Return the eight digits that both sides show if, and only if, they talk to each other.

    ``sid`` is the join request's id as on the wire, the nonces have 32 bytes each, ``spki_der`` is the
    device's key as in ``commitment``, the fingerprint is SHA-256 of the server authority's certificate
    that the *device* was given.  Raises ``Malformed join_mismatch`` on a nonce of another length.
    """
    parts = (sid.encode("utf-8"), _nonce(nonce_device), _nonce(nonce_server), spki_der, server_ca_fingerprint)
    hashed = hashlib.sha256(b"henge-sas-v1" + b"".join(len(part).to_bytes(4, "big") + part for part in parts))
    return str(int.from_bytes(hashed.digest()[:8], "big") % 10**CODE_DIGITS).zfill(CODE_DIGITS)


def format_code(code: str) -> str:
    """Return the code as people read it: ``4711 0815``."""
    return f"{code[:4]} {code[4:]}"


def parse_code(text: str) -> str:
    """Return the eight digits of a code typed by a person; spaces and dashes are forgiven.

    Raises ``Malformed bad_code``.
    """
    digits = re.sub(r"[\s-]", "", text[:MAX_TOKEN_CHARACTERS])
    if not re.fullmatch(rf"[0-9]{{{CODE_DIGITS}}}", digits):
        raise Malformed(
            "bad_code",
            f"a join code has {CODE_DIGITS} digits like 4711 0815, not {len(digits)} characters of this kind",
            cure="read the code from the device's screen, console or log",
        )
    return digits


def is_id(text: str) -> bool:
    """Tell whether the text has the form of a fleet's or device's id (26 lower-case base32 letters)."""
    return _ID.fullmatch(text) is not None and _VALUES[text[-1]] & 3 == 0


def check_id(text: str, what: str) -> str:
    """Return the text if it is an id, else raise ``Invalid bad_name`` naming ``what`` it should identify."""
    if not is_id(text):
        raise Invalid("bad_name", f"{what} id is {text[:40]!r}; an id is {ID_CHARACTERS} letters and digits")
    return text


def encode_base32(data: bytes) -> str:
    """Return the bytes in Crockford's base32, lower case, most significant bit first, zero bits at the end."""
    letters = -(-len(data) * 8 // 5)
    number = int.from_bytes(data, "big") << (letters * 5 - len(data) * 8)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(letters * 5 - 5, -5, -5))


def _decode(text: str, size: int, what: str) -> bytes:
    letters = -(-size * 8 // 5)
    if not text.isascii() or len(text) != letters:
        raise Malformed("token_malformed", f"{what} has {len(text)} characters, {letters} are right")
    number = 0
    for letter in _canonical(text.lower(), what):
        number = number << 5 | _VALUES[letter]
    spare = letters * 5 - size * 8
    if number & ((1 << spare) - 1):
        raise Malformed("token_malformed", f"{what} ends in bits that should be zero", cure=_TOKEN_CURE)
    return (number >> spare).to_bytes(size, "big")


def _plain_text(text: str) -> str:
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise _bad_token(f"it has {len(text)} characters, at most {MAX_TOKEN_CHARACTERS} are looked at")
    stripped = text.strip()
    if not stripped:
        raise _bad_token("it is empty")
    if not stripped.isascii() or not stripped.isprintable():
        raise _bad_token("it has characters other than letters, digits, dots and hyphens")
    if " " in stripped:
        raise _bad_token("it has white space inside, perhaps from a wrapped line")
    return stripped.lower()


def _token_parts(text: str) -> tuple[TokenKind, list[str]]:
    head, *parts = text.split(".")
    kind = _kind(head)
    if len(parts) != len(_PART_LENGTHS):
        raise _bad_token(f"it has {len(parts)} parts after 'henge-{kind}-1', {len(_PART_LENGTHS)} are right")
    for part, (name, length) in zip(parts, _PART_LENGTHS.items(), strict=True):
        if len(part) != length:
            raise _bad_token(f"its {name} has {len(part)} characters, {length} are right")
    return kind, [_canonical(part, name) for part, name in zip(parts, _PART_LENGTHS, strict=True)]


def _kind(head: str) -> TokenKind:
    if head == "henge-join-1":
        return "join"
    if head == "henge-admin-1":
        return "admin"
    if re.fullmatch(r"henge-(join|admin)-[0-9]{1,4}", head):
        raise _bad_token("it is of a version that this program does not know", cure="update this program")
    raise _bad_token("it does not begin with 'henge-join-1.' or 'henge-admin-1.'")


def _canonical(text: str, name: str) -> str:
    if any(letter not in _VALUES for letter in text):
        raise _bad_token(f"its {name} has a character outside of base32 (no 'u', no punctuation)")
    return "".join(_ALPHABET[_VALUES[letter]] for letter in text)


def _checksum(body: str) -> str:
    """Twenty bits of CRC-32: no single wrong or doubled character passes (proved by the tests)."""
    number = binascii.crc32(body.encode("ascii")) & 0xFFFFF
    return "".join(_ALPHABET[number >> shift & 31] for shift in (15, 10, 5, 0))


def _nonce(nonce: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise Malformed("join_mismatch", f"a nonce has {NONCE_BYTES} bytes, this one {len(nonce)}")
    return nonce


def _bad_token(what: str, *, cure: str = _TOKEN_CURE) -> Malformed:
    return Malformed("token_malformed", f"the token is not usable: {what}", cure=cure)
