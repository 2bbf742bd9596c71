"""The daemon's HTTP API, typed, on the standard library: over the admin socket, or over TLS as an operator.

Every refusal becomes a ``HengeError``: the daemon's problem documents by their status and code, and what can go
wrong on the way as ``Unreachable`` or ``Untrusted``. Requests are sent once; only a GET is repeated, and only when
a kept connection turned out to be closed.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlencode

from henge_protocol import __version__, errors
from henge_protocol.errors import HengeError, Malformed
from henge_protocol.problems import read_problem, refusal_of
from hengectl.kinds import Kind, Object, Ref

if TYPE_CHECKING:
    from hengectl.address import Address

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""A guard against a peer that never stops; ten thousand devices take 20 MB."""
PIECE_BYTES: Final = 256 * 1024
RENEW_HEADER: Final = "henge-renew"

Outcome = Literal["nothing", "unknown", "changed"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        """The version of the object, as ``If-Match`` takes it."""
        return self.headers.get("etag", "")

    @property
    def revision(self) -> int:
        """The revision that the change made, or the current one."""
        text = self.headers.get("henge-revision", "")
        return int(text) if text.isdecimal() else 0

    def json(self) -> Any:
        """The body's value; ``Malformed`` ``bad_json`` when the peer is no daemon after all."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise Malformed(
                "bad_json", "the answer is not JSON", cure="check the address: is it a henge daemon?"
            ) from None


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    data: bytes | None
    headers: Mapping[str, str]
    patience_s: float
    write: Callable[[bytes], object] | None
    """What takes a good answer, piece by piece; raises no OSError, which would look like the peer's."""
    changes: bool
    """Whether it may change something once it is sent."""


@dataclass(slots=True)
class Client:
    """One daemon. Use as a context manager, or ``close``."""

    label: str
    """How messages call the daemon: ``https://192.168.1.20:4364``, or the socket's path."""
    connect: Callable[[float], http.client.HTTPConnection]
    renew: Callable[[Client], None] | None = None
    """Called once when the daemon says that our certificate is expired; the request is then repeated."""
    renew_early: Callable[[Client], None] | None = None
    """Called once, after an answer that says that our certificate had better be renewed (``RENEW_HEADER``)."""
    trace: Callable[[str], None] | None = None
    answer_timeout_s: float = ANSWER_TIMEOUT_S
    max_answer_bytes: int = MAX_ANSWER_BYTES
    """Longer answers that would have to fit into memory are ``TooLarge``."""
    outcome: Outcome = "nothing"
    """What this client has changed so far; ``unknown`` when a change was sent and no answer came."""
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, *, timeout_s: float = 0, **query: object) -> Reply:
        """Fetch; ``timeout_s`` is added to the usual patience (for long-polls)."""
        return self._ask("GET", path, query=query, patience_s=self.answer_timeout_s + timeout_s)

    def post(self, path: str, body: object = None, *, if_match: str = "", **query: object) -> Reply:
        """Do something; ``dry_run`` and ``message`` are query parameters like others."""
        headers = {"If-Match": if_match} if if_match else {}
        return self._ask("POST", path, {} if body is None else body, query=query, headers=headers)

    def save(self, path: str, body: object, write: Callable[[bytes], object], *, patience_s: float) -> None:
        """POST what changes nothing, and hand a good answer on piece by piece as it comes; ``patience_s`` for each.

        ``write`` raises no OSError: it would be taken for the peer's.
        """
        self._ask("POST", path, body, query={}, patience_s=patience_s, write=write)

    def put(self, path: str, body: object, *, if_match: str = "", **query: object) -> Reply:
        """Create or replace; ``if_match`` is an ETag or ``*``."""
        return self._ask("PUT", path, body, query=query, headers={"If-Match": if_match} if if_match else {})

    def patch(self, path: str, body: object, *, if_match: str = "", **query: object) -> Reply:
        """Merge into an object (RFC 7396)."""
        headers = {"If-Match": if_match} if if_match else {}
        return self._ask(
            "PATCH", path, body, query=query, headers=headers | {"Content-Type": "application/merge-patch+json"}
        )

    def delete(self, path: str, *, if_match: str = "", **query: object) -> Reply:
        """Remove."""
        return self._ask("DELETE", path, query=query, headers={"If-Match": if_match} if if_match else {})

    def read(self, ref: Ref) -> Object:
        """One schema, group or device."""
        return dict(self.get(ref.path).json())

    def listing(self, kind: Kind, selector: str = "") -> dict[str, Any]:
        """All of a kind, with ``metadata`` (epoch, revision, event_seq)."""
        return dict(self.get(f"/v1/{kind.plural}", selector=selector).json())

    def items(self, kind: Kind, selector: str = "") -> list[Object]:
        """All of a kind."""
        return list(self.listing(kind, selector)["items"])

    def revisions(self, limit: int, target: str = "", *, before: int | None = None, diff: bool = False) -> list[Object]:
        """The newest revisions first, all or those of one object; large ones come in parts."""
        found: list[Object] = []
        page: Object = {"before": before}
        while "before" in page and len(found) < limit:
            left, last = limit - len(found), page["before"]
            page = self.get("/v1/revisions", object=target, limit=left, before=last, diff=diff).json()
            found += page["items"]
        return found

    def events(self, since: int | None = None, *, wait_s: int = 0) -> dict[str, Any]:
        """Events after a number, waiting for the first; without a number only ``next``."""
        query = {} if since is None else {"since": since, "wait": wait_s}
        return dict(self.get("/v1/events", timeout_s=wait_s, **query).json())

    def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
        patience_s: float = 0,
        write: Callable[[bytes], object] | None = None,
    ) -> Reply:
        target = quote(path) + _query(query)
        data = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        sent = _headers(data) | dict(headers or {})
        before, changes = self.outcome, method != "GET" and write is None and not query.get("dry_run")
        request = _Request(method, target, data, sent, patience_s or self.answer_timeout_s, write, changes)
        reply = self._exchange(request)
        if reply.status == 401 and self.renew is not None and _code(reply) == "certificate_expired":
            renew, self.renew = self.renew, None  # once: a renewal that did not help must not loop
            renew(self)
            reply = self._exchange(request)
        if reply.status < 400 and changes:
            self.outcome = "changed"
        elif not changes or _code(reply) != "storage_failed":  # of that the daemon itself does not know
            self.outcome = before
        if reply.status >= 400:
            raise refusal(reply.status, reply.headers, reply.body)
        if self.renew_early is not None and RENEW_HEADER in reply.headers:
            renew, self.renew_early = self.renew_early, None
            renew(self)
        return reply

    def _exchange(self, request: _Request) -> Reply:
        reused = self._connection is not None
        try:
            return self._send(request)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if not reused or request.method != "GET":
                raise unreachable(self.label, error) from error
            return self._exchange(request)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise unreachable(self.label, error) from error
        except BaseException:  # Ctrl-C in the middle leaves an answer behind that nobody must read as the next one
            self.close()
            raise

    def _send(self, request: _Request) -> Reply:
        if self._connection is None:
            connection = self.connect(min(CONNECT_TIMEOUT_S, request.patience_s))
            try:
                connection.connect()
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        if self._connection.sock is not None:
            self._connection.sock.settimeout(request.patience_s)
        self.outcome = "unknown" if request.changes else self.outcome
        self._connection.request(request.method, request.target, body=request.data, headers=dict(request.headers))
        answer = self._connection.getresponse()
        if request.write is not None and answer.status < 400:
            body = _handed_on(answer, request.write)
        else:
            body = self._whole(answer)
        if self.trace is not None:
            self.trace(f"{request.method} {request.target} -> {answer.status}, {len(body)} bytes")
        if answer.will_close:
            self.close()
        return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, body)

    def _whole(self, answer: http.client.HTTPResponse) -> bytes:
        """The body, read piece by piece: whoever is at the other end may never stop."""
        most, body = self.max_answer_bytes, bytearray()
        while len(body) + (answer.length or 0) <= most:
            piece = answer.read(min(PIECE_BYTES, most + 1 - len(body)))
            if not piece:
                break
            body += piece
        else:
            answer.close()
            told = f"the answer of {self.label} has more than {most} bytes"
            raise errors.TooLarge("too_large", told, cure="check the address: is it a henge daemon?")
        if answer.length:  # in pieces a cut answer passes for a whole one
            raise http.client.IncompleteRead(bytes(body), answer.length)
        return bytes(body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("henge", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class TlsConnection(http.client.HTTPConnection):
    """HTTP over TLS, verified under the fleet's one name whatever address was dialled."""

    def __init__(self, address: Address, context: ssl.SSLContext, server_name: str, timeout_s: float) -> None:
        super().__init__(address.host, address.port, timeout=timeout_s)
        self._context = context
        self._server_name = server_name

    def connect(self) -> None:
        """Connect and shake hands."""
        plain = socket.create_connection((self.host, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock = self._context.wrap_socket(plain, server_hostname=self._server_name)
        except BaseException:
            plain.close()
            raise


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> HengeError:
    """The error that a refusing answer stands for, with what programs may want to know of it in ``extra``."""
    problem = read_problem(body)
    extra: dict[str, object] = {"status": status, "code": str(problem.get("code", ""))}
    for name in ("request_id", "etag"):
        if problem.get(name):
            extra[name] = problem[name]
    if headers.get("retry-after", "").isdecimal():
        extra["retry_after_s"] = int(headers["retry-after"])
    return refusal_of(status, problem, extra=extra)


def unreachable(label: str, error: Exception) -> HengeError:
    """Why no answer came: not the daemon that was expected, not permitted, or nobody there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(label, error)
    if isinstance(error, PermissionError):
        return errors.Denied(
            "peer_denied",
            f"you may not use the socket {label}",
            cure="sudo usermod -aG henge $USER, then log in anew; or use sudo",
        )
    return errors.Unreachable(
        "unreachable", f"cannot reach the daemon at {label} ({_reason(error)})", cure=_reach_cure(label)
    )


def _untrusted(label: str, error: ssl.SSLCertVerificationError) -> errors.Untrusted:
    from henge_protocol.tls import CertificateEnded  # whoever raised it has it loaded

    if isinstance(error, CertificateEnded):
        return errors.Untrusted(
            "pin_mismatch",
            f"the server at {label} shows a certificate that ended on {_day(error.ended)}, and it is"
            f" {_day(error.passed)} by this machine's clock",
            cure="set the clock (timedatectl); if it is right, restart hengd: it makes itself a new certificate",
        )
    return errors.Untrusted(
        "pin_mismatch",
        f"the server at {label} is not the one you logged in to ({error.verify_message})",
        cure="if the daemon was set up anew or has a new authority, log in again; if not, somebody may be in between",
    )


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected | ssl.SSLEOFError):
        return "it closed the connection"
    if isinstance(error, socket.gaierror):
        return "the name is not known"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').lower().replace('_', ' ')}"
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return f"what answers there is not HTTP: {type(error).__name__}"


def _reach_cure(label: str) -> str:
    return "on its machine look: systemctl status hengd" if label.startswith("https") else "start it with hengd"


def _handed_on(answer: http.client.HTTPResponse, write: Callable[[bytes], object]) -> bytes:
    """Give the answer away and return nothing of it; only of chunked ones it is noticed here that they are cut off."""
    while piece := answer.read(PIECE_BYTES):
        write(piece)
    return b""


def _headers(data: bytes | None) -> dict[str, str]:
    headers = {"Accept": "application/json", "User-Agent": f"hengectl/{__version__}"}
    return headers if data is None else headers | {"Content-Type": "application/json"}


def _query(query: Mapping[str, object]) -> str:
    given = {key: _text(value) for key, value in query.items() if not (value is None or value is False or value == "")}
    return "?" + urlencode(given) if given else ""


def _text(value: object) -> str:
    return "1" if value is True else str(value)


def _code(reply: Reply) -> str:
    return str(read_problem(reply.body).get("code", ""))
