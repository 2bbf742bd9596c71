from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from henge_protocol import beacon
from henge_protocol.errors import HengeError, Invalid
from henge_protocol.peertext import clean_text

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "beacons.json").read_text(encoding="utf-8"))
FLEET = "0123456789abcdefghjkmnpq00"


def encode_txt(entries: dict[str, str]) -> bytes:
    """TXT record data: each entry after its length in one byte (RFC 6763 section 6)."""
    strings = [f"{key}={value}".encode() for key, value in entries.items()]
    return b"".join(len(string).to_bytes(1, "big") + string for string in strings)


TXT = encode_txt(beacon.txt_entries(fleet_id=FLEET, server_ca_fingerprint=bytes(32), unix_s=1_800_000_000.9))


def run(given_in: dict[str, Any]) -> object:
    """Do what the vector's one key names."""
    [(what, value)] = given_in.items()
    match what:
        case "txt":
            hint = beacon.parse_txt(bytes.fromhex(value))
            return {"fleet": hint.fleet, "fp": hint.fp_hint, "t": hint.unix_s}
        case "addresses":
            return list(beacon.usable_addresses(value))
        case "text":
            return clean_text(value, beacon.MAX_PEER_TEXT_CHARACTERS)
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


def seen(name: str = "hengd", **changes: Any) -> beacon.Sighting:
    what = {"port": 4364, "target": "pi.local.", "txt": TXT, "addresses": ["192.168.1.2"]} | changes
    return beacon.sighting(f"{name}.{beacon.SERVICE_TYPE}", **what)


def test_a_sighting_says_where_to_try() -> None:
    assert seen() == beacon.Sighting("hengd", ("192.168.1.2",), 4364, FLEET, "0" * 16, 1_800_000_000)


@pytest.mark.parametrize(
    "target", ["", ".", "local.", ".local", "localhost.", "localhost.local.", "a.example.", "a" * 300 + ".local."]
)
def test_a_host_elsewhere_is_skipped(target: str) -> None:
    with pytest.raises(Invalid):
        seen(target=target)


@pytest.mark.parametrize("change", [{"port": 0}, {"port": 65536}, {"addresses": ["8.8.8.8"]}, {"addresses": []}])
def test_a_service_that_cannot_be_reached_is_skipped(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        seen(**change)


def test_loopback_is_for_tests() -> None:
    assert seen(addresses=["127.0.0.1", "::1"], allow_loopback=True).addresses == ("127.0.0.1", "::1")


def test_of_a_thousand_addresses_eight_are_kept() -> None:
    assert len(seen(addresses=[f"10.0.{n // 250}.{n % 250}" for n in range(1000)]).addresses) == beacon.MAX_ADDRESSES


def test_instance_names_are_shown_clean() -> None:
    assert seen("\x1b[2Jkiln\u202e 🔥").name == "[2Jkiln 🔥"


def test_the_same_instance_on_two_interfaces_is_one_candidate() -> None:
    merged = beacon.merge(beacon.merge((), seen()), seen(addresses=["10.0.0.2", "192.168.1.2"]))

    assert [candidate.addresses for candidate in merged] == [("10.0.0.2", "192.168.1.2")]


def test_an_impostor_with_our_hints_is_a_candidate_of_its_own() -> None:
    ours = seen()
    merged = beacon.merge((ours,), seen("fake", addresses=[f"10.6.6.{n}" for n in range(1, 9)]))

    assert ours in merged
    assert len(merged) == 2


def test_past_64_candidates_the_oldest_go() -> None:
    candidates: tuple[beacon.Sighting, ...] = ()
    for number in range(1000):
        candidates = beacon.merge(candidates, seen(f"n{number}"))

    assert [candidate.name for candidate in candidates] == [f"n{number}" for number in range(936, 1000)]


@given(st.binary(max_size=1100))
def test_any_txt_gives_a_hint_or_our_own_error(data: bytes) -> None:
    try:
        hint = beacon.parse_txt(data)
    except HengeError:
        return

    assert len(hint.fp_hint) in (0, 16)


@given(st.text(max_size=60))
def test_any_text_may_pose_as_an_address(text: str) -> None:
    assert len(beacon.usable_addresses([text])) <= 1
