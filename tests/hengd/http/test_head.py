"""The first head: what is refused, with which answer, and that nothing makes it fall over."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.http import problems
from hengd.http.head import Head, Refusal, opening_of, read_head, refuse_upgrade
from henge_protocol.errors import Denied

MAX = 16384
UPGRADE = (
    b"GET /v1/device/stream HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def head_of(text: bytes) -> Head:
    head = read_head(text, max_bytes=MAX)
    assert isinstance(head, Head)
    return head


def refusal_of(text: bytes) -> Refusal:
    refusal = read_head(text, max_bytes=MAX)
    assert isinstance(refusal, Refusal)
    return refusal


def test_a_head_is_read_whole_and_its_length_known() -> None:
    text = b"PUT /v1/devices/lamp?dry_run=1 HTTP/1.1\r\nHost: lab\r\nX-Two: a\r\nx-two:b \r\n\r\nbody"
    head = head_of(text)

    assert (head.method, head.path, head.version) == ("PUT", "/v1/devices/lamp", "HTTP/1.1")
    assert head.all("x-two") == ["a", "b"]
    assert not head.is_stream
    assert text[head.size :] == b"body"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET /v1/device/stream HTTP/1.1", True),
        (b"GET /v1/device/stream?a=b HTTP/1.1", True),
        (b"POST /v1/device/stream HTTP/1.1", False),
        (b"GET /v1/device/stream/ HTTP/1.1", False),
        (b"GET /v1/device/Stream HTTP/1.1", False),
        (b"GET //v1/device/stream HTTP/1.1", False),
        (b"GET /v1/device/%73tream HTTP/1.1", False),
    ],
)
def test_only_the_exact_path_is_the_device_link(line: bytes, expected: bool) -> None:
    assert head_of(line + b"\r\nHost: lab\r\n\r\n").is_stream is expected


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "bad_request"),  # a TLS ClientHello
        (b"\x00\xff\xfe random", 400, "bad_request"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", 400, "bad_request"),
        (b"GET /\r\n", 400, "bad_request"),  # HTTP/0.9
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/3.0\r\nHost: lab\r\n\r\n", 400, "bad_request"),
        (b"GET /  HTTP/1.1\r\nHost: lab\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: lab\r\nHost: lab\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\nHost: lab\n\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: lab\r\nX: a\n b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: lab\r\n folded\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost : lab\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: lab\r\nX: \x00\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: lab\r\nno colon\r\n\r\n", 400, "bad_request"),
        (b"GET /\xff HTTP/1.1\r\nHost: lab\r\n\r\n", 400, "bad_request"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: lab\r\n\r\n", 421, "wrong_host"),
        (b"OPTIONS * HTTP/1.1\r\nHost: lab\r\n\r\n", 400, "bad_request"),
        (b"FOO / HTTP/1.1\r\nHost: lab\r\n\r\n", 405, "method_not_allowed"),
        (b"get / HTTP/1.1\r\nHost: lab\r\n\r\n", 405, "method_not_allowed"),
        (b"TRACE / HTTP/1.1\r\nHost: lab\r\n\r\n", 405, "method_not_allowed"),
        (b"CONNECT lab:443 HTTP/1.1\r\nHost: lab\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /" + b"a" * 8300, 431, "too_large"),
        (b"GET / HTTP/1.1\r\nHost: lab\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "too_large"),
        (b"GET / HTTP/1.1\r\nHost: lab\r\n" + b"X: y\r\n" * 64 + b"\r\n", 431, "too_large"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000, 431, "too_large"),
    ],
)
def test_what_is_refused(text: bytes, status: int, code: str) -> None:
    refusal = refusal_of(text)

    assert (refusal.status, refusal.code) == (status, code)


def test_limits_hold_to_the_byte() -> None:
    start, end = b"GET / HTTP/1.1\r\nHost: lab\r\n", b"\r\n\r\n"
    fits = start + b"X: y\r\n" * 62 + b"A: " + b"z" * 8187 + end

    assert isinstance(read_head(fits, max_bytes=len(fits)), Head)
    assert isinstance(read_head(fits, max_bytes=len(fits) - 1), Refusal)
    assert isinstance(read_head(start + b"A: " + b"z" * 8188 + end, max_bytes=MAX), Refusal)


def test_a_refusal_names_no_input() -> None:
    assert b"secret" not in refusal_of(b"GET http://secret/ HTTP/1.1\r\nHost: lab\r\n\r\n").response()


def test_a_refusal_is_a_problem_document() -> None:
    head, _, body = refusal_of(b"FOO / HTTP/1.1\r\n\r\n").response().partition(b"\r\n\r\n")

    assert json.loads(body) == {
        "type": "urn:henge:error:method_not_allowed",
        "title": "Method Not Allowed",
        "status": 405,
        "code": "method_not_allowed",
        "detail": "no resource takes this method",
    }
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 405 Method Not Allowed"
    assert b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" in head
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_refusal_of_a_device_link_tells_the_cure_too() -> None:
    refusal = problems.refusal_of(Denied("certificate_revoked", "lamp-1 is revoked", cure="let it join again"))
    problem = json.loads(refusal.body())

    assert problem == problems.problem_of(Denied("certificate_revoked", "lamp-1 is revoked", cure="let it join again"))


@pytest.mark.parametrize("size", range(1, len(UPGRADE)))
def test_a_head_in_two_pieces_waits_for_the_second(size: int) -> None:
    assert read_head(UPGRADE[:size], max_bytes=MAX) is None


@given(st.binary(max_size=300))
def test_any_bytes_give_an_answer_and_never_an_exception(data: bytes) -> None:
    read_head(data, max_bytes=MAX)
    read_head(b"GET / HTTP/1.1\r\nHost: lab\r\n" + data + b"\r\n\r\n", max_bytes=MAX)


@given(st.binary(max_size=60))
def test_what_has_been_refused_early_is_refused_when_complete(data: bytes) -> None:
    if isinstance(read_head(data, max_bytes=MAX), Refusal):
        assert isinstance(read_head(data + b"\r\nHost: lab\r\n\r\n", max_bytes=MAX), Refusal)


# --- the WebSocket opening ----------------------------------------------------------------------------------


def test_a_proper_opening_is_not_refused() -> None:
    assert refuse_upgrade(head_of(UPGRADE)) is None
    assert opening_of(head_of(UPGRADE)) == UPGRADE


def test_a_browserly_opening_is_put_in_plain_words() -> None:
    text = UPGRADE.replace(b"Connection: Upgrade", b"connection: keep-alive, upgrade\r\nUser-Agent: x")
    head = head_of(text.replace(b"websocket\r\n", b"WebSocket\r\n"))

    assert refuse_upgrade(head) is None
    assert opening_of(head) == UPGRADE


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", 426),  # W01
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Version: 13", 426),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),  # W02
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"eA==", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA==", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"not base64!", 400),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 400),
        (b"Connection: Upgrade\r\n", b"", 426),  # W03
        (b"Upgrade: websocket", b"Upgrade: h2c", 426),
        (b"Upgrade: websocket\r\n", b"", 426),
        (b"HTTP/1.1", b"HTTP/1.0", 426),
        (b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 400),  # W04
        (b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\r\n\r\n", b"\r\nOrigin: null\r\n\r\n", 403),  # W06
        (b"\r\n\r\n", b"\r\nOrigin: https://lab\r\n\r\n", 403),
    ],
)
def test_what_is_no_opening(old: bytes, new: bytes, status: int) -> None:
    refusal = refuse_upgrade(head_of(UPGRADE.replace(old, new, 1)))

    assert refusal is not None
    assert refusal.status == status
    assert (b"\r\nSec-WebSocket-Version: 13\r\n" in refusal.response()) is (status == 426)
