"""Boards run the real MicroPython: the native build, and the 32-bit one in a board's heap.

The daemon speaks TLS 1.2 only to the small ones, because that is all that real boards know.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hengd import app
from henge_protocol.tls import device_server_context
from tests.henge_agent import scripted
from tests.henge_micro.boards import Board, Interpreter, Kind, NoRuntime, runtime
from tests.service import Admin, Service

MakeBoard = Callable[..., Awaitable[Board]]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A skipped half of the product is not to be overlooked."""
    reasons = {report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()) if report.when == "setup"}
    for reason in sorted(text for text in reasons if "no MicroPython" in text):
        terminalreporter.write_line(f"BOARDS NOT TESTED: {reason}", red=True, bold=True)


def interpreter_of(kind: Kind) -> Interpreter:
    """A MicroPython; where there is none the test is skipped, and fails in CI."""
    try:
        return Interpreter(kind, runtime(kind))
    except NoRuntime as error:
        if os.environ.get("CI") == "true" or os.environ.get("HENGE_REQUIRE_MICROPYTHON") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(params=["small", "native"])
def micropython(request: pytest.FixtureRequest) -> Interpreter:
    """Both builds, one after the other."""
    return interpreter_of(request.param)


@pytest.fixture
def small() -> Interpreter:
    """The build that is most like a board."""
    return interpreter_of("small")


@pytest.fixture(autouse=True)
def _tls_of_boards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS 1.2 at most, except for the native build."""
    if "native" in request.node.name:
        return

    def limited(*arguments: Any) -> ssl.SSLContext:
        context = device_server_context(*arguments)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    monkeypatch.setattr(app, "device_server_context", limited)
    monkeypatch.setattr(scripted, "device_server_context", limited)


@pytest.fixture
async def new_board(daemon: Service, admin: Admin, tmp_path: Path) -> AsyncIterator[MakeBoard]:
    """Makes boards with a token of the daemon in their setup; they are switched off at the end."""
    async with AsyncExitStack() as stack:

        async def make(interpreter: Interpreter, name: str = "lamp-1", **setup: Any) -> Board:
            token = (await admin.ok("POST", "/v1/tokens", {"name": name}))["token"]
            given = {"server": f"127.0.0.1:{daemon.port}", "token": token, "name": name, **setup}
            board = Board(interpreter, tmp_path / name, {key: value for key, value in given.items() if value})
            stack.push_async_callback(board.off)
            return board

        yield make
