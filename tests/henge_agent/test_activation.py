"""Telling programs of a document: which commands run, in which order, and what they are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from henge_agent.activation import MAX_LISTED_BYTES, Activation, hook_environ
from henge_agent.records import Progress, Version
from henge_agent.scopes import Scope
from henge_agent.settings import Hooks
from henge_agent.state import State
from henge_protocol.model import digest_of

SCHEMA = {
    "type": "object",
    "properties": {"color": {"x-henge-restart": "none"}, "wifi": {"x-henge-restart": "section"}, "power": {}},
}


def kept(state: State, document: bytes, revision: int = 1) -> Version:
    state.keep_document(document)
    return Version("e", revision, digest_of(document))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def said(log: Path) -> str:
    """What commands wrote, which is forgotten."""
    text = log.read_text()
    log.unlink()
    return text


def saying(log: Path, word: str, code: int = 0) -> str:
    return f"echo {word} >> {log}; exit {code}"


@pytest.fixture
def activation(state: State) -> Activation:
    return Activation(state, environ={"PATH": os.environ["PATH"]}, timeout_s=60)


async def test_sections_run_first_and_one_without_a_command_is_the_business_of_all(
    activation: Activation, state: State, log: Path
) -> None:
    hooks = Hooks(on_change=saying(log, "all"), sections={"wifi": saying(log, "$HENGE_SECTION"), "lan": "exit 1"})
    version = kept(state, b"{}")
    for scope, ran in (
        (Scope(sections=("wifi",)), "wifi\n"),
        (Scope(sections=("wifi",), everything=True), "wifi\nall\n"),
        (Scope(sections=("wifi", "radio")), "wifi\nall\n"),
        (Scope(everything=True), "all\n"),
    ):
        last = await activation.change(hooks, version, scope)
        assert (last is not None and last[1].succeeded, said(log)) == (True, ran)

    assert await activation.change(Hooks(), version, Scope(everything=True)) is None


async def test_a_change_stops_at_the_first_command_that_fails_and_going_back_runs_all(
    activation: Activation, state: State, log: Path
) -> None:
    hooks = Hooks(on_change=saying(log, "all"), sections={"wifi": saying(log, "wifi", 3)})
    version = kept(state, b"{}")
    failed = await activation.change(hooks, version, Scope(sections=("wifi",), everything=True))

    assert failed is not None
    assert (failed[0], failed[1].code, said(log)) == ("wifi", 3, "wifi\n")

    await activation.give_back(hooks, version)
    assert said(log) == "wifi\nall\n"


async def test_a_command_is_told_of_the_document_and_of_what_differs(
    activation: Activation, state: State, tmp_path: Path
) -> None:
    before, after = kept(state, b'{"color":"red","wifi":{"ssid":"a"}}'), kept(state, b'{"wifi":{"ssid":"b"}}', 7)
    state.keep_progress(Progress(current=before))
    state.keep_document(b'{"wifi":{"ssid":"b"}}')
    ran = await activation.run(f"env > {tmp_path}/told", after, returning=False)

    told = (tmp_path / "told").read_text()
    assert ran is not None
    assert ran.succeeded
    for line in (
        f"HENGE_DOCUMENT={state.document_file(after.digest)}", f"HENGE_PREVIOUS={state.document_file(before.digest)}",
        f"HENGE_DIGEST={after.digest}", "HENGE_REVISION=7", "HENGE_CHANGED=color wifi", "HENGE_ROLLBACK=",
        "HENGE_CHANGED_FIELDS=/color\n/wifi/ssid", "HENGE_SECTION=",
    ):  # fmt: skip
        assert f"{line}\n" in told


async def test_more_changed_fields_than_a_variable_holds_are_all_fields(
    activation: Activation, state: State, tmp_path: Path
) -> None:
    many = kept(state, b"{%s}" % b",".join(b'"%0100d":1' % number for number in range(MAX_LISTED_BYTES // 100 + 1)))
    await activation.run(f'echo "$HENGE_CHANGED $HENGE_CHANGED_FIELDS" > {tmp_path}/told', many, returning=False)

    assert (tmp_path / "told").read_text() == "* *\n"


async def test_the_schema_says_what_starts_again_and_the_first_document_starts_everything(
    activation: Activation, state: State
) -> None:
    before, after = kept(state, b'{"color":"red","wifi":1}'), kept(state, b'{"color":"blue","wifi":2}', 2)
    assert activation.scope(after, SCHEMA) == Scope(sections=("wifi",), everything=True)

    state.keep_progress(Progress(current=before))
    state.keep_document(b'{"color":"blue","wifi":2}')
    assert activation.scope(after, SCHEMA) == Scope(sections=("wifi",))


async def test_the_shorter_limit_counts_and_no_command_is_no_outcome(activation: Activation, state: State) -> None:
    version = kept(state, b"{}")
    ran = await activation.run("sleep 600", version, returning=False, most_s=0.1)

    assert ran is not None
    assert ran.timed_out
    assert await activation.run("", version, returning=False) is None


def test_commands_do_not_get_what_is_between_the_agent_and_its_manager() -> None:
    told = {"PATH": "/bin", "LANG": "C", "NOTIFY_SOCKET": "x", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1", "HENGE_X": "1"}

    assert hook_environ(told) == {"PATH": "/bin", "LANG": "C"}
