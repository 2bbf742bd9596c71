from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import sealedfile
from henge_protocol.errors import Denied, HengeError, Invalid
from henge_protocol.sealedfile import CHUNK_BYTES, check_passphrase, read_header, seal, unseal

PASSPHRASE = b"correct horse battery staple"
ABOUT = {"kind": "backup", "revision": 7}


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same construction at a thousandth of the cost; one test below uses the real one."""
    monkeypatch.setattr(sealedfile, "_MEMORY_KIB", 32)
    monkeypatch.setattr(sealedfile, "_ITERATIONS", 1)


def sealed(data: bytes, about: dict[str, Any] = ABOUT) -> bytes:
    return b"".join(seal([data], PASSPHRASE, about, salt=os.urandom(16)))


def opened(file: bytes, passphrase: bytes = PASSPHRASE) -> tuple[dict[str, Any], bytes]:
    stream = io.BytesIO(file)
    header = read_header(stream.read)
    return header.about, b"".join(unseal(header, stream.read, passphrase))


@given(pieces=st.lists(st.binary(max_size=300), max_size=8))
def test_what_was_sealed_is_opened_however_it_was_cut_into_pieces(pieces: list[bytes]) -> None:
    file = b"".join(seal(pieces, PASSPHRASE, ABOUT, salt=bytes(16)))

    assert opened(file) == (ABOUT, b"".join(pieces))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_sizes_around_a_chunk_come_back_whole(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)

    assert opened(sealed(data[:size]))[1] == data[:size]


def test_a_file_may_come_in_dribbles() -> None:
    stream = io.BytesIO(sealed(b"x" * 100))
    header = read_header(lambda size: stream.read(min(size, 3)))

    assert b"".join(unseal(header, lambda size: stream.read(min(size, 3)), PASSPHRASE)) == b"x" * 100


def test_the_same_thing_never_looks_the_same_and_shows_nothing() -> None:
    first, second = sealed(b"secret value" * 9), sealed(b"secret value" * 9)

    assert first[-100:] != second[-100:]
    assert b"secret" not in first


def test_the_key_is_made_by_the_second_recommended_option_of_rfc_9106(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    asked: list[dict[str, Any]] = []

    def noted(**given: Any) -> Argon2id:
        asked.append(given)
        return Argon2id(**given)

    monkeypatch.setattr(sealedfile, "Argon2id", noted)
    assert opened(sealed(b"keys"))[1] == b"keys"
    assert [(one["memory_cost"], one["iterations"], one["lanes"]) for one in asked] == [(65_536, 3, 4)] * 2
    assert all(len(one["salt"]) == 16 for one in asked)


AT_ONCE = """
import os
from concurrent.futures import ThreadPoolExecutor
from henge_protocol.sealedfile import SALT_BYTES, seal

def one(number):
    return b"".join(seal([b"secret"], b"correct horse battery", {}, salt=os.urandom(SALT_BYTES)))

with ThreadPoolExecutor(4) as threads:
    print(len({bytes(file) for file in threads.map(one, range(8))}))
"""


def test_files_are_sealed_at_once_on_several_threads() -> None:
    """In a process of its own: OpenSSL's threads wait for each other for ever otherwise, and no later key is made."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=False, timeout=60, cwd=os.getcwd()
    )
    assert (done.stdout, done.stderr) == ("8\n", "")


def test_another_passphrase_opens_nothing_and_is_told_from_damage() -> None:
    with pytest.raises(Denied) as refusal:
        opened(sealed(b"keys"), b"correct horse battery stable")

    assert refusal.value.code == "wrong_passphrase"


@pytest.fixture(scope="module")
def three_chunks() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealedfile, "_MEMORY_KIB", 32)
        patch.setattr(sealedfile, "_ITERATIONS", 1)
        return sealed(bytes(2 * CHUNK_BYTES + 500))


def assert_refused(file: bytes) -> None:
    with pytest.raises(HengeError) as refusal:
        opened(file)
    assert refusal.value.code in ("bad_backup", "wrong_passphrase")


def test_a_file_cut_anywhere_is_refused(three_chunks: bytes) -> None:
    ends = {*range(0, 400, 7), *range(400, len(three_chunks), 1024), len(three_chunks) - 1}
    header = len(three_chunks) - (2 * CHUNK_BYTES + 500 + 3 * 16)
    ends |= {header, header + CHUNK_BYTES + 16, header + 2 * (CHUNK_BYTES + 16)}  # exactly between two chunks
    for end in sorted(ends):
        assert_refused(three_chunks[:end])


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), early=st.booleans())
def test_any_bent_bit_is_noticed(three_chunks: bytes, at: float, bit: int, early: bool) -> None:
    place = int(at * (400 if early else len(three_chunks)))
    bent = bytearray(three_chunks)
    bent[place] ^= 1 << bit

    assert_refused(bytes(bent))


def test_chunks_in_another_order_twice_or_of_another_file_are_refused(three_chunks: bytes) -> None:
    size = CHUNK_BYTES + 16
    start = len(three_chunks) - (2 * CHUNK_BYTES + 500 + 3 * 16)
    head, first, second, last = (
        three_chunks[:start], three_chunks[start : start + size],
        three_chunks[start + size : start + 2 * size], three_chunks[start + 2 * size :],
    )  # fmt: skip
    other = sealed(bytes(2 * CHUNK_BYTES + 500))
    for file in (
        head + second + first + last, head + first + first + last, head + first + last,
        three_chunks + last, three_chunks + b"\0", other[:start] + first + second + last,
    ):  # fmt: skip
        assert_refused(file)


def test_what_the_header_says_is_proven_by_the_chunks() -> None:
    assert_refused(sealed(b"keys").replace(b'"revision": 7', b'"revision": 8'))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "it is empty"),
        (b"PK\3\4 something else", "does not begin as one"),
        (b"henge sealed 2\n" + bytes(50), "newer henge"),
        (b"henge sealed 1\n\xff\xff\xff\xff", "too long"),
        (b"henge sealed 1\n\0\0\0\2{}", "header"),
        (b"henge sealed 1\n\0\0\0\4[[[[", "header"),
        (b'henge sealed 1\n\0\0\0\x2f{"kdf": "argon2id", "salt": 7, "check": "AAAA"}', "header"),
        (b'henge sealed 1\n\0\0\0\x33{"kdf": "argon2id", "salt": "AAAA", "check": "AAAA"}', "header"),
    ],
)
def test_what_is_no_sealed_file_is_refused_with_the_reason(file: bytes, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        opened(file)

    assert refusal.value.code == "bad_backup"
    assert reason in refusal.value.message


@pytest.mark.parametrize("passphrase", ["", "1234567", "x" * 1025, "\N{SNOWMAN}" * 342])
def test_passphrases_that_are_too_short_or_too_long_are_refused(passphrase: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check_passphrase(passphrase)

    assert refusal.value.code == "bad_passphrase"
    assert check_passphrase("12345678") == b"12345678"
