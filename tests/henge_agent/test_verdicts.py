"""What the agent says of a document that does not fit."""

from __future__ import annotations

from hengd.rules.states import TRANSIENT_REASONS
from henge_agent.verdicts import PASSING, field_errors, once_more
from henge_protocol.errors import Invalid, Problem
from henge_protocol.header import MAX_TEXT_CHARS
from henge_protocol.wire import FieldError


def test_each_fault_has_its_own_sentence() -> None:
    faults = [Problem("/color", "is too red"), Problem("/pins/3", "is no pin")]
    error = Invalid("does_not_fit", "2 fields do not fit", problems=faults)

    assert field_errors(error) == (FieldError("/color", "is too red"), FieldError("/pins/3", "is no pin"))


def test_a_trouble_that_names_no_field_is_told_once() -> None:
    error = Invalid("does_not_fit", "the document " + "x" * MAX_TEXT_CHARS)

    assert field_errors(error) == (FieldError("", error.message[:MAX_TEXT_CHARS]),)


def test_who_reads_the_log_learns_when_a_document_is_not_tried_again_by_itself() -> None:
    assert "hengectl retry" in once_more("invalid")
    assert {once_more(reason) for reason in PASSING} == {""}
    assert PASSING == TRANSIENT_REASONS
