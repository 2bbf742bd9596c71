"""A device's WebSocket: picows does the framing, ``StrictListener`` what picows leaves open.

picows itself refuses: unmasked frames, unknown opcodes, fragmented or long control frames, lengths that are
not minimal or beyond 2^63, too long frames before they are read, a one-byte or badly encoded close, most
forbidden close codes; it never negotiates compression.  It does not look at the reserved bits, the order of
fragments, the sum of fragments, UTF-8, close codes 0, 1006 and from 5000 on, or how often frames come; it
answers neither close nor (set up so here) ping, and takes protocol versions 7 and 8 (``head.refuse_upgrade``
does not).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import picows
from multidict import CIMultiDict
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # left out of its stubs

from hengd.http.head import Refusal

NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED_DATA = 1000, 1001, 1002, 1003
ABNORMAL, INVALID_TEXT, POLICY_VIOLATION, TOO_BIG = 1006, 1007, 1008, 1009

_TEXT, _BINARY, _CONTINUATION = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION
_PING, _PONG, _CLOSE = picows.WSMsgType.PING, picows.WSMsgType.PONG, picows.WSMsgType.CLOSE
_READ_BUFFER_BYTES = 2048
"""At first; grows by itself.  Nearly every frame of a device fits."""
_NO_HEADERS: CIMultiDict[str] = CIMultiDict()
_FAULTS = frozenset({PROTOCOL_ERROR, UNSUPPORTED_DATA, INVALID_TEXT, POLICY_VIOLATION, TOO_BIG})
_SENDABLE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What one link may do.  Times in seconds."""

    max_message_bytes: int = 64 * 1024
    """Of one frame, and of all fragments of one message together."""
    frames_per_s: float = 20.0
    burst: int = 60
    """Frames, control frames and empty ones included, that may come at once."""
    ping_after_s: float = 30.0
    """Silence after which the peer is pinged."""
    reply_s: float = 15.0
    """Further silence after which the peer is taken for dead."""
    stuck_s: float = 60.0
    """How long a peer may leave what was sent unread."""
    close_reply_s: float = 2.0
    """How long a peer may take to answer a close frame."""


class StrictListener(picows.WSListener):
    """One device's link as text messages in and out.  A subclass overrides ``opened``, ``received`` and ``lost``.

    An exception of these three ends the link (1011) and is logged.  A peer that breaks the protocol is
    disconnected without the subclass hearing more than ``lost``.
    """

    def __init__(self, *, limits: StreamLimits, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._rate, self._burst = limits.frames_per_s, float(limits.burst)
        self._left = self._burst
        self._transport: picows.WSTransport | None = None
        self._parts: list[bytes] | None = None
        self._is_closed = False
        self._closed_at = 0.0
        self._stuck_since: float | None = None
        self._pinged_at = 0.0
        self.heard_at = monotonic()
        """When the last whole frame came."""
        self.ended_with = 0
        """When ``lost`` is called: the code of the close frame that was sent, else received, else 1006."""

    # --- for the subclass -----------------------------------------------------------------------------------

    def opened(self) -> None:
        """The upgrade is done; sending is possible from here on."""

    def received(self, text: str) -> None:
        """A whole text message came."""

    def lost(self) -> None:
        """The connection is gone; called once, only after ``opened``."""

    def send(self, message: str | bytes) -> None:
        """Send one text message; dropped silently when the link is closing."""
        if not self._is_closed and self._transport is not None:
            self._transport.send(_TEXT, message)

    def expect(self, frames: int) -> None:
        """The peer was asked for so many frames: they do not count as its own."""
        self._left = min(self._burst, self._left + frames)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Send a close frame; nothing is received any more.

        A peer that broke the rules is disconnected when the frame is out, any other when it has answered
        (RFC 6455 section 7.1.1) or ``close_reply_s`` are over: one that finds the connection gone while
        it answers takes that for the reason.
        """
        if self._is_closed or self._transport is None:
            return
        self._is_closed = True
        self._closed_at = self._monotonic()
        self._transport.send_close(code, reason)  # type: ignore[arg-type]  # any number will do
        if code in _FAULTS:
            self._transport.disconnect()

    def abort(self) -> None:
        """Cut the link at once."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    @property
    def is_writable(self) -> bool:
        """False while the peer does not read what it was sent; better send nothing then."""
        return self._stuck_since is None

    def beat(self, now: float) -> None:
        """Ping a silent peer; cut a dead or stuck one.  Called about once a second."""
        silent_s = now - self.heard_at
        if self._is_closed and now - self._closed_at >= self._limits.close_reply_s:
            self.abort()
            return
        stuck_s = 0.0 if self._stuck_since is None else now - self._stuck_since
        if stuck_s >= self._limits.stuck_s or silent_s >= self._limits.ping_after_s + self._limits.reply_s:
            self.abort()
        elif silent_s >= self._limits.ping_after_s and self._pinged_at < self.heard_at and self._transport is not None:
            self._pinged_at = now
            self._transport.send_ping()

    # --- what picows calls ----------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        transport.request.headers = transport.response.headers = _NO_HEADERS  # picows keeps both as long as the link
        self.heard_at = self._monotonic()
        self.opened()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if self._is_closed or transport.is_close_frame_sent:  # picows reads on for a while after a fault it found
            if frame.msg_type is _CLOSE:
                transport.disconnect()
            return
        now = self._monotonic()
        left = self._left + (now - self.heard_at) * self._rate
        self._left = (left if left < self._burst else self._burst) - 1.0
        self.heard_at = now
        if self._left < 0.0:
            self.close(POLICY_VIOLATION, "too many frames")
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(PROTOCOL_ERROR, "reserved bits are set")
        elif frame.msg_type is _TEXT and frame.fin and self._parts is None:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self.close(INVALID_TEXT, "text is not UTF-8")
            else:
                self.received(text)
        else:
            self._take_rare(transport, frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._is_closed = True
        self._transport = None
        self.ended_with = _code_of(transport)
        self.lost()

    def pause_writing(self) -> None:
        self._stuck_since = self._monotonic()

    def resume_writing(self) -> None:
        self._stuck_since = None

    # --- inside ---------------------------------------------------------------------------------------------

    def _take_rare(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if kind is _PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is _CLOSE:
            self._answer_close(frame)
        elif kind is _BINARY:
            self.close(UNSUPPORTED_DATA, "only text is spoken here")
        elif kind is not _PONG:
            self._take_fragment(frame)

    def _take_fragment(self, frame: picows.WSFrame) -> None:
        if (frame.msg_type is _TEXT) is (self._parts is not None):
            self.close(PROTOCOL_ERROR, "fragments out of order")
            return
        parts = self._parts = [*(self._parts or ()), frame.get_payload_as_bytes()]
        if sum(map(len, parts)) > self._limits.max_message_bytes:
            self.close(TOO_BIG, "message too big")
        elif len(parts) > self._limits.burst:
            self.close(POLICY_VIOLATION, "too many fragments")
        elif frame.fin:
            self._parts = None
            self._take_joined(b"".join(parts))

    def _take_joined(self, message: bytes) -> None:
        try:
            text = message.decode()
        except UnicodeDecodeError:
            self.close(INVALID_TEXT, "text is not UTF-8")
        else:
            self.received(text)

    def _answer_close(self, frame: picows.WSFrame) -> None:
        code = int(frame.get_close_code()) if frame.payload_size else NORMAL  # type: ignore[call-overload]
        if code in _SENDABLE_CODES or 3000 <= code < 5000:
            self.close(code)
        else:
            self.close(PROTOCOL_ERROR, "such a close code may not be sent")
        if self._transport is not None:
            self._transport.disconnect()


class StreamProtocol(WSProtocol):  # type: ignore[misc]
    """picows' protocol, fit for a gate (``dispatch.Stream``)."""

    __slots__ = ("_when_lost",)

    _when_lost: Callable[[], None] | None

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the connection is gone."""
        self._when_lost = callback

    def beat(self, now: float) -> None:
        """Let the listener look at the clock."""
        if self.listener is not None:
            self.listener.beat(now)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        callback, self._when_lost = self._when_lost, None
        if callback is not None:
            callback()


def websocket_protocol(
    listener_factory: Callable[[], StrictListener | Refusal], *, limits: StreamLimits, log: logging.Logger
) -> StreamProtocol:
    """The server's end of one WebSocket, for a running loop.

    ``listener_factory`` is called when the opening request is complete; a Refusal is sent as a problem document
    and the connection closed.
    """

    def respond(_request: picows.WSUpgradeRequest) -> StrictListener | picows.WSUpgradeResponseWithListener:
        answer = listener_factory()
        return _refusal_of(answer) if isinstance(answer, Refusal) else answer

    protocol = StreamProtocol(
        None,  # host and port: a client's matter
        None,  # path: a client's matter
        False,  # is_client_side
        respond,
        _Mouthpiece(log),
        True,  # disconnect_on_exception
        None,  # handshake timeout: the opening request is here already
        False,  # auto ping: ``beat`` does it for all links with one timer
        limits.ping_after_s,
        limits.reply_s,
        picows.WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # auto pong: pings count as frames
        limits.max_message_bytes,
        None,  # extra headers
        _READ_BUFFER_BYTES,
    )
    protocol._when_lost = None
    return protocol


def _code_of(transport: picows.WSTransport) -> int:
    closing: Any = transport.close_handshake
    said = closing and (closing.sent or closing.recv)
    return int(said.code) if said else ABNORMAL


def _refusal_of(refusal: Refusal) -> picows.WSUpgradeResponseWithListener:
    fields = [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store")]
    fields += [(name, value.strip()) for name, _, value in (line.partition(":") for line in refusal.fields)]
    response = picows.WSUpgradeResponse.create_error_response(HTTPStatus(refusal.status), refusal.body(), fields)
    return picows.WSUpgradeResponseWithListener(response, None)


class _Mouthpiece:
    """The logger that picows gets: only its exceptions are worth a line.

    Not a ``logging.Logger``, of which picows would make a child for each connection.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.exception = log.exception

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 (the name that picows calls)
        return False

    def log(self, *_arguments: object) -> None:
        pass

    debug = info = warning = error = log
