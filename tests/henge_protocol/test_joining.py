from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import joining
from henge_protocol.errors import HengeError, Invalid, Malformed

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "joining.json").read_text(encoding="utf-8"))
LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
TOKENS = st.builds(
    joining.JoinToken,
    st.sampled_from(["join", "admin"]),
    st.text(LETTERS, min_size=8, max_size=8),
    st.text(LETTERS, min_size=26, max_size=26),
    st.binary(min_size=32, max_size=32),
)


def run(given_in: dict[str, Any]) -> object:
    """Do what the vector's one key names."""
    [(what, value)] = given_in.items()
    match what:
        case "token":
            token = joining.parse_token(value)
            return {
                "kind": token.kind,
                "id": token.id,
                "secret": token.secret,
                "fingerprint": token.fingerprint.hex(),
            }
        case "secret":
            return joining.secret_hash(value).hex()
        case "commitment":
            return joining.commitment(bytes.fromhex(value["nonce"]), bytes.fromhex(value["spki"])).hex()
        case "code":
            names = ("nonce_device", "nonce_server", "spki", "fingerprint")
            return joining.code(value["sid"], *(bytes.fromhex(value[name]) for name in names))
        case "typed_code":
            return joining.parse_code(value)
        case "shown_code":
            return joining.format_code(value)
        case "base32":
            return joining.encode_base32(bytes.fromhex(value))
        case _:
            raise AssertionError(f"unknown key {what}")


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    assert set(case) == {"name", "why", "in", "verdict", "error" if "error" in case else "expect"}
    assert case["verdict"] == ("invalid" if "error" in case else "valid")

    try:
        result: object = run(case["in"])
    except HengeError as error:
        result = error.code

    assert result == case.get("error", case.get("expect"))


def test_vector_names_are_unique() -> None:
    names = [case["name"] for case in VECTORS["cases"]]

    assert len(set(names)) == len(names)


@given(TOKENS)
def test_a_token_survives_being_copied(token: joining.JoinToken) -> None:
    assert joining.parse_token(f"\n {joining.format_token(token).upper()} \t") == token


@given(st.text(max_size=300))
def test_any_text_gives_a_token_or_token_malformed(text: str) -> None:
    with pytest.raises(Malformed) as refusal:
        joining.parse_token(text)

    assert refusal.value.code == "token_malformed"


@pytest.mark.parametrize("kind", ["join", "admin"])
def test_every_single_wrong_character_is_noticed(kind: joining.TokenKind) -> None:
    text = joining.format_token(joining.JoinToken(kind, "0123abcd", "q" * 26, hashlib.sha256(b"ca").digest()))

    accepted = []
    for at, right in enumerate(text):
        for wrong in set(LETTERS + "oilu.-") - {right}:
            try:
                joining.parse_token(text[:at] + wrong + text[at + 1 :])
                accepted.append((right, wrong))
            except Malformed:
                pass

    assert set(accepted) <= {("0", "o"), ("1", "i"), ("1", "l")}


def test_every_pair_of_swapped_neighbours_is_noticed() -> None:
    text = joining.format_token(joining.JoinToken("join", "0123abcd", LETTERS[:26], hashlib.sha256(b"ca").digest()))

    for at in range(len(text) - 1):
        swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        if swapped != text:
            with pytest.raises(Malformed):
                joining.parse_token(swapped)


@pytest.mark.parametrize("put", [" ", "u", "é", "", "..", "\x00"])
def test_no_refusal_repeats_the_secret(put: str) -> None:
    token = joining.JoinToken("join", "01234567", "z9y8x7w6v5t4s3r2q1p0n9m8k7", bytes(32))
    text = joining.format_token(token)
    shown = [repr(token)]
    for at in range(1, len(text) - 1):
        with pytest.raises(Malformed) as refusal:
            joining.parse_token(text[:at] + put + text[at + 1 :])
        shown += [refusal.value.message, refusal.value.cure]

    assert not [line for line in shown if any(token.secret[at : at + 4] in line for at in range(22))]


def test_new_token_uses_the_randomness_it_is_given() -> None:
    token = joining.new_token("join", bytes(32), random=lambda size: bytes(range(size)))

    assert token == joining.JoinToken("join", "01234567", "89abcdefghjkmnpqrstvwxyz01", bytes(32))


def test_secret_hash_takes_bytes_and_text() -> None:
    assert joining.secret_hash(b"0" * 26) == joining.secret_hash("O" * 26) == hashlib.sha256(b"0" * 26).digest()
    with pytest.raises(Malformed):
        joining.secret_hash(b"\xff" * 26)


def test_commitment_and_code_are_the_documented_hashes() -> None:
    nonce, other, spki, fingerprint = b"d" * 32, b"s" * 32, b"key", b"f" * 32

    committed = joining.commitment(nonce, spki)
    code = joining.code("sid", nonce, other, spki, fingerprint)

    assert committed == hashlib.sha256(b"henge-commit-v1" + nonce + spki).digest()
    text = (
        b"henge-sas-v1\0\0\0\x03sid\0\0\0\x20"
        + nonce
        + b"\0\0\0\x20"
        + other
        + b"\0\0\0\x03key\0\0\0\x20"
        + fingerprint
    )
    assert code == f"{int(hashlib.sha256(text).hexdigest()[:16], 16) % 100_000_000:08d}"


def test_the_code_depends_on_every_part() -> None:
    parts = ("sid", b"d" * 32, b"s" * 32, b"key", b"f" * 32)
    others = ("sie", b"e" * 32, b"t" * 32, b"kez", b"g" * 32)

    codes = {joining.code(*parts[:at], others[at], *parts[at + 1 :]) for at in range(5)}  # type: ignore[arg-type]

    assert len(codes | {joining.code(*parts)}) == 6


@given(st.binary(max_size=40))
def test_base32_is_that_of_rfc_4648_with_another_alphabet(data: bytes) -> None:
    plain = base64.b32encode(data).decode().rstrip("=")
    translated = plain.translate(str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", LETTERS))

    assert joining.encode_base32(data) == translated


def test_ids() -> None:
    good = joining.encode_base32(bytes(range(16)))

    assert joining.is_id(good)
    assert joining.check_id(good, "device") == good
    for bad in ("", good[:-1], good.upper(), good[:-1] + "1", good + "\n", "u" * 26):
        assert not joining.is_id(bad)
        with pytest.raises(Invalid):
            joining.check_id(bad, "device")
