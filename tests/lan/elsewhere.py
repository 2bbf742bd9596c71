"""The machine with the daemon is gone; last night's backup goes on at another address."""

from __future__ import annotations

import http.client
import itertools
import threading
import time

import pytest

from tests.lan.fleet import Home, LanDaemon, wait_for
from tests.service import verify_store
from tests.system.programs import Admin

pytestmark = pytest.mark.root

CHANGED = ("lamp-1", "lamp-2")
"""What they run when the daemon dies is newer than the backup."""
UNCHANGED = ("lamp-3", "lamp-4", "board")


def test_a_fleet_follows_its_restored_daemon_to_another_host(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    old = home.daemon(1, "old").start()
    home.fleet(old, *CHANGED, *UNCHANGED)
    for number, name in enumerate((*CHANGED, "lamp-3", "lamp-4"), 11):
        home.agent(old, number, name, address="10.77.0.1" if number % 2 else "")
    home.board(old, 20, "board")
    old.in_sync(*CHANGED, *UNCHANGED)
    load = threading.Thread(target=keep_changing, args=(old,))
    load.start()
    backup = home.folder / "last-night.backup"
    old.hengectl("backup", "-o", str(backup), "--passphrase-file", "-")
    for name in CHANGED:
        old.admin.set(name, color="blue")
        wait_for(lambda name=name: home.output(name)["color"] == "blue", old.log)  # type: ignore[misc]

    old.kill()
    killed = time.monotonic()
    load.join()
    old.host.unplug()
    new = home.restored(backup, 2, "new").start()
    serving = time.monotonic()
    new.in_sync(*UNCHANGED)
    for name in CHANGED:
        new.admin.until(name, config="ahead", connection="online")
    back = time.monotonic()
    held = [home.output(name)["color"] for name in CHANGED]
    for name in CHANGED:
        new.hengectl("retry", name)
    new.in_sync(*CHANGED, *UNCHANGED)
    done = time.monotonic()
    for name in (*CHANGED, *UNCHANGED):
        new.admin.set(name, color="red")
    new.in_sync(*CHANGED, *UNCHANGED)

    assert held == ["blue", "blue"]
    assert "red 80%" in home.said("board")
    for name in (*CHANGED, "lamp-3", "lamp-4"):
        assert home.output(name)["color"] == "red"
    assert new.stop() == 0
    verify_store(new.data)
    with capsys.disabled():
        print(  # noqa: T201
            f"\nkilled; restored and serving elsewhere after {serving - killed:.1f} s, all {len(CHANGED + UNCHANGED)}"
            f" devices back after {back - killed:.1f} s; those ahead in sync {done - back:.1f} s after retry"
        )


def keep_changing(daemon: LanDaemon) -> None:
    """Write as fast as the daemon answers, until it dies."""
    admin = Admin(daemon.socket)
    for number in itertools.count():
        try:
            admin.set(CHANGED[number % 2], brightness=number % 100)
        except (OSError, http.client.HTTPException):
            return
