"""Overrides on a real store: above all layers while they run, and gone by themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hengd.records import Reported, pack
from hengd.rules.configs import Request
from hengd.rules.expiry import FULL_S, LATE_S, Overrides
from hengd.rules.fleet import find_object
from hengd.rules.merge import MISSING
from hengd.rules.outcome import Outcome
from hengd.rules.overrides import next_end, parse_overriding
from hengd.rules.rendering import MAX_ENDS
from hengd.rules.timekeeping import CLOCK_SLACK_S, Timekeeper
from henge_protocol.errors import HengeError, StorageFull
from tests.hengd.rules.conftest import ADA, NOW, Desk
from tests.service import device, group, schema

HOUR_S = 3600
HALL = {"room": "hall"}


class Watch:
    """Overrides on a desk whose clock the test moves."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ticks = 0.0
        self.keeper = Timekeeper(
            desk.store, ends=lambda: NOW + 1e9, clock=lambda: desk.now, monotonic=lambda: desk.now - NOW + self.ticks
        )
        self.overrides = Overrides(desk.store, desk.configs, self.keeper)

    async def set(self, path: str, for_s: int = HOUR_S, if_match: str | None = None, **values: Any) -> Outcome:
        """Override fields of ``Kind/name``."""
        return await self._change(path, {"set": values, "for_s": for_s}, if_match)

    async def unset(self, path: str, *fields: str) -> Outcome:
        """End overrides early."""
        return await self._change(path, {"unset": list(fields)}, None)

    async def refused(self, path: str, **values: Any) -> HengeError:
        """An override that must be refused, and leaves nothing."""
        before = self.desk.everything()
        with pytest.raises(HengeError) as refusal:
            await self.set(path, **values)
        assert self.desk.everything() == before
        return refusal.value

    async def pass_s(self, seconds: float) -> int:
        """Let time pass, then look for what has ended."""
        self.desk.now += seconds
        return await self.overrides.end_due()

    def next_end(self) -> float | None:
        """When the next one ends."""
        with self.desk.store.read() as tx:
            return next_end(tx, 0.0)

    def running(self, kind: str, name: str) -> list[str]:
        """The fields of an object that are overridden."""
        with self.desk.store.read() as tx:
            found = find_object(tx, kind, name)
        assert found is not None
        return [one.pointer for one in found.overrides]

    async def _change(self, path: str, body: dict[str, Any], if_match: str | None) -> Outcome:
        kind, _, name = path.partition("/")
        return await self.overrides.change(kind, name, parse_overriding(body), if_match, Request(ADA, "try it"))


def hall(**values: Any) -> dict[str, Any]:
    """The group of the lamps in the hall."""
    return group("hall", "room=hall", **values)


@pytest.fixture
async def watch(desk: Desk) -> Watch:
    """Two lamps in the hall, one of which has a colour of its own."""
    await desk.apply(
        schema(), group("hall", "room=hall", color="blue"),
        device("lamp-1", labels=HALL, color="red"), device("lamp-2", labels=HALL),
    )  # fmt: skip
    return Watch(desk)


async def test_an_override_is_above_all_layers_until_its_end(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green")
    assert watch.desk.document("lamp-1")["color"] == "green"
    assert await watch.pass_s(HOUR_S - 1) == 0
    assert await watch.pass_s(1) == 1

    assert watch.desk.document("lamp-1")["color"] == "red"
    assert watch.running("Device", "lamp-1") == []
    assert watch.next_end() is None


async def test_the_end_is_a_revision_of_its_own_by_henge(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green")
    await watch.pass_s(HOUR_S)
    newest, override, *_ = watch.desk.history(limit=5)

    assert (newest.author, newest.origin, newest.message) == ("henge", "daemon", "override ended")
    assert (override.author, override.message) == ("ada", "try it")
    assert [change.name for change in newest.changes] == ["lamp-1"]
    assert watch.desk.committed[-1].moved == ("lamp-1",)


async def test_all_that_is_over_ends_in_one_revision_also_after_a_long_absence(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green", brightness=1)
    await watch.set("Device/lamp-2", for_s=2 * HOUR_S, color="green")
    await watch.set("Group/hall", for_s=30 * HOUR_S, brightness=2)
    before = watch.desk.revisions

    assert await watch.pass_s(20 * HOUR_S) == 2
    assert watch.desk.revisions == before + 1
    assert (watch.running("Group", "hall"), watch.running("Device", "lamp-2")) == (["/brightness"], [])
    assert watch.next_end() == NOW + 30 * HOUR_S


async def test_a_groups_override_is_above_devices_and_below_their_overrides(watch: Watch) -> None:
    await watch.desk.apply(group("high", "room=hall", priority=200, color="blue"))
    await watch.set("Group/high", color="red", brightness=1)
    await watch.set("Group/hall", color="green", brightness=2)
    assert watch.desk.document("lamp-1") == {"color": "red", "brightness": 1}

    await watch.set("Device/lamp-1", color="blue")
    assert watch.desk.document("lamp-1") == {"color": "blue", "brightness": 1}
    assert watch.desk.document("lamp-2") == {"color": "red", "brightness": 1}


async def test_equal_groups_that_override_differently_are_refused(watch: Watch) -> None:
    await watch.desk.apply(group("also", "room=hall"))
    await watch.set("Group/hall", color="green")
    error = await watch.refused("Group/also", color="red")

    assert error.code == "conflicting_groups"
    assert "group/also and group/hall set it differently" in error.message


async def test_overrides_that_end_at_too_many_moments_are_refused_until_one_has_ended(watch: Watch) -> None:
    fields = schema("many", type="object", properties={f"f{at}": {"type": "integer"} for at in range(40)})
    await watch.desk.apply(fields, device("lamp-3", "many", labels=HALL), group("also", "room=hall", bound="many"))
    for at in range(MAX_ENDS):
        await watch.set("Device/lamp-3" if at % 2 else "Group/also", for_s=HOUR_S + at, **{f"f{at}": 1})
    error = await watch.refused("Group/also", for_s=9 * HOUR_S, f39=1)

    assert error.code == "too_complex"
    assert "17 different moments" in error.message
    assert await watch.pass_s(HOUR_S) == 1
    await watch.set("Group/also", for_s=9 * HOUR_S, f39=1)


async def test_why_names_the_override_its_end_and_who_set_it(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green")
    await watch.set("Group/hall", color="blue")
    [color] = await watch.desk.configs.why("lamp-1", "color")

    assert [(said.layer, said.name, said.value, said.wins) for said in color.layers] == [
        ("override", "device/lamp-1", "green", True), ("override", "group/hall", "blue", False),
        ("device", "lamp-1", "red", False), ("group", "hall", "blue", False), ("schema", "lamp", "green", False),
    ]  # fmt: skip
    assert [said.until for said in color.layers] == [NOW + HOUR_S, NOW + HOUR_S, 0, 0, 0]
    assert [(said.revision, said.author) for said in color.layers[:3]] == [(2, "ada"), (3, "ada"), (1, "ada")]


async def test_null_hides_a_field_for_a_time(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color=None)
    assert "color" not in watch.desk.document("lamp-1")
    [color] = await watch.desk.configs.why("lamp-1", "color")

    assert (color.present, color.layers[0].removes) == (False, True)


async def test_an_override_inside_of_a_hidden_object_is_all_that_is_left_of_it(watch: Watch) -> None:
    await watch.desk.apply(group("hall", "room=hall", wifi={"ssid": "den", "channel": 6}))
    await watch.set("Device/lamp-1", wifi=None)
    await watch.set("Device/lamp-1", **{"wifi.ssid": "lab"})

    assert watch.desk.document("lamp-1")["wifi"] == {"ssid": "lab"}


async def test_an_override_that_does_not_fit_is_refused_by_its_field(watch: Watch) -> None:
    for path in ("Device/lamp-1", "Group/hall"):
        error = await watch.refused(path, brightness=101)
        assert (error.code, error.problems[0].pointer) == ("does_not_fit", "/brightness")

    assert (await watch.refused("Group/hall", nosuch=1)).code == "undeclared_field"
    assert (await watch.refused("Device/nosuch", color="red")).code == "no_such_device"


async def test_overrides_that_are_too_much_together_are_told_of_their_object(watch: Watch) -> None:
    roomy = schema("any", type="object", properties={field: {} for field in "xyz"})
    roomy["spec"]["max_document"] = 2**20
    await watch.desk.apply(roomy, device("one", bound="any"))
    await watch.set("Device/one", x=[0] * 9000, y=[0] * 9000)
    error = await watch.refused("Device/one", z=[0] * 9000)

    assert (error.code, {one.object for one in error.problems}) == ("too_complex", {"device/one"})
    assert error.message.startswith("device/one: /overrides/")


async def test_an_override_that_a_device_cannot_have_is_named(watch: Watch) -> None:
    text = schema("text", type="object", properties={"brightness": {"type": "string"}})
    await watch.desk.apply(text)
    await watch.set("Group/hall", brightness=5)
    error = await watch.desk.refused(device("one", bound="text", labels=HALL))

    assert [one.message for one in error.problems] == ["5 is not text (an override of group/hall says so)"]


async def test_what_would_not_fit_once_an_override_has_ended_is_refused_at_once(watch: Watch) -> None:
    """Otherwise an override could never end."""
    await watch.set("Device/lamp-1", color="green")
    await watch.set("Device/lamp-2", color="green")
    only_green = {"type": "object", "properties": {"color": {"type": "string"}, "brightness": {}}}
    only_green["if"] = {"properties": {"color": {"const": "red"}}}  # type: ignore[dict-item]
    only_green["then"] = {"required": ["nosuch"]}  # type: ignore[dict-item]
    error = await watch.desk.refused(schema(**only_green))

    assert error.code == "does_not_fit"
    assert {problem.object for problem in error.problems} == {"device/lamp-1"}
    assert "when an override ends" in error.message


async def test_files_that_are_applied_neither_see_nor_remove_an_override(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green")
    files = (group("hall", "room=hall", color="blue"), device("lamp-1", labels=HALL, color="red"))
    same = await watch.desk.apply(*files)
    await watch.desk.apply(device("lamp-1", labels=HALL, color="red", brightness=3))

    assert {done.action for done in same.objects} == {"unchanged"}
    assert watch.desk.document("lamp-1") == {"color": "green", "brightness": 3}


async def test_an_override_ends_early_by_name(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green", brightness=1)
    await watch.unset("Device/lamp-1", "color")
    again = await watch.unset("Device/lamp-1", "color")

    assert watch.desk.document("lamp-1") == {"color": "red", "brightness": 1}
    assert [done.action for done in again.objects] == ["unchanged"]


async def test_a_new_end_takes_the_place_of_the_old_one(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green")
    await watch.set("Device/lamp-1", for_s=3 * HOUR_S, color="green")
    assert watch.next_end() == NOW + 3 * HOUR_S

    assert await watch.pass_s(2 * HOUR_S) == 0
    assert watch.desk.document("lamp-1")["color"] == "green"


async def test_a_rename_keeps_an_override_and_deleting_forgets_it(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green")
    await watch.desk.configs.rename("lamp-1", "lamp-9", None, Request(ADA))
    assert watch.running("Device", "lamp-9") == ["/color"]
    await watch.desk.apply(delete=(("Device", "lamp-9"),))

    assert watch.next_end() is None


async def test_a_rollback_brings_back_what_still_runs_and_nothing_that_has_ended(watch: Watch) -> None:
    await watch.set("Device/lamp-1", for_s=HOUR_S, color="green")
    await watch.set("Device/lamp-1", for_s=9 * HOUR_S, brightness=1)
    await watch.unset("Device/lamp-1", "brightness")
    await watch.pass_s(2 * HOUR_S)
    await watch.desk.configs.rollback(3, ("Device", "lamp-1"), Request(ADA))
    assert watch.running("Device", "lamp-1") == ["/brightness"]

    await watch.desk.configs.rollback(1, None, Request(ADA))
    assert watch.running("Device", "lamp-1") == []
    assert watch.next_end() is None


async def test_history_shows_an_override_and_its_end(watch: Watch) -> None:
    outcome = await watch.set("Device/lamp-1", color="green")

    assert [(change.pointer, change.after) for change in outcome.objects[0].changes] == [
        ("/status/overrides/color/until", "2027-01-15T09:00:00Z"), ("/status/overrides/color/value", "green"),
    ]  # fmt: skip


async def test_history_tells_a_key_with_a_dot_from_a_field_inside(watch: Watch) -> None:
    inner = {"type": "object", "properties": {"b": {"type": "integer"}}}
    dotted = {"type": "object", "properties": {"a": inner, "a.b": {"type": "integer"}}}
    await watch.desk.apply(schema("dotted", **dotted), device("lamp-9", "dotted"))
    await watch.set("Device/lamp-9", **{"/a.b": 1, "/a/b": 2})
    outcome = await watch.unset("Device/lamp-9", "/a.b")

    assert [(change.pointer, change.before, change.after) for change in outcome.objects[0].changes] == [
        ("/status/overrides/~1a.b/until", "2027-01-15T09:00:00Z", MISSING),
        ("/status/overrides/~1a.b/value", 1, MISSING),
    ]


async def test_an_override_ends_and_own_values_change_in_one_revision(watch: Watch) -> None:
    await watch.desk.patch("Device/lamp-1", {"spec": {"values": {"brightness": 1}}})
    await watch.set("Device/lamp-1", color="green")
    before = watch.desk.revisions
    outcome = await watch._change("Device/lamp-1", {"unset": ["color"], "values": {"brightness": None}}, None)

    assert watch.desk.revisions == before + 1
    assert watch.running("Device", "lamp-1") == []
    assert [change.pointer for change in outcome.objects[0].changes][:1] == ["/spec/values/brightness"]


async def test_a_stale_override_is_refused(watch: Watch) -> None:
    with pytest.raises(HengeError) as refusal:
        await watch.set("Device/lamp-1", if_match='"x.1"', color="green")

    assert refusal.value.code == "stale"


async def test_nothing_is_overridden_by_a_clock_in_doubt_and_the_mark_judges_what_ends(watch: Watch) -> None:
    await watch.keeper.note()
    await watch.set("Device/lamp-1", color="green")
    watch.desk.now -= CLOCK_SLACK_S + 5000
    error = await watch.refused("Device/lamp-1", brightness=1)

    assert error.code == "clock_suspect"
    assert await watch.overrides.end_due() == 0
    await watch.unset("Device/lamp-1", "color")
    assert watch.next_end() is None


async def test_an_end_that_comes_right_after_a_look_is_not_slept_through(watch: Watch) -> None:
    await watch.set("Device/lamp-1", color="green")
    assert await watch.pass_s(HOUR_S - 0.001) == 0
    watch.desk.now += 0.002

    assert watch.overrides._patience_s() <= LATE_S
    assert await watch.pass_s(0) == 1


TEXTS = {"type": "object", "properties": {"color": {}, "text": {"type": "string"}}}


async def holds(watch: Watch, name: str, max_document: int) -> None:
    """A device says how much it can hold."""
    with watch.desk.store.read() as tx:
        found = find_object(tx, "Device", name)
    assert found is not None
    said = pack(Reported(max_document=max_document, seen=NOW))
    await watch.desk.store.write(lambda tx: tx.put("reported", found.id.encode(), said))


async def test_one_that_cannot_end_holds_up_no_other(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """A board that says, while it is overridden, that it holds less than it would get back."""
    await watch.desk.apply(schema(**TEXTS), device("lamp-1", text="x" * 3000))
    await watch.set("Device/lamp-1", text="")
    await watch.set("Device/lamp-1", for_s=2 * HOUR_S, color="red")
    await watch.set("Device/lamp-2", color="red")
    await holds(watch, "lamp-1", 2048)
    await watch.pass_s(HOUR_S)

    assert (watch.running("Device", "lamp-1"), watch.running("Device", "lamp-2")) == (["/color", "/text"], [])
    assert "an override of device/lamp-1 cannot end" in caplog.text
    assert [stuck.message.partition(":")[0] for stuck in watch.overrides.stuck] == [
        "an override of device/lamp-1 cannot end"
    ]
    await watch.unset("Device/lamp-1", "color")
    await watch.desk.apply(device("lamp-1", text="short"))
    await watch.pass_s(1)
    assert (watch.running("Device", "lamp-1"), watch.overrides.stuck) == ([], [])


@pytest.mark.parametrize("path", ["Device/lamp-1", "Group/hall"])
async def test_what_comes_after_an_override_must_fit_into_the_device(watch: Watch, path: str) -> None:
    await watch.desk.apply(schema(**TEXTS), device("lamp-1", labels=HALL))
    await holds(watch, "lamp-1", 2100)
    await watch.set(path, text="short")
    hidden = {"Device/lamp-1": device("lamp-1", labels=HALL, text="x" * 3000), "Group/hall": hall(text="x" * 3000)}
    for change in hidden.values():
        error = await watch.desk.refused(change)

        assert error.code == "document_too_large"
        assert "when an override ends: the document has 30" in error.message
    await watch.desk.apply(hall(text="x" * 1990))
    assert await watch.pass_s(HOUR_S) == 1
    assert watch.desk.document("lamp-1")["text"] == "x" * 1990


YEAR_S = 366 * 86400


async def test_what_a_clock_that_was_ahead_has_promised_ends_when_it_is_right_again(watch: Watch) -> None:
    await watch.set("Device/lamp-2", color="red")
    assert await watch.pass_s(0) == 0
    watch.desk.now += 2 * YEAR_S
    await watch.set("Device/lamp-1", for_s=60, color="green")
    await watch.set("Group/hall", for_s=60, brightness=1)
    watch.desk.now -= 2 * YEAR_S

    assert await watch.pass_s(1) == 2
    assert (watch.running("Device", "lamp-1"), watch.running("Group", "hall")) == ([], [])
    assert watch.running("Device", "lamp-2") == ["/color"]


async def test_also_if_the_clock_was_set_while_the_daemon_was_off(watch: Watch) -> None:
    watch.desk.now += 2 * YEAR_S
    await watch.set("Device/lamp-1", for_s=60, color="green")
    watch.desk.now -= 2 * YEAR_S

    assert await Watch(watch.desk).pass_s(0) == 1
    assert watch.running("Device", "lamp-1") == []


async def test_a_clock_that_goes_back_a_little_or_is_in_doubt_ends_nothing(watch: Watch) -> None:
    await watch.keeper.note()
    watch.desk.now += 500
    await watch.set("Device/lamp-1", color="green")
    for back_s in (CLOCK_SLACK_S, 5000):
        watch.desk.now -= back_s
        assert await watch.pass_s(0) == 0

    assert watch.running("Device", "lamp-1") == ["/color"]


async def test_a_full_disk_is_asked_again_soon_and_not_once_for_each_object(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watch.set("Device/lamp-1", color="green")
    watch.desk.now += YEAR_S
    await watch.set("Device/lamp-2", color="green")
    watch.desk.now -= YEAR_S
    tries: list[object] = []

    async def no_space(*change: object) -> Outcome:
        tries.append(change)
        raise StorageFull("storage_full", "the disk is full")

    with monkeypatch.context() as full:
        full.setattr(watch.desk.configs, "override", no_space)
        await watch.pass_s(HOUR_S)
    assert len(tries) == 1
    assert watch.overrides._patience_s() <= FULL_S

    assert await watch.pass_s(FULL_S) == 2
    assert watch.next_end() is None
    assert watch.overrides._patience_s() > FULL_S


# --- secrets ------------------------------------------------------------------------------------------------

NETWORK = {
    "type": "object",
    "properties": {"psk": {"type": "string", "minLength": 8, "writeOnly": True}, "ssid": {"type": "string"}},
}


@pytest.fixture
async def node(desk: Desk) -> Watch:
    """A device with a secret, and another secret."""
    await desk.configs.put_secret("wifi/home", "correct horse", None, Request(ADA))
    await desk.configs.put_secret("wifi/lab", "of the laboratory", None, Request(ADA))
    await desk.apply(schema("node", **NETWORK), device("one", "node", psk={"$secret": "wifi/home"}))
    return Watch(desk)


def exact(desk: Desk, name: str) -> Any:
    """What the device really gets."""
    with desk.store.read() as tx:
        return json.loads(desk.vault.document(tx, desk.configs.document(name).digest) or b"")


async def test_an_override_refers_to_a_secret_and_people_see_its_name(node: Watch) -> None:
    await node.set("Device/one", psk={"$secret": "wifi/lab"})

    assert exact(node.desk, "one") == {"psk": "of the laboratory"}
    assert node.desk.document("one") == {"psk": {"$secret": "wifi/lab", "revision": 2}}
    [psk] = await node.desk.configs.why("one", "psk")
    assert [said.value for said in psk.layers] == [{"$secret": "wifi/lab"}, {"$secret": "wifi/home"}]
    await node.pass_s(HOUR_S)
    assert exact(node.desk, "one") == {"psk": "correct horse"}


async def test_a_new_value_reaches_devices_by_an_override_and_the_secret_stays_meanwhile(node: Watch) -> None:
    await node.set("Device/one", psk={"$secret": "wifi/lab"})
    await node.desk.configs.put_secret("wifi/lab", "another phrase", None, Request(ADA))
    with pytest.raises(HengeError) as refusal:
        await node.desk.configs.delete("Secret", "wifi/lab", None, Request(ADA))

    assert refusal.value.code == "in_use"
    assert exact(node.desk, "one") == {"psk": "another phrase"}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"psk": "clear and forbidden"}, "does_not_fit"),
        ({"psk": {"$secret": "nosuch"}}, "no_such_secret"),
        ({"psk": {"$secret": "wifi/lab", "revision": 2}}, "does_not_fit"),
        ({"ssid": {"$secret": "wifi/lab"}}, "does_not_fit"),
    ],
)
async def test_an_override_is_under_the_rules_for_references(node: Watch, values: dict[str, Any], code: str) -> None:
    refusal = await node.refused("Device/one", **values)

    assert refusal.code == code
    assert "forbidden" not in repr((refusal.message, refusal.problems, refusal.extra))


async def test_a_secret_must_fit_where_an_override_stands_for_a_time(node: Watch) -> None:
    await node.set("Device/one", psk={"$secret": "wifi/lab"})
    with pytest.raises(HengeError) as refusal:
        await node.desk.configs.put_secret("wifi/home", "short", None, Request(ADA))

    assert refusal.value.code == "does_not_fit"
    assert "short" not in repr(refusal.value.problems)


async def test_an_override_waits_for_the_key_to_end(node: Watch) -> None:
    await node.set("Device/one", psk={"$secret": "wifi/lab"})
    keys, node.desk.keys = node.desk.keys, []
    node.desk.vault._opened = None
    await node.pass_s(HOUR_S)
    assert node.running("Device", "one") == ["/psk"]
    node.desk.keys = keys
    await node.pass_s(1)

    assert node.running("Device", "one") == []
