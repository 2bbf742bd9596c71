"""A change of much of a fleet, or of what may cut devices off, needs a word; making a fleet does not."""

from __future__ import annotations

from typing import Any

import pytest

from hengd.records import Reported, pack
from hengd.rules.configs import Request
from hengd.rules.fleet import desired_of_all, objects_of
from hengd.rules.schemas import compile_schema
from hengd.store import Transaction
from henge_protocol.errors import Conflict, Invalid
from tests.hengd.rules.conftest import ADA, NOW, Desk
from tests.service import LAMP, device, group, schema

RISKY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "color": {"type": "string", "default": "green"},
        "wifi": {"type": "object", "x-henge-risk": "connectivity", "properties": {"ssid": {"type": "string"}}},
    },
}


def lamps(count: int, **values: Any) -> list[dict[str, Any]]:
    """Devices of which every other is in the hall."""
    return [
        device(f"lamp-{number:02}", labels={"room": "hall" if number % 2 else "den"}, **values)
        for number in range(count)
    ]


async def seen(desk: Desk, *names: str) -> None:
    """Devices (all if none is named) have spoken once."""
    with desk.store.read() as tx:
        ids = [one.id for one in objects_of(tx, "Device") if not names or one.name in names]
    report = pack(Reported(seen=NOW))

    def operation(tx: Transaction) -> None:
        for device_id in ids:
            tx.put("reported", device_id.encode(), report)

    await desk.store.write(operation)


async def fleet(desk: Desk, count: int, root: dict[str, Any] = LAMP) -> None:
    """So many devices that were all seen."""
    await desk.apply(schema(**root), *lamps(count))
    await seen(desk)


async def all_at_once(desk: Desk, *objects: dict[str, Any]) -> Any:
    """A change that is meant to be wide."""
    return await desk.configs.apply(objects, [], Request(ADA, all_at_once=True))


@pytest.mark.parametrize(
    ("count", "changed", "refused"), [(7, 7, False), (8, 2, False), (8, 3, True), (12, 3, False), (12, 4, True)]
)
async def test_more_than_a_quarter_of_eight_and_more_is_too_wide(
    desk: Desk, count: int, changed: int, refused: bool
) -> None:
    await fleet(desk, count)
    objects = lamps(changed, color="red")
    if not refused:
        await desk.apply(*objects)
        return
    error = await desk.refused(*objects)

    assert isinstance(error, Conflict)
    assert (error.code, error.extra["device_count"], error.extra["fleet"]) == ("too_wide", changed, count)
    assert f"changes {changed} of {count} devices" in error.message
    assert "--all-at-once" in error.cure
    assert len((await all_at_once(desk, *objects)).devices) == changed


async def test_every_way_of_changing_is_looked_at(desk: Desk) -> None:
    await fleet(desk, 10)
    await all_at_once(desk, group("hall", "room=hall", color="red"))
    attempts = [
        lambda: desk.patch("Group/hall", {"spec": {"values": {"color": "blue"}}}),
        lambda: desk.configs.delete("Group", "hall", None, Request(ADA)),
        lambda: desk.configs.rollback(1, None, Request(ADA)),
        lambda: desk.apply(delete=(("Group", "hall"),)),
    ]
    for attempt in attempts:
        with pytest.raises(Conflict, match="5 of 10 devices"):
            await attempt()


async def test_a_new_fleet_and_devices_that_were_never_seen_do_not_count(desk: Desk) -> None:
    await desk.apply(schema(), *lamps(30))
    await desk.apply(group("hall", "room=hall", color="red"))
    await seen(desk, "lamp-00", "lamp-01")
    await desk.apply(group("hall", "room=hall", color="blue"))
    await desk.apply(*[device(f"new-{number}") for number in range(20)], group("all", priority=0, brightness=3))


async def test_losing_documents_counts_and_deleting_what_never_joined_does_not(desk: Desk) -> None:
    await fleet(desk, 8)
    error = await desk.refused(*[device(f"lamp-{number:02}", bound="") for number in range(3)])
    assert error.code == "too_wide"

    await desk.apply(delete=tuple(("Device", f"lamp-{number:02}") for number in range(6)))


async def test_a_dry_run_tells_instead_of_refusing(desk: Desk) -> None:
    await fleet(desk, 8)
    dry = await desk.apply(*lamps(3, color="red"), dry=True)

    assert "changes 3 of 8 devices" in dry.too_wide
    assert (await desk.apply(*lamps(2, color="red"), dry=True)).too_wide == ""


async def test_what_may_cut_devices_off_is_too_wide_on_two_devices_of_any_fleet(desk: Desk) -> None:
    await fleet(desk, 3, RISKY)
    await desk.apply(device("lamp-00", labels={"room": "den"}, wifi={"ssid": "lab"}))
    await desk.apply(group("hall", "room=hall", wifi={"ssid": "lab"}))
    error = await desk.refused(group("all", priority=0, wifi={"ssid": "new", "x": 1}), *lamps(3))

    assert error.code == "too_wide"
    assert "changes wifi.ssid, wifi.x, which may cut devices off, on 3 devices at once" in error.message
    await desk.apply(group("all", priority=0, color="red"))


def test_a_risk_covers_what_is_inside_and_around_its_field() -> None:
    nested = {"type": "object", "properties": {"net": {"type": "object", "properties": RISKY["properties"]}}}
    compiled = compile_schema("any", nested)

    paths = [("net", "wifi", "ssid"), ("net", "wifi"), ("net",), ("net", "color"), ("network",)]
    assert [compiled.is_risky(path) for path in paths] == [True, True, True, False, False]
    assert not compile_schema("any", LAMP).is_risky(("wifi",))


@pytest.mark.parametrize("mark", [{"x-henge-risk": "conectivity"}, {"x-henge-risks": "connectivity"}])
async def test_a_mark_that_would_do_nothing_is_refused(desk: Desk, mark: dict[str, Any]) -> None:
    error = await desk.refused(schema(type="object", properties={"ssid": {"type": "string", **mark}}))

    assert isinstance(error, Invalid)
    assert error.code in ("bad_schema", "unsupported_keyword")


async def test_the_end_of_an_override_is_never_too_wide(desk: Desk) -> None:
    from tests.hengd.rules.test_expiry import HOUR_S, Watch

    await fleet(desk, 10)
    watch = Watch(desk)
    error = await watch.refused("Group/all", color="red")
    assert error.code == "too_wide"
    await all_at_once(desk, group("hall", "room=none"))
    for number in range(10):
        await watch.set(f"Device/lamp-{number:02}", color="red")

    assert await watch.pass_s(HOUR_S) == 10
    assert desk.document("lamp-03")["color"] == "green"


async def test_a_new_value_of_a_secret_is_as_wide_as_the_devices_that_it_reaches(desk: Desk) -> None:
    risky = {"type": "string", "writeOnly": True, "x-henge-risk": "connectivity"}
    await desk.configs.put_secret("wifi/home", "correct horse", None, Request(ADA))
    await desk.apply(schema(type="object", properties={"psk": risky}), *lamps(3, psk={"$secret": "wifi/home"}))
    await seen(desk)
    with pytest.raises(Conflict) as refusal:
        await desk.configs.put_secret("wifi/home", "another phrase", None, Request(ADA))
    await desk.configs.put_secret("wifi/home", "another phrase", None, Request(ADA, all_at_once=True))

    assert refusal.value.code == "too_wide"
    assert "changes psk" in refusal.value.message


def named(*numbers: int) -> tuple[str, ...]:
    """Names of lamps."""
    return tuple(f"lamp-{number:02}" for number in numbers)


async def test_deleting_devices_that_joined_counts(desk: Desk) -> None:
    from tests.hengd.rules.test_ownership import join

    await fleet(desk, 8)
    await join(desk, *named(0, 1, 2))
    three = tuple(("Device", name) for name in named(0, 1, 2))
    error = await desk.refused(delete=three)

    assert (error.code, error.extra["device_count"], error.extra["fleet"]) == ("too_wide", 3, 8)
    assert "deletes 3 of 8 devices at once" in error.message
    assert "join anew" in error.cure
    both = await desk.refused(device("lamp-07", color="red"), delete=three[1:])
    assert (
        "deletes or changes 3 of 8 devices at once, more than 25% of them (lamp-01, lamp-02, lamp-07)" in both.message
    )
    await desk.apply(delete=three[1:])


async def test_another_time_to_confirm_counts_as_a_change_of_every_device(desk: Desk) -> None:
    await fleet(desk, 8)
    shorter = {**schema(), "spec": {**schema()["spec"], "confirm_s": 1}}
    error = await desk.refused(shorter)

    assert "changes 8 of 8 devices at once" in error.message
    assert (await all_at_once(desk, shorter)).devices == ()


# ---- ways around the mark ---------------------------------------------------------------------------------

SSID_SET = {"wifi": {"ssid": "lab"}}
UNMARKED: dict[str, Any] = {
    "type": "object",
    "properties": {**RISKY["properties"], "wifi": {"type": "object", "properties": {"ssid": {"type": "string"}}}},
}


def bound(name: str, to: str, **values: Any) -> dict[str, Any]:
    """A lamp that has another schema."""
    return device(name, to, labels={"room": "hall"}, **values)


async def cut_off(desk: Desk, *objects: dict[str, Any], fields: str) -> None:
    """The change is refused because of these fields."""
    error = await desk.refused(*objects)
    assert error.code == "too_wide"
    assert f"changes {fields}, which may cut devices off" in error.message


async def test_a_mark_that_goes_with_the_change_still_counts(desk: Desk) -> None:
    await fleet(desk, 3, RISKY)
    await desk.apply(schema(**UNMARKED))
    await desk.apply(schema(**RISKY))
    await cut_off(desk, schema(**UNMARKED), *lamps(2, **SSID_SET), fields="wifi.ssid")


async def test_another_schema_without_the_mark_changes_nothing_about_it(desk: Desk) -> None:
    await fleet(desk, 3, RISKY)
    await desk.apply(schema("plain", **UNMARKED))
    await cut_off(desk, *(bound(name, "plain", **SSID_SET) for name in named(0, 1)), fields="wifi.ssid")
    await desk.apply(*(bound(name, "plain") for name in named(0, 1)))


async def test_the_last_schema_going_changes_all_that_it_marks(desk: Desk) -> None:
    await fleet(desk, 3, RISKY)
    await all_at_once(desk, *lamps(3, **SSID_SET))
    await cut_off(desk, *(bound(name, "") for name in named(0, 1)), fields="wifi.ssid")
    gone = [bound(name, "") for name in named(0, 1, 2)]
    error = await desk.refused(*gone, delete=(("Schema", "lamp"),))
    assert "changes wifi" in error.message


async def test_what_a_device_runs_counts_though_it_had_no_document(desk: Desk) -> None:
    await fleet(desk, 3, RISKY)
    await all_at_once(desk, *lamps(3, **SSID_SET))
    await runs_what_it_should(desk)
    await all_at_once(desk, *(bound(name, "") for name in named(0, 1)))

    await cut_off(desk, *lamps(2, wifi={"ssid": "new"}), fields="wifi.ssid")
    await desk.apply(*lamps(2, **SSID_SET))


async def runs_what_it_should(desk: Desk) -> None:
    """All devices said that they run their newest document."""

    def operation(tx: Transaction) -> None:
        for device_id, desired in desired_of_all(tx).items():
            tx.put("reported", device_id.encode(), pack(Reported(seen=NOW, running=desired.digest)))

    await desk.store.write(operation)
