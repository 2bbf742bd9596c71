"""Apply-sets as a person meets them: applying for one, pruning, taking over, and what kustomize makes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hengectl import yamltext
from hengectl.refusal import CONFLICT, INVALID, NO, OK, PARTIAL, USAGE
from tests.hengectl.conftest import Face
from tests.service import Admin, Service, device, group, schema


def files(folder: Path, *objects: dict[str, Any]) -> str:
    """A folder with these objects and nothing else."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, one in enumerate(objects):
        (folder / f"{number}.yaml").write_text(yamltext.write({"apiVersion": "henge/v1", **one}))
    return str(folder)


def taken(path: Path) -> str:
    """The text of a file, which is removed."""
    text = path.read_text()
    path.unlink()
    return text


HALL = group("hall", "room=hall", color="red")
LAMPS = [device(f"lamp-{number}", labels={"room": "hall"}) for number in (1, 2)]


@pytest.fixture
async def person(face: Face, daemon: Service, admin: Admin, tmp_path: Path) -> Face:
    """Somebody whose fleet is in Git: the set git has a group and two lamps, a schema and a lamp are nobody's."""
    face.environ(HENGE_SOCKET=str(daemon.socket))
    await admin.apply(schema(), device("mine", labels={"room": "hall"}))
    await face.ok("apply", "--set", "git", "-f", files(tmp_path / "fleet", HALL, *LAMPS))
    return face


async def test_pruning_deletes_what_no_file_of_the_set_has_and_tells_it_first(
    person: Face, admin: Admin, tmp_path: Path
) -> None:
    folder = files(tmp_path / "fleet", *LAMPS[:1])
    told = await person.run("diff", "--set", "git", "--prune", "-f", folder)
    assert told.code == NO
    assert told.out.splitlines()[:2] == ["group/hall deleted", "device/lamp-2 deleted"]
    assert re.search(r'lamp-1, mine\n +~ color +"red" → "green"', told.out)
    dry = await person.ok("apply", "--set", "git", "--prune", "--dry-run", "-f", folder)
    assert dry.splitlines()[:2] == ["group/hall deleted (dry run)", "device/lamp-2 deleted (dry run)"]
    assert (await person.run("diff", "-f", folder)).code == OK
    out = await person.ok("apply", "--set", "git", "--prune", "-f", folder)

    assert out.splitlines()[:2] == ["group/hall deleted", "device/lamp-2 deleted"]
    assert out.endswith("revision 3, 2 of 2 devices (2 offline) change: lamp-1, mine\n")
    assert await person.ok("get", "devices", "-o", "name") == "device/lamp-1\ndevice/mine\n"


async def test_a_device_that_joined_is_not_pruned_and_the_person_hears_why(
    person: Face, daemon: Service, admin: Admin, tmp_path: Path
) -> None:
    await daemon.join(admin, "lamp-2")
    folder = files(tmp_path / "fleet", HALL, LAMPS[0])
    for command in (("diff",), ("apply", "--dry-run"), ("apply",)):
        ran = await person.run(*command, "--set", "git", "--prune", "-f", folder)
        assert "lamp-2 stays: it has joined" in ran.err, command
        assert "hengectl delete device/lamp-2" in ran.err

    assert "lamp-2" not in (await person.run("apply", "--set", "git", "--prune", "-f", folder)).err
    assert "\n  set " not in await person.ok("describe", "device/lamp-2")


@pytest.mark.parametrize("content", [[], [device("new")]])
async def test_pruning_all_of_a_set_needs_a_word(person: Face, tmp_path: Path, content: list[dict[str, Any]]) -> None:
    folder = files(tmp_path / "fleet", *content)
    ran = await person.run("apply", "--set", "git", "--prune", "-f", folder)
    assert (ran.code, "it prunes all 3" in ran.err, "--all-at-once" in ran.err) == (CONFLICT, True, True)
    assert "Nothing was changed." in ran.err
    told = await person.run("diff", "--set", "git", "--prune", "-f", folder)
    assert (told.code, "It needs --all-at-once: no object of the set git" in told.err) == (NO, True)

    await person.ok("apply", "--set", "git", "--prune", "--all-at-once", "-f", folder)
    assert "hall" not in await person.ok("get", "groups", "-o", "name")


async def test_an_empty_folder_is_a_mistake_without_prune_and_an_absent_one_always(
    person: Face, tmp_path: Path
) -> None:
    empty = files(tmp_path / "fleet")
    ran = await person.run("apply", "--set", "git", "-f", empty)
    assert (ran.code, "there is no *.yaml" in ran.err) == (INVALID, True)
    ran = await person.run("apply", "--set", "git", "--prune", "--all-at-once", "-f", f"{empty}/absent")
    assert "does not exist" in ran.err
    assert "group/hall" in await person.ok("get", "groups", "-o", "name")


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "--prune", "-f", "x"),
        ("apply", "--set", "", "--prune", "-f", "x"),
        ("apply", "--set", "Git", "-f", "x"),
        ("apply",),
        ("apply", "-f", "x", "-k", "x"),
        ("diff", "--prune", "-k", "x"),
        ("diff", "--prune", "--set", "git"),
        ("diff", "--set", "git", "--rev", "1.."),
    ],
)
async def test_a_set_or_files_that_are_not_named_are_a_usage_error(person: Face, words: tuple[str, ...]) -> None:
    ran = await person.run(*words)

    assert (ran.code, ran.out) == (USAGE, ""), ran


CHANGES = (
    ("set", "device/lamp-1", "color=blue"),
    ("set", "device/lamp-1", "color=null"),
    ("unset", "group/hall", "color"),
    ("promote", "lamp-1", "brightness", "--to", "group/hall", "--yes"),
    ("rollback", "device/lamp-1", "--to", "2", "--yes"),
    ("rollback", "--all", "--to", "1", "--yes"),
    ("delete", "device/lamp-1", "--yes"),
    ("device", "rename", "lamp-1", "porch"),
    ("device", "delete", "lamp-1", "--yes"),
)


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
async def test_changes_by_hand_need_a_word(person: Face, tmp_path: Path, words: tuple[str, ...]) -> None:
    changed = device("lamp-1", labels={"room": "hall"}, brightness=7)
    await person.ok("apply", "--set", "git", "-f", files(tmp_path / "fleet", HALL, changed, LAMPS[1]))
    ran = await person.run(*words)
    assert ran.code == CONFLICT, ran
    assert "apply-set git" in ran.err
    assert "--take-over" in ran.err
    assert "Nothing was changed." in ran.err

    await person.ok(*words, "--take-over")


async def test_an_override_needs_no_word_and_no_apply_ends_it(person: Face, tmp_path: Path) -> None:
    await person.ok("set", "device/lamp-1", "color=blue", "--for", "1h")
    out = await person.ok("apply", "--set", "git", "-f", str(tmp_path / "fleet"))

    assert "nothing to change" in out
    assert json.loads(await person.ok("document", "lamp-1"))["color"] == "blue"


async def test_what_was_taken_over_is_told_in_the_files_place_and_had_back_by_the_word(
    person: Face, tmp_path: Path
) -> None:
    await person.ok("set", "device/lamp-1", "color=blue", "--take-over")
    assert "taken from git" in await person.ok("describe", "device/lamp-1")
    folder = str(tmp_path / "fleet")
    told = await person.run("diff", "--set", "git", "-f", folder)
    assert (told.code, "It needs --take-over: device/lamp-1 was taken from" in told.err) == (NO, True)
    ran = await person.run("apply", "--set", "git", "-f", folder)
    assert ran.code == CONFLICT
    assert f"{folder}/1.yaml:1:1" in ran.err

    await person.ok("apply", "--set", "git", "--take-over", "-f", folder)
    assert "apply-set" not in (await person.run("diff", "--set", "git", "-f", folder)).err


async def test_the_set_is_seen_wherever_an_object_is_shown_whole(person: Face) -> None:
    for kind in ("devices", "groups"):
        table = await person.ok("get", kind, "-o", "wide")
        assert "SET" in table.splitlines()[0]
        assert re.search(r"\bgit\b", table)
    assert re.search(r"set +git +changes by hand need --take-over", await person.ok("describe", "device/lamp-1"))
    assert json.loads(await person.ok("get", "device", "lamp-1", "-o", "json"))["metadata"]["set"] == "git"
    assert re.search(r"\bgit\b", (await person.ok("history", "-o", "wide")).splitlines()[1])


async def test_an_editor_is_told_beforehand_and_what_was_written_is_kept(person: Face, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    person.environ(EDITOR=f"sh -c 'cat $0 >> {seen}; sed -i s/hall/den/ $0'", VISUAL="")
    ran = await person.run("edit", "device/lamp-1")
    assert (ran.code, "--take-over" in ran.err) == (CONFLICT, True)
    assert seen.read_text().count("belongs to the apply-set git") == 1, "opened once: no other text mends it"
    kept = re.search(r"What you wrote is in (\S+)\. ", ran.err)
    assert kept is not None
    assert "room: den" in taken(Path(kept[1]))

    await person.ok("edit", "device/lamp-1", "--take-over")
    assert "room=den" in await person.ok("get", "device", "lamp-1", "-o", "wide")


async def test_factoring_leaves_alone_what_belongs_to_a_set(person: Face, admin: Admin, tmp_path: Path) -> None:
    lamps = [device(f"lamp-{number}", labels={"room": "hall"}, brightness=7) for number in (1, 2)]
    await person.ok("apply", "--set", "git", "-f", files(tmp_path / "fleet", HALL, *lamps))
    await admin.apply(
        group("den", "room=den"), *(device(f"spot-{number}", labels={"room": "den"}, brightness=9) for number in (1, 2))
    )
    await admin.ok("DELETE", "/v1/devices/mine")
    out = await person.ok("factor", "--yes")
    assert "group/den" in out
    assert "group/hall" not in out

    assert "group/hall" in await person.ok("factor", "--yes", "--take-over")


async def test_files_that_write_what_belongs_to_others_are_not_right(person: Face, tmp_path: Path) -> None:
    folder = str(tmp_path / "fleet")
    changed = files(tmp_path / "changed", device("lamp-1", labels={"room": "hall"}, brightness=7))
    for words in (("check", "-f", changed), ("check", "--on-device", "-f", changed)):
        ran = await person.run(*words)
        assert (ran.code, "apply-set git" in ran.err) == (CONFLICT, True), ran
        assert "--take-over" in ran.err

    await person.ok("check", "--take-over", "-f", changed)
    await person.ok("check", "--set", "git", "-f", changed)
    await person.ok("check", "--set", "git", "-f", folder)
    allowed = await person.run("check", "--on-device", "--set", "git", "-f", changed)
    assert (allowed.code, "lamp-1 is not connected" in allowed.out) == (PARTIAL, True), allowed
