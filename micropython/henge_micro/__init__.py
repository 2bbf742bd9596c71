"""henge for MicroPython 1.25 and newer: the board gets its configuration, applies it, undoes what cuts it off.

import asyncio
from henge_micro.client import Client

client = Client(defaults={"color": "green"}, on_config=lambda new, old: print(new))
asyncio.run(client.run())
"""
