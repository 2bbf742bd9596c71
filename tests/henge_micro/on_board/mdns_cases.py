"""Browsing: with an answer, with none, with garbage."""

import asyncio
import os
import socket

from mdns_packets import DOUBTFUL, FLEET, FP, NOTHING, SOMETHING, answer

from henge_micro import mdns

HINT = {"fleet": FLEET, "fp": FP, "t": 1800000000}


def test_an_answer_is_read():
    assert mdns.read_answer(answer()) == [("192.168.1.5", 4364, HINT)]


def test_what_is_no_announcement_announces_nothing():
    for what, packets in NOTHING:
        for packet in packets:
            assert mdns.read_answer(packet) == [], (what, packet)


def test_what_is_odd_is_read_all_the_same():
    for what, packet, addresses in SOMETHING:
        found = mdns.read_answer(packet)
        assert len(found) == addresses, (what, found)
        assert all(found[each][1:] == (4364, HINT) for each in range(addresses)), (what, found)


def test_m27_another_kind_of_message_is_no_answer():
    for flags in (0x8403, 0x8405, 0xA400, 0x8C00, 0xFC0F):
        assert mdns.read_answer(answer(flags=flags)) == [], flags


def test_what_is_doubtful_is_believed():
    for what, packets in DOUBTFUL:
        assert browse_at(packets) == [("192.168.1.5", 4364, HINT)], what


def test_m02_a_changed_packet_is_read_or_not():
    whole = answer()
    for _ in range(300):
        at = os.urandom(1)[0] % len(whole)
        mdns.read_answer(whole[:at] + os.urandom(2) + whole[at + 2 :])


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
    slower = browse_at([answer()], later=[answer((b"\xc0\xa8\x01\x06",), instance=b"other")])
    assert slower == [("192.168.1.5", 4364, HINT), ("192.168.1.6", 4364, HINT)]


def test_another_fleet_is_not_what_is_wanted():
    assert browse_at([answer()], lambda hint: hint["fleet"] != FLEET) == []


def test_nobody_answers():
    assert browse_at([]) == []
