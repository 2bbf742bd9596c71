"""Binding the daemon's addresses: who may use the admin socket, and what is in the way of it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from hengd import listen
from hengd.listen import bind_tcp, bind_unix
from henge_protocol.errors import Conflict, Denied, HengeError, Invalid


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> int:
    """The group henge, whether this system has one or not."""
    monkeypatch.setattr(listen, "group_id", lambda: 4364)
    return 4364


@pytest.fixture(autouse=True)
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, because a socket's has at most 107 bytes."""
    monkeypatch.chdir(tmp_path)


def mode_and_group(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_gid


@pytest.mark.root
def test_members_of_the_group_can_enter_the_folder_and_use_the_socket(group: int) -> None:
    before = os.umask(0o077)
    try:
        bind_unix(Path("run/admin.sock")).close()
    finally:
        os.umask(before)
    assert mode_and_group(Path("run")) == (0o750, group)
    assert mode_and_group(Path("run/admin.sock")) == (0o660, group)


@pytest.mark.root
def test_a_folder_that_was_there_is_left_as_it_is(group: int) -> None:
    Path("run").mkdir(mode=0o711)
    bind_unix(Path("run/admin.sock")).close()
    assert mode_and_group(Path("run"))[0] == 0o711
    assert mode_and_group(Path("run/admin.sock")) == (0o660, group)


def test_without_the_group_only_the_owner_can_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "group_id", lambda: None)
    bind_unix(Path("run/admin.sock")).close()
    assert mode_and_group(Path("run"))[0] == 0o700


def test_a_stale_socket_is_replaced_and_anything_else_refused() -> None:
    bind_unix(Path("admin.sock")).close()
    with bind_unix(Path("admin.sock")) as living:
        living.listen()
        with pytest.raises(Conflict) as refused:
            bind_unix(Path("admin.sock"))
        assert refused.value.code == "address_in_use"
    Path("notes.txt").write_text("mine")
    with pytest.raises(Invalid):
        bind_unix(Path("notes.txt"))
    assert Path("notes.txt").read_text() == "mine"
    with pytest.raises(Invalid):
        bind_unix(Path("/") / ("s" * 101))


def test_a_port_in_use_and_an_address_of_nobody_are_told_with_their_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", "203.0.113.7:4364"):
            with pytest.raises(HengeError) as refused:
                bind_tcp(address, "listen.devices")
            assert refused.value.code == "address_in_use"
            assert "listen.devices" in refused.value.cure
            assert ("--listen HOST:PORT" in refused.value.cure) == ("in use" in refused.value.message)


def test_a_port_for_root_alone_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: object, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listen.socket, "socket", type("Socket", (socket.socket,), {"bind": denied}))
    with pytest.raises(Denied) as refused:
        bind_tcp("127.0.0.1:443", "listen.devices")
    assert "above 1023" in refused.value.cure


def test_a_socket_that_cannot_be_made_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "admin.sock"
    with pytest.raises(Denied, match="Not a directory") as refused:
        bind_unix(below)

    assert str(below) in refused.value.message
    assert "listen.socket" in refused.value.cure
