"""The daemon's own accept path, the same for all listeners (TLS device port, plain local port, unix socket).

accept -> limits -> TLS handshake under a deadline -> first request head under a deadline -> HTTP or device link.
The libraries behind it have no limit on connections and hold a silent client for minutes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl as tls
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from hengd.http.admission import Admission, GateLimits, LogBudget
from hengd.http.dispatch import Connection, HttpFactory, Peer, Phase, StreamFactory
from hengd.http.transport import accepted, has_been_reset, has_said_nothing, prepare
from hengd.rules.limits import counted_as

BACKLOG = 4096
"""Connections the kernel may hold for us; it cuts this to net.core.somaxconn."""
ACCEPT_BATCH = 64
"""Accepted in one go before others get their turn."""
SWEEP_S = 1.0
LINK_SHARES = 5
"""Links are looked at by turns, each every five seconds: thousands of silent ones must not cost a core."""
CUT_AT_ONCE = 32
"""Strangers' connections that give way together when the listener is full: looking for them takes a millisecond."""
STARVED_PAUSE_S = 1.0
"""How long accepting rests when descriptors or memory have run out."""

_PASSING = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ENOPROTOOPT})
_PASSING |= {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET, errno.EOPNOTSUPP}
"""What accept(2) reports of the connection it did not give us, not of the listener."""


class _Handshake(NamedTuple):
    task: asyncio.Task[None]
    sock: socket.socket


class Gate:
    """Accepts from one bound socket, refuses what is over the limits and hands on the rest.

    ``sock`` is bound and not yet listening; the gate owns it from ``start`` on.  ``ssl`` may be replaced
    at any time by assigning it; handshakes from then on use the new context.  An
    application behind ``http_factory`` must carry ``dispatch.keep_turns`` as its outermost middleware, or its
    connections look idle while they are served.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        name: str,
        ssl: tls.SSLContext | None,
        limits: GateLimits,
        http_factory: HttpFactory,
        stream_factory: StreamFactory | None,
        monotonic: Callable[[], float],
        log: logging.Logger,
    ) -> None:
        self.name = name
        self.ssl = ssl
        self.limits = limits
        self.http_factory = http_factory
        self.stream_factory = stream_factory
        self.now = monotonic
        self.accepted = 0
        """Connections let in since the start."""
        self.refusals: Counter[str] = Counter()
        """Connections and first requests refused, by reason."""
        self.handshake_failures: Counter[str] = Counter()
        """TLS handshakes that failed, by reason."""
        self._log = log
        self._sock = sock
        self._admission = Admission(limits)
        self._budget = LogBudget()
        self._connections: dict[Connection, None] = {}
        """All that are open, the oldest first."""
        self._handshakes: dict[Connection, _Handshake] = {}
        """Those of them whose handshake is under way."""
        self._is_accepting = False
        self._is_reading = False
        self._starved_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._share = 0
        self._emptied: asyncio.Event = asyncio.Event()

    @property
    def open(self) -> int:
        """Connections open now, handshakes and device links included."""
        return self._admission.open

    def start(self) -> None:
        """Listen and accept on the running loop."""
        prepare(self.ssl)
        self._sock.setblocking(False)
        self._sock.listen(BACKLOG)
        self._is_accepting = True
        self._resume()
        self._tick()

    def stop_accepting(self) -> None:
        """Close the listening socket; what is open stays open."""
        self._pause()
        if self._is_accepting:
            self._is_accepting = False
            self._sock.close()

    async def close(self, grace_s: float) -> None:
        """Stop accepting; end idle connections now, busy ones after their request, and cut the rest after ``grace_s``.

        Device links are left alone until then: their owner says goodbye to them.
        """
        self.stop_accepting()
        for connection in list(self._connections):
            handshake = self._handshakes.get(connection)
            connection.retire() if handshake is None else handshake.task.cancel()
        if not await self._is_empty_within(grace_s):
            self._log.warning("%s: cutting %d connections that did not end in time", self.name, self.open)
            for connection in list(self._connections):
                connection.abort()
            await self._is_empty_within(1.0)
        if self._timer is not None:
            self._timer.cancel()

    def sweep(self, share: int | None = None) -> None:
        """Enforce every deadline; runs by itself once a second, and then looks at one share of the device links."""
        now = self.now()
        for connection in list(self._connections):
            if share is None or connection.phase is not Phase.STREAM or connection.share == share:
                connection.sweep(now)
        others_wait = self._is_crowded and not self._is_reading
        for connection, handshake in list(self._handshakes.items()):
            if has_been_reset(handshake.sock):
                self._cut_handshake(connection)
                self._note_failure("disconnected", connection.peer)
            elif connection.is_late_for_handshake(now, self._patience_s(handshake, others_wait=others_wait)):
                handshake.task.cancel()
        if self._is_accepting and not self._is_reading and now >= self._starved_until:
            self._resume()

    def _patience_s(self, handshake: _Handshake, *, others_wait: bool) -> float:
        if not others_wait:
            return self.limits.handshake_s
        return self.limits.silence_s if has_said_nothing(handshake.sock) else self.limits.hurried_handshake_s

    # --- what connections say -------------------------------------------------------------------------------

    def refused(self, reason: str, peer: Peer) -> None:
        """Count a refusal; at most one log line per reason and address in a minute."""
        self.refusals[reason] += 1
        if self._budget.allows(reason, peer.address, self.now()):
            self._log.info("%s: refused %s: %s", self.name, peer.address or "a local process", reason)

    def ended(self, connection: Connection) -> None:
        """Forget a connection; calling it twice does nothing."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        self._admission.leave(connection.origin)
        if not self._connections:
            self._emptied.set()

    # --- accepting ------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        if not self._is_reading:
            asyncio.get_running_loop().add_reader(self._sock, self._accept_some)
            self._is_reading = True

    def _pause(self) -> None:
        if self._is_reading:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._is_reading = False

    def _accept_some(self) -> None:
        """Called while somebody waits; returns when places run out, to be called again if somebody still waits."""
        if self._is_crowded and not self._admission.can_give_way:
            self._pause()
            return
        if self._admission.is_full and self._cut_strangers():
            return  # they leave before the next turn
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _PASSING:
                    self._starve(error)
                    return
            else:
                self._admit(sock, _peer_of(self.name, sock, address))
            if self._is_crowded or self._admission.is_full:
                return

    @property
    def _is_crowded(self) -> bool:
        return self.ssl is not None and self._admission.is_shaking_enough

    def _starve(self, error: OSError) -> None:
        """Out of descriptors or memory: the listener stays readable, so accepting on would spin."""
        self._pause()
        self._starved_until = self.now() + STARVED_PAUSE_S
        self.refusals["starved"] += 1
        if self._budget.allows("starved", "", self.now()):
            self._log.error("%s: cannot accept (%s); resting %g s", self.name, error.strerror, STARVED_PAUSE_S)

    def _admit(self, sock: socket.socket, peer: Peer) -> None:
        origin = counted_as(peer.address)
        reason = self._admission.refuse(origin, handshake=self.ssl is not None)
        if reason:
            sock.close()
            self.refused(reason, peer)
            return
        if self._is_crowded:
            self._cut_greediest()
        self.accepted += 1
        self._admission.enter(origin)
        self._admission.handshake_begun(origin)
        connection = Connection(self, peer, origin, share=self.accepted % LINK_SHARES)
        opening = accepted(sock, lambda: connection, self.ssl, handshake_s=self.limits.handshake_s)
        task = asyncio.get_running_loop().create_task(opening)
        task.add_done_callback(lambda done: self._settle(done, sock, connection))
        self._connections[connection] = None
        self._handshakes[connection] = _Handshake(task, sock)
        self._emptied.clear()

    def _cut_greediest(self) -> None:
        """End the oldest handshake of the address that has most: half-open ones keep no honest client out."""
        greediest = self._admission.greediest(connection.origin for connection in self._handshakes)
        oldest = next(connection for connection in self._handshakes if connection.origin == greediest)
        self._cut_handshake(oldest)
        self.refused("crowded_out", oldest.peer)

    def _cut_handshake(self, connection: Connection) -> None:
        """End a handshake for a reason that is told elsewhere."""
        self._handshakes.pop(connection).task.cancel()
        self._admission.handshake_over(connection.origin)

    def _cut_strangers(self) -> bool:
        """End connections without a certificate, of the address that has most: they do not keep out the fleet.

        False if no address has several of them.
        """
        strangers = [connection for connection in self._connections if connection.is_strangers]
        most = Counter(connection.origin for connection in strangers).most_common(1)
        if self.ssl is None or not most or most[0][1] < 2:
            return False
        for connection in [one for one in strangers if one.origin == most[0][0]][:CUT_AT_ONCE]:
            self.refused("crowded_out", connection.peer)
            connection.abort()
        return True

    def _settle(self, task: asyncio.Task[None], sock: socket.socket, connection: Connection) -> None:
        """The handshake is over; runs however it went, even if the task never did."""
        is_cut = self._handshakes.pop(connection, None) is None
        if not is_cut:
            self._admission.handshake_over(connection.origin)
        if task.cancelled() or task.exception() is not None:
            if not is_cut:
                self._note_failure(self._reason_of(task), connection.peer)
            connection.abort()
            sock.close()
        if connection.transport is None:
            self.ended(connection)
        if self._is_accepting and self.now() >= self._starved_until:
            self._resume()

    def _note_failure(self, reason: str, peer: Peer) -> None:
        self.handshake_failures[reason] += 1
        if self._budget.allows(f"handshake {reason}", peer.address, self.now()):
            self._log.info("%s: handshake with %s failed: %s", self.name, peer.address, reason)

    def _reason_of(self, task: asyncio.Task[None]) -> str:
        """One of a small set of words, whatever the peer did."""
        if task.cancelled():
            return "timeout" if self._is_accepting else "closing"
        error = task.exception()
        if isinstance(error, tls.SSLCertVerificationError):
            return error.verify_message.lower().replace(" ", "_")
        if isinstance(error, tls.SSLError):
            return (error.reason or "tls").lower()
        if isinstance(error, ConnectionAbortedError | TimeoutError):
            return "timeout"
        if not isinstance(error, OSError):
            self._log.error("%s: accepting failed", self.name, exc_info=error)
        return "disconnected"

    # --- time -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._tick)
        self._share = (self._share + 1) % LINK_SHARES
        self.sweep(self._share)

    async def _is_empty_within(self, seconds: float) -> bool:
        if self._connections:
            self._emptied.clear()
            try:
                await asyncio.wait_for(self._emptied.wait(), seconds)
            except TimeoutError:
                return False
        return True


def _peer_of(listener: str, sock: socket.socket, address: Any) -> Peer:
    if sock.family != socket.AF_UNIX:
        return Peer(listener, address[0], address[1])
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(listener, uid=uid, gid=gid, pid=pid)
