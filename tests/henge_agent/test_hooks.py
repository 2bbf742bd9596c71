from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path

import pytest

from henge_agent.hooks import MAX_OUTPUT_BYTES, run_command
from tests.effort import no_long_wait

ENVIRON = {"PATH": os.environ["PATH"]}


async def test_a_command_that_succeeds() -> None:
    outcome = await run_command("echo $GREETING; pwd; cat", ENVIRON | {"GREETING": "hello"}, timeout_s=10)

    assert (outcome.succeeded, outcome.code, outcome.output) == (True, 0, b"hello\n/\n")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("echo broken >&2; exit 3", 3, "broken"),
        ("/nowhere/at/all", 127, "not found"),
        ("/etc/passwd", 126, "denied"),
        ("kill -9 $$", -9, ""),
    ],
)
async def test_a_command_that_fails_says_how(command: str, code: int, said: str) -> None:
    outcome = await run_command(command, ENVIRON, timeout_s=10)

    assert (outcome.succeeded, outcome.code) == (False, code)
    assert said in outcome.tail(300)


async def test_a_command_that_hangs_is_killed_with_all_its_children(tmp_path: Path) -> None:
    with no_long_wait():
        outcome = await run_command(
            f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/pid; wait; sleep 600", ENVIRON, timeout_s=0.3
        )

    assert outcome.timed_out
    assert not outcome.succeeded
    assert_is_gone(int((tmp_path / "pid").read_text()))


async def test_a_command_that_obeys_the_polite_signal_may_clean_up(tmp_path: Path) -> None:
    command = f"trap 'echo tidy > {tmp_path}/tidied; exit 1' TERM; sleep 600 & wait"

    outcome = await run_command(command, ENVIRON, timeout_s=0.3)

    assert outcome.timed_out
    assert (tmp_path / "tidied").read_text() == "tidy\n"


async def test_background_children_do_not_outlive_the_command_nor_delay_it(tmp_path: Path) -> None:
    with no_long_wait():
        outcome = await run_command(f"sleep 600 & echo $! > {tmp_path}/pid; echo done", ENVIRON, timeout_s=60)

    assert (outcome.succeeded, outcome.output) == (True, b"done\n")
    assert_is_gone(int((tmp_path / "pid").read_text()))


async def test_a_gigabyte_of_output_neither_blocks_nor_fills_the_memory() -> None:
    outcome = await run_command("head -c 1073741824 /dev/zero | tr '\\0' x; echo; echo the end", ENVIRON, timeout_s=55)

    assert outcome.succeeded
    assert len(outcome.output) == MAX_OUTPUT_BYTES
    assert outcome.tail(300).endswith(" the end")


async def test_a_command_that_closes_its_output_is_still_waited_for(tmp_path: Path) -> None:
    outcome = await run_command(f"exec >&- 2>&-; sleep 0.2; echo x > {tmp_path}/end", ENVIRON, timeout_s=10)

    assert outcome.succeeded
    assert (tmp_path / "end").exists()


async def test_cancelling_kills_the_group(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = asyncio.create_task(run_command(f"echo $$ > {fifo}; sleep 600", ENVIRON, timeout_s=60))
    pid = int(await asyncio.to_thread(fifo.read_text))

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert_is_gone(pid)


async def test_the_tail_of_the_output_is_one_clean_line() -> None:
    outcome = await run_command(r"printf 'a\033[31m\tb\r\n\377 c'", ENVIRON, timeout_s=10)

    assert outcome.tail(300) == "a [31m b \ufffd c"
    assert outcome.tail(3) == "d c".replace("d", "\ufffd")


async def test_no_descriptors_are_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        await run_command("echo x", ENVIRON, timeout_s=10)

    assert len(os.listdir("/proc/self/fd")) == before


def assert_is_gone(pid: int) -> None:
    """The process has ended, or does so at once: a killed one needs a moment."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([pidfd], [], [], 5)
    finally:
        os.close(pidfd)

    assert ended
