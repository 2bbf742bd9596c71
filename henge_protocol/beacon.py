"""What henge says and believes on mDNS: the name of the service, the hints in TXT, and the limits of belief.

Anybody on the network can announce anything.  An announcement is a *hint where to try*, never a reason to
trust: the daemon is known by its pinned authority.  So everything here either bounds a hint or drops it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from henge_protocol.errors import HengeError, Invalid, Malformed, TooLarge
from henge_protocol.joining import is_id
from henge_protocol.peertext import clean_text

SERVICE_TYPE = "_henge._tcp.local."
BEACON_VERSION = "1"
MAX_TXT_BYTES = 1024
MAX_ADDRESSES = 8
MAX_CANDIDATES = 64
MAX_PEER_TEXT_CHARACTERS = 64
MAX_TARGET_CHARACTERS = 253
HINT_CHARACTERS = 16
"""Hexadecimal digits of the authority's fingerprint in TXT: enough to choose by, too few to trust."""

_HINT = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"[0-9]{1,11}")
_HOME_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
)


@dataclass(frozen=True, slots=True)
class Hint:
    """The TXT record of an announcement."""

    fleet: str
    fp_hint: str = ""
    """First 16 hexadecimal digits of SHA-256 of the server authority's certificate; empty if not given."""
    unix_s: int | None = None
    """The daemon's clock when it announced; a board that starts in 2021 may move forward to it, never back."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One announcement that is worth a try."""

    name: str
    """The instance name, cleaned for display."""
    addresses: tuple[str, ...]
    port: int
    fleet: str
    fp_hint: str
    unix_s: int | None = None


def txt_entries(*, fleet_id: str, server_ca_fingerprint: bytes, unix_s: float | None = None) -> dict[str, str]:
    """Return the TXT entries that a daemon announces."""
    entries = {"v": BEACON_VERSION, "fleet": fleet_id, "fp": server_ca_fingerprint.hex()[:HINT_CHARACTERS]}
    return entries if unix_s is None else entries | {"t": str(int(unix_s))}


def parse_txt(data: bytes) -> Hint:
    """Read TXT record data; unknown keys are ignored, of a key given twice the first counts (RFC 6763 6.4).

    Raises ``TooLarge too_large``, ``Malformed bad_beacon`` (cut), ``Invalid unsupported_protocol`` (another
    version), ``Invalid bad_beacon`` (fleet or hint not of their form): in each case the announcement is skipped.
    """
    entries = _entries(data)
    version = entries.get("v")
    if version != BEACON_VERSION:
        raise Invalid(
            "unsupported_protocol", f"the announcement's version is {_shown(version)}, {BEACON_VERSION} is known"
        )
    fleet, fp_hint = entries.get("fleet", ""), entries.get("fp", "").lower()
    if not is_id(fleet):
        raise Invalid("bad_beacon", f"the announcement's fleet is {_shown(fleet)}, not an id")
    if fp_hint and not _HINT.fullmatch(fp_hint):
        raise Invalid("bad_beacon", f"the announcement's fingerprint is {_shown(fp_hint)}, not 16 hexadecimal digits")
    time = entries.get("t", "")
    return Hint(fleet, fp_hint, int(time) if _TIME.fullmatch(time) else None)


def sighting(
    instance: str, *, port: int, target: str, txt: bytes, addresses: Iterable[str], allow_loopback: bool = False
) -> Sighting:
    """Return what an announcement offers; raises as ``parse_txt``, or ``Invalid bad_beacon`` if nothing is usable."""
    hint = parse_txt(txt)
    if not 0 < port < 65536:
        raise Invalid("bad_beacon", f"the announcement's port is {port}")
    if not _is_local_host(target):
        raise Invalid("bad_beacon", f"the announcement's host is {_shown(target)}, not one under .local")
    kept = usable_addresses(addresses, allow_loopback=allow_loopback)
    if not kept:
        raise Invalid("bad_beacon", "the announcement has no address on a home network")
    name = clean_text(instance.removesuffix(f".{SERVICE_TYPE}"), MAX_PEER_TEXT_CHARACTERS)
    return Sighting(name, kept, port, hint.fleet, hint.fp_hint, hint.unix_s)


def usable_addresses(addresses: Iterable[str], *, allow_loopback: bool = False) -> tuple[str, ...]:
    """Return the first eight different addresses that a home network uses, in canonical spelling.

    Dropped: public, multicast, unspecified and broadcast addresses, IPv4 inside IPv6, a link-local IPv6
    address without its interface (``%eth0``), and loopback unless a test allows it.
    """
    kept: dict[str, None] = {}
    for text in addresses:
        address = _usable(text, allow_loopback=allow_loopback)
        if address is not None:
            kept.setdefault(address)
        if len(kept) == MAX_ADDRESSES:
            break
    return tuple(kept)


def merge(known: Iterable[Sighting], new: Sighting) -> tuple[Sighting, ...]:
    """Return the candidates with ``new`` as the youngest; past 64 the oldest are dropped.

    The same instance of the same fleet seen again (another interface, another address) is one candidate.
    An impostor that copies fleet and hint under another name stays a candidate of its own, so that it cannot
    push the real addresses out of one list.
    """
    others = []
    for old in known:
        if _key(old) == _key(new):
            both = dict.fromkeys((*new.addresses, *old.addresses))
            new = Sighting(new.name, tuple(both)[:MAX_ADDRESSES], new.port, new.fleet, new.fp_hint, new.unix_s)
        else:
            others.append(old)
    return (*others, new)[-MAX_CANDIDATES:]


def _entries(data: bytes) -> dict[str, str]:
    if len(data) > MAX_TXT_BYTES:
        raise TooLarge("too_large", f"the announcement's TXT has {len(data)} bytes, at most {MAX_TXT_BYTES} are read")
    entries: dict[str, str] = {}
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if end > len(data):
            raise _cut(at)
        key, equals, value = data[at + 1 : end].partition(b"=")
        if key and equals:
            entries.setdefault(key.decode("ascii", "replace").lower(), value.decode("utf-8", "replace"))
        at = end
    return entries


def _cut(at: int) -> HengeError:
    return Malformed("bad_beacon", f"the announcement's TXT is cut in the entry at byte {at}")


def _usable(text: str, *, allow_loopback: bool) -> str | None:
    try:
        address = ipaddress.ip_address(text[:80])
    except ValueError:
        return None
    if address.is_loopback:
        return str(address) if allow_loopback else None
    if address == ipaddress.IPv4Address("169.254.255.255") or not any(address in net for net in _HOME_NETWORKS):
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local and not address.scope_id:
        return None
    return str(address)


def _is_local_host(target: str) -> bool:
    """Only the ending says anything: what the name resolves to is what was announced with it."""
    host = target.lower().removesuffix(".")
    return len(host) <= MAX_TARGET_CHARACTERS and host.endswith(".local") and not host.startswith(("localhost.", "."))


def _key(candidate: Sighting) -> tuple[str, str, str, int]:
    return candidate.fleet, candidate.fp_hint, candidate.name.lower(), candidate.port


def _shown(value: str | None) -> str:
    return "missing" if value is None else repr(clean_text(value, 40))
