"""Who set each field: what is kept with an object agrees with the history, whatever was written in between."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hengd.records import ObjectRecord, Origin, pack
from hengd.rules.configs import Request
from hengd.rules.fleet import find_object
from hengd.rules.merge import MISSING, get, leaves, same
from hengd.rules.outcome import Author
from hengd.rules.provenance import Provenance, origins
from henge_protocol.errors import HengeError
from henge_protocol.fieldpath import tokens
from tests.hengd.rules.conftest import ADA, Desk
from tests.service import device, group, schema

OPEN = {"type": "object", "properties": {"a": {}, "b": {}}}
VALUES = st.dictionaries(
    st.sampled_from("ab"),
    st.sampled_from([0, 1, 1.0, True, None, [1], {}, {"x": 1}, {"x": 2, "y": None}, {"x": {"z": 1}}]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["one", "two"]), VALUES),
        st.tuples(st.just("group"), st.just("hall"), VALUES),
        st.tuples(st.just("delete"), st.sampled_from(["one", "two"]), st.none()),
        st.tuples(st.just("rename"), st.sampled_from(["one", "two"]), st.sampled_from(["one", "two"])),
        st.tuples(st.just("back"), st.just(""), st.integers(0, 3)),
    ),
    min_size=1,
    max_size=8,
)


async def _act(desk: Desk, step: tuple[str, str, Any], request: Request) -> None:
    action, name, what = step
    if action == "put":
        await desk.configs.apply([device(name, bound="any", **what)], [], request)
    elif action == "group":
        await desk.configs.apply([group(name, "room=hall", bound="any", **what)], [], request)
    elif action == "delete":
        await desk.configs.apply([], [("Device", name)], request)
    elif action == "rename":
        await desk.configs.rename(name, what, None, request)
    else:
        await desk.configs.rollback(max(1, desk.revisions - what), None, request)


def _set_by_history(desk: Desk, record: ObjectRecord, path: tuple[str, ...]) -> tuple[int, str, float]:
    """The last revision that gave the field its value, read from the whole history of the object."""
    value = get(record.spec["values"], path)
    found = (0, "", 0.0)
    for revision in reversed(desk.history(limit=1000)):
        befores = {change.before.id or change.name: change.before for change in revision.changes if change.before}
        afters = {change.after.id or change.name: change.after for change in revision.changes if change.after}
        after = afters.get(record.id or record.name)
        if after is None or not same(get(after.spec.get("values", {}), path), value):
            continue
        before = befores.get(record.id or record.name)
        if before is None or not same(get(before.spec.get("values", {}), path), value):
            found = (revision.revision, revision.author, revision.time)
    return found


async def test_the_origin_of_every_field_is_what_the_history_says(desk: Desk) -> None:
    programs: list[list[tuple[str, str, Any]]] = [[("put", "one", {"a": 1, "b": {"x": 1}}), ("rename", "one", "two")]]

    @given(STEPS)
    def collect(program: list[tuple[str, str, Any]]) -> None:
        programs.append(program)

    collect()
    await desk.apply(schema("any", **OPEN))
    compared = 0
    for program in programs[:40]:
        for number, step in enumerate(program):
            desk.now += 1
            try:
                await _act(desk, step, Request(Author(f"p{number % 3}", "test", may_end_identities=True)))
            except HengeError as error:
                assert error.code in ("no_such_device", "name_taken")
        for kind, name in (("Device", "one"), ("Device", "two"), ("Group", "hall")):
            with desk.store.read() as tx:
                record = find_object(tx, kind, name)
            for where, _ in leaves(record.spec["values"]) if record is not None else ():
                assert record is not None
                origin = Provenance(record).of(tokens(where))
                wanted = _set_by_history(desk, record, tokens(where))
                assert (origin.revision, origin.author, origin.time) == wanted, (program, where)
                compared += 1
        await desk.configs.rollback(1, None, Request(ADA))
    assert compared


@given(VALUES, VALUES)
def test_every_field_has_exactly_one_origin(before: dict[str, Any], after: dict[str, Any]) -> None:
    first = ObjectRecord(
        kind="Group", name="g", spec={"values": before}, origins=origins(None, before, Origin(1, "ada", 1.0, []))
    )
    found = origins(first, after, Origin(2, "bob", 2.0, []))

    assert sorted(where for origin in found for where in origin.fields) == sorted(where for where, _ in leaves(after))
    for origin in found:
        for where in origin.fields:
            path = tokens(where)
            assert (origin.revision == 1) is (
                get(before, path) is not MISSING and same(get(before, path), get(after, path))
            )


def test_an_object_from_before_fields_had_origins_answers_with_its_last_change() -> None:
    old = ObjectRecord(
        kind="Group", name="g", spec={"values": {"a": 1, "b": 2}}, revision=5, author="ada", changed=50.0
    )
    found = origins(old, {"a": 1, "b": 3}, Origin(9, "bob", 90.0, []))

    assert Provenance(old).of(("a",)).revision == 5
    assert found == [Origin(5, "ada", 50.0, ["/a"]), Origin(9, "bob", 90.0, ["/b"])]


def test_a_place_inside_or_around_fields_has_the_nearest_origin() -> None:
    record = ObjectRecord(
        kind="Group", name="g", spec={"values": {}}, revision=9,
        origins=[Origin(1, "ada", 1.0, ["/list", "/wifi/ssid"]), Origin(2, "bob", 2.0, ["/wifi/channel"])],
    )  # fmt: skip
    provenance = Provenance(record)

    assert provenance.of(("list", "0", "x")).revision == 1
    assert provenance.of(("wifi",)).revision == 2
    assert provenance.of(("elsewhere",)).revision == 9


async def test_origins_are_not_kept_twice(desk: Desk) -> None:
    await desk.apply(schema("any", **OPEN), device("one", bound="any", a=1))
    await desk.apply(device("one", bound="any", a=2))

    assert b"origins" not in pack(desk.revision(2))
