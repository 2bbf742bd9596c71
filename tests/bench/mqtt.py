"""The part of MQTT 3.1.1 that the peer's load generator speaks: packets as bytes, and a reader for a stream of them.

Packet types and layouts are those of the OASIS standard, sections 2 and 3. Quality of service is always 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP = 1, 2, 3, 4, 8, 9, 12, 13
PING = bytes((PINGREQ << 4, 0))

_QOS_1 = 0b0010
_RETAIN = 0b0001
_CLEAN_SESSION = 0b0010
_RESERVED_OF_SUBSCRIBE = 0b0010
_LONGEST_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its type, the four flag bits, and everything behind the fixed header."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """What a PUBLISH of quality of service 1 says."""

    topic: str
    packet_id: int
    payload: bytes


def connect(client_id: str, *, keep_alive_s: int) -> bytes:
    """Open a clean session."""
    return _packet(CONNECT, 0, _text("MQTT") + bytes((4, _CLEAN_SESSION)) + _number(keep_alive_s) + _text(client_id))


def subscribe(packet_id: int, topic_filter: str) -> bytes:
    """Ask for all messages of one filter."""
    return _packet(SUBSCRIBE, _RESERVED_OF_SUBSCRIBE, _number(packet_id) + _text(topic_filter) + b"\x01")


def publish(packet_id: int, topic: str, payload: bytes, *, retain: bool) -> bytes:
    """Send a message, to be acknowledged."""
    return _packet(PUBLISH, _QOS_1 | (_RETAIN if retain else 0), _text(topic) + _number(packet_id) + payload)


def puback(packet_id: int) -> bytes:
    """Acknowledge a message."""
    return _packet(PUBACK, 0, _number(packet_id))


def message_of(packet: Packet) -> Message:
    """The message of a PUBLISH; ``ValueError`` for any other packet or quality of service."""
    if packet.kind != PUBLISH or packet.flags & 0b0110 != _QOS_1:
        raise ValueError(f"packet type {packet.kind} with flags {packet.flags:04b} is not a PUBLISH of QoS 1")
    body = packet.body
    end = 2 + int.from_bytes(body[:2], "big")
    return Message(body[2:end].decode(), int.from_bytes(body[end : end + 2], "big"), body[end + 2 :])


class Reader:
    """Cuts a stream into packets, however it arrives."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Every packet that is now complete."""
        buffer, at = self._rest + data, 0
        while (span := _span(buffer, at)) is not None and span[1] <= len(buffer):
            begin, end = span
            yield Packet(buffer[at] >> 4, buffer[at] & 0b1111, buffer[begin:end])
            at = end
        self._rest = buffer[at:]


def _span(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Begin and end of the body of the packet at ``at``; None while its length is incomplete."""
    length = 0
    for place, byte in enumerate(buffer[at + 1 : at + 1 + _LONGEST_LENGTH_BYTES]):
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            begin = at + 2 + place
            return begin, begin + length
    if len(buffer) > at + _LONGEST_LENGTH_BYTES:
        raise ValueError("a packet's length has more than four bytes")
    return None


def _packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes((kind << 4 | flags,)) + _length(len(body)) + body


def _length(count: int) -> bytes:
    encoded = bytearray()
    while count > 0x7F:
        encoded.append(count & 0x7F | 0x80)
        count >>= 7
    encoded.append(count)
    return bytes(encoded)


def _number(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _text(text: str) -> bytes:
    data = text.encode()
    return _number(len(data)) + data
