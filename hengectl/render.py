"""What people see: tables, ages, colours, safe text. Pure, except that ``Paper`` writes.

Human tables may change between versions; ``-o json``, ``-o yaml`` and ``-o name`` may not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final, TextIO

from henge_protocol.model import SECRET_KEY
from henge_protocol.quantity import format_duration
from hengectl.fitting import fitted, fitting, longest_word, width_of, wrapped

MAX_CELL_CHARS: Final = 200
GAP: Final = "   "
SMALL_GAP: Final = "  "
"""Between the columns of a table that has little room."""
NARROWEST: Final = 20
"""Columns of a terminal below which nothing is fitted or cut."""
NARROWEST_CELL: Final = 8
"""Columns that a cell keeps for its text before the table is cut instead."""
_SUSPICIOUS: Final = re.compile(r"[^\x20-\x7e\n]")

_COLOURS: Final = {"good": "32", "busy": "33", "bad": "31", "faint": "2", "strong": "1"}
_MOODS: Final = {
    **dict.fromkeys(("in-sync", "online", "active", "ok", "in force", "open"), "good"),
    **dict.fromkeys(("pending", "applying", "asleep", "waiting", "ahead", "unknown"), "busy"),
    **dict.fromkeys(("rejected", "rolled-back", "quarantined", "drifted", "revoked"), "bad"),
    **dict.fromkeys(("offline", "never-seen", "overridden", "closed", "none"), "faint"),
}


@dataclass(frozen=True, slots=True)
class Style:
    """What the terminal can show. Status is always a word; colour only repeats it."""

    colour: bool = False
    unicode: bool = True
    width: int = 0
    """Columns of the terminal; 0 if the output is not one, and nothing is cut."""

    def paint(self, mood: str, text: str) -> str:
        """The text in the mood's colour (good, busy, bad, faint, strong), if there are colours."""
        return f"\x1b[{_COLOURS[mood]}m{text}\x1b[0m" if self.colour and mood in _COLOURS else text

    @property
    def arrow(self) -> str:
        """From one revision to the next."""
        return "→" if self.unicode else "->"


def wants_colour(choice: str, environ: Mapping[str, str], *, terminal: bool) -> bool:
    """Whether to colour: ``--color``, then NO_COLOR, FORCE_COLOR, TERM=dumb, then whether it is a terminal."""
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal and environ.get("TERM") != "dumb"


def safe(value: object) -> str:
    """Text from elsewhere on one line: what could move the cursor or turn the text round is escaped, length is cut."""
    text = value if isinstance(value, str) else data_text(value)
    cut = text if len(text) <= MAX_CELL_CHARS else text[: MAX_CELL_CHARS - 3] + "..."
    return cut if cut.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in cut)


def data_text(value: object) -> str:
    """A value as JSON; a reference to a secret as ``secret wifi/home``, with the revision that set it if it is told."""
    if not isinstance(value, Mapping) or SECRET_KEY not in value:
        return json.dumps(value, ensure_ascii=False)
    revision = f" r{value['revision']}" if "revision" in value else ""
    return f"secret {value[SECRET_KEY]}{revision}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headers, columns as wide as they need; a column without any content is left out."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    keep: frozenset[str] = frozenset()
    """Columns that stay although they are empty."""

    def widths(self) -> list[int]:
        """The width of each column; 0 for one that is left out."""
        if not self.rows:
            return [width_of(header) for header in self.headers]
        columns = zip(*self.rows, strict=True)
        return [self._width(header, column) for header, column in zip(self.headers, columns, strict=True)]

    def lines(self, style: Style, *, headers: bool = True, widths: Sequence[int] = ()) -> list[str]:
        """The table's lines; ``widths`` of an earlier table keep later rows in its columns.

        Where the terminal is too narrow, cells go on in the next line; only where not even that helps lines are cut.
        """
        used, gap = self._fitted(list(widths) or self.widths(), style)
        head = _row(self.headers, used, gap, style, header=True) if headers else []
        return head + [line for row in self.rows for line in _row(row, used, gap, style)]

    def _fitted(self, widths: list[int], style: Style) -> tuple[list[int], str]:
        """The widths that fit, and what stands between columns."""
        shown = [column for column, width in enumerate(widths) if width]
        if style.width < NARROWEST or sum(widths) + len(GAP) * (len(shown) - 1) <= style.width:
            return widths, GAP
        room = style.width - len(SMALL_GAP) * (len(shown) - 1)
        words = [max(width_of(self.headers[column]), self._longest_word(column)) for column in shown]
        least = [max(width_of(self.headers[column]), NARROWEST_CELL) for column in shown]
        used = [widths[column] for column in shown]
        tries = (
            words,
            [*words[:-1], *least[-1:]],
            least,
        )  # words stay whole, at the worst those of the last column not
        narrower = next(filter(None, (fitted(used, _at_most(used, floors), room) for floors in tries)), [])
        fit = dict(zip(shown, narrower, strict=False))
        return [fit.get(column, width) for column, width in enumerate(widths)], SMALL_GAP

    def _longest_word(self, column: int) -> int:
        return max((longest_word(row[column]) for row in self.rows), default=0)

    def _width(self, header: str, column: Iterable[str]) -> int:
        widest = max(map(width_of, column), default=0)
        return max(widest, width_of(header)) if widest or header in self.keep else 0


def _at_most(widths: Sequence[int], floors: Sequence[int]) -> list[int]:
    return list(map(min, widths, floors))


def _row(cells: Sequence[str], widths: Sequence[int], gap: str, style: Style, *, header: bool = False) -> list[str]:
    """One row in as many lines as it needs."""
    shown = [(cell, width) for cell, width in zip(cells, widths, strict=True) if width]
    columns = [wrapped(cell, width) if style.width >= NARROWEST else [cell] for cell, width in shown]
    return [
        _line([(one, width) for one, (_, width) in zip(line, shown, strict=True)], gap, style, header=header)
        for line in zip_longest(*columns, fillvalue="")
    ]


def _line(cells: Sequence[tuple[str, int]], gap: str, style: Style, *, header: bool) -> str:
    plain = gap.join(cell + " " * max(0, width - width_of(cell)) for cell, width in cells).rstrip()
    if style.width >= NARROWEST and width_of(plain) > style.width:
        plain = plain[: fitting(plain, style.width - 1)] + ("…" if style.unicode else "~")
    if not style.colour:
        return plain
    return style.paint("strong", plain) if header else _coloured(plain, style)


def _coloured(line: str, style: Style) -> str:
    """Colour words of state where they stand alone between gaps, never inside a name."""
    pieces = re.split(r"( {2,}|, )", line)
    return "".join(style.paint(_MOODS.get(piece, ""), piece) for piece in pieces)


def mood_of(state: str) -> str:
    """The mood of a state's word, empty if it has none."""
    return _MOODS.get(state, "")


def as_json(value: object) -> str:
    """Indented JSON, as ``-o json`` prints it."""
    return harmless_json(json.dumps(value, ensure_ascii=False, indent=2))


def as_json_line(value: object) -> str:
    """JSON on one line, as ``-o json -w`` prints it."""
    return harmless_json(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def harmless_json(text: str) -> str:
    """The same JSON, in which no character moves a cursor, hides or turns text round: those are escaped."""
    return _SUSPICIOUS.sub(lambda found: found[0] if found[0].isprintable() else _json_escape(found[0]), text)


def as_yaml(value: object) -> str:
    """YAML that ``apply -f`` reads back to the same values."""
    from hengectl import yamltext  # 20 ms that tables need not wait for

    return yamltext.write(value)


def unix_s(moment: object) -> float | None:
    """Unix seconds of an RFC 3339 text or a number; nothing for anything else."""
    if isinstance(moment, int | float) and not isinstance(moment, bool):
        return float(moment)
    if not isinstance(moment, str) or not moment:
        return None
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def age(moment: object, *, now: float) -> str:
    """``4s``, ``22m``, ``5h``, ``3d`` since a moment; ``-`` if there is none."""
    since = unix_s(moment)
    return "-" if since is None else largest_unit(now - since)


def left(moment: object, *, now: float) -> str:
    """How long until a moment; ``over`` when it is past, ``-`` if there is none.

    A minute that has begun counts whole, so that what was set to ``7d`` just now reads ``7d`` and not ``6d``.
    """
    until = unix_s(moment)
    if until is None:
        return "-"
    remaining_s = until - now
    if remaining_s <= 0:
        return "over"
    return largest_unit(math.ceil(remaining_s / 60) * 60 if remaining_s > 60 else remaining_s)


def largest_unit(seconds: float) -> str:
    """One unit is enough to read: 90 s is ``1m``, two days ``2d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length or (unit == "m" and seconds >= length):
            return f"{int(seconds // length)}{unit}"
    return format_duration(seconds)


def labels_text(labels: object) -> str:
    """``kind=lamp,room=kitchen``."""
    if not isinstance(labels, Mapping):
        return ""
    return ",".join(f"{safe(key)}={safe(value)}" for key, value in sorted(labels.items()))


def plural(count: int, noun: str) -> str:
    """``1 device``, ``3 devices``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a command writes its answer."""

    out: TextIO
    style: Style
    before: Callable[[], None] = lambda: None
    """Called before anything is written: what stands on the terminal for a moment goes."""

    def say(self, text: str = "") -> None:
        """One line (or several) of answer, complete at once for whoever reads the other end of a pipe."""
        self.before()
        self.out.write(text + "\n")
        self.out.flush()

    def table(self, table: Table, *, headers: bool = True, widths: Sequence[int] = ()) -> None:
        """A table."""
        lines = table.lines(self.style, headers=headers, widths=widths)
        if lines:
            self.say("\n".join(lines))

    def pairs(self, pairs: Sequence[tuple[str, str]], *, indent: str = "") -> None:
        """Names and values, the values in one column; empty values are left out."""
        shown = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in shown), default=0)
        start = len(indent) + width + len(GAP)
        room = self.style.width - start
        for name, value in shown:
            lines = wrapped(value, room) if room >= NARROWEST and "\x1b" not in value else [value]
            text = f"\n{' ' * start}".join(lines)
            self.say(f"{indent}{name:<{width}}{GAP}{text}".rstrip())

    def data(self, value: Any, form: str) -> None:
        """A value as JSON or YAML."""
        self.before()
        self.out.write(as_yaml(value) if form == "yaml" else as_json(value) + "\n")
        self.out.flush()


def _json_escape(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
