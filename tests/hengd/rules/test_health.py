"""What a person is warned of."""

from __future__ import annotations

import pytest

from hengd.rules.health import LOW_DISK_BYTES, warnings_of
from hengd.store import Figures
from henge_protocol.errors import Unavailable

WELL = Figures(map_bytes=1000, used_bytes=900, free_disk_bytes=LOW_DISK_BYTES, commits=1, last_error="")


def test_nobody_is_warned_while_all_is_well() -> None:
    assert warnings_of(WELL, "/data", (None, None)) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (WELL._replace(free_disk_bytes=LOW_DISK_BYTES - 1), "only 65535 KiB are free on the disk of /data"),
        (WELL._replace(used_bytes=901), "the store's map is more than 90 % full"),
        (WELL._replace(last_error="no space"), "the last commit that failed said: no space"),
    ],
)
def test_what_is_nearly_over_or_has_failed_is_told(figures: Figures, words: str) -> None:
    assert warnings_of(figures, "/data", (None, None)) == [words]


def test_a_clock_in_doubt_is_told_with_its_cure() -> None:
    trouble = Unavailable("clock_suspect", "the clock says 1970", cure="set it")

    assert warnings_of(WELL, "/data", (None, trouble)) == ["the clock says 1970 (set it)"]
