"""How tests say "this must not blow up" without a stopwatch deciding on a slow machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FAULT_S: Final = 20.0
"""Far beyond linear work on the slowest machine, far below what exponential or quadratic work takes."""


@contextmanager
def no_blow_up() -> Iterator[None]:
    """The block's own processor time stays below ``FAULT_S``; how fast it is shows `make bench`, not a test."""
    start_s = time.process_time()
    yield

    assert time.process_time() - start_s < FAULT_S


@contextmanager
def no_long_wait(fault_s: float = FAULT_S) -> Iterator[None]:
    """The block waits for nothing that lasts: what it must not wait for takes longer than ``fault_s``."""
    began_s = time.monotonic()
    yield

    assert time.monotonic() - began_s < fault_s
