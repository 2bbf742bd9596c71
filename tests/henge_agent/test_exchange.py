from __future__ import annotations

import socket
import time

import pytest

from henge_agent import exchange as exchange_module
from henge_agent.exchange import Answer, Exchange, UpgradeRefused, encode_body, refusal, retry_after_s, whoami
from henge_agent.renew import exchange_as
from henge_agent.settings import Address
from henge_agent.state import State
from henge_protocol.errors import (
    Denied,
    Gone,
    HengeError,
    Internal,
    Limited,
    Malformed,
    NotFound,
    Stale,
    StorageFull,
    TooLarge,
    Unavailable,
    Unreachable,
    Untrusted,
)
from tests.henge_agent.scripted import Scripted, serving
from tests.henge_protocol.authorities import FLEET, Fleet


def verified(scripted: Scripted, fleet: Fleet) -> Exchange:
    return Exchange.verified(scripted.address, FLEET, [fleet.server_ca.certificate_der], passed=time.time())


async def test_nothing_can_be_posted_over_an_unverified_connection(scripted: Scripted) -> None:
    async with Exchange.unverified(scripted.address) as exchange:
        with pytest.raises(LookupError):
            await exchange.post("/v1/enrol", b"{}")

    assert scripted.enrolments == []


async def test_a_closed_exchange_sends_nothing(scripted: Scripted) -> None:
    with pytest.raises(LookupError):
        await Exchange.unverified(scripted.address).get("/v1/trust")


async def test_an_answer_over_the_limit_is_not_read_to_its_end(scripted: Scripted, fleet: Fleet) -> None:
    async with verified(scripted, fleet) as exchange:
        with pytest.raises(Malformed) as refused:
            await exchange.get("/v1/trust", limit_bytes=100)

    assert refused.value.code == "too_large"


async def test_who_has_no_certificate_is_told_so(scripted: Scripted, fleet: Fleet) -> None:
    async with verified(scripted, fleet) as exchange:
        with pytest.raises(HengeError) as refused:
            await whoami(exchange)

    assert refused.value.code == "certificate_required"


async def test_two_anchors_are_both_accepted_and_a_dropped_one_is_not(fleet: Fleet) -> None:
    """While the server authority is rotated, devices trust both."""
    newer = Fleet()
    identity = newer.server_identity()
    both = [fleet.server_ca.certificate_der, newer.server_ca.certificate_der]
    async with serving(Scripted(fleet), identity) as daemon:
        async with Exchange.verified(daemon.address, FLEET, both, passed=time.time()) as exchange:
            assert (await exchange.get("/v1/trust")).status == 200
        async with Exchange.verified(daemon.address, FLEET, both[:1], passed=time.time()) as exchange:
            with pytest.raises(Untrusted) as refused:
                await exchange.get("/v1/trust")

    assert refused.value.code == "pin_mismatch"


async def test_a_websocket_that_is_refused_is_told_apart_from_nobody_there(scripted: Scripted, fleet: Fleet) -> None:
    async with verified(scripted, fleet) as exchange:
        with pytest.raises(UpgradeRefused):
            await exchange.websocket("/v1/trust")
    async with Exchange.verified(
        Address("127.0.0.1", 9), FLEET, [fleet.server_ca.certificate_der], passed=time.time()
    ) as exchange:
        with pytest.raises(Unreachable):
            await exchange.websocket("/v1/trust")
    async with Exchange.verified(
        scripted.address, FLEET, [Fleet().server_ca.certificate_der], passed=time.time()
    ) as exchange:
        with pytest.raises(Untrusted):
            await exchange.websocket("/v1/trust")


async def test_a_host_that_is_silent_is_nobody_there_and_says_nothing_about_websockets(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "LINK_CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(*silent.getsockname())
        async with Exchange.verified(address, FLEET, [fleet.server_ca.certificate_der], passed=time.time()) as exchange:
            with pytest.raises(Unreachable):
                await exchange.websocket("/v1/trust")


async def test_a_websocket_has_no_extensions(scripted: Scripted, joined: State) -> None:
    assert joined.membership is not None
    async with exchange_as(joined, joined.membership, scripted.address) as exchange:
        socket = await exchange.websocket("/v1/device/stream")
        assert socket.compress == 0
        await socket.close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (403, b'{"code":"token_name","detail":"no"}', Denied, "token_name"),
        (404, b'{"code":"no_such_device"}', NotFound, "no_such_device"),
        (410, b'{"code":"join_expired"}', Gone, "join_expired"),
        (412, b'{"code":"stale"}', Stale, "stale"),
        (413, b'{"code":"too_large"}', TooLarge, "too_large"),
        (507, b'{"code":"storage_full"}', StorageFull, "storage_full"),
        (429, b'{"code":"rate_limited"}', Limited, "rate_limited"),
        (503, b'{"code":"stopping"}', Unavailable, "stopping"),
        (500, b"<html>", Internal, "internal"),
        (403, b'{"code":"of-tomorrow","detail":"x"}', Denied, "internal"),
        (403, b'{"code":["x"]}', Denied, "internal"),
        (418, b"[]", Internal, "internal"),
    ],
)
def test_a_refusal_becomes_an_error_whatever_the_body(status: int, body: bytes, kind: type, code: str) -> None:
    error = refusal(Answer(status, body))

    assert (type(error), error.code) == (kind, code)


def test_a_refusals_wish_and_words_are_bounded() -> None:
    error = refusal(Answer(429, b'{"code":"rate_limited","detail":"a\\u001b[31mb' + b"x" * 9999 + b'"}', 30.0))

    assert retry_after_s(error) == 30.0
    assert error.message.startswith("a[31mb")
    assert len(error.message) == 300
    assert retry_after_s(refusal(Answer(429, b"{}"))) is None


def test_bytes_in_a_body_are_base64() -> None:
    assert encode_body({"a": b"\x00", "b": "ü"}) == '{"a":"AA==","b":"ü"}'.encode()
