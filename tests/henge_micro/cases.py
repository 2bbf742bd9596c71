"""Cases that run on the board itself: functions ``test_...`` of modules in ``on_board``, found without an import."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest

from tests.henge_micro.boards import REPOSITORY, Interpreter

FOLDER = REPOSITORY / "tests" / "henge_micro" / "on_board"


def each_case(module: str) -> Callable[[Any], Any]:
    """Parametrise a test with the names of a module's cases."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text("utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert names, module
    return pytest.mark.parametrize("case", names)


def run_case(micropython: Interpreter, module: str, case: str, *, heap: str = "1m") -> None:
    """Run one; the board's traceback is the failure."""
    micropython.run_file(FOLDER / "run_case.py", module, case, heap=heap)
