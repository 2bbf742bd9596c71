from __future__ import annotations

from pathlib import Path

from henge_agent.reboots import Reboots
from henge_protocol.wire import Report
from tests.henge_agent.cutting import FullDisk

APPLIED, FAILED = Report(digest="a" * 64), Report(digest="a" * 64, state="rejected", reason="invalid")


def test_a_reboot_is_required_until_the_machine_was_started_again(tmp_path: Path) -> None:
    first = Reboots(tmp_path, "boot-1")
    assert (first.required, first.over) == (False, False)
    first.require("a" * 64)
    same = Reboots(tmp_path, "boot-1")
    later = Reboots(tmp_path, "boot-2")

    assert (first.required, same.required, same.over) == (True, True, False)
    assert (later.required, later.over) == (False, True)


def test_that_it_is_over_is_forgotten_once_it_was_said(tmp_path: Path) -> None:
    Reboots(tmp_path, "boot-1").require("a" * 64)
    later = Reboots(tmp_path, "boot-2")
    later.forget()

    assert not later.over
    assert not Reboots(tmp_path, "boot-2").over


def test_only_what_is_applied_is_said_to_need_it(tmp_path: Path) -> None:
    reboots = Reboots(tmp_path, "boot-1")
    before = reboots.noted(APPLIED)
    reboots.require("a" * 64)

    assert before == APPLIED
    assert reboots.noted(APPLIED) == Report(digest="a" * 64, reason="reboot-required")
    assert reboots.noted(FAILED) == FAILED
    assert reboots.noted(None) is None


def test_on_a_full_disk_it_is_known_as_long_as_the_agent_lives(tmp_path: Path) -> None:
    reboots = Reboots(tmp_path, "boot-1", files=FullDisk())
    reboots.require("a" * 64)

    assert reboots.required
    assert not Reboots(tmp_path, "boot-1").required


def test_a_document_that_is_undone_takes_back_what_it_asked_for_and_no_other(tmp_path: Path) -> None:
    reboots = Reboots(tmp_path, "boot-1")
    reboots.require("a" * 64)
    reboots.require("b" * 64)
    reboots.take_back("b" * 64)
    still = Reboots(tmp_path, "boot-1").required
    reboots.take_back("a" * 64)

    assert (still, reboots.required, Reboots(tmp_path, "boot-1").required) == (True, False, False)
