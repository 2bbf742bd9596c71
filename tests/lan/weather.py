"""Bad weather between two network interfaces: frames get lost or come late. Standard library only, started with -S.

weather.py IFACE IFACE LOSS DELAY_S     forwards between both until SIGTERM; prints how many frames came, and were lost
weather.py whole-frames IFACE           makes the kernel finish checksums and segments before a frame leaves the host
"""

from __future__ import annotations

import fcntl
import heapq
import random
import select
import signal
import socket
import struct
import sys
import time

ETH_P_ALL = 3
MAX_FRAME_BYTES = 65536
LOOK_UP_S = 0.1
"""Python goes on waiting after a signal, so now and then it asks whether there was one."""
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO = 0x17, 0x1F, 0x24, 0x2C


def forward(names: tuple[str, str], loss: float, delay_s: float) -> None:
    """Copy frames between two interfaces, in their order."""
    ends = [_tap(name) for name in names]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    late: list[tuple[float, int, socket.socket, bytes]] = []
    came = lost = 0
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    print("ready", flush=True)  # noqa: T201
    while not ended:
        wait_s = min(LOOK_UP_S, max(0.0, late[0][0] - time.monotonic())) if late else LOOK_UP_S
        for end in select.select(ends, [], [], wait_s)[0]:
            frame, (_, _, kind, _, _) = end.recvfrom(MAX_FRAME_BYTES)
            if kind == socket.PACKET_OUTGOING:
                continue
            came += 1
            if random.random() < loss:
                lost += 1
            else:
                heapq.heappush(late, (time.monotonic() + delay_s, came, other[end], frame))
        while late and late[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(late)
            end.send(frame)
    print(came, lost, flush=True)  # noqa: T201


def whole_frames(name: str) -> None:
    """Turn off what a network card would do for the kernel."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO):
            value = bytearray(struct.pack("II", command, 0))
            address, _ = _address(value)
            try:
                fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), address))
            except OSError as error:
                if command == ETHTOOL_STXCSUM:
                    raise SystemExit(f"checksums of {name} cannot be made by the kernel: {error}") from None


def _address(value: bytearray) -> tuple[int, object]:
    import ctypes

    kept = (ctypes.c_char * len(value)).from_buffer(value)
    return ctypes.addressof(kept), kept


def _tap(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((name, 0))
    return sock


if __name__ == "__main__":
    if sys.argv[1] == "whole-frames":
        whole_frames(sys.argv[2])
    else:
        forward((sys.argv[1], sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
