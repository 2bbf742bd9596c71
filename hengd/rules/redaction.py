"""Taking secrets out of what devices say: a hook prints its configuration, and a report repeats it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from hengd.rules.merge import is_reference

HIDDEN: Final = "[secret]"
LEAST_CHARS: Final = 4
"""Shorter secrets are taken out only where they are all that was said: they stand in too many words."""
PART_CHARS: Final = 5


@dataclass(frozen=True, slots=True)
class SecretTexts:
    """How the secrets of a document could be repeated, made to be looked for: made once, asked for every message."""

    whole: frozenset[str] = frozenset()
    parts: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """By length: all parts of ``PART_CHARS``, and secrets that are shorter."""

    def __bool__(self) -> bool:
        return bool(self.whole)

    @property
    def size(self) -> int:
        """How many texts are kept."""
        return len(self.whole) + sum(map(len, self.parts.values()))


def secret_texts(exact: Any, shown: Any) -> SecretTexts:
    """The texts by which the secrets of a document could be repeated.

    ``exact`` is the document with its secrets, ``shown`` the same with references in their place.
    """
    whole = frozenset(form for value in _secrets(exact, shown) for form in _forms(value))
    parts: dict[int, set[str]] = {}
    for text in whole:
        size = min(PART_CHARS, len(text))
        if size >= LEAST_CHARS:
            parts.setdefault(size, set()).update(text[at : at + size] for at in range(len(text) - size + 1))
    return SecretTexts(whole, {size: frozenset(found) for size, found in parts.items()})


def without(text: str, *secrets: SecretTexts) -> str:
    """``text`` with the secrets in it hidden, and every part of one of ``PART_CHARS``: what is said may be cut.

    Takes as long as ``text`` is, however much there is to hide.
    """
    if any(text.strip() in one.whole for one in secrets):
        return HIDDEN
    covered = [False] * len(text)
    for one in secrets:
        for size, parts in one.parts.items():
            for at in range(len(text) - size + 1):
                if text[at : at + size] in parts:
                    covered[at : at + size] = [True] * size
    runs = groupby(zip(text, covered, strict=True), key=lambda pair: pair[1])
    return "".join(HIDDEN if is_secret else "".join(char for char, _ in run) for is_secret, run in runs)


def without_number(value: float, *secrets: SecretTexts) -> float | str:
    """``value``, hidden if it is a secret itself of at least ``LEAST_CHARS`` digits."""
    text = json.dumps(value)
    is_secret = not isinstance(value, bool) and len(text) >= LEAST_CHARS and any(text in one.whole for one in secrets)
    return HIDDEN if is_secret else value


def _secrets(exact: Any, shown: Any) -> Iterator[object]:
    if is_reference(shown):
        yield from _leaves(exact)
    elif isinstance(shown, dict):
        for key, inner in shown.items():
            yield from _secrets(exact[key], inner)
    elif isinstance(shown, list):
        for one, other in zip(exact, shown, strict=True):
            yield from _secrets(one, other)


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif not isinstance(value, bool) and value is not None:
        yield value


def _forms(value: object) -> Iterator[str]:
    """As it is, in one line, line by line, and as JSON writes it, with and without other alphabets escaped."""
    text = value if isinstance(value, str) else json.dumps(value)
    forms = [text, text.strip(), " ".join(text.split()), *(line.strip() for line in text.splitlines())]
    forms += [json.dumps(text, ensure_ascii=escaped)[1:-1] for escaped in (False, True)]
    yield from (form for form in forms if form)
