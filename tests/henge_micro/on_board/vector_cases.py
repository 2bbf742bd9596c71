"""The shared vectors; the same functions run on MicroPython and on CPython."""

import json
from binascii import hexlify, unhexlify

import run_vectors
from henge_boards import IMPLEMENTATION

from henge_micro import joining
from henge_micro.wire import Trouble

FOLDER = "tests/vectors"


def run_suite(suite, at_least):
    """Every case of a suite holds."""
    passed, failed, _ = run_vectors.run(IMPLEMENTATION, FOLDER, [suite])
    assert not failed, failed
    assert len(passed) >= at_least, len(passed)


def test_frames():
    run_suite("frames", 120)


def test_sessions():
    run_suite("sessions", 24)


def test_backoff():
    run_suite("backoff", 15)


def test_bodies():
    run_suite("bodies", 10)


def test_beacons():
    run_suite("beacons", 15)


def test_joining():
    with open(FOLDER + "/joining.json") as file:
        cases = json.load(file)["cases"]
    done = 0
    for case in cases:
        [(what, value)] = case["in"].items()
        if what not in ("token", "commitment", "code"):
            continue  # what operators do
        done += 1
        try:
            found = joined(what, value)
        except Trouble as error:
            found = error.code
        wanted = case.get("error", case.get("expect"))
        if isinstance(wanted, dict) and wanted["kind"] == "admin":
            wanted = "token_malformed"  # a board has no use for an operator's token
        assert found == wanted, (case["name"], found)
    assert done > 25, done


def joined(what, value):
    """Do what a case names."""
    if what == "token":
        token_id, secret, fingerprint = joining.parse_token(value)
        return {"kind": "join", "id": token_id, "secret": secret, "fingerprint": hexlify(fingerprint).decode()}
    if what == "commitment":
        return hexlify(joining.commitment(unhexlify(value["nonce"]), unhexlify(value["spki"]))).decode()
    parts = [unhexlify(value[name]) for name in ("nonce_device", "nonce_server", "spki", "fingerprint")]
    return joining.code(value["sid"], *parts)
