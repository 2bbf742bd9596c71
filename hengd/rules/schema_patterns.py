"""The regular expressions a schema may use: those that run in linear time and mean the same everywhere.

A pattern is judged three times: by a scan for constructs outside of the subset that RE2, ECMAScript, Python
and Rust share, by Python's compiler for syntax errors with their position, and by the engine that will run
it, whose size limit bounds what ``(a{1000}){1000}`` could cost.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

import jsonschema_rs

MAX_PATTERN_CHARACTERS: Final = 200
MAX_REPETITION: Final = 1000
MAX_AUTOMATON_BYTES: Final = 1 << 18

ENGINE: Final = jsonschema_rs.RegexOptions(size_limit=MAX_AUTOMATON_BYTES, dfa_size_limit=1 << 20)
"""The linear-time engine with its bounds; every validator is built with it."""

_GROUPS: Final = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?P": "a named group",
    "(?<": "a named group",
    "(?>": "an atomic group",
    "(?(": "a conditional",
    "(?#": "a comment",
}
_LETTERS: Final = frozenset("dDwWsSbBnrtfv")
_HEX: Final = {"x": re.compile(r"x[0-9A-Fa-f]{2}"), "u": re.compile(r"u[0-9A-Fa-f]{4}")}
_REPETITION: Final = re.compile(r"\{([0-9]{1,6})(?:,([0-9]{1,6})?)?\}")


def check_pattern(pattern: str) -> str:
    """Return what is wrong with ``pattern``, naming the position from 0; empty when it is acceptable."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN_CHARACTERS} are allowed"
    return _outside_subset(pattern) or _syntax_error(pattern) or _too_large(pattern)


def _outside_subset(pattern: str) -> str:
    position, in_class = 0, False
    while position < len(pattern):
        length, problem = _step(pattern, position, in_class=in_class)
        if problem:
            return f"{problem} at position {position} of {pattern!r} is outside of the linear-time subset"
        if pattern[position] == "[" and not in_class:
            in_class = True
        elif pattern[position] == "]":
            in_class = False
        position += length
    return ""


def _step(pattern: str, position: int, *, in_class: bool) -> tuple[int, str]:
    """Judge the construct at ``position``: how many characters it has, and what it is if it is refused."""
    character = pattern[position]
    if character == "\\":
        return _escape(pattern, position)
    if in_class:
        return _class_member(pattern, position)
    if character == "(":
        return 1, _group(pattern, position)
    if character == "{":
        return _repetition(pattern, position)
    if character == "[" and pattern.startswith(("[]", "[^]"), position):
        return 1, "an empty class (write '\\]' for the bracket)"
    if character in "*+?" and pattern[position + 1 : position + 2] == "+":
        return 1, "a possessive repetition"
    return 1, ""


def _escape(pattern: str, position: int) -> tuple[int, str]:
    letter = pattern[position + 1 : position + 2]
    if letter in _HEX:
        found = _HEX[letter].match(pattern, position + 1)
        return (2, f"the escape \\{letter} without its digits") if found is None else (len(found[0]) + 1, "")
    if letter.isdigit():
        return 2, f"the back-reference \\{letter}"
    if letter in _LETTERS or not letter or not (letter.isalnum() or letter in "<>" or not letter.isascii()):
        return 2, ""
    return 2, f"the escape \\{letter}"


def _class_member(pattern: str, position: int) -> tuple[int, str]:
    if pattern[position] == "[" and pattern[position - 1] != "\\":
        return 1, "'[' inside of a class (write '\\['), a POSIX class or a nested class,"
    if pattern[position : position + 2] in ("&&", "--", "~~", "||"):
        return 2, f"the set operation {pattern[position : position + 2]}"
    return 1, ""


def _group(pattern: str, position: int) -> str:
    if pattern[position + 1 : position + 2] != "?" or pattern.startswith("(?:", position):
        return ""
    longest_first = sorted(_GROUPS, key=len, reverse=True)
    return next((_GROUPS[start] for start in longest_first if pattern.startswith(start, position)), "an inline flag")


def _repetition(pattern: str, position: int) -> tuple[int, str]:
    found = _REPETITION.match(pattern, position)
    if found is None:
        return 1, "'{' that is not {n}, {n,} or {n,m} (write '\\{')"
    if max(int(found[1]), int(found[2] or 0)) > MAX_REPETITION:
        return len(found[0]), f"the repetition {found[0]} beyond {MAX_REPETITION}"
    if pattern[found.end() : found.end() + 1] == "+":
        return len(found[0]), "a possessive repetition"
    return len(found[0]), ""


def _syntax_error(pattern: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except re.error as error:
        return f"{pattern!r} is not a regular expression: {error.msg} at position {error.pos}"
    except (OverflowError, RecursionError):
        return f"{pattern!r} is not a regular expression: it nests too deeply"
    return ""


def _too_large(pattern: str) -> str:
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=ENGINE, offline=True)
    except jsonschema_rs.ValidationError:
        return (
            f"{pattern!r} is refused by the linear-time engine: it is malformed or needs more than "
            f"{MAX_AUTOMATON_BYTES // 1024} KiB; say lengths with maxLength rather than with repetitions"
        )
    return ""
