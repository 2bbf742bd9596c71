"""Who knows which authorities: derived from the certificates that are in use, never a flag of its own.

A certificate's record says which server authorities its owner was told with it and which client authority signed it.
The first use of a certificate proves that the answer was stored, so an owner knows what its *active* record names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from hengd.authorities import Authorities, InForce, Which, short
from hengd.leaf import Leaf
from hengd.records import ROTATION_KEY, CertificateRecord, RotationRecord, pack, unpack
from hengd.rules import audit
from hengd.rules.certificates import all_certificates, certificates_of, operator_names
from hengd.rules.fleet import objects_of
from hengd.store import Reader, Transaction
from henge_protocol import pki

KEEP_OLD_S: Final = 30 * pki.DAY_S
"""So long the old server authority is told after the switch: a backup from before it can be restored meanwhile."""
SHOWN: Final = 100
"""Names of those who lag behind, in one answer; their number is always whole."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A device or an operator, with the certificates that it can use or renew."""

    kind: str
    """``device`` or ``operator``."""
    name: str
    subject: str
    records: tuple[CertificateRecord, ...]

    def knows(self, server: str) -> bool:
        """Whether it was told of a server authority, with each of its certificates: an operator has one a machine."""
        return all(server in record.told for record in self.records)

    def is_signed_by(self, client: str) -> bool:
        """Whether all its certificates are a client authority's."""
        return all(record.signed_by == client for record in self.records)


def is_outdated(record: CertificateRecord, now: InForce) -> bool:
    """Whether its owner should renew: to hear of an authority, to forget one, or to be signed by the one that stays."""
    if now.is_client_moving and record.signed_by != now.client:
        return True
    return set(record.told) != set(now.servers) if record.told else len(now.servers) > 1


def owners(tx: Reader, *, ended_before: float) -> list[Owner]:
    """Everybody with a certificate that can still be used or renewed; devices, then operators, each by name."""
    devices = [("device", "device", one.id, one.name) for one in objects_of(tx, "Device")]
    operators = [("operator", "admin", name, name) for name in operator_names(tx)]
    found = []
    for kind, role, subject, name in [*devices, *sorted(operators)]:
        records = _working([record for _, record in certificates_of(tx, role, subject)], ended_before)
        if records:
            found.append(Owner(kind, name, subject, records))
    return found


def keep_account(tx: Transaction, now: InForce) -> None:
    """Write into records from before there was a rotation what was in force then: this."""
    for sha256, record in list(all_certificates(tx)):
        if not record.told or not record.signed_by:
            told, signed_by = record.told or list(now.servers[:1]), record.signed_by or now.client
            tx.put("certs", sha256, pack(msgspec.structs.replace(record, told=told, signed_by=signed_by)))


def rotation_in(tx: Reader) -> RotationRecord:
    """What is remembered of the rotation."""
    payload = tx.get("meta", ROTATION_KEY)
    return RotationRecord() if payload is None else unpack(RotationRecord, payload)


def told_by(authorities: Authorities) -> list[str]:
    """What is in force, as a ``RotationRecord`` keeps it."""
    servers = [f"server:{short(der)}" for der in authorities.server_ders]
    return servers + [f"client:{short(der)}" for der in authorities.client_ders]


def step_between(before: Sequence[str], after: Sequence[str], *, is_switched: bool) -> tuple[audit.Act, Which]:
    """Which step leads from the authorities of a ``RotationRecord`` to others."""
    was, now = ([one for one in told if one.startswith("server:")] for told in (before, after))
    if was == now:
        clients = [[one for one in told if one.startswith("client:")] for told in (before, after)]
        return "authority.introduced" if clients[0][:1] != clients[1][:1] else "authority.dropped", "client"
    if was[:1] != now[:1]:
        return "authority.switched", "server"
    if len(now) > len(was):
        return "authority.introduced", "server"
    return "authority.dropped" if is_switched else "authority.withdrawn", "server"


def advice(
    authorities: Authorities, leaf: Leaf, record: RotationRecord, *, behind: int, unmoved: int, now: float
) -> list[str]:
    """What to do next, each as a command with its reason."""
    found = []
    if leaf.trouble is not None:
        found.append("hengd ca reissue --from FILE   # the server's certificate is due")
    if authorities.next_server is not None and behind:
        found.append(f"hengd ca status   # again later: {behind} still to learn of the next server authority")
    elif authorities.next_server is not None:
        found.append("hengd ca rotate switch   # everybody knows the next server authority")
    elif authorities.old_server is not None:
        left_days = (min(record.switched - now, 0) + KEEP_OLD_S) / pki.DAY_S  # it may have been ahead at the switch
        when = f"in {left_days:.0f} days" if left_days >= 1 else "now"
        found.append(f"hengd ca rotate finish   # {when}: backups from before the switch are of no use then")
    if authorities.old_client is not None and unmoved:
        found.append(f"hengd ca status   # again later: {unmoved} still to renew for the new client authority")
    elif authorities.old_client is not None:
        found.append("hengd ca rotate finish --client   # all renewed for the new one")
    return found


def _working(records: Sequence[CertificateRecord], ended_before: float) -> tuple[CertificateRecord, ...]:
    live = [record for record in records if record.not_after >= ended_before]
    used = [record for record in live if record.state == "active"]
    return tuple(used or [record for record in live if record.state == "issued"])
