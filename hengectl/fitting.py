"""Fitting a table into a terminal: nothing is lost, what has no room continues on the next line. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def width_of(text: str) -> int:
    """Columns that a text takes: East Asian wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def fitted(widths: Sequence[int], floors: Sequence[int], room: int) -> list[int]:
    """Narrower widths that take ``room`` columns together: the widest give way first, the first column last.

    None becomes less than its floor; empty if there is no way.
    """
    used = list(widths)
    excess = sum(used) - room
    for columns in (range(1, len(used)), range(1)):
        while excess > 0 and (wide := [column for column in columns if used[column] > floors[column]]):
            used[max(wide, key=used.__getitem__)] -= 1
            excess -= 1
    return [] if excess > 0 else used


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most ``width`` columns, broken at spaces and behind commas where there are any."""
    lines: list[str] = []
    if width_of(text) > width:
        text = text.lstrip(" ")
    while width_of(text) > width:
        end = fitting(text, width)
        space = end if text[end : end + 1] == " " else text.rfind(" ", 1, end)
        cut = max(space, text.rfind(",", 0, end) + 1)
        cut = cut if cut > 0 else end
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip(" ")
    return [*lines, text]


def longest_word(text: str) -> int:
    """Columns of the longest part that ``wrapped`` leaves whole where it can."""
    return max(map(width_of, text.replace(",", ", ").split()), default=0)


def fitting(text: str, width: int) -> int:
    """How many characters of the text fit into so many columns, at least one."""
    used = 0
    for index, one in enumerate(text):
        used += _width(one)
        if used > width:
            return max(index, 1)
    return len(text)


def _width(character: str) -> int:
    return 0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
