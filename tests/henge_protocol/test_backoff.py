"""Delays before the next attempt: the vectors, their bounds, and what the document says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.backoff import BASE_S, BOOT_SPREAD_S, CAP_S, MAX_HINT_S, Backoff, delay_s, hinted_delay_s
from tests.vectors import run_vectors
from tests.vectors.henge_ground import IMPLEMENTATION

TOP = Path(__file__).parents[2]
CASES = run_vectors.load(str(TOP / "tests" / "vectors"), "backoff")

chances = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    run_vectors.run_case(IMPLEMENTATION, "backoff", case)


@given(st.integers(0, 10**6), chances)
def test_a_delay_lies_between_nothing_and_the_ceiling(attempt: int, chance: float) -> None:
    assert 0 <= delay_s(attempt, chance) <= min(CAP_S, BASE_S * 2 ** min(attempt, 10))


@given(st.floats(0, 86400), chances)
def test_a_hint_is_never_undercut_and_at_most_doubled(retry_after_s: float, chance: float) -> None:
    assert retry_after_s <= hinted_delay_s(retry_after_s, chance) <= 2 * retry_after_s


@given(st.lists(chances, max_size=20))
def test_luck_is_asked_for_once_a_delay(luck: list[float]) -> None:
    left = list(luck)
    backoff = Backoff(lambda: left.pop(0))
    for _ in luck:
        backoff.next_delay_s()

    assert left == []


@given(st.floats())
def test_any_hint_gives_a_delay_of_at_most_twice_the_longest(retry_after_s: float) -> None:
    backoff = Backoff(lambda: 0.5)
    backoff.hint(retry_after_s)

    assert 0 <= backoff.next_delay_s() <= 2 * MAX_HINT_S


def test_the_document_says_the_numbers_that_the_code_keeps() -> None:
    text = (TOP / "docs" / "protocol.md").read_text("utf-8")

    assert BASE_S == 1.0, "2^n is counted in units of the base"
    assert f"`uniform(0, min({CAP_S:g}, 2^n))` seconds" in text
    assert f"spread over {BOOT_SPREAD_S:g} s" in text
    assert MAX_HINT_S == 3600, "more than an hour counts as an hour"
