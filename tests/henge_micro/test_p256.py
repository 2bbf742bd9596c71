"""Keys and requests made by the board's interpreter, judged by ``cryptography``."""

from __future__ import annotations

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from henge_protocol.csr import read_csr
from tests.henge_micro.boards import PRELUDE, SOURCE, Interpreter

MAKE = """
from binascii import hexlify, unhexlify
from henge_micro import p256
for seed in sys.argv[1:]:
    key = p256.make_key(unhexlify(seed))
    csr = p256.csr_der(key[0], key[1], "lamp-\u00e9", board.random_bytes())
    made = {"key": p256.key_der(*key), "csr": csr, "spki": p256.spki_der(key[1])}
    print(json.dumps({name: hexlify(data).decode() for name, data in made.items()}))
"""
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SEEDS = [0, 1, 2, 3, ORDER - 2, ORDER - 1, ORDER, 2**256 - 1, *(7**k for k in range(20, 90, 5))]


def made(micropython: Interpreter, *seeds: int) -> list[dict[str, bytes]]:
    """What the board makes of seeds."""
    program = PRELUDE.format(source=str(SOURCE), folder="", setup={}) + MAKE
    printed = micropython.run(program, *(seed.to_bytes(32, "big").hex() for seed in seeds))
    return [{name: bytes.fromhex(text) for name, text in json.loads(line).items()} for line in printed.splitlines()]


def test_keys_and_requests_are_what_cryptography_takes(micropython: Interpreter) -> None:
    for seed, each in zip(SEEDS, made(micropython, *SEEDS), strict=True):
        key = load_der_private_key(each["key"], None)
        csr = x509.load_der_x509_csr(each["csr"])

        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.private_numbers().private_value == seed % (ORDER - 1) + 1
        assert csr.is_signature_valid
        assert csr.public_key() == key.public_key()
        assert read_csr(each["csr"]).spki_der == each["spki"]
        assert csr.subject.rfc4514_string() == "CN=lamp-é"
        assert len(each["key"]) == 121


@pytest.mark.parametrize("heap", ["32k"])
def test_a_key_fits_into_a_small_heap(small: Interpreter, heap: str) -> None:
    program = (
        f"import sys; sys.path[:0] = [{str(SOURCE)!r}]\nfrom henge_micro import p256\n"
        "key = p256.make_key(bytes(range(32)))\nprint(len(p256.csr_der(key[0], key[1], 'lamp-1', bytes(32))))"
    )
    printed = small.run(program.replace("from henge_micro import p256", ALONE), heap=heap)

    assert 200 < int(printed) < 220


ALONE = "sys.path[:0] = [sys.path[0] + '/henge_micro']\nimport p256"
