"""The server's own certificate: kept while it serves, made again in time, and what happens without the key for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from hengd.authorities import Authorities, make_authorities
from hengd.leaf import OFFLINE_LIFETIME_S, Leaf, make_leaf, server_leaf
from henge_protocol import pki
from henge_protocol.errors import HengeError, Internal

NOW = 1_900_000_000.0
FLEET = pki.new_id(bytes(16))
YEAR_S = 365 * pki.DAY_S


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    make_authorities(tmp_path, FLEET, now=NOW)
    return Authorities(tmp_path)


def leaf(authorities: Authorities, now: float = NOW, *names: str) -> Leaf:
    return server_leaf(authorities, names=["localhost", *names], now=now)


def test_it_is_kept_while_it_serves_and_made_again_in_time(authorities: Authorities) -> None:
    made = leaf(authorities)

    assert leaf(authorities, NOW + 60) == made
    assert leaf(authorities, NOW, "kallisto.home", "192.168.1.5") != made
    named = leaf(authorities, NOW, "kallisto.home", "192.168.1.5")
    assert leaf(authorities, NOW, "192.168.1.5", "Kallisto.home") == named
    assert named.names == {"localhost", "kallisto.home", "192.168.1.5"}
    assert leaf(authorities, NOW + pki.SERVER_LIFETIME_S * 0.6, "192.168.1.5", "kallisto.home") == named
    assert leaf(authorities, NOW + pki.SERVER_LIFETIME_S * 0.7, "192.168.1.5", "kallisto.home") != named


def test_an_address_is_the_same_however_it_is_written(authorities: Authorities) -> None:
    made = leaf(authorities, NOW, "fe80:0::0001%eth0")

    assert made.names == {"localhost", "fe80::1"}
    assert leaf(authorities, NOW, "FE80::1") == made


def test_one_of_a_clock_that_was_ahead_is_made_again(authorities: Authorities) -> None:
    assert leaf(authorities, NOW + 5 * YEAR_S).ends == NOW + 7 * YEAR_S
    assert leaf(authorities).ends == NOW + 2 * YEAR_S


def test_one_that_ends_with_its_authority_is_not_made_again_and_again(authorities: Authorities) -> None:
    late = NOW + 19.5 * YEAR_S
    made = leaf(authorities, late)

    assert made.ends == pki.validity(authorities.server.certificate_der)[1]
    assert leaf(authorities, late + pki.DAY_S) == made


@pytest.mark.parametrize("content", [b"", b"garbage", b"key of another"])
def test_a_damaged_one_is_made_again(authorities: Authorities, content: bytes) -> None:
    made = leaf(authorities)
    if content == b"key of another":
        content = made.pem[: made.pem.index(b"-----BEGIN PRIVATE")] + pki.generate_key()
    (authorities.folder / "server.pem").write_bytes(content)

    assert leaf(authorities).pem.count(b"BEGIN") == 2
    assert leaf(authorities) != made


def test_one_by_another_authority_is_made_again(authorities: Authorities) -> None:
    made = leaf(authorities)
    authorities.keep_leaf(make_leaf(pki.make_ca("server", FLEET, now=NOW), FLEET, names=["localhost"], now=NOW))

    again = leaf(authorities)
    assert again != made
    certificate = pki.certificate_der(again.pem[: again.pem.index(b"-----BEGIN PRIVATE")])
    assert pki.is_signed_by(certificate, authorities.server.certificate_der)


def test_without_the_authoritys_key_it_goes_on_and_says_when_it_is_due(authorities: Authorities) -> None:
    authorities.keep_leaf(
        make_leaf(authorities.server, FLEET, names=["localhost"], now=NOW, lifetime_s=OFFLINE_LIFETIME_S)
    )
    authorities.remove_server_key()
    made = leaf(authorities)

    assert (made.trouble, made.ends, made.due) == (None, NOW + 5 * YEAR_S, NOW + 5 * YEAR_S - 5 * YEAR_S / 3)
    late = leaf(authorities, made.due + 1)
    named = leaf(authorities, NOW, "kallisto.home")
    assert late.pem == named.pem == made.pem
    for one, said in ((late, "ends in 608 days"), (named, "kallisto.home")):
        assert one.trouble is not None
        assert (one.trouble.code, said in one.trouble.message) == ("certificate_due", True)
        assert "hengd ca reissue --from FILE" in one.trouble.cure


def test_without_key_and_certificate_the_start_is_refused_with_the_way_out(authorities: Authorities) -> None:
    leaf(authorities)
    authorities.remove_server_key()
    (authorities.folder / "server.pem").write_bytes(b"garbage")

    with pytest.raises(Internal) as refused:
        leaf(authorities)
    assert (refused.value.code, "hengd ca import FILE" in refused.value.cure) == ("bad_authority", True)


def test_a_name_that_cannot_stand_in_a_certificate_is_refused_by_name(authorities: Authorities) -> None:
    with pytest.raises(HengeError) as refused:
        leaf(authorities, NOW, "not a name")
    assert (refused.value.code, "not a name" in refused.value.message) == ("bad_setting", True)
