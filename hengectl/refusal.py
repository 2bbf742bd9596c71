"""How a refusal looks and which exit code it has: what, where, why, cure; nothing changed unless said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from henge_protocol import errors, fieldpath
from henge_protocol.errors import HengeError, Problem
from henge_protocol.peertext import printable
from hengectl.render import GAP, safe

OK: Final = 0
NO: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
NOT_ALLOWED: Final = 4
CONFLICT: Final = 5
INVALID: Final = 6
UNREACHABLE: Final = 7
TIMED_OUT: Final = 8
PARTIAL: Final = 9
INTERRUPTED: Final = 130

MAX_PROBLEMS: Final = 20
_PROGRAMS: Final = ("hengectl ", "hengd ", "henge-agent ", "chmod ", "sudo ")

_EXIT_CODES: Final[Mapping[type[HengeError], int]] = {
    errors.Malformed: INVALID,
    errors.Invalid: INVALID,
    errors.TooLarge: INVALID,
    errors.UnsupportedMedia: INVALID,
    errors.NotFound: NOT_FOUND,
    errors.Gone: NOT_FOUND,
    errors.Unauthenticated: NOT_ALLOWED,
    errors.Denied: NOT_ALLOWED,
    errors.Conflict: CONFLICT,
    errors.Stale: CONFLICT,
    errors.PreconditionRequired: CONFLICT,
    errors.Unreachable: UNREACHABLE,
    errors.Untrusted: UNREACHABLE,
    errors.Unavailable: UNREACHABLE,
    errors.Misdirected: UNREACHABLE,
    errors.TimedOut: TIMED_OUT,
}
"""Every other refusal (storage full, asked too often, the daemon's own fault) is 1."""


def exit_code(error: HengeError) -> int:
    """The exit code of a refusal; see ``docs/hengectl.md``."""
    if error.code == "bad_usage":
        return USAGE
    return _EXIT_CODES.get(type(error), NO)


def lines_of(error: HengeError, *, writes: bool, outcome: str) -> list[str]:
    """The lines that a person reads."""
    lines = [f"Error: {printable(error.message)}"]
    lines += [f"  {line}" for line in _problem_lines(error)]
    if writes and outcome == "nothing" and exit_code(error) != USAGE:
        lines.append("Nothing was changed.")
    if outcome == "unknown":
        lines.append(UNKNOWN_OUTCOME)
    if isinstance(error, errors.Internal) and error.extra.get("request_id"):
        lines.append(f"The daemon's log has the details: request id {safe(str(error.extra['request_id']))}")
    if error.cure:
        lines.append(_cure_line(printable(error.cure)))
    return lines


UNKNOWN_OUTCOME: Final = "It is not known whether the change was made. Look: hengectl history"


def field_of(pointer: str) -> str:
    """A JSON pointer as a person writes the field: ``/spec/values/wifi/ssid`` is ``wifi.ssid``.

    A key that holds a dot keeps the pointer's spelling, which ``set`` and ``why`` read too.
    """
    inner = pointer.removeprefix("/spec/values")
    return fieldpath.field_of(inner if inner.startswith("/") else pointer)


def _cure_line(cure: str) -> str:
    """A cure is a command to run or a sentence."""
    return f"Try: {cure}" if cure.startswith(_PROGRAMS) else cure[:1].upper() + cure[1:]


def _problem_lines(error: HengeError) -> list[str]:
    places = error.extra.get("places")
    known = places if isinstance(places, list) else []
    if len(error.problems) == 1 and not any(known) and error.problems[0].message in error.message:
        return []  # the sentence above says it all
    shown = list(error.problems[:MAX_PROBLEMS])
    rows = [_row(problem, str(known[n]) if n < len(known) else "") for n, problem in enumerate(shown)]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in rows
    ]
    hidden = len(error.problems) - len(shown)
    return [*lines, f"... and {hidden} more"] if hidden else lines


def _row(problem: Problem, place: str) -> tuple[str, str, str, str]:
    return safe(problem.object), safe(field_of(problem.pointer)), safe(problem.message), safe(place)
