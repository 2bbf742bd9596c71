"""How a socket becomes a transport: the one place that knows which TLS implementation is used.

Reasons and figures: docs/decisions/0001-device-transport.md.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

import aiofastnet
from aiohttp import web_fileresponse

TLS_BUFFER_BYTES = 16 * 1024
"""Per direction and connection, the least that the library takes; longer TLS records pass in two goes."""
SHUTDOWN_S = 5.0
"""For the peer to take the last bytes and answer the TLS goodbye."""


_STATE = slice(0, 1)
_BYTES_RECEIVED = slice(128, 136)
"""Of Linux' ``struct tcp_info``; the second since 4.1."""
_TCP_CLOSE = b"\x07"


class _UndecodedContext(ssl.SSLContext):
    """A context that reads as ``CERT_NONE``, whatever OpenSSL has been told.

    The library decodes every client certificate into a dict that nobody reads, by way of a temporary file,
    unless it sees ``CERT_NONE``: a quarter of a handshake's cost, 2 KiB a connection, and a need of a
    writable /tmp.  Verification is OpenSSL's and obeys the mode that was set before.
    """

    verify_mode = ssl.CERT_NONE


def prepare(context: ssl.SSLContext | None) -> None:
    """Make ``context`` cheap for many connections, and this process fit for the library.

    Afterwards ``context.verify_mode`` reads as ``CERT_NONE`` and cannot be changed; the mode set before stays in force.
    The library says an error for each failed handshake: its log is silenced.  asyncio's ``sendfile`` refuses
    transports that are not its own: aiohttp is told to send files by reading them (its AIOHTTP_NOSENDFILE).
    """
    if context is None:
        return
    logging.getLogger("aiofastnet").setLevel(logging.CRITICAL)
    vars(web_fileresponse)["NOSENDFILE"] = True
    if type(context) is ssl.SSLContext:
        context.__class__ = _UndecodedContext


def has_said_nothing(sock: socket.socket) -> bool:
    """Whether not a byte came from the other end of a TCP connection; False where the kernel does not tell."""
    received = _tcp_info(sock, _BYTES_RECEIVED)
    return len(received) == 8 and not any(received)


def has_been_reset(sock: socket.socket) -> bool:
    """Whether the other end has cut a TCP connection; False where the kernel does not tell.

    uvloop calls a reader once for bytes and reset together: what read the bytes never hears of the reset.
    """
    return _tcp_info(sock, _STATE) == _TCP_CLOSE


def _tcp_info(sock: socket.socket, part: slice) -> bytes:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, part.stop)[part]
    except OSError:
        return b""


async def accepted(
    sock: socket.socket,
    protocol_factory: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext | None,
    *,
    handshake_s: float,
) -> None:
    """Connect an accepted socket to a protocol; with a context, after a TLS handshake.

    Raises OSError (ssl.SSLError with the reason, ConnectionAbortedError when it takes too long).
    """
    loop = asyncio.get_running_loop()
    if context is None:
        await loop.connect_accepted_socket(protocol_factory, sock)
        return
    prepare(context)
    await aiofastnet.connect_accepted_socket(
        loop,
        protocol_factory,
        sock,
        ssl=context,
        ssl_handshake_timeout=handshake_s,
        ssl_shutdown_timeout=SHUTDOWN_S,
        ssl_incoming_bio_size=TLS_BUFFER_BYTES,
        ssl_outgoing_bio_size=TLS_BUFFER_BYTES,
    )
