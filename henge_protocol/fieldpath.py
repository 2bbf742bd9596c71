"""How a field is addressed: people write ``wifi.ssid``, the API the JSON pointer ``/wifi/ssid`` (RFC 6901). Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from henge_protocol.errors import Invalid
from henge_protocol.strictjson import LIMITS

Path = tuple[str, ...]
"""The keys that lead to a field. A list is one value: there are no paths into lists."""

_NOT_DOTTED: Final = frozenset(".~[]")
"""What no key has that is written with dots; of an escaped key."""


def parse_path(text: str) -> Path:
    """Read a field's address: ``wifi.ssid``, or a JSON pointer ``/wifi/ssid`` for keys that hold a dot.

    Raises ``Invalid`` ``bad_path``.
    """
    path = tokens(text) if text.startswith("/") else tuple(text.split("."))
    if len(path) >= LIMITS.max_depth:
        raise _bad_path(text, f"it is deeper than {LIMITS.max_depth - 1} levels")
    for key in path:
        _check_key(key, text)
    return path


def pointer(path: Sequence[str | int]) -> str:
    """Write a path as JSON pointer (RFC 6901); the empty path is the whole value, ``""``."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def tokens(text: str) -> Path:
    """Read a JSON pointer, the inverse of ``pointer``; raises ``Invalid`` ``bad_path`` for a wrong escape."""
    return tuple(map(_unescaped, text[1:].split("/"))) if text else ()


def field_of(text: str) -> str:
    """A JSON pointer as people write the field, so that ``parse_path`` reads the same field back; never raises.

    ``/wifi/ssid`` is ``wifi.ssid``; a pointer with a key that cannot stand between dots stays a pointer.
    """
    keys = text.split("/")[1:]
    dotted = all(key and not _NOT_DOTTED.intersection(key) for key in keys)
    return ".".join(keys) if dotted and text.startswith("/") else text


def unclean_names(value: object) -> Iterator[tuple[str | int, ...]]:
    """Where names with control characters stand, at any depth: no program can be told such a name."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        if isinstance(key, str) and not is_clean(key):
            yield (key,)
        yield from ((key, *below) for below in unclean_names(item))


def twin_names(value: object) -> Iterator[tuple[str | int, ...]]:
    """Where names stand that look like another one beside them, at any depth: accents are put otherwise."""
    seen: set[str] = set()
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        if isinstance(key, str):
            looks = unicodedata.normalize("NFC", key)
            if looks in seen:
                yield (key,)
            seen.add(looks)
        yield from ((key, *below) for below in twin_names(item))


def is_clean(name: str) -> bool:
    """Whether a name has neither control characters nor half a surrogate pair."""
    return not any(unicodedata.category(char) in ("Cc", "Cs") for char in name)


def _unescaped(token: str) -> str:
    if "~" in token.replace("~0", "").replace("~1", ""):
        raise _bad_path(token, "in a JSON pointer '~' is written '~0' and '/' is written '~1'")
    return token.replace("~1", "/").replace("~0", "~")


def _check_key(key: str, text: str) -> None:
    if not key:
        raise _bad_path(text, "a key is empty")
    if not key.isprintable() or key != key.strip():
        raise _bad_path(text, "a key has control characters or spaces around it")
    if len(key.encode("utf-8", "surrogatepass")) > LIMITS.max_key_bytes:
        raise _bad_path(text, f"a key is longer than {LIMITS.max_key_bytes} bytes")
    if not text.startswith("/") and ("[" in key or "]" in key):
        raise _bad_path(text, "a list is one value and has no paths into it")


def _bad_path(text: str, why: str) -> Invalid:
    shown = ascii(text if len(text) <= 80 else text[:80] + "...")
    return Invalid(
        "bad_path",
        f"{shown} is not the path of a field: {why}",
        cure="write keys with dots between them, as in wifi.ssid, or a JSON pointer, as in /wifi/ssid",
    )
