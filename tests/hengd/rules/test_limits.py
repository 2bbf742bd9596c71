"""Guessing is slow: failures are counted by address, IPv6 by network."""

from __future__ import annotations

import pytest

from hengd.rules.limits import MAX_ADDRESSES, FailureLimit, RateLimit, counted_as
from henge_protocol.errors import Limited


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("somewhere", "somewhere"),
    ],
)
def test_an_address_is_counted_as_its_network_e30(address: str, counted: str) -> None:
    assert counted_as(address) == counted


def test_a_rate_has_bursts_and_comes_back_with_time() -> None:
    rate = RateLimit(10.0, 5)
    for _ in range(5):
        rate.take("ada", now=100.0)
    with pytest.raises(Limited) as refusal:
        rate.take("ada", now=100.0)
    rate.take("bob", now=100.0)
    rate.take("ada", now=100.1)
    with pytest.raises(Limited):
        rate.take("ada", now=100.1)

    assert refusal.value.extra["retry_after_s"] == 1
    for _ in range(5):
        rate.take("ada", now=200.0)


def test_who_is_refused_is_not_refused_longer_for_asking_on() -> None:
    rate = RateLimit(1.0, 1)
    rate.take("ada", now=0.0)
    for _ in range(100):
        with pytest.raises(Limited):
            rate.take("ada", now=0.5)

    rate.take("ada", now=1.0)


def test_a_rates_memory_holds_only_who_asked_lately() -> None:
    rate = RateLimit(10.0, 5)
    for number in range(3 * MAX_ADDRESSES):
        rate.take(str(number), now=float(number))

    assert len(rate._paid_until) <= MAX_ADDRESSES


def failing(limit: FailureLimit, address: str, times: int, now: float) -> None:
    """Fail, as often as that."""
    for _ in range(times):
        limit.failed(address, now=now)


def test_five_failures_a_minute_are_allowed() -> None:
    limit = FailureLimit()
    failing(limit, "10.0.0.1", 4, 100.0)
    limit.check("10.0.0.1", now=100.0)
    failing(limit, "10.0.0.1", 1, 110.0)
    with pytest.raises(Limited) as refusal:
        limit.check("10.0.0.1", now=110.0)

    assert refusal.value.extra["retry_after_s"] == 51
    limit.check("10.0.0.2", now=110.0)
    limit.check("10.0.0.1", now=160.1)


def test_addresses_of_one_ipv6_network_are_one() -> None:
    limit = FailureLimit()
    for number in range(5):
        limit.failed(f"2001:db8::{number}", now=0.0)
    with pytest.raises(Limited):
        limit.check("2001:db8::ffff", now=0.0)


def test_failures_of_others_concern_nobody() -> None:
    limit = FailureLimit()
    for number in range(200):
        failing(limit, f"10.0.0.{number}", 5, 0.0)

    limit.check("10.9.9.9", now=0.0)


def test_memory_does_not_grow_with_addresses_and_the_last_to_fail_are_remembered() -> None:
    limit = FailureLimit()
    failing(limit, "192.168.1.1", 4, 0.0)
    for number in range(3 * MAX_ADDRESSES):
        if number % (MAX_ADDRESSES // 2) == 0:
            limit.failed("192.168.1.1", now=0.0)
        limit.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", now=0.0)

    assert len(limit._failures) <= MAX_ADDRESSES
    with pytest.raises(Limited):
        limit.check("192.168.1.1", now=0.0)
