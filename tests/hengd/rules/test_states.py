"""What a device's record means, from digests and times alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.records import Desired, Reported
from hengd.rules.states import (
    SLEEP_GRACE,
    TRANSIENT_REASONS,
    TRANSIENT_RETRY_S,
    Line,
    after_hello,
    after_report,
    configuration_of,
    connection_of,
    due_in_s,
    forgiven,
    retry_in_s,
)  # fmt: skip
from henge_protocol.wire import FieldError, Hello, Report

A, B, C = "a" * 64, "b" * 64, "c" * 64
LINE = Line("e1", 5, begins=3)
DESIRED_B = Desired(5, B, 10)
RUNS_A = Reported(epoch="e1", revision=4, digest=A, state="applied", running=A, seen=1.0)


def reported(old: Reported, state: str, digest: str = B, reason: str = "", *, at: float = 10.0) -> Reported:
    """After a report of revision 5."""
    new = after_report(old, Report("e1", 5, digest, state, reason), LINE, now=at)
    assert new is not None
    return new


def greeted(old: Reported, digest: str, state: str = "applied") -> Reported:
    """After a hello."""
    return after_hello(old, Hello(epoch="e1", revision=4, digest=digest, state=state), now=20.0, address="::1")


@pytest.mark.parametrize(
    ("desired", "record", "wanted"),
    [
        (DESIRED_B, Reported(), "unknown"),
        (None, RUNS_A, "unknown"),
        (DESIRED_B, RUNS_A, "pending"),
        (Desired(5, A, 1), RUNS_A, "in-sync"),
        (DESIRED_B, reported(RUNS_A, "applying"), "applying"),
        (DESIRED_B, reported(RUNS_A, "applied"), "in-sync"),
        (DESIRED_B, reported(RUNS_A, "drifted"), "drifted"),
        (DESIRED_B, reported(RUNS_A, "rejected", reason="invalid"), "quarantined"),
        (DESIRED_B, reported(RUNS_A, "rolled-back", reason="health-failed"), "quarantined"),
        (DESIRED_B, reported(RUNS_A, "rejected", reason="write-failed"), "rejected"),
        (DESIRED_B, reported(RUNS_A, "rolled-back", reason="hook-timeout"), "rolled-back"),
        (Desired(6, C, 1), reported(RUNS_A, "rejected", reason="invalid"), "pending"),
        (DESIRED_B, Reported(epoch="e0", revision=9, digest=B, running=B, seen=1.0), "ahead"),
        (DESIRED_B, Reported(epoch="e0", revision=4, digest=A, running=A, seen=1.0), "ahead"),
        (DESIRED_B, Reported(epoch="e0", revision=3, digest=A, running=A, seen=1.0), "pending"),
    ],
)
def test_the_configuration_axis(desired: Desired | None, record: Reported, wanted: str) -> None:
    assert configuration_of(desired, record, LINE) == wanted


@pytest.mark.parametrize("reason", ["invalid", "write-failed"])
def test_a_forgiven_refusal_is_pending_and_offered_at_once(reason: str) -> None:
    now = forgiven(reported(RUNS_A, "rejected", reason=reason))

    assert configuration_of(DESIRED_B, now, LINE) == "pending"
    assert due_in_s(DESIRED_B, now, LINE, retry_after_s=60.0) == 0.0
    assert (now.state, now.digest, now.reason, now.errors, now.running) == ("none", "", "", [], A)


def test_forgiving_a_device_that_runs_what_it_should_takes_nothing_it_said() -> None:
    assert forgiven(msgspec.structs.replace(RUNS_A, shared=["::1", "::2"])) == msgspec.structs.replace(
        RUNS_A, epoch="", revision=0
    )


@pytest.mark.parametrize(
    ("online", "record", "now", "wanted"),
    [
        (True, Reported(), 0.0, "online"),
        (False, Reported(), 0.0, "never-seen"),
        (False, Reported(seen=100.0), 101.0, "offline"),
        (False, Reported(seen=100.0, next_contact_s=60), 100.0 + 60 * SLEEP_GRACE - 1, "asleep"),
        (False, Reported(seen=100.0, next_contact_s=60), 100.0 + 60 * SLEEP_GRACE, "offline"),
    ],
)
def test_the_connection_axis(online: bool, record: Reported, now: float, wanted: str) -> None:
    assert connection_of(online=online, reported=record, now=now) == wanted


def test_a_revision_that_was_never_issued_is_not_taken() -> None:
    assert after_report(RUNS_A, Report("e1", 6, B, "applied"), LINE, now=1.0) is None
    assert after_report(RUNS_A, Report("e0", 6, B, "applied"), LINE, now=1.0) is not None


def test_a_refusal_keeps_what_runs_and_says_why() -> None:
    refusal = Report("e1", 5, B, "rejected", "invalid", (FieldError("/color", "no"),))
    record = after_report(RUNS_A, refusal, LINE, now=10.0)
    assert record is not None
    assert (record.running, record.refused, record.reason, record.errors[0].pointer) == (A, B, "invalid", "/color")
    assert due_in_s(DESIRED_B, record, LINE, retry_after_s=0) is None
    assert due_in_s(Desired(6, C, 1), record, LINE, retry_after_s=9) == 0.0


@pytest.mark.parametrize("reason", ["invalid", "write-failed"])
def test_a_refusal_stays_the_news_while_the_old_document_drifts_and_is_back(reason: str) -> None:
    refused = reported(RUNS_A, "rejected", reason=reason)
    drifting = reported(refused, "drifted", A, "write-failed")
    for record in (drifting, reported(drifting, "applied", A)):
        assert configuration_of(DESIRED_B, record, LINE) == configuration_of(DESIRED_B, refused, LINE)
        assert (record.digest, record.reason, record.refused) == (B, reason, B)
        assert due_in_s(DESIRED_B, record, LINE, retry_after_s=7) != 0.0


def test_who_drifts_is_not_in_sync_with_the_document_that_it_goes_back_to() -> None:
    drifting = reported(greeted(RUNS_A, A, "drifted"), "rejected", reason="invalid")
    assert configuration_of(Desired(6, A, 1), drifting, LINE) == "drifted"
    assert configuration_of(Desired(6, A, 1), reported(drifting, "applied", A), LINE) == "in-sync"
    assert configuration_of(Desired(6, A, 1), greeted(drifting, A), LINE) == "in-sync"


def test_a_quarantine_survives_hellos_and_ends_when_the_document_runs() -> None:
    quarantined = reported(RUNS_A, "rejected", reason="invalid")
    again = greeted(quarantined, A)
    assert configuration_of(DESIRED_B, again, LINE) == "quarantined"
    assert due_in_s(DESIRED_B, again, LINE, retry_after_s=0) is None
    assert configuration_of(DESIRED_B, greeted(again, B), LINE) == "in-sync"


@pytest.mark.parametrize("reason", sorted(TRANSIENT_REASONS))
def test_a_passing_refusal_is_due_again_whatever_happens_in_between(reason: str) -> None:
    record = reported(RUNS_A, "rejected", reason=reason)
    for later in (record, reported(record, "applying"), greeted(reported(record, "applying"), A), greeted(record, A)):
        assert due_in_s(DESIRED_B, later, LINE, retry_after_s=7) == 7
        assert due_in_s(DESIRED_B, later, LINE, retry_after_s=-1) == 0.0
    final = reported(record, "rejected", reason="invalid")
    assert due_in_s(DESIRED_B, final, LINE, retry_after_s=0) is None
    assert due_in_s(DESIRED_B, reported(record, "applied"), LINE, retry_after_s=0) is None


def test_a_passing_refusal_waits_a_minute_unless_the_clock_was_set_back() -> None:
    record = reported(RUNS_A, "rejected", reason="write-failed", at=1000.0)
    assert retry_in_s(record, now=1000.0) == TRANSIENT_RETRY_S
    assert retry_in_s(record, now=1000.0 + TRANSIENT_RETRY_S) == 0
    assert retry_in_s(record, now=10.0) == 0


def test_a_device_ahead_is_offered_nothing() -> None:
    ahead = Reported(epoch="e0", revision=9, digest=A, running=A, refused=B, transient=True, seen=1.0)
    assert due_in_s(DESIRED_B, ahead, LINE, retry_after_s=0) is None


_reports = st.builds(
    Report, st.sampled_from(["e1", "e0", ""]), st.integers(0, 5), st.sampled_from([A, B, C]),
    st.sampled_from(["applying", "applied", "rejected", "rolled-back", "drifted"]),
    st.sampled_from(["", "invalid", *sorted(TRANSIENT_REASONS)]),
)  # fmt: skip
_hellos = st.builds(
    Hello, epoch=st.sampled_from(["e1", ""]), revision=st.integers(0, 5), digest=st.sampled_from(["", A, B, C]),
    state=st.sampled_from(["none", "applying", "applied", "rejected", "rolled-back", "drifted"]),
)  # fmt: skip


@given(st.lists(_reports | _hellos, max_size=12))
def test_whatever_a_device_says_it_is_offered_exactly_what_it_neither_runs_nor_refused(
    said: list[Report | Hello],
) -> None:
    record = Reported()
    for message in said:
        if isinstance(message, Hello):
            record = after_hello(record, message, now=1.0, address="")
        else:
            record = after_report(record, message, LINE, now=1.0) or record
    state = configuration_of(DESIRED_B, record, LINE)
    offered = due_in_s(DESIRED_B, record, LINE, retry_after_s=0) is not None
    if state in ("in-sync", "quarantined", "ahead"):
        assert not offered or state == "in-sync"
    if state in ("pending", "unknown"):
        assert offered
    if record.running == B and state not in ("ahead", "quarantined"):
        assert not offered


@pytest.mark.parametrize("reason", ["", "invalid"])
def test_a_look_at_a_candidate_tells_nothing_of_what_runs(reason: str) -> None:
    assert after_report(RUNS_A, Report("e1", 5, B, "checked", reason), LINE, now=9.0) is None


def test_a_second_try_at_what_runs_that_fails_in_passing_changes_nothing() -> None:
    runs = reported(RUNS_A, "applied")
    again = reported(runs, "rejected", reason="write-failed", at=20.0)

    assert configuration_of(DESIRED_B, again, LINE) == "in-sync"
    assert again.refused == ""
    assert configuration_of(DESIRED_B, reported(runs, "rejected", reason="invalid"), LINE) == "quarantined"
