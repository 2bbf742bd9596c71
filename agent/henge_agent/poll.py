"""The long-poll shell, for networks where no WebSocket comes through: the same frames in requests and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from henge_agent.applier import Applier
from henge_agent.candidate import MAX_DOCUMENT_BYTES
from henge_agent.exchange import ANSWER_TIMEOUT_S, Answer, Exchange, refusal
from henge_agent.link import Ended, Greeting, hello
from henge_protocol.errors import Malformed
from henge_protocol.header import MAX_HEADER_BYTES, WireError
from henge_protocol.wire import Config, Message, Receipt, Report, Welcome, decode, encode

WAIT_S: Final = 55
PAUSE_S: Final = 5.0
"""Between two polls that brought nothing at once, against a daemon or proxy that does not wait."""

_MAX_BODY_BYTES: Final = MAX_DOCUMENT_BYTES + 2 * MAX_HEADER_BYTES


class Poll:
    """Long-polling at one daemon; ``run`` raises when a request fails, and returns when its time is over."""

    def __init__(
        self, exchange: Exchange, applier: Applier, greeting: Greeting, *, clock: Callable[[], float], until: float
    ) -> None:
        self._exchange = exchange
        self._applier = applier
        self._greeting = greeting
        self._clock = clock
        self._until = until
        self._said: Report | None = None

    async def run(self, welcome: Welcome) -> Ended:
        """Say hello, then fetch, apply and report until ``until``. Raises the daemon's refusal or ``Unreachable``."""
        await self._post(hello(self._applier, self._greeting), have=self._applier.running.digest)
        while self._clock() < self._until:
            await self._catch_up()
            began = self._clock()
            if not await self._fetch() and self._clock() - began < PAUSE_S:
                await asyncio.sleep(PAUSE_S)
        return Ended("closed", welcome, retry_after_s=0.0)

    async def _catch_up(self) -> None:
        """Wait until the applier is idle, saying what it has to say."""
        seen = -1
        while True:
            report = self._applier.report
            if report is not None and report != self._said:
                self._said = report
                await self._post(report)  # meanwhile there may be more to say
            elif self._applier.busy:
                seen = await self._applier.news(seen)
            else:
                return

    async def _fetch(self) -> bool:
        """One long-poll; True when it brought a document to apply."""
        query = {"have": self._applier.running.digest, "wait": str(WAIT_S)}
        answer = await self._exchange.get(
            "/v1/device/config", query, limit_bytes=_MAX_BODY_BYTES, timeout_s=WAIT_S + ANSWER_TIMEOUT_S
        )
        if answer.status == 304:
            return False
        message = _frame(answer)
        return isinstance(message, Config) and self._offer(message)

    async def _post(self, message: Message, have: str | None = None) -> None:
        """Send a hello or report; take the receipt, and the document that may follow it when ``have`` is said."""
        query = None if have is None else {"have": have}
        answer = await self._exchange.post(
            "/v1/device/report", encode(message), query, limit_bytes=_MAX_BODY_BYTES, timeout_s=ANSWER_TIMEOUT_S
        )
        if answer.status != 200:
            raise refusal(answer)
        head, _, rest = answer.body.partition(b"\n")
        for frame in (_decoded(head), _decoded(rest) if rest else None):
            if isinstance(frame, Receipt):
                await self._applier.receipted(frame)
            elif isinstance(frame, Config):
                self._offer(frame)

    def _offer(self, config: Config) -> bool:
        return self._applier.offer(config) is None


def read_welcome(answer: Answer) -> Welcome:
    """The welcome that a plain ``GET /v1/device/config`` brings; raises ``Malformed bad_frame`` for anything else."""
    message = _frame(answer)
    if not isinstance(message, Welcome):
        raise Malformed("bad_frame", f"a welcome was expected, the daemon sent {message.type}")
    return message


def _frame(answer: Answer) -> Message:
    if answer.status != 200:
        raise refusal(answer)
    return _decoded(answer.body)


def _decoded(frame: bytes) -> Message:
    try:
        return decode(frame)
    except WireError as error:
        raise Malformed("bad_frame", f"the daemon's answer is not a frame: {error.message}") from None
