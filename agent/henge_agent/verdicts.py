"""What is said of a document that was tried, in the protocol's words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from henge_agent.hooks import Outcome
from henge_agent.records import Version
from henge_protocol.errors import HengeError, Problem
from henge_protocol.header import MAX_TEXT_CHARS
from henge_protocol.wire import MAX_ERRORS, FieldError, Report

PASSING: Final = frozenset({"schema-unavailable", "write-failed", "hook-timeout", "server-unreachable"})
"""Reasons for which the daemon offers a document again by itself."""

log = logging.getLogger(__name__)


class Setback(Exception):
    """Raised by a step that did not succeed: why, in the protocol's words, and where."""

    def __init__(self, state: str, reason: str, *errors: FieldError) -> None:
        super().__init__(f"{reason}: {errors[0].message}" if errors else reason)
        self.state = state
        self.reason = reason
        self.errors = errors[:MAX_ERRORS]


@contextmanager
def surprises(state: str) -> Iterator[None]:
    """Make a setback of what nobody expected: a document at fault must not end the agent, again at each start."""
    try:
        yield
    except Setback:
        raise
    except Exception as error:
        log.exception("a step failed in an unforeseen way")
        said = f"a fault of the agent ({type(error).__name__}); its log has more"
        raise Setback(state, "internal-error", FieldError("", said)) from error


def report_of(version: Version, state: str, reason: str = "", errors: tuple[FieldError, ...] = ()) -> Report:
    """A report about this document."""
    return Report(version.epoch, version.revision, version.digest, state, reason, errors)


def drifted(version: Version, trouble: HengeError) -> Report:
    """The report that the outputs do not hold the document: they cannot be written, or not in their format."""
    reason = "invalid" if trouble.code == "does_not_fit" else "write-failed"
    return report_of(version, "drifted", reason, field_errors(trouble)[:MAX_ERRORS])


def changed(version: Version, paths: Sequence[Path]) -> Report:
    """The report that somebody changed outputs, which do not hold the document any more."""
    said = tuple(field_error("", f"{path} is not as it was written") for path in paths)
    return report_of(version, "drifted", "changed", said[:MAX_ERRORS])


def unwritten(state: str, error: HengeError) -> Setback:
    """The setback of a file that could not be written."""
    return Setback(state, "write-failed", field_error("", error.message))


def unfit(problems: Iterable[Problem]) -> Setback:
    """The setback of a document that does not fit its schema."""
    return Setback("rejected", "invalid", *(field_error(one.pointer, one.message) for one in problems))


def failed(
    outcome: Outcome, reason: str, timeout_s: float, *, state: str = "rolled-back", pointer: str = ""
) -> Setback:
    """The setback of a command that did not succeed, with its last words; ``pointer``: of the field it is for."""
    if outcome.timed_out:
        said = f"it ran longer than {timeout_s:g} s"
        reason = "hook-timeout"
    elif outcome.code < 0:
        said = f"signal {-outcome.code} ended it"
    else:
        said = f"exit code {outcome.code}"
    tail = outcome.tail(MAX_TEXT_CHARS - len(said) - 2)
    return Setback(state, reason, FieldError(pointer, f"{said}: {tail}" if tail else said))


def once_more(reason: str) -> str:
    """What to know, besides, of a document that did not run for this reason; empty where it is offered again."""
    return "" if reason in PASSING else "; once that is mended: hengectl retry, with this device's name"


def field_errors(error: HengeError) -> tuple[FieldError, ...]:
    """Where a document does not fit, or the one thing that is wrong."""
    problems = [field_error(problem.pointer, problem.message) for problem in error.problems]
    return tuple(problems) or (field_error("", error.message),)


def field_error(pointer: str, message: str) -> FieldError:
    """What is wrong and where, as much of it as a frame takes."""
    return FieldError(pointer[:MAX_TEXT_CHARS], message[:MAX_TEXT_CHARS])
