"""The door through which configuration changes: apply, history, going back, why; on a real store, without HTTP."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hengd.rules import configs
from hengd.rules.configs import MAX_MESSAGE_CHARS, MAX_OBJECTS, PIECE, Request
from henge_protocol.errors import HengeError, Invalid, NotFound
from tests.hengd.rules.conftest import ADA, Desk
from tests.service import device, group, schema


async def test_faults_of_several_objects_are_told_together_by_number_or_path(desk: Desk) -> None:
    error = await desk.refused(
        {"kind": "Device"}, device("lamp-1"), {"kind": "Group", "metadata": {"name": "x"}, "spec": 7}
    )

    assert [(problem.object, problem.pointer) for problem in error.problems] == [("#1", ""), ("group/x", "/spec")]
    assert error.message.startswith("object 1: ")


async def test_an_object_given_twice_is_refused(desk: Desk) -> None:
    error = await desk.refused(device("one", bound=""), device("one", bound=""))

    assert (error.code, error.problems[0].message) == ("bad_object", "object 2 repeats object 1")


async def test_many_objects_are_read_in_pieces_between_which_others_have_their_turn() -> None:
    reading = asyncio.create_task(configs.read_manifests([device(f"lamp-{number}") for number in range(5 * PIECE)]))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns >= 5
    assert [manifest.name for manifest in await reading] == [f"lamp-{number}" for number in range(5 * PIECE)]


async def test_more_objects_than_the_limit_are_refused_before_a_look_at_them(desk: Desk) -> None:
    with pytest.raises(Invalid, match=f"at most {MAX_OBJECTS}"):
        await desk.configs.apply([None] * (MAX_OBJECTS + 1), [], Request(ADA))


async def test_as_many_objects_as_the_limit_are_read() -> None:
    for count in (MAX_OBJECTS - 1, MAX_OBJECTS):
        manifests = await configs.read_manifests([device(f"lamp-{number}") for number in range(count)])
        assert len(manifests) == count


async def test_a_message_is_kept_up_to_a_length(desk: Desk) -> None:
    await desk.configs.apply([device("one", bound="")], [], Request(ADA, message="x" * MAX_MESSAGE_CHARS))
    with pytest.raises(Invalid):
        await desk.configs.apply([device("two", bound="")], [], Request(ADA, message="x" * (MAX_MESSAGE_CHARS + 1)))

    assert desk.revision(1).message == "x" * MAX_MESSAGE_CHARS
    assert (desk.revision(1).author, desk.revision(1).origin) == ("ada", "test")


async def test_a_revision_that_is_not_there_is_told(desk: Desk) -> None:
    for number in (-1, 0, 1, 2**63, 2**64):
        with pytest.raises(NotFound):
            desk.revision(number)


async def test_going_back_to_where_one_is_is_no_revision(desk: Desk) -> None:
    await desk.apply(schema(), device("one"))
    outcome = await desk.configs.rollback(1, None, Request(ADA))

    assert (outcome.revision, outcome.objects) == (1, ())


async def test_going_back_to_the_beginning_leaves_the_group_all(desk: Desk) -> None:
    await desk.apply(schema(), device("one"), group("all", priority=0, color="red"))
    await desk.configs.rollback(0, None, Request(ADA))
    with desk.store.read() as tx:
        left = [key.decode() for key, _ in tx.scan("objects")]

    assert left == ["Group/all"]


async def test_a_dry_way_back_changes_nothing(desk: Desk) -> None:
    await desk.apply(schema(), device("one"))
    await desk.apply(device("one", color="red"))
    before = desk.everything()
    outcome = await desk.configs.rollback(1, ("Device", "one"), Request(ADA, dry_run=True))

    assert (outcome.dry_run, outcome.revision) == (True, 2)
    assert desk.everything() == before


async def test_history_tells_who_and_when(desk: Desk) -> None:
    await desk.apply(schema(), device("one"))
    desk.now += 60
    await desk.apply(device("one", color="red"))
    found = desk.history(object_=("Device", "one"), limit=10)

    assert [(record.revision, record.time - found[1].time) for record in found] == [(2, 60), (1, 0)]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["set", "delete", "rename", "group"]), st.sampled_from("abc"), st.sampled_from("abcd")),
    max_size=6,
)


async def test_whatever_happened_everything_goes_back_to_every_revision(desk: Desk) -> None:
    programs: list[list[tuple[str, str, str]]] = []

    @given(ACTIONS)
    def collect(program: list[tuple[str, str, str]]) -> None:
        programs.append(program)

    collect()
    await desk.apply(schema())
    for program in programs[:40]:
        start = desk.revisions
        states = {start: _configuration(desk)}
        for action, name, other in program:
            try:
                await _act(desk, action, name, other)
            except HengeError as error:
                assert error.code in ("no_such_device", "name_taken")
            states[desk.revisions] = _configuration(desk)
        for revision, state in states.items():
            await desk.configs.rollback(revision, None, Request(ADA))
            assert _configuration(desk) == state, (program, revision)


async def _act(desk: Desk, action: str, name: str, other: str) -> None:
    if action == "set":
        await desk.apply(device(name, brightness=ord(other)))
    elif action == "group":
        await desk.apply(group(f"g-{name}", f"x={other}", wifi={"ssid": other}))
    elif action == "delete":
        await desk.apply(delete=(("Device", name),))
    else:
        await desk.configs.rename(name, other, None, Request(ADA))


def _configuration(desk: Desk) -> list[object]:
    """What people said, and what every device gets; without ids, which a deleted device does not get back."""
    with desk.store.read() as tx:
        objects = [
            (key, payload.partition(b'"spec"')[2].partition(b'"revision"')[0]) for key, payload in tx.scan("objects")
        ]
    objects = [(key, spec.partition(b'"id"')[0]) for key, spec in objects]
    names = [key.decode().partition("/")[2] for key, _ in objects if key.startswith(b"Device/")]
    return [*objects, *[desk.configs.document(name).data for name in names]]
