"""The date of an HTTP answer, on both interpreters' terms."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_micro.clock import unix_time


@given(st.integers(0, 2**33))
def test_every_date_is_read(unix_s: int) -> None:
    assert unix_time(formatdate(unix_s, usegmt=True)) == unix_s


@pytest.mark.parametrize("text", ["", "yesterday", "Thu, 26 Nov 2026", "Thu, 26 Foo 2026 10:43:27 GMT", "a b c d e f"])
def test_what_is_no_date_is_nothing(text: str) -> None:
    assert unix_time(text) == 0
