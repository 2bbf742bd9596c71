"""What devices should run, read from memory and from the store: news that comes late or never does no harm."""

from __future__ import annotations

import json

import pytest

from hengd.records import Desired
from hengd.rules.configs import Request
from hengd.rules.deliveries import UNTOLD, Deliveries
from hengd.rules.fleet import device_by_id, find_desired, required_object
from hengd.rules.vault import Vault
from henge_protocol.errors import Internal
from henge_protocol.wire import FieldError, Hello, Report
from tests.hengd.rules.conftest import ADA, Desk
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


# ---- what devices say, without their secrets -------------------------------------------------------------

PHRASE = "correct horse stable"
WITH_SECRETS = {
    "type": "object",
    "properties": {"psk": {"type": "string", "writeOnly": True}, "pin": {"type": "integer", "writeOnly": True}},
}


@pytest.fixture
async def keeper(desk: Desk) -> str:
    """The id of a device whose document holds a phrase and a number."""
    for name, value in (("psk", PHRASE), ("pin", 4711)):
        await desk.configs.put_secret(name, value, None, Request(ADA))
    values = {"psk": {"$secret": "psk"}, "pin": {"$secret": "pin"}}
    await desk.apply(schema("lamp", **WITH_SECRETS), device("lamp-1", "lamp", **values))
    return _id(desk)


def _locked(desk: Desk) -> Deliveries:
    """As a daemon that started without the key: a vault that opened the secrets once goes on."""
    return Deliveries(desk.store, Vault(desk._read_keys, "the key file"))


def _complaint(desk: Desk, digest: str) -> Report:
    said = FieldError("/psk", f"the radio refused {PHRASE}")
    return Report("", 1, digest, "rejected", "hook-failed", errors=(said,))


async def test_a_report_loses_its_messages_while_the_secrets_are_locked(desk: Desk, keeper: str) -> None:
    report = _complaint(desk, _stored(desk, keeper).digest)
    desk.keys.clear()
    locked = _locked(desk)
    kept = locked.redacted(keeper, report, "")
    assert kept.errors == (FieldError("/psk", UNTOLD),)
    assert (kept.state, kept.reason, kept.digest) == (report.state, report.reason, report.digest)
    assert locked.hidden(keeper, f"cannot use {PHRASE}", "") == UNTOLD


async def test_messages_come_back_with_the_key(desk: Desk, keeper: str) -> None:
    report = _complaint(desk, _stored(desk, keeper).digest)
    key = desk.keys.pop()
    deliveries = _locked(desk)
    deliveries.redacted(keeper, report, "")
    desk.keys.append(key)
    assert deliveries.redacted(keeper, report, "").errors == (FieldError("/psk", "the radio refused [secret]"),)


async def test_a_report_about_a_document_that_is_gone_loses_its_messages_if_there_are_secrets(
    desk: Desk, keeper: str
) -> None:
    gone = _complaint(desk, "ab" * 32)
    assert Deliveries(desk.store, desk.vault).redacted(keeper, gone, "").errors == (FieldError("/psk", UNTOLD),)


async def test_a_report_about_a_document_that_is_gone_is_kept_where_there_are_no_secrets(desk: Desk, lamp: str) -> None:
    gone = _complaint(desk, "ab" * 32)
    assert Deliveries(desk.store, desk.vault).redacted(lamp, gone, "") is gone


async def test_facts_do_not_repeat_secrets(desk: Desk, keeper: str) -> None:
    facts = {"radio": f"joined with {PHRASE}", "pin": 4711, "cores": 4, "battery": True}
    hello = Hello(digest=_stored(desk, keeper).digest, facts=facts)
    told = Deliveries(desk.store, desk.vault).discreet(keeper, hello, "")
    assert told.facts == {"radio": "joined with [secret]", "pin": "[secret]", "cores": 4, "battery": True}


async def test_facts_of_a_device_that_runs_nothing_yet_are_held_against_its_newest_document(
    desk: Desk, keeper: str
) -> None:
    told = Deliveries(desk.store, desk.vault).discreet(keeper, Hello(facts={"radio": PHRASE}), "")
    assert told.facts == {"radio": "[secret]"}


async def test_facts_are_hidden_while_the_secrets_are_locked(desk: Desk, keeper: str) -> None:
    desk.keys.clear()
    locked = _locked(desk)
    told = locked.discreet(keeper, Hello(facts={"radio": PHRASE, "battery": True}), "")
    assert told.facts == {"radio": UNTOLD, "battery": True}


async def test_facts_of_a_device_without_secrets_stay_as_they_are_though_others_are_locked(
    desk: Desk, keeper: str
) -> None:
    await desk.apply(schema("plain", type="object"), device("lamp-2", "plain"))
    desk.keys.clear()
    locked = _locked(desk)
    hello = Hello(facts={"model": "pico"})
    with desk.store.read() as tx:
        plain = required_object(tx, "Device", "lamp-2").id
    assert locked.discreet(plain, hello, "") is hello


@pytest.mark.parametrize("digest", ["", "no digest"])
async def test_a_report_that_says_of_no_document_is_held_against_the_newest(
    desk: Desk, keeper: str, digest: str
) -> None:
    kept = Deliveries(desk.store, desk.vault).redacted(keeper, _complaint(desk, digest), "")
    assert kept.errors == (FieldError("/psk", "the radio refused [secret]"),)


async def test_a_report_about_a_new_value_tells_neither_that_nor_the_one_that_it_replaces(
    desk: Desk, keeper: str
) -> None:
    running = _stored(desk, keeper).digest
    await desk.configs.put_secret("psk", "another phrase", None, Request(ADA))
    newest = _stored(desk, keeper).digest
    said = FieldError("/psk", f"from {PHRASE} to another phrase")
    report = Report("", 2, newest, "rejected", "hook-failed", errors=(said,))
    deliveries = Deliveries(desk.store, desk.vault)

    assert deliveries.redacted(keeper, report, running).errors == (FieldError("/psk", "from [secret] to [secret]"),)
    assert deliveries.hidden(keeper, f"I had {PHRASE}", running) == "I had [secret]"
    facts = deliveries.discreet(keeper, Hello(digest=newest, facts={"was": PHRASE}), running).facts
    assert facts == {"was": "[secret]"}


async def test_what_a_device_ran_before_this_daemon_hides_nothing(desk: Desk, keeper: str) -> None:
    report = _complaint(desk, _stored(desk, keeper).digest)
    kept = Deliveries(desk.store, desk.vault).redacted(keeper, report, "ab" * 32)
    assert kept.errors == (FieldError("/psk", "the radio refused [secret]"),)
