"""The HTTP library's protocol, with what it refuses by itself told as problem documents like everything else."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from hengd.http.problems import problem_response
from henge_protocol.errors import HengeError, Internal, Malformed

log = logging.getLogger("hengd.http")

KEEP_ALIVE_S: Final = 3600.0
"""Longer than the gate's idle time, which decides."""


def http_protocol(server: web.Server) -> HttpProtocol:
    """A protocol for one new connection of ``server``; to be called within the running loop."""
    quiet = _quiet_log()
    return HttpProtocol(
        server,
        loop=asyncio.get_running_loop(),
        keepalive_timeout=KEEP_ALIVE_S,
        access_log=quiet,
        logger=quiet,
        auto_decompress=False,
    )


class HttpProtocol(RequestHandler):
    """One connection of the HTTP library behind a gate."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that the library could not read (400) or a fault in ourselves; ends the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; there is no room for another")
        request_id = secrets.token_hex(8)
        if status >= 500 and not isinstance(exc, ConnectionError):
            log.error("request failed", exc_info=exc, extra={"event": "request_failed", "request_id": request_id})
        response = problem_response(_refusal(status, message or "", request_id), request_id)
        response.force_close()
        return response


def _refusal(status: int, message: str, request_id: str) -> HengeError:
    if status < 500:
        first, _, _ = message.partition("\n")
        return Malformed("bad_request", f"the request is badly framed ({ascii(first.rstrip(' :'))[:100]})")
    return Internal("internal", f"the daemon failed; its log has the details under {request_id}")


def _quiet_log() -> logging.Logger:
    """The library tells every malformed request with a traceback; a stranger must not fill the journal."""
    quiet = logging.getLogger("hengd.aiohttp")
    quiet.setLevel(logging.CRITICAL)
    return quiet
