"""Daemons that announce themselves on this network: hints where to try, never a reason to trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from henge_agent.settings import Address
from henge_protocol.errors import Invalid, Unreachable

if TYPE_CHECKING:  # zeroconf is large and rarely needed
    from henge_protocol.beacon import Sighting

BROWSE_S: Final = 3.0
JOIN_BROWSE_S: Final = 5.0
ADDRESSES_EACH: Final = 2
"""Of one daemon; it may announce addresses on networks that we are not on."""


async def find_fleet(fleet_id: str) -> Sequence[Address]:
    """Addresses where a daemon of this fleet may be."""
    from henge_protocol.browse import browse

    return _addresses(await browse(timeout_s=BROWSE_S, fleet_id=fleet_id))


async def find_to_join(fingerprint: bytes | None) -> Sequence[Address]:
    """Addresses where a device may ask to join; raises as ``joinable``."""
    from henge_protocol.browse import browse

    return joinable(await browse(timeout_s=JOIN_BROWSE_S), fingerprint)


def joinable(seen: Sequence[Sighting], fingerprint: bytes | None) -> Sequence[Address]:
    """With a token's fingerprint, where its daemon may be; without one, the addresses of the only fleet there is.

    Raises ``Unreachable no_daemon`` when nothing fits, ``Invalid bad_usage`` when a person has to choose.
    """
    if fingerprint is not None:
        seen = [each for each in seen if each.fp_hint in ("", fingerprint.hex()[: len(each.fp_hint)])]
    elif len({each.fleet for each in seen}) > 1:
        listed = ", ".join(f"{each.name} at {_addresses([each])[0]}" for each in seen[:8])
        raise Invalid(
            "bad_usage",
            f"several fleets are announced here: {listed}",
            cure="name one: henge-agent join https://HOST:PORT",
        )
    if not seen:
        raise Unreachable(
            "no_daemon",
            "no henge daemon announces itself on this network" + (" that this token is for" if fingerprint else ""),
            cure="name it: henge-agent join https://HOST:4364",
        )
    return _addresses(seen)


def _addresses(seen: Sequence[Sighting]) -> list[Address]:
    return [Address(address, each.port) for each in seen for address in each.addresses[:ADDRESSES_EACH]]
