"""What the unix port lacks, played by modules of our own: Wi-Fi, clock, serial number."""

import asyncio
import sys

from henge_micro import board


class Wlan:
    """A radio that takes a while to leave one network and to enter another."""

    def __init__(self, _=None):
        self.ssid, self.next, self.wait = "old", "old", 0
        self.connects = []

    def active(self, on):
        """As network.WLAN."""

    def disconnect(self):
        """As network.WLAN."""
        self.next, self.wait = None, 2

    def connect(self, ssid, password):
        """As network.WLAN."""
        self.connects.append((ssid, password))
        self.next, self.wait = ssid if password == "right" else None, 3

    def isconnected(self):
        """As network.WLAN."""
        self.wait -= 1
        if self.wait <= 0:
            self.ssid = self.next
        return self.ssid is not None

    def config(self, name):
        """As network.WLAN."""
        assert name == "ssid"
        return self.ssid


class Module:
    """A module of the firmware."""

    def __init__(self, **fields):
        for name in fields:
            setattr(self, name, fields[name])


def joined(ssid, password):
    """Join a network from another one; the radio."""
    wlan = Wlan()
    sys.modules["network"] = Module(WLAN=lambda _: wlan, STA_IF=0)
    board.WIFI_TIMEOUT_S = 1
    asyncio.run(board.join_wifi(ssid, password))
    return wlan


def test_wifi_is_changed_and_waited_for():
    wlan = joined("new", "right")
    assert wlan.ssid == "new" and wlan.connects == [("new", "right")]


def test_wifi_that_is_there_is_left_alone():
    assert joined("old", "right").connects == []


def test_wifi_that_does_not_let_us_in_is_told():
    try:
        joined("new", "wrong")
        raise AssertionError("joined with a wrong password")
    except OSError as error:
        assert "new" in str(error)


def test_without_wifi_there_is_nothing_to_do():
    asyncio.run(board.join_wifi("any", "thing"))


def test_the_clock_is_set_on_boards_of_either_epoch():
    said = []
    rtc = Module(datetime=said.append)
    sys.modules["machine"] = Module(RTC=lambda: rtc)
    assert board.set_time(1800000000)
    assert said == [(2027, 1, 15, 4, 8, 0, 0, 0)], said
    board.EPOCH_S = 0
    assert abs(board.unix_time() - board.time.time()) < 2


def test_without_a_clock_that_is_said():
    assert board.set_time(1800000000) is False


def test_keys_do_not_rest_on_the_hardware_s_randomness_alone():
    board.os = Module(urandom=lambda size: b"\0" * size)
    sys.modules["machine"] = Module(unique_id=lambda: b"one")
    one, salted = board.random_bytes(), board.random_bytes(b"token")
    sys.modules["machine"] = Module(unique_id=lambda: b"other")
    assert len({one, salted, board.random_bytes()}) == 3
    assert len(one) == 32


def test_chances_are_spread():
    chances = [board.chance() for _ in range(200)]
    assert all(0 <= chance < 1 for chance in chances)
    assert min(chances) < 0.2 and max(chances) > 0.8


def test_time_only_grows():
    first = board.monotonic()
    board.time.sleep_ms(5)
    assert board.monotonic() > first
