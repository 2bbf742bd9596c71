"""Several daemons on one network: a device belongs to one of them, whatever the others announce."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lan.fleet import Home, LanDaemon
from tests.lan.network import Host

pytestmark = pytest.mark.root

IMPOSTOR = """
import asyncio, sys
from hengd.announce import Announcer
async def main(fleet, fingerprint):
    liar = Announcer(name="aaa", port=4364, fleet_id=fleet, server_ca_fingerprint=bytes.fromhex(fingerprint))
    await liar.start()
    print(await liar.announced(), flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""
"""Announces somebody else's fleet and authority at its own address; anybody can."""


def test_devices_stay_with_their_fleet_when_another_daemon_takes_its_address(home: Home) -> None:
    names = ("lamp", "searcher", "board")
    stranger = home.daemon(2, "stranger").start()
    home.fleet(stranger, *names)
    ours = home.settled("ours", "searcher")

    ours.host.move(50)
    stranger.host.also(1)
    with pretending(stranger.host, ours):
        for name in names:
            stranger.admin.set(name, color="blue")
            ours.admin.set(name, color="red")
        ours.in_sync(*names)

    assert [home.output(name)["color"] for name in ("lamp", "searcher")] == ["red", "red"]
    assert "red 80%" in home.said("board")
    assert "blue" not in home.said("board")
    for name in names:
        assert stranger.admin.status(name)["connection"] == "never-seen"


def test_the_old_daemon_was_started_again_beside_the_one_restored_from_its_backup(home: Home) -> None:
    names = ("lamp", "searcher", "board")
    old = home.settled("old", "searcher")
    backup = home.folder / "henge.backup"
    old.hengectl("backup", "-o", str(backup), "--passphrase-file", "-")
    old.kill()
    new = home.restored(backup, 2, "new").start()
    new.in_sync(*names)
    for name in names:
        new.admin.set(name, color="red")
    new.in_sync(*names)

    old.start()
    found = new.hengectl("doctor", "-o", "json", codes=(0, 1))
    new.stop()
    for name in names:  # what the old one says now was decided before the devices went on
        old.admin.until(name, config="ahead", connection="online")
        old.admin.set(name, color="blue")
    new.start()
    old.stop()
    new.in_sync(*names)

    assert "2 daemons announce this fleet" in found
    assert [home.output(name)["color"] for name in ("lamp", "searcher")] == ["red", "red"]
    assert "blue" not in home.said("board")


@contextmanager
def pretending(host: Host, victim: LanDaemon) -> Iterator[None]:
    """Announce the victim's fleet from this host."""
    status = victim.admin.call("GET", "/v1/status")
    fingerprint = status["ca_fingerprint"].removeprefix("SHA256").replace(" ", "")
    words = [*host.inside, sys.executable, "-c", IMPOSTOR, status["fleet"], fingerprint]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as liar:
        try:
            assert liar.stdout is not None
            assert liar.stdout.readline() == "aaa\n"
            yield
        finally:
            liar.kill()
