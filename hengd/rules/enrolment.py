"""What every way of joining does alike, with a token or by approval: which device the newcomer becomes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from hengd.rules.certificates import LIVE, has_certificate, owner_of_key
from hengd.rules.changes import Changes
from hengd.rules.fleet import find_object
from hengd.rules.issuing import Issuer
from hengd.rules.objects import Manifest, manifest_of
from hengd.rules.outcome import Author
from hengd.store import Reader, Transaction
from henge_protocol.csr import Csr
from henge_protocol.errors import Conflict
from henge_protocol.model import is_name

_BOARD_CLIENT: Final = "henge-micro"


def is_board(client: str) -> bool:
    """Whether a client of that name runs on a board, whose certificate lives longer."""
    return client.startswith(_BOARD_CLIENT)


def known_schema(tx: Reader, wish: object) -> str:
    """The schema that a device asks for, or nothing if there is none of that name: a wish is never refused."""
    return wish if isinstance(wish, str) and is_name(wish) and find_object(tx, "Schema", wish) is not None else ""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Lets devices in."""

    issuer: Issuer
    changes: Changes

    def admit(
        self, tx: Transaction, name: str, key: Csr, author: Author, *, schema: str, labels: dict[str, str], via: str,
        by: str, board: bool, taken: Collection[str] = LIVE,
    ) -> dict[str, Any]:  # fmt: skip
        """The identity of device ``name`` for this key, as its owner stores it.

        Raises as ``claim_device`` and ``Issuer.issue``.
        """
        device_id = claim_device(tx, self.changes, name, key, author, schema=schema, labels=labels, taken=taken)
        return self.issuer.issue(
            tx, role="device", subject=device_id, name=name, spki_der=key.spki_der, via=via, by=by, board=board,
            author=author,
        )  # fmt: skip


def claim_device(
    tx: Transaction, changes: Changes, name: str, key: Csr, author: Author, *, schema: str, labels: dict[str, str],
    taken: Collection[str] = LIVE,
) -> str:  # fmt: skip
    """The id of device ``name``: made if it does not exist, claimed if nobody has it, ``Conflict`` otherwise.

    Somebody has it who holds a certificate in one of the states ``taken``.
    """
    found = find_object(tx, "Device", name)
    if found is not None and owner_of_key(tx, key.spki_sha256) != ("device", found.id):
        if has_certificate(tx, "device", found.id, taken):
            raise _taken(name)
        tx.delete("reported", found.id.encode())  # other hardware: what the one before said or refused is not its own
    change = changes.begin(tx, author, f"{name} joined")
    base = manifest_of(found) if found else Manifest("Device", name, {"schema": "", "values": {}}, {}, {})
    spec = {**base.spec, "schema": base.spec["schema"] or schema}
    change.put(Manifest("Device", name, spec, {**labels, **base.labels}, base.annotations))
    device_id = change.required("Device", name).id
    change.finish()
    return device_id


def _taken(name: str) -> Conflict:
    """Only the device itself, by its key, may take its name a second time."""
    return Conflict(
        "name_taken",
        f"the name {name} belongs to another device",
        cure=f"choose another name (henge-agent join --name, hengectl approve --as); "
        f"if this is new hardware for it: hengectl device replace {name}",
    )
