"""Addresses of daemons as people write them: ``https://192.168.1.20:4364``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from henge_protocol.errors import Invalid
from henge_protocol.places import DEVICES_PORT

_URL = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<host>\[[^\[\]]*\]|[^\[\]:/?#@]*)(?::(?P<port>[0-9]{0,6}))?/?"
)
_HOST = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*\.?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name or IP address, without brackets) and a port."""

    host: str
    port: int = DEVICES_PORT

    @property
    def url(self) -> str:
        """The one spelling: scheme, host (IPv6 in brackets), port."""
        return f"https://[{self.host}]:{self.port}" if ":" in self.host else f"https://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read a URL, or a host with or without a port; ``Invalid`` ``bad_parameter`` says what is wrong."""
    match = _URL.fullmatch(text.strip())
    if match is None:
        colons = text.rpartition("//")[2].count(":")
        why = "an IPv6 address needs brackets" if colons > 1 else "it has more than scheme, host and port"
        raise _bad(text, why)
    if (match["scheme"] or "https").lower() != "https":
        raise _bad(text, f"its scheme is {match['scheme'].lower()}; the daemon speaks https")
    return Address(_host(match["host"], text), _port(match["port"], text))


def _host(host: str, text: str) -> str:
    if host.startswith("["):
        import ipaddress

        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise _bad(text, "there is no IPv6 address in its brackets") from None
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise _bad(text, "its host is not a name or an address")
    return host.lower()


def _port(digits: str | None, text: str) -> int:
    if digits is None:
        return DEVICES_PORT
    if not digits or not 1 <= int(digits) <= 65535:
        raise _bad(text, "its port is not 1 to 65535")
    return int(digits)


def _bad(text: str, why: str) -> Invalid:
    return Invalid(
        "bad_parameter", f"{ascii(text)[:100]} is not a daemon's address: {why}", cure="write https://192.168.1.20:4364"
    )
