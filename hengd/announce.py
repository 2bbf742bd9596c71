"""Telling the network where this daemon is, by mDNS.

Never a condition for anything: with no network, no multicast or a contested name the daemon serves as
before, and this keeps trying in the background, at most once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import time
from collections.abc import Callable, Sequence

import ifaddr
from zeroconf import NonUniqueNameException
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from henge_protocol.beacon import SERVICE_TYPE, txt_entries, usable_addresses
from henge_protocol.browse import mdns

RETRY_FIRST_S = 1.0
RETRY_CAP_S = 60.0
ADDRESSES_CHECKED_S = 5.0
"""How often our own addresses are compared with those announced."""
TIME_REFRESHED_S = 3600.0
"""How old the clock in the announcement may get; boards only ever move forward to it."""
MAX_NAMES = 9
"""Names tried in one go (``henge`` to ``henge-9``) before backing off from a contest."""

log = logging.getLogger(__name__)


def local_addresses() -> tuple[str, ...]:
    """Return this machine's addresses on home networks, IPv4 first, link-local IPv6 with its interface."""
    found = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    ipv4 = [ip for ip in found if isinstance(ip, str)]
    ipv6 = [f"{ip[0]}%{ip[2]}" if ip[2] else ip[0] for ip in found if not isinstance(ip, str)]
    return usable_addresses([*ipv4, *ipv6])


def reachable(host: str) -> list[str]:
    """Addresses that reach a listener on ``host``; of one on all addresses no IPv6 for an IPv4 socket, and none that
    needs an interface."""
    if host not in ("0.0.0.0", "::"):
        return [host]
    found = [address for address in local_addresses() if "%" not in address]
    return [address for address in found if host == "::" or ":" not in address] or [socket.gethostname()]


def url_of(scheme: str, host: str, port: int) -> str:
    """The URL of a listener; an IPv6 address stands in brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Announcer:
    """Keeps one service instance announced between ``start`` and ``stop``; neither ever raises."""

    def __init__(
        self,
        *,
        name: str,
        port: int,
        fleet_id: str,
        server_ca_fingerprint: bytes,
        addresses: Callable[[], Sequence[str]] = local_addresses,
        interfaces: Sequence[str] | None = None,
        clock: Callable[[], float] = time.time,
        retry_first_s: float = RETRY_FIRST_S,
        addresses_checked_s: float = ADDRESSES_CHECKED_S,
    ) -> None:
        self._name = name[:60]
        self._port = port
        self._fleet_id = fleet_id
        self._server_ca_fingerprint = server_ca_fingerprint
        self._addresses = addresses
        self._interfaces = interfaces
        self._clock = clock
        self._retry_first_s = retry_first_s
        self._addresses_checked_s = addresses_checked_s
        self._announced = asyncio.Event()
        self._instance = ""
        self._task: asyncio.Task[None] | None = None
        self._level = logging.WARNING

    async def start(self) -> None:
        """Begin announcing in the background and return at once."""
        self._task = asyncio.create_task(self._keep_announced(), name="announce")

    async def announced(self) -> str:
        """Wait until the service is announced and return the instance name it got."""
        await self._announced.wait()
        return self._instance

    async def stop(self) -> None:
        """Take the announcement back (a goodbye to all listeners) and end the background work."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep_announced(self) -> None:
        delay_s = self._retry_first_s
        while True:
            try:
                async with mdns(self._interfaces) as responder:
                    addresses = self._current_addresses()
                    info = await self._register(responder, addresses)
                    delay_s = self._retry_first_s
                    await self._until_addresses_change(responder, info, addresses)
            except (OSError, RuntimeError, ValueError) as error:
                self._report(error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_CAP_S)
            finally:
                self._announced.clear()

    def _current_addresses(self) -> tuple[str, ...]:
        addresses = tuple(address.partition("%")[0] for address in self._addresses())
        if not addresses:
            raise OSError("this machine has no address on a home network")
        return addresses

    async def _register(self, responder: AsyncZeroconf, addresses: Sequence[str]) -> AsyncServiceInfo:
        """Probe and announce under the first name that nobody else holds."""
        for number in range(1, MAX_NAMES + 1):
            info = self._service_info(f"-{number}" if number > 1 else "", addresses)
            try:
                await (await responder.async_register_service(info))
            except NonUniqueNameException:
                continue
            self._note_announced(info)
            return info
        raise OSError(f"the names {self._name} to {self._name}-{MAX_NAMES} are all taken on this network")

    def _service_info(self, suffix: str, addresses: Sequence[str]) -> AsyncServiceInfo:
        instance = f"{self._name}{suffix}"
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{instance}.{SERVICE_TYPE}",
            port=self._port,
            properties=self._txt(),
            server=_host_name(instance),
            parsed_addresses=list(addresses),
        )

    def _txt(self) -> dict[str, str]:
        fingerprint = self._server_ca_fingerprint
        return txt_entries(fleet_id=self._fleet_id, server_ca_fingerprint=fingerprint, unix_s=self._clock())

    async def _until_addresses_change(
        self, responder: AsyncZeroconf, info: AsyncServiceInfo, addresses: tuple[str, ...]
    ) -> None:
        announced_at = self._clock()
        while self._current_addresses() == addresses:
            await asyncio.sleep(self._addresses_checked_s)
            if not 0 <= self._clock() - announced_at < TIME_REFRESHED_S:
                announced_at = self._clock()
                info = self._service_info(self._suffix(), addresses)
                await (await responder.async_update_service(info))

    def _suffix(self) -> str:
        return self._instance[len(self._name) :]

    def _note_announced(self, info: AsyncServiceInfo) -> None:
        self._instance = info.name.removesuffix(f".{SERVICE_TYPE}")
        self._level = logging.WARNING
        self._announced.set()
        log.info("announced by mDNS as %s, port %d", self._instance, self._port)

    def _report(self, error: Exception) -> None:
        log.log(self._level, "not announced by mDNS, trying again: %r", error)
        self._level = logging.DEBUG  # once is news


def _host_name(instance: str) -> str:
    """Of this instance alone: daemons that shared a host name, of one fleet or not, would share their addresses."""
    return f"henge-{hashlib.sha256(instance.lower().encode()).hexdigest()[:12]}.local."
