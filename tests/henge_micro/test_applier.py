"""The applier on littlefs and FAT, with a flash that fails where a case wants it to."""

from __future__ import annotations

from tests.henge_micro.boards import Interpreter
from tests.henge_micro.cases import each_case, run_case


@each_case("applier_cases")
def test_on_board(small: Interpreter, case: str) -> None:
    run_case(small, "applier_cases", case)
