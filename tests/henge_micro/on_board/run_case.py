"""Runs one case: ``run_case.py MODULE FUNCTION``; pytest starts it, so that each case has a board of its own."""

import sys

sys.path[:0] = ["micropython", "tests/henge_micro/on_board", "tests/vectors"]

getattr(__import__(sys.argv[1]), sys.argv[2])()
