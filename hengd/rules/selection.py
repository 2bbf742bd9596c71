"""Which of many selectors fit labels, without trying all of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from henge_protocol.selector import Selector

T = TypeVar("T")


@dataclass(slots=True)
class _Key:
    """What selectors say about one label. Each number is a set of selectors: bit n stands for the n-th."""

    bound: int = 0
    """Those that want certain values."""
    wanted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By value, those of ``bound`` that take it."""
    unwanted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By value, those that refuse it."""
    absent: int = 0
    """Those that refuse every value."""
    needed: int = 0
    """Those that refuse labels without this one."""

    def refusing(self, value: str) -> int:
        """Those that refuse labels with this value."""
        return self.bound & ~self.wanted.get(value, 0) | self.unwanted.get(value, 0) | self.absent


class Selection(Generic[T]):
    """Things chosen by selectors. A look costs some steps for each label, however many selectors and terms there are.

    People have a group for each room, or for each device: trying every term of every group on every device takes
    seconds for some thousands of both, and the writer has nothing else to do meanwhile.
    """

    def __init__(self, entries: Iterable[tuple[Selector, T]]) -> None:
        self._things: list[T] = []
        self._keys: defaultdict[str, _Key] = defaultdict(_Key)
        self._lacking: dict[frozenset[str], int] = {}
        """By the labels that are there, whatever their values: who needs another one. Fleets have few such sets."""
        for place, (selector, thing) in enumerate(entries):
            self._things.append(thing)
            self._add(1 << place, selector)
        self._all = (1 << len(self._things)) - 1

    def matching(self, labels: Mapping[str, str]) -> list[T]:
        """What is selected, in the order in which it was given."""
        return [self._things[place] for place in _places(self._matched(labels))]

    def is_matched(self, labels: Mapping[str, str]) -> bool:
        """Whether anything is selected."""
        return self._matched(labels) != 0

    def _add(self, bit: int, selector: Selector) -> None:
        values: dict[str, frozenset[str]] = {}
        for term in selector.terms:
            key = self._keys[term.key]
            match term.operator:
                case "in":
                    values[term.key] = values.get(term.key, term.values) & term.values
                case "notin":
                    for value in term.values:
                        key.unwanted[value] |= bit
                case "exists":
                    key.needed |= bit
                case _:
                    key.absent |= bit
        for name, wanted in values.items():
            key = self._keys[name]
            key.bound |= bit
            key.needed |= bit
            for value in wanted:
                key.wanted[value] |= bit

    def _matched(self, labels: Mapping[str, str]) -> int:
        refusing = self._refusing_without(frozenset(labels))
        for name, value in labels.items():
            if name in self._keys:
                refusing |= self._keys[name].refusing(value)
        return self._all & ~refusing

    def _refusing_without(self, names: frozenset[str]) -> int:
        refusing = self._lacking.get(names)
        if refusing is None:
            refusing = 0
            for name, key in self._keys.items():
                if name not in names:
                    refusing |= key.needed
            self._lacking[names] = refusing
        return refusing


def _places(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
