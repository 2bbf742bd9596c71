"""``hengd announce``: announcing by mDNS a daemon that cannot do it itself, such as one in a pod of Kubernetes.

What is announced is a hint, as ever: devices verify the daemon that they find. So the daemon is asked who it is over
a connection that verifies nothing, and asked again, for it may have become another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import logging
import os
import signal
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import click
import uvloop

from hengd.announce import Announcer, local_addresses
from hengd.logs import start_logs
from henge_protocol.arguments import CarefulCommand
from henge_protocol.beacon import usable_addresses
from henge_protocol.errors import HengeError, Invalid, Unreachable
from henge_protocol.model import is_name
from henge_protocol.notify import notify
from henge_protocol.places import DEVICES_PORT
from henge_protocol.tls import unverified_context
from henge_protocol.trust import MAX_TRUST_BYTES, TRUST_PATH, Trust, check_trust_answer

log = logging.getLogger("hengd.elsewhere")

ASKED_EVERY_S: Final = 60.0
ASK_TIMEOUT_S: Final = 10.0


class Announces(Protocol):
    """What is started and stopped for each identity of the daemon."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


def read_url(url: str) -> tuple[str, int]:
    """Host and port of ``https://HOST[:PORT]``; raises ``Invalid bad_usage``."""
    cure = "write https://HOST:4364"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Invalid("bad_usage", f"{ascii(url)[:80]} is not a daemon's address: {error}", cure=cure) from None
    more = parts.path not in ("", "/") or parts.query or parts.username
    if parts.scheme != "https" or not parts.hostname or port == 0 or more:
        raise Invalid("bad_usage", f"{ascii(url)[:80]} is not a daemon's address", cure=cure)
    return parts.hostname, port or DEVICES_PORT


def ask(host: str, port: int) -> Trust:
    """Who the daemon there says it is. Blocking. Raises ``Unreachable`` or what ``check_trust_answer`` raises."""
    connection = http.client.HTTPSConnection(host, port, timeout=ASK_TIMEOUT_S, context=unverified_context())
    try:
        connection.request("GET", TRUST_PATH)
        answer = connection.getresponse().read(MAX_TRUST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable("unreachable", f"no daemon answers at {host}:{port} ({error})") from None
    finally:
        connection.close()
    return check_trust_answer(answer, None)


async def keep_announced(
    ask_daemon: Callable[[], Awaitable[Trust]],
    announcer: Callable[[Trust], Announces],
    stop: asyncio.Event,
    *,
    every_s: float = ASKED_EVERY_S,
) -> None:
    """Announce the daemon until ``stop``; anew when it says that it is another one.

    One that does not answer stays announced: it may be back before anybody asks, and a hint harms nobody.
    """
    known: Trust | None = None
    running: Announces | None = None
    told = ""
    try:
        while not stop.is_set():
            try:
                found: Trust | None = await ask_daemon()
                told = ""
            except HengeError as error:
                found = known
                if error.message != told:  # once is news
                    told = error.message
                    log.warning("asked in vain, trying again: %s", told)
            if found is not None and found != known:
                if running is not None:
                    await running.stop()
                known, running = found, announcer(found)
                await running.start()
            await _pause(stop, every_s)
    finally:
        if running is not None:
            await running.stop()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


@click.command("announce", cls=CarefulCommand, short_help="Announce by mDNS a daemon that runs elsewhere.")
@click.argument("url")
@click.option("--address", "addresses", multiple=True, metavar="IP", help="Where devices reach it; without: here.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port there; without: that of URL.")
@click.option("--name", default="henge", show_default=True, help="Name to announce it under.")
@click.option("--log-format", type=click.Choice(["auto", "text", "logfmt", "json"]), default="auto", help="Form.")
def announce(*, url: str, addresses: tuple[str, ...], port: int | None, name: str, log_format: str) -> None:
    """Announce the daemon at URL (https://HOST:4364) by mDNS on this machine's network, until SIGTERM.

    For a daemon that the network's multicast does not reach, as in a pod. The addresses must lead devices to it.
    """
    host, asked_port = read_url(url)
    usable = usable_addresses(addresses)
    if len(usable) != len(set(addresses)):
        odd = ", ".join(address for address in addresses if address not in usable)
        raise Invalid("bad_usage", f"{ascii(odd)[:80]} is not an address of a home network", cure="see: ip address")
    if not is_name(name):
        raise Invalid("bad_usage", f"{ascii(name)[:80]} is not a name such as henge", cure="name it with --name")
    logs = start_logs("info", log_format)
    if not usable and (host == "localhost" or host.startswith("127.") or host == "::1"):
        log.warning(
            "%s is this machine alone: devices are sent to its addresses on the network, where the daemon has to "
            "listen, too; or name where it does: --address IP", host,
        )  # fmt: skip
    try:
        uvloop.run(_announce(host, asked_port, name, port or asked_port, usable))
    finally:
        logs.stop()


async def _announce(host: str, asked_port: int, name: str, port: int, addresses: Sequence[str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def announcer(trust: Trust) -> Announcer:
        log.info("fleet %s is at %s:%d", trust.fleet_id, host, asked_port)
        return Announcer(
            name=name, port=port, fleet_id=trust.fleet_id,
            server_ca_fingerprint=hashlib.sha256(trust.server_ca_ders[0]).digest(),
            addresses=(lambda: addresses) if addresses else local_addresses,
        )  # fmt: skip

    notify("READY=1", environ=os.environ)
    await keep_announced(lambda: asyncio.to_thread(ask, host, asked_port), announcer, stop)
