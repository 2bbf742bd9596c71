"""Apply-sets: objects belong to the set of files they came from, and only what belongs to it is ever pruned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from hengd.records import CertificateRecord, ObjectRecord, Reported, pack
from hengd.rules.certificates import add_certificate, identity_state
from hengd.rules.changes import Changes
from hengd.rules.configs import Request
from hengd.rules.enrolment import claim_device
from hengd.rules.fleet import find_object, required_object
from hengd.rules.objects import parse_manifest
from hengd.rules.outcome import Author, Outcome
from hengd.rules.overrides import Overriding, overridden
from hengd.rules.ownership import Writer
from hengd.rules.schemas import SchemaCache
from hengd.store import Transaction
from henge_protocol import pki
from henge_protocol.csr import read_csr
from henge_protocol.errors import Conflict, HengeError, Invalid
from tests.hengd.rules.conftest import ADA, NOW, Desk
from tests.service import device, group, schema

HALL = group("hall", "room=hall", color="red")
A, B = (device(name, labels={"room": "hall"}) for name in "ab")
FILES = (HALL, A, B)
MINE = Writer("git")


async def apply(desk: Desk, *objects: dict[str, Any], to: str = "git", **words: Any) -> Outcome:
    """Apply for a set."""
    writer = Writer(to, take_over=words.pop("take_over", False))
    return await desk.configs.apply(objects, words.pop("delete", ()), Request(ADA, writer=writer, **words))


async def prune(desk: Desk, *objects: dict[str, Any], **words: Any) -> Outcome:
    """Apply for a set, and nothing else stays of it."""
    return await apply(desk, *objects, prune=True, **words)


async def refused(desk: Desk, attempt: Callable[[], Awaitable[object]]) -> HengeError:
    """The refusal of what must leave nothing."""
    before = desk.everything()
    with pytest.raises(HengeError) as refusal:
        await attempt()
    assert desk.everything() == before
    return refusal.value


def find(desk: Desk, kind: str, name: str) -> ObjectRecord | None:
    """An object as it is."""
    with desk.store.read() as tx:
        return find_object(tx, kind, name)


def owner(desk: Desk, kind: str, name: str) -> tuple[str, str]:
    """The set of an object, and the one it was taken from."""
    found = find(desk, kind, name)
    assert found is not None
    return found.apply_set, found.taken_from


def actions(outcome: Outcome) -> dict[str, str]:
    """What became of each object, but for those that stay."""
    done = {f"{one.kind}/{one.name}": one.action for one in outcome.objects}
    return {path: action for path, action in done.items() if action != "unchanged"}


async def join(desk: Desk, *names: str) -> None:
    """Give devices live certificates."""

    def operation(tx: Transaction) -> None:
        for number, name in enumerate(names, 1):
            subject, key = required_object(tx, "Device", name).id, bytes([number]) * 32
            record = CertificateRecord(
                role="device", subject=subject, spki=key.hex(), not_after=NOW + 1, state="active", via="token"
            )
            add_certificate(tx, key, record)

    await desk.store.write(operation)


@pytest.fixture
async def lamps(desk: Desk) -> Desk:
    """A schema of nobody's; a group and two lamps of the set git."""
    await desk.apply(schema())
    await apply(desk, *FILES)
    return desk


# ---- belonging ----------------------------------------------------------------------------------------------------


async def test_what_is_applied_for_a_set_belongs_to_it_and_the_history_says_for_which(lamps: Desk) -> None:
    assert [owner(lamps, kind, name) for kind, name in (("Group", "hall"), ("Device", "a"))] == [("git", "")] * 2
    assert owner(lamps, "Schema", "lamp") == ("", "")
    assert [lamps.revision(number).apply_set for number in (1, 2)] == ["", "git"]


async def test_what_belongs_to_nobody_is_adopted_as_a_revision_that_no_device_notices(desk: Desk) -> None:
    await desk.apply(schema(), device("a"))
    outcome = await apply(desk, device("a"))

    assert (outcome.revision, actions(outcome), outcome.devices) == (2, {"Device/a": "configured"}, ())
    (done,) = outcome.objects
    assert [(one.pointer, one.after) for one in done.changes] == [("/metadata/set", "git")]
    assert (await apply(desk, device("a"))).revision == 2


async def test_a_device_that_joins_stays_in_its_set(lamps: Desk) -> None:
    key = read_csr(pki.make_csr(pki.generate_key(), "a"))

    def operation(tx: Transaction) -> str:
        changes = Changes(SchemaCache(), lamps.vault, lambda: NOW, lambda: "n" * 26)
        return claim_device(tx, changes, "a", key, ADA, schema="lamp", labels={"floor": "1"})

    await lamps.store.write(operation)

    found = find(lamps, "Device", "a")
    assert found is not None
    assert (found.apply_set, found.labels) == ("git", {"room": "hall", "floor": "1"})


# ---- whose change it is --------------------------------------------------------------------------------------------

Attempt = Callable[[Desk, Request], Awaitable[Outcome]]

BY_HAND: dict[str, Attempt] = {
    "put": lambda desk, by: desk.configs.put(parse_manifest(device("a", color="blue")), "*", by),
    "patch": lambda desk, by: desk.configs.patch("Device", "a", {"spec": {"values": {"color": "blue"}}}, None, by),
    "labels": lambda desk, by: desk.configs.patch("Device", "a", {"metadata": {"labels": {"x": "y"}}}, None, by),
    "apply": lambda desk, by: desk.configs.apply([device("a", color="blue")], [], by),
    "apply for another set": lambda desk, by: desk.configs.apply(
        [device("a", color="blue")], [], replace(by, writer=Writer("other", take_over=by.writer.take_over))
    ),
    "rename": lambda desk, by: desk.configs.rename("a", "c", None, by),
    "rollback of one": lambda desk, by: desk.configs.rollback(1, ("Device", "a"), by),
    "rollback of all": lambda desk, by: desk.configs.rollback(1, None, by),
    "delete": lambda desk, by: desk.configs.delete("Device", "a", None, by),
    "delete with others": lambda desk, by: desk.configs.apply([], [("Device", "a")], by),
}


@pytest.mark.parametrize("name", BY_HAND)
async def test_every_way_of_changing_what_belongs_to_a_set_needs_a_word(lamps: Desk, name: str) -> None:
    attempt = BY_HAND[name]
    error = await refused(lamps, lambda: attempt(lamps, Request(ADA)))
    dry = await attempt(lamps, Request(ADA, dry_run=True))
    done = await attempt(lamps, Request(ADA, writer=Writer(take_over=True)))

    assert isinstance(error, Conflict)
    assert error.code == "managed"
    assert "the apply-set git" in error.message
    assert "device/a" in error.message
    assert "--take-over" in error.cure
    assert "--set git" in error.cure
    assert ("--for 1h" in error.cure) == (name in ("put", "patch", "apply", "apply for another set"))
    assert "device/a" in [problem.object for problem in error.problems]
    assert dry.managed == error.message
    assert done.revision == 3


@pytest.mark.parametrize("name", ["put", "patch", "labels", "apply", "delete", "delete with others"])
async def test_who_changes_for_the_set_needs_none(lamps: Desk, name: str) -> None:
    outcome = await BY_HAND[name](lamps, Request(ADA, writer=MINE))

    assert outcome.revision == 3
    assert "Device/a" in actions(outcome)
    assert name.startswith("delete") or owner(lamps, "Device", "a") == ("git", "")


async def test_who_changes_nothing_needs_none_and_takes_nothing(lamps: Desk) -> None:
    assert (await lamps.apply(*FILES)).revision == 2
    assert (await lamps.configs.apply(FILES, [], Request(ADA, writer=Writer(take_over=True)))).revision == 2
    assert owner(lamps, "Device", "a") == ("git", "")


async def test_another_set_may_not_have_an_object_although_it_says_the_same(lamps: Desk) -> None:
    error = await refused(lamps, lambda: apply(lamps, A, to="other"))
    assert error.code == "managed"
    assert "made for the set other" in error.message

    await apply(lamps, A, to="other", take_over=True)
    assert owner(lamps, "Device", "a") == ("other", "")


async def test_all_objects_of_others_are_told_at_once(lamps: Desk) -> None:
    many = [device(f"lamp-{number:03}") for number in range(120)]
    await apply(lamps, *many)
    error = await refused(lamps, lambda: lamps.apply(*[{**one, "spec": {"schema": ""}} for one in many]))

    assert error.message.startswith("120 objects are of apply-sets (device/lamp-000, device/lamp-001")
    assert "and 112 more" in error.message
    assert (len(error.problems), error.extra["object_count"]) == (100, 120)


async def test_what_was_taken_over_is_had_back_only_by_the_word_or_by_saying_the_same(lamps: Desk) -> None:
    blue = device("a", labels={"room": "hall"}, color="blue")
    await lamps.configs.apply([blue], [], Request(ADA, writer=Writer(take_over=True)))
    assert owner(lamps, "Device", "a") == ("", "git")
    assert lamps.document("a")["color"] == "blue"

    error = await refused(lamps, lambda: apply(lamps, *FILES))
    assert error.code == "managed"
    assert "device/a was taken from the apply-set git by hand (last changed by ada)" in error.message
    await lamps.apply(device("a", labels={"room": "hall"}, color="green"))  # its own hand goes on without a word
    assert owner(lamps, "Device", "a") == ("", "git")
    await apply(lamps, device("a", labels={"room": "hall"}, color="green"))
    assert owner(lamps, "Device", "a") == ("git", "")

    await lamps.configs.apply([blue], [], Request(ADA, writer=Writer(take_over=True)))
    await apply(lamps, *FILES, take_over=True)
    assert owner(lamps, "Device", "a") == ("git", "")
    assert lamps.document("a")["color"] == "red"


async def test_overrides_need_no_word_and_take_nothing(lamps: Desk) -> None:
    wanted = Overriding({"/color": "blue"}, frozenset(), 60)
    await lamps.configs.override(
        [("Device", "a")],
        lambda old, origin: overridden(old, wanted, until=NOW + 60, origin=origin, message=""),
        None,
        Request(ADA),
    )

    assert lamps.document("a")["color"] == "blue"
    assert owner(lamps, "Device", "a") == ("git", "")
    assert (await apply(lamps, *FILES)).revision == 3
    assert lamps.document("a")["color"] == "blue"


async def test_rolling_back_by_hand_takes_what_it_changes_and_leaves_the_rest(lamps: Desk) -> None:
    await apply(lamps, device("a", labels={"room": "hall"}, color="blue"))
    await lamps.configs.rollback(2, None, Request(ADA, writer=Writer(take_over=True)))

    assert owner(lamps, "Device", "a") == ("", "git")
    assert owner(lamps, "Device", "b") == ("git", "")
    assert lamps.document("a")["color"] == "red"


# ---- pruning ------------------------------------------------------------------------------------------------------


async def test_what_is_not_in_the_files_goes_in_the_same_revision(lamps: Desk) -> None:
    outcome = await prune(lamps, device("a", labels={"room": "hall"}, color="blue"))

    assert actions(outcome) == {"Device/a": "configured", "Group/hall": "deleted", "Device/b": "deleted"}
    assert (outcome.revision, lamps.revisions) == (3, 3)
    assert (find(lamps, "Group", "hall"), find(lamps, "Device", "b")) == (None, None)
    assert (await prune(lamps, device("a", labels={"room": "hall"}, color="blue"))).revision == 3


async def test_nothing_is_pruned_without_the_word(lamps: Desk) -> None:
    await apply(lamps, A)

    assert find(lamps, "Group", "hall") is not None


async def test_only_what_belongs_to_the_set_is_pruned(lamps: Desk) -> None:
    await lamps.apply(group("mine"), device("c"))
    await apply(lamps, group("theirs"), device("d"), to="other")
    trap = device("trap", labels={"room": "hall"})
    trap["metadata"]["annotations"] = {"note": '"apply_set":"git"'}
    await lamps.apply(trap)
    outcome = await prune(lamps, *FILES[:-1])

    assert actions(outcome) == {"Device/b": "deleted"}


async def test_pruning_needs_a_set(lamps: Desk) -> None:
    error = await refused(lamps, lambda: lamps.configs.apply(FILES, [], Request(ADA, prune=True)))

    assert isinstance(error, Invalid)
    assert error.code == "bad_parameter"
    assert "--set" in error.cure


async def test_a_dry_run_tells_what_would_go_and_keeps_it(lamps: Desk) -> None:
    before = lamps.everything()
    dry = await prune(lamps, A, dry_run=True)

    assert actions(dry) == {"Group/hall": "deleted", "Device/b": "deleted"}
    assert [one.name for one in dry.devices] == ["a"]
    assert lamps.everything() == before


async def test_what_is_taken_over_is_pruned_no_more(lamps: Desk) -> None:
    await lamps.configs.apply([device("b")], [], Request(ADA, writer=Writer(take_over=True)))
    outcome = await prune(lamps, HALL, A)

    assert actions(outcome) == {}
    assert find(lamps, "Device", "b") is not None


async def test_a_device_that_has_joined_stays_and_belongs_to_nobody(lamps: Desk) -> None:
    await join(lamps, "b")
    dry = await prune(lamps, HALL, A, dry_run=True)
    outcome = await prune(lamps, HALL, A)

    assert dry.spared == outcome.spared == ("b",)
    assert (actions(outcome), outcome.devices) == ({"Device/b": "configured"}, ())
    assert owner(lamps, "Device", "b") == ("", "")
    with lamps.store.read() as tx:
        assert identity_state(tx, "device", required_object(tx, "Device", "b").id) == "active"
    again = await prune(lamps, HALL, A)
    assert (again.revision, again.spared) == (outcome.revision, ())
    await prune(lamps, *FILES)
    assert owner(lamps, "Device", "b") == ("git", "")


async def test_an_editor_may_prune_although_devices_have_joined(lamps: Desk) -> None:
    await join(lamps, "b")
    request = Request(Author("ci", "test", may_end_identities=False), writer=MINE, prune=True)

    assert (await lamps.configs.apply([HALL, A], [], request)).spared == ("b",)


async def test_the_built_in_group_loses_its_values_and_stays(lamps: Desk) -> None:
    await apply(lamps, *FILES, group("all", brightness=5))
    assert lamps.document("a")["brightness"] == 5
    outcome = await prune(lamps, *FILES)

    assert actions(outcome) == {"Group/all": "configured"}
    assert lamps.document("a")["brightness"] == 80
    assert owner(lamps, "Group", "all") == ("", "")


async def test_a_schema_that_others_use_refuses_the_whole_change(lamps: Desk) -> None:
    await apply(lamps, schema("spare"))
    await lamps.apply(device("c", "spare"))
    error = await refused(lamps, lambda: prune(lamps, *FILES))

    assert error.code == "in_use"


@pytest.mark.parametrize("left", [(), (device("c"),)])
async def test_pruning_all_of_a_set_needs_a_word(lamps: Desk, left: tuple[dict[str, Any], ...]) -> None:
    error = await refused(lamps, lambda: prune(lamps, *left))
    dry = await prune(lamps, *left, dry_run=True)
    outcome = await prune(lamps, *left, all_at_once=True)

    assert error.code == "too_wide"
    assert "no object of the set git is in the files: it prunes all 3" in error.message
    assert "--all-at-once" in error.cure
    assert dry.too_wide == error.message
    assert list(actions(outcome).values()).count("deleted") == 3


async def test_a_set_of_one_object_may_get_another_without_a_word(desk: Desk) -> None:
    await desk.apply(schema())
    await prune(desk, device("a"))

    assert actions(await prune(desk, device("b"))) == {"Device/b": "created", "Device/a": "deleted"}
    assert (await refused(desk, lambda: prune(desk))).code == "too_wide"


async def test_what_pruning_does_to_devices_counts_as_the_width_of_a_change(desk: Desk) -> None:
    lamps = [device(f"lamp-{number}", labels={"room": "hall"}) for number in range(8)]
    await desk.apply(schema(), *lamps)
    await apply(desk, HALL, group("other"))

    def operation(tx: Transaction) -> None:
        for one in lamps:
            found = required_object(tx, "Device", one["metadata"]["name"])
            tx.put("reported", found.id.encode(), pack(Reported(seen=NOW)))

    await desk.store.write(operation)
    error = await refused(desk, lambda: prune(desk, group("other")))

    assert (error.code, error.extra["device_count"]) == ("too_wide", 8)
    assert len((await prune(desk, group("other"), all_at_once=True)).devices) == 8
