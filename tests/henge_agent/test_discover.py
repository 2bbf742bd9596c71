from __future__ import annotations

import pytest

from henge_agent.discover import joinable
from henge_agent.settings import Address
from henge_protocol import pki
from henge_protocol.beacon import Sighting
from henge_protocol.errors import Invalid, Unreachable

PIN = bytes(range(32))
OURS, OTHERS = pki.new_id(b"our fleet ......"), pki.new_id(b"another fleet...")


def seen(fleet: str = OURS, fp_hint: str = PIN.hex()[:16], *addresses: str) -> Sighting:
    return Sighting("kallisto", addresses or ("192.168.1.20",), 4364, fleet, fp_hint)


def test_a_token_chooses_by_the_fingerprint_that_is_announced_and_takes_who_announces_none() -> None:
    sightings = [seen(OTHERS, "0" * 16, "192.168.1.66"), seen(), seen(OTHERS, "", "192.168.1.99")]

    assert joinable(sightings, PIN) == [Address("192.168.1.20"), Address("192.168.1.99")]


def test_without_a_token_the_only_fleet_is_taken_with_few_addresses_of_each() -> None:
    assert joinable([seen(OURS, "", "10.0.0.1", "fd00::1", "10.0.0.3")], None) == [
        Address("10.0.0.1"),
        Address("fd00::1"),
    ]


def test_of_several_fleets_a_person_chooses() -> None:
    with pytest.raises(Invalid) as refusal:
        joinable([seen(), seen(OTHERS)], None)

    assert "kallisto at 192.168.1.20:4364" in refusal.value.message


@pytest.mark.parametrize("fingerprint", [None, b"\xff" * 32])
def test_nobody_who_fits_is_said_with_the_way_out(fingerprint: bytes | None) -> None:
    with pytest.raises(Unreachable) as refusal:
        joinable([seen()] if fingerprint else [], fingerprint)

    assert refusal.value.code == "no_daemon"
    assert "https://HOST:4364" in refusal.value.cure
