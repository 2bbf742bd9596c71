"""The load generator as a process: ``python -m tests.bench.load FILE``, steered by lines on standard input.

``FILE`` holds address, fleet, server authorities and identities. It connects every device, lets each say hello
and report what it is sent as applied, and prints one line per round once every device has its receipt.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path

import uvloop

from henge_protocol.tls import pinned_client_context
from henge_protocol.trust import server_name
from henge_protocol.wire import Config, Hello, Report, decode, encode
from tests.bench.fleet import Answer, connect_fleet


class Tally:
    """Receipts of all devices together."""

    def __init__(self) -> None:
        self.receipts = 0
        self.wanted = 0
        self.reached = asyncio.Event()

    def count(self) -> None:
        """One more report is durable."""
        self.receipts += 1
        if self.receipts >= self.wanted:
            self.reached.set()

    async def wait(self, wanted: int) -> None:
        """Until so many receipts came since the start."""
        self.wanted = wanted
        self.reached.clear()
        if self.receipts < wanted:
            await asyncio.wait_for(self.reached.wait(), 120)


def answering(tally: Tally, frames: dict[bytes, bytes]) -> Answer:
    """What a device does: report every document as applied, count every receipt."""

    def answer(frame: bytes) -> bytes | None:
        if frame.startswith(b'{"type":"receipt"'):
            tally.count()
            return None
        if not frame.startswith(b'{"type":"config"'):
            return None
        report = frames.get(frame)
        if report is None:
            config = decode(frame)
            assert isinstance(config, Config)
            assert config.intact
            frames.clear()
            report = frames[bytes(frame)] = encode(Report(config.epoch, config.revision, config.digest))
        return report

    return answer


async def generate(work: dict[str, object]) -> None:
    """Connect, then one round per line of standard input."""
    identities = list(work["identities"])  # type: ignore[call-overload]
    authorities = [base64.b64decode(one) for one in work["server_ca"]]  # type: ignore[attr-defined]
    contexts = [pinned_client_context(authorities, one["pem"].encode(), passed=0.0) for one in identities]
    tally, frames = Tally(), dict[bytes, bytes]()
    hello = encode(Hello(client="bench/1", boot="1"))
    say("ready")
    reader = await standard_input()
    await reader.readline()
    started = time.perf_counter()
    fleet = await connect_fleet(
        (str(work["host"]), int(str(work["port"]))),
        len(identities),
        context_of=contexts.__getitem__,
        answer_of=lambda index: answering(tally, frames),
        greeting_of=lambda index: hello,
        server_name=server_name(str(work["fleet"])),
    )
    await tally.wait(len(identities))
    say(f"connected {time.perf_counter() - started:.3f}")
    rounds = 1
    while await reader.readline():
        rounds += 1
        started = time.perf_counter()
        await tally.wait(rounds * len(identities))
        say(f"round {time.perf_counter() - started:.3f}")
    fleet.cut()


async def standard_input() -> asyncio.StreamReader:
    """Standard input as a stream."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def say(line: str) -> None:
    """One line to the one who steers."""
    print(line, flush=True)


if __name__ == "__main__":
    uvloop.run(generate(json.loads(Path(sys.argv[1]).read_text())))
