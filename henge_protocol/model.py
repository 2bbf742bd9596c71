"""The nouns that both sides of the wire use: names, digests, versions, states, kinds. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal

from henge_protocol.errors import Invalid

API_VERSION: Final = "henge/v1"

MAX_NAME_CHARS: Final = 63
"""One DNS label (RFC 1035 2.3.4), so that a name can become part of a host name."""

MAX_DOCUMENT_BYTES: Final = 16 * 1024
"""Largest document by default; a Pico W can apply it from a 96 KB heap."""

MAX_SCHEMA_BYTES: Final = 256 * 1024
"""The daemon takes no larger schema."""

MAX_RESCUED_SCHEMA_BYTES: Final = 64 * 1024
"""The largest that a device may hand in beside its document."""

MAX_LISTED: Final = 1000
"""Things in one answer that lists them, whoever asks for more."""

NAME_PATTERN: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
SECRET_NAME_PATTERN: Final = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?(?:/[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?)*"
"""Of each word; the whole has ``MAX_SECRET_NAME_CHARS`` at most."""
VERSION_TAG_PATTERN: Final = r'"[0-9a-z]{1,32}\.[0-9]{1,15}"'

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_SECRET_NAME = re.compile(SECRET_NAME_PATTERN, re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_VERSION_TAG = re.compile(VERSION_TAG_PATTERN, re.ASCII)

MAX_SECRET_NAME_CHARS: Final = 128
SECRET_KEY: Final = "$secret"
"""The one member of an object that stands in values for a secret: ``{"$secret": "wifi/home"}``."""

PLURALS: Final = {"Schema": "schemas", "Group": "groups", "Device": "devices"}
"""Kinds of objects that can be applied, and their path segment in the API."""

ROLES: Final = ("viewer", "editor", "admin")
"""What operators may do, each more than the one before: read; change configuration; decide who belongs."""

Connection = Literal["never-seen", "online", "asleep", "offline"]
Configuration = Literal[
    "in-sync", "pending", "applying", "rejected", "rolled-back", "quarantined", "drifted", "ahead", "unknown"
]

REPORT_STATES: Final = frozenset({"none", "applying", "applied", "rejected", "rolled-back", "drifted", "checked"})
FINAL_STATES: Final = frozenset({"applied", "rejected", "rolled-back", "checked"})
"""A delivery is over when the device says one of these about its digest."""

INTENTS: Final = frozenset({"apply", "check"})


def is_name(text: object) -> bool:
    """Whether ``text`` may name an object: a lower-case DNS label in ASCII."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def check_name(text: object, what: str = "name") -> str:
    """Return ``text`` if it may name an object, else raise ``Invalid`` ``bad_name``."""
    if is_name(text):
        return str(text)
    shown = ascii(text)[:80]
    raise Invalid(
        "bad_name",
        f"{what} {shown} is not of the form a-z, 0-9 and inner hyphens, 1 to {MAX_NAME_CHARS} characters",
        cure="choose a name such as lamp-1",
    )


def is_secret_name(text: object) -> bool:
    """Whether ``text`` may name a secret: lower-case words with inner ``. _ -``, parted by slashes."""
    return isinstance(text, str) and len(text) <= MAX_SECRET_NAME_CHARS and _SECRET_NAME.fullmatch(text) is not None


def check_secret_name(text: object) -> str:
    """Return ``text`` if it may name a secret, else raise ``Invalid`` ``bad_name``."""
    if is_secret_name(text):
        return str(text)
    raise Invalid(
        "bad_name",
        f"{ascii(text)[:80]} is not the name of a secret: a-z, 0-9 and inner . _ - in words parted by /, "
        f"1 to {MAX_SECRET_NAME_CHARS} characters",
        cure="choose a name such as wifi/home",
    )


def version_tag(epoch: str, revision: int) -> str:
    """The version of an object, or of the whole fleet, as ``ETag`` and ``If-Match`` carry it."""
    return f'"{epoch}.{revision}"'


def is_version_tag(text: str) -> bool:
    """Whether ``text`` has the form of a ``version_tag``."""
    return _VERSION_TAG.fullmatch(text) is not None


def digest_of(document: bytes) -> str:
    """SHA-256 of exactly these bytes, in lower-case hex."""
    return hashlib.sha256(document).hexdigest()


def is_digest(text: object) -> bool:
    """Whether ``text`` is a digest in its one spelling."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def short_digest(digest: str) -> str:
    """The form for tables and logs: the first 12 hex characters."""
    return digest[:12] or "-"
