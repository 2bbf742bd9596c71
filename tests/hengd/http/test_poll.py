"""The link for devices without WebSocket: long-poll and report, through the real daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from hengd import listeners
from henge_protocol.wire import Config, Hello, Receipt, Report, Welcome, decode, encode
from tests.effort import FAULT_S, no_long_wait
from tests.service import Admin, Answer, Clock, Identity, Service, device, schema

PATH = "/v1/device/config"


@pytest.fixture
async def lamp(daemon: Service, admin: Admin) -> Identity:
    """lamp-1, known and joined."""
    await admin.apply(schema(), device("lamp-1"))
    return await daemon.join(admin, "lamp-1")


class Polling:
    """A device that polls."""

    def __init__(self, client: Admin) -> None:
        self.client = client

    async def fetch(self, have: str = "", wait: int = 0) -> Config | None:
        """One poll; None for 304."""
        answer = await self.client.call("GET", f"{PATH}?have={have}&wait={wait}")
        if answer.status == 304:
            return None
        assert answer.status == 200, answer
        config = decode(answer.body)
        assert isinstance(config, Config)
        assert config.intact
        return config

    async def say(self, message: Hello | Report, have: str | None = None) -> tuple[Receipt, Config | None]:
        """Post a hello or report; the receipt and what may follow it."""
        query = "" if have is None else f"?have={have}"
        answer = await self.client.call("POST", f"/v1/device/report{query}", encode(message))
        assert answer.status == 200, answer
        head, _, rest = answer.body.partition(b"\n")
        receipt, config = decode(head), decode(rest) if rest else None
        assert isinstance(receipt, Receipt)
        assert config is None or isinstance(config, Config)
        return receipt, config

    async def report(self, config: Config, state: str = "applied", **fields: Any) -> tuple[Receipt, Config | None]:
        """Report about a document."""
        return await self.say(Report(config.epoch, config.revision, config.digest, state, **fields))

    async def refused(self, method: str, path: str, body: Any = None) -> Answer:
        """A request that must be refused."""
        return await self.client.refused(method, path, body)


@asynccontextmanager
async def polling(daemon: Service, identity: Identity) -> AsyncIterator[Polling]:
    async with daemon.remote(identity) as client:
        yield Polling(client)


async def waiting(daemon: Service, count: int = 1) -> None:
    """Until that many polls wait."""
    async with asyncio.timeout(10):
        while len(daemon.app._polls._bells) < count:  # noqa: ASYNC110 (the daemon has no event for it)
            await asyncio.sleep(0)


async def test_without_have_the_answer_is_a_welcome(daemon: Service, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        answer = await device_.client.call("GET", PATH)
    welcome = decode(answer.body)
    assert isinstance(welcome, Welcome)
    assert welcome.name == "lamp-1"


async def test_a_device_with_nothing_gets_the_document_and_its_etag(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with polling(daemon, lamp) as device_:
        answer = await device_.client.call("GET", f"{PATH}?have=")
        config = decode(answer.body)
        assert isinstance(config, Config)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert headers["etag"] == f'"{config.digest}"'
        assert config.document == (await admin.call("GET", "/v1/devices/lamp-1/document")).body
        receipt, _ = await device_.report(config)
        assert (receipt.digest, receipt.state) == (config.digest, "applied")
    await admin.until("lamp-1", config="in-sync")


async def test_what_is_newest_already_is_304(daemon: Service, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        assert await device_.fetch(config.digest) is None


async def test_a_change_wakes_a_waiting_poll(daemon: Service, admin: Admin, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        poll = asyncio.create_task(device_.fetch(config.digest, wait=30))
        await waiting(daemon)
        await admin.set("lamp-1", color="red")
        newer = await asyncio.wait_for(poll, 5)
        assert newer is not None
        assert json.loads(newer.document)["color"] == "red"


async def test_a_change_of_which_nothing_was_told_is_in_the_last_look(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        poll = asyncio.create_task(device_.fetch(config.digest, wait=1))
        await waiting(daemon)
        daemon.app._store.on_commit(lambda notes: None)
        await admin.set("lamp-1", color="red")
        newer = await asyncio.wait_for(poll, 5)
        assert newer is not None
        assert json.loads(newer.document)["color"] == "red"


async def test_a_change_of_another_device_wakes_nobody(daemon: Service, admin: Admin, lamp: Identity) -> None:
    await admin.apply(device("lamp-2"))
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        poll = asyncio.create_task(device_.fetch(config.digest, wait=1))
        await waiting(daemon)
        await admin.set("lamp-2", color="red")
        assert await poll is None


async def test_a_sleepy_device_needs_one_request(daemon: Service, admin: Admin, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        receipt, config = await device_.say(Hello(client="test/1", next_contact_s=3600), have="")
        assert (receipt.digest, receipt.state) == ("", "none")
        assert config is not None
        running = Hello(epoch=config.epoch, revision=config.revision, digest=config.digest, state="applied",
                        next_contact_s=3600)  # fmt: skip
        _, nothing = await device_.say(running, have=config.digest)
        assert nothing is None
    await admin.until("lamp-1", config="in-sync")


async def test_a_device_that_sleeps_is_asleep_and_then_offline(
    daemon: Service, admin: Admin, lamp: Identity, clock: Clock
) -> None:
    async with polling(daemon, lamp) as device_:
        await device_.say(Hello(next_contact_s=600), have="")
    await admin.until("lamp-1", connection="asleep")
    clock.jump(901)
    await admin.until("lamp-1", connection="offline")


async def test_a_rejected_document_is_held_back_until_it_changes(daemon: Service, admin: Admin, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        await device_.report(config, "rejected", reason="invalid")
        assert await device_.fetch() is None
        _, offered = await device_.say(Hello(), have="")
        assert offered is None
        await admin.until("lamp-1", config="quarantined")
        poll = asyncio.create_task(device_.fetch(wait=30))
        await waiting(daemon)
        await admin.ok("POST", "/v1/devices/lamp-1/retry")
        again = await asyncio.wait_for(poll, 5)
        assert again is not None
        assert again.digest == config.digest


async def test_a_passing_refusal_is_offered_again_after_a_minute_and_not_in_a_circle(
    daemon: Service, lamp: Identity, clock: Clock
) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        await device_.report(config, "rejected", reason="write-failed")
        assert await device_.fetch() is None
        clock.jump(58)
        assert await device_.fetch() is None
        again = await asyncio.wait_for(device_.fetch(wait=30), 10)
        assert again is not None
        assert again.digest == config.digest


async def test_a_device_that_lost_its_file_gets_it_again(daemon: Service, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        await device_.report(config)
        again = await device_.fetch()
        assert again == config


async def test_a_report_about_a_revision_never_issued_is_refused(daemon: Service, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        strange = Report(config.epoch, config.revision + 5, config.digest, "applied")
        answer = await device_.refused("POST", "/v1/device/report", encode(strange))
    assert (answer.status, answer.code) == (422, "no_such_revision")


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "bad_frame"), (b"no json", "bad_frame"), (b"[]", "bad_frame"), (b'{"type":"weather"}', "unknown_type"),
     (encode(Welcome()), "unexpected"), (b'{"type":"report","state":"glad"}', "bad_frame"), (b"\xff\xfe", "bad_frame")],
)  # fmt: skip
async def test_what_is_not_a_report_is_refused(daemon: Service, lamp: Identity, body: bytes, code: str) -> None:
    async with polling(daemon, lamp) as device_:
        answer = await device_.refused("POST", "/v1/device/report", body)
        assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(("size", "status"), [(8191, 400), (8192, 400), (8193, 413)])
async def test_a_report_that_is_too_large_is_refused(daemon: Service, lamp: Identity, size: int, status: int) -> None:
    async with polling(daemon, lamp) as device_:
        answer = await device_.refused("POST", "/v1/device/report", b" " * size)
    assert answer.status == status


@pytest.mark.parametrize(
    "query", ["have=XY", "have=&wait=56", "have=&wait=-1", "have=&wait=1.5", "have=&x=1", "have=&have="]
)
async def test_a_wrong_query_is_refused(daemon: Service, lamp: Identity, query: str) -> None:
    async with polling(daemon, lamp) as device_:
        answer = await device_.refused("GET", f"{PATH}?{query}")
    assert answer.status == 400


async def test_a_device_gets_nothing_but_its_own(daemon: Service, admin: Admin, lamp: Identity) -> None:
    await admin.apply(device("lamp-2", wifi={"ssid": "cellar"}))
    await daemon.join(admin, "lamp-2")
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        assert b"cellar" not in config.document
        for path in ("/v1/devices/lamp-2/document", "/v1/devices", "/v1/status", "/v1/events"):
            assert (await device_.refused("GET", path)).status == 403


async def test_without_certificate_there_is_no_document(daemon: Service, lamp: Identity) -> None:
    async with daemon.remote() as stranger:
        for method, path in (("GET", f"{PATH}?have="), ("POST", "/v1/device/report")):
            assert (await stranger.refused(method, path)).status == 401


# --- how polls end ------------------------------------------------------------------------------------------


async def test_a_stop_answers_waiting_polls_at_once(
    daemon: Service, lamp: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "GRACE_S", 2 * FAULT_S)
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        poll = asyncio.create_task(device_.fetch(config.digest, wait=55))
        await waiting(daemon)
        with no_long_wait():
            await daemon.stop()
        assert await poll is None
    await daemon.start()


@pytest.mark.parametrize("end", ["revoke", "delete"])
async def test_revoking_a_device_cuts_its_waiting_poll(  # S2
    daemon: Service, admin: Admin, lamp: Identity, end: str
) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        await device_.report(config)
        poll = asyncio.create_task(device_.fetch(config.digest, wait=55))
        await waiting(daemon)
        if end == "revoke":
            await admin.ok("POST", "/v1/devices/lamp-1/revoke")
            await admin.set("lamp-1", color="red")
        else:
            await admin.ok("DELETE", "/v1/devices/lamp-1")
        with pytest.raises((aiohttp.ClientError, AssertionError)) as ended:
            await asyncio.wait_for(poll, 5)
        assert isinstance(ended.value, aiohttp.ClientError) or "status=403" in str(ended.value)  # it asked again
        assert not daemon.app._polls._bells
        assert (await device_.refused("GET", f"{PATH}?have=")).status == 403


@pytest.mark.parametrize("path", [f"{PATH}?have=", "/v1/device/report?have="])
async def test_revoking_a_device_cuts_the_answer_that_is_being_written(
    daemon: Service, admin: Admin, lamp: Identity, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    writing, go_on = asyncio.Event(), asyncio.Event()
    prepare = web.Response.prepare

    async def slowly(response: web.Response, request: web.Request) -> Any:
        if request.path == path.partition("?")[0] and response.status == 200:
            writing.set()
            await go_on.wait()
        return await prepare(response, request)

    monkeypatch.setattr(web.Response, "prepare", slowly)
    async with polling(daemon, lamp) as device_:
        asked = ("GET", path, None) if path.startswith(PATH) else ("POST", path, encode(Hello()))
        answer = asyncio.create_task(device_.client.call(*asked))
        await asyncio.wait_for(writing.wait(), 5)
        await admin.ok("POST", "/v1/devices/lamp-1/revoke")
        go_on.set()
        try:
            assert (await asyncio.wait_for(answer, 5)).status == 403  # it asked again
        except aiohttp.ClientError:
            pass
    assert not daemon.app.authority.ends._holders


async def test_a_revoked_device_gets_no_document_after_a_restart(daemon: Service, admin: Admin, lamp: Identity) -> None:
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    await daemon.restart()
    async with polling(daemon, lamp) as device_:
        for method, path in (("GET", f"{PATH}?have="), ("GET", PATH), ("POST", "/v1/device/report?have=")):
            assert (await device_.refused(method, path)).code == "certificate_revoked"


async def test_a_poller_that_goes_away_is_forgotten(daemon: Service, admin: Admin, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        poll = asyncio.create_task(device_.fetch(config.digest, wait=1))
        await waiting(daemon)
        poll.cancel()
    async with asyncio.timeout(10):
        while daemon.app._polls._bells:  # noqa: ASYNC110 (the daemon has no event for it)
            await asyncio.sleep(0.01)
    assert not daemon.app._hub._listeners


async def test_a_poll_that_waits_counts_as_online(daemon: Service, admin: Admin, lamp: Identity) -> None:
    async with polling(daemon, lamp) as device_:
        config = await device_.fetch()
        assert config is not None
        poll = asyncio.create_task(device_.fetch(config.digest, wait=30))
        await waiting(daemon)
        await admin.until("lamp-1", connection="online")
        poll.cancel()


async def test_who_polls_for_a_document_whose_secrets_are_locked_is_told_to_come_back(daemon: Service) -> None:
    secret = {"type": "object", "properties": {"psk": {"type": "string", "writeOnly": True}}}
    async with daemon.admin() as admin:
        await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": "correct horse"})
        await admin.apply(schema("node", **secret), device("one", "node", psk={"$secret": "wifi/home"}))
        identity = await daemon.join(admin, "one")
    (daemon.data_dir / "keys" / "secrets.key").unlink()
    await daemon.restart()
    async with daemon.remote(identity) as one:
        refused = await one.refused("GET", "/v1/device/config?have=&wait=0")

    assert (refused.status, refused.code) == (503, "secrets_locked")
    assert "Retry-After" in refused.headers


@pytest.mark.parametrize(("ours", "theirs", "served"), [((1, 1), (1, 7), True), ((1, 1), (2, 3), False)])
async def test_a_hello_by_post_needs_a_common_version(
    daemon: Service, admin: Admin, lamp: Identity, ours: tuple[int, int], theirs: tuple[int, int], served: bool
) -> None:
    async with polling(daemon, lamp) as device_:
        hello = encode(Hello(protocol=theirs, client="future/2"))
        answer = await device_.client.call("POST", "/v1/device/report?have=", hello)
    status = await admin.until("lamp-1", client="future/2")

    assert answer.status == (200 if served else 422)
    assert served or (answer.code, answer.json["cure"]) == ("unsupported_protocol", "update hengd")
    [foreign] = [one["status"] for one in status["conditions"] if one["type"] == "ProtocolUnsupported"]
    assert foreign == ("False" if served else "True")


async def test_what_a_device_of_the_future_posts_beyond_version_1_changes_nothing(
    daemon: Service, admin: Admin, lamp: Identity
) -> None:
    async with polling(daemon, lamp) as device_:
        unknown = await device_.refused("POST", "/v1/device/report", b'{"type":"weather","degrees":21}')
        hello = b'{"type":"hello","protocol":[1,9],"weather":{"degrees":21}}'
        answer = await device_.client.call("POST", "/v1/device/report?have=", hello)
        config = decode(answer.body.partition(b"\n")[2])
        assert isinstance(config, Config)
        report = {"type": "report", "digest": config.digest, "state": "applied", "weather": [21]}
        await device_.client.ok("POST", "/v1/device/report", report)

    assert (unknown.status, unknown.code) == (400, "unknown_type")
    assert (await admin.until("lamp-1", config="in-sync"))["client"] == ""


async def test_a_daemon_that_no_longer_speaks_version_1_refuses_every_request_of_it(
    daemon: Service, lamp: Identity
) -> None:
    daemon.speaks = (2, 3)
    await daemon.restart()
    async with polling(daemon, lamp) as device_:
        for method, path, body in (
            ("GET", PATH, None),
            ("GET", f"{PATH}?have=", None),
            ("GET", "/v1/device/schema", None),
            ("POST", "/v1/device/report", encode(Hello())),
            ("POST", "/v1/device/report", encode(Report(digest="0" * 64))),
        ):
            answer = await device_.refused(method, path, body)
            assert answer.code == "unsupported_protocol"
            assert answer.json["cure"] == "update the program on the device"
