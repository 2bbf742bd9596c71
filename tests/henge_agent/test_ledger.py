"""Documents on trial: confirmed by their receipt, or taken back; and cut at every operation."""

# ruff: noqa: ASYNC240 - a test looks at small files
from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from henge_agent.applier import Applier
from henge_agent.records import Progress, Version
from henge_agent.settings import Hooks, Output
from henge_agent.state import State
from henge_agent.trial import VERDICT_S
from henge_protocol.errors import StorageFull
from henge_protocol.keyfiles import DISK, Files
from henge_protocol.model import digest_of
from henge_protocol.wire import Report
from tests.henge_agent.cutting import Cut, CuttingFiles
from tests.henge_agent.test_applier import BLUE, ENVIRON, GREEN, RED, config, idle, receipt_of, running, verdict


class Clock:
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lamp.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


Begin = Callable[..., Applier]


@pytest.fixture
def begin(state: State, path: Path, clock: Clock) -> Begin:
    def start(boot: str = "boot-1", files: Files = DISK, **hooks: str) -> Applier:
        outputs = (Output(path, "json"),)
        return Applier(state, outputs, Hooks(**hooks), environ=ENVIRON, files=files, clock=clock, boot=boot)

    return start


async def confirm(applier: Applier, document: bytes, revision: int = 1) -> None:
    """Let it run and be confirmed."""
    await applier.receipted(receipt_of(await verdict(applier, config(document, revision))))


async def until(applier: Applier, condition: Callable[[], object]) -> None:
    """Wait until the condition holds; looked at when the applier has news."""
    seen = -1
    async with asyncio.timeout(20):
        while not condition():
            seen = await applier.news(seen)


async def late(applier: Applier, clock: Clock, document: bytes) -> None:
    """Let the document be applied and its time end without a receipt."""
    report = await verdict(applier, config(document, 2, confirm_s=30))
    assert report.state == "applied"
    clock.now += 30
    applier._arrived.set()  # as the timer does
    await applier.undone()


async def test_a_receipt_makes_the_document_on_trial_the_last_good_one(begin: Begin, state: State) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        report = await verdict(applier, config(BLUE, 2))
        assert state.progress.current == Version("e", 1, digest_of(RED))
        assert applier.running.digest == digest_of(BLUE)
        await applier.receipted(receipt_of(report))

    assert state.progress.current == Version("e", 2, digest_of(BLUE))
    assert applier.report is None


async def test_without_a_receipt_in_time_the_last_good_document_comes_back_and_programs_are_told(
    begin: Begin, state: State, path: Path, clock: Clock, tmp_path: Path
) -> None:
    tell = f"cat {path} >> {tmp_path}/ran; echo $HENGE_ROLLBACK:$HENGE_CHANGED >> {tmp_path}/ran"
    async with running(begin(on_change=tell)) as applier:
        await confirm(applier, RED)
        report = await verdict(applier, config(BLUE, 2, confirm_s=30))
        applier._ledger._reached = False  # nobody has been reached by the new one
        assert report.state == "applied"
        clock.now += 29.9
        await applier._look()
        assert path.read_bytes() == BLUE
        clock.now += 0.2
        applier._arrived.set()
        await applier.undone()

        assert (path.read_bytes(), applier.running.digest, applier.condition) == (RED, digest_of(RED), "applied")
        assert (tmp_path / "ran").read_bytes() == RED + b":color dim\n" + BLUE + b":color\n" + RED + b"1:color\n"
        assert applier.report is None
        assert state.progress.staged is None


@pytest.mark.parametrize("answered", [True, False])
async def test_the_next_contact_tells_who_was_guilty(begin: Begin, state: State, clock: Clock, answered: bool) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        await late(applier, clock, BLUE)
        assert applier.report is None
        if answered:
            await applier.reached()
        else:
            clock.now += 30
            applier._arrived.set()
            await until(applier, lambda: applier.report)

        reason = "connectivity-lost" if answered else "server-unreachable"
        assert applier.report is not None
        assert (applier.report.state, applier.report.reason) == ("rolled-back", reason)
        assert applier.report.digest == digest_of(BLUE)
        assert state.progress.report == applier.report
        await applier.receipted(receipt_of(applier.report))
        assert applier.report is None


async def test_a_document_with_which_the_daemon_was_reached_is_not_blamed(begin: Begin, clock: Clock) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        await verdict(applier, config(BLUE, 2, confirm_s=30))
        await applier.reached()
        clock.now += 30
        applier._arrived.set()
        await applier.undone()

        assert applier.report is not None
        assert (applier.report.state, applier.report.reason) == ("rolled-back", "server-unreachable")


@pytest.mark.parametrize(
    ("up_s", "reason"),
    [(0, "connectivity-lost"), (31, "connectivity-lost"), (28, "server-unreachable"), (29, "connectivity-lost")],
)
async def test_a_daemon_that_was_away_during_the_trial_convicts_nobody(
    begin: Begin, clock: Clock, up_s: int, reason: str
) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        await late(applier, clock, BLUE)
        await applier.reached(up_s)

        assert applier.report is not None
        assert (applier.report.state, applier.report.reason) == ("rolled-back", reason)


async def test_an_agent_that_was_stopped_when_the_time_ended_first_hears_what_came_meanwhile(
    begin: Begin, state: State, clock: Clock, path: Path
) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        report = await verdict(applier, config(BLUE, 2, confirm_s=30))
        clock.now += 60
        await applier._look()
        assert path.read_bytes() == BLUE
        await applier.receipted(receipt_of(report))
        assert state.progress.current == Version("e", 2, digest_of(BLUE))

        await verdict(applier, config(GREEN, 3, confirm_s=30))
        clock.now += 60
        await applier._look()
        clock.now += 60  # a second time it is not believed
        await applier._look()
        assert path.read_bytes() == BLUE


async def test_what_was_undone_is_not_tried_again_before_the_daemon_knows(
    begin: Begin, path: Path, clock: Clock
) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        await late(applier, clock, BLUE)
        await applier.reached()
        owed = applier.report
        assert applier.offer(config(BLUE, 2)) is None
        assert (applier.busy, applier.report, path.read_bytes()) == (False, owed, RED)

        await confirm(applier, GREEN, 3)
        assert path.read_bytes() == GREEN
        await confirm(applier, BLUE, 4)
        assert path.read_bytes() == BLUE


async def test_a_hooks_document_is_reported_only_after_a_new_connection_was_possible(begin: Begin) -> None:
    async with running(begin(on_change="true")) as applier:
        applier.offer(config(RED))
        await until(applier, lambda: applier.unproven)
        assert (applier.report, applier.busy) == (None, True)
        await applier.reached()

        assert (applier.report, applier.busy) == (Report("e", 1, digest_of(RED), "applied"), False)


async def test_the_first_document_undone_leaves_what_stood_there_before(
    begin: Begin, state: State, path: Path, clock: Clock
) -> None:
    path.write_bytes(b"by hand\n")
    async with running(begin()) as applier:
        await late(applier, clock, RED)

    assert path.read_bytes() == b"by hand\n"
    assert (applier.condition, state.progress.running, state.progress.staged) == ("none", None, None)


async def test_a_second_document_on_trial_falls_back_to_the_one_that_was_confirmed(
    begin: Begin, path: Path, clock: Clock
) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        await verdict(applier, config(BLUE, 2))
        await late(applier, clock, GREEN)

    assert path.read_bytes() == RED


async def test_one_that_fails_its_hook_leaves_the_trial_before_it_running(
    begin: Begin, path: Path, state: State
) -> None:
    async with running(begin(on_change="! grep -q green $HENGE_DOCUMENT")) as applier:
        await confirm(applier, RED)
        await verdict(applier, config(BLUE, 2))
        refused = await verdict(applier, config(GREEN, 3))
        assert (refused.state, path.read_bytes()) == ("rolled-back", BLUE)
        await applier.receipted(receipt_of(refused))
        assert applier.report == Report("e", 2, digest_of(BLUE), "applied")
        await applier.receipted(receipt_of(applier.report))

    assert state.progress.current == Version("e", 2, digest_of(BLUE))


async def test_a_trial_goes_on_when_the_agent_is_restarted_and_its_time_with_it(
    begin: Begin, path: Path, clock: Clock
) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        await verdict(applier, config(BLUE, 2, confirm_s=30))
    clock.now += 20
    async with running(begin()) as applier:
        assert applier.report == Report("e", 2, digest_of(BLUE), "applied")
        assert path.read_bytes() == BLUE
        clock.now += 10
        applier._arrived.set()
        await applier.undone()

    assert path.read_bytes() == RED


async def test_a_restart_of_the_machine_before_the_receipt_undoes_the_trial(
    begin: Begin, path: Path, clock: Clock
) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        await verdict(applier, config(BLUE, 2))
    clock.now = 3.0
    async with running(begin("boot-2")) as applier:
        assert (path.read_bytes(), applier.report) == (RED, None)
        clock.now += VERDICT_S - 1
        await applier.reached()

        assert applier.report is not None
        assert (applier.report.reason, applier.report.digest) == ("connectivity-lost", digest_of(BLUE))
        assert "restarted" in applier.report.errors[0].message


async def test_a_receipt_that_cannot_be_kept_counts_in_memory(
    begin: Begin, state: State, clock: Clock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(begin()) as applier:
        await confirm(applier, RED)
        report = await verdict(applier, config(BLUE, 2))

        def full(_: object) -> None:
            raise StorageFull("storage_full", "full")

        monkeypatch.setattr(state, "keep_progress", full)
        await applier.receipted(receipt_of(report))
        clock.now += 1000

        assert (applier.report, applier.running.digest) == (None, digest_of(BLUE))
        assert applier._ledger.left_s is None


# ---- cuts


@pytest.mark.parametrize("reboots", [False, True])
@pytest.mark.parametrize("ending", ["confirmed", "undone"])
async def test_after_a_cut_at_any_operation_the_device_runs_one_whole_document_and_ends_in_sync_or_quarantined(
    tmp_path: Path, ending: str, reboots: bool
) -> None:
    """For every n: the power goes after the n-th file operation between the offer and the end of its trial."""
    ends = set()
    for n in range(300):
        folder, path, clock = tmp_path / f"{n}", tmp_path / f"{n}.json", Clock()
        finished = await cut_after(n, folder, path, clock, ending)
        assert path.read_bytes() in (RED, BLUE)

        with closing(State(folder)) as state:
            boot = "boot-2" if reboots else "boot-1"
            outputs = (Output(path, "json"),)
            async with running(Applier(state, outputs, Hooks(), environ=ENVIRON, clock=clock, boot=boot)) as applier:
                assert path.read_bytes() in (RED, BLUE)
                assert digest_of(path.read_bytes()) == applier.running.digest
                await applier.reached()
                applier.offer(config(BLUE, 2))
                await until(applier, lambda at=applier: at.report or not at.busy)
                report = await idle(applier) if applier.busy else applier.report
                if report is not None:
                    await applier.receipted(receipt_of(report))
                quarantined = report is not None and report.state == "rolled-back"
                assert path.read_bytes() == (RED if quarantined else BLUE)
                assert (state.progress.trial, state.progress.staged, state.progress.report) == (None, None, None)
                assert state.progress.digests <= {digest_of(RED), digest_of(BLUE)}
                ends.add("quarantined" if quarantined else "in sync")
        if finished:
            break

    assert finished
    assert n > 40
    assert "in sync" in ends
    assert ("quarantined" in ends) == (reboots or ending == "undone")


async def cut_after(n: int, folder: Path, path: Path, clock: Clock, ending: str) -> bool:
    """Confirm red, offer blue and end its trial, until the n-th operation; True when all of it happened."""
    with closing(State(folder)) as state:
        outputs = (Output(path, "json"),)
        async with running(Applier(state, outputs, Hooks(), environ=ENVIRON, clock=clock, boot="boot-1")) as applier:
            await confirm(applier, RED)
        state._files = files = CuttingFiles(n)
        cut = Applier(state, outputs, Hooks(), environ=ENVIRON, files=files, clock=clock, boot="boot-1")

        async def all_of_it() -> None:
            cut.offer(config(BLUE, 2, confirm_s=30))
            await until(cut, lambda: cut.report and not cut.busy)
            report = cut.report
            assert report is not None
            if ending == "confirmed":
                await cut.receipted(receipt_of(report))
                return
            clock.now += 30
            cut._arrived.set()
            await cut.undone()

        tasks = [asyncio.create_task(cut.run()), asyncio.create_task(all_of_it())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finished = tasks[1].done() and tasks[1].exception() is None and not tasks[0].done()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, Cut):
                await task
    return finished


async def test_a_receipt_that_is_being_kept_when_the_time_ends_confirms_the_document(
    begin: Begin, state: State, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping, disk, keep = threading.Event(), threading.Event(), state.keep_progress

    def slowly(progress: Progress) -> None:
        keeping.set()
        disk.wait(20)
        keep(progress)

    async with running(begin()) as applier:
        report = await verdict(applier, config(RED, confirm_s=30))
        monkeypatch.setattr(state, "keep_progress", slowly)
        receipted = asyncio.create_task(applier.receipted(receipt_of(report)))
        await asyncio.to_thread(keeping.wait, 20)
        clock.now += 30
        undoing = asyncio.create_task(applier._look())
        await asyncio.sleep(0)
        disk.set()
        await asyncio.gather(receipted, undoing)
        await confirm(applier, BLUE, 2)

    assert state.progress.current == Version("e", 2, digest_of(BLUE))
    assert state.progress.previous == Version("e", 1, digest_of(RED))
    assert path.read_bytes() == BLUE


async def test_the_first_document_undone_leaves_the_mode_and_owner_that_were_there_before(
    begin: Begin, path: Path, clock: Clock
) -> None:
    owner = (12, 34) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    path.write_bytes(b"mine")
    path.chmod(0o604)
    os.chown(path, *owner)
    async with running(begin(on_change=f"[ $HENGE_ROLLBACK ] || {{ rm {path}; echo '{{}}' > {path}; }}")) as applier:
        await late(applier, clock, BLUE)

    status = path.stat()
    assert path.read_bytes() == b"mine"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o604, *owner)
