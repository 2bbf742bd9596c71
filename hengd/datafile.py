"""The store's file, looked at before the engine maps it.

LMDB trusts its file: a page that is cut off ends the process with SIGBUS, a bent bit in a meta page can abort it or
make it reuse pages that are in use. So the whole structure is walked by plain reads first (half a second for
100,000 revisions); what the records say is guarded by their checksums.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final, NamedTuple

from lmdb.verify import VerifyError, verify

from hengd.room import disk_refusal
from henge_protocol.errors import Internal

_CURE: Final = "put the newest backup of the data folder in its place; nothing was changed"
_PAGE_HEADER_BYTES: Final = 16
_META: Final = struct.Struct("=II Q Q IHH5Q IHH5Q Q Q")
"""LMDB 0.9, 64 bits: magic, version, address, map size, databases of free pages and of names, last page, number."""
_ENGINE: Final = (0xBEEFC0DE, 1)
_FLAGS: Final = 0x08
"""Of the database of free pages: integer keys. It would also carry flags of the environment; we set none."""

_SHORTENED: Final = re.compile(r"header mp_pages (?P<held>\d+) != OVPAGES\(\d+\)=(?P<needed>\d+)")
_AFTER_SHORTENING: Final = re.compile(
    r"walked (?P<walked>\d+) overflow pages, record says (?P<claimed>\d+)"
    r"|^(?P<leaked>\d+) page\(s\) are neither reachable nor in the freeDB"
    r"|further errors suppressed"
)
"""What the walk takes for damage and is none: the engine leaves a long value its pages when the transaction that wrote
it writes a shorter one in its place."""


class _Meta(NamedTuple):
    page_bytes: int
    flags: int
    main_pad: int
    main_flags: int
    last_page: int
    number: int


def check_file(file: Path) -> None:
    """Refuse a data file that is not whole, so that it is neither mapped nor made anew.

    One fault is beyond it: bit 1 of a commit's number, after which the store is, whole, as it was one commit before.
    Raises ``Internal``: ``storage_foreign`` for what is no file of this engine, ``storage_corrupt`` for what is cut
    off or damaged; ``disk_refusal`` if it cannot be read.
    """
    try:
        faults = _without_spare_pages(verify(str(file), subdir=False)) or _faults(file)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        raise Internal("storage_foreign", f"{file} is not a store of henge ({error})", cure=_CURE) from None
    except OSError as error:
        raise disk_refusal(error, f"{file} cannot be read") from error
    if faults:
        raise Internal("storage_corrupt", f"{file} is damaged or cut off ({faults[0]})", cure=_CURE)


def _without_spare_pages(found: list[str]) -> list[str]:
    """The faults but those that come from values which were shortened, if these explain each other."""
    held = [match for match in map(_SHORTENED.search, found) if match is not None]
    spare = [int(match["held"]) - int(match["needed"]) for match in held]
    if not held or min(spare) < 0:
        return found
    rest = [fault for fault in found if not _SHORTENED.search(fault)]
    follows = [match for match in map(_AFTER_SHORTENING.search, rest) if match is not None]
    claimed = sum(int(match["claimed"]) - int(match["walked"]) for match in follows if match["claimed"])
    leaked = sum(int(match["leaked"]) for match in follows if match["leaked"])
    is_whole = not any("suppressed" in fault for fault in rest)
    if is_whole and (claimed, leaked) != (sum(spare), sum(spare)):
        return found
    return [fault for fault in rest if not _AFTER_SHORTENING.search(fault)]


def _faults(file: Path) -> list[str]:
    """What the walk takes for possible and the engine does not survive, or would never have written itself."""
    with open(file, "rb") as data:
        first = _read_meta(data.read(_PAGE_HEADER_BYTES + _META.size))
        data.seek(first.page_bytes)
        second = _read_meta(data.read(_PAGE_HEADER_BYTES + _META.size))
        size = data.seek(0, 2)
    newest = max(first, second, key=lambda meta: meta.number)
    wanted = (newest.last_page + 1) * newest.page_bytes
    checks = {
        f"it has {size} bytes, {wanted} are in use": size >= wanted,
        "its last two commits do not follow each other": abs(first.number - second.number) <= 1,
        "its flags are not those of henge": (newest.flags, newest.main_flags, newest.main_pad) == (_FLAGS, 0, 0),
    }
    return [fault for fault, is_good in checks.items() if not is_good]


def _read_meta(page: bytes) -> _Meta:
    fields = _META.unpack_from(page, _PAGE_HEADER_BYTES)
    if fields[:2] != _ENGINE:
        raise VerifyError(f"it is not of version {_ENGINE[1]} of LMDB's format")
    return _Meta(fields[4], fields[5], fields[12], fields[13], fields[20], fields[21])
