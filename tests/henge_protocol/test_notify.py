from __future__ import annotations

import socket
from pathlib import Path

import pytest

from henge_protocol.notify import notify, watchdog_interval_s


def test_lines_arrive_as_one_datagram(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))

        assert notify("READY=1", "STATUS=ünder way", environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})

        assert manager.recv(1000) == "READY=1\nSTATUS=ünder way".encode()


def test_an_abstract_socket_is_named_with_an_at(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0henge-test-{tmp_path}")

        assert notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": f"@henge-test-{tmp_path}"})

        assert manager.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize("named", [None, "", "relative", "/nowhere/at/all"])
def test_nobody_to_tell_is_no_trouble(named: str | None) -> None:
    assert not notify("READY=1", environ={} if named is None else {"NOTIFY_SOCKET": named})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(environ: dict[str, str], expected: float | None) -> None:
    assert watchdog_interval_s(environ, 7) == expected
