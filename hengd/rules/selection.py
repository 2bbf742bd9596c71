"""Which of many selectors fit labels, without trying all of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from henge_protocol.selector import Selector, Term

T = TypeVar("T")


class Selection(Generic[T]):
    """Things chosen by selectors, found by the labels that one of their terms names.

    People have a group for each room, or for each device: trying every group on every device takes seconds for some
    thousands of both, and the writer has nothing else to do meanwhile.
    """

    def __init__(self, entries: Iterable[tuple[Selector, T]]) -> None:
        self._entries = list(entries)
        self._named: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._others: list[int] = []
        """Places of those that name no value: they have to be tried."""
        for place, (selector, _) in enumerate(self._entries):
            term = _naming(selector)
            if term is None:
                self._others.append(place)
            else:
                for value in term.values:
                    self._named[term.key, value].append(place)

    def matching(self, labels: Mapping[str, str]) -> list[T]:
        """What is selected, in the order in which it was given."""
        return [thing for selector, thing in self._likely(labels) if selector.matches(labels)]

    def is_matched(self, labels: Mapping[str, str]) -> bool:
        """Whether anything is selected."""
        return any(selector.matches(labels) for selector, _ in self._likely(labels))

    def _likely(self, labels: Mapping[str, str]) -> list[tuple[Selector, T]]:
        places = list(self._others)
        for label in labels.items():
            places += self._named.get(label, ())
        return [self._entries[place] for place in sorted(places)]


def _naming(selector: Selector) -> Term | None:
    """The first term that only labels with certain values meet."""
    return next((term for term in selector.terms if term.operator == "in"), None)
