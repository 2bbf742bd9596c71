"""The steps of commit-confirmed: whatever their order, the last good document stays until another is confirmed."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from henge_agent import trial
from henge_agent.records import Progress, Version
from henge_protocol.wire import Receipt

A, B = Version("e", 1, "a" * 64), Version("e", 2, "b" * 64)
GOOD = Progress(current=A)


def on_trial(version: Version = B) -> Progress:
    return trial.tried(trial.begun(GOOD, version, "boot-1"), version, boot="boot-1", until_s=120.0)


def receipt_of(version: Version, state: str = "applied") -> Receipt:
    return Receipt(version.revision, version.digest, state)


def test_a_document_on_trial_runs_and_leaves_the_last_good_one() -> None:
    progress = on_trial()

    assert (progress.running, progress.current, progress.staged) == (B, A, None)
    assert progress.digests == {A.digest, B.digest}


def test_only_its_own_receipt_confirms_a_trial() -> None:
    for wrong in (receipt_of(A), receipt_of(B, "rolled-back"), Receipt(9, B.digest, "applied")):
        assert trial.confirmed(on_trial(), wrong) == on_trial()
    progress = trial.confirmed(on_trial(), receipt_of(B))

    assert (progress.current, progress.previous, progress.trial, progress.report) == (B, A, None, None)


def test_what_is_undone_has_no_reason_until_a_contact_gives_one() -> None:
    progress = trial.undone(on_trial(), "", "no receipt came in time")

    assert (progress.running, progress.staged) == (A, B)
    assert trial.is_undecided(progress)
    assert trial.refuses(progress, B.digest)
    for reason in (trial.CONNECTIVITY_LOST, trial.SERVER_UNREACHABLE):
        decided = trial.decided(progress, reason)
        assert decided.report is not None
        assert (decided.report.state, decided.report.reason) == ("rolled-back", reason)
        assert trial.decided(decided, "other") == decided
        assert trial.confirmed(decided, receipt_of(B, "rolled-back")).report is None


def test_the_last_good_document_delivered_again_needs_no_trial() -> None:
    again = Version("e", 3, A.digest)

    progress = trial.tried(on_trial(), again, boot="boot-1", until_s=9.0)

    assert (progress.current, progress.trial, progress.report) == (again, None, trial.applied(again))


def test_a_trial_goes_on_when_the_agent_alone_restarts_and_ends_with_the_machine() -> None:
    assert trial.resumed(on_trial(), "boot-1", 5.0) == on_trial()
    assert trial.resumed(on_trial(), "boot-1", 500.0).until_s == 500.0 + trial.VERDICT_S
    progress = trial.resumed(on_trial(), "boot-2", 5.0)

    assert (progress.running, progress.staged) == (A, B)
    assert trial.is_undecided(progress)
    assert trial.resumed(progress, "boot-2", 5.0) == progress


def test_a_machine_that_restarts_in_the_middle_of_a_document_does_not_try_it_for_ever() -> None:
    progress = trial.begun(GOOD, B, "boot-1")

    assert trial.resumed(progress, "boot-1", 5.0) == progress
    assert trial.refuses(trial.resumed(progress, "boot-2", 5.0), B.digest)
    assert trial.resumed(GOOD, "boot-2", 5.0) == GOOD


def test_a_verdict_is_sought_no_longer_than_the_document_was_given() -> None:
    assert [trial.verdict_s(seconds) for seconds in (0, 5, 300)] == [1.0, 5, 60.0]


STEPS: dict[str, Callable[[Progress, Version], Progress]] = {
    "begun": lambda progress, version: trial.begun(progress, version, "boot-1"),
    "tried": lambda progress, version: trial.tried(progress, version, boot="boot-1", until_s=1.0),
    "dropped": lambda progress, _: trial.dropped(progress),
    "confirmed": lambda progress, version: trial.confirmed(progress, receipt_of(version)),
    "undone": lambda progress, _: trial.undone(progress, "", "late") if progress.trial else progress,
    "resumed": lambda progress, _: trial.resumed(progress, "boot-1", 0.5),
    "restarted": lambda progress, version: trial.resumed(progress, f"boot-{version.revision}", 0.5),
    "decided": lambda progress, _: trial.decided(progress, trial.CONNECTIVITY_LOST),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 4)), max_size=20))
def test_nothing_but_a_confirmed_document_takes_the_place_of_the_last_good_one(steps: list[tuple[str, int]]) -> None:
    progress = GOOD
    for name, number in steps:
        version = Version("e", number, f"{number:064x}")
        before, progress = progress, STEPS[name](progress, version)

        assert progress.current is not None
        if progress.current != before.current:
            assert name == "confirmed"
            assert before.trial == progress.current
            assert progress.previous == before.current
        if name in ("undone", "restarted") and progress.trial != before.trial:
            assert progress.running == before.current
            assert progress.staged == before.trial
