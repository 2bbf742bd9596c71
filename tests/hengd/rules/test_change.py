"""One change: all objects, all documents, one revision, or nothing (DESIGN section 4)."""

from __future__ import annotations

from typing import Any

import pytest

from hengd.rules.change import Change
from hengd.rules.configs import Request
from hengd.rules.merge import MISSING
from hengd.rules.notes import Cut
from hengd.rules.schemas import SchemaCache
from hengd.rules.vault import Vault
from hengd.store import Transaction
from henge_protocol.errors import Conflict, HengeError, Invalid, Stale, TooLarge
from tests.hengd.rules.conftest import ADA, NOW, Desk
from tests.service import LAMP, device, group, schema

HALL = {"room": "hall"}
WIFI = {"wifi": {"type": "object", "properties": {"channel": {"type": "integer"}}, "required": ["ssid"]}}
"""What a group may say alone and no device can run."""


def open_schema(name: str, *fields: str, **more: Any) -> dict[str, Any]:
    """A schema whose fields take anything."""
    return schema(name, type="object", properties={field: {} for field in fields}, **more)


# ---- one change ---------------------------------------------------------------------------------------


async def test_many_objects_are_one_revision_and_one_note(desk: Desk) -> None:
    names = [f"lamp-{number}" for number in range(20)]
    outcome = await desk.apply(*[device(name) for name in names], group("all", priority=0, color="red"), schema())

    assert (outcome.revision, desk.revisions) == (1, 1)
    assert [moved.name for moved in outcome.devices] == sorted(names)
    assert len(desk.committed) == 1
    assert len(desk.committed[0].rung) == 20


async def test_nothing_changed_is_no_revision_and_no_note(desk: Desk) -> None:
    objects = (schema(), device("lamp-1", color="red"), group("hall", "room=hall"))
    await desk.apply(*objects)
    before = desk.everything()
    outcome = await desk.apply(*objects)

    assert ({done.action for done in outcome.objects}, outcome.devices) == ({"unchanged"}, ())
    assert desk.everything() == before
    assert len(desk.committed) == 1


async def test_only_what_changed_is_in_the_revision(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1"), device("lamp-2"))
    await desk.apply(device("lamp-1", color="red"), device("lamp-2"))

    assert [change.name for change in desk.revision(2).changes] == ["lamp-1"]


async def test_a_label_that_moves_no_document_rings_nobody(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1"))
    outcome = await desk.apply(device("lamp-1", labels=HALL))

    assert (outcome.revision, outcome.devices) == (2, ())
    assert desk.committed[-1].rung == {}


@pytest.mark.parametrize("values", [(1, 1.0), (1, True), (0, False), (0.0, -0.0), (1.0, True), ("1", 1)])
async def test_values_that_python_calls_equal_are_changes(desk: Desk, values: tuple[Any, Any]) -> None:
    await desk.apply(open_schema("any", "x"), device("one", bound="any", x=values[0]))
    outcome = await desk.apply(device("one", bound="any", x=values[1]))

    assert outcome.revision == 2
    assert repr(desk.document("one")["x"]) == repr(values[1])


async def test_one_device_that_does_not_fit_refuses_the_whole_change_and_all_are_listed(desk: Desk) -> None:
    lamp = schema(type="object", properties=WIFI)
    await desk.apply(lamp, *[device(f"lamp-{number:02}", labels=HALL) for number in range(20)], device("far"))
    error = await desk.refused(group("hall", "room=hall", wifi={"channel": 6}), device("other"))

    assert isinstance(error, Invalid)
    assert (error.code, error.extra["device_count"]) == ("does_not_fit", 20)
    assert error.extra["devices"] == [f"lamp-{number:02}" for number in range(20)]
    assert {(problem.object, problem.pointer) for problem in error.problems} == {
        (f"device/lamp-{number:02}", "/wifi/ssid") for number in range(20)
    }


async def test_a_change_that_breaks_thousands_is_told_by_count(desk: Desk) -> None:
    await desk.apply(schema(type="object", properties=WIFI), *[device(f"lamp-{number}") for number in range(500)])
    error = await desk.refused(group("all", priority=0, wifi={"channel": 6}))

    assert (error.extra["device_count"], len(error.problems)) == (500, 100)
    assert "and 492 more" in error.message


async def test_a_dry_run_is_the_same_change_not_kept(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1"))
    before = desk.everything()
    dry = await desk.apply(device("lamp-1", color="red"), device("lamp-2"), dry=True)
    assert desk.everything() == before
    wet = await desk.apply(device("lamp-1", color="red"), device("lamp-2"))

    assert (dry.dry_run, dry.revision, wet.revision) == (True, 1, 2)
    assert dry.objects == wet.objects
    assert [(one.name, one.after) for one in dry.devices] == [(one.name, one.after) for one in wet.devices]


async def test_a_dry_run_tells_the_fields_that_differ_in_objects_and_in_documents(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1", color="red", wifi={"ssid": "a"}), group("hall", "room=hall"))
    outcome = await desk.apply(
        device("lamp-1", labels=HALL, wifi={"ssid": "b"}), group("hall", "room=hall", color="blue"), dry=True
    )
    fields = {
        one.name: [(field.pointer, field.before, field.after) for field in one.changes] for one in outcome.objects
    }

    assert fields == {
        "lamp-1": [
            ("/metadata/labels/room", MISSING, "hall"),
            ("/spec/values/color", "red", MISSING),
            ("/spec/values/wifi/ssid", "a", "b"),
        ],
        "hall": [("/spec/values/color", MISSING, "blue")],
    }
    (moved,) = outcome.devices
    assert [(field.pointer, field.before, field.after) for field in moved.changes] == [
        ("/color", "red", "blue"), ("/wifi/ssid", "a", "b"),
    ]  # fmt: skip


async def test_a_document_that_comes_or_goes_differs_in_all_its_fields(desk: Desk) -> None:
    await desk.apply(schema(), device("old"), device("new", bound=""))
    outcome = await desk.apply(device("old", bound=""), device("new"), dry=True)
    new, old = outcome.devices

    assert [(field.pointer, field.before) for field in old.changes] == [("/brightness", 80), ("/color", "green")]
    assert [(field.pointer, field.after) for field in new.changes] == [("/brightness", 80), ("/color", "green")]


async def test_a_change_made_for_another_version_of_the_fleet_is_refused(desk: Desk) -> None:
    first = await desk.apply(schema(), device("lamp-1"))
    tag = f'"{first.epoch}.{first.revision}"'
    await desk.configs.apply([device("lamp-1", color="red")], [], Request(ADA, fleet=tag))
    before = desk.everything()

    for stale in (tag, f'"other.{first.revision + 1}"'):
        with pytest.raises(Stale) as refusal:
            await desk.configs.apply([device("lamp-1", color="blue")], [], Request(ADA, fleet=stale))
        assert refusal.value.extra == {"etag": f'"{first.epoch}.2"', "revision": 2}
    assert desk.everything() == before
    for good in ("*", f'"{first.epoch}.2"'):
        await desk.configs.rollback(1, None, Request(ADA, dry_run=True, fleet=good))


# ---- schemas and groups -------------------------------------------------------------------------------


async def test_a_field_that_no_schema_declares_is_refused(desk: Desk) -> None:
    await desk.apply(schema(), open_schema("heater", "target"))
    error = await desk.refused(group("hall", "room=hall", colour="red", target=5, **{"a/b": 1}))

    assert error.code == "undeclared_field"
    assert [problem.pointer for problem in error.problems] == ["/spec/values/colour", "/spec/values/a~1b"]


async def test_an_unbound_group_says_to_each_device_what_its_schema_declares(desk: Desk) -> None:
    heater = schema("heater", type="object", additionalProperties=False, properties={"target": {}})
    await desk.apply(schema(), heater, device("lamp", labels=HALL), device("stove", bound="heater", labels=HALL))
    await desk.apply(group("hall", "room=hall", color="red", target=5))

    assert desk.document("lamp") == {"brightness": 80, "color": "red"}
    assert desk.document("stove") == {"target": 5}


async def test_a_bound_group_speaks_only_to_devices_of_its_schema(desk: Desk) -> None:
    await desk.apply(
        open_schema("one", "x"), open_schema("two", "x"), device("a", bound="one"), device("b", bound="two")
    )
    await desk.apply(group("only", bound="one", x=1))

    assert (desk.document("a"), desk.document("b")) == ({"x": 1}, {})


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        pytest.param(group("hall", bound="lamp", color="pink"), "does_not_fit", id="bound-group-wrong-type"),
        pytest.param(group("hall", bound="lamp", colour="red"), "does_not_fit", id="bound-group-unknown-field"),
        pytest.param(group("hall", bound="nothing"), "no_such_schema", id="bound-to-nothing"),
        pytest.param(device("lamp-9", color="pink"), "does_not_fit", id="device-wrong-value"),
        pytest.param(device("lamp-9", colour="red"), "does_not_fit", id="device-unknown-field"),
        pytest.param(device("lamp-9", bound="nothing"), "no_such_schema", id="device-without-its-schema"),
        pytest.param(device("lamp-9", bound="", color="red"), "no_such_schema", id="values-without-schema"),
        pytest.param(schema("bad", type="string"), "bad_schema", id="schema-not-of-an-object"),
        pytest.param(schema("bad", type="object", properties={"a": {"$ref": "http://x"}}), "remote_ref", id="remote"),
    ],
)
async def test_a_layer_is_checked_when_it_is_written(desk: Desk, wanted: dict[str, Any], code: str) -> None:
    await desk.apply(schema(), device("lamp-1"))
    error = await desk.refused(wanted)

    assert error.code == code
    assert {problem.object for problem in error.problems} == {f"{wanted['kind'].lower()}/{wanted['metadata']['name']}"}


async def test_a_layer_may_lack_what_the_document_must_have(desk: Desk) -> None:
    needy = schema(
        "needy", type="object", properties={"a": {"type": "integer"}, "b": {"type": "integer"}}, required=["a", "b"]
    )
    await desk.apply(needy, group("hall", "room=hall", bound="needy", a=1))
    await desk.apply(device("one", bound="needy", labels=HALL, b=2))
    error = await desk.refused(device("two", bound="needy", b=2))

    assert desk.document("one") == {"a": 1, "b": 2}
    assert (error.code, error.extra["devices"]) == ("does_not_fit", ["two"])


async def test_two_groups_of_one_rank_that_differ_are_refused_and_both_named(desk: Desk) -> None:
    await desk.apply(schema(), group("hall", "room=hall", color="red"), device("lamp-1", labels=HALL | {"floor": "1"}))
    error = await desk.refused(group("first", "floor=1", color="blue"))

    assert isinstance(error, Conflict)
    assert (error.code, error.problems[0].pointer) == ("conflicting_groups", "/color")
    assert "group/first" in error.message
    assert "group/hall" in error.message
    await desk.apply(group("first", "floor=1", priority=101, color="blue"))
    assert desk.document("lamp-1")["color"] == "blue"


async def test_groups_of_one_rank_that_agree_or_never_meet_are_fine(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1", labels=HALL), device("lamp-2", labels={"floor": "1"}))
    await desk.apply(
        group("hall", "room=hall", color="red", wifi={"ssid": "a"}), group("first", "floor=1", color="blue")
    )
    await desk.apply(group("more", "room=hall", color="red", wifi={"channel": 3}))

    assert desk.document("lamp-1")["wifi"] == {"ssid": "a", "channel": 3}


async def test_the_conflict_is_found_when_a_label_makes_groups_meet(desk: Desk) -> None:
    await desk.apply(schema(), group("hall", "room=hall", color="red"), group("first", "floor=1", color="blue"))
    await desk.apply(device("lamp-1", labels=HALL))
    error = await desk.refused(device("lamp-1", labels=HALL | {"floor": "1"}))

    assert error.code == "conflicting_groups"


@pytest.mark.parametrize("same", [(1, 1.0), (1, True)])
async def test_values_of_two_types_are_a_conflict(desk: Desk, same: tuple[Any, Any]) -> None:
    await desk.apply(open_schema("any", "x"), device("one", bound="any"))
    error = await desk.refused(group("a", x=same[0]), group("b", x=same[1]))

    assert error.code == "conflicting_groups"


async def test_a_schema_gives_up_no_field_that_a_group_for_all_speaks(desk: Desk) -> None:
    await desk.apply(schema(), group("all", priority=0, color="red"))
    fewer = {**schema(), "spec": {"schema": {"type": "object", "properties": {"brightness": {}}}}}
    changed, deleted = await desk.refused(fewer), await desk.refused(delete=(("Schema", "lamp"),))
    together = await desk.apply(group("all", priority=0), delete=(("Schema", "lamp"),))

    assert [error.code for error in (changed, deleted)] == ["undeclared_field"] * 2
    assert together.revision == 2


async def test_a_schema_and_what_it_breaks_change_together(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1", color="red"))
    narrow = {**LAMP, "properties": {"color": {"enum": ["green"], "default": "green"}}}
    error = await desk.refused({**schema(), "spec": {"schema": narrow}})
    await desk.apply({**schema(), "spec": {"schema": narrow}}, device("lamp-1"))

    assert error.extra["devices"] == ["lamp-1"]
    assert desk.document("lamp-1") == {"color": "green"}


async def test_a_schema_in_use_stays_unless_its_users_go_too(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1"), group("hall", bound="lamp"))
    error = await desk.refused(delete=(("Schema", "lamp"), ("Device", "lamp-1")))
    await desk.apply(delete=(("Schema", "lamp"), ("Device", "lamp-1"), ("Group", "hall")))

    assert (error.code, "group/hall" in error.message, "lamp-1" in error.message) == ("in_use", True, False)
    assert desk.revisions == 2


async def test_a_device_moves_to_another_schema_with_its_values(desk: Desk) -> None:
    await desk.apply(schema(), open_schema("any", "color"), device("lamp-1", color="red"))
    await desk.patch("Device/lamp-1", {"spec": {"schema": "any"}})
    moved = desk.document("lamp-1")
    outcome = await desk.apply(device("lamp-1", bound=""))

    assert moved == {"color": "red"}
    assert [(one.name, one.after) for one in outcome.devices] == [("lamp-1", "")]


# ---- limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "fits"), [(16384, True), (16385, False)])
async def test_a_document_has_at_most_16_kib(desk: Desk, size: int, fits: bool) -> None:
    await desk.apply(open_schema("any", "x"))
    wanted = device("one", bound="any", x="y" * (size - len('{"x":""}')))
    if fits:
        await desk.apply(wanted)
        assert len(desk.configs.document("one").data) == size
    else:
        error = await desk.refused(wanted)
        assert isinstance(error, TooLarge)
        assert (error.code, error.extra["devices"]) == ("document_too_large", ["one"])


def keys(prefix: str, count: int) -> dict[str, int]:
    """An object of so many fields."""
    return {f"{prefix}{number}": 1 for number in range(count)}


@pytest.mark.parametrize(
    ("low", "own", "code", "words"),
    [
        pytest.param(keys("a", 500), keys("b", 500), "", "", id="V13 1000 keys"),
        pytest.param(keys("a", 500), keys("b", 501), "too_complex", "/x: an object has 1001 keys", id="V13 a key more"),
        pytest.param(
            {"a": [0] * 10_000}, {"b": [0] * 10_000}, "too_complex", "/x/b: the value has more than 20000", id="V12"
        ),
    ],
)
async def test_layers_that_are_within_the_limits_may_be_beyond_them_together(
    desk: Desk, low: dict[str, Any], own: dict[str, Any], code: str, words: str
) -> None:
    any_ = open_schema("any", "x")
    any_["spec"]["max_document"] = 2**20
    await desk.apply(any_, group("hall", "room=hall", x=low))
    wanted = device("one", bound="any", labels=HALL, x=own)
    if not code:
        await desk.apply(wanted)
        assert desk.document("one") == {"x": low | own}
        return
    error = await desk.refused(wanted)

    assert (error.code, error.extra["devices"]) == (code, ["one"])
    assert f"refused for 1 device (one): {words}" in error.message
    assert error.cure.startswith("set less")
    assert {problem.object for problem in error.problems} == {"device/one"}


# ---- whose word it was --------------------------------------------------------------------------------


NUMBER = schema("number", type="object", properties={"x": {"type": "integer"}, "y": {"type": "string"}})
TEXT = schema("text", type="object", properties={"x": {"type": "string"}, "y": {"type": "string"}}, required=["y"])


@pytest.mark.parametrize(
    ("labels", "values", "told"),
    [
        pytest.param({"n": "1"}, {"y": "a"}, ["/x: 5 is not text (group/numbers says so)"], id="V21 a group's number"),
        pytest.param({"n": "1"}, {"y": "a", "x": "b"}, [], id="V21 the device says better"),
        pytest.param({}, {}, ["/y: is required and missing"], id="V01 nobody says it"),
        pytest.param({"q": "1"}, {}, ["/y: is required and missing (group/quiet takes it away)"], id="V18 taken away"),
        pytest.param(
            {"n": "1", "q": "1"},
            {},
            ["/x: 5 is not text (group/numbers says so)", "/y: is required and missing (group/quiet takes it away)"],
            id="V21 two groups",
        ),
    ],
)
async def test_the_layer_that_a_device_cannot_have_is_named(
    desk: Desk, labels: dict[str, str], values: dict[str, Any], told: list[str]
) -> None:
    quiet = group("quiet", "q=1", 200)
    quiet["spec"]["values"] = {"y": None}
    await desk.apply(NUMBER, TEXT, group("numbers", "n=1", x=5), quiet)
    wanted = device("one", bound="text", labels=labels, **values)
    if not told:
        await desk.apply(wanted)
        assert desk.document("one") == values
        return
    error = await desk.refused(wanted)

    assert [f"{one.pointer}: {one.message}" for one in error.problems] == told
    assert {one.object for one in error.problems} == {"device/one"}


async def test_a_schema_may_set_another_limit(desk: Desk) -> None:
    small = open_schema("any", "x")
    small["spec"]["max_document"] = 64
    await desk.apply(open_schema("any", "x"), device("one", bound="any", x="y" * 100))
    error = await desk.refused(small)

    assert error.code == "document_too_large"


# ---- identity -----------------------------------------------------------------------------------------


async def test_an_id_is_given_once_and_survives_renaming(desk: Desk) -> None:
    await desk.apply(device("one", bound=""))
    first = desk.revision(1).changes[0].after
    await desk.store.write(lambda tx: _rename(tx, "one", "two"))
    await desk.apply(device("one", bound=""))
    two, one = desk.revision(2).changes[1].after, desk.revision(3).changes[0].after

    assert first is not None
    assert two is not None
    assert one is not None
    assert two.id == first.id
    assert one.id != first.id


def _rename(tx: Transaction, name: str, to: str) -> None:
    change = Change(tx, SchemaCache(), Vault(list, ""), author=ADA, message="", now=NOW, new_id=lambda: "unused")
    change.rename(name, to)
    change.finish()


async def test_a_deleted_device_leaves_nothing_to_its_successor(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1", color="red"))
    await desk.apply(delete=(("Device", "lamp-1"),))
    with desk.store.read() as tx:
        left = [database for database in ("ids", "desired", "reported") for _ in tx.scan(database)]
    await desk.apply(device("lamp-1"))

    assert left == []
    assert [note.role for note in desk.notes if isinstance(note, Cut)] == ["device"]
    assert desk.document("lamp-1")["color"] == "green"


async def test_a_refused_deletion_cuts_nobody(desk: Desk) -> None:
    await desk.apply(schema(), device("lamp-1"))
    await desk.refused(device("lamp-2", color="pink"), delete=(("Device", "lamp-1"),))

    assert not any(isinstance(note, Cut) for note in desk.notes)
    with desk.store.read() as tx:
        assert len(list(tx.scan("ids"))) == 1


@pytest.mark.parametrize("name", ["one", "two"])
async def test_deleting_what_is_not_there_is_told(desk: Desk, name: str) -> None:
    with pytest.raises(HengeError) as refusal:
        await desk.apply(delete=(("Group", name),))

    assert refusal.value.code == "no_such_object"


async def test_a_schema_that_was_there_is_compared_and_a_new_one_is_not(desk: Desk) -> None:
    made = await desk.apply(schema())
    wider = await desk.apply(schema(**{**LAMP, "title": "A lamp", "additionalProperties": True}), device("lamp-1"))
    less = await desk.patch("Schema/lamp", {"spec": {"max_document": 1024}})

    assert [done.compared for done in made.objects] == [None]
    assert [done.compared.verdict for done in wider.objects if done.compared] == ["compatible"]
    assert [one.message for done in less.objects if done.compared for one in done.compared.reasons] == [
        "a document may have 1024 bytes, not 16384"
    ]
