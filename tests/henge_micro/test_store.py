"""On the build that is most like a board."""

from __future__ import annotations

from tests.henge_micro.boards import Interpreter
from tests.henge_micro.cases import each_case, run_case


@each_case("store_cases")
def test_on_board(small: Interpreter, case: str) -> None:
    run_case(small, "store_cases", case)
