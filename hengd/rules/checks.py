"""Asking devices about a candidate: whether they could run it, before anything is changed anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hengd.rules.candidates import Candidate, Candidates
from hengd.rules.configs import Request
from hengd.rules.presence import Presence
from hengd.rules.redaction import without
from henge_protocol.selector import Selector
from henge_protocol.wire import Config, Error, FieldError, Report

ANSWER_S: Final = 9.0
"""A person is told within ten seconds, whoever is silent."""
ASKED_AT_ONCE: Final = 50

Verdict = Literal["fits", "refused", "unsupported", "busy", "silent", "offline"]
Ask = Callable[[str, Config], "asyncio.Future[Report | Error] | None"]
"""Sends a device a candidate; see ``Links.ask``."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What one device says of its candidate; why, where it is more than a word."""

    name: str
    verdict: Verdict
    reason: str = ""
    errors: tuple[FieldError, ...] = ()


class Checks:
    """Puts candidates to the devices that are connected by a live link."""

    def __init__(self, candidates: Candidates, presence: Presence, ask: Ask) -> None:
        self._candidates = candidates
        self._presence = presence
        self._ask = ask

    async def check(self, objects: Sequence[object], selector: Selector, request: Request) -> list[Checked]:
        """What devices that would get another document say of it, within ``ANSWER_S``; see ``Candidates.of``."""
        candidates = await self._candidates.of(objects, selector, request)
        turns = asyncio.Semaphore(ASKED_AT_ONCE)
        tasks = [asyncio.create_task(self._asked(one, turns)) for one in candidates]
        if tasks:
            await asyncio.wait(tasks, timeout=ANSWER_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [
            Checked(one.name, "silent") if task.cancelled() else task.result()
            for one, task in zip(candidates, tasks, strict=True)
        ]

    async def _asked(self, candidate: Candidate, turns: asyncio.Semaphore) -> Checked:
        async with turns:
            config = Config("", 0, candidate.digest, int(ANSWER_S), "check", candidate.document, candidate.schema)
            answer = self._ask(candidate.device_id, config)
            if answer is None:
                return Checked(candidate.name, *self._absent(candidate.device_id))
            try:
                await asyncio.wait([answer])
            finally:
                answer.cancel()  # nobody waits any longer
            return _read(candidate, answer)

    def _absent(self, device_id: str) -> tuple[Verdict, str]:
        return ("unsupported", "long-poll") if self._presence.find(device_id) else ("offline", "")


def _read(candidate: Candidate, answer: asyncio.Future[Report | Error]) -> Checked:
    if answer.cancelled():
        return Checked(candidate.name, "offline")
    said = answer.result()
    if isinstance(said, Error):
        return Checked(candidate.name, "unsupported", said.code)
    if said.reason == "busy":
        return Checked(candidate.name, "busy")
    errors = tuple(
        FieldError(without(one.pointer, candidate.secrets), without(one.message, candidate.secrets))
        for one in said.errors
    )
    return Checked(candidate.name, "refused" if said.reason else "fits", said.reason, errors)
