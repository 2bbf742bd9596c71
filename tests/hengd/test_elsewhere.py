"""``hengd announce``: a daemon elsewhere is asked who it is and announced as that, also when it becomes another one."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hengd.elsewhere import ask, keep_announced, read_url
from henge_protocol.errors import HengeError, Unreachable
from henge_protocol.trust import Trust
from tests.hengd.test_cli import HENGD, environment, hengd
from tests.service import Service

ONE, OTHER = Trust("A" * 26, (b"one",)), Trust("B" * 26, (b"other",))


class Announced:
    """Writes down what is announced and taken back."""

    def __init__(self, said: list[str], fleet: str) -> None:
        self._said, self._fleet = said, fleet

    async def start(self) -> None:
        self._said.append(f"+{self._fleet[0]}")

    async def stop(self) -> None:
        self._said.append(f"-{self._fleet[0]}")


async def announced(answers: list[Trust | HengeError]) -> list[str]:
    """What is announced while the daemon gives these answers, one after the other."""
    said: list[str] = []
    stop, left = asyncio.Event(), iter(answers)

    async def answer() -> Trust:
        found = next(left, None)
        if found is None:
            stop.set()
            raise Unreachable("unreachable", "the test is over")
        if isinstance(found, HengeError):
            raise found
        return found

    asked: Callable[[], Awaitable[Trust]] = answer
    await keep_announced(asked, lambda trust: Announced(said, trust.fleet_id), stop, every_s=0.0)
    return said


async def test_a_daemon_says_who_it_is(daemon: Service) -> None:
    trust = await asyncio.to_thread(ask, "127.0.0.1", daemon.port)

    assert trust.fleet_id == daemon.app.authority.fleet
    assert hashlib.sha256(trust.server_ca_ders[0]).digest() == daemon.app.authority.pin


async def test_where_nobody_answers_that_is_told() -> None:
    with pytest.raises(Unreachable, match=r"no daemon answers at 127\.0\.0\.1:1"):
        await asyncio.to_thread(ask, "127.0.0.1", 1)


async def test_it_is_announced_once_and_taken_back_at_the_end() -> None:
    assert await announced([ONE, ONE, ONE]) == ["+A", "-A"]


async def test_another_daemon_at_the_address_is_announced_instead() -> None:
    assert await announced([ONE, OTHER]) == ["+A", "-A", "+B", "-B"]


async def test_a_daemon_that_is_away_for_a_while_stays_announced() -> None:
    away = Unreachable("unreachable", "no daemon answers")

    assert await announced([away, ONE, away, away, ONE]) == ["+A", "-A"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://henge.lan:4364", ("henge.lan", 4364)),
        ("https://henge.henge.svc", ("henge.henge.svc", 4364)),
        ("https://[fd00::1]:9/", ("fd00::1", 9)),
    ],
)
def test_addresses_are_read(url: str, found: tuple[str, int]) -> None:
    assert read_url(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "http://henge.lan",
        "henge.lan:4364",
        "https://",
        "https://h:99999",
        "https://h:0",
        "https://a@h",
        "https://h/x",
        "https://[::1",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(HengeError) as refused:
        read_url(url)

    assert refused.value.code == "bad_usage"


@pytest.mark.parametrize(
    "arguments",
    [["http://henge.lan"], ["https://henge.lan", "--address", "8.8.8.8"], ["https://henge.lan", "--name", "a_b"], []],
)
def test_wrong_uses_are_2(tmp_path: Path, arguments: list[str]) -> None:
    assert hengd(tmp_path, "announce", *arguments).returncode == 2


def test_an_address_of_this_machine_alone_is_warned_of(tmp_path: Path) -> None:
    """What is announced is this machine's address on the network, where such a daemon may not listen."""
    command = [str(HENGD), "announce", "https://127.0.0.1:1", "--log-format", "text"]
    with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    assert "127.0.0.1 is this machine alone" in line


def test_sigterm_ends_it_with_0_though_no_daemon_answers(tmp_path: Path) -> None:
    command = [str(HENGD), "announce", "https://127.0.0.1:1", "--address", "192.168.1.5", "--log-format", "text"]
    with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0
    assert "asked in vain" in line
