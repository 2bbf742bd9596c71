"""A thermostat: your own loop beside henge's. A relay on a pin, a sensor, and set points that come from the daemon.

Runs the schema ``thermostat`` of examples/homelab. Without a board the temperature is invented and the relay printed.
"""

import asyncio

from henge_micro.client import Client

try:
    from machine import ADC, WDT, Pin
except ImportError:
    Pin = None

DEFAULTS = {"target_c": 18, "hysteresis_c": 0.5, "relay_gpio": 15}
"""Frost protection, even if no daemon was ever there."""


def read_celsius():
    """The RP2's own sensor; replace it by yours."""
    if Pin is None:
        return 19.0
    return 27 - (ADC(4).read_u16() * 3.3 / 65535 - 0.706) / 0.001721


def switch(heating):
    """The relay."""
    if Pin is None:
        print("heating" if heating else "not heating")
    else:
        Pin(client.config.get("relay_gpio", 15), Pin.OUT).value(heating)


def check(config):
    """The last word against a typing error belongs to the device that heats."""
    if not 5 <= config.get("target_c", 18) <= 28:
        raise ValueError("this room is kept between 5 and 28 degrees")


async def regulate():
    """Runs whether or not the daemon is reachable, always with the last good configuration."""
    heating = None
    while True:
        target, band = client.config.get("target_c", 18), client.config.get("hysteresis_c", 0.5)
        celsius = read_celsius()
        wanted = celsius < target - band if not heating else celsius < target + band
        if wanted != heating:
            heating = wanted
            switch(heating)
        await asyncio.sleep(5)


async def main():
    """Both loops, for ever; the watchdog restarts a board that hangs, and henge undoes what made it hang."""
    asyncio.create_task(regulate())
    await client.run()


feed = WDT(timeout=8000).feed if Pin is not None else None
client = Client(defaults=DEFAULTS, check=check, feed=feed)
asyncio.run(main())
