from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import trust
from henge_protocol.errors import HengeError, Malformed, TooLarge, Untrusted

FLEET = "0123456789abcdefghjkmnpq00"
FIRST = b"\x30\x82\x01\x00" + b"a" * 256
SECOND = b"\x30\x82\x01\x00" + b"b" * 256


def body(**fields: object) -> bytes:
    return json.dumps({"fleet": FLEET, "server_ca": [encoded(FIRST)]} | fields).encode()


def encoded(der: bytes) -> str:
    return base64.b64encode(der).decode()


def test_what_the_daemon_says_is_what_the_client_reads() -> None:
    said = trust.Trust(FLEET, (FIRST, SECOND))

    assert trust.check_trust_answer(trust.trust_answer(said), None) == said


def test_only_the_pinned_authority_is_returned() -> None:
    answer = trust.trust_answer(trust.Trust(FLEET, (FIRST, SECOND)))

    assert trust.check_trust_answer(answer, hashlib.sha256(SECOND).digest()) == trust.Trust(FLEET, (SECOND,))


@pytest.mark.parametrize("pin", [hashlib.sha256(SECOND).digest(), b"", hashlib.sha256(FIRST).digest()[:31]])
def test_another_authority_is_refused(pin: bytes) -> None:
    with pytest.raises(Untrusted) as refusal:
        trust.check_trust_answer(body(), pin)

    assert refusal.value.code == "pin_mismatch"


def test_unknown_fields_are_ignored() -> None:
    assert trust.check_trust_answer(body(later={"a": 1}), None).fleet_id == FLEET


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>log in to this hotel</html>",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"fleet": "' + FLEET.encode() + b'"}',
        body(fleet=FLEET.upper()),
        body(fleet=7),
        body(server_ca=[]),
        body(server_ca="x"),
        body(server_ca=[7]),
        body(server_ca=[encoded(FIRST)] * 2),
        body(server_ca=[encoded(FIRST), encoded(SECOND), encoded(FIRST + b"")]),
        body(server_ca=[encoded(FIRST) + "!"]),
        body(server_ca=["\u00e9"]),
        body(server_ca=[encoded(FIRST + b"trailing")]),
        body(server_ca=[encoded(FIRST[:-1])]),
        body(server_ca=[encoded(b"0")]),
        body(later=float("nan")),
        body()[:-1] + b', "fleet": "' + FLEET.encode() + b'"}',
        b"[" * 4000,
    ],
)
def test_other_answers_are_refused(answer: bytes) -> None:
    with pytest.raises(Malformed) as refusal:
        trust.check_trust_answer(answer, None)

    assert refusal.value.code == "bad_trust_answer"


def test_the_limit_of_size_is_exact() -> None:
    padding = trust.MAX_TRUST_BYTES - len(body())

    assert trust.check_trust_answer(body() + b" " * padding, None).fleet_id == FLEET
    with pytest.raises(TooLarge):
        trust.check_trust_answer(body() + b" " * (padding + 1), None)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_our_own_error(data: bytes) -> None:
    with pytest.raises(HengeError):
        trust.check_trust_answer(data, None)


@given(
    st.lists(st.binary(max_size=300).map(lambda data: b"\x30\x82" + len(data).to_bytes(2, "big") + data), max_size=3)
)
def test_certificates_that_stand_together_are_parted(ders: list[bytes]) -> None:
    assert list(trust.split_certificates(b"".join(ders))) == ders


@given(st.binary(max_size=200))
def test_no_byte_is_lost_of_what_is_no_certificate(data: bytes) -> None:
    assert b"".join(trust.split_certificates(data)) == data


def test_server_name_is_lower_case() -> None:
    assert trust.server_name(FLEET.upper()) == f"{FLEET}.henge.internal"


def test_reading_trust_does_not_load_cryptography() -> None:
    program = "import sys, henge_protocol.trust; sys.exit('cryptography' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
