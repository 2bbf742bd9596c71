"""Asking the running daemon over its admin socket: it owns the data folder, which has room for one process only."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from henge_protocol.errors import CODES, Denied, HengeError, Problem, Unreachable
from henge_protocol.problems import refusal_by_status

PATIENCE_S: Final = 120.0
"""A step that makes keys and syncs files on a slow card, behind others that do."""


class Asker:
    """The daemon behind the first of these sockets where somebody listens."""

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = sockets

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """The value of the answer; raises the daemon's refusal, and as ``fetch``."""
        return json.loads(self.fetch(method, path, body))

    def fetch(self, method: str, path: str, body: Mapping[str, object] | None = None) -> bytes:
        """The bytes of the answer. Raises ``Unreachable`` ``no_daemon`` or ``unreachable``, ``Denied peer_denied``."""
        connection = http.client.HTTPConnection("henge", timeout=PATIENCE_S)
        connection.sock, place = self._connected()
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            message = f"the daemon behind {place} gave no answer ({type(error).__name__})"
            raise Unreachable("unreachable", message, cure="see what it did: hengd ca status") from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise _refusal(answer.status, content)
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


def _refusal(status: int, content: bytes) -> HengeError:
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    said: dict[str, Any] = problem if isinstance(problem, dict) else {}
    kind, generic = refusal_by_status(status)
    code = str(said.get("code", ""))
    spots = [
        Problem(str(one.get("pointer", "")), str(one.get("message", "")), str(one.get("object", "")))
        for one in said.get("errors", ())
    ]
    told = str(said.get("detail") or f"the daemon answered {status}")
    return kind(code if code in CODES else generic, told, cure=str(said.get("cure", "")), problems=spots)
