"""Browsing: with an answer, with none, with garbage."""

import asyncio
import os
import socket

from henge_micro import mdns

FLEET = "chjpcsv8d5n6pv3ddsqq0wbjec"
TXT = [b"v=1", b"fleet=" + FLEET.encode(), b"fp=de21e6bac681252f", b"t=1800000000"]
HINT = {"fleet": FLEET, "fp": "de21e6bac681252f", "t": 1800000000}


def name(text):
    """A DNS name, spelled out."""
    return b"".join([bytes((len(label),)) + label.encode() for label in text.split(".") if label]) + b"\0"


def record(owner, kind, data):
    """A resource record."""
    return owner + bytes((0, kind, 0x80, 1, 0, 0, 0, 120)) + len(data).to_bytes(2, "big") + data


def answer(address=b"\xc0\xa8\x01\x05", port=4364, txt=TXT, instance="henge"):
    """What a responder sends: the question again, PTR, and the rest as additional records that point back."""
    question = name("_henge._tcp.local") + b"\0\x0c\0\1"
    service, offset = b"\xc0\x0c", 12 + len(question)
    pointer = record(service, 12, bytes((len(instance),)) + instance.encode() + service)
    instance_at = offset + len(pointer) - len(instance) - 3
    full = bytes((0xC0 | instance_at >> 8, instance_at & 255))
    srv = record(full, 33, b"\0\0\0\0" + port.to_bytes(2, "big") + name("Box.local"))
    text = record(full, 16, b"".join([bytes((len(entry),)) + entry for entry in txt]))
    return b"\x12\x34\x84\0\0\1\0\1\0\0\0\3" + question + pointer + srv + text + record(name("bOX.LOCAL"), 1, address)


def test_an_answer_is_read():
    assert mdns.read_answer(answer()) == [("192.168.1.5", 4364, HINT)]


def test_what_is_not_usable_is_skipped():
    assert mdns.read_answer(answer(address=b"\x08\x08\x08\x08")) == []
    assert mdns.read_answer(answer(port=0)) == []
    assert mdns.read_answer(answer(txt=[b"v=2"])) == []
    assert mdns.read_answer(answer(txt=[])) == []


def test_cut_and_random_packets_are_no_answers():
    whole = answer()
    for size in range(len(whole)):
        assert mdns.read_answer(whole[:size]) == []
    for _ in range(300):
        mdns.read_answer(b"\0\0\x84\0" + os.urandom(200))
        at = os.urandom(1)[0] % len(whole)
        mdns.read_answer(whole[:at] + os.urandom(2) + whole[at + 2 :])


def test_names_that_point_at_themselves_end():
    assert mdns.read_answer(b"\0\0\x84\0\0\0\0\1\0\0\0\0\xc0\x0c\0\x0c\0\1\0\0\0\0\0\0") == []


def test_only_home_networks_are_tried():
    for address in ("10.1.2.3", "192.168.0.1", "172.16.0.1", "172.31.255.1", "169.254.1.1"):
        assert mdns.is_home(address), address
    for address in ("8.8.8.8", "127.0.0.1", "172.32.0.1", "172.15.0.1", "0.0.0.0", "224.0.0.251", "192.169.0.1"):
        assert not mdns.is_home(address), address


def browse_at(reply, wanted=lambda hint: True, later=()):
    """Browse with a responder that gives these packets to whoever asks, and these a tenth of a second later."""
    responder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    responder.setblocking(False)
    for port in range(30000 + os.urandom(1)[0] * 100, 65000):
        try:
            responder.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
            break
        except OSError:
            pass

    async def respond():
        while True:
            try:
                packet, whom = responder.recvfrom(1500)
                assert packet[2:] == mdns.question()[2:]
                for each in reply:
                    responder.sendto(each, whom)
                await asyncio.sleep_ms(100)
                for each in later:
                    responder.sendto(each, whom)
            except OSError:
                pass
            await asyncio.sleep_ms(5)

    async def both():
        task = asyncio.create_task(respond())
        try:
            return await mdns.browse(wanted, 0.3, ("127.0.0.1", port))
        finally:
            task.cancel()

    try:
        return asyncio.run(both())
    finally:
        responder.close()


def test_a_daemon_that_answers_is_found_among_garbage():
    assert browse_at([b"", os.urandom(40), answer(), answer()]) == [("192.168.1.5", 4364, HINT)]


def test_who_answers_first_is_not_the_only_one_who_is_heard():
    slower = browse_at([answer()], later=[answer(address=b"\xc0\xa8\x01\x06", instance="other")])
    assert slower == [("192.168.1.5", 4364, HINT), ("192.168.1.6", 4364, HINT)]


def test_another_fleet_is_not_what_is_wanted():
    assert browse_at([answer()], lambda hint: hint["fleet"] != FLEET) == []


def test_nobody_answers():
    assert browse_at([]) == []
