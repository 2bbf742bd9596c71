"""Events over Server-Sent Events: in order, resumed by number, ended with the daemon and with the identity."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from hengd.events import KEPT
from henge_protocol import pki
from tests.hengd.http.joinkit import identity_in, spend, token_of
from tests.service import PATIENCE_S, Admin, Service, device, group, schema

STREAM = {"Accept": "text/event-stream"}


class Reader:
    """Reads a stream block by block."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> dict[str, str]:
        """The fields of the next block that is an event."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                line = (await self.response.content.readline()).decode()
                if not line:
                    raise ConnectionError("the stream has ended")
                if line == "\n":
                    if "data" in fields:
                        return fields
                    fields = {}
                elif not line.startswith(":"):
                    name, _, value = line.rstrip("\n").partition(": ")
                    fields[name] = value

    async def event(self) -> dict[str, Any]:
        """The next event's data."""
        return dict(json.loads((await self.block())["data"]))


@asynccontextmanager
async def stream(client: Admin, query: str = "", **headers: str) -> AsyncIterator[Reader]:
    """An open stream of events."""
    request = client.session.get(f"/v1/events{query}", headers=STREAM | headers, server_hostname=client._hostname)
    async with request as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        yield Reader(response)


async def test_events_arrive_as_they_happen_with_number_type_and_data(admin: Admin) -> None:
    async with stream(admin) as reader:
        await admin.apply(schema())
        block = await reader.block()
        data = json.loads(block["data"])

    assert (block["event"], block["id"]) == ("object.changed", str(data["seq"]))
    assert (data["kind"], data["name"]) == ("Schema", "lamp")


async def test_a_stream_that_broke_goes_on_after_the_last_number(admin: Admin) -> None:
    async with stream(admin) as reader:
        await admin.apply(schema())
        seen = (await reader.block())["id"]
    await admin.apply(group("kitchen", "room=kitchen"))
    await admin.apply(device("lamp-1"))
    async with stream(admin, **{"Last-Event-ID": seen}) as reader:
        names = [(await reader.event())["name"] for _ in range(2)]
    async with stream(admin, f"?since={seen}") as reader:
        again = (await reader.event())["name"]

    assert (names, again) == (["kitchen", "lamp-1"], "kitchen")


async def test_a_reader_who_missed_some_is_told(daemon: Service, admin: Admin) -> None:
    since = daemon.app.events.seq
    daemon.app.events.add_all(0.0, "device.changed", "Device", range(KEPT + 10), lambda number: (f"d{number}", {}))
    async with stream(admin, f"?since={since}") as reader:
        block = await reader.block()
        first = await reader.event()

    assert block["event"] == "gap"
    assert first["seq"] == daemon.app.events.seq - KEPT + 1


@pytest.mark.parametrize("number", ["x", "-1", "1_0", "1" * 16, "١٢", " 7 7"])
async def test_another_last_event_id_is_refused(admin: Admin, number: str) -> None:
    headers = STREAM | {"Last-Event-ID": number}
    answer = await admin.refused("GET", "/v1/events", headers=headers)

    assert (answer.status, answer.code) == (400, "bad_parameter")


async def test_a_stream_ends_when_the_daemon_stops(daemon: Service, admin: Admin) -> None:
    async with stream(admin) as reader:
        await daemon.stop()
        with pytest.raises((ConnectionError, aiohttp.ClientError)):
            await reader.block()
    await daemon.start()


async def test_a_stream_ends_with_the_identity_of_its_reader(daemon: Service, admin: Admin) -> None:
    key = pki.generate_key()
    token = await token_of(admin, kind="admin", role="viewer")
    eve = identity_in((await spend(daemon, token, key, "eve", "/v1/login")).json, key)
    async with daemon.remote(eve) as remote, stream(remote) as reader:
        await admin.ok("DELETE", "/v1/operators/eve")
        with pytest.raises((ConnectionError, aiohttp.ClientError)):
            await reader.block()


async def test_who_takes_anything_gets_one_answer(admin: Admin) -> None:
    answer = await admin.call("GET", "/v1/events", headers={"Accept": "*/*"})

    assert answer.json["events"] == []
