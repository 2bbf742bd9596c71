"""A sensor on a battery: wakes up, asks once whether anything is new, measures, sleeps on.

One request a wake-up when nothing has changed, two when something has. The daemon knows when the board will be back and
calls it asleep, not offline. Without a board it sleeps a second instead, and stops after three rounds.
"""

import asyncio
import time

from henge_micro.client import Client

DEFAULTS = {"interval_s": 900}


def measure():
    """Your sensor, and where its values go (henge carries configuration, not measurements)."""
    print("measured")


def sleep(seconds):
    """Until the next wake-up; the board starts from the top then."""
    try:
        from machine import deepsleep
    except ImportError:
        time.sleep(1)
        return
    deepsleep(seconds * 1000)


for _ in range(3):
    client = Client(defaults=DEFAULTS)
    interval_s = client.config.get("interval_s", 900)
    reached = asyncio.run(client.once(interval_s))
    print("daemon reached" if reached else "no daemon (%s)" % client.state, client.config)
    measure()
    sleep(client.config.get("interval_s", 900))
