"""Taking secrets out of what devices say: a hook prints its configuration, and a report repeats it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from hengd.rules.merge import is_reference

HIDDEN: Final = "[secret]"
LEAST_CHARS: Final = 4
"""Shorter secrets are taken out only where they are all that was said: they stand in too many words."""
PART_CHARS: Final = 5


def secret_texts(exact: Any, shown: Any) -> list[str]:
    """The texts by which the secrets of a document could be repeated, the longest first.

    ``exact`` is the document with its secrets, ``shown`` the same with references in their place.
    """
    return sorted({form for value in _secrets(exact, shown) for form in _forms(value)}, key=len, reverse=True)


def without(text: str, secrets: Sequence[str]) -> str:
    """``text`` with the secrets in it hidden, and every part of one of ``PART_CHARS``: what is said may be cut."""
    if text.strip() in secrets:
        return HIDDEN
    covered = [False] * len(text)
    for secret in secrets:
        if len(secret) >= LEAST_CHARS:
            _cover(text, secret, covered)
    runs = groupby(zip(text, covered, strict=True), key=lambda pair: pair[1])
    return "".join(HIDDEN if is_secret else "".join(char for char, _ in run) for is_secret, run in runs)


def without_number(value: float, secrets: Sequence[str]) -> float | str:
    """``value``, hidden if it is a secret itself of at least ``LEAST_CHARS`` digits."""
    text = json.dumps(value)
    return HIDDEN if len(text) >= LEAST_CHARS and not isinstance(value, bool) and text in secrets else value


def _cover(text: str, secret: str, covered: list[bool]) -> None:
    size = min(PART_CHARS, len(secret))
    parts = {secret[at : at + size] for at in range(len(secret) - size + 1)}
    for at in range(len(text) - size + 1):
        if text[at : at + size] in parts:
            covered[at : at + size] = [True] * size


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
