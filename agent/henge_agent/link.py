"""The WebSocket shell: one connection's life between the daemon and the applier.

It feeds frames to the session and does what the session says; it owns nothing that outlives the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import aiohttp

from henge_agent.applier import Applier
from henge_agent.candidate import MAX_DOCUMENT_BYTES
from henge_agent.exchange import USER_AGENT, said_by_peer
from henge_protocol.session import (
    CLOSE_HELLO_TIMEOUT,
    CLOSE_PROTOCOL,
    CLOSE_RENEW,
    CLOSE_REPLACED,
    CLOSE_REVOKED,
    HELLO_TIMEOUT_S,
    Close,
    Session,
)
from henge_protocol.wire import Bye, Config, Error, Hello, Message, Receipt, Welcome

CLOSE_UNSUPPORTED: Final = 1003
LAST_WORDS_S: Final = 1.0
"""How long to read what came before a connection broke."""

_FAULT_CODES: Final = frozenset({1002, 1003, 1007, 1008, 1009, 1011, 1013})
_MEANINGS: Final = {
    CLOSE_PROTOCOL: "unsupported_protocol",
    CLOSE_HELLO_TIMEOUT: "hello_timeout",
    CLOSE_RENEW: "certificate_expired",
    CLOSE_REPLACED: "replaced",
    CLOSE_REVOKED: "revoked",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the device says of itself in every hello."""

    boot: str
    facts: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a connection's life ended: one of our error codes or ``closed``, and what the daemon wished."""

    reason: str = "closed"
    welcome: Welcome | None = None
    """The daemon's welcome: the connection was good."""
    retry_after_s: float | None = None
    fault: bool = False
    """One side could not bear the other, rather than that the network or the daemon went away."""
    said: str = ""
    """What the daemon said to it, for a person."""


def hello(applier: Applier, greeting: Greeting) -> Hello:
    """The first frame: what runs now, how it fares, and who says so."""
    running = applier.running
    return Hello(
        epoch=running.epoch,
        revision=running.revision,
        digest=running.digest,
        state=applier.condition,
        boot=greeting.boot,
        client=USER_AGENT,
        facts=greeting.facts,
        max_document=MAX_DOCUMENT_BYTES,
    )


class Link:
    """One WebSocket's life; ``run`` returns when it is over, whoever ended it."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse[bool],
        applier: Applier,
        greeting: Greeting,
        *,
        clock: Callable[[], float],
        on_welcome: Callable[[Welcome], Awaitable[None]],
    ) -> None:
        self._socket = socket
        self._applier = applier
        self._greeting = greeting
        self._clock = clock
        self._on_welcome = on_welcome
        self._session = Session("device", now=clock())
        self._welcome: Welcome | None = None
        self._ended: Ended | None = None
        self._close_code = 0
        self._fault = False
        self._checks: asyncio.Queue[Config] = asyncio.Queue()

    async def run(self) -> Ended:
        """Say hello, then receive and report until the link ends; cancelling closes it politely."""
        try:
            await self._send(hello(self._applier, self._greeting))
            if await self._greeted():
                await self._serve()
        except (ConnectionError, aiohttp.ClientError) as error:
            log.info("the connection broke: %s", str(error) or type(error).__name__)
            await self._hear_out()
        finally:
            await self._socket.close()
        reason = _MEANINGS.get(self._close_code, "closed")
        return self._ended or Ended(reason, self._welcome, fault=self._fault or self._close_code in _FAULT_CODES)

    async def _greeted(self) -> bool:
        """Read until the welcome has come; a daemon that says nothing is none."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                while self._welcome is None:
                    if not await self._receive():
                        return False
        except TimeoutError:
            self._ended = Ended("hello_timeout")
            return False
        return True

    async def _serve(self) -> None:
        """Read and report; when either ends, so does the link, and what ended it is raised."""
        tasks = [asyncio.create_task(work) for work in (self._read(), self._report(), self._check_in_turn())]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in ended:
            task.result()

    async def _read(self) -> None:
        while await self._receive():
            pass

    async def _hear_out(self) -> None:
        """Who hangs up has often said why, and what it said is still there to be read."""
        with suppress(ConnectionError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._read()

    async def _receive(self) -> bool:
        """Take one frame; False when the link is over."""
        frame = await self._socket.receive()
        if frame.type is aiohttp.WSMsgType.BINARY:
            await self._close(Close(CLOSE_UNSUPPORTED, "bad_frame"))
            return False
        if frame.type is aiohttp.WSMsgType.CLOSE:
            self._close_code = frame.data  # the socket's own close_code says 1006 when our answer did not get through
        if frame.type is not aiohttp.WSMsgType.TEXT:
            self._fault = frame.type is aiohttp.WSMsgType.ERROR
            return False
        step = self._session.receive(frame.data, now=self._clock())
        if step.reply is not None:
            await self._socket.send_str(step.reply.decode())
        if step.event is not None:
            await self._heard(step.event)
        if step.close is not None:
            await self._close(step.close)
        return self._ended is None and not self._session.closed

    async def _heard(self, event: Message) -> None:
        if isinstance(event, Config) and event.intent == "check":
            self._checks.put_nowait(event)
        elif isinstance(event, Config):
            refused = self._applier.offer(event)
            if refused is not None:
                await self._send(refused)
        elif isinstance(event, Receipt):
            await self._applier.receipted(event)
        elif isinstance(event, Welcome):
            self._welcome = event
            await self._on_welcome(event)
        elif isinstance(event, Bye):
            self._ended = Ended(event.reason or "closed", self._welcome, float(event.retry_after_s) or None)
        elif isinstance(event, Error) and self._session.closed:
            self._ended = Ended(event.code or "closed", self._welcome, said=said_by_peer(event.message))

    async def _check_in_turn(self) -> None:
        """Answer questions about candidates; ends only by raising."""
        while True:
            report = await self._applier.check(await self._checks.get())
            if not self._session.closed:
                await self._send(report)

    async def _report(self) -> None:
        """Say every report that the daemon has not confirmed, once on this link; ends only by raising."""
        said, seen = None, -1
        while True:
            seen = await self._applier.news(seen)
            report = self._applier.report
            if report is not None and report != said and not self._session.closed:
                said = report
                await self._send(report)

    async def _send(self, message: Message) -> None:
        frame = self._session.send(message, now=self._clock())
        await self._socket.send_str(frame.decode())

    async def _close(self, close: Close) -> None:
        self._ended = Ended(close.reason, self._welcome, fault=True)
        await self._socket.close(code=close.code, message=close.reason.encode())
