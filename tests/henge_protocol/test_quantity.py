"""Durations and sizes: one grammar, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol.errors import Invalid
from henge_protocol.quantity import format_duration, moment, parse_duration_s, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("365d", 31_536_000),
        ("1d12h", 129_600),
        ("1d2h3m4s", 93_784),
        ("99999d99999h999999m99999999s", 99999 * 86400 + 99999 * 3600 + 999999 * 60 + 99999999),
    ],
)
def test_a_duration_is_read_exactly(text: str, seconds: int) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "90",
        "1.5h",
        "-1s",
        "+1s",
        "1 s",
        " 1s",
        "1s\n",
        "1s1m",
        "1m1m",
        "1w",
        "1S",
        "1ms",
        "٣s",
        "100000d",
        "1h30",
        "1e3s",
    ],
)
def test_any_other_duration_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(Invalid, match=r"the wait .* is not of the form 90s, 15m, 2h or 1d12h") as refusal:
        parse_duration_s(text, "the wait")

    assert refusal.value.code == "bad_parameter"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.4, "0s"),
        (0.6, "1s"),
        (40, "40s"),
        (3599.6, "1h"),
        (3900, "1h5m"),
        (3661, "1h1m"),
        (86_405, "1d5s"),
        (93_784, "1d2h"),
    ],
)
def test_people_get_the_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 99999 * 86400))
def test_what_people_see_can_be_read_again_and_is_never_more(seconds: int) -> None:
    shown = parse_duration_s(format_duration(seconds))

    assert seconds - 3600 < shown <= seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("512B", 512), ("16KiB", 16384), ("8MiB", 8 << 20), ("1GiB", 1 << 30), ("999999999B", 999999999)],
)
def test_a_size_is_read_exactly(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "B", "1", "1KB", "1kib", "1 KiB", "1.5MiB", "-1B", "1TiB", "1GiB\n", "٣B", "1234567890B", "1k", "1Kib"]
)
def test_any_other_size_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(Invalid, match=r"the map .* is not of the form 512B, 16KiB, 8MiB or 1GiB") as refusal:
        parse_size_bytes(text, "the map")

    assert refusal.value.code == "bad_parameter"


def test_a_moment_is_utc_with_whole_seconds() -> None:
    assert moment(1_900_000_000.9) == "2030-03-17T17:46:40Z"
