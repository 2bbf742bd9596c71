"""Events over Server-Sent Events and a WebSocket: in order, resumed by number, ended with daemon and identity."""

from __future__ import annotations

import asyncio
import json
import logging
import select
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from hengd.events import KEPT, Event
from hengd.http import edge, eventstream, views
from hengd.rules.issuing import ADMIN_LIFETIME_S
from henge_protocol import pki
from tests.hengd.http.joinkit import identity_in, spend, token_of
from tests.hengd.http.raw import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame
from tests.service import PATIENCE_S, Admin, Identity, Service, device, group, schema

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


async def test_an_event_is_put_into_words_once_however_many_read_it(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def event_view(event: Event) -> dict[str, Any]:
        told.append(event.seq)
        return views.event_view(event)

    monkeypatch.setattr(eventstream, "event_view", event_view)
    async with AsyncExitStack() as streams:
        readers = [await streams.enter_async_context(stream(admin)) for _ in range(5)]
        await admin.apply(schema(), *[device(f"lamp-{number}") for number in range(9)])
        seen = [[await reader.event() for _ in range(10)] for reader in readers]

    assert all(one == seen[0] for one in seen)
    assert len({event["seq"] for event in seen[0]}) == 10
    assert sorted(told) == sorted(set(told))


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


async def viewer(daemon: Service, admin: Admin) -> Identity:
    """An operator who may look, with a certificate."""
    key = pki.generate_key()
    token = await token_of(admin, kind="admin", role="viewer")
    return identity_in((await spend(daemon, token, key, "eve", "/v1/login")).json, key)


async def test_a_stream_ends_when_the_daemon_stops(daemon: Service, admin: Admin) -> None:
    async with stream(admin) as reader:
        await daemon.stop()
        with pytest.raises((ConnectionError, aiohttp.ClientError)):
            await reader.block()
    await daemon.start()


async def test_a_stream_ends_with_the_identity_of_its_reader(daemon: Service, admin: Admin) -> None:
    async with daemon.remote(await viewer(daemon, admin)) as remote, stream(remote) as reader:
        await admin.ok("DELETE", "/v1/operators/eve")
        with pytest.raises((ConnectionError, aiohttp.ClientError)):
            await reader.block()


async def test_a_stream_tells_nothing_after_the_end_of_its_readers_certificate(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[object] = []
    ended, release = asyncio.Event(), daemon.app.authority.ends.release
    monkeypatch.setattr(daemon.app.authority.ends, "release", lambda *holder: (release(*holder), ended.set()))
    async with daemon.remote(await viewer(daemon, admin)) as remote, stream(remote) as reader:
        await admin.apply(schema())
        assert (await reader.event())["name"] == "lamp"
        monkeypatch.setattr(edge, "problem_response", lambda *refusal: refusals.append(refusal))
        daemon.clock.advance(ADMIN_LIFETIME_S + 1)
        await admin.apply(group("kitchen", "room=kitchen"))
        with pytest.raises((ConnectionError, aiohttp.ClientError)):
            await reader.block()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)

    assert refusals == [], "an answer that has begun is not followed by another one"


async def test_a_long_poll_tells_nothing_after_the_end_of_its_readers_certificate(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve, held = await viewer(daemon, admin), asyncio.Event()
    hold = daemon.app.authority.ends.hold
    monkeypatch.setattr(daemon.app.authority.ends, "hold", lambda *holder: (hold(*holder), held.set()))
    seq = (await admin.ok("GET", "/v1/events"))["next"]
    async with daemon.remote(eve) as remote:
        waiting = asyncio.create_task(remote.refused("GET", f"/v1/events?since={seq}&wait=55"))
        await asyncio.wait_for(held.wait(), PATIENCE_S)
        daemon.clock.advance(ADMIN_LIFETIME_S + 1)
        await admin.apply(schema())
        answer = await waiting

    assert (answer.status, answer.code) == (401, "certificate_expired")


async def test_who_takes_anything_gets_one_answer(admin: Admin) -> None:
    answer = await admin.call("GET", "/v1/events", headers={"Accept": "*/*"})

    assert answer.json["events"] == []


# ---- over a WebSocket -----------------------------------------------------------------------------------


@asynccontextmanager
async def socket_of(client: Admin, query: str = "") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """An open WebSocket of events."""
    connecting = client.session.ws_connect(f"/v1/events{query}", server_hostname=client._hostname, autoclose=False)
    async with connecting as link:
        yield link


async def told(link: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The next event."""
    return dict(await link.receive_json(timeout=PATIENCE_S))


async def test_a_websocket_tells_the_same_events_as_the_stream(admin: Admin) -> None:
    since = (await admin.ok("GET", "/v1/events"))["next"]
    async with socket_of(admin) as link:
        await admin.apply(schema(), group("kitchen", "room=kitchen"))
        live = [await told(link) for _ in range(2)]
    async with stream(admin, f"?since={since}") as reader:
        streamed = [await reader.event() for _ in range(2)]

    assert live == streamed
    assert [one["name"] for one in live] == ["lamp", "kitchen"]


async def test_a_websocket_goes_on_after_a_number(admin: Admin) -> None:
    async with socket_of(admin) as link:
        await admin.apply(schema())
        seen = (await told(link))["seq"]
    await admin.apply(group("kitchen", "room=kitchen"))
    async with socket_of(admin, f"?since={seen}") as link:
        assert (await told(link))["name"] == "kitchen"


async def test_a_websocket_says_that_some_were_missed(daemon: Service, admin: Admin) -> None:
    since = daemon.app.events.seq
    daemon.app.events.add_all(0.0, "device.changed", "Device", range(KEPT + 10), lambda number: (f"d{number}", {}))
    async with socket_of(admin, f"?since={since}") as link:
        gap, first = await told(link), await told(link)

    assert gap == {"type": "gap", "next": daemon.app.events.seq}
    assert first["seq"] == daemon.app.events.seq - KEPT + 1


async def test_a_websocket_is_closed_when_the_daemon_stops(daemon: Service, admin: Admin) -> None:
    async with socket_of(admin) as link:
        await daemon.stop()
        farewell = await link.receive(timeout=PATIENCE_S)
    await daemon.start()

    assert (farewell.type, farewell.data) == (aiohttp.WSMsgType.CLOSE, 1001)


async def test_a_websocket_ends_with_the_identity_of_its_reader(daemon: Service, admin: Admin) -> None:
    async with daemon.remote(await viewer(daemon, admin)) as remote, socket_of(remote) as link:
        await admin.apply(schema())
        assert (await told(link))["name"] == "lamp"
        await admin.ok("DELETE", "/v1/operators/eve")
        last = await link.receive(timeout=PATIENCE_S)

    assert last.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def test_a_websocket_tells_nothing_after_the_end_of_its_readers_certificate(
    daemon: Service, admin: Admin
) -> None:
    async with daemon.remote(await viewer(daemon, admin)) as remote, socket_of(remote) as link:
        await admin.apply(schema())
        assert (await told(link))["name"] == "lamp"
        daemon.clock.advance(ADMIN_LIFETIME_S + 1)
        await admin.apply(group("kitchen", "room=kitchen"))
        farewell = await link.receive(timeout=PATIENCE_S)

    assert (farewell.type, farewell.data) == (aiohttp.WSMsgType.CLOSE, 1008)


async def test_a_device_opens_no_websocket_of_events(daemon: Service, admin: Admin) -> None:
    lamp = await daemon.join(admin, "lamp-1")
    async with daemon.remote(lamp) as remote:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with socket_of(remote):
                pass

    assert refusal.value.status == 403


async def test_a_reader_who_speaks_on_the_websocket_is_closed(admin: Admin) -> None:
    async with socket_of(admin) as link:
        await link.send_str("hello")
        farewell = await link.receive(timeout=PATIENCE_S)

    assert (farewell.type, farewell.data) == (aiohttp.WSMsgType.CLOSE, 1008)


BAD_FRAMES = [
    (frame(TEXT, b"x", rsv=4), 1002),  # W09
    (frame(TEXT, b"x", masked=False), 1008),  # W10: whatever it says, it is not to say it
    (frame(3, b"x"), 1002),  # W11
    (frame(TEXT, b"\xc3\x28"), 1007),  # W12
    (frame(CONTINUATION, b"x"), 1002),  # W13
    (frame(PING, b"x" * 126), 1002),  # W14
    (b"\x81\xff\x7f" + b"\xff" * 7, 1009),  # W15
    (frame(TEXT, b"x" * 1025), 1009),  # W16
    (frame(CLOSE, b"\x03\xe7"), 1002),  # W23
    (b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n", 1002),  # W25
    (frame(BINARY, b"x"), 1008),  # W27
]


async def test_what_is_no_frame_of_a_reader_ends_the_websocket_without_a_word_in_the_log(
    daemon: Service, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    codes = []
    fields = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **SOCKET_HEAD}.items())
    for sent, _ in BAD_FRAMES:
        reader, writer = await asyncio.open_unix_connection(daemon.socket)
        writer.write(f"GET /v1/events HTTP/1.1\r\n{fields}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        head = await reader.readexactly(4)
        codes.append((head[0], int.from_bytes(head[2:])))
        writer.close()
        await writer.wait_closed()

    assert codes == [(0x88, code) for _, code in BAD_FRAMES]
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


SOCKET_HEAD = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


@pytest.mark.parametrize("headers", [SOCKET_HEAD, STREAM], ids=["websocket", "stream"])
async def test_a_reader_who_takes_nothing_is_cut(
    daemon: Service, admin: Admin, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(eventstream, "STUCK_S", 0.1)
    events, text = daemon.app.events, "x" * 4000
    since = events.seq
    events.add_all(0.0, "device.changed", "Device", range(KEPT), lambda number: (f"d{number}", {"text": text}))
    fields = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **headers}.items())
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(str(daemon.socket))
        reader.sendall(f"GET /v1/events?since={since} HTTP/1.1\r\n{fields}\r\n".encode())
        hung_up = select.poll()
        hung_up.register(reader, 0)
        seen = await asyncio.to_thread(hung_up.poll, PATIENCE_S * 1000)

    assert [event for _, event in seen] == [select.POLLHUP]


@pytest.mark.parametrize(
    "changed", [{"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Key": "x"}, {"Connection": "close"}]
)
async def test_another_handshake_is_refused(admin: Admin, changed: dict[str, str]) -> None:
    answer = await admin.refused("GET", "/v1/events", headers=SOCKET_HEAD | changed)

    assert (answer.status, answer.code) == (426, "upgrade_required")


async def test_the_description_knows_the_websocket(admin: Admin) -> None:
    described = (await admin.ok("GET", "/v1/openapi.json"))["paths"]["/v1/events"]["get"]["responses"]

    assert "websocket" in described["101"]["description"]
