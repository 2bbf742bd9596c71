"""Who is at the other end of the admin socket: the kernel says which user (SO_PEERCRED), the system who that is."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Final

from hengd.rules.authority import Caller
from henge_protocol.errors import Denied

GROUP: Final = "henge"


def local_admin(uid: int | None, gid: int | None) -> Caller:
    """The operator behind a local process: root, the daemon's own user, members of group ``henge``; else ``Denied``."""
    if uid is None:
        raise Denied("peer_denied", "the system does not say who is at the other end of the socket")
    name = _user(uid)
    if uid in (0, os.getuid()) or _in_group(name, gid):
        return Caller("admin", name, name, left_s=3600.0, rights="admin")
    raise Denied(
        "peer_denied",
        f"user {name} may not administer this daemon",
        cure=f"sudo usermod -a -G {GROUP} {name}, then log in again",
    )


def group_id() -> int | None:
    """Number of the group whose members may administer, or None if this system has none."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _in_group(name: str, gid: int | None) -> bool:
    try:
        entry = grp.getgrnam(GROUP)
    except KeyError:
        return False
    return gid == entry.gr_gid or name in entry.gr_mem
