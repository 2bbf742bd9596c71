"""Log lines: one event a line in each form, written apart from the loop, never forged by what a stranger says."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hengd
from hengd.logs import FIELDS, MAX_QUEUED, Logs, start_logs

TOP = Path(hengd.__file__).parent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level


def said(
    form: str, *, stream: io.StringIO | None = None, environ: dict[str, str] | None = None, level: str = "info"
) -> str:
    """What is written for a few events."""
    out = stream if stream is not None else io.StringIO()
    logs = start_logs(level, form, stream=out, environ=environ or {})
    log = logging.getLogger("hengd.test")
    log.debug("too quiet")
    log.info("lamp-1 reports %s", "applied", extra={"event": "report", "device": "lamp-1", "revision": 7})
    log.warning("forged\nline\x1b[31m \u202ered")
    try:
        raise ValueError("inside")
    except ValueError:
        log.exception("it failed", extra={"event": "failed"})
    logs.stop()
    return out.getvalue()


def test_text_is_for_people() -> None:
    text = said("text")
    first, second, third, *trace = text.splitlines()
    assert first.endswith(" info    lamp-1 reports applied device=lamp-1 revision=7")
    assert "\x1b" not in second
    assert "forged\\nline" in second
    assert "it failed" in third
    assert trace[-1].endswith("ValueError: inside")
    assert "too quiet" not in text


def test_json_is_one_object_a_line() -> None:
    lines = [json.loads(line) for line in said("json").splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert (lines[0]["event"], lines[0]["device"], lines[0]["revision"]) == ("report", "lamp-1", "7")
    assert lines[1]["msg"].startswith("forged\nline")
    assert "ValueError: inside" in lines[2]["err"]
    assert lines[0]["ts"].endswith("Z")


def test_logfmt_is_one_line_with_the_journals_priority() -> None:
    lines = said("logfmt").splitlines()
    assert [line[:3] for line in lines] == ["<6>", "<4>", "<3>"]
    assert 'device="lamp-1"' in lines[0]
    assert all(line.isascii() for line in lines)


@pytest.mark.parametrize(
    ("stream", "environ", "start"),
    [(Terminal(), {}, ""), (io.StringIO(), {"JOURNAL_STREAM": "8:1"}, "<"), (io.StringIO(), {}, "{")],
)
def test_auto_chooses_by_where_the_lines_go(stream: io.StringIO, environ: dict[str, str], start: str) -> None:
    assert said("auto", stream=stream, environ=environ).startswith(start)


def test_colour_is_for_terminals_that_want_it() -> None:
    assert "\x1b[33m" in said("text", stream=Terminal())
    assert "\x1b" not in said("text", stream=Terminal(), environ={"NO_COLOR": "1"})


def test_debug_says_more() -> None:
    assert "too quiet" in said("text", level="debug")


def test_a_reader_that_does_not_read_costs_lines_and_blocks_nobody() -> None:
    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            raise BlockingIOError

    logs = Logs("info", "json", Stuck(), {})
    logs._listener.stop()  # nobody takes lines out of the queue
    log: Any = logging.getLogger("hengd.test")
    for number in range(MAX_QUEUED + 50):
        log.info("line %d", number)
    handler: Any = logging.getLogger().handlers[0]
    assert handler.dropped == 50

    while not handler.queue.empty():
        handler.queue.get_nowait()
    log.info("and on")

    assert [handler.queue.get_nowait().getMessage() for _ in range(2)] == [
        "50 log lines were dropped here: nobody read them fast enough",
        "and on",
    ]


def event_keys(source: str) -> Iterator[set[str]]:
    """The keys of every mapping that has an ``event``: what goes along with a log line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if "event" in keys:
                yield keys


def test_no_field_of_a_line_is_lost_in_writing_it() -> None:
    said = [keys for path in TOP.rglob("*.py") for keys in event_keys(path.read_text())]

    assert len(said) > 20
    assert set().union(*said) <= set(FIELDS)
