"""Bad bodies, media types, sizes, queries and headers against the real daemon (catalogue R17 to R52, J45)."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from hengd.http import parse
from henge_protocol.errors import Invalid
from tests.hengd.http.conftest import Standing
from tests.hengd.http.raw import exchange, request
from tests.service import device

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/devices/lamp-9"
JSON = "Content-Type: application/json"


def nested(depth: int) -> bytes:
    """Lists in lists."""
    return b"[" * depth + b"]" * depth


def body_of(**values: Any) -> bytes:
    """A good device."""
    return json.dumps(device("lamp-9", **values)).encode()


BODIES = [
    pytest.param(b"", 400, "body_required", id="R29-empty"),
    pytest.param(b"  \r\n", 400, "body_required", id="R29-blank"),
    pytest.param(b"{", 400, "bad_json", id="R30-cut"),
    pytest.param(b'{"spec": {},}', 400, "bad_json", id="R30-trailing-comma"),
    pytest.param(b'{"spec": {} /* no */}', 400, "bad_json", id="R30-comment"),
    pytest.param(b"{} {}", 400, "bad_json", id="R30-two-documents"),
    pytest.param(b"{'a': 1}", 400, "bad_json", id="R30-single-quotes"),
    pytest.param(b'{"a": "\xff"}', 400, "bad_encoding", id="R31-not-utf8"),
    pytest.param('{"a": 1}'.encode("utf-16"), 400, "bad_encoding", id="R31-utf16-with-mark"),
    pytest.param('{"a": 1}'.encode("utf-16-le"), 400, "bad_encoding", id="R31-utf16"),
    pytest.param('{"a": 1}'.encode("utf-32-be"), 400, "bad_encoding", id="R31-utf32"),
    pytest.param(b'\xef\xbb\xbf{"a": 1}', 400, "bad_encoding", id="R31-byte-order-mark"),
    pytest.param(b'{"a": ' + b"9" * 5000 + b"}", 400, "number_out_of_range", id="R32-5000-digits"),
    pytest.param(nested(50_000), 400, "too_deep", id="R33-50000-lists"),
    pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, 400, "too_deep", id="R33-40-objects"),
    pytest.param(b'{"a": NaN}', 400, "number_out_of_range", id="R34-nan"),
    pytest.param(b'{"a": -Infinity}', 400, "number_out_of_range", id="R34-infinity"),
    pytest.param(b'{"a": 1e400}', 400, "number_out_of_range", id="R34-1e400"),
    pytest.param(b'{"kind": "Device", "kind": "Group"}', 400, "duplicate_key", id="R35"),
    pytest.param(b'{"metadata": {"annotations": {"a": "\\ud800"}}}', 400, "bad_encoding", id="R36-value"),
    pytest.param(b'{"metadata": {"annotations": {"\\udfff": "a"}}}', 400, "bad_encoding", id="R36-key"),
    pytest.param(b"[]", 422, "bad_object", id="R37-list"),
    pytest.param(b'"lamp"', 422, "bad_object", id="R37-text"),
    pytest.param(b"null", 422, "bad_object", id="R37-null"),
    pytest.param(b"7", 422, "bad_object", id="R37-number"),
    pytest.param(b'{"metadata": []}', 422, "bad_object", id="R37-metadata-list"),
    pytest.param(b'{"spec": "on"}', 422, "bad_object", id="R37-spec-text"),
    pytest.param(b'{"spec": null}', 422, "bad_object", id="R38-spec-null"),
    pytest.param(b'{"sepc": {}}', 422, "unknown_field", id="R38-unknown-field"),
    pytest.param(b'{"spec": {"valeus": {}}}', 422, "unknown_field", id="R38-unknown-in-spec"),
    pytest.param(b'{"metadata": {"lables": {}}}', 422, "unknown_field", id="R38-unknown-in-metadata"),
    pytest.param(b'{"spec": {"schema": 7}}', 422, "bad_object", id="R39-number-for-text"),
    pytest.param(b'{"metadata": {"labels": {"on": true}}}', 422, "bad_object", id="R39-boolean-for-text"),
    pytest.param(b'{"metadata": {"labels": []}}', 422, "bad_object", id="R39-list-for-labels"),
    pytest.param(b'{"metadata": {"annotations": 0}}', 422, "bad_object", id="R39-zero-for-annotations"),
    pytest.param(body_of(brightness=9007199254740993), 400, "number_out_of_range", id="R40"),
    pytest.param(
        json.dumps({f"k{number}": 1 for number in range(60_000)}).encode(), 400, "too_complex", id="R41-60000-keys"
    ),
    pytest.param(json.dumps([0] * 20_001).encode(), 400, "too_complex", id="V12-20001-nodes"),
    pytest.param(b'{"a": "' + b"x" * 65_537 + b'"}', 400, "too_complex", id="V07-text-of-64-KiB-and-1"),
    pytest.param(b'{"' + b"k" * 129 + b'": 1}', 400, "too_complex", id="J30-key-of-129-bytes"),
    pytest.param(b'{"apiVersion": "henge/v2"}', 422, "unknown_kind", id="api-version"),
    pytest.param(b'{"kind": "Secret"}', 422, "unknown_kind", id="unknown-kind"),
    pytest.param(b'{"kind": {}}', 422, "unknown_kind", id="kind-is-no-text"),
    pytest.param(b'{"kind": "Group"}', 422, "bad_object", id="kind-is-not-the-path's"),
    pytest.param(b'{"metadata": {"name": "lamp-8"}}', 422, "bad_object", id="name-is-not-the-path's"),
]


@pytest.mark.parametrize(("body", "status", "code"), BODIES)
async def test_a_bad_body_is_refused_and_nothing_is_stored(
    standing: Standing, body: bytes, status: int, code: str
) -> None:
    answer = await standing.admin.refused("PUT", PATH, body)

    assert (answer.status, answer.code) == (status, code)
    assert await standing.unmoved()


async def test_an_answer_moves_no_cursor_whatever_a_field_is_called_v08(standing: Standing) -> None:
    answers = [
        await standing.admin.refused("PUT", PATH, body_of(**{"x\x1b[2J\u202e": 1})),
        await standing.admin.refused("PUT", PATH, b'{"x\\u001b[2J": {"a": NaN}}'),
        await standing.admin.refused("POST", "/v1/apply", {"objects": [{"kind": "Device", "x\n\x85": 1}]}),
    ]

    for answer in answers:
        said = [answer.json["detail"], answer.json.get("cure", ""), *(one["message"] for one in answer.json["errors"])]
        assert all(text.isprintable() for text in said), said
    assert "\\x1b[2J\\u202e" in answers[0].json["detail"]
    assert answers[0].json["errors"][0]["pointer"] == "/spec/values/x\x1b[2J\u202e"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param({"Content-Encoding": "gzip"}, "unsupported_media", id="R43-gzip"),
        pytest.param({"Content-Encoding": "zzz"}, "unsupported_media", id="R43-unknown"),
        pytest.param({"Content-Type": "text/plain"}, "unsupported_media", id="R44-text"),
        pytest.param({"Content-Type": ""}, "unsupported_media", id="R44-empty"),
        pytest.param({"Content-Type": "application/json; charset=nope"}, "unsupported_media", id="R44-charset"),
        pytest.param({"Content-Type": "application/json; charset=utf-16"}, "unsupported_media", id="R44-utf16"),
        pytest.param({"Content-Type": "application/json-patch+json"}, "unsupported_media", id="R44-json-patch"),
        pytest.param({"Content-Type": "multipart/form-data; boundary=x"}, "unsupported_media", id="R45-multipart"),
        pytest.param({"Content-Type": "application/x-www-form-urlencoded"}, "unsupported_media", id="R45-form"),
    ],
)
async def test_a_body_of_another_kind_is_refused_unread(standing: Standing, fields: dict[str, str], code: str) -> None:
    answer = await standing.admin.refused("PUT", PATH, body_of(), headers=fields)

    assert (answer.status, answer.code) == (415, code)


async def test_a_compressed_bomb_is_not_inflated_r43(standing: Standing) -> None:
    bomb = gzip.compress(b" " * 60_000_000, 1)
    answer = await standing.admin.refused("PUT", PATH, bomb, headers={"Content-Encoding": "gzip"})

    assert answer.status == 415


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON ; charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/merge-patch+json",
    ],
)
async def test_json_may_be_named_in_these_ways(standing: Standing, content_type: str) -> None:
    answer = await standing.admin.call(
        "PATCH", "/v1/devices/lamp-1?dry_run=1", b"{}", headers={"Content-Type": content_type}
    )

    assert answer.status == 200


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        pytest.param(request("PUT", PATH, b"{}", JSON, length=2 * 1024 * 1024), 413, "too_large", id="R42-declared"),
        pytest.param(request("PUT", PATH, b" " * 0x100001, JSON), 413, "too_large", id="R42-one-byte-over"),
        pytest.param(request("PUT", PATH, b" " * 0x100000, JSON), 400, "body_required", id="R42-exactly"),
        pytest.param(
            request("PUT", PATH, b"", JSON, "Transfer-Encoding: chunked") + b"100001\r\n" + b" " * 0x100001,
            413, "too_large", id="R42-chunked-large",
        ),
        pytest.param(request("PUT", PATH, b'{"spec', JSON, length=3), 400, "bad_request", id="R42-declared-small"),
        pytest.param(request("PUT", PATH, b"{}", JSON, length=-1), 400, "bad_request", id="R09-negative-length"),
        pytest.param(request("PUT", PATH, b"{}", JSON, "Content-Length: 3"), 400, "bad_request", id="R09-two-lengths"),
        *(
            pytest.param(request("PUT", PATH, b"", JSON, f"Content-Length: {n}"), 400, "bad_request", id=f"R09-{n:.5}")
            for n in ("+5", "9" * 40, "0x5", "5, 5", "")
        ),
        pytest.param(
            request("PUT", PATH, b"{}", JSON, "Transfer-Encoding: chunked"), 400, "bad_request", id="R08"
        ),
        pytest.param(
            request("PUT", PATH, b"", JSON, "Transfer-Encoding: chunked, chunked") + b"2\r\n{}\r\n0\r\n\r\n",
            400, "bad_request", id="R10-twice",
        ),
        pytest.param(
            request("PUT", PATH, b"", JSON, "Transfer-Encoding: chunked") + b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n",
            400, "bad_request", id="R11-chunk-overflow",
        ),
        pytest.param(
            request("PUT", PATH, b"", JSON, "Transfer-Encoding: xchunked"), 400, "bad_request", id="R10"
        ),
        pytest.param(
            request("PUT", PATH, b"", JSON, "Transfer-Encoding: gzip, chunked") + b"2\r\n{}\r\n0\r\n\r\n",
            400, "bad_request", id="R10-gzip",
        ),
        pytest.param(
            request("PUT", PATH, b"", JSON, "Transfer-Encoding: chunked") + b"-1\r\n{}\r\n0\r\n\r\n",
            400, "bad_request", id="R11-negative-chunk",
        ),
        pytest.param(
            request("PUT", PATH, b"", JSON, "Transfer-Encoding: chunked") + b"0x2\r\n{}\r\n0\r\n\r\n",
            400, "bad_request", id="R11-chunk-0x",
        ),
        pytest.param(request("GET", PATH, b"{}", JSON), 400, "body_refused", id="R17-get-with-body"),
        pytest.param(request("DELETE", PATH, b"{}", JSON), 400, "body_refused", id="R17-delete-with-body"),
        pytest.param(request("PUT", PATH, b"{}"), 415, "unsupported_media", id="R44-no-type"),
        pytest.param(request("PUT", PATH, b"{}", JSON, "Expect: junk"), 400, "bad_request", id="R46-junk"),
    ],
)  # fmt: skip
async def test_badly_framed_requests_get_a_problem_document(
    standing: Standing, sent: bytes, status: int, code: str
) -> None:
    answer = (await exchange(standing.service.socket, sent))[0]

    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.fields["henge-request-id"] == answer.json["request_id"]
    assert (answer.fields["cache-control"], answer.fields["x-content-type-options"]) == ("no-store", "nosniff")


async def test_a_body_in_60000_chunks_is_read_r12(standing: Standing) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"spec": {}}' + b" " * 60_000)
    sent = request("PUT", f"{PATH}?dry_run=1", b"", JSON, "Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n"
    started = asyncio.get_running_loop().time()
    answer = (await exchange(standing.service.socket, sent))[0]

    assert answer.status == 200
    assert asyncio.get_running_loop().time() - started < 5


async def test_trailers_are_ignored_r13(standing: Standing) -> None:
    sent = request("PUT", f"{PATH}?dry_run=1", b"", JSON, "Transfer-Encoding: chunked")
    answer = (await exchange(standing.service.socket, sent + b"2\r\n{}\r\n0\r\nHost: evil\r\n\r\n"))[0]

    assert answer.status == 200


async def test_a_body_that_stops_arriving_is_given_up_r42(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "BODY_TIMEOUT_S", 0.05)
    answers = await exchange(standing.service.socket, request("PUT", PATH, b'{"spec"', JSON, length=900))

    assert [(one.status, one.json["code"], one.fields["connection"]) for one in answers] == [
        (408, "request_timeout", "close")
    ]


async def test_a_body_that_is_cut_leaves_nothing_r50(standing: Standing) -> None:
    await exchange(standing.service.socket, request("PUT", PATH, b'{"spec"', JSON, length=900), eof=True)

    assert await standing.unmoved()


async def test_whoever_asks_to_continue_is_told_to_r46(standing: Standing) -> None:
    sent = request("PUT", f"{PATH}?dry_run=1", b"{}", JSON, "Expect: 100-continue")
    answers = await exchange(standing.service.socket, sent)

    assert [answer.status for answer in answers] == [200]


async def test_pipelined_requests_are_answered_in_order_r47(standing: Standing) -> None:
    asked = [request("GET", f"/v1/revisions?limit={number}") for number in [1, 0] * 100]
    answers = await exchange(standing.service.socket, b"".join(asked[:199]), count=199)

    assert [answer.status for answer in answers[:1]] == [200]
    assert {answer.status for answer in answers} <= {200, 400}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("/v1/devices?selectr=a", 400, "unknown_parameter", id="R27-unknown"),
        pytest.param("/v1/devices?selector=a&selector=b", 400, "unknown_parameter", id="R27-twice"),
        pytest.param("/v1/status?x", 400, "unknown_parameter", id="R27-none-known"),
        pytest.param("/v1/devices/lamp-1;v=1", 422, "bad_name", id="R27-params"),
        pytest.param("/v1/devices/lamp-1#frag", 400, "bad_request", id="R27-fragment"),
        pytest.param("/v1/revisions?limit=0", 400, "bad_parameter", id="R28-0"),
        pytest.param("/v1/revisions?limit=-1", 400, "bad_parameter", id="R28-negative"),
        pytest.param("/v1/revisions?limit=1e9", 400, "bad_parameter", id="R28-float"),
        pytest.param("/v1/revisions?limit=1_000", 400, "bad_parameter", id="R28-underscore"),
        pytest.param("/v1/revisions?limit=%207%20", 400, "bad_parameter", id="R28-spaces"),
        pytest.param("/v1/revisions?limit=+7", 400, "bad_parameter", id="R28-plus"),
        pytest.param("/v1/revisions?limit=%D9%A1%D9%A2", 400, "bad_parameter", id="R28-arabic-digits"),
        pytest.param("/v1/revisions?limit=" + "9" * 40, 400, "bad_parameter", id="R28-40-digits"),
        pytest.param("/v1/revisions?limit=1001", 400, "bad_parameter", id="R28-too-many"),
        pytest.param("/v1/revisions?limit=", 400, "bad_parameter", id="R28-empty"),
        pytest.param("/v1/events?since=x", 400, "bad_parameter", id="R60-garbage"),
        pytest.param("/v1/events?since=0&wait=56", 400, "bad_parameter", id="R60-wait-too-long"),
        pytest.param("/v1/devices?selector=%ff", 422, "bad_selector", id="query-not-utf8"),
        pytest.param("/v1/devices?selector=a%20%20b", 422, "bad_selector", id="selector"),
        pytest.param("/v1/devices?selector=" + "a" * 1025, 400, "bad_parameter", id="selector-too-long"),
    ],
)
async def test_a_bad_query_is_refused(standing: Standing, path: str, status: int, code: str) -> None:
    answer = (await exchange(standing.service.socket, request("GET", path)))[0]

    assert (answer.status, answer.json["code"]) == (status, code)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([f"Cookie: junk{number}=\x7e\x21;;" for number in range(50)], id="R51-cookies"),
        pytest.param(["Range: bytes=5-1", "If-Modified-Since: yesterday"], id="R52"),
        pytest.param(["Accept: image/png", "Accept-Encoding: zzz", "Authorization: Basic !!"], id="R52-accept"),
    ],
)
async def test_fields_without_meaning_here_are_ignored(standing: Standing, fields: list[str]) -> None:
    answer = (await exchange(standing.service.socket, request("GET", "/v1/devices/lamp-1", b"", *fields)))[0]

    assert answer.status == 200


@pytest.mark.parametrize("flag", ["dry_run=2", "dry_run=yes", "dry_run=1&dry_run=0"])
async def test_a_flag_is_one_or_zero(standing: Standing, flag: str) -> None:
    answer = await standing.admin.refused("PATCH", f"/v1/devices/lamp-1?{flag}", {})

    assert answer.status == 400


@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize(
    ("method", "path", "most"),
    [
        ("POST", "/v1/enrol", 32 * 1024),
        ("POST", "/v1/enrol/begin", 32 * 1024),
        ("PUT", "/v1/secrets/wifi", 64 * 1024),
    ],
)
async def test_every_kind_of_body_has_its_own_limit(
    standing: Standing, method: str, path: str, most: int, beyond: int
) -> None:
    body = b" " * (most + beyond)
    if path.startswith("/v1/enrol"):
        async with standing.service.remote() as stranger:
            answer = await stranger.refused(method, path, body)
    else:
        answer = await standing.admin.refused(method, path, body)

    assert (answer.status, answer.code) == ((413, "too_large") if beyond > 0 else (400, "body_required"))


@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize(
    ("path", "most"),
    [
        pytest.param("/v1/revisions?limit={}", 1000, id="revisions"),
        pytest.param("/v1/devices?limit={}", 1000, id="objects"),
        pytest.param("/v1/audit?limit={}", 1000, id="audit"),
        pytest.param("/v1/events?since=0&wait={}", 55, id="wait"),
    ],
)
async def test_a_number_in_a_query_is_good_up_to_its_limit(
    standing: Standing, path: str, most: int, beyond: int
) -> None:
    answer = await standing.admin.call("GET", path.format(most + beyond))

    assert answer.status == (400 if beyond > 0 else 200)
    assert beyond <= 0 or answer.code == "bad_parameter"


@pytest.mark.parametrize(("length", "code"), [(1023, ""), (1024, ""), (1025, "bad_parameter")])
async def test_a_text_in_a_query_has_at_most_1024_characters(standing: Standing, length: int, code: str) -> None:
    terms = "zone in (" + "a," * ((length - 11) // 2)
    answer = await standing.admin.call("GET", f"/v1/devices?selector={terms}{'b' * (length - len(terms) - 1)})")

    assert answer.status == (400 if code else 200)
    assert not code or answer.code == code


@pytest.mark.parametrize(("length", "status"), [(999, 200), (1000, 200), (1001, 422)])
async def test_a_message_of_a_change_has_at_most_1000_characters(standing: Standing, length: int, status: int) -> None:
    answer = await standing.admin.call("PATCH", f"/v1/devices/lamp-1?dry_run=1&message={'x' * length}", {})

    assert answer.status == status
    assert status == 200 or answer.code == "bad_parameter"


async def test_a_message_is_a_text_of_at_most_1000_characters(standing: Standing) -> None:
    for message in ({}, 7, "x" * 1001):
        answer = await standing.admin.refused("POST", "/v1/apply", {"objects": [], "message": message})
        assert (answer.status, answer.code) == (422, "bad_object")
    long = await standing.admin.refused("PATCH", f"/v1/devices/lamp-1?message={'x' * 1001}", {})

    assert long.status in (400, 422)


async def test_an_apply_of_3000_devices_is_within_the_limits(standing: Standing) -> None:
    made = await standing.admin.ok(
        "POST", "/v1/apply?dry_run=1", {"objects": [device(f"lamp-{number}") for number in range(10, 3010)]}
    )

    assert len(made["objects"]) == 3000
    assert await standing.unmoved()


@pytest.mark.parametrize(
    ("facts", "fine"),
    [
        pytest.param({f"f{n}": 1 for n in range(31)}, True, id="31"),
        pytest.param({f"f{n}": 1 for n in range(32)}, True, id="32"),
        pytest.param({f"f{n}": 1 for n in range(33)}, False, id="33"),
        pytest.param({"k" * 63: 1}, True, id="key-of-63"),
        pytest.param({"k" * 64: 1}, True, id="key-of-64"),
        pytest.param({"k" * 65: 1}, False, id="key-of-65"),
        pytest.param({"a": "x" * 127}, True, id="text-of-127"),
        pytest.param({"a": "x" * 128}, True, id="text-of-128"),
        pytest.param({"a": "x" * 129}, False, id="text-of-129"),
    ],
)
async def test_facts_of_a_device_have_limits(facts: dict[str, Any], fine: bool) -> None:
    if fine:
        assert parse.facts_field({"facts": facts}) == facts
        return
    with pytest.raises(Invalid):
        parse.facts_field({"facts": facts})
