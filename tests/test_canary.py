"""The canary that listens to every test: it hears a secret wherever it is let out, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from hengd.store import Transaction
from tests.canary import Canary
from tests.service import Admin, Service

VALUE = "let out, and found"


@pytest.fixture
def own() -> Canary:
    """One that is asked instead of the one that would fail this test."""
    return Canary()


@pytest.fixture(autouse=True)
def listening(own: Canary, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    own.listen(monkeypatch)
    monkeypatch.setattr(canary, "look", lambda where, said: None)


async def sealed(admin: Admin) -> None:
    await admin.ok("PUT", "/v1/secrets/wifi/home", {"value": {"psk": VALUE}})


async def log_it(daemon: Service) -> None:
    logging.getLogger("hengd.test").warning("%s", VALUE)


async def log_it_beside_the_line(daemon: Service) -> None:
    logging.getLogger("hengd.test").warning("fine", extra={"body": VALUE})


async def store_it(daemon: Service) -> None:
    def operation(tx: Transaction) -> None:
        tx.put("meta", b"canary", VALUE.encode())

    await daemon.app._store.write(operation)
    await daemon.app._store.write(lambda tx: tx.delete("meta", b"canary"))


async def answer_it(daemon: Service) -> None:
    await web.Response(text=VALUE).prepare(_Asked("/v1/status"))  # type: ignore[arg-type]


class _Asked:
    """As much of a request as is looked at; what comes after it fails."""

    method = "GET"

    def __init__(self, path: str) -> None:
        self.path = path


@pytest.mark.parametrize(
    ("let_out", "where"),
    [
        pytest.param(log_it, "a line of the log of hengd.test", id="a line of the log"),
        pytest.param(log_it_beside_the_line, "a line of the log of hengd.test", id="a field of such a line"),
        pytest.param(store_it, "the store in ", id="a page of the store that is free again"),
        pytest.param(answer_it, "GET /v1/status", id="an answer"),
    ],
)
async def test_a_secret_that_is_let_out_is_heard(
    daemon: Service, admin: Admin, own: Canary, let_out: Callable[[Service], Awaitable[None]], where: str
) -> None:
    await sealed(admin)
    before = list(own.seen)
    try:
        await let_out(daemon)
    except AttributeError:
        assert let_out is answer_it
    await daemon.stop()

    assert before == []
    assert [seen[: len(where)] for seen in own.seen] == [where]


async def test_what_is_kept_as_it_should_be_is_not_heard(daemon: Service, admin: Admin, own: Canary) -> None:
    await sealed(admin)
    await admin.ok("GET", "/v1/secrets/wifi/home")
    await daemon.stop()

    assert len(own.sealed) == 1
    assert own.seen == []


def test_short_texts_are_not_looked_for(own: Canary) -> None:
    own.keep(["short", {"a": 12345678, "b": "and this is long"}])

    assert own.sealed == {b"and this is long"}
