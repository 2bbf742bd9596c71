# ruff: noqa: ASYNC240 - a test looks at small files
from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hengd.rules.states import TRANSIENT_REASONS
from henge_agent.activation import Activation, hook_environ
from henge_agent.applier import Applier
from henge_agent.candidate import MAX_DOCUMENT_BYTES
from henge_agent.records import Version
from henge_agent.settings import Hooks, OnDrift, Output
from henge_agent.state import State, read_progress
from henge_protocol.keyfiles import DISK, Files
from henge_protocol.model import digest_of
from henge_protocol.strictjson import canonical
from henge_protocol.wire import Config, Error, Receipt, Report
from tests.henge_agent.cutting import Cut, CuttingFiles, FullDisk, Unplaceable

RED, BLUE, GREEN = b'{"color":"red","dim":1}', b'{"color":"blue","dim":1}', b'{"color":"green","dim":1}'
ENVIRON = {"PATH": os.environ["PATH"]}
Make = Callable[..., Applier]


def config(document: bytes, revision: int = 1, **fields: Any) -> Config:
    return Config(**{"epoch": "e", "revision": revision, "digest": digest_of(document), "document": document} | fields)


def make(state: State, path: Path, *, files: Files = DISK, boot: str = "", **hooks: Any) -> Applier:
    return Applier(state, (Output(path, "json"),), Hooks(**hooks), environ=ENVIRON, files=files, boot=boot)


@asynccontextmanager
async def running(applier: Applier) -> AsyncIterator[Applier]:
    await applier.put_back()
    task = asyncio.create_task(applier.run())
    try:
        yield applier
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def verdict(applier: Applier, offered: Config) -> Report:
    """Offer a document and wait for what becomes of it."""
    assert applier.offer(offered) is None
    return await idle(applier)


async def idle(applier: Applier) -> Report:
    seen = -1
    async with asyncio.timeout(20):
        while True:
            seen = await applier.news(seen)
            if applier.unproven:
                await applier.reached()
            elif not applier.busy:
                break
    assert applier.report is not None
    return applier.report


def receipt_of(report: Report) -> Receipt:
    return Receipt(report.revision, report.digest, report.state)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lamp.json"


async def test_a_document_becomes_the_file_and_the_report(state: State, path: Path) -> None:
    async with running(make(state, path)) as applier:
        report = await verdict(applier, config(RED, 7))

    assert report == Report("e", 7, digest_of(RED), "applied")
    assert path.read_bytes() == RED
    assert applier.running == Version("e", 7, digest_of(RED))


@pytest.mark.parametrize(
    ("offered", "reason", "said"),
    [
        (config(RED, digest=digest_of(BLUE)), "digest-mismatch", ""),
        (config(b'{"a":}'), "not-json", "column 6"),
        (config(b""), "not-json", "empty"),
        (config(b"\xff"), "not-json", "UTF-8"),
        (config(b'{"a":1,"a":2}'), "not-json", "twice"),
        (config(b"[" * 5000), "not-json", "deeper"),
        (config(b'{"a":"' + b"x" * MAX_DOCUMENT_BYTES + b'"}'), "too-large", "at most"),
    ],
)
async def test_what_cannot_be_applied_is_rejected_before_anything_changes(
    state: State, path: Path, offered: Config, reason: str, said: str
) -> None:
    async with running(make(state, path, on_change="false")) as applier:
        report = await verdict(applier, offered)

    assert (report.state, report.reason, report.digest) == ("rejected", reason, offered.digest)
    assert said in "".join(error.message for error in report.errors)
    assert not path.exists()
    assert applier.running.digest == ""


async def test_a_value_that_an_output_cannot_hold_is_rejected_with_its_pointer(state: State, tmp_path: Path) -> None:
    outputs = (Output(tmp_path / "a.json", "json"), Output(tmp_path / "b.ini", "ini"))
    async with running(Applier(state, outputs, Hooks(), environ=ENVIRON)) as applier:
        report = await verdict(applier, config(b'{"text":"a\\nb"}'))

    assert (report.state, report.reason) == ("rejected", "invalid")
    assert [(error.pointer, "b.ini" in error.message) for error in report.errors] == [("/text", True)]
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("broken", ["a.json", "b.json", "c.json"])
async def test_an_output_that_cannot_be_written_leaves_all_as_they_were(
    state: State, tmp_path: Path, broken: str
) -> None:
    outputs = tuple(Output(tmp_path / name, "json") for name in ("a.json", "b.json", "c.json"))
    hooks = Hooks(f"grep -q red $HENGE_DOCUMENT && echo red >> {tmp_path}/ran")
    async with running(Applier(state, outputs, hooks, environ=ENVIRON)) as applier:
        await verdict(applier, config(RED))
        (tmp_path / broken).unlink()
        (tmp_path / broken).mkdir()
        report = await verdict(applier, config(BLUE, 2))

    assert (report.state, report.reason) == ("rejected", "write-failed")
    assert broken in report.errors[0].message
    assert [output.path.read_bytes() for output in outputs if output.path.name != broken] == [RED, RED]
    assert (tmp_path / "ran").read_text() == "red\n"
    assert applier.running.digest == digest_of(RED)


@pytest.mark.parametrize(
    ("broken", "verdict_is", "ran"),
    [("a.json", "rejected", "red\n"), ("b.json", "rolled-back", "red\nred\n"), ("c.json", "rolled-back", "red\nred\n")],
)
async def test_an_output_that_cannot_take_its_place_takes_those_before_it_back(
    state: State, tmp_path: Path, broken: str, verdict_is: str, ran: str
) -> None:
    outputs = tuple(Output(tmp_path / name, "json") for name in ("a.json", "b.json", "c.json"))
    hooks = Hooks(f"grep -q red $HENGE_DOCUMENT && echo red >> {tmp_path}/ran")
    files = Unplaceable("nothing")
    async with running(Applier(state, outputs, hooks, environ=ENVIRON, files=files)) as applier:
        await verdict(applier, config(RED))
        files.only = broken
        report = await verdict(applier, config(BLUE, 2))

    assert (report.state, report.reason) == (verdict_is, "write-failed")
    assert broken in report.errors[0].message
    assert [output.path.read_bytes() for output in outputs] == [RED, RED, RED]
    assert (tmp_path / "ran").read_text() == ran
    assert applier.running.digest == digest_of(RED)


async def test_an_output_that_cannot_be_put_back_does_not_keep_the_others_from_it(state: State, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    outputs = (Output(first, "json"), Output(second, "json"))
    spoil = f"grep -q red $HENGE_DOCUMENT || {{ rm {first}; mkdir {first}; exit 1; }}"
    async with running(Applier(state, outputs, Hooks(spoil), environ=ENVIRON)) as applier:
        await verdict(applier, config(RED))
        report = await verdict(applier, config(BLUE, 2))

    assert (report.state, second.read_bytes()) == ("rolled-back", RED)


async def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path: Path, path: Path) -> None:
    files = FullDisk()
    files.full = False
    with closing(State(tmp_path / "state", files=files)) as state:
        async with running(make(state, path, files=files)) as applier:
            await verdict(applier, config(RED))
            files.full = True
            report = await verdict(applier, config(BLUE, 2))
            files.full = False
            again = await verdict(applier, config(BLUE, 2))

    assert (report.state, report.reason) == ("rejected", "write-failed")
    assert (again.state, path.read_bytes()) == ("applied", BLUE)


async def test_a_hook_is_told_what_changed(state: State, path: Path, tmp_path: Path) -> None:
    shown = '"$HENGE_DOCUMENT" "${HENGE_PREVIOUS:-/dev/null}"'
    script = f"env | grep ^HENGE_ > {tmp_path}/env; cat {shown} > {tmp_path}/documents"
    async with running(make(state, path, on_change=script)) as applier:
        await verdict(applier, config(RED))
        await verdict(applier, config(b'{"color":"blue","new":0}', 2))

    said = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert said["HENGE_DIGEST"] == digest_of(b'{"color":"blue","new":0}')
    assert (said["HENGE_REVISION"], said["HENGE_CHANGED"], said["HENGE_ROLLBACK"]) == ("2", "color dim new", "")
    assert (tmp_path / "documents").read_bytes() == b'{"color":"blue","new":0}' + RED


async def test_a_hook_of_the_first_document_has_no_previous_one(state: State, path: Path, tmp_path: Path) -> None:
    async with running(
        make(state, path, on_change=f'echo "[$HENGE_PREVIOUS] $HENGE_CHANGED" > {tmp_path}/said')
    ) as one:
        await verdict(one, config(RED))

    assert (tmp_path / "said").read_text() == "[] color dim\n"


@pytest.mark.parametrize(
    ("hooks", "reason", "said"),
    [
        (
            {"on_change": "grep -q red $HENGE_DOCUMENT || { echo no blue >&2; exit 3; }"},
            "hook-failed",
            "exit code 3: no blue",
        ),
        ({"on_change": "grep -q red $HENGE_DOCUMENT || kill -9 $$"}, "hook-failed", "signal 9"),
        (
            {"on_change": "grep -q red $HENGE_DOCUMENT || sleep 600", "timeout_s": 0.3},
            "hook-timeout",
            "longer than 0.3 s",
        ),
        ({"health": "grep -q red $HENGE_DOCUMENT || exit 4"}, "health-failed", "exit code 4"),
        ({"health": "grep -q red $HENGE_DOCUMENT || sleep 600", "timeout_s": 0.3}, "hook-timeout", "longer than"),
    ],
)
async def test_a_failing_command_brings_the_last_good_document_back(
    state: State, path: Path, hooks: dict[str, Any], reason: str, said: str
) -> None:
    async with running(make(state, path, **hooks)) as applier:
        await verdict(applier, config(RED))
        report = await verdict(applier, config(BLUE, 2))

    assert (report.state, report.reason, report.revision) == ("rolled-back", reason, 2)
    assert said in report.errors[0].message
    assert path.read_bytes() == RED
    assert applier.running.digest == digest_of(RED)
    assert state.progress.staged is None


async def test_the_hook_runs_again_when_the_last_good_document_comes_back(
    state: State, path: Path, tmp_path: Path
) -> None:
    script = f'cat {path} >> {tmp_path}/ran; echo " $HENGE_ROLLBACK" >> {tmp_path}/ran'
    async with running(make(state, path, on_change=script, health="grep -q red $HENGE_DOCUMENT")) as applier:
        await verdict(applier, config(RED))
        await verdict(applier, config(BLUE, 2))

    assert (tmp_path / "ran").read_bytes().splitlines() == [RED + b" ", BLUE + b" ", RED + b" 1"]


@pytest.mark.parametrize("before", [None, b"made by hand\n"])
async def test_the_first_document_failing_brings_back_what_was_there(
    state: State, path: Path, before: bytes | None
) -> None:
    if before is not None:
        path.write_bytes(before)
    async with running(make(state, path, on_change="exit 1")) as applier:
        report = await verdict(applier, config(RED))

    assert (report.state, report.reason) == ("rolled-back", "hook-failed")
    assert (path.read_bytes() if path.exists() else None) == before


async def test_a_hook_that_cannot_be_found_is_reported(state: State, path: Path) -> None:
    async with running(make(state, path, on_change="/nowhere/hook.sh")) as applier:
        report = await verdict(applier, config(RED))

    assert (report.state, report.reason) == ("rolled-back", "hook-failed")
    assert "not found" in report.errors[0].message


async def test_a_chatty_hook_sends_only_its_last_words(state: State, path: Path) -> None:
    async with running(make(state, path, on_change="yes ü | head -100000; echo last words; exit 1")) as applier:
        report = await verdict(applier, config(RED))

    assert report.errors[0].message.endswith("last words")
    assert len(report.errors[0].message) <= 300


async def test_slow_commands_are_announced_by_an_applying_report(state: State, path: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with running(make(state, path, on_change=f"cat {fifo}")) as applier:
        applier.offer(config(RED))
        seen = -1
        while applier.report is None:
            seen = await applier.news(seen)
        applying = applier.report
        await asyncio.to_thread(fifo.write_text, "go on")
        report = await idle(applier)

    assert (applying.state, report.state) == ("applying", "applied")


async def test_of_a_burst_only_the_newest_is_applied_after_the_one_at_work(
    state: State, path: Path, tmp_path: Path
) -> None:
    fifo, ran = tmp_path / "fifo", tmp_path / "ran"
    os.mkfifo(fifo)
    async with running(make(state, path, on_change=f"echo $HENGE_REVISION >> {ran}; cat {fifo}")) as applier:
        applier.offer(config(RED, 1))
        await applier.news(await applier.news(-1))
        for revision in range(2, 50):
            applier.offer(config(b'{"n":%d}' % revision, revision))
        seen = -1
        await asyncio.to_thread(fifo.write_text, "go on")
        while applier.report is None or applier.report.revision != 49:  # the first reader of the pipe is gone then
            seen = await applier.news(seen)
        await asyncio.to_thread(fifo.write_text, "go on")
        report = await idle(applier)

    assert (report.revision, path.read_bytes()) == (49, b'{"n":49}')
    assert ran.read_text().split() == ["1", "49"]


async def test_the_same_document_again_runs_no_command(state: State, path: Path, tmp_path: Path) -> None:
    async with running(make(state, path, on_change=f"echo x >> {tmp_path}/ran")) as applier:
        await verdict(applier, config(RED, 1))
        report = await verdict(applier, config(RED, 5))

    assert (report.state, report.revision) == ("applied", 5)
    assert (tmp_path / "ran").read_text() == "x\n"


async def test_a_receipt_ends_the_debt_and_only_its_own(state: State, path: Path) -> None:
    async with running(make(state, path)) as applier:
        report = await verdict(applier, config(RED, 7))
        for wrong in (Receipt(7, digest_of(BLUE)), Receipt(6, digest_of(RED)), Receipt(7, digest_of(RED), "rejected")):
            await applier.receipted(wrong)
            assert applier.report == report
        await applier.receipted(Receipt(7, digest_of(RED), "applied"))

    assert applier.report is None
    assert state.progress.report is None


async def test_a_report_without_receipt_survives_a_restart(tmp_path: Path, path: Path) -> None:
    with closing(State(tmp_path / "state")) as state:
        async with running(make(state, path)) as applier:
            report = await verdict(applier, config(RED, 7))

    with closing(State(tmp_path / "state")) as state:
        assert make(state, path).report == report


async def test_a_check_that_comes_by_long_poll_is_refused(state: State, path: Path) -> None:
    applier = make(state, path)

    answer = applier.offer(config(RED, intent="check"))

    assert isinstance(answer, Error)
    assert not applier.busy


async def test_a_candidate_is_looked_at_and_nothing_changes(state: State, path: Path, tmp_path: Path) -> None:
    look = f"cat $HENGE_DOCUMENT >> {tmp_path}/looked; ! grep -q blue $HENGE_DOCUMENT || {{ echo no blue; exit 3; }}"
    async with running(make(state, path, check=look, on_change=f"touch {tmp_path}/ran")) as applier:
        fits = await applier.check(config(RED, 0, intent="check"))
        refused = await applier.check(config(BLUE, 0, intent="check"))
        broken = await applier.check(config(b"{", 0, intent="check"))

    assert fits == Report("e", 0, digest_of(RED), "checked")
    assert (refused.state, refused.reason, refused.errors[0].message) == ("checked", "invalid", "exit code 3: no blue")
    assert (broken.state, broken.reason) == ("checked", "not-json")
    assert (tmp_path / "looked").read_bytes() == RED + BLUE
    assert not path.exists()
    assert not (tmp_path / "ran").exists()
    assert list((state.folder / "documents").iterdir()) == []


async def test_a_candidate_is_held_against_its_schema(state: State, path: Path, tmp_path: Path) -> None:
    async with running(knowing(make(state, path, check=f"touch {tmp_path}/asked"))) as applier:
        refused = await applier.check(named({"color": "pink"}, 0))

    assert (refused.state, refused.reason) == ("checked", "invalid")
    assert [error.pointer for error in refused.errors] == ["/color"]
    assert not (tmp_path / "asked").exists()


async def test_the_check_command_has_the_last_word_before_a_document_is_applied(
    state: State, path: Path, tmp_path: Path
) -> None:
    hooks = {"check": "! grep -q blue $HENGE_DOCUMENT", "on_change": f"echo x >> {tmp_path}/ran"}
    async with running(make(state, path, **hooks)) as applier:
        await applier.receipted(receipt_of(await verdict(applier, config(RED))))
        report = await verdict(applier, config(BLUE, 2))

    assert (report.state, report.reason, path.read_bytes()) == ("rejected", "invalid", RED)
    assert (tmp_path / "ran").read_text() == "x\n"


async def test_a_candidates_check_command_ends_before_the_daemon_stops_waiting(state: State, path: Path) -> None:
    async with running(make(state, path, check="sleep 600")) as applier:
        report = await applier.check(config(RED, 0, intent="check", confirm_s=2))

    assert (report.state, report.reason) == ("checked", "hook-timeout")
    assert "1 s" in report.errors[0].message


async def test_a_candidate_that_comes_while_another_document_is_applied_is_not_looked_at(
    state: State, path: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with running(make(state, path, on_change=f"cat {fifo}")) as applier:
        applier.offer(config(RED))
        while applier.report is None:
            await applier.news(await applier.news(-1))
        busy = await applier.check(config(BLUE, 0, intent="check"))
        await asyncio.to_thread(fifo.write_text, "go on")
        await idle(applier)

    assert (busy.state, busy.reason) == ("checked", "busy")


async def test_outputs_come_back_at_start_without_a_daemon_and_equal_ones_are_not_touched(
    state: State, tmp_path: Path
) -> None:
    kept, lost = Output(tmp_path / "a.json", "json"), Output(tmp_path / "b.toml", "toml")
    async with running(Applier(state, (kept,), Hooks(), environ=ENVIRON)) as applier:
        await verdict(applier, config(RED))
    before = kept.path.stat()

    await Applier(state, (kept, lost), Hooks(on_change="false"), environ=ENVIRON).put_back()

    assert lost.path.read_text() == 'color = "red"\ndim = 1\n'
    assert kept.path.stat().st_ino == before.st_ino


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def without_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("away"))


@pytest.mark.parametrize(
    ("spoil", "mend", "said"),
    [
        (as_folder, Path.rmdir, "not a regular file"),
        (as_link, Path.unlink, "symbolic link"),
        (without_folder, lambda path: path.parent.mkdir(), "No such file"),
    ],
)
async def test_an_output_that_cannot_be_written_at_start_is_drift_until_it_can(
    state: State, tmp_path: Path, spoil: Callable[[Path], None], mend: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "etc" / "lamp.json"
    path.parent.mkdir()
    async with running(make(state, path)) as applier:
        await applier.receipted(receipt_of(await verdict(applier, config(RED, 7))))
    spoil(path)

    applier = make(state, path)
    assert await applier.put_back() is False
    assert (applier.condition, applier.running) == ("drifted", Version("e", 7, digest_of(RED)))
    assert applier.report is not None
    assert (applier.report.state, applier.report.reason) == ("drifted", "write-failed")
    assert said in applier.report.errors[0].message

    mend(path)
    assert await applier.put_back() is True
    assert (applier.condition, path.read_bytes()) == ("applied", RED)
    assert applier.report == Report("e", 7, digest_of(RED), "applied")
    await applier.receipted(receipt_of(applier.report))
    assert applier.report is None


async def test_a_full_disk_at_start_is_drift_until_there_is_room(state: State, path: Path) -> None:
    async with running(make(state, path)) as applier:
        await verdict(applier, config(RED))
    path.unlink()
    files = FullDisk()

    applier = make(state, path, files=files)
    assert await applier.put_back() is False
    assert applier.condition == "drifted"
    files.full = False
    assert await applier.put_back() is True
    assert (applier.condition, path.read_bytes()) == ("applied", RED)


async def test_an_old_report_that_it_was_applied_is_not_said_while_it_is_not(state: State, path: Path) -> None:
    async with running(make(state, path)) as applier:
        owed = await verdict(applier, config(RED, 7))
    as_folder(path)

    applier = make(state, path)
    await applier.put_back()
    assert owed.state == "applied"
    assert applier.report is not None
    assert applier.report.state == "drifted"

    path.rmdir()
    await applier.put_back()
    await applier.receipted(receipt_of(owed))
    assert (applier.report, state.progress.report) == (None, None)


@pytest.mark.parametrize("content", [None, b"edited by hand"])
async def test_what_somebody_did_to_an_output_meanwhile_is_undone_and_programs_are_told(
    state: State, path: Path, tmp_path: Path, content: bytes | None
) -> None:
    async with running(make(state, path)) as applier:
        await verdict(applier, config(RED))
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    applier = make(state, path, on_change=f"cat {path} >> {tmp_path}/hooked; echo $HENGE_ROLLBACK >> {tmp_path}/hooked")
    for _ in range(2):
        await applier.put_back()

    assert (applier.condition, path.read_bytes()) == ("applied", RED)
    assert (tmp_path / "hooked").read_bytes() == RED + b"1\n"


async def test_programs_are_told_of_a_return_that_took_several_attempts(state: State, tmp_path: Path) -> None:
    outputs = (Output(tmp_path / "a.json", "json"), Output(tmp_path / "b.json", "json"))
    async with running(Applier(state, outputs, Hooks(), environ=ENVIRON)) as applier:
        await verdict(applier, config(RED))
    outputs[0].path.unlink()
    as_folder(outputs[1].path)

    applier = Applier(state, outputs, Hooks(on_change=f"echo x >> {tmp_path}/hooked"), environ=ENVIRON)
    assert await applier.put_back() is False
    assert not (tmp_path / "hooked").exists()
    outputs[1].path.rmdir()
    outputs[1].path.write_bytes(RED)
    assert await applier.put_back() is True
    assert (tmp_path / "hooked").read_text() == "x\n"


async def test_an_application_that_cannot_be_undone_is_drift_and_both_are_said(state: State, path: Path) -> None:
    spoil = f"grep -q red $HENGE_DOCUMENT || {{ rm {path}; mkdir {path}; exit 3; }}"
    async with running(make(state, path, on_change=spoil)) as applier:
        await applier.receipted(receipt_of(await verdict(applier, config(RED))))
        refused = await verdict(applier, config(BLUE, 2))
        assert (refused.state, refused.digest) == ("rolled-back", digest_of(BLUE))
        await applier.receipted(receipt_of(refused))
        standing = applier.report
        assert standing is not None
        assert (standing.state, standing.digest) == ("drifted", digest_of(RED))

        path.rmdir()
        assert await applier.put_back() is True

    assert (applier.condition, path.read_bytes()) == ("applied", RED)
    assert state.progress.staged is None


async def test_what_stood_there_before_the_first_document_is_put_back_later_if_not_at_once(
    state: State, path: Path
) -> None:
    path.write_bytes(b"made by hand\n")
    async with running(make(state, path, on_change=f"rm {path}; mkdir {path}; exit 3")) as applier:
        await verdict(applier, config(RED))
        assert (applier.condition, applier.adrift) == ("none", True)

    applier = make(state, path)
    assert await applier.put_back() is False
    path.rmdir()
    assert await applier.put_back() is True
    assert path.read_bytes() == b"made by hand\n"
    assert (applier.condition, applier.adrift, applier.report is not None) == ("none", False, True)


async def test_a_document_that_is_applied_ends_the_drift_of_the_one_before(state: State, path: Path) -> None:
    async with running(make(state, path)) as applier:
        await verdict(applier, config(RED))
    as_folder(path)
    async with running(make(state, path)) as applier:
        refused = await verdict(applier, config(BLUE, 2))
        assert (refused.state, refused.reason, applier.condition) == ("rejected", "write-failed", "drifted")
        path.rmdir()
        report = await verdict(applier, config(BLUE, 2))

    assert (report.state, applier.condition, path.read_bytes()) == ("applied", "applied", BLUE)


@pytest.mark.parametrize("on_drift", ["put-back", "leave"])
async def test_a_mode_that_somebody_changed_is_drift(state: State, path: Path, on_drift: OnDrift) -> None:
    outputs = (Output(path, "json", mode=0o600),)
    async with running(Applier(state, outputs, Hooks(on_drift=on_drift), environ=ENVIRON)) as applier:
        await applier.receipted(receipt_of(await verdict(applier, config(RED))))
        path.chmod(0o644)
        due = await applier.notice_changes()
        noticed = applier.report
        back = await applier.put_back()

    assert noticed is not None
    assert (noticed.state, noticed.reason, due) == ("drifted", "changed", on_drift == "put-back")
    assert (back, path.stat().st_mode & 0o777) == ((True, 0o600) if on_drift == "put-back" else (False, 0o644))


@pytest.mark.parametrize("on_drift", ["put-back", "leave"])
async def test_a_shared_file_that_somebody_spoiled_is_drift_until_it_can_be_read_again(
    state: State, tmp_path: Path, on_drift: OnDrift
) -> None:
    path = tmp_path / "lamp.toml"
    outputs = (Output(path, "toml", unmanaged=(("own",),)),)
    async with running(Applier(state, outputs, Hooks(on_drift=on_drift), environ=ENVIRON)) as applier:
        await applier.receipted(receipt_of(await verdict(applier, config(RED))))
        path.write_text("own = = 1\n")
        due = await applier.notice_changes()
        noticed, tried = applier.report, applier.unwritten
        back = await applier.put_back()
        left = path.read_text()
        path.write_text("own = 1\n")
        mended = await applier.put_back()

    assert noticed is not None
    assert (noticed.state, noticed.reason, due, tried) == ("drifted", "write-failed", False, True)
    assert (back, left, mended) == (False, "own = = 1\n", True)
    assert path.read_text() == 'color = "red"\ndim = 1\nown = 1\n'


async def test_a_new_output_that_cannot_hold_the_last_good_document_is_drift(state: State, tmp_path: Path) -> None:
    first, second = Output(tmp_path / "a.json", "json"), Output(tmp_path / "b.ini", "ini")
    async with running(Applier(state, (first,), Hooks(), environ=ENVIRON)) as applier:
        await verdict(applier, config(b'{"text":"a\\nb"}'))

    applier = Applier(state, (first, second), Hooks(), environ=ENVIRON)
    await applier.put_back()

    assert applier.report is not None
    assert (applier.report.state, applier.report.reason) == ("drifted", "invalid")
    assert applier.report.errors[0].pointer == "/text"


async def test_an_application_under_way_is_not_disturbed(state: State, path: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with running(make(state, path)) as applier:
        await verdict(applier, config(RED))
    async with running(make(state, path, on_change=f"cat {fifo}")) as applier:
        applier.offer(config(BLUE, 2))
        while applier.report is None or applier.report.state != "applying":
            await applier.news(await applier.news(-1))
        assert await applier.put_back() is True
        assert path.read_bytes() == BLUE
        await asyncio.to_thread(fifo.write_text, "go on")
        report = await idle(applier)

    assert (report.state, report.digest) == ("applied", digest_of(BLUE))


async def test_after_a_cut_at_any_operation_the_agent_comes_back_with_one_whole_document(tmp_path: Path) -> None:
    """Whatever is cut: at the next start file and state agree, and a repeated delivery ends well."""
    ends = set()
    for n in range(200):
        folder, path = tmp_path / f"{n}", tmp_path / f"{n}.json"
        finished = await applied_until(n, folder, path)
        assert path.read_bytes() in (RED, BLUE)

        with closing(State(folder)) as state:
            async with running(make(state, path)) as applier:
                assert digest_of(path.read_bytes()) == applier.running.digest
                ends.add(path.read_bytes())
                report = await verdict(applier, config(BLUE, 2))
        assert (report.state, path.read_bytes()) == ("applied", BLUE)
        if finished:
            break

    assert finished
    assert n > 20
    assert ends == {RED, BLUE}


async def applied_until(n: int, folder: Path, path: Path) -> bool:
    """Apply red wholly and blue until the n-th operation; True when blue was finished."""
    with closing(State(folder)) as state:
        async with running(make(state, path)) as applier:
            await verdict(applier, config(RED))
        state._files = files = CuttingFiles(n)
        cut = make(state, path, files=files)
        task = asyncio.create_task(cut.run())
        cut.offer(config(BLUE, 2))
        waiting = asyncio.create_task(idle(cut))
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        died = task.done()
        for each in (task, waiting):
            each.cancel()
            with suppress(asyncio.CancelledError, Cut):
                await each
    return not died


def several(folder: Path) -> tuple[Output, ...]:
    return (
        Output(folder / "lamp.json", "json"),
        Output(folder / "lamp.yaml", "yaml", mode=0o600),
        Output(folder / "own.toml", "toml", unmanaged=(("local",),)),
        Output(folder / "lamp.env", "env"),
        Output(folder / "lamp.conf", "json", template=folder / "lamp.tmpl"),
    )


async def test_cut_anywhere_several_files_hold_one_document_again_after_the_start(tmp_path: Path) -> None:
    """Not one of them another's: the files together say red, or all say blue."""
    (tmp_path / "lamp.tmpl").write_text("${color}\n")
    (tmp_path / "own.toml").write_text("local = 7\n")
    outputs, n, cut, said = several(tmp_path), 0, True, set()
    with closing(State(tmp_path / "state")) as state:
        while cut:
            state._files = DISK
            async with running(Applier(state, outputs, Hooks(), environ=ENVIRON)) as applier:
                await verdict(applier, config(RED))
            state._files = files = CuttingFiles(n)
            applier = Applier(state, outputs, Hooks(), environ=ENVIRON, files=files)
            task = asyncio.create_task(applier.run())
            applier.offer(config(BLUE, 2))
            waiting = asyncio.create_task(idle(applier))
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            cut, n = task.done(), n + 1
            for each in (task, waiting):
                each.cancel()
                with suppress(asyncio.CancelledError, Cut):
                    await each
            state.close()
            state = State(tmp_path / "state")  # noqa: PLW2901 - the machine starts again
            await Applier(state, outputs, Hooks(), environ=ENVIRON).put_back()
            said.add(tuple(output.path.read_text() for output in outputs))
            assert not list(tmp_path.glob(".*.new"))
        state.close()

    colors = {tuple("red" if "red" in text else "blue" for text in texts) for texts in said}
    assert n > 25
    assert colors == {("red",) * 5, ("blue",) * 5}
    assert all("local = 7" in texts[2] for texts in said)


async def test_a_cut_in_mid_application_runs_the_hook_for_the_document_that_comes_back(
    state: State, path: Path, tmp_path: Path
) -> None:
    async with running(make(state, path)) as applier:
        await applier.receipted(receipt_of(await verdict(applier, config(RED))))
    state.keep_document(BLUE)
    state.keep_progress(type(state.progress)(state.progress.current, None, Version("e", 2, digest_of(BLUE)), None))
    path.write_bytes(BLUE)

    again = make(state, path, on_change=f"cat $HENGE_DOCUMENT > {tmp_path}/hooked")
    await again.put_back()

    assert path.read_bytes() == (tmp_path / "hooked").read_bytes() == RED
    assert state.progress.staged is None


def test_hooks_do_not_see_what_is_the_agents_own_business() -> None:
    environ = {"PATH": "/bin", "NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "HENGE_TOKEN_FILE": "/t", "HOME": "/"}

    assert hook_environ(environ) == {"PATH": "/bin", "HOME": "/"}


async def test_env_output_follows_the_document(state: State, tmp_path: Path) -> None:
    output = Output(tmp_path / "lamp.env", "env")
    async with running(Applier(state, (output,), Hooks(), environ=ENVIRON)) as applier:
        await verdict(applier, config(json.dumps({"wifi": {"ssid": "my home"}}).encode()))

    assert output.path.read_text() == 'WIFI_SSID="my home"\n'


SCHEMA = {
    "type": "object",
    "properties": {
        "color": {"enum": ["red", "blue", "green"]},
        "dim": {"x-henge-restart": "none"},
        "wifi": {"x-henge-restart": "section"},
        "led": {"x-henge-restart": "section"},
        "kernel": {"x-henge-restart": "reboot"},
    },
}


def knowing(applier: Applier, schema: Any = SCHEMA) -> Applier:
    """The daemon answers with this schema."""

    async def answer() -> bytes:
        return canonical(schema)

    applier.schemas.source = answer
    return applier


def named(document: Any, revision: int, schema: Any = SCHEMA) -> Config:
    return config(canonical(document), revision, schema=digest_of(canonical(schema)))


async def test_a_document_that_does_not_fit_its_schema_is_rejected_with_its_fields(state: State, path: Path) -> None:
    async with running(knowing(make(state, path))) as applier:
        await verdict(applier, named({"color": "red"}, 1))
        report = await verdict(applier, named({"color": "pink"}, 2))

    assert (report.state, report.reason) == ("rejected", "invalid")
    assert [(error.pointer, error.message) for error in report.errors] == [
        ("/color", 'one of ["red", "blue", "green"] is expected')
    ]
    assert path.read_bytes() == b'{"color":"red"}'


async def test_without_its_schema_a_document_is_not_applied_and_the_reason_passes(state: State, path: Path) -> None:
    async with running(make(state, path)) as applier:
        report = await verdict(applier, named({"color": "red"}, 1))
        knowing(applier)
        again = await verdict(applier, named({"color": "red"}, 1))

    assert (report.state, report.reason) == ("rejected", "schema-unavailable")
    assert report.reason in TRANSIENT_REASONS
    assert again.state == "applied"


def scoped(state: State, path: Path, **more: Any) -> Applier:
    """Writes down which commands run, with the fields that changed."""
    said = path.with_name("said")
    note = f'echo "%s $HENGE_SECTION" $HENGE_CHANGED_FIELDS >> {said}'
    hooks = {"on_change": note % "all", "sections": {"wifi": note % "wifi"}, "health": note % "health"}
    return knowing(make(state, path, **hooks | more))


@pytest.mark.parametrize(
    ("change", "ran"),
    [
        ({"dim": 2}, []),
        ({"wifi": {"ssid": "b", "x": 1}}, ["wifi wifi /wifi/ssid /wifi/x"]),
        ({"led": 2}, ["all /led"]),
        ({"wifi": 1, "color": "blue"}, ["wifi wifi /color /wifi", "all /color /wifi"]),
        ({"wifi": 1, "led": 2, "dim": 2}, ["wifi wifi /dim /led /wifi", "all /dim /led /wifi"]),
        ({"kernel": 2}, []),
    ],
)
async def test_only_what_the_schema_asks_for_is_started_again(
    state: State, path: Path, change: dict[str, Any], ran: list[str]
) -> None:
    before = {"color": "red", "dim": 1, "wifi": {"ssid": "a"}, "led": 1, "kernel": 1}
    async with running(scoped(state, path)) as applier:
        await verdict(applier, named(before, 1))
        path.with_name("said").unlink()
        report = await verdict(applier, named(before | change, 2))

    lines = [" ".join(line.split()) for line in path.with_name("said").read_text().splitlines()]
    assert report.state == "applied"
    assert lines[:-1] == ran
    assert lines[-1].startswith("health")


async def test_the_first_document_and_one_that_comes_back_run_every_command(state: State, path: Path) -> None:
    async with running(scoped(state, path, health="grep -q red $HENGE_DOCUMENT")) as applier:
        await verdict(applier, named({"color": "red", "dim": 1}, 1))
        first = path.with_name("said").read_text().split("\n")
        report = await verdict(applier, named({"color": "blue", "dim": 1}, 2))

    later = path.with_name("said").read_text().split("\n")[len(first) - 1 :]
    assert [line.split()[0] for line in first if line] == ["all"]
    assert report.state == "rolled-back"
    assert [line.split()[0] for line in later if line] == ["all", "wifi", "all"]


async def test_a_section_whose_command_fails_is_named(state: State, path: Path) -> None:
    failing = {"wifi": "grep -q home $HENGE_DOCUMENT || { echo no such network; exit 4; }"}
    async with running(scoped(state, path, sections=failing)) as applier:
        await verdict(applier, named({"wifi": "home"}, 1))
        report = await verdict(applier, named({"wifi": "away"}, 2))

    assert (report.state, report.reason) == ("rolled-back", "hook-failed")
    assert [(error.pointer, error.message) for error in report.errors] == [("/wifi", "exit code 4: no such network")]
    assert b"home" in path.read_bytes()


async def test_more_fields_than_a_variable_holds_are_a_star(state: State, path: Path) -> None:
    many = {top: {f"a-rather-long-name-{number}": 1 for number in range(900)} for top in "abcd"}
    tell = f'echo "$HENGE_CHANGED $HENGE_CHANGED_FIELDS" > {path}.said'
    async with running(make(state, path, on_change=tell)) as applier:
        report = await verdict(applier, config(canonical(many)))

    assert report.state == "applied"
    assert path.with_name(f"{path.name}.said").read_text() == "a b c d *\n"


async def test_a_change_that_needs_a_reboot_says_so_until_the_machine_was_started_again(
    state: State, path: Path
) -> None:
    def on(boot: str) -> Applier:
        return knowing(Applier(state, (Output(path, "json"),), Hooks(), environ=ENVIRON, boot=boot))

    async with running(on("boot-1")) as applier:
        plain = await verdict(applier, named({"color": "red"}, 1))
        report = await verdict(applier, named({"color": "red", "kernel": 1}, 2))
        await applier.receipted(receipt_of(report))
        other = await verdict(applier, named({"color": "blue", "kernel": 1}, 3))
        await applier.receipted(receipt_of(other))
    async with running(on("boot-1")) as applier:
        assert applier.report is None
    async with running(on("boot-2")) as applier:
        over = applier.report
        assert over is not None
        await applier.receipted(receipt_of(over))
        assert applier.report is None
    async with running(on("boot-3")) as applier:
        assert applier.report is None

    assert (plain.reason, report.reason, other.reason) == ("", "reboot-required", "reboot-required")
    assert (over.state, over.reason, over.digest, over.revision) == ("applied", "", other.digest, 3)


async def test_the_reboot_command_runs_once_and_only_after_the_daemon_has_confirmed(state: State, path: Path) -> None:
    said = path.with_name("said")
    applier = knowing(make(state, path, reboot=f"echo reboot >> {said}", boot="boot-1"))
    watching = asyncio.create_task(applier.reboot_when_asked())
    async with running(applier):
        report = await verdict(applier, named({"kernel": 1}, 1))
        before = said.exists()
        await applier.receipted(receipt_of(report))
        async with asyncio.timeout(20):
            while not said.exists() or not said.read_text():  # noqa: ASYNC110 - a shell writes it
                await asyncio.sleep(0)
        await applier.receipted(receipt_of(await verdict(applier, named({"kernel": 1, "dim": 1}, 2))))
    watching.cancel()

    assert (report.reason, before) == ("reboot-required", False)
    assert said.read_text() == "reboot\n"


async def test_the_reboot_that_a_document_asked_for_does_not_count_against_it(state: State, path: Path) -> None:
    seen = path.with_name("seen")
    seen.mkdir()
    copy = f"cp -p {state.folder}/progress.json {seen}/part; mv {seen}/part {seen}/progress.json"
    applier = knowing(make(state, path, reboot=copy, boot="boot-1"))
    watching = asyncio.create_task(applier.reboot_when_asked())
    async with running(applier):
        report = await verdict(applier, named({"kernel": 1}, 1))
        await applier.receipted(receipt_of(report))
        async with asyncio.timeout(20):
            while not (seen / "progress.json").exists():  # noqa: ASYNC110 - a shell writes it
                await asyncio.sleep(0)
    watching.cancel()
    state.progress = read_progress(seen)  # as the reboot found it
    async with running(knowing(make(state, path, boot="boot-2"))) as applier:
        after = applier.report

    assert after == replace(report, reason="")
    assert (applier.condition, applier.running.digest) == ("applied", report.digest)


async def test_a_confirmation_that_the_disk_does_not_take_lets_no_reboot_happen(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = FullDisk()
    files.full = False
    with closing(State(tmp_path / "other", files=files)) as state:
        said = path.with_name("said")
        applier = knowing(make(state, path, files=files, reboot=f"touch {said}", boot="boot-1"))
        watching = asyncio.create_task(applier.reboot_when_asked())
        async with running(applier):
            report = await verdict(applier, named({"kernel": 1}, 1))
            files.full = True
            await applier.receipted(receipt_of(report))
            async with asyncio.timeout(20):
                while "reboot waits" not in caplog.text:  # noqa: ASYNC110 - a thread tries to write
                    await asyncio.sleep(0)
            before, files.full = said.exists(), False
            await applier.receipted(receipt_of(report))
            async with asyncio.timeout(20):
                while not said.exists():  # noqa: ASYNC110 - a shell writes it
                    await asyncio.sleep(0)
        watching.cancel()

    assert not before
    assert read_progress(tmp_path / "other").trial is None


async def test_a_machine_is_never_started_again_unasked(state: State, path: Path) -> None:
    applier = knowing(make(state, path, boot="boot-1"))

    await asyncio.wait_for(applier.reboot_when_asked(), 20)


@pytest.mark.parametrize("name", ["x\0", "a\nb", "two words", "a\x85"])
async def test_names_that_a_command_cannot_be_told_apart_are_a_star(state: State, path: Path, name: str) -> None:
    told = f'echo "$HENGE_CHANGED $HENGE_CHANGED_FIELDS" | head -c 9 > {path}.said'
    async with running(make(state, path, on_change=told, health="true", check="true")) as applier:
        report = await verdict(applier, config(canonical({name: 1})))

    assert report.state == "applied"
    assert path.with_suffix(".json.said").read_text().startswith("*")


async def test_a_step_that_fails_as_nobody_expected_takes_the_document_back_and_the_agent_lives(
    state: State, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make(state, path, on_change="true", health="true")) as applier:
        await verdict(applier, config(RED))
        monkeypatch.setattr(Activation, "scope", lambda *_: 1 / 0)
        report = await verdict(applier, config(BLUE, 2))

        assert (report.state, report.reason) == ("rolled-back", "internal-error")
        assert path.read_bytes() == RED
        monkeypatch.undo()
        assert (await verdict(applier, config(GREEN, 3))).state == "applied"


async def test_a_command_that_cannot_be_told_of_the_return_does_not_keep_the_agent_from_starting(
    state: State, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make(state, path, on_change="true")) as applier:
        await verdict(applier, config(RED))
    monkeypatch.setattr("henge_agent.activation.changed_fields", lambda *_: 1 / 0)
    path.unlink()

    assert await make(state, path, on_change="true").put_back()
    assert path.read_bytes() == RED


async def test_a_check_that_fails_as_nobody_expected_is_answered(
    state: State, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Activation, "run", lambda *_, **__: 1 / 0)
    report = await make(state, path, check="true").check(config(RED))

    assert (report.state, report.reason) == ("checked", "internal-error")


async def test_an_output_changed_while_its_document_is_applied_is_noticed_afterwards(
    state: State, path: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    async with running(make(state, path, on_change=f"echo spoiled > {path}; read line < {tmp_path}/go")) as applier:
        applier.offer(config(RED))
        seen = -1
        while applier.report is None or applier.report.state != "applying":
            seen = await applier.news(seen)
        noticing = asyncio.create_task(applier.notice_changes())
        await asyncio.to_thread((tmp_path / "go").write_text, "on\n")

        assert await noticing
        report = await idle(applier)

    assert (report.state, report.reason) == ("drifted", "changed")
