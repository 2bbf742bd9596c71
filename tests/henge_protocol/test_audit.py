"""The chain of audit records: whatever is changed in it, the fault is found and the right record named."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.audit import START, Link, parse_link, record_digest, verify
from henge_protocol.errors import Malformed


def chain(length: int, anchor: Link = START) -> tuple[list[dict[str, Any]], Link]:
    """A good chain of so many records, and its end."""
    records, end = [], anchor
    for number in range(anchor.number + 1, anchor.number + length + 1):
        record = {"number": number, "who": f"user {number % 3}", "what": "token.created", "previous": end.digest}
        records.append(record)
        end = Link(number, record_digest(record))
    return records, end


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_a_chain_as_it_was_written_has_no_fault(length: int) -> None:
    records, head = chain(length)
    verdict = verify(records, START, head=head)

    assert (verdict.count, verdict.last, verdict.fault) == (length, head, "")


@given(length=st.integers(1, 12), place=st.integers(0, 11), field=st.sampled_from(["who", "what"]))
def test_a_record_whose_content_was_changed_is_named_f45(length: int, place: int, field: str) -> None:
    records, head = chain(length)
    victim = records[place % length]
    victim[field] = "somebody else"

    assert f"record {victim['number']} was changed" in verify(records, START, head=head).fault


@given(length=st.integers(1, 12), place=st.integers(0, 11))
def test_a_record_whose_link_back_was_changed_is_named(length: int, place: int) -> None:
    records, head = chain(length)
    victim = records[place % length]
    victim["previous"] = "f" * 64

    assert f"record {victim['number']} was changed" in verify(records, START, head=head).fault


@given(length=st.integers(1, 12), place=st.integers(0, 11))
def test_a_record_that_was_taken_out_is_missed(length: int, place: int) -> None:
    records, head = chain(length)
    gone = records.pop(place % length)["number"]

    assert f"record {gone} is missing" in verify(records, START, head=head).fault


def test_a_chain_written_anew_is_found_by_an_end_that_was_noted() -> None:
    records, noted = chain(5)
    records[2]["who"] = "somebody else"
    for before, record in pairwise(records):
        record["previous"] = record_digest(before)
    head = Link(5, record_digest(records[-1]))

    assert verify(records, START, head=head).fault == ""
    assert "record 5 is not what it was" in verify(records, START, head=head, known=noted).fault


def test_retention_leaves_an_anchor_that_the_rest_hangs_on() -> None:
    records, head = chain(9)
    anchor = Link(4, record_digest(records[3]))
    kept = records[4:]

    assert verify(kept, anchor, head=head).fault == ""
    assert "record 5 is not chained" in verify(kept, Link(4, "e" * 64), head=head).fault
    assert "record 2 is not kept any more" in verify(kept, anchor, head=head, known=Link(2, "a" * 64)).fault


def test_an_end_is_read_as_it_is_printed() -> None:
    link = Link(17, "ab" * 32)

    assert parse_link(str(link)) == link


@pytest.mark.parametrize("text", ["", "17", "17:", "x:" + "a" * 64, "-1:" + "a" * 64, "١:" + "a" * 64, "1:" + "a" * 63])
def test_other_texts_are_no_end(text: str) -> None:
    with pytest.raises(Malformed):
        parse_link(text)
