"""Which device a newcomer becomes, whichever way it joins."""

from __future__ import annotations

import pytest

from hengd.records import CertificateRecord
from hengd.rules.certificates import LIVE, USED, add_certificate
from hengd.rules.changes import Changes
from hengd.rules.enrolment import claim_device, is_board, known_schema
from hengd.rules.fleet import required_object
from hengd.rules.outcome import Author
from hengd.rules.schemas import SchemaCache
from hengd.store import Transaction
from henge_protocol import pki
from henge_protocol.csr import Csr, read_csr
from henge_protocol.errors import Conflict
from tests.hengd.rules.conftest import NOW, Desk
from tests.service import device, schema

BY = Author("token:x", "enrol", may_end_identities=False)


@pytest.fixture(scope="module")
def key() -> Csr:
    """A newcomer's key."""
    return read_csr(pki.make_csr(pki.generate_key(), "lamp-1"))


async def claimed(desk: Desk, key: Csr, schema: str = "", taken: frozenset[str] = LIVE, **labels: str) -> str:
    """The id that ``lamp-1`` gets."""
    changes = Changes(SchemaCache(), desk.vault, lambda: NOW, lambda: "n" * 26)
    return await desk.store.write(
        lambda tx: claim_device(tx, changes, "lamp-1", key, BY, schema=schema, labels=labels, taken=taken)
    )


async def held(desk: Desk, device_id: str, spki: bytes, state: str = "active") -> None:
    """Let the device have a certificate for a key."""
    record = CertificateRecord(
        role="device", subject=device_id, spki=spki.hex(), not_after=NOW + 1, state=state, via="token"
    )
    await desk.store.write(lambda tx: add_certificate(tx, spki, record))


def found(tx: Transaction) -> tuple[str, dict[str, str]]:
    """Schema and labels of the device."""
    record = required_object(tx, "Device", "lamp-1")
    return record.spec["schema"], record.labels


async def test_a_name_that_nobody_has_makes_a_device(desk: Desk, key: Csr) -> None:
    await desk.apply(schema())

    assert await claimed(desk, key, "lamp", room="hall") == "n" * 26
    assert await desk.store.write(found) == ("lamp", {"room": "hall"})


async def test_a_device_made_before_is_claimed_and_keeps_what_a_person_said(desk: Desk, key: Csr) -> None:
    await desk.apply(schema(), schema("other"), device("lamp-1", labels={"room": "den"}))
    device_id = desk.revision(1).changes[-1].after
    assert device_id is not None

    assert await claimed(desk, key, "other", room="hall", floor="1") == device_id.id
    assert await desk.store.write(found) == ("lamp", {"room": "den", "floor": "1"})


@pytest.mark.parametrize(("state", "taken"), [("issued", LIVE), ("active", LIVE), ("active", USED)])
async def test_a_device_that_somebody_has_is_given_to_its_own_key_only(
    desk: Desk, key: Csr, state: str, taken: frozenset[str]
) -> None:
    device_id = await claimed(desk, key)
    await held(desk, device_id, bytes(32), state)
    with pytest.raises(Conflict, match="belongs to another"):
        await claimed(desk, key, taken=taken)
    await held(desk, device_id, key.spki_sha256, state)

    assert await claimed(desk, key, taken=taken) == device_id


async def test_a_certificate_that_was_never_used_gives_way_to_an_approval(desk: Desk, key: Csr) -> None:
    device_id = await claimed(desk, key)
    await held(desk, device_id, bytes(32), "issued")

    assert await claimed(desk, key, taken=USED) == device_id


async def test_a_wish_for_a_schema_counts_if_there_is_one(desk: Desk) -> None:
    await desk.apply(schema())
    with desk.store.read() as tx:
        assert [known_schema(tx, wish) for wish in ("lamp", "none", "No Name", 7, None)] == ["lamp", "", "", "", ""]


def test_boards_are_known_by_their_client() -> None:
    assert is_board("henge-micro/0.1.0")
    assert not is_board("henge-agent/0.1.0")
