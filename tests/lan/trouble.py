"""Cables, weather and addresses: whatever the network did, in the end every device runs what it should."""

from __future__ import annotations

import pytest

from tests.lan.fleet import Home, wait_for

pytestmark = pytest.mark.root


def test_who_was_cut_off_goes_on_and_is_right_again_when_the_cable_is_back(home: Home) -> None:
    daemon = home.daemon(1, "hengd").start()
    home.fleet(daemon, "near", "far", "board")
    home.agent(daemon, 11, "near", address="10.77.0.1")
    far, board = home.agent(daemon, 12, "far"), home.board(daemon, 13, "board")
    daemon.in_sync("near", "far", "board")

    for host in (far, board):
        host.unplug()
    for name in ("near", "far", "board"):
        daemon.admin.set(name, brightness=1)
    daemon.in_sync("near")
    for name in ("far", "board"):
        daemon.admin.until(name, connection="offline", config="pending")
    assert home.output("far")["brightness"] == 80
    daemon.admin.set("board", brightness=2)
    for host in (far, board):
        host.plug()
    daemon.in_sync("near", "far", "board")

    assert home.output("far")["brightness"] == 1
    assert "green 2%" in home.said("board")
    assert "green 1%" not in home.said("board")


def test_the_daemon_was_cut_off_and_nobody_is_lost(home: Home) -> None:
    daemon = home.settled("hengd")

    daemon.host.unplug()
    for name in ("lamp", "board"):
        daemon.admin.until(name, connection="offline")
        daemon.admin.set(name, color="red")
    daemon.host.plug()
    daemon.in_sync("lamp", "board")

    assert home.output("lamp")["color"] == "red"
    assert "red 80%" in home.said("board")


def test_changes_arrive_in_bad_weather(home: Home) -> None:
    daemon = home.settled("hengd")

    home.lan.whole_frames()
    with daemon.host.weather(loss=0.3, delay_s=0.2):
        for number in range(1, 4):
            for name in ("lamp", "board"):
                daemon.admin.set(name, brightness=number)
            daemon.in_sync("lamp", "board")
            assert home.output("lamp")["brightness"] == number

    assert "green 3%" in home.said("board")


def test_a_daemon_that_starts_in_bad_weather_finds_its_devices_again(home: Home) -> None:
    daemon = home.settled("hengd")

    home.lan.whole_frames()
    with daemon.host.weather(loss=0.3, delay_s=0.2):
        daemon.kill()
        daemon.start()
        for name in ("lamp", "board"):
            daemon.admin.set(name, color="blue")
        daemon.in_sync("lamp", "board")

    assert home.output("lamp")["color"] == "blue"
    assert "blue 80%" in home.said("board")


def test_the_daemon_has_another_address(home: Home) -> None:
    names = ("lamp", "searcher", "board")
    daemon = home.settled("hengd", "searcher")

    daemon.host.move(50)
    for name in names:
        daemon.admin.set(name, color="red")
    daemon.in_sync(*names)

    wait_for(lambda: "connected to 10.77.0.50:4364" in home.said("lamp"), home.folder / "lamp.log")
    assert home.output("lamp")["color"] == "red"
    assert home.output("searcher")["color"] == "red"
    assert "red 80%" in home.said("board")
