"""A home network for each test. Where none can be made the tests skip themselves, in red; with CI=true they fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lan.fleet import Home
from tests.lan.network import NoLan, new_lan

SKIPPED = "no network"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was not tested is not to be overlooked."""
    reasons = {report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()) if report.when == "setup"}
    for reason in sorted(text for text in reasons if SKIPPED in text):
        terminalreporter.write_line(f"NETWORK NOT TESTED: {reason}", red=True, bold=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A network without hosts."""
    try:
        lan = new_lan()
    except NoLan as error:
        if os.environ.get("CI") == "true" or os.environ.get("HENGE_REQUIRE_LAN") == "1":
            pytest.fail(str(error))
        pytest.skip(f"{SKIPPED}: {error}")
    home = Home(lan, tmp_path)
    try:
        yield home
    finally:
        home.clean()
