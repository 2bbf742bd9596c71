"""What requests carry, as checked values: bodies, queries, headers. Raises our errors only."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from henge_protocol.errors import Invalid, Malformed, Misdirected, TimedOut, TooLarge, UnsupportedMedia
from henge_protocol.model import check_name, is_version_tag
from henge_protocol.strictjson import LIMITS, JsonLimits, parse

APPLY_LIMITS: Final = replace(LIMITS, max_nodes=200_000, max_depth=LIMITS.max_depth + 2)
"""A whole fleet in one change, two levels further inside: its size is limited by the body's bytes and the number of
objects, each of which keeps to the usual limits by itself."""
MAX_BODY_BYTES: Final = 1024 * 1024
BODY_TIMEOUT_S: Final = 30.0
MAX_WAIT_S: Final = 55
"""Shorter than the minute after which many routers forget a silent connection."""

_JSON_TYPES: Final = frozenset({"application/json", "application/merge-patch+json"})
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_TRUE: Final = frozenset({"", "1", "true"})
_FALSE: Final = frozenset({"0", "false"})


async def json_body(request: web.Request, *, max_bytes: int = MAX_BODY_BYTES, limits: JsonLimits = LIMITS) -> object:
    """The body as strict JSON."""
    return parse(await body_bytes(request, max_bytes=max_bytes), limits=limits)


async def body_bytes(request: web.Request, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The body's bytes within limits of type, size and time."""
    _check_media(request)
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while chunk := await request.content.readany():
                read += chunk
                if len(read) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise TimedOut("request_timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise Malformed("bad_request", f"the body is cut or badly framed ({ascii(str(error))[:100]})") from None
    return bytes(read)


async def json_object(
    request: web.Request, fields: Iterable[str], *, max_bytes: int = MAX_BODY_BYTES, limits: JsonLimits = LIMITS
) -> dict[str, Any]:
    """The body as a JSON object that has no other fields than ``fields``."""
    value = await json_body(request, max_bytes=max_bytes, limits=limits)
    known = tuple(fields)
    if not isinstance(value, dict):
        raise Invalid("bad_object", "the body is not a JSON object")
    for key in value:
        if key not in known:
            raise Invalid("unknown_field", f"field {ascii(key)[:60]} is unknown; known are {', '.join(known)}")
    return value


def text_field(body: dict[str, Any], name: str, *, default: str | None = "", max_chars: int = 256) -> str:
    """A text of the body; required where ``default`` is None."""
    value = body.get(name, default)
    if not isinstance(value, str) or len(value) > max_chars:
        raise Invalid("bad_object", f"{name} is not a text of at most {max_chars} characters")
    return value


def flag_field(body: dict[str, Any], name: str, *, default: bool | None = False) -> bool:
    """A truth value of the body; required where ``default`` is None."""
    value = body.get(name, default)
    if type(value) is not bool:
        raise Invalid("bad_object", f"{name} is neither true nor false")
    return value


def hex_field(body: dict[str, Any], name: str, size: int) -> bytes:
    """Bytes that the body carries in hex."""
    try:
        value = bytes.fromhex(text_field(body, name, default=None))
    except ValueError:
        raise Malformed("bad_request", f"{name} is not hex") from None
    if len(value) != size:
        raise Malformed("bad_request", f"{name} has {len(value)} bytes, {size} are expected")
    return value


def base64_field(body: dict[str, Any], name: str, *, max_chars: int = 8192, code: str = "bad_csr") -> bytes:
    """Bytes that the body carries in base64 (RFC 4648 section 4, strict); ``Malformed`` ``code`` otherwise."""
    text = text_field(body, name, default=None, max_chars=max_chars)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(code, f"{name} is not base64") from None


def facts_field(body: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """What a device says of itself: at most 32 plain entries, shown to people.

    One decides something: ``schema`` is what a device wishes for that joins and is told none.
    """
    facts = body.get("facts", {})
    if not isinstance(facts, dict) or len(facts) > 32:
        raise Invalid("bad_object", "facts is not an object of at most 32 entries")
    for key, value in facts.items():
        if len(key) > 64 or not isinstance(value, str | int | float | bool) or len(str(value)) > 128:
            raise Invalid("bad_object", "facts are texts of at most 128 characters, numbers or booleans")
    return facts


class Query:
    """The query of a request; parameters that the route does not know are refused, and so are repeated ones."""

    def __init__(self, request: web.Request, *known: str) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.query.items():
            if name not in known or name in self._values:
                raise Malformed(
                    "unknown_parameter",
                    f"query parameter {ascii(name)[:60]} is "
                    + ("given twice" if name in known else f"unknown; known are {', '.join(known) or 'none'}"),
                )
            self._values[name] = value

    def text(self, name: str, default: str = "", *, max_chars: int = 1024) -> str:
        """A text parameter."""
        value = self._values.get(name, default)
        if len(value) > max_chars or any("\ud800" <= char <= "\udfff" for char in value):
            raise Malformed("bad_parameter", f"query parameter {name} is longer than {max_chars} or not UTF-8")
        return value

    def number(self, name: str, default: int, *, least: int = 0, most: int = 10**15) -> int:
        """A whole number in ASCII digits."""
        text = self._values.get(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise Malformed("bad_parameter", f"{name}={ascii(text)[:40]} is not a whole number from {least} to {most}")
        return int(text)

    def has(self, name: str) -> bool:
        """Whether the parameter is given."""
        return name in self._values

    def flag(self, name: str) -> bool:
        """``1``, ``true`` or empty is yes; ``0``, ``false`` or absent is no."""
        text = self._values.get(name, "0").lower()
        if text not in _TRUE | _FALSE:
            raise Malformed("bad_parameter", f"{name}={ascii(text)[:40]} is neither 1 nor 0")
        return text in _TRUE


def name_of(request: web.Request, what: str = "name") -> str:
    """The name in the path; ``Invalid`` ``bad_name`` if it cannot be one."""
    return check_name(request.match_info["name"], what)


def no_body(request: web.Request) -> None:
    """Refuse a body where none belongs."""
    if request.can_read_body:
        raise Malformed("body_refused", f"{request.method} takes no body here")


def if_match(request: web.Request) -> str | None:
    """The one version that a change replaces, ``*``, or None if the caller names none."""
    values = request.headers.getall("If-Match", ())
    if not values:
        return None
    value = values[0].strip()
    if len(values) > 1 or not (value == "*" or is_version_tag(value)):
        raise Malformed("bad_parameter", f"If-Match {ascii(value)[:60]} is not one ETag of ours, nor *")
    return value


def _check_media(request: web.Request) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("unsupported_media", "bodies must not be content-encoded")
    content_type = request.headers.get("Content-Type", "")
    media, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media.strip().lower() not in _JSON_TYPES or charset not in ("", "utf-8"):
        raise UnsupportedMedia(
            "unsupported_media",
            f"Content-Type {ascii(content_type)[:60]} is not application/json in UTF-8",
            cure="send -H 'Content-Type: application/json'",
        )


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge("too_large", f"the body exceeds {max_bytes} bytes")


def refuse_host(request: web.Request, allowed: Callable[[str], bool]) -> None:
    """On the plain local port: only names of this machine, so that no web page reaches it by DNS rebinding."""
    host = request.headers.get("Host", "")
    if not allowed(host):
        raise Misdirected("wrong_host", f"host {ascii(host)[:80]} is not served here", cure="use http://127.0.0.1")
