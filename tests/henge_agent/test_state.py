from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from henge_agent.records import Membership, Original, Progress, Version
from henge_agent.state import State, is_running, read_membership, read_progress
from henge_protocol.errors import Conflict, Denied, HengeError, Invalid, StorageFull
from henge_protocol.model import digest_of
from henge_protocol.wire import MAX_FRAME_BYTES, FieldError, Report
from tests.henge_agent.cutting import Cut, CuttingFiles, FullDisk, Unremovable
from tests.henge_protocol.authorities import DEVICE, FLEET

OLD, NEW = b'{"color":"red"}', b'{"color":"blue"}'
MEMBERSHIP = Membership(
    FLEET, DEVICE, "lamp-1", (b"\x30\x82\x00\x00",), "a", None, 5, "henge.lan:4364", "10.0.0.1:4364"
)


def version(document: bytes, revision: int = 1) -> Version:
    return Version("epoch", revision, digest_of(document))


def report(document: bytes, state: str = "applied") -> Report:
    return Report("epoch", 1, digest_of(document), state, "", (FieldError("/a", "ü"),))


def test_a_new_folder_is_private_and_knows_nothing(tmp_path: Path) -> None:
    with closing(State(tmp_path / "deep" / "state")) as state:
        assert (state.membership, state.progress, state.free_slot()) == (None, Progress(), "a")
        assert state.document("0" * 64) is None

    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700


def test_what_was_kept_is_there_after_reopening(tmp_path: Path) -> None:
    progress = Progress(version(NEW), version(OLD), None, report(NEW))
    with closing(State(tmp_path / "state")) as state:
        state.write_identity("a", b"pem")
        state.keep_membership(MEMBERSHIP)
        for document in (OLD, NEW):
            state.keep_document(document)
            state.keep_progress(replace(progress, report=report(document)))

    with closing(State(tmp_path / "state")) as state:
        assert (state.membership, state.progress) == (MEMBERSHIP, progress)
        assert [state.document(digest_of(document)) for document in (OLD, NEW)] == [OLD, NEW]
        assert state.free_slot() == "b"


def test_two_agents_on_one_folder_are_refused(tmp_path: Path) -> None:
    with closing(State(tmp_path / "state")):
        assert is_running(tmp_path / "state")
        with pytest.raises(Conflict) as refusal:
            State(tmp_path / "state")

    assert refusal.value.code == "already_running"
    assert not is_running(tmp_path / "state")


@pytest.mark.parametrize("name", ["identity-a.pem", "membership.json", "progress.json"])
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    with closing(State(tmp_path / "state")) as state:
        state.write_identity("a", b"pem")
        state.keep_membership(MEMBERSHIP)
        state.keep_progress(Progress())
    (tmp_path / "state" / name).chmod(mode)

    with pytest.raises(Denied) as refusal:
        (read_progress if name == "progress.json" else read_membership)(tmp_path / "state")

    assert refusal.value.code == "not_private"
    assert refusal.value.cure.startswith("chmod 600 ")


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)

    with pytest.raises(Denied):
        State(tmp_path / "state")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"version":2}',
        b"\xff",
        b'{"version":1,"version":1}',
        b'{"version":1,"fleet_id":"x"}',
        b"\0" * 300,
        b" " * 70_000,
    ],
)
def test_a_damaged_membership_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    with closing(State(tmp_path / "state")) as state:
        state.write_identity("a", b"pem")
        state.keep_membership(MEMBERSHIP)
    (tmp_path / "state" / "membership.json").write_bytes(content)

    with pytest.raises(Invalid) as refusal:
        State(tmp_path / "state")

    assert refusal.value.code == "state_damaged"
    assert "membership.json" in refusal.value.message
    assert "henge-agent join --replace" in refusal.value.cure
    assert not is_running(tmp_path / "state")


def test_a_missing_identity_is_a_clear_error(tmp_path: Path) -> None:
    with closing(State(tmp_path / "state")) as state:
        state.write_identity("a", b"pem")
        state.keep_membership(MEMBERSHIP)
    (tmp_path / "state" / "identity-a.pem").unlink()

    with pytest.raises(Invalid) as refusal:
        State(tmp_path / "state")

    assert "identity-a.pem" in refusal.value.message


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"version":1,"current":{},"previous":null,"staged":null,"report":null}']
)
def test_a_damaged_progress_costs_a_delivery_and_no_start(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(State(tmp_path / "state")) as state:
        state.keep_document(OLD)
        state.keep_progress(Progress(version(OLD)))
    (tmp_path / "state" / "progress.json").write_bytes(content)

    with closing(State(tmp_path / "state")) as state:
        assert state.progress == Progress()
    assert "progress.json is damaged" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"bitrot", bytes(MAX_FRAME_BYTES + 1)])
def test_a_damaged_document_is_treated_as_absent(tmp_path: Path, damage: bytes) -> None:
    with closing(State(tmp_path / "state")) as state:
        state.keep_document(OLD)
        state.keep_progress(Progress(version(OLD), None, None, report(OLD)))
        state.document_file(digest_of(OLD)).write_bytes(damage)

    with closing(State(tmp_path / "state")) as state:
        assert (state.progress.current, state.progress.report) == (None, report(OLD))


def test_documents_that_nothing_names_any_more_are_forgotten(state: State) -> None:
    for at in range(5):
        document = b"%d" % at
        state.keep_document(document)
        state.keep_progress(Progress(current=version(document), previous=state.progress.current))

    assert sorted(os.listdir(state.folder / "documents")) == sorted(digest_of(b"%d" % at) for at in (3, 4))


def test_the_identity_that_counts_is_never_overwritten(joined: State) -> None:
    with pytest.raises(LookupError):
        joined.write_identity("a", b"other")


def test_a_joining_key_is_for_one_purpose(state: State) -> None:
    state.keep_joining_key("k7m2", b"-----BEGIN\nkey\n")

    assert state.joining_key("k7m2") == b"-----BEGIN\nkey\n"
    assert state.joining_key("other") is None
    state.drop_joining_key()
    assert state.joining_key("k7m2") is None


def test_originals_remember_a_file_and_its_absence(state: State, tmp_path: Path) -> None:
    mine = Original(b"mine", 0o604, (12, 34))
    state.keep_original(tmp_path / "there", mine)
    state.keep_original(tmp_path / "absent", Original(None))

    assert (state.original(tmp_path / "there"), state.original(tmp_path / "absent")) == (mine, Original(None))
    assert state.knows_original(tmp_path / "absent")
    assert not state.knows_original(tmp_path / "never")


def test_a_document_that_cannot_be_removed_disturbs_nothing_and_goes_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(State(tmp_path / "state")) as state:
        for document in (OLD, NEW):
            state.keep_document(document)
        state.keep_progress(Progress(version(OLD)))
        state._files = Unremovable()
        state.keep_progress(Progress(version(NEW)))
        assert state.progress == Progress(version(NEW))
        assert state.document_file(digest_of(OLD)).exists()
    with closing(State(tmp_path / "state", files=Unremovable())) as state:
        assert state.progress == Progress(version(NEW))

    with closing(State(tmp_path / "state")) as state:
        assert os.listdir(state.folder / "documents") == [digest_of(NEW)]
    assert "stays" in caplog.text


def test_changes_of_the_membership_from_many_threads_lose_nothing(joined: State) -> None:
    def count(was: Membership) -> Membership:
        return replace(was, renew_at=was.renew_at + 1)

    before = joined.membership
    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(joined.update_membership, count) for _ in range(40)]:
            done.result()

    assert before is not None
    assert joined.membership == read_membership(joined.folder) == replace(before, renew_at=before.renew_at + 40)


def test_nothing_is_changed_before_joining(state: State) -> None:
    with pytest.raises(LookupError):
        state.update_membership(lambda was: was)


def test_a_full_disk_keeps_what_was(tmp_path: Path) -> None:
    files = FullDisk()
    files.full = False
    with closing(State(tmp_path / "state", files=files)) as state:
        state.keep_document(OLD)
        state.keep_progress(Progress(version(OLD)))
        files.full = True
        with pytest.raises(StorageFull):
            state.keep_document(NEW)
        with pytest.raises(StorageFull):
            state.keep_progress(Progress(version(NEW)))

        assert state.progress == Progress(version(OLD))
    assert read_progress(tmp_path / "state") == Progress(version(OLD))


def delivery(state: State) -> None:
    state.keep_original(Path("/etc/lamp.json"), Original(b"mine"))
    state.keep_document(NEW)
    state.keep_progress(replace(state.progress, staged=version(NEW)))
    state.keep_progress(Progress(version(NEW), state.progress.current, None, report(NEW)))
    state.keep_progress(replace(state.progress, report=None))


def renewal(state: State) -> None:
    membership = state.membership
    assert membership is not None
    state.write_identity("b", b"new identity")
    state.keep_membership(replace(membership, trial="b"))
    state.keep_membership(replace(membership, slot="b"))


def rejoining(state: State) -> None:
    state.keep_joining_key("token", b"key")
    state.write_identity("b", b"new identity")
    state.keep_membership(replace(MEMBERSHIP, name="lamp-2", slot="b"))
    state.drop_joining_key()


@pytest.mark.parametrize("work", [delivery, renewal, rejoining])
def test_after_a_cut_at_any_operation_the_state_is_one_that_was_kept(
    tmp_path: Path, work: Callable[[State], None]
) -> None:
    memberships: list[str | None] = []
    progresses: list[tuple[str, str]] = []
    for n in range(200):
        folder = tmp_path / str(n)
        with closing(State(folder)) as state:
            state.write_identity("a", b"old identity")
            state.keep_membership(MEMBERSHIP)
            state.keep_document(OLD)
            state.keep_progress(Progress(version(OLD)))
        finished = cut_at(n, folder, work)

        with closing(State(folder)) as state:
            assert_is_sound(state)
            assert state.membership is not None
            memberships.append(f"{state.membership.name} {state.membership.slot} {state.membership.trial}")
            current, staged = state.progress.current, state.progress.staged
            progresses.append((current.digest if current else "", staged.digest if staged else ""))
        if finished:
            break

    assert n > 15
    assert finished
    if work is delivery:
        assert list(dict.fromkeys(progresses)) == [
            (digest_of(OLD), ""),
            (digest_of(OLD), digest_of(NEW)),
            (digest_of(NEW), ""),
        ]
    if work is renewal:
        assert list(dict.fromkeys(memberships)) == ["lamp-1 a None", "lamp-1 a b", "lamp-1 b None"]
    if work is rejoining:
        assert list(dict.fromkeys(memberships)) == ["lamp-1 a None", "lamp-2 b None"]


def cut_at(n: int, folder: Path, work: Callable[[State], None]) -> bool:
    """Do the work until the n-th operation; True when it was finished."""
    with closing(State(folder)) as state:
        state._files = CuttingFiles(n)
        try:
            work(state)
        except Cut:
            return False
    return True


def assert_is_sound(state: State) -> None:
    """What counts is there and whole, and nothing else lies about."""
    assert state.membership is not None
    assert state.identity_file(state.membership.slot).read_bytes() in (b"old identity", b"new identity")
    if state.membership.trial:
        assert state.identity_file(state.membership.trial).read_bytes() == b"new identity"
    assert state.progress.current is not None
    for digest in state.progress.digests:
        assert state.document(digest) in (OLD, NEW)
    assert set(os.listdir(state.folder / "documents")) == state.progress.digests
    assert not [name for name in os.listdir(state.folder) if name.endswith(".new")]


def test_opening_a_folder_can_be_cut_anywhere(tmp_path: Path) -> None:
    for n in range(50):
        folder = tmp_path / str(n)
        try:
            State(folder, files=CuttingFiles(n)).close()
        except Cut:
            State(folder).close()
            continue
        except HengeError as error:
            pytest.fail(f"{n}: {error}")
        break

    assert n > 3


@pytest.mark.parametrize(("kept", "content"), [(b"present\nold", b"old"), (b"absent\n", None)])
def test_an_original_of_an_earlier_version_has_content_alone(
    state: State, tmp_path: Path, kept: bytes, content: bytes | None
) -> None:
    state.keep_original(tmp_path / "x", Original(None))
    (file,) = (state.folder / "originals").iterdir()
    file.write_bytes(kept)

    assert state.original(tmp_path / "x") == Original(content)
