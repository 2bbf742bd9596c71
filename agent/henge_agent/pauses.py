"""Waiting that can be cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Pause:
    """A sleep that somebody else may end."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep
        self._sleeping: asyncio.Future[None] | None = None

    async def take(self, seconds: float) -> None:
        """Sleep so long, or until ``end``."""
        self._sleeping = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait([self._sleeping])
        finally:
            self._sleeping.cancel()
            self._sleeping = None

    def end(self) -> None:
        """Wake who sleeps now, if anybody does."""
        if self._sleeping is not None:
            self._sleeping.cancel()
