from __future__ import annotations

import pytest

from henge_protocol.errors import Invalid
from hengectl.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ("https://192.168.1.20:4364", Address("192.168.1.20", 4364), "https://192.168.1.20:4364"),
        ("https://Henge.LAN/", Address("henge.lan", 4364), "https://henge.lan:4364"),
        ("henge.lan:8443", Address("henge.lan", 8443), "https://henge.lan:8443"),
        ("kallisto", Address("kallisto", 4364), "https://kallisto:4364"),
        ("https://[fe80::1]:4364", Address("fe80::1", 4364), "https://[fe80::1]:4364"),
        ("[::1]", Address("::1", 4364), "https://[::1]:4364"),
    ],
)
def test_an_address_has_one_spelling(text: str, address: Address, url: str) -> None:
    assert parse_address(text) == address
    assert address.url == url
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "http://henge.lan", "https://", "https://henge.lan/ui", "https://user@henge.lan", "https://henge.lan:0",
        "https://henge.lan:65536", "https://henge.lan:", "https://henge.lan:x", "fe80::1", "::1", "https://[zz]",
        "hénge.lan", "a b", "https://henge.lan?x", "-x", "https://a..b", "ssh://henge.lan",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_address(text)
    assert refusal.value.code == "bad_parameter"


@pytest.mark.parametrize("text", ["::1", "fe80::1", "https://::1", "https://fe80::1:4364"])
def test_an_ipv6_address_needs_brackets(text: str) -> None:
    with pytest.raises(Invalid, match="an IPv6 address needs brackets"):
        parse_address(text)
