from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import mqtt

CHUNKS = st.lists(st.integers(min_value=1, max_value=64), min_size=1)


@given(st.lists(st.binary(max_size=300), max_size=5), CHUNKS)
def test_packets_survive_any_cutting_of_the_stream(payloads: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(mqtt.publish(7, "config/all", payload, retain=True) for payload in payloads)
    reader, read, at = mqtt.Reader(), list[bytes](), 0
    while at < len(stream):
        size = sizes[at % len(sizes)]
        read += [mqtt.message_of(packet).payload for packet in reader.feed(stream[at : at + size])]
        at += size

    assert payloads == read


@pytest.mark.parametrize("count", [0, 127, 128, 16_383, 16_384, 2_097_152])
def test_every_width_of_a_length_is_read(count: int) -> None:
    packet = mqtt.publish(1, "t", bytes(count), retain=False)

    assert [count] == [len(mqtt.message_of(one).payload) for one in mqtt.Reader().feed(packet)]


def test_packets_are_those_of_the_standard() -> None:
    assert bytes.fromhex("100d 0004 4d515454 04 02 001e 0001 61") == mqtt.connect("a", keep_alive_s=30)
    assert bytes.fromhex("8208 000a 0003 612f62 01") == mqtt.subscribe(10, "a/b")
    assert bytes.fromhex("3308 0003 612f62 000a 78") == mqtt.publish(10, "a/b", b"x", retain=True)
    assert bytes.fromhex("4002 000a") == mqtt.puback(10)


def test_a_length_of_five_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="four bytes"):
        list(mqtt.Reader().feed(bytes.fromhex("30ffffffffff")))


def test_another_quality_of_service_is_refused() -> None:
    packet = mqtt.Packet(mqtt.PUBLISH, 0, b"\0\1tx")

    with pytest.raises(ValueError, match="QoS 1"):
        mqtt.message_of(packet)
