"""A colour lamp: a WS2812 strip on an ESP32 or a Pico W; without one it draws itself on the terminal.

Runs the schema ``lamp`` of examples/homelab. On a board: copy this file beside ``lib/henge_micro`` and ``henge.json``.
"""

import asyncio
import sys

from henge_micro.client import Client

COLORS = {
    "warm-white": (255, 170, 90), "neutral-white": (255, 220, 180), "cool-white": (220, 235, 255), "red": (255, 0, 0),
    "orange": (255, 120, 0), "yellow": (255, 220, 0), "green": (0, 255, 0), "cyan": (0, 255, 255), "blue": (0, 0, 255),
    "purple": (160, 0, 255), "pink": (255, 80, 160),
}  # fmt: skip
DEFAULTS = {"power": True, "color": "warm-white", "brightness": 30, "leds": {"count": 8, "gpio": 16, "order": "GRB"}}
"""What the lamp does before it has ever heard of a daemon."""


class Strip:
    """A strip of WS2812 LEDs; made anew when the wiring in the configuration changes."""

    def __init__(self, leds):
        from machine import Pin
        from neopixel import NeoPixel

        self._pixels = NeoPixel(Pin(leds.get("gpio", 16), Pin.OUT), leds.get("count", 8))
        if leds.get("order") == "RGB":
            self._pixels.ORDER = (0, 1, 2, 3)

    def show(self, rgb, label):
        """All LEDs in one colour."""
        self._pixels.fill(rgb)
        self._pixels.write()


class Drawing:
    """The same in a terminal."""

    def __init__(self, leds):
        self._count = min(leds.get("count", 8), 24)

    def show(self, rgb, label):
        """One line for each change."""
        if max(rgb):
            print("\x1b[38;2;%d;%d;%dm%s\x1b[0m  %s" % (rgb + ("\u25cf " * self._count, label)))
        else:
            print("\u25cb " * self._count, "", label)


LED = Drawing if sys.platform in ("linux", "darwin") else Strip
lamp = None


def check(config):
    """Refuse what this lamp cannot do; the message is shown to whoever changed it."""
    if config.get("color", "warm-white") not in COLORS:
        raise ValueError("this lamp has no colour " + str(config["color"]))


def show(new, old):
    """Make the lamp what the configuration says."""
    global lamp
    leds = new.get("leds", {})
    if lamp is None or leds != old.get("leds", {}):
        lamp = LED(leds)
    level = new.get("brightness", 60) if new.get("power", True) else 0
    color = new.get("color", "warm-white")
    rgb = tuple([part * level // 100 for part in COLORS[color]])
    lamp.show(rgb, "%s %d%%" % (color, level) if level else "off")


client = Client(defaults=DEFAULTS, on_config=show, check=check)
asyncio.run(client.run())
