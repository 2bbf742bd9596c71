from __future__ import annotations

import pytest

from hengd.http.problems import STATUS
from henge_protocol.errors import CODES, Conflict, Gone, Internal, Problem
from henge_protocol.problems import REFUSALS, read_problem, refusal_by_status, refusal_of


def test_the_table_is_the_daemons_read_backwards() -> None:
    assert {kind.kind: status for status, (kind, _) in REFUSALS.items()} == STATUS


def test_every_substitute_is_a_code_of_ours() -> None:
    assert {code for _, code in REFUSALS.values()} <= CODES.keys()


def test_a_status_that_henge_never_sends_is_the_peers_failure() -> None:
    assert refusal_by_status(410) == (Gone, "join_expired")
    assert refusal_by_status(418) == (Internal, "internal")


def test_a_problem_document_becomes_the_error_that_it_was() -> None:
    body = (
        b'{"code":"exists","detail":"lamp-1 exists","cure":"rename it","errors":[{"pointer":"/name","message":"no"}]}'
    )
    error = refusal_of(409, read_problem(body), extra={"status": 409})

    assert (type(error), error.code, error.message, error.cure) == (Conflict, "exists", "lamp-1 exists", "rename it")
    assert (error.problems, error.extra) == ((Problem("/name", "no"),), {"status": 409})


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"code":7,"errors":null,"cure":null,"detail":""}',
     b'{"code":"of-tomorrow","errors":["x",null,[]]}', b'{"errors":{}}'],
)  # fmt: skip
def test_whatever_the_body_is_the_status_tells(body: bytes) -> None:
    error = refusal_of(409, read_problem(body))

    assert (type(error), error.code, error.message) == (Conflict, "in_use", "the daemon answered 409")
    assert (error.cure, error.problems) == ("", ())
