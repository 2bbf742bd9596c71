"""What an operator stores of the daemon's answer, and what he refuses to store."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from henge_protocol import pki
from henge_protocol.errors import HengeError
from hengectl.operator import read_identity

FLEET = pki.new_id(bytes(16))
AUTHORITIES = [pki.make_ca("server", FLEET, now=1_900_000_000.0).certificate_der for _ in range(3)]


def answer(authorities: list[bytes], **fields: Any) -> dict[str, Any]:
    told = [base64.b64encode(der).decode() for der in authorities]
    return {"fleet": FLEET, "name": "ada", "certificate": "AAAA", "server_ca": told, "renew_after": 5} | fields


@pytest.mark.parametrize("number", [1, 2])
def test_the_authorities_that_the_daemon_names_are_those_to_verify_it_by(number: int) -> None:
    assert list(read_identity(answer(AUTHORITIES[:number])).server_cas) == AUTHORITIES[:number]


@pytest.mark.parametrize(
    "odd",
    [
        answer([]), answer(AUTHORITIES), answer(AUTHORITIES[:1] * 2), answer([b"no certificate"]),
        answer(AUTHORITIES[:1], server_ca="x"), answer(AUTHORITIES[:1], fleet="x"),
        answer(AUTHORITIES[:1], certificate="*"), answer(AUTHORITIES[:1], renew_after="soon"),
        {key: value for key, value in answer(AUTHORITIES[:1]).items() if key != "server_ca"}, [], "x", None,
    ],
)  # fmt: skip
def test_an_answer_of_another_form_is_refused(odd: object) -> None:
    with pytest.raises(HengeError) as refused:
        read_identity(odd)
    assert refused.value.code in ("bad_object", "bad_trust_answer")
