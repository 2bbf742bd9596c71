"""Running a person's command: with a time limit, a limit on what it may say, and nothing left running behind.

The command gets a process group of its own. When it ends, or its time is over, what is left of the group is
killed, so that a hook which starts something in the background does not gather it at every change; a service
belongs to systemd, and ``systemctl restart`` is unaffected. Output is read to its end and all but the last
part forgotten, so a chatty hook is neither blocked nor remembered.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""The end of the output is kept: the last lines of a failing command say why."""
GRACE_S: Final = 2.0
"""Between the polite signal and the one that cannot be refused."""
_READ_BYTES: Final = 64 * 1024
_PIPE_READS: Final = 17
"""A pipe holds at most 1 MiB (pipe(7)), and then its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code (negative: the signal), whether its time ran out, its last output."""

    code: int
    timed_out: bool
    output: bytes

    @property
    def succeeded(self) -> bool:
        """Whether the command ended by itself with exit code 0."""
        return self.code == 0 and not self.timed_out

    def tail(self, max_chars: int) -> str:
        """The end of the output as one clean line of at most ``max_chars`` characters."""
        text = self.output[-4 * max_chars :].decode("utf-8", "replace")
        words = "".join(char if char.isprintable() else " " for char in text).split()
        return " ".join(words)[-max_chars:]


async def run_command(command: str, environ: Mapping[str, str], *, timeout_s: float) -> Outcome:
    """Run ``command`` by ``/bin/sh -c`` in ``/`` and wait for it; its process group does not outlive the call.

    Cancelling kills the group too. Raises ``OSError`` when no process can be made at all.
    """
    process, output = _start(command, environ)
    try:
        timed_out = not await _ended(process.pid, output, timeout_s)
        if timed_out:
            _signal_group(process.pid, signal.SIGTERM)
            await _ended(process.pid, output, GRACE_S)
        return Outcome(_finish(process, output), timed_out, bytes(output.kept))
    except BaseException:
        _finish(process, output)
        raise
    finally:
        output.close()


class _Output:
    """The reading end of the command's output, which keeps the last bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.kept = bytearray()
        os.set_blocking(fd, False)

    @property
    def fd(self) -> int:
        return self._fd

    def read(self) -> bool:
        """Read what is there, once; False at the end."""
        try:
            chunk = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return True
        self.kept += chunk
        del self.kept[:-MAX_OUTPUT_BYTES]
        return bool(chunk)

    def drain(self) -> None:
        """Read what the pipe still holds, and no more if somebody goes on writing."""
        for _ in range(_PIPE_READS):
            if not self.read():
                return

    def close(self) -> None:
        os.close(self._fd)


def _start(command: str, environ: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], _Output]:
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            cwd="/",
            env=dict(environ),
            start_new_session=True,
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return process, _Output(reading)


async def _ended(pid: int, output: _Output, timeout_s: float) -> bool:
    """Wait for the process (not for its output: a child may hold that open); False when time is over."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    pidfd = os.pidfd_open(pid)

    def on_output() -> None:
        if not output.read():
            loop.remove_reader(output.fd)

    def on_end() -> None:
        loop.remove_reader(pidfd)
        ended.set_result(None)

    loop.add_reader(pidfd, on_end)
    loop.add_reader(output.fd, on_output)
    try:
        async with asyncio.timeout(timeout_s):
            await ended
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        loop.remove_reader(output.fd)
        os.close(pidfd)
    return True


def _finish(process: subprocess.Popen[bytes], output: _Output) -> int:
    """Kill what is left of the group, then reap: until then the group's number cannot be given to others."""
    _signal_group(process.pid, signal.SIGKILL)
    code = process.wait()
    output.drain()
    return code


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass  # all of it is gone
    except PermissionError:
        pass  # only processes of another user are left in it
