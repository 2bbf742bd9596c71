"""WebSocket frames, byte by byte."""

import asyncio

from henge_micro.link import WELCOME_S, live
from henge_micro.wire import Trouble
from henge_micro.ws import SILENCE_S, WebSocket


class Line:
    """A connection with bytes to read, and what was written."""

    def __init__(self, data):
        self.data = data
        self.written = b""
        self.left = 0
        self.waits = []

    async def exactly(self, size, wait_s=0):
        """As a connection."""
        if wait_s:
            self.waits.append(wait_s)
        if len(self.data) < size:
            raise Trouble("unreachable")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    async def write(self, data):
        """As a connection."""
        self.written += data


def heard(data):
    """What comes of reading one frame: the answer or the code of the trouble, and the connection."""
    line = Line(data)
    try:
        return asyncio.run(WebSocket(line).next(SILENCE_S)), line
    except Trouble as error:
        return error.code, line


def unmasked(frame):
    """Opcode and payload of a short frame that a client sent."""
    assert frame[0] & 0x80 and frame[1] & 0x80, "a client's frames are whole and masked"
    mask, payload = frame[2:6], frame[6 : 6 + (frame[1] & 127)]
    return frame[0] & 15, bytes([byte ^ mask[at & 3] for at, byte in enumerate(payload)])


def test_lengths_of_all_three_kinds():
    for head, size in ((b"\x81\x05", 5), (b"\x81\x7e\x01\x00", 256), (b"\x81\x7f\0\0\0\0\0\1\0\0", 65536)):
        answer, line = heard(head + b"rest")
        assert answer is True and line.left == size and line.data == b"rest"


def test_a_ping_is_answered_with_its_own_words():
    answer, line = heard(b"\x89\x03abc")
    assert answer is False and unmasked(line.written) == (10, b"abc")
    answer, line = heard(b"\x89\x00")
    assert answer is False and unmasked(line.written) == (10, b"")
    assert heard(b"\x8a\x00")[0] is False, "a pong is only a sign of life"


def test_a_close_says_why():
    for frame, code in ((b"\x88\x02\x0f\xa5", "revoked"), (b"\x88\x02\x0f\xa4", "certificate_expired"),
                        (b"\x88\x02\x03\xe9", "closed"), (b"\x88\x00", "closed")):  # fmt: skip
        assert heard(frame)[0] == code


def test_a_close_of_a_fault_is_told_from_one_of_a_restart():
    for code, fault in ((1000, False), (1001, False), (1008, True), (1011, True), (1013, True), (4001, False)):
        try:
            asyncio.run(WebSocket(Line(b"\x88\x02" + code.to_bytes(2, "big"))).next(SILENCE_S))
        except Trouble as error:
            assert error.fault == fault, code


def test_what_a_daemon_never_sends_ends_the_link():
    for frame in (b"\x01\x02ab", b"\x80\x02ab", b"\x82\x02ab", b"\x83\x00", b"\x89\x7e\x00\xff", b"\x81\x85abcdefghi"):
        answer, line = heard(frame + b"\0" * 300)
        assert answer == "bad_frame" and unmasked(line.written) == (8, b"\x03\xea"), frame


def test_long_texts_are_sent_masked_and_whole():
    line = Line(b"")
    asyncio.run(WebSocket(line).send(b"x" * 300))
    assert line.written[:4] == b"\x81\xfe\x01\x2c" and len(line.written) == 8 + 300
    mask, payload = line.written[4:8], line.written[8:]
    assert bytes([byte ^ mask[at & 3] for at, byte in enumerate(payload)]) == b"x" * 300


class Talk(Line):
    """A daemon that upgraded; the header of the frame that is read is the rest of the data."""

    async def request(self, method, path, headers=""):
        """As a connection."""
        return 101

    async def line(self):
        """As a connection."""
        text, self.data, self.left = self.data[: self.left], self.data[self.left :], 0
        return text


class Quiet:
    """A client that owes nothing."""

    def hello(self):
        """As the client."""
        return {"type": "hello"}

    def check_link(self):
        """As the client."""

    def owed(self):
        """As the client."""

    async def heard(self, address, message, connection):
        """As the client."""


def test_a_daemon_that_says_nothing_is_left_sooner_before_its_welcome_than_after():
    for frames, waits in ((b"", [WELCOME_S]), (b'\x81\x12{"type":"welcome"}', [WELCOME_S, SILENCE_S])):
        daemon = Talk(frames)
        try:
            asyncio.run(live(Quiet(), None, daemon))
        except Trouble as error:
            assert error.code == "unreachable"
        assert daemon.waits == waits, daemon.waits
