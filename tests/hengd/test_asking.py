"""Asking the daemon over its admin socket: who is asked, and what is said when nobody answers."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest

from hengd.asking import MAX_ANSWER_BYTES, Asker
from henge_protocol.errors import Conflict, Denied, Internal, Unreachable
from tests.service import Service


async def test_the_first_socket_where_somebody_listens_is_asked(daemon: Service, tmp_path: Path) -> None:
    asker = Asker([tmp_path / "none", daemon.socket])
    found = await asyncio.to_thread(asker.call, "GET", "/v1/authorities")

    assert found["fleet"] == daemon.app.authority.fleet


async def test_a_refusal_is_the_daemons_own(daemon: Service) -> None:
    with pytest.raises(Conflict) as refused:
        await asyncio.to_thread(Asker([daemon.socket]).call, "POST", "/v1/authorities/server/switch", {})
    assert (refused.value.code, "hengd ca rotate begin" in refused.value.cure) == ("rotation_step", True)


def test_where_nobody_listens_the_places_are_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(Unreachable) as refused:
        Asker([tmp_path / "a", tmp_path / "b"]).call("GET", "/v1/authorities")
    assert refused.value.code == "no_daemon"
    assert f"{tmp_path / 'a'} or {tmp_path / 'b'}" in refused.value.message
    assert "--socket PATH" in refused.value.cure


def test_a_socket_that_is_not_for_us_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: socket.socket, address: str) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket.socket, "connect", denied)
    with pytest.raises(Denied) as refused:
        Asker([tmp_path / "a"]).call("GET", "/v1/authorities")
    assert (refused.value.code, "usermod" in refused.value.cure) == ("peer_denied", True)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", Unreachable),
        (b"SSH-2.0\r\n\r\n", Unreachable),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]", Internal),
        (b"HTTP/1.1 200 Yes\r\nContent-Length: 2\r\n\r\n[]", Unreachable),
        (b"HTTP/1.1 200 Yes\r\nContent-Length: 6\r\n\r\n<html>", Unreachable),
        (b"HTTP/1.1 200 Yes\r\nContent-Length: 9\r\n\r\n{}", Unreachable),
        (b"HTTP/1.1 200 Yes\r\n\r\n" + b"[" * 100_000, Unreachable),
        (b"HTTP/1.1 200 Yes\r\n\r\n{}" + b" " * MAX_ANSWER_BYTES, Unreachable),
    ],
)
def test_what_is_no_daemon_is_told_as_that(tmp_path: Path, answer: bytes, error: type[Exception]) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(error):
            Asker([path]).call("GET", "/v1/authorities")
        serving.join()
