"""Looking for daemons with mDNS.

A convenience that may fail in many ways (no multicast on this Wi-Fi, no network yet, port taken): then it
finds nothing and says so in the log.  What it finds is a hint, see ``beacon``.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from henge_protocol.beacon import MAX_CANDIDATES, SERVICE_TYPE, Sighting, merge, sighting
from henge_protocol.errors import HengeError

if TYPE_CHECKING:  # zeroconf takes 70 ms to import; only who browses pays
    from zeroconf import ServiceStateChange
    from zeroconf.asyncio import AsyncZeroconf

RESOLVE_TIMEOUT_S = 2.0
"""How long one announced name may take to tell its address."""
MAX_NAMES = 4 * MAX_CANDIDATES
"""Names looked at in one browse; a flood of fakes costs no more than this."""

log = logging.getLogger(__name__)


async def browse(
    *,
    timeout_s: float,
    fleet_id: str | None = None,
    interfaces: Sequence[str] | None = None,
    allow_loopback: bool = False,
    enough: int | None = None,
) -> list[Sighting]:
    """Return the daemons that announce themselves within ``timeout_s``, of one fleet or of all, oldest first.

    Returns early once ``enough`` of them are seen.  ``interfaces`` are the addresses of our interfaces to ask on
    (all by default).  Never raises for trouble with the network: the list is empty and the log says why.
    """
    search = _Search(fleet_id, allow_loopback=allow_loopback, enough=enough)
    try:
        async with mdns(interfaces) as responder, asyncio.timeout(timeout_s):
            await search.run(responder)
    except TimeoutError:
        pass  # the ordinary end
    except (OSError, RuntimeError, ValueError) as error:
        log.warning("cannot look for daemons with mDNS: %s; name the server instead", error)
    return list(search.found)


@asynccontextmanager
async def mdns(interfaces: Sequence[str] | None = None) -> AsyncIterator[AsyncZeroconf]:
    """Open mDNS on the interfaces with these addresses (on all by default) and close it whatever happens.

    Leaving says goodbye for all that was registered.  Trouble is raised as ``OSError``, ``RuntimeError`` (no
    interface) or ``ValueError``, also where the library has errors of its own.
    """
    from zeroconf import Error

    responder = _open(interfaces)
    try:
        # Shielded: a cancelled start would leave zeroconf unable to close, and its sockets open.
        await asyncio.shield(asyncio.ensure_future(responder.zeroconf.async_wait_for_start()))
        yield responder
    except Error as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        await responder.async_close()


class _Search:
    """One browse: names come in from zeroconf, sightings collect in ``found``."""

    def __init__(self, fleet_id: str | None, *, allow_loopback: bool, enough: int | None) -> None:
        self.found: tuple[Sighting, ...] = ()
        self._fleet_id = fleet_id
        self._allow_loopback = allow_loopback
        self._enough = enough
        self._names: asyncio.Queue[str] = asyncio.Queue(MAX_NAMES)
        self._seen: set[str] = set()

    async def run(self, responder: AsyncZeroconf) -> None:
        """Browse until enough are found; for ever if that is never."""
        from zeroconf.asyncio import AsyncServiceBrowser

        browser = AsyncServiceBrowser(responder.zeroconf, SERVICE_TYPE, handlers=[self._changed])
        try:
            await self._resolve_all(responder)
        finally:
            await browser.async_cancel()

    async def _resolve_all(self, responder: AsyncZeroconf) -> None:
        workers = [asyncio.create_task(self._resolve_names(responder)) for _ in range(8)]
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
            for worker in done:
                worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _resolve_names(self, responder: AsyncZeroconf) -> None:
        while self._enough is None or len(self.found) < self._enough:
            await self._resolve(responder, await self._names.get())

    async def _resolve(self, responder: AsyncZeroconf, name: str) -> None:
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            if not await info.async_request(responder.zeroconf, RESOLVE_TIMEOUT_S * 1000):
                return
            seen = sighting(
                name,
                port=info.port or 0,
                target=info.server or "",
                txt=info.text or b"",
                addresses=info.parsed_scoped_addresses(),
                allow_loopback=self._allow_loopback,
            )
        except (HengeError, Error) as error:
            log.debug("an mDNS announcement is skipped: %s", error)
            return
        if self._fleet_id in (None, seen.fleet):
            self.found = merge(self.found, seen)

    def _changed(self, zeroconf: object, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Called by zeroconf on the loop; a removal is a hint too, and not one to act on."""
        if (
            state_change.name != "Removed"
            and len(name) <= 255
            and len(self._seen) < MAX_NAMES
            and not self._names.full()
        ):
            self._seen.add(name.lower())
            self._names.put_nowait(name)


def _open(interfaces: Sequence[str] | None) -> AsyncZeroconf:
    try:
        return _opened(interfaces)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        message = "another program keeps port 5353 for itself; avahi shares it with disallow-other-stacks=no"
        raise OSError(error.errno, message) from error


def _opened(interfaces: Sequence[str] | None) -> AsyncZeroconf:
    from zeroconf import IPVersion
    from zeroconf.asyncio import AsyncZeroconf

    if interfaces is not None:
        return AsyncZeroconf(interfaces=list(interfaces))
    try:
        return AsyncZeroconf(ip_version=IPVersion.All)
    except OSError:  # a machine without IPv6
        return AsyncZeroconf(ip_version=IPVersion.V4Only)
