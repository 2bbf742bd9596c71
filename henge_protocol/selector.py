"""Label selectors: ``room=kitchen,kind!=spare,zone in (a,b),tier notin (x),battery,!mains``. Pure.

One parser for groups, ``?selector=`` and ``-l``. The empty selector selects everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from henge_protocol.errors import Invalid

MAX_SELECTOR_CHARS: Final = 1024
MAX_LABELS: Final = 32
MAX_TERMS: Final = 64
"""Twice as many as there can be labels; for many values of one label there are ``in`` and ``notin``."""
CACHED: Final = 1024
"""Every change reads the selectors of all groups."""

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
_LABEL_KEY = re.compile(_KEY, re.ASCII)
_LABEL_VALUE = re.compile(_VALUE, re.ASCII)
_TERM = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<akey>{_KEY})"
    rf"|(?P<key>{_KEY})(?:\s*(?P<op>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label; ``operator`` is in, notin, exists or absent."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` meet this condition; ``notin`` also holds where the label is absent."""
        match self.operator:
            case "in":
                return labels.get(self.key) in self.values
            case "notin":
                return labels.get(self.key) not in self.values
            case "exists":
                return self.key in labels
            case _:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that must all hold."""

    terms: tuple[Term, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether all terms hold for ``labels``."""
        return all(term.matches(labels) for term in self.terms)


@lru_cache(maxsize=CACHED)
def parse_selector(text: str) -> Selector:
    """Read a selector; ``Invalid`` ``bad_selector`` names the place where reading stopped."""
    if len(text) > MAX_SELECTOR_CHARS:
        raise Invalid("bad_selector", f"selector has {len(text)} characters, at most {MAX_SELECTOR_CHARS} are read")
    terms = tuple(_terms(text)) if text.strip() else ()
    if len(terms) > MAX_TERMS:
        cure = "take several values of one label together: zone in (a,b), zone notin (a,b)"
        raise Invalid("bad_selector", f"selector has {len(terms)} terms, at most {MAX_TERMS} are read", cure=cure)
    return Selector(terms)


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that no selector could name; ``Invalid`` ``bad_object``."""
    if len(labels) > MAX_LABELS:
        raise Invalid("bad_object", f"{len(labels)} labels are given, at most {MAX_LABELS} are kept")
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None or _LABEL_VALUE.fullmatch(value) is None:
            raise Invalid(
                "bad_object",
                f"label {ascii(key)[:70]}={ascii(value)[:70]} is not of the form key=value with letters, digits, - _ .",
                cure="write for example room=kitchen",
            )


def _terms(text: str) -> Iterator[Term]:
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or match.end() == position:
            raise _unreadable(text, position)
        yield _term(match, text)
        position = match.end()
    if text.rstrip().endswith(","):
        raise _unreadable(text, len(text))


def _term(match: re.Match[str], text: str) -> Term:
    if match["absent"]:
        return Term(match["akey"], "absent")
    if match["op"]:
        return Term(match["key"], "notin" if match["op"] == "!=" else "in", frozenset({match["value"]}))
    if match["set"]:
        return Term(match["key"], match["set"], _values(match["values"], text, match.start("values")))
    return Term(match["key"], "exists")


def _values(listed: str, text: str, position: int) -> frozenset[str]:
    values = [value.strip() for value in listed.split(",")]
    if not all(value and _LABEL_VALUE.fullmatch(value) for value in values):
        raise _unreadable(text, position)
    return frozenset(values)


def _unreadable(text: str, position: int) -> Invalid:
    return Invalid(
        "bad_selector",
        f"selector {ascii(text)[:120]} cannot be read from character {position + 1}",
        cure="write for example room=kitchen,kind!=spare,zone in (a,b),battery,!mains",
    )
