"""Work on the store's map on threads of its own, beside the loop's and the writer's; and growth, which waits for it.

LMDB moves its map when it grows: whoever reads meanwhile reads what is no longer there, and the process ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from henge_protocol.errors import Limited

T = TypeVar("T")

MAX_READINGS: Final = 32
"""One is under way, the others wait for it: they take what the processor gives them, and nobody waits for ever."""
RETRY_AFTER_S: Final = 1


class Apart:
    """Long readings, one after the other, and copies. Belongs to the loop's thread, like everything it promises."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._works: set[asyncio.Future[Any]] = set()
        self._readings = 0
        self._growth: Callable[[], None] | None = None
        self._grown = asyncio.Event()

    async def read(self, reading: Callable[[], T]) -> T:
        """Run ``reading`` on the reader's thread; ``Limited`` ``rate_limited`` if too many wait already."""
        if self._readings >= MAX_READINGS:
            message = f"{self._readings} long readings are under way or wait already"
            raise Limited("rate_limited", message, extra={"retry_after_s": RETRY_AFTER_S})
        self._readings += 1
        try:
            return await self._run(self._readers, reading)
        finally:
            self._readings -= 1

    async def copy(self, copying: Callable[[], None]) -> None:
        """Run ``copying`` on any thread."""
        await self._run(None, copying)

    def grow(self, growth: Callable[[], None]) -> None:
        """Run ``growth`` on the loop's thread as soon as nothing is under way; what comes meanwhile waits for it."""
        self._growth = growth
        self._grown.clear()
        self._grow_if_alone()

    async def close(self) -> None:
        """Wait for what is under way. It cannot be called off, and must be over when the environment closes."""
        while self._works:
            await asyncio.gather(*self._works, return_exceptions=True)
        self._readers.shutdown()

    async def _run(self, threads: ThreadPoolExecutor | None, work: Callable[[], T]) -> T:
        while self._growth is not None:
            await self._grown.wait()
        working = self._loop.run_in_executor(threads, work)
        self._works.add(working)
        working.add_done_callback(self._ended)
        return await asyncio.shield(working)

    def _ended(self, working: asyncio.Future[Any]) -> None:
        self._works.discard(working)
        if not working.cancelled():
            working.exception()  # who asked may be gone
        self._grow_if_alone()

    def _grow_if_alone(self) -> None:
        growth = self._growth
        if growth is not None and not self._works:
            self._growth = None
            growth()
            self._grown.set()
