"""What the HTTP library refuses by itself is told like everything else, and a stranger does not fill the journal."""

from __future__ import annotations

import asyncio

import pytest

from tests.hengd.http.conftest import Standing
from tests.hengd.http.raw import RawAnswer, read_answer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = request("GET", "/v1/whoami")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"garbage\r\n\r\n", id="R01-garbage"),
        pytest.param(b"GET /v1/status HTTP/3.7\r\nHost: a\r\n\r\n", id="R04-version"),
        pytest.param(b"GET /v1/status HTTP/1.1\r\nHost : a\r\n\r\n", id="R14-space-before-colon"),
        pytest.param(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", id="R14-nul"),
        pytest.param(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nContent-Length: 40 nines\r\n\r\n", id="R09"),
    ],
)
async def test_a_later_request_that_cannot_be_read_ends_the_connection_with_a_problem(
    standing: Standing, bad: bytes
) -> None:
    both = await _two(standing, bad)

    assert [answer.status for answer in both] == [200, 400]
    assert both[1].fields["content-type"] == "application/problem+json"
    assert both[1].json["code"] == "bad_request"
    assert both[1].json["request_id"] == both[1].fields["henge-request-id"]
    assert (both[1].fields["cache-control"], both[1].fields["x-content-type-options"]) == ("no-store", "nosniff")


async def test_malformed_requests_are_not_logged(standing: Standing, caplog: pytest.LogCaptureFixture) -> None:
    await _two(standing, b"garbage\r\n\r\n")

    assert caplog.records == []


async def _two(standing: Standing, bad: bytes) -> list[RawAnswer]:
    """A good request, its answer, then a bad one on the same connection."""
    reader, writer = await asyncio.open_unix_connection(standing.service.socket)
    try:
        found = []
        for sent in (GOOD, bad):
            writer.write(sent)
            async with asyncio.timeout(10):
                answer = await read_answer(reader)
            assert answer is not None
            found.append(answer)
        assert await reader.read() == b""
        return found
    finally:
        writer.close()
