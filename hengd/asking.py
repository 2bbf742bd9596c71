"""Asking the running daemon over its admin socket: it owns the data folder, which has room for one process only."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from henge_protocol.errors import Denied, Unreachable
from henge_protocol.problems import read_problem, refusal_of

PATIENCE_S: Final = 120.0
"""A step that makes keys and syncs files on a slow card, behind others that do."""
MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Far more than any of these answers; a guard against a peer that never stops."""


class Asker:
    """The daemon behind the first of these sockets where somebody listens."""

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = sockets

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The object of the answer; raises the daemon's refusal, and as ``fetch``."""
        try:
            value = json.loads(self.fetch(method, path, body))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            places = " or ".join(map(str, self._sockets))
            message = f"what listens on {places} answers as no hengd does"
            raise Unreachable("unreachable", message, cure="name the socket of hengd: --socket PATH")
        return value

    def fetch(self, method: str, path: str, body: Mapping[str, object] | None = None) -> bytes:
        """The bytes of the answer. Raises ``Unreachable`` ``no_daemon`` or ``unreachable``, ``Denied peer_denied``."""
        connection = http.client.HTTPConnection("henge", timeout=PATIENCE_S)
        connection.sock, place = self._connected()
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER_BYTES)
            if answer.length or answer.read(1):  # cut off, or without end
                raise http.client.IncompleteRead(b"")
        except (OSError, http.client.HTTPException) as error:
            message = f"the daemon behind {place} gave no answer ({type(error).__name__})"
            raise Unreachable("unreachable", message, cure="see what it did: hengd ca status") from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise refusal_of(answer.status, read_problem(content))
        return content

    def _connected(self) -> tuple[socket.socket, Path]:
        for path in self._sockets:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.settimeout(PATIENCE_S)
            try:
                opened.connect(str(path))
            except PermissionError:
                opened.close()
                cure = "sudo usermod -aG henge $USER, then log in anew; or use sudo"
                raise Denied("peer_denied", f"you may not use the socket {path}", cure=cure) from None
            except OSError:
                opened.close()
            else:
                return opened, path
        places = " or ".join(map(str, self._sockets))
        raise Unreachable(
            "no_daemon",
            f"no hengd runs here: nobody listens on {places}",
            cure="start it: systemctl start hengd; or name the socket of yours: --socket PATH",
        )
