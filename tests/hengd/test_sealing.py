"""Sealing: only the same key, context and bytes open it; key files are read strictly and never repeated."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.sealing import Seal, key_id, new_key, read_keys, written_key
from henge_protocol.errors import Internal, Invalid
from henge_protocol.model import digest_of

KEY = bytes(range(32))


@given(st.binary(max_size=300), st.text(max_size=30))
def test_what_is_sealed_is_opened_and_not_readable_before(plain: bytes, context: str) -> None:
    sealed = Seal(KEY).seal(plain, context)

    assert Seal(KEY).open(sealed, context) == plain
    assert len(sealed) == len(plain) + 28
    assert len(plain) < 8 or plain not in sealed


@given(st.data())
def test_a_changed_bit_is_noticed_wherever_it_is(data: st.DataObject) -> None:
    sealed = bytearray(Seal(KEY).seal(b"the value", "a"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(Internal, match="a is sealed and cannot be opened"):
        Seal(KEY).open(bytes(sealed), "a")


@pytest.mark.parametrize(
    ("key", "context", "cut"), [(b"x" * 32, "a", 100), (KEY, "b", 100), (KEY, "a", 36), (KEY, "a", 11), (KEY, "a", 0)]
)
def test_another_key_context_or_length_opens_nothing(key: bytes, context: str, cut: int) -> None:
    sealed = Seal(KEY).seal(b"the value", "a")

    with pytest.raises(Internal) as refusal:
        Seal(key).open(sealed[:cut], context)
    assert refusal.value.code == "storage_corrupt"


def test_each_sealing_has_a_nonce_of_its_own() -> None:
    seal = Seal(KEY)

    assert len({seal.seal(b"the value", "a")[:12] for _ in range(200)}) == 200


@given(st.dictionaries(st.text(max_size=5), st.integers()))
def test_blanks_change_nothing_but_the_digest(value: dict[str, int]) -> None:
    document = json.dumps(value).encode()
    blinded = Seal(KEY).blinded(document)

    assert json.loads(blinded) == value
    assert blinded == Seal(KEY).blinded(document)
    assert set(blinded[len(document) :]) <= set(b" \t")
    assert len(blinded) % 64 == 0
    assert 128 <= len(blinded) - len(document) < 128 + 64
    assert len({digest_of(one) for one in (document, blinded, Seal(b"x" * 32).blinded(document))}) == 3


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(KEY, id="raw"),
        pytest.param(written_key(KEY), id="base64"),
        pytest.param(base64.b64encode(KEY), id="no-line-break"),
        pytest.param(KEY.hex().encode() + b"\r\n", id="hex"),
        pytest.param(b"# mine\n\n  " + written_key(KEY), id="comment-and-blanks"),
    ],
)
def test_a_key_is_read_in_every_form(data: bytes) -> None:
    assert read_keys(data) == [KEY]


def test_the_first_of_several_keys_is_the_one_in_use() -> None:
    other = new_key()

    assert read_keys(written_key(other) + KEY.hex().encode()) == [other, KEY]
    assert key_id(other) != key_id(KEY)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n# only words\n", id="only-comments"),
        pytest.param(b"c2VjcmV0LW9mLW1pbmU=\n", id="short"),
        pytest.param(base64.b64encode(b"x" * 33), id="long"),
        pytest.param(KEY + b"\n", id="raw-with-line-break"),
        pytest.param(b"\xff" * 64, id="binary"),
        pytest.param(b"password1234", id="a-password"),
        pytest.param(written_key(KEY) + b"secret-of-mine\n", id="second-line"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(data: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        read_keys(data)

    assert refusal.value.code == "bad_key"
    assert "secret" not in refusal.value.message
    assert "password" not in refusal.value.message
    assert "/dev/urandom" in refusal.value.cure
