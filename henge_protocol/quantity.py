"""Durations, sizes and moments as people write them, with one exact grammar. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from henge_protocol.errors import Invalid

_DURATION = re.compile(r"(?:([0-9]{1,5})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)", re.ASCII)
_FACTOR: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def parse_duration_s(text: str, what: str = "duration") -> int:
    """Seconds in ``90s``, ``2h``, ``1d12h`` (units d, h, m, s in this order); ``Invalid`` otherwise."""
    match = _DURATION.fullmatch(text) if text else None
    if match is None:
        raise Invalid("bad_parameter", f"{what} {ascii(text)[:40]} is not of the form 90s, 15m, 2h or 1d12h")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def format_duration(seconds: float) -> str:
    """A short form for people: the two largest units, ``1h5m``, ``40s``."""
    rest = max(0, round(seconds))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def parse_size_bytes(text: str, what: str = "size") -> int:
    """Bytes in ``512B``, ``16KiB``, ``8MiB``, ``1GiB``; ``Invalid`` otherwise."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid("bad_parameter", f"{what} {ascii(text)[:40]} is not of the form 512B, 16KiB, 8MiB or 1GiB")
    return int(match[1]) * _FACTOR[match[2]]


def moment(unix_s: float) -> str:
    """RFC 3339 in UTC with whole seconds: one text for one moment, so that every reader hashes the same bytes."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
