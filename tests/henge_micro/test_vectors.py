"""The shared vectors on MicroPython and on CPython, and the session's table beside the ground's."""

from __future__ import annotations

from henge_micro import link, wire
from henge_protocol import session
from tests.henge_micro.boards import REPOSITORY, Interpreter
from tests.henge_micro.cases import each_case, run_case
from tests.vectors import run_vectors
from tests.vectors.henge_boards import IMPLEMENTATION


@each_case("vector_cases")
def test_on_board(micropython: Interpreter, case: str) -> None:
    run_case(micropython, "vector_cases", case)


def test_on_cpython() -> None:
    passed, failed, _ = run_vectors.run(IMPLEMENTATION, str(REPOSITORY / "tests" / "vectors"))

    assert {name for name, _ in failed} == {"frames: NaN", "frames: Infinity", "frames: minus Infinity"}, (
        "only CPython's lenient reader of numbers, which no board has, differs"
    )
    assert len(passed) > 220


def test_the_session_follows_the_ground_s_table() -> None:
    assert session.TRANSITIONS["device"] == wire.TRANSITIONS
    assert session.INITIAL["device"] == wire.Session().state
    assert (session.HELLO_TIMEOUT_S, session.FAULT_WINDOW_S, session.MAX_FAULTS) == (
        link.WELCOME_S, wire.FAULT_WINDOW_S, wire.MAX_FAULTS,
    )  # fmt: skip
