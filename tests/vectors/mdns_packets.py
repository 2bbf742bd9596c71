"""mDNS packets that whoever looks for a daemon may receive, and what a reader finds in them.

Written in the dialect that MicroPython runs as well: the boards' parser reads them as bytes, the ground's browser
receives them from the network. Each of ``NOTHING`` would be a good announcement but for what its name says.
"""

import os

FLEET = "chjpcsv8d5n6pv3ddsqq0wbjec"
FP = "de21e6bac681252f"
TXT = [b"v=1", b"fleet=" + FLEET.encode(), b"fp=" + FP.encode(), b"t=1800000000"]
SERVICE = "_henge._tcp.local"
HOME = b"\xc0\xa8\x01\x05"
A, NULL, PTR, TXT_TYPE, AAAA, SRV, OPT, NSEC, ANY = 1, 10, 12, 16, 28, 33, 41, 47, 255
IN, CACHE_FLUSH, CHAOS = 1, 0x8001, 3


def number(value, size=2):
    """A number as the wire has it."""
    return value.to_bytes(size, "big")


def name(text):
    """A DNS name, spelled out."""
    return b"".join([label(part.encode()) for part in text.split(".") if part]) + b"\0"


def label(data):
    """One part of a name, also one with dots or of a forbidden length."""
    return bytes((len(data),)) + data


def record(owner, kind, data, ttl=120, kind_of_net=CACHE_FLUSH):
    """A resource record."""
    return owner + number(kind) + number(kind_of_net) + number(ttl, 4) + number(len(data)) + data


def header(questions=0, answers=0, more=0, flags=0x8400):
    """The first twelve bytes."""
    return b"\x12\x34" + number(flags) + number(questions) + number(answers) + b"\0\0" + number(more)


def joined(strings):
    """TXT data."""
    return b"".join([label(string) for string in strings]) or b"\0"


def answer(
    addresses=(HOME,), port=4364, txt=TXT, instance=b"henge", target="Box.local", owner="bOX.LOCAL",
    service=SERVICE, flags=0x8400, ttl=120, kind_of_net=CACHE_FLUSH, order=b"\0\0\0\0", kind=A, more=(),
):  # fmt: skip
    """What a responder sends: the question again, PTR, and the rest as additional records that point back."""
    question = name(service) + number(PTR) + number(IN)
    end = b"\xc0\x0c"
    instances = record(end, PTR, label(instance) + end, ttl, kind_of_net & ~0x8000)
    full = number(0xC000 | 12 + len(question) + len(instances) - len(instance) - 3)
    srv = record(full, SRV, order + number(port) + name(target), ttl, kind_of_net)
    text = record(full, TXT_TYPE, txt if isinstance(txt, bytes) else joined(txt), ttl, kind_of_net)
    hosts = [record(name(owner), kind, address, ttl, kind_of_net) for address in addresses]
    rest = [srv, text] + list(more) + hosts
    return header(1, 1, len(rest), flags) + question + instances + b"".join(rest)


def owned(*owners):
    """An announcement whose addresses belong to these spelled names or pointers, the first of them at ``OWNERS_AT``."""
    return answer((), more=[record(owner, A, HOME) for owner in owners])


def pointer(to):
    """What stands for a name that stands elsewhere."""
    return number(0xC000 | to)


def chain(length):
    """An announcement whose address belongs to the host by so many pointers, each to the one before."""
    at = last = OWNERS_AT + 11
    data = name("box.local")
    for _ in range(length):
        data, last = data + pointer(last), at + len(data)
    return answer((), more=[record(b"\0", NULL, data), record(pointer(last), A, HOME)])


def cut(whole):
    """The packet ended after each of its bytes."""
    return [whole[:size] for size in range(len(whole))]


def entries(change):
    """TXT entries of which one is another."""
    key = change.split(b"=")[0]
    return [change if entry.split(b"=")[0] == key else entry for entry in TXT]


def claiming(data, size):
    """A record of type A whose length is a lie."""
    honest = record(name("box.local"), A, data)
    return honest[: -len(data) - 2] + number(size) + data


OWNERS_AT = len(answer(()))
LONG = ("n" * 62 + ".") * 4 + "local"

NOTHING = [
    ("M01 empty", [b""]),
    ("M01 one byte", [b"\x84"]),
    ("M01 eleven bytes", [header()[:11]]),
    ("M02 random bytes", [os.urandom(1 + number % 250) for number in range(200)]),
    ("M02 random bytes after a header", [header(0, 9) + os.urandom(number) for number in range(100)]),
    ("M03 counts of 65535 and nothing else", [header(65535, 65535, 65535)]),
    ("M03 counts of 65535 answers and nothing else", [header(0, 65535, 65535)]),
    ("M04 cut after each byte", cut(answer())),
    ("M05 a length of 65535 with four bytes", [answer((), more=[claiming(HOME, 65535)])]),
    ("M05 a length of no address", [answer((HOME[:3],)), answer((HOME + b"\1",)), answer((b"",))]),
    ("M06 a name that points at itself", [owned(pointer(OWNERS_AT))]),
    ("M06 two names that point at each other", [owned(pointer(OWNERS_AT + 16), pointer(OWNERS_AT))]),
    ("M06 a name that points beyond the packet", [owned(name("box.local"), pointer(0x3FFF))]),
    ("M06 a name that points into the header", [owned(pointer(3))]),
    ("M06 a chain of 140 pointers", [chain(140)]),
    ("M07 a label of 64 bytes", [answer(instance=b"n" * 64)]),
    ("M07 a label of 191 bytes", [answer(instance=b"n" * 191)]),
    ("M07 a name of 259 bytes", [answer(target=LONG, owner=LONG)]),
    ("M07 the service as part of a label", [answer(instance=b"a", service="x_henge._tcp.local")]),
    ("M08 no TXT entries", [answer(txt=[])]),
    ("M08 more than 1 KiB of TXT", [answer(txt=TXT + [b"x" * 250] * 5)]),
    ("M08 a TXT entry longer than the record", [answer(txt=joined(TXT) + b"\5abc")]),
    ("M09 another version", [answer(txt=entries(b"v=999")), answer(txt=entries(b"v="))]),
    ("M09 a fingerprint of another length", [answer(txt=entries(b"fp=" + FP[1:].encode()))]),
    ("M09 a fleet that is no id", [answer(txt=entries(b"fleet=../../etc")), answer(txt=entries(b"fleet="))]),
    ("M10 port 0", [answer(port=0)]),
    ("M10 no host", [answer(target="", owner="")]),
    ("M10 a host elsewhere", [answer(target="henge.example.com", owner="henge.example.com")]),
    ("M10 localhost", [answer(target="localhost", owner="localhost")]),
    ("M11 unspecified", [answer((b"\0\0\0\0",))]),
    ("M11 loopback", [answer((b"\x7f\0\0\1",))]),
    ("M11 multicast", [answer((b"\xe0\0\0\1",))]),
    ("M11 broadcast", [answer((b"\xff\xff\xff\xff",))]),
    ("M11 a public address", [answer((b"\x08\x08\x08\x08",))]),
    ("M12 unspecified IPv6", [answer((bytes(16),), kind=AAAA)]),
    ("M12 loopback IPv6", [answer((bytes(15) + b"\1",), kind=AAAA)]),
    ("M12 multicast IPv6", [answer((b"\xff\2" + bytes(13) + b"\1",), kind=AAAA)]),
    ("M12 link-local IPv6 without its interface", [answer((b"\xfe\x80" + bytes(13) + b"\1",), kind=AAAA)]),
    ("M12 IPv4 inside IPv6", [answer((bytes(10) + b"\xff\xff" + HOME,), kind=AAAA)]),
    ("M18 a goodbye", [answer(ttl=0)]),
    ("M28 another kind of network", [answer(kind_of_net=CHAOS)]),
    ("M28 a question", [answer(flags=0)]),
    ("M29 another service", [answer(service="_ipp._tcp.local")]),
]
"""(name, packets): none of them announces anything."""

SOMETHING = [
    ("as hengd says it", answer(), 1),
    ("M06 a chain of three pointers", chain(3), 1),
    ("M07 bytes that are no text in a name", answer(instance=b"a\xff\xfe"), 1),
    ("M07 dots inside of a label", answer(instance=b"a.b..c"), 1),
    ("M08 entries without value, without key, twice, binary, empty", answer(txt=TXT + [
        b"flag", b"=x", b"v=2", b"b=\xff\0", b"",
    ]), 1),
    ("M08 an entry of 255 bytes", answer(txt=TXT + [b"x=" + b"y" * 253]), 1),
    ("M10 odd priority and weight", answer(order=b"\xff\xff\xff\xff"), 1),
    ("M13 three hundred addresses", answer([b"\x0a\0" + number(each) for each in range(300)]), 8),
    ("M19 a life of 2^31 seconds less one", answer(ttl=2**31 - 1), 1),
    ("M28 records that nobody asked for", answer(more=[
        record(b"\0", OPT, b"", 0, 1440), record(name("box.local"), NSEC, name("box.local") + b"\0\4\x40\0\0\0"),
        record(name("box.local"), ANY, b"any"), record(name("box.local"), 65280, b"private"),
        record(name("box.local"), A, b"\x0a\0\0\1", kind_of_net=CHAOS),
    ]), 1),
    ("M29 an instance and a host in capitals", answer(instance=b"HENGE", target="BOX.Local", owner="box.LOCAL"), 1),
    ("M30 spaces, emoji and quotes", answer(instance="\"my\" 'kiln' \U0001f525".encode()), 1),
    ("M30 an instance of 63 bytes", answer(instance=b"n" * 63), 1),
    ("M41 more in TXT than is known", answer(txt=TXT + [b"password=swordfish"]), 1),
]  # fmt: skip
"""(name, packet, how many addresses are believed)."""

DOUBTFUL = [
    ("M01 more than 9000 bytes", [answer() + bytes(9001)]),
    ("M07 a zero byte in a name", [answer(instance=b"a\0b")]),
    ("M19 a life of 2^31 seconds", [answer(ttl=2**31)]),
    ("M29 the service in capitals", [answer(service="_HENGE._TCP.LOCAL")]),
    ("M30 a control sequence for terminals in a name", [answer(instance=b"my\x1b[31m kiln")]),
]
"""(name, packets): good to a lenient reader, nothing to a strict one, and no trouble to either."""
