"""What devices should run, read from memory and from the store: news that comes late or never does no harm."""

from __future__ import annotations

import json

import pytest

from hengd.records import Desired
from hengd.rules.deliveries import Deliveries
from hengd.rules.fleet import device_by_id, find_desired, required_object
from henge_protocol.errors import Internal
from tests.hengd.rules.conftest import Desk
from tests.service import device, schema


def _id(desk: Desk) -> str:
    with desk.store.read() as tx:
        return required_object(tx, "Device", "lamp-1").id


def _stored(desk: Desk, device_id: str) -> Desired:
    with desk.store.read() as tx:
        assert device_by_id(tx, device_id) is not None
        desired = find_desired(tx, device_id)
    assert desired is not None
    return desired


@pytest.fixture
async def lamp(desk: Desk) -> str:
    """The id of a lamp with a document."""
    await desk.apply(schema(), device("lamp-1", color="red"))
    return _id(desk)


async def test_a_fresh_look_sees_what_no_bell_told(desk: Desk, lamp: str) -> None:
    deliveries = Deliveries(desk.store, desk.vault)
    old = deliveries.newest(lamp)
    await desk.apply(device("lamp-1", color="blue"))
    assert deliveries.newest(lamp) == old
    assert deliveries.newest(lamp, fresh=True) == _stored(desk, lamp) == deliveries.newest(lamp)
    assert deliveries.line.revision == _stored(desk, lamp).revision


async def test_news_that_come_after_a_fresh_look_bring_nothing_old_back(desk: Desk, lamp: str) -> None:
    deliveries = Deliveries(desk.store, desk.vault)
    old = _stored(desk, lamp)
    await desk.apply(device("lamp-1", color="blue"))
    deliveries.newest(lamp, fresh=True)
    deliveries.advance(old.revision, {lamp: old})
    assert deliveries.newest(lamp) == _stored(desk, lamp)
    assert deliveries.line.revision == _stored(desk, lamp).revision


async def test_a_document_that_was_swept_is_replaced_by_the_newest(desk: Desk, lamp: str) -> None:
    deliveries = Deliveries(desk.store, desk.vault)
    old = deliveries.newest(lamp)
    assert old is not None
    await desk.apply(device("lamp-1", color="blue"))
    await desk.store.write(lambda tx: tx.delete("documents", bytes.fromhex(old.digest)))
    assert json.loads(deliveries.delivery(lamp, old).config.document)["color"] == "blue"


async def test_a_newest_document_that_is_missing_is_damage(desk: Desk, lamp: str) -> None:
    deliveries, newest = Deliveries(desk.store, desk.vault), _stored(desk, lamp)
    await desk.store.write(lambda tx: tx.delete("documents", bytes.fromhex(newest.digest)))
    with pytest.raises(Internal, match="not in the store"):
        deliveries.delivery(lamp, newest)
