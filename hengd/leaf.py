"""The server's own certificate: kept while it serves, made again in time.

It can always be made again while the authority's key is here, because devices trust the authority and the fixed name
in it. While the key is kept elsewhere the certificate lives longer, and a person brings the key when it is due.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hengd.authorities import LEAF, Authorities
from henge_protocol import pki
from henge_protocol.errors import HengeError, Internal, Unavailable

OFFLINE_LIFETIME_S: Final = 5 * 365 * pki.DAY_S
"""While the authority's key is kept elsewhere: fetching it is a person's work."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The server's own certificate."""

    pem: bytes
    """With its key."""
    names: frozenset[str]
    ends: float
    due: float
    """From when on it is to be made again."""
    trouble: Unavailable | None = None
    """Why it should have been made again, while the authority's key is not here."""


def server_leaf(authorities: Authorities, *, names: Sequence[str], now: float) -> Leaf:
    """The stored certificate while it serves, else a new one.

    A new one is made when two thirds of its life are over, when it was made by a clock that was ahead, when the names
    differ, or when the file is not right. Without the authority's key the stored one goes on, with its ``trouble``;
    ``Internal bad_authority`` if there is none that serves. Raises as ``make_leaf``.
    """
    stored = _stored(authorities)
    fault = _fault(stored, _normal(names), now, _life_s(authorities)) if stored is not None else "cannot be read"
    if stored is not None and not fault:
        return stored
    if authorities.server.key_pem:
        pem = make_leaf(authorities.server, authorities.fleet, names=names, now=now)
        authorities.keep_leaf(pem)
        return _leaf_of(authorities, pem)
    if stored is None:
        raise Internal(
            "bad_authority",
            f"the server's certificate {authorities.folder / LEAF} cannot be used, and the key to make it is elsewhere",
            cure="bring the key back: hengd ca import FILE, with the file that 'hengd ca export' wrote",
        )
    return replace(stored, trouble=_trouble(fault))


def make_leaf(
    authority: pki.Authority, fleet: str, *, names: Sequence[str], now: float,
    lifetime_s: float = pki.SERVER_LIFETIME_S,
) -> bytes:  # fmt: skip
    """A new certificate with its key, in PEM; ``Invalid bad_setting`` for a name that cannot stand in one."""
    addresses = [name for name in names if _is_address(name)]
    others = [name for name in names if name not in addresses]
    der, key_pem = pki.issue_server(
        authority, fleet_id=fleet, dns_names=others, ip_addresses=addresses, now=now, lifetime_s=lifetime_s
    )
    return pki.certificate_pem(der) + key_pem


def _stored(authorities: Authorities) -> Leaf | None:
    try:
        pem = authorities.read_leaf()
        certificate, key_pem = _parts(pem)
        is_ours = pki.is_signed_by(certificate, authorities.server.certificate_der)
        return _leaf_of(authorities, pem) if is_ours and pki.key_matches(certificate, key_pem) else None
    except HengeError:
        return None


def _leaf_of(authorities: Authorities, pem: bytes) -> Leaf:
    certificate, _ = _parts(pem)
    ends, last = (float(pki.validity(der)[1]) for der in (certificate, authorities.server.certificate_der))
    names = frozenset(pki.names_of(certificate)) - {pki.server_name(authorities.fleet)}
    return Leaf(pem, names, ends, ends if ends >= last else ends - _life_s(authorities) / 3)


def _parts(pem: bytes) -> tuple[bytes, bytes]:
    begin = max(0, pem.find(b"-----BEGIN PRIVATE KEY"))
    return pki.certificate_der(pem[:begin]), pem[begin:]


def _life_s(authorities: Authorities) -> float:
    return pki.SERVER_LIFETIME_S if authorities.server.key_pem else OFFLINE_LIFETIME_S


def _fault(leaf: Leaf, wanted: frozenset[str], now: float, life_s: float) -> str:
    """Why a certificate that could serve should be made again, empty if it should not."""
    if leaf.names != wanted:
        return f"has other names than the settings want ({', '.join(sorted(leaf.names ^ wanted))})"
    if leaf.ends - now > life_s + pki.DAY_S:
        return "is dated by a clock that was ahead"
    return "" if now < leaf.due else f"ends in {max(0.0, leaf.ends - now) / pki.DAY_S:.0f} days"


def _trouble(fault: str) -> Unavailable:
    return Unavailable(
        "certificate_due",
        f"the server's own certificate {fault}, and the key of its authority is kept elsewhere",
        cure="on the daemon's machine, with the file that holds the key: hengd ca reissue --from FILE",
    )


def _normal(names: Sequence[str]) -> frozenset[str]:
    return frozenset(str(ipaddress.ip_address(_bare(name))) if _is_address(name) else name.lower() for name in names)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(_bare(name))
    except ValueError:
        return False
    return True


def _bare(address: str) -> str:
    """Without the interface of a link-local address."""
    return address.partition("%")[0]
