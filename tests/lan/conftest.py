"""A home network for each test, where one can be made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lan.fleet import Home
from tests.lan.network import NoLan, new_lan


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A network without hosts."""
    try:
        lan = new_lan()
    except NoLan as error:
        pytest.skip(f"NOT PROVED: {error}")
    home = Home(lan, tmp_path)
    try:
        yield home
    finally:
        home.clean()
