"""The chain of audit records: each carries the SHA-256 of the one before, so that none can be changed unnoticed. Pure.

The daemon writes the chain, ``hengectl audit verify`` computes it anew from what it is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from henge_protocol.errors import Malformed
from henge_protocol.strictjson import canonical

BEGINNING: Final = "0" * 64
"""What the first record carries, there being none before it."""


@dataclass(frozen=True, slots=True)
class Link:
    """A record by number and digest; ``(0, BEGINNING)`` stands before the first."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"


START: Final = Link(0, BEGINNING)


def parse_link(text: str) -> Link:
    """Read ``17:3f2a...`` as ``Link`` prints it; ``Malformed`` otherwise."""
    number, _, digest = text.partition(":")
    if not (number.isascii() and number.isdigit() and len(number) <= 15 and len(digest) == len(BEGINNING)):
        raise Malformed("bad_parameter", f"{ascii(text)[:80]} is not of the form NUMBER:SHA-256")
    return Link(int(number), digest)


def record_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record's one spelling, in lower-case hex."""
    return hashlib.sha256(canonical(dict(record))).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of verifying: how many records, the last one, and what is wrong (empty: nothing)."""

    count: int
    last: Link
    fault: str = ""


def verify(records: Iterable[Mapping[str, Any]], anchor: Link, *, head: Link, known: Link | None = None) -> Verdict:
    """Follow the chain from ``anchor``, the last record before those given, to ``head``.

    The first fault ends it; it names the record that breaks the chain: the one whose content is not what its
    neighbours say. ``known`` is a link noted earlier: it must still be in the chain.
    """
    found = list(records)
    links = [anchor]
    for place, record in enumerate(found):
        if record.get("number") != links[-1].number + 1:
            missing = links[-1].number + 1
            return Verdict(place, links[-1], f"record {missing} is missing; {record.get('number')} is in its place")
        if record.get("previous") != links[-1].digest:
            return Verdict(place, links[-1], _broken(found, place, anchor, head))
        links.append(Link(links[-1].number + 1, record_digest(record)))
    last = links[-1]
    if last.number != head.number:
        return Verdict(len(found), last, f"record {last.number + 1} is missing, the newest should be {head.number}")
    if last.digest != head.digest:
        return Verdict(len(found), last, f"record {last.number} was changed: its digest is not the chain's end")
    return Verdict(len(found), last, _unknown(links, known))


def _broken(found: list[Mapping[str, Any]], place: int, anchor: Link, head: Link) -> str:
    """Which of two neighbours that do not fit was changed: the later one if it does not fit to the next one either."""
    number, own = anchor.number + place + 1, record_digest(found[place])
    following = found[place + 1].get("previous") if place + 1 < len(found) else head.digest
    culprit = number if following != own else number - 1
    if culprit == anchor.number:
        return f"record {number} is not chained to what stood before it: older records were changed before they went"
    return f"record {culprit} was changed: it does not fit into the chain"


def _unknown(links: list[Link], known: Link | None) -> str:
    if known is None or known in links:
        return ""
    if known.number < links[0].number:
        return f"record {known.number} is not kept any more; the oldest that can be compared is {links[0].number}"
    return f"record {known.number} is not what it was when its digest was noted"
