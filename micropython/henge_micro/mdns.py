"""Looking for daemons with multicast DNS (RFC 6762, 6763): one question, answers straight back to our port.

Anybody can answer anything: what is found is a hint where to try (docs/pki.md, mDNS), never a reason to trust.
"""

import os
import struct

from henge_micro.wire import Trouble, is_id

GROUP = ("224.0.0.251", 5353)
SERVICE = "_henge._tcp.local"
ASK_AT_MS = (0, 1000, 3000)
HEAR_OUT_MS = 500
"""After the first answer: who answers first may be anybody, and responders let each other pass (RFC 6762, 6)."""
MAX_FOUND = 8

# Types of records: A is 1, TXT 16, SRV 33; a name for each would cost flash.


async def browse(wanted, timeout_s=4, group=GROUP, interface=None):
    """Daemons for which ``wanted(hint)`` is true: a list of (address, port, hint). Empty when there is none.

    ``interface`` is the address of the one to ask on, for machines with several.
    """
    import asyncio
    import socket

    found = []
    until_ms = timeout_s * 1000
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if interface:  # IPPROTO_IP, IP_MULTICAST_IF
            sock.setsockopt(0, 32, bytes([int(part) for part in interface.split(".")]))
        sock.setblocking(False)
        target = socket.getaddrinfo(group[0], group[1])[0][-1]
        asked = waited_ms = 0
        while waited_ms < until_ms:
            if not found and asked < len(ASK_AT_MS) and waited_ms >= ASK_AT_MS[asked]:
                asked += 1
                sock.sendto(question(), target)
            await asyncio.sleep_ms(20)
            waited_ms += 20
            news = [each for each in _received(sock, wanted) if each not in found]
            if news and not found:
                until_ms = min(until_ms, waited_ms + HEAR_OUT_MS)
            found = (found + news)[:MAX_FOUND]
    except OSError:
        pass  # no network yet, or one without multicast
    finally:
        sock.close()
    return found


def _received(sock, wanted):
    found = []
    for _ in range(MAX_FOUND):
        try:
            packet = sock.recv(1500)  # as much as one frame carries
        except OSError:
            break  # nothing more has come
        found += [each for each in read_answer(packet) if wanted(each[2]) and each not in found]
    return found[:MAX_FOUND]


def question():
    """A query for all daemons that asks for a unicast answer."""
    name = b"".join([bytes((len(label),)) + label.encode() for label in SERVICE.split(".")])
    return os.urandom(2) + b"\0\0\0\1\0\0\0\0\0\0" + name + b"\0\0\x0c\x80\1"


def read_answer(packet):
    """What a packet announces: (address, port, hint) for each instance that is complete; nothing for nonsense."""
    try:
        return _complete(packet, _records(packet))
    except (IndexError, ValueError):  # cut, or not DNS
        return []


def parse_txt(data):
    """The hint in TXT data: ``fleet``, ``fp`` (or empty), ``t`` (or None).

    Raises ``Trouble`` as ``henge_protocol.beacon``: too_large, bad_beacon, unsupported_protocol.
    """
    if len(data) > 1024:
        raise Trouble("too_large")
    entries = {}
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if end > len(data):
            raise Trouble("bad_beacon")
        key, equals, value = data[at + 1 : end].partition(b"=")
        key = _text(key).lower()
        if equals and key and key not in entries:
            entries[key] = _text(value)
        at = end
    if entries.get("v") != "1":
        raise Trouble("unsupported_protocol")
    fleet, fp, t = entries.get("fleet", ""), entries.get("fp", "").lower(), entries.get("t", "")
    if not is_id(fleet) or (fp and (len(fp) != 16 or not all(char in "0123456789abcdef" for char in fp))):
        raise Trouble("bad_beacon")
    is_time = 0 < len(t) <= 11 and all(char in "0123456789" for char in t)
    return {"fleet": fleet, "fp": fp, "t": int(t) if is_time else None}


def _text(data):
    try:
        return data.decode()
    except ValueError:
        return "?"  # no value of ours is anything but ASCII


def _records(packet):
    """(name, type, offset of the data and of its end) of every record; without those that are taken back."""
    kind, questions, answers, authorities, additional = struct.unpack(">HHHHH", packet[2:12])
    if kind & 0xF80F != 0x8000:  # not an answer to a query, or an error
        raise ValueError
    at = 12
    for _ in range(questions):
        at = _name(packet, at)[1] + 4
    records = []
    for _ in range(answers + authorities + additional):
        name, at = _name(packet, at)
        kind, network, life_s, size = struct.unpack(">HHIH", packet[at : at + 10])  # a ValueError if it is cut
        begin, at = at + 10, at + 10 + size
        if at > len(packet):
            raise ValueError
        if network & 0x7FFF == 1 and life_s:
            records.append((name, kind, begin, at))
    return records


def _name(packet, at):
    """The name at an offset, in lower case, and where what follows it begins."""
    labels = []
    after = None
    for _ in range(64):  # more hops or labels than any real name has
        size = packet[at]
        if size >= 0xC0:
            after = after or at + 2
            at = (size & 0x3F) << 8 | packet[at + 1]
        elif not size:
            name = ".".join(labels)
            if len(name) < 254:
                return name, after or at + 1
        elif size < 64:
            labels.append(_text(packet[at + 1 : at + 1 + size]).lower())
            at += 1 + size
    raise ValueError


def _complete(packet, records):
    hosts = {}
    for name, kind, at, end in records:
        if kind == 1 and end - at == 4 and name.endswith(".local"):
            hosts.setdefault(name, []).append("%d.%d.%d.%d" % tuple(packet[at:end]))
    hints = {name: packet[at:end] for name, kind, at, end in records if kind == 16}
    found = []
    for name, kind, at, _ in records:
        if kind == 33 and name.endswith("." + SERVICE) and name in hints:
            port, target = packet[at + 4] << 8 | packet[at + 5], _name(packet, at + 6)[0]
            try:
                hint = parse_txt(hints[name])
            except Trouble:
                continue
            found += [(address, port, hint) for address in hosts.get(target, ()) if port and is_home(address)]
    return found[:MAX_FOUND]


def is_home(address):
    """Whether an address is of a kind that home networks use."""
    first, second = [int(part) for part in address.split(".")[:2]]
    pair = first << 8 | second
    return first == 10 or pair in (0xC0A8, 0xA9FE) or 0xAC10 <= pair < 0xAC20
