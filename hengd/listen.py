"""Binding the daemon's addresses; what cannot be bound is told with the setting that names it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from hengd.local import group_id
from hengd.settings import split_address
from henge_protocol.errors import Conflict, Denied, HengeError, Invalid, Unavailable
from henge_protocol.keyfiles import make_private_dir

_FLAGS: Final = {"listen.devices": "--listen", "listen.local": "--local"}


def bind_tcp(address: str, key: str) -> socket.socket:
    """A bound socket; ``Conflict`` ``address_in_use``, ``Denied`` or ``Unavailable`` name the setting."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        try:
            info = socket.getaddrinfo(host, port, family=family if ":" in host else 0, type=socket.SOCK_STREAM)[0]
            sock = stack.enter_context(socket.socket(info[0], socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if info[0] == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(info[4])
        except OSError as error:
            raise bind_error(error, address, key) from None
        stack.pop_all()
        return sock


def bind_unix(path: Path) -> socket.socket:
    """The admin socket, for owner and group only; a stale one is replaced, one that a daemon answers on is refused."""
    if len(os.fsencode(path)) > 100:
        raise Invalid("bad_setting", f"the socket's path {path} is longer than 100 bytes", cure="set listen.socket")
    try:
        return _bind_unix(path, group_id())
    except OSError as error:
        cure = "set listen.socket to a folder of the daemon's user"
        raise Denied("address_in_use", f"cannot make the socket {path} ({error.strerror})", cure=cure) from None


def _bind_unix(path: Path, group: int | None) -> socket.socket:
    if not path.parent.exists():
        make_private_dir(path.parent)
        if group is not None and os.getuid() == 0:
            os.chown(path.parent, -1, group)
            path.parent.chmod(0o750)
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        raise Invalid("bad_setting", f"{path} exists and is not a socket", cure="set listen.socket to another path")
    if _answers(path):
        raise Conflict("address_in_use", f"another daemon serves {path}", cure="stop it first, or set listen.socket")
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    if group is not None and os.getuid() == 0:
        os.chown(path, -1, group)
    return sock


def bind_error(error: OSError, address: str, key: str) -> HengeError:
    """What the system says of an address, with the setting that names it."""
    if error.errno == errno.EADDRINUSE:
        cure = f"stop the other program, or choose another port: {_FLAGS[key]} HOST:PORT, or {key} in the settings"
        return Conflict("address_in_use", f"port {address} is in use", cure=cure)
    if error.errno == errno.EACCES:
        return Denied("address_in_use", f"no permission to listen on {address}", cure=f"set {key} to a port above 1023")
    return Unavailable("address_in_use", f"cannot listen on {address} ({error.strerror})", cure=f"set {key}")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        return sock.connect_ex(str(path)) == 0
