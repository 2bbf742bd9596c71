"""``hengectl audit``: who did what, and a chain that is verified where the person sits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hengectl.conftest import Face
from tests.service import Admin, Service, device, schema


@pytest.fixture
async def person(face: Face, daemon: Service, admin: Admin) -> Face:
    """An operator on the daemon's machine, who has made something already."""
    face.environ(HENGE_SOCKET=str(daemon.socket))
    await admin.apply(schema(), device("lamp-1"))
    return face


async def test_the_newest_records_are_listed_with_who_and_what(person: Face, admin: Admin) -> None:
    await person.ok("token", "create", "--name", "lamp-7", "-q")
    shown = (await person.ok("audit", "list", "--limit", "2")).splitlines()

    assert len(shown) == 3
    assert "configuration.changed   2 objects" in shown[1]
    assert "token.created" in shown[2]
    assert (await person.ok("audit", "list", "--limit", "1", "-o", "name")).startswith("audit/")


async def test_verifying_prints_an_end_that_a_later_verify_takes(person: Face) -> None:
    first = await person.ok("audit", "verify")
    end = first.strip().rsplit(" ", 1)[1]
    await person.ok("token", "create", "-q")

    assert "verified, the end is " in await person.ok("audit", "verify", "--known", end)
    other = await person.run("audit", "verify", "--known", f"{end.partition(':')[0]}:{'0' * 64}")
    assert (other.code, "is not what it was when its digest was noted" in other.err) == (5, True)
    assert (await person.run("audit", "verify", "--known", "nonsense")).code == 2


async def test_a_chain_of_more_than_one_page_is_verified_whole(person: Face, daemon: Service, admin: Admin) -> None:
    import hengectl.commands.audit as command

    for _ in range(7):
        await admin.ok("POST", "/v1/tokens", {})
    head = (await admin.ok("GET", "/v1/audit"))["head"]["number"]
    at_once, command.AT_ONCE = command.AT_ONCE, 3  # type: ignore[misc]
    try:
        assert (await person.ok("audit", "verify")).startswith(f"{head} records verified")
    finally:
        command.AT_ONCE = at_once  # type: ignore[misc]


async def test_a_kept_file_is_verified_without_the_daemon_and_names_the_record_that_was_changed_f45(
    person: Face, tmp_path: Path
) -> None:
    await person.ok("token", "create", "-q")
    file = tmp_path / "audit.json"
    file.write_text(await person.ok("audit", "list", "--all", "-o", "json"), "utf-8")
    good = await person.ok("audit", "verify", "-f", str(file))
    whole = json.loads(file.read_text("utf-8"))
    whole["items"][1]["who"] = "mallory"
    file.write_text(json.dumps(whole), "utf-8")
    bad = await person.run("audit", "verify", "-f", str(file), "--socket", "/nowhere")

    assert "verified" in good
    assert bad.code == 5
    assert f"record {whole['items'][1]['number']} was changed" in bad.err


async def test_a_file_of_something_else_is_refused(person: Face, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    codes = []
    for text in ("", "[]", "{}", '{"anchor": {}, "head": {}, "items": 3}'):
        file.write_text(text, "utf-8")
        codes.append((await person.run("audit", "verify", "-f", str(file))).code)

    assert codes == [6, 6, 6, 6]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda path: None, 3, id="F01 nothing"),
        pytest.param(os.mkfifo, 6, id="F01 a pipe"),
        pytest.param(Path.mkdir, 6, id="F01 a folder"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), 6, id="F01 a device"),
        pytest.param(lambda path: path.write_text("[" * 100_000), 6, id="F09 depth"),
        pytest.param(lambda path: path.write_text('{"anchor": ' + "9" * 5000), 6, id="F09 a number"),
    ],
)
async def test_what_is_no_file_of_records_is_refused_without_waiting(
    face: Face, tmp_path: Path, make: Callable[[Path], object], code: int
) -> None:
    make(tmp_path / "audit.json")
    ran = await face.run("audit", "verify", "-f", str(tmp_path / "audit.json"))

    assert ran.code == code, ran
    assert str(tmp_path / "audit.json") in ran.err
    assert "fault in hengectl" not in ran.err
