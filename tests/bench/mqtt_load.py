"""The peer's load generator as a process: ``python -m tests.bench.mqtt_load FILE``, steered like ``load.py``.

What henge's devices do, said in MQTT: each device subscribes to the one retained topic that holds the
configuration, and answers each message with a PUBACK and, in the same write, an acknowledgement of its own,
as an application that wants to know who runs what has to. A controller publishes the changes and collects
the acknowledgements. A round is over when the controller has all of them, every device has the broker's
PUBACK for its own, and the broker has seen all of the controller's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import aiofastnet
import uvloop

from henge_protocol.tls import pinned_client_context
from henge_protocol.trust import server_name
from tests.bench import mqtt
from tests.bench.fleet import TLS_BUFFER_BYTES
from tests.bench.load import say, standard_input

CONFIG_TOPIC, ACKS = "config/all", "ack/"
CONFIG_BYTES, ACK_BYTES = 300, 150
ROUND_DIGITS = 8
"""Each configuration begins with the number of its round, and each acknowledgement repeats it."""
KEEP_ALIVE_S = 30
"""A broker waits one and a half times as long: the 45 s within which henge notices a dead peer."""
CONCURRENCY = 64
PATIENCE_S = 60


class Client(asyncio.Protocol):
    """One connection: opens the session, subscribes, acknowledges, keeps itself alive."""

    def __init__(self, name: str, topic_filter: str, heard: Callable[[Client, mqtt.Message], bytes]) -> None:
        self.name = name
        self.subscribed = asyncio.Event()
        self.answered = asyncio.Event()
        self.confirmed: Callable[[], None] = lambda: None
        self._filter = topic_filter
        self._heard = heard
        self._reader = mqtt.Reader()
        self._packet_id = 0
        self._wrote_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # aiofastnet's own: like it, not one by descent
        self._loop = asyncio.get_running_loop()
        self.write(mqtt.connect(self.name, keep_alive_s=KEEP_ALIVE_S))
        self._timer = self._loop.call_later(KEEP_ALIVE_S, self._keep_alive)

    def data_received(self, data: bytes) -> None:
        replies = b"".join([self._reply(packet) for packet in self._reader.feed(data)])
        if replies:
            self.write(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()

    def write(self, data: bytes) -> None:
        self._wrote_at = self._loop.time()
        self._transport.write(data)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> bytes:
        """The packet of one message."""
        self._packet_id = self._packet_id % 0xFFFF + 1
        return mqtt.publish(self._packet_id, topic, payload, retain=retain)

    def cut(self) -> None:
        """Drop the connection without a word."""
        self._transport.abort()

    async def ping(self) -> None:
        """Until the broker has seen everything that was written before."""
        self.answered.clear()
        self.write(mqtt.PING)
        await asyncio.wait_for(self.answered.wait(), PATIENCE_S)

    def _reply(self, packet: mqtt.Packet) -> bytes:
        if packet.kind == mqtt.PUBLISH:
            message = mqtt.message_of(packet)
            return mqtt.puback(message.packet_id) + self._heard(self, message)
        if packet.kind == mqtt.PUBACK:
            self.confirmed()
        elif packet.kind == mqtt.PINGRESP:
            self.answered.set()
        elif packet.kind == mqtt.SUBACK:
            self.subscribed.set()
        elif packet.kind == mqtt.CONNACK:
            if packet.body[1]:
                raise ConnectionError(f"the broker refused {self.name}: code {packet.body[1]}")
            return mqtt.subscribe(1, self._filter)
        return b""

    def _keep_alive(self) -> None:
        silent_s = self._loop.time() - self._wrote_at
        if silent_s >= KEEP_ALIVE_S:
            self.write(mqtt.PING)
            silent_s = 0.0
        self._timer = self._loop.call_later(KEEP_ALIVE_S - silent_s, self._keep_alive)


class Tally:
    """How far all devices together are in one round."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self.begin(0)

    def begin(self, number: int) -> None:
        """Count from nought, for the round of this number."""
        self._mark = b"%0*d" % (ROUND_DIGITS, number)
        self._acks = self._confirmations = 0
        self._reached = asyncio.Event()

    def configuration(self) -> bytes:
        """What the devices shall run in this round."""
        return self._mark.ljust(CONFIG_BYTES, b"c")

    def ack(self, message: mqtt.Message) -> None:
        """The controller has one device's word."""
        if not message.payload.startswith(self._mark):
            raise ValueError(f"{message.topic} acknowledges {message.payload[:ROUND_DIGITS]!r}, not {self._mark!r}")
        self._acks += 1
        self._look()

    def confirm(self) -> None:
        """One device knows that the broker took its word."""
        self._confirmations += 1
        self._look()

    async def wait(self) -> None:
        """Until both have happened for every device."""
        await asyncio.wait_for(self._reached.wait(), PATIENCE_S)

    def _look(self) -> None:
        if self._acks == self._confirmations == self._devices:
            self._reached.set()


class Peer:
    """Where the broker is, and how to open connections to it."""

    def __init__(self, work: dict[str, Any]) -> None:
        self._address = (work["host"], work["port"])
        self._authorities = [base64.b64decode(one) for one in work["server_ca"]]
        self._name = server_name(work["fleet"])
        self._turns = asyncio.Semaphore(CONCURRENCY)

    def context(self, pem: str) -> ssl.SSLContext:
        """A client's own context."""
        return pinned_client_context(self._authorities, pem.encode(), passed=0.0)

    async def open(self, client: Client, context: ssl.SSLContext) -> None:
        """Connect and subscribe."""
        async with self._turns:
            await aiofastnet.create_connection(
                asyncio.get_running_loop(),
                lambda: client,
                *self._address,
                ssl=context,
                server_hostname=self._name,
                ssl_handshake_timeout=60,
                ssl_incoming_bio_size=TLS_BUFFER_BYTES,
                ssl_outgoing_bio_size=TLS_BUFFER_BYTES,
            )
            await asyncio.wait_for(client.subscribed.wait(), PATIENCE_S)


async def generate(work: dict[str, Any]) -> None:
    """Connect, then one round per line of standard input."""
    peer, tally = Peer(work), Tally(len(work["identities"]))
    contexts = [peer.context(one["pem"]) for one in work["identities"]]
    controller = Client("controller", ACKS + "#", lambda _client, message: _counted(tally, message))
    await peer.open(controller, peer.context(work["controller"]))
    controller.write(controller.publish(CONFIG_TOPIC, tally.configuration(), retain=True))
    await controller.ping()
    devices = [Client(one["name"], CONFIG_TOPIC, _acknowledge) for one in work["identities"]]
    for device in devices:
        device.confirmed = tally.confirm
    say("ready")
    reader = await standard_input()
    await reader.readline()
    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for device, context in zip(devices, contexts, strict=True):
            group.create_task(peer.open(device, context))
    await _finish(tally, controller, "connected", started)
    await _rounds(reader, tally, controller)
    for client in (controller, *devices):
        client.cut()


async def _rounds(reader: asyncio.StreamReader, tally: Tally, controller: Client) -> None:
    number = 0
    while await reader.readline():
        number += 1
        started = perf_counter()
        tally.begin(number)
        controller.write(controller.publish(CONFIG_TOPIC, tally.configuration(), retain=True))
        await _finish(tally, controller, "round", started)


async def _finish(tally: Tally, controller: Client, word: str, started: float) -> None:
    await tally.wait()
    await controller.ping()
    say(f"{word} {perf_counter() - started:.3f}")


def _acknowledge(device: Client, message: mqtt.Message) -> bytes:
    """A device's own word for the configuration it was sent."""
    payload = message.payload[:ROUND_DIGITS].ljust(ACK_BYTES, b"a")
    return device.publish(ACKS + device.name, payload, retain=False)


def _counted(tally: Tally, message: mqtt.Message) -> bytes:
    """The controller has nothing to add to its PUBACK."""
    tally.ack(message)
    return b""


if __name__ == "__main__":
    uvloop.run(generate(json.loads(Path(sys.argv[1]).read_text())))
