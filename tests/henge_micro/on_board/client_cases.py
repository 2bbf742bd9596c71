"""Between two lives: how long a board stays away."""

import os

from flash import Flash

from henge_micro import board
from henge_micro.client import GOOD_S, Client
from henge_micro.wire import Trouble


class Life:
    """A client whose clock and chance the case moves; it is welcomed, lives for a while and ends."""

    def __init__(self):
        Flash(os.VfsLfs2).mount()
        self.now = 1000
        board.monotonic = lambda: self.now
        board.chance = lambda: 1
        self.client = Client("/flash/henge", {})
        self.client.identity = {}

    def pause_s(self, code, lasted_s=1, fault=False, welcomed=True):
        """Seconds until the next attempt."""
        self.client._welcomed_at = None
        if welcomed:
            self.client.welcomed("192.0.2.1:4364", 0)
        self.now += lasted_s
        trouble = Trouble(code)
        trouble.fault = trouble.fault or fault
        return self.client._pause_s(trouble)


def test_a_fault_that_comes_back_with_each_link_costs_less_and_less():
    life = Life()
    assert [life.pause_s("closed", fault=True) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [life.pause_s("bad_frame"), life.pause_s("internal")] == [60, 60]


def test_a_link_that_was_good_for_long_starts_the_count_again():
    life = Life()
    for _ in range(5):
        life.pause_s("closed", fault=True)
    assert life.pause_s("closed", lasted_s=GOOD_S, fault=True) == 1
    assert life.pause_s("closed", fault=True) == 2


def test_an_end_without_a_fault_has_the_other_count():
    life = Life()
    for _ in range(5):
        life.pause_s("closed", fault=True)
    assert [life.pause_s("unreachable") for _ in range(3)] == [1, 1, 1], "each of them was welcomed"
    assert [life.pause_s("bad_frame", welcomed=False) for _ in range(3)] == [2, 4, 8], "no daemon welcomed it"
    assert life.pause_s("closed", fault=True) == 1
