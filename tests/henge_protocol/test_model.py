"""The nouns of the wire: names, digests, states."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import model
from henge_protocol.errors import Invalid

INNER = string.ascii_lowercase + string.digits + "-"


@pytest.mark.parametrize("name", ["a", "0", "lamp-1", "a--b", "xn--caf-dma", "a" * 62, "a" * 63])
def test_a_dns_label_is_a_name(name: str) -> None:
    assert model.is_name(name)
    assert model.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-",
        "-a",
        "a-",
        "A",
        "a_b",
        "a.b",
        "a b",
        "a\n",
        "é",
        "а",
        "٣",
        "a" * 64,
        None,
        7,
        b"a",
        ["a"],
        "a\0",
        "\ud800",
    ],
)
def test_anything_else_is_refused_by_what_it_was_meant_for(name: object) -> None:
    assert not model.is_name(name)
    with pytest.raises(Invalid) as refusal:
        model.check_name(name, "group name")

    assert refusal.value.code == "bad_name"
    assert refusal.value.message.startswith("group name ")
    assert refusal.value.message.isascii()
    assert len(refusal.value.message) < 250


@given(st.text(INNER, min_size=1, max_size=70))
def test_a_name_has_no_hyphen_at_its_ends_and_63_characters_at_most(text: str) -> None:
    assert model.is_name(text) == (len(text) <= model.MAX_NAME_CHARS and text[0] != "-" and text[-1] != "-")


@given(st.binary(max_size=100))
def test_a_digest_is_the_sha_256_of_the_bytes(document: bytes) -> None:
    digest = model.digest_of(document)

    assert digest == hashlib.sha256(document).hexdigest()
    assert model.is_digest(digest)


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "٣" * 64, None, 0, b"0" * 64]
)
def test_a_digest_has_one_spelling(text: object) -> None:
    assert not model.is_digest(text)


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=32), st.integers(0, 10**15 - 1))
def test_a_version_is_an_epoch_and_a_revision(epoch: str, revision: int) -> None:
    assert model.is_version_tag(model.version_tag(epoch, revision))


@pytest.mark.parametrize("text", ["", "*", "a.1", '"a.1', '"a"', '".1"', '"a.x"', '"A.1"', 'W/"a.1"', '"a.1", "a.2"'])
def test_nothing_else_is_a_version(text: str) -> None:
    assert not model.is_version_tag(text)


def test_short_digests_are_for_people() -> None:
    assert model.short_digest("0123456789abcdef" * 4) == "0123456789ab"
    assert model.short_digest("") == "-"


def test_final_states_can_be_reported() -> None:
    assert model.FINAL_STATES < model.REPORT_STATES


@pytest.mark.parametrize(
    "name", ["wifi", "wifi/home", "a/b/c", "0", "mqtt/ca.pem", "a_b-c.d/e", "a" * 63, "/".join("a" * 64)]
)
def test_names_of_secrets_are_paths_of_plain_words(name: str) -> None:
    assert model.check_secret_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a//b", "A", ".", "..", "a/..", "../a", "-a", "a-", "a b", "a\n", "a\0", "ä", "a" * 64,
     "a/" * 64 + "a", "a=b", "a%2fb", None, 7, ["a"], {"$secret": "a"}],
)  # fmt: skip
def test_other_names_of_secrets_are_refused(name: object) -> None:
    with pytest.raises(Invalid) as refusal:
        model.check_secret_name(name)

    assert refusal.value.code == "bad_name"
