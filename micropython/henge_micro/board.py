"""The board underneath: clock, chance, Wi-Fi. Works on every port; the unix port has neither RTC nor Wi-Fi.

Importable on CPython, where tests run the parts without input and output.
"""

import hashlib
import os
import sys
import time

EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0
"""What this port's clock counts from, in unix seconds: ESP32 starts in 2000, RP2 and unix in 1970."""

WIFI_TIMEOUT_S = 20

_last_ms = None
_uptime_ms = 0


def unix_time():
    """Seconds since 1970, as far as this board knows."""
    return int(time.time()) + EPOCH_S


def set_time(unix_s):
    """Set the clock; False where there is none to set."""
    try:
        from machine import RTC
    except ImportError:
        return False
    year, month, day, hour, minute, second, weekday = time.gmtime(unix_s - EPOCH_S)[:7]
    RTC().datetime((year, month, day, weekday, hour, minute, second, 0))
    return True


def monotonic():
    """Seconds that only grow, whatever is done to the clock. To be asked at least once in six days."""
    global _last_ms, _uptime_ms
    now = time.ticks_ms()
    if _last_ms is not None:
        _uptime_ms += time.ticks_diff(now, _last_ms)
    _last_ms = now
    return _uptime_ms / 1000


def chance():
    """A number in [0, 1) that nobody can foretell; three bytes, because small boards have 24-bit mantissas."""
    return int.from_bytes(os.urandom(3), "big") / 16777216


def random_bytes(salt=b""):
    """Thirty-two bytes for keys: the hardware's, and whatever else an outsider does not know, hashed together."""
    try:
        from machine import unique_id

        salt += unique_id()
    except ImportError:
        pass
    return hashlib.sha256(os.urandom(32) + salt + str(time.time()).encode() + os.urandom(32)).digest()


def facts():
    """What a person wants to know about this board."""
    version = ".".join([str(part) for part in sys.implementation[1][:3]])
    return {"model": str(getattr(sys.implementation, "_machine", sys.platform))[:120], "micropython": version}


async def join_wifi(ssid, password):
    """Connect to a Wi-Fi network unless that is the one we are in; OSError when it does not work in time."""
    try:
        import network
    except ImportError:
        return  # a board, or a computer, whose network somebody else looks after
    import asyncio

    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    if not _is_in(wlan, ssid):
        wlan.disconnect()
        wlan.connect(ssid, password)
    for _ in range(WIFI_TIMEOUT_S * 5):
        if _is_in(wlan, ssid):
            return
        await asyncio.sleep_ms(200)
    wlan.disconnect()
    raise OSError("no Wi-Fi " + ssid)


def _is_in(wlan, ssid):
    return wlan.isconnected() and wlan.config("ssid") == ssid  # for a while it may still be the old one
