"""Fixtures stack like the floors: clock -> folder -> daemon -> admin -> device. All parts are real.

``daemon`` is the assembler's own ``App`` on port 0 with real TLS and a real store in a temporary folder; only
the clock can be moved. Every store is read through completely after its test.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.canary import Canary
from tests.service import Admin, Clock, Service, verify_store

LONGEST_TEST_S: Final = 100.0
"""No test of ours needs a minute on an idle machine; what has hung is cancelled, so that fixtures still clean up."""

settings.register_profile("henge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("henge")  # a machine that is busy decides no test


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each program's tests run on its own event loop: the daemon's on uvloop, the agent's on asyncio's."""
    if "henge_agent" in item.path.parts:
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Bound each coroutine test from inside its loop.

    pytest-timeout's signal never gets through uvloop, which swallows what a handler raises; its thread (``setup.cfg``)
    is the second line: it shows where everything stands and ends the run.
    """
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = _bounded(item.obj)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, saying what is missing, what needs root (``root``) or programs (``root`` and ``needs`` name them)."""
    marks = [*item.iter_markers("root"), *item.iter_markers("needs")]
    missing = [program for mark in marks for program in mark.args if shutil.which(program) is None]
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        missing.insert(0, "root")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(LONGEST_TEST_S):
            await test(*args, **kwargs)

    return bounded


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    """No secret that a test seals is seen in the open, whatever the test is about."""
    canary = Canary()
    canary.listen(monkeypatch)
    yield canary
    assert canary.seen == [], "a secret stands in the open"


@pytest.fixture
def clock() -> Clock:
    """Wall and monotonic time; starts at the real now and moves when told to."""
    return Clock()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where the daemon of this test keeps its data."""
    return tmp_path / "state"


@pytest.fixture
def flags() -> dict[str, Any]:
    """Settings that differ from the defaults; a test may override this fixture by parametrising it."""
    return {}


@pytest.fixture
async def daemon(data_dir: Path, clock: Clock, flags: dict[str, Any]) -> AsyncIterator[Service]:
    """A running daemon; after the test each record of its store is read and its checksum compared."""
    service = Service(data_dir, clock, flags)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
        service.clean()
    verify_store(data_dir)


@pytest.fixture
async def admin(daemon: Service) -> AsyncIterator[Admin]:
    """An operator on the daemon's machine, over the unix socket."""
    async with daemon.admin() as client:
        yield client
