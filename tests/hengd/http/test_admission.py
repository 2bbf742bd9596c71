"""Counting: who shares a limit with whom, and that counts return to nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hengd.http.admission import RESERVED_FILES, Admission, GateLimits, LogBudget, connections_within


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", ""])), max_size=60))
def test_counts_never_pass_a_limit_and_return_to_nothing(steps: list[tuple[bool, str]]) -> None:
    admission = Admission(GateLimits(max_connections=4, per_address=2))
    inside: list[str] = []
    for enters, origin in steps:
        if enters and not admission.refuse(origin, handshake=False):
            admission.enter(origin)
            inside.append(origin)
        elif not enters and origin in inside:
            admission.leave(origin)
            inside.remove(origin)
        assert admission.open == len(inside) <= 4
        assert inside.count("a") <= 2
    for origin in inside:
        admission.leave(origin)

    assert (admission.open, dict(admission._open)) == (0, {})


def test_the_log_budget_is_one_line_per_kind_and_origin_and_minute() -> None:
    budget = LogBudget()

    assert budget.allows("full", "a", 0.0)
    assert not budget.allows("full", "a", 59.9)
    assert budget.allows("full", "b", 59.9)
    assert budget.allows("late", "a", 59.9)
    assert budget.allows("full", "a", 60.0)


def test_the_log_budget_stays_small_under_a_flood_of_addresses() -> None:
    budget = LogBudget(max_entries=10)
    lines = [budget.allows("full", str(number), 0.0) for number in range(1000)]

    assert sum(lines) == 10
    assert budget.allows("full", "later", 60.0)


@given(st.integers(128, 2**20))
def test_all_listeners_together_leave_descriptors_for_the_store(files: int) -> None:
    shares = [connections_within(files, local=local) for local in (False, True, True)]
    assert min(shares) >= 8
    assert sum(shares) == files - RESERVED_FILES
