"""Requests to one daemon at one address: bounded, never redirected, refusals as our own errors.

Two kinds of connection, and no third: ``Exchange.unverified`` believes anybody and can therefore carry no
secret (it offers nothing but ``GET``), ``Exchange.verified`` talks only to the daemon that the pinned authorities
vouch for under the fleet's fixed name.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from henge_agent.settings import Address
from henge_protocol import __version__
from henge_protocol.errors import CODES, HengeError, Malformed, Unreachable, Untrusted
from henge_protocol.model import MAX_SCHEMA_BYTES
from henge_protocol.peertext import clean_text
from henge_protocol.problems import read_problem, refusal_by_status
from henge_protocol.tls import CertificateEnded, pinned_client_context, unverified_context
from henge_protocol.trust import server_name
from henge_protocol.wire import MAX_FRAME_BYTES

CONNECT_TIMEOUT_S: Final = 5.0
LINK_CONNECT_TIMEOUT_S: Final = 15.0
"""Boards have the same: enough for a bad Wi-Fi, where one packet in three is lost, and all that a dead host costs."""
ANSWER_TIMEOUT_S: Final = 20.0
HEARTBEAT_S: Final = 30.0
"""aiohttp gives a pong half of that time, so a dead peer is noticed within 45 s."""
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_SAID_CHARS: Final = 300
USER_AGENT: Final = f"henge-agent/{__version__}"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status and the whole body."""

    status: int
    body: bytes
    retry_after_s: float | None = None
    schema_name: str = ""
    """What the daemon calls the schema that this is."""

    def fields(self) -> dict[str, Any]:
        """The body as a JSON object; raises ``Malformed bad_json``."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Malformed("bad_json", f"the daemon's answer (status {self.status}) is not a JSON object")
        return value


class UpgradeRefused(Exception):
    """Raised when a connection was made and did not become a WebSocket; a plain request tells why."""


class Exchange:
    """Requests over connections of one kind to one address. Use it as an asynchronous context manager."""

    def __init__(self, address: Address, context: ssl.SSLContext, hostname: str | None) -> None:
        self.address = address
        self._context = context
        self._hostname = hostname
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def unverified(cls, address: Address) -> Self:
        """Connections that believe anybody: for what is public, ``GET`` only."""
        return cls(address, unverified_context(), None)

    @classmethod
    def verified(
        cls,
        address: Address,
        fleet_id: str,
        server_ca_ders: Sequence[bytes],
        identity: Path | None = None,
        *,
        passed: float,
    ) -> Self:
        """Connections to the daemon of this fleet and nobody else, as the device if it has an identity.

        A daemon whose certificate ended before ``passed``, a moment in unix seconds, is not believed.
        Raises ``Invalid bad_certificate`` when authorities or identity cannot be loaded.
        """
        return cls(address, pinned_client_context(server_ca_ders, identity, passed=passed), server_name(fleet_id))

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=4, ssl=self._context)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=LINK_CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        limit_bytes: int = MAX_ANSWER_BYTES,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Answer:
        """The answer to a GET. Raises ``Unreachable``, ``Untrusted``, ``TooLarge``-sized ones as ``Malformed``."""
        return await self._request("GET", path, params, None, limit_bytes, timeout_s)

    async def post(
        self,
        path: str,
        body: bytes,
        params: Mapping[str, str] | None = None,
        *,
        limit_bytes: int = MAX_ANSWER_BYTES,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Answer:
        """The answer to a POST of JSON; ``LookupError`` on an unverified connection, which may carry none."""
        if self._hostname is None:
            raise LookupError("nothing is sent to a daemon that is not verified")
        return await self._request("POST", path, params, body, limit_bytes, timeout_s)

    async def websocket(self, path: str, *, heartbeat_s: float = HEARTBEAT_S) -> aiohttp.ClientWebSocketResponse[bool]:
        """A WebSocket without extensions that ends when the peer is silent.

        Raises ``Unreachable``, ``Untrusted`` or ``UpgradeRefused``.
        """
        try:
            return await self._open.ws_connect(
                self.address.url(path),
                server_hostname=self._hostname,
                heartbeat=heartbeat_s,
                compress=0,
                max_msg_size=MAX_FRAME_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise self._trouble(error) from error
        except aiohttp.WSServerHandshakeError as error:
            raise UpgradeRefused(f"status {error.status}") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpgradeRefused(str(error) or type(error).__name__) from None

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise LookupError("the exchange is not open")
        return self._session

    async def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        limit_bytes: int,
        timeout_s: float,
    ) -> Answer:
        try:
            async with self._open.request(
                method,
                self.address.url(path),
                params=params,
                data=body,
                headers={"Content-Type": "application/json"} if body is not None else None,
                allow_redirects=False,
                server_hostname=self._hostname,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            ) as response:
                retry = response.headers.get("Retry-After", "")
                hint_s = float(retry) if retry.isascii() and retry.isdigit() and len(retry) < 6 else None
                named = response.headers.get("Henge-Schema", "")
                return Answer(response.status, await self._body(response, limit_bytes), hint_s, named)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise self._trouble(error) from error

    async def _body(self, response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit_bytes:
                raise Malformed("too_large", f"the answer of {self.address} has more than {limit_bytes} bytes")
        return bytes(body)

    def _trouble(self, error: Exception) -> HengeError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            if isinstance(error.certificate_error, CertificateEnded):
                return _ended(self.address, error.certificate_error)
            reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            return Untrusted(
                "pin_mismatch",
                f"{self.address} is not the daemon of this fleet: {said_by_peer(reason)}",
                cure="check the address; if it is right, somebody may be in between, or the daemon was set up anew or"
                " replaced its authority while this device was off: then henge-agent join --replace",
            )
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return Unreachable("unreachable", f"{self.address} does not speak TLS as a henge daemon does")
        return Unreachable(
            "unreachable", f"no daemon answers at {self.address}: {_reason(error)}",
            cure="check that hengd runs and the address",
        )  # fmt: skip


def _reason(error: Exception) -> str:
    """Why nobody was reached, in the system's words and not the library's, which name the place once more."""
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        number = error.os_error.errno
        said = os.strerror(number) if number > 0 else error.os_error.strerror  # a name that is not known has none
        return (said or type(error).__name__).lower()
    return said_by_peer(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _ended(address: Address, error: CertificateEnded) -> Untrusted:
    ended, passed = (time.strftime("%Y-%m-%d", time.gmtime(moment)) for moment in (error.ended, error.passed))
    return Untrusted(
        "pin_mismatch",
        f"{address} shows a certificate of this fleet's daemon that ended on {ended}, and it is {passed} or later",
        cure="is this device's clock right (timedatectl)? if it is, restart hengd, which makes itself a new one;"
        " if that does not help, somebody may have an old one",
    )


def refusal(answer: Answer) -> HengeError:
    """The error that a daemon's refusing answer stands for; text of the peer is cleaned and cut."""
    fields = read_problem(answer.body)
    code = fields.get("code")
    kind, _ = refusal_by_status(answer.status)  # its substitute code would decide here how long to stay away
    said = said_by_peer(fields.get("detail") or fields.get("title") or "")
    if not isinstance(code, str) or code not in CODES:
        return kind("internal", f"the daemon answered with status {answer.status} {said}".rstrip())
    extra: dict[str, object] = {}
    if answer.retry_after_s is not None:
        extra["retry_after_s"] = answer.retry_after_s
    if isinstance(fields.get("rescue"), str):
        extra["rescue"] = said_by_peer(fields["rescue"])
    return kind(code, said or CODES[code], cure=said_by_peer(fields.get("cure") or ""), extra=extra)


def retry_after_s(error: HengeError) -> float | None:
    """When the daemon wishes to be asked again, if its refusal said so."""
    wish = error.extra.get("retry_after_s")
    return wish if isinstance(wish, float) else None


async def whoami(exchange: Exchange) -> Answer:
    """Ask the daemon for its welcome: the smallest request that uses the identity. Raises its refusal."""
    answer = await exchange.get("/v1/device/config")
    if answer.status != 200:
        raise refusal(answer)
    return answer


async def device_schema(exchange: Exchange, keep_name: Callable[[str], Awaitable[None]]) -> bytes:
    """The schema that this device's documents fit, as canonical JSON; its name is kept. Raises as ``whoami``."""
    answer = await exchange.get("/v1/device/schema", limit_bytes=MAX_SCHEMA_BYTES)
    if answer.status != 200:
        raise refusal(answer)
    await keep_name(answer.schema_name)
    return answer.body


def said_by_peer(text: object) -> str:
    """What a peer said, fit for a log or a terminal, and cut."""
    return clean_text(str(text), MAX_SAID_CHARS)


def encode_body(fields: Mapping[str, object]) -> bytes:
    """A request's body; bytes become base64."""
    plain = {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in fields.items()
    }
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
