"""A home network on one machine: each host a network namespace, all of them on one bridge. Needs root and iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SUBNET = "10.77.0"
WEATHER = Path(__file__).with_name("weather.py")


class NoLan(Exception):
    """Raised where no network can be made; the message is one line for a person."""


class Host:
    """One machine on the network: its interface is ``eth0``, its cable can be pulled, its address can change."""

    def __init__(self, lan: Lan, number: int) -> None:
        self.number = number
        self.namespace = f"henge-{lan.tag}-{number}"
        self._lan = lan
        self._port = f"p{number}"
        lan.make_namespace(self.namespace)
        lan.at_switch("link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        lan.at_switch("link", "set", self._port, "master", "br0", "up")
        self._ip("link", "set", "lo", "up")
        self._ip("link", "set", "eth0", "up")
        self.move(number)

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return f"{SUBNET}.{self.number}"

    @property
    def inside(self) -> list[str]:
        """What a command line begins with to run on this host."""
        return ["ip", "netns", "exec", self.namespace]

    def move(self, number: int) -> None:
        """Give it another address, as a router does that has forgotten who had which."""
        self._ip("-4", "addr", "flush", "dev", "eth0")
        self.number = number
        self._ip("addr", "add", f"{self.address}/24", "brd", "+", "dev", "eth0")
        self._ip("route", "replace", "default", "via", f"{SUBNET}.254")  # multicast needs one

    def also(self, number: int) -> None:
        """Give it one more address."""
        self._ip("addr", "add", f"{SUBNET}.{number}/24", "brd", "+", "dev", "eth0")

    def unplug(self) -> None:
        """Pull its cable at the switch: the host itself sees nothing but silence."""
        self._lan.at_switch("link", "set", self._port, "nomaster")

    def plug(self) -> None:
        """Put it back."""
        self._lan.at_switch("link", "set", self._port, "master", "br0")

    @contextmanager
    def weather(self, *, loss: float = 0.0, delay_s: float = 0.0) -> Iterator[None]:
        """Lose this share of all frames from and to this host, and let the others come late.

        Whole Ethernet frames, below IP and in both directions: TCP and mDNS see what netem would let them see, which
        not every kernel has.
        """
        self.unplug()
        here, there = f"w{self._port}", f"x{self._port}"
        self._lan.at_switch("link", "add", here, "type", "veth", "peer", "name", there)
        self._lan.at_switch("link", "set", here, "up")
        self._lan.at_switch("link", "set", there, "master", "br0", "up")
        words = [sys.executable, "-S", str(WEATHER), self._port, here, str(loss), str(delay_s)]
        command = [*self._lan.inside_switch, *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarder:
            try:
                assert forwarder.stdout is not None
                assert forwarder.stdout.readline() == "ready\n"
                yield
                forwarder.terminate()
                came, lost = (int(word) for word in forwarder.stdout.readline().split())
                assert came
                assert bool(lost) is bool(loss), f"of {came} frames {lost} were lost"
            finally:
                forwarder.kill()
        self._lan.at_switch("link", "del", here)
        self.plug()

    def whole_frames(self) -> None:
        """Let this host finish its frames itself: a forwarder in user space gets them as they are."""
        _run([*self.inside, sys.executable, "-S", str(WEATHER), "whole-frames", "eth0"])

    def _ip(self, *words: str) -> None:
        _run(["ip", "-n", self.namespace, *words])


class Lan:
    """The switch, and hosts as they are asked for by number; ``clean`` removes all of it."""

    def __init__(self) -> None:
        self.tag = uuid.uuid4().hex[:6]
        self._namespaces: list[str] = []
        self._hosts: list[Host] = []
        self._switch = f"henge-{self.tag}-switch"
        self.make_namespace(self._switch)
        self.at_switch("link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        self.at_switch("link", "set", "br0", "up")

    def host(self, number: int) -> Host:
        """A new host with the address that ends in this number."""
        host = Host(self, number)
        self._hosts.append(host)
        return host

    @property
    def inside_switch(self) -> Sequence[str]:
        """What a command line begins with to run at the switch."""
        return ["ip", "netns", "exec", self._switch]

    def at_switch(self, *words: str) -> None:
        """A command of ``ip`` at the switch."""
        _run(["ip", "-n", self._switch, *words])

    def whole_frames(self) -> None:
        """Before the weather changes for a host; see ``Host.whole_frames``."""
        for host in self._hosts:
            host.whole_frames()

    def make_namespace(self, name: str) -> None:
        """A namespace that ends with the network."""
        _run(["ip", "netns", "add", name])
        self._namespaces.append(name)

    def clean(self) -> None:
        """Remove every host; what still runs there keeps its namespace until it ends."""
        for name in self._namespaces:
            _run(["ip", "netns", "del", name])


def new_lan() -> Lan:
    """A network without hosts. Raises ``NoLan``."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise NoLan("a network of namespaces needs root and the command ip (iproute2)")
    try:
        return Lan()
    except subprocess.CalledProcessError as error:
        raise NoLan(f"this system makes no network namespaces: {error.stderr.decode().strip()}") from None


def _run(words: Sequence[str]) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr.decode())
        raise
