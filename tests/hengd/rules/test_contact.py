"""Contact: one conversation with a device, whichever way it speaks."""

from __future__ import annotations

import pytest

from hengd.rules.authority import Caller
from hengd.rules.contact import Contact
from henge_protocol.wire import Hello, Report
from tests.service import Admin, Identity, Service, device, schema


@pytest.fixture
async def lamp(daemon: Service, admin: Admin) -> Identity:
    await admin.apply(schema(), device("lamp-1"))
    return await daemon.join(admin, "lamp-1")


@pytest.fixture
def contact(daemon: Service, lamp: Identity) -> Contact:
    return daemon.app.contacts.meet(Caller("device", lamp.id, "lamp-1"), "192.0.2.7")


async def test_a_device_is_online_as_long_as_one_of_its_conversations(daemon: Service, contact: Contact) -> None:
    again = daemon.app.contacts.meet(contact.caller, "192.0.2.8")
    contact.arrive()
    again.arrive()
    contact.leave()
    assert daemon.app.presence.find(contact.device_id) is not None
    again.leave()

    assert daemon.app.presence.find(contact.device_id) is None
    told = [(event.type, event.detail["address"]) for event in daemon.app.events.since(0)[0] if "line" in event.type]
    assert told == [("device.online", "192.0.2.7"), ("device.offline", "192.0.2.8")]


async def test_both_ways_of_asking_offer_the_same(contact: Contact) -> None:
    contact.hello(Hello(client="test/1"))
    desired = contact.due(0.0, fresh=True)
    assert desired is not None
    assert contact.due_to("", fresh=True) == (desired, 0.0)

    contact.report(Report("", desired.revision, desired.digest, "rejected", "invalid"))
    await contact.recorded()
    assert contact.due(0.0, fresh=True) is None
    assert contact.due_to("", fresh=True) == (None, 0.0)


async def test_what_a_device_has_counts_more_than_what_it_once_said(contact: Contact) -> None:
    contact.hello(Hello(client="test/1"))
    desired = contact.due(0.0, fresh=True)
    assert desired is not None
    contact.report(Report("", desired.revision, desired.digest))
    await contact.recorded()

    assert contact.due_to(desired.digest, fresh=True) == (None, 0.0)
    assert contact.due_to("", fresh=True) == (desired, 0.0)


async def test_an_identity_that_ended_is_offered_nothing(contact: Contact, admin: Admin) -> None:
    cuts: list[str] = []

    def cut() -> None:
        cuts.append("cut")

    assert contact.hold(cut)
    await admin.ok("POST", "/v1/devices/lamp-1/revoke")
    assert cuts
    assert not contact.hold(cut)
    assert contact.due_to("", fresh=True) == (None, 0.0)


async def test_the_welcome_says_how_long_the_daemon_has_been_up(daemon: Service, contact: Contact) -> None:
    first = contact.welcome(1, 30).up_s
    daemon.clock.advance(60)
    then = contact.welcome(1, 30).up_s
    daemon.clock.advance(60)

    assert (first >= 1, then >= 60, contact.welcome(1, 30).up_s >= then + 60) == (True, True, True)


async def test_the_welcome_asks_for_a_renewal_when_the_authority_wishes_one(
    daemon: Service, contact: Contact, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contact.welcome(1, 30).renew_within_s == 0
    monkeypatch.setattr(daemon.app.authority, "renew_within_s", {contact.caller: 3600}.get)
    assert contact.welcome(1, 30).renew_within_s == 3600
