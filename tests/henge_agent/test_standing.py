"""The outputs while nothing is applied: put back, left alone, or as they were before the agent came."""

from __future__ import annotations

from pathlib import Path

import pytest

from henge_agent.records import Progress, Version
from henge_agent.settings import Output
from henge_agent.standing import Standing
from henge_agent.state import State
from henge_protocol.errors import HengeError
from henge_protocol.keyfiles import DISK, Files
from henge_protocol.model import digest_of
from tests.henge_agent.cutting import FullDisk

RED = b'{"color":"red"}'


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [tmp_path / "a.json", tmp_path / "b.json"]


def standing(state: State, paths: list[Path], files: Files = DISK) -> Standing:
    return Standing(state, tuple(Output(path, "json") for path in paths), files=files)


def runs(state: State, document: bytes = RED) -> None:
    """The document is the last good one."""
    state.keep_document(document)
    state.keep_progress(Progress(current=Version("e", 1, digest_of(document))))


def test_without_a_document_no_file_is_touched(state: State, paths: list[Path]) -> None:
    paths[0].write_text("mine")
    outputs = standing(state, paths)
    outputs.restore(())

    assert (paths[0].read_text(), paths[1].exists()) == ("mine", False)
    assert (outputs.changed(), outputs.untold) == ([], False)


def test_the_last_good_document_is_written_where_it_is_not_and_programs_are_to_be_told(
    state: State, paths: list[Path]
) -> None:
    runs(state)
    outputs = standing(state, paths)
    outputs.restore(())
    assert [path.read_bytes() for path in paths] == [RED, RED]
    assert outputs.untold

    outputs.untold = False
    outputs.restore(())
    assert not outputs.untold


def test_what_somebody_changed_is_known_and_can_be_left(state: State, paths: list[Path]) -> None:
    runs(state)
    outputs = standing(state, paths)
    outputs.restore(())
    paths[0].write_text("mine")
    paths[1].unlink()
    assert outputs.changed() == paths

    outputs.restore([paths[0]])
    assert (paths[0].read_text(), paths[1].read_bytes()) == ("mine", RED)
    assert outputs.changed() == [paths[0]]


def test_an_output_that_the_agent_never_wrote_was_changed_by_nobody(state: State, paths: list[Path]) -> None:
    runs(state)
    standing(state, paths[:1]).restore(())
    paths[1].write_text("somebody's, from before")

    assert standing(state, paths).changed() == []


def test_a_first_document_that_is_undone_leaves_what_was_there_before(state: State, paths: list[Path]) -> None:
    paths[0].write_text("mine")
    outputs = standing(state, paths)
    outputs.remember_originals()
    state.keep_progress(Progress(staged=Version("e", 1, digest_of(RED))))
    for path in paths:
        path.write_bytes(RED)
    outputs.remember_originals()  # the agent's own text is nobody's original
    outputs.restore(())

    assert (paths[0].read_text(), paths[1].exists()) == ("mine", False)


def test_one_that_cannot_be_written_does_not_keep_the_others_from_it(state: State, paths: list[Path]) -> None:
    runs(state)
    disk = FullDisk(only=paths[0].name)
    outputs = standing(state, paths, files=disk)  # type: ignore[arg-type]
    with pytest.raises(HengeError) as trouble:
        outputs.restore(())

    assert (trouble.value.code, paths[0].exists(), paths[1].read_bytes()) == ("storage_full", False, RED)
    disk.full = False
    outputs.restore(())
    assert paths[0].read_bytes() == RED


def test_a_document_that_is_damaged_is_said_to_be(state: State, paths: list[Path]) -> None:
    runs(state)
    state.document_file(digest_of(RED)).write_bytes(b"{")
    for act in (lambda: standing(state, paths).restore(()), standing(state, paths).changed):
        with pytest.raises(HengeError) as trouble:
            act()
        assert trouble.value.code == "state_damaged"
